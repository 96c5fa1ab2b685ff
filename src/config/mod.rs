//! The configuration mechanism: the layers, the reader of a section, and the report of all problems. `settings` and the
//! extractor kinds define the keys.

mod deserializer;
mod fingerprint;
mod layers;
mod problems;
mod reader;
mod schema;
mod section;
mod structured;
mod suggest;
mod value_origin;
mod values;

pub use fingerprint::FileFingerprint;
pub use layers::Sources;
pub(crate) use layers::{PORT, lay, parse};
pub(crate) use problems::escape_controls;
pub use problems::{Problems, Warnings};
pub(crate) use reader::{Table, join, keys_of, no_section, read, take};
pub(crate) use schema::properties;
pub use section::Section;
pub(crate) use section::{Elsewhere, Findings};
pub(crate) use suggest::unknown;
pub(crate) use value_origin::ValueOrigin;
pub use values::{HumanDuration, List, PublicText};

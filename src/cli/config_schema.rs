//! `config-schema`: the JSON Schema of the configuration. `settings/schema.rs` makes it from the keys of the sections.

use super::{Failure, context, say};
use crate::session::registry::Registry;
use crate::settings::schema;

pub(super) fn run(registry: &Registry) -> Result<(), Failure> {
    say(format_args!("{:#}", schema::schema(registry, &context())))
}

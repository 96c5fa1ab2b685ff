//! A kind of extractor: how one is built from its section, and what the section may leave out.

use std::sync::Arc;

use crate::config::{Problems, Section};
use crate::session::backends::Context;
use crate::session::types::SessionExtractor;

/// Makes an extractor from its section. Must not touch the network: `check-config` calls it too.
pub type Build = fn(&Section<'_>, &Context) -> Result<Arc<dyn SessionExtractor>, Problems>;

/// A kind of extractor: how it is built, and what a section of that kind may leave out.
#[derive(Clone, Debug)]
pub struct Kind {
    pub build: Build,
    /// The `subject` of a section that names none.
    pub subject: &'static str,
    /// Keys by preset, as TOML; an explicit key wins.
    pub presets: &'static [(&'static str, &'static str)],
}

impl Kind {
    /// A kind without presets whose subject is `{sub}` unless configured.
    pub const fn new(build: Build) -> Self {
        Self {
            build,
            subject: "{sub}",
            presets: &[],
        }
    }
}

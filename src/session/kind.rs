//! A kind of extractor: the function that builds an extractor from its section, and the defaults of that section.

use std::sync::Arc;

use crate::config::{Problems, Section};
use crate::session::backends::Context;
use crate::session::types::SessionExtractor;

/// Builds an extractor from its section. It must not use the network, because `check-config` works offline.
pub type Build = fn(&Section<'_>, &Context) -> Result<Arc<dyn SessionExtractor>, Problems>;

/// The extractor, or the problems of its section.
pub(crate) type BuildResult = Result<Arc<dyn SessionExtractor>, Problems>;

/// A kind of extractor.
#[derive(Clone, Debug)]
pub struct Kind {
    pub build: Build,
    /// The default of `subject`.
    pub subject: &'static str,
    /// Presets by name, with their keys in TOML. A key that the section sets takes precedence.
    pub presets: &'static [(&'static str, &'static str)],
}

impl Kind {
    /// Creates a kind without presets, whose default `subject` is `{sub}`.
    pub const fn new(build: Build) -> Self {
        Self {
            build,
            subject: "{sub}",
            presets: &[],
        }
    }

    pub(crate) const fn with_subject(self, subject: &'static str) -> Self {
        Self { subject, ..self }
    }

    pub(crate) const fn with_presets(
        self,
        presets: &'static [(&'static str, &'static str)],
    ) -> Self {
        Self { presets, ..self }
    }

    /// The preset called `name`: its name with a static lifetime, and its keys.
    pub(crate) fn preset(&self, name: &str) -> Option<(&'static str, &'static str)> {
        self.presets
            .iter()
            .copied()
            .find(|(known, _)| *known == name)
    }
}

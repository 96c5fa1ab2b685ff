//! Names of kinds and presets that the shell completes. The command may accept other names as well.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};

use crate::session::registry::Registry;

/// Offers these names to the shell. Accepts any string, because an embedding program may have added kinds; the command
/// itself refuses unknown names.
#[derive(Clone)]
pub(super) struct Offered(fn() -> Vec<&'static str>);

/// Offers the built-in kinds that `init` can write.
pub(super) fn kinds() -> Offered {
    Offered(|| {
        let registry = Registry::builtin();
        registry
            .names()
            .filter(|kind| *kind != "static_user")
            .collect()
    })
}

/// Offers the presets of the built-in kinds.
pub(super) fn presets() -> Offered {
    Offered(|| {
        let registry = Registry::builtin();
        let kinds = registry.names().filter_map(|name| registry.entry(name));
        let mut presets: Vec<&str> = kinds
            .flat_map(|(_, kind)| kind.presets)
            .map(|(preset, _)| *preset)
            .collect();
        presets.sort_unstable();
        presets.dedup();
        presets
    })
}

impl TypedValueParser for Offered {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new((self.0)().into_iter().map(PossibleValue::new)))
    }
}

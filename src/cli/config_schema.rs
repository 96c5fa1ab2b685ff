//! `config-schema`: the JSON Schema of the configuration. It is made from the sections' keys, in `settings/schema.rs`.

use super::{Failure, context, say};
use crate::session::registry::Registry;
use crate::settings::schema;

pub(super) fn run(registry: &Registry) -> Result<(), Failure> {
    say(format_args!("{:#}", schema::schema(registry, &context())))
}

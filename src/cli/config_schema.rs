//! `config-schema`: prints the JSON Schema of the configuration, which `settings/schema.rs` builds from the sections'
//! keys.

use super::{Failure, context, say};
use crate::session::registry::Registry;
use crate::settings::schema;

pub(super) fn run(registry: &Registry) -> Result<(), Failure> {
    say(format_args!("{:#}", schema::schema(registry, &context())))
}

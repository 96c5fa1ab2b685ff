//! The JSON Schema of the whole configuration, for editors. The keys come from the sections' structs, and their
//! descriptions from `config/default.toml`.

use serde_json::{Map, Value, json};

use super::client::ClientConfig;
use super::log::LogConfig;
use super::origins::OriginsConfig;
use super::reload::ReloadConfig;
use super::session::SessionConfig;
use super::token::TokenConfig;
use super::{RateLimitConfig, ServerConfig, ServerRestartConfig};
use crate::config::properties;
use crate::session::backends::Context;
use crate::session::backends::outgoing::OutgoingConfig;
use crate::session::builder::properties_of_kind;
use crate::session::registry::Registry;

const DEFAULTS: &str = include_str!("../../config/default.toml");

/// The schema of a configuration with the extractor kinds of `registry`.
pub fn schema(registry: &Registry, context: &Context) -> Value {
    let mut server = properties::<ServerRestartConfig>();
    server.extend(properties::<ServerConfig>());
    let sections = [
        ("server", server),
        ("token", properties::<TokenConfig>()),
        ("origins", properties::<OriginsConfig>()),
        ("outgoing", properties::<OutgoingConfig>()),
        ("session", properties::<SessionConfig>()),
        ("rate_limit", properties::<RateLimitConfig>()),
        ("log", properties::<LogConfig>()),
        ("reload", properties::<ReloadConfig>()),
    ];
    let mut all = properties::<ClientConfig>();
    for (name, keys) in sections {
        let keys = described(keys, &format!("[{name}]"));
        all.insert(name.to_owned(), object(keys));
    }
    all.insert("extractors".to_owned(), extractors(registry));
    let kinds = registry.names().filter_map(|kind| {
        let keys = properties_of_kind(registry, kind, context)?;
        let keys = described(keys, &format!("# [extractors.{kind}]"));
        Some((kind.to_owned(), object(keys)))
    });
    let mut schema = object(all);
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = concat!("rollout-token ", env!("CARGO_PKG_VERSION")).into();
    schema["$defs"] = Value::Object(kinds.collect());
    schema
}

fn object(properties: Map<String, Value>) -> Value {
    let properties = Value::Object(properties);
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

/// The schema of `[extractors]`. Each section in it has the keys of its kind. A section with the name of a kind may
/// omit `kind`.
fn extractors(registry: &Registry) -> Value {
    let by_kind = registry.names().map(|kind| {
        json!({
            "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
            "then": reference(kind),
        })
    });
    let by_kind: Vec<Value> = by_kind.collect();
    let kinds: Vec<&str> = registry.names().collect();
    let section = json!({
        "type": "object",
        "properties": {"kind": {"enum": kinds}},
        "allOf": by_kind,
    });
    let mut of_other_names = section.clone();
    of_other_names["required"] = json!(["kind"]);
    let called_like_kinds = registry.names().map(|kind| {
        let mut section = section.clone();
        section["if"] = json!({"not": {"required": ["kind"]}});
        section["then"] = reference(kind);
        (kind.to_owned(), section)
    });
    json!({
        "type": "object",
        "properties": called_like_kinds.collect::<Map<_, _>>(),
        "additionalProperties": of_other_names,
    })
}

fn reference(kind: &str) -> Value {
    json!({"$ref": format!("#/$defs/{kind}")})
}

/// Adds the descriptions from `config/default.toml` to the keys of the section with this header.
fn described(mut keys: Map<String, Value>, head: &str) -> Map<String, Value> {
    let section = DEFAULTS.lines().skip_while(|line| !line.starts_with(head));
    let lines = section.skip(1).take_while(|line| !line.is_empty());
    for line in lines {
        let line = line.trim_start_matches("# ");
        let (Some((key, _)), Some((_, meaning))) =
            (line.split_once(" = "), line.rsplit_once(" # "))
        else {
            continue;
        };
        if let Some(property) = keys.get_mut(key) {
            let meaning = meaning.trim().trim_start_matches("example: ");
            property["description"] = meaning.into();
        }
    }
    keys
}

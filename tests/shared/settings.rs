//! A builder for configurations in tests: TOML text that a test changes key by key.

use std::fmt;

use toml::{Table, Value};

/// A configuration file as a table of keys.
#[derive(Clone, Debug)]
pub struct ConfigBuilder(Table);

impl ConfigBuilder {
    pub fn new(toml: &str) -> Self {
        Self(parse(toml))
    }

    /// Overrides these keys: `.with("server.max_connections = 64")`.
    pub fn with(mut self, toml: impl AsRef<str>) -> Self {
        merge(&mut self.0, parse(toml.as_ref()));
        self
    }

    /// Removes one key: `.without("extractors.web.issuers")`.
    pub fn without(mut self, path: &str) -> Self {
        let (tables, key) = path.rsplit_once('.').unwrap_or(("", path));
        let table =
            tables
                .split('.')
                .filter(|name| !name.is_empty())
                .fold(&mut self.0, |table, name| {
                    table[name]
                        .as_table_mut()
                        .unwrap_or_else(|| panic!("{name} in {path} is not a table"))
                });
        assert!(table.remove(key).is_some(), "there is no {path}");
        self
    }
}

impl fmt::Display for ConfigBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn parse(toml: &str) -> Table {
    toml.parse()
        .unwrap_or_else(|error| panic!("{error} in {toml}"))
}

fn merge(below: &mut Table, above: Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above),
            (_, value) => drop(below.insert(key, value)),
        }
    }
}

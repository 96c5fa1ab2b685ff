//! A section that `detect` suggests, in two forms: a configuration file and environment variables.

use std::borrow::Cow;
use std::fmt::Write as _;

use toml::{Table, Value};
use url::Url;

use crate::session::formats::loopback::is_loopback;

/// The name of the drafted section.
pub const SECTION: &str = "web";

/// The address of the app in an example, if the request does not name the app's host.
pub(super) const APP: &str = "http://localhost:3000";
/// The path of a "who am I" URL in an example.
const WHO_AM_I: &str = "/api/me";

/// A suggested section for one kind.
#[derive(Clone, Debug)]
pub struct Draft {
    pub kind: &'static str,
    pub preset: Option<&'static str>,
    pub keys: Vec<DraftKey>,
}

/// A key of a drafted section.
#[derive(Clone, Debug)]
pub struct DraftKey {
    pub name: Cow<'static, str>,
    /// The value; an empty string for a secret.
    pub value: Value,
    /// The value's meaning in the framework's own terms, or what the operator has to change.
    pub comment: String,
    pub role: Role,
}

/// The source of a key's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The value follows from the request, the product or a flag, so the operator need not change it.
    Known,
    /// The value is an example that the operator replaces.
    Example,
    /// The operator supplies the value, in a separate file or environment variable.
    Secret,
}

impl DraftKey {
    /// The comment in the printed section. It marks a value that the operator must replace.
    fn note(&self) -> String {
        match (self.role, self.comment.as_str()) {
            (Role::Example, "") => "an example: replace it".to_owned(),
            (Role::Example, comment) => format!("an example: replace it ({comment})"),
            (Role::Known | Role::Secret, comment) => comment.to_owned(),
        }
    }

    /// Whether the key holds a list of secrets. Such keys have names in the plural.
    pub fn is_list(&self) -> bool {
        self.name.ends_with('s')
    }
}

impl Draft {
    pub(crate) fn new(kind: &'static str) -> Self {
        Self {
            kind,
            preset: None,
            keys: Vec::new(),
        }
    }

    pub(crate) fn preset(self, preset: impl Into<Option<&'static str>>) -> Self {
        Self {
            preset: preset.into(),
            ..self
        }
    }

    pub(crate) fn key(self, name: &'static str, value: impl Into<Value>) -> Self {
        self.push(name, value.into(), "", Role::Known)
    }

    /// Adds a key, unless its value is one of the defaults in `usual`.
    pub(crate) fn unless(self, name: &'static str, value: &str, usual: &[&str]) -> Self {
        if usual.contains(&value) {
            self
        } else {
            self.key(name, value)
        }
    }

    pub(crate) fn example(
        self,
        name: &'static str,
        value: impl Into<Value>,
        comment: impl Into<String>,
    ) -> Self {
        self.push(name, value.into(), comment, Role::Example)
    }

    /// Adds the address of the app's Redis.
    pub(crate) fn redis(self) -> Self {
        self.example("url", "redis://localhost:6379", "the app's Redis")
    }

    /// Adds the address of the app's database.
    pub(crate) fn database(self) -> Self {
        self.example("url", "postgres://localhost:5432/app", "the app's database")
    }

    /// Adds the address of the app, for a preset that sets the path.
    pub(crate) fn app(self) -> Self {
        self.example("url", APP, "the app's address")
    }

    /// Adds the proxies that may set a header which names the user.
    pub(crate) fn trusted_proxies(self) -> Self {
        let comment = "the proxy's address, as this service sees it";
        self.example("trusted_proxies", vec!["10.0.0.5"], comment)
    }
    /// Adds the issuer's introspection endpoint, the client credentials of this service, and the client ids of the apps
    /// whose tokens are accepted.
    pub(crate) fn introspection(self, url: &str) -> Self {
        self.example("url", url, "the issuer's introspection endpoint")
            .example(
                "client_id",
                "rollout-token",
                "the client id of this service at the issuer",
            )
            .secret("client_secret", "the secret of this client")
            .example(
                "client_ids",
                vec!["web"],
                "the apps whose tokens you accept",
            )
    }

    /// Adds the likeliest subject, unless it is the default `usual`. If no subject was found, adds `usual` as an
    /// example.
    pub(crate) fn subject(self, subjects: &[String], usual: &str) -> Self {
        match subjects.first() {
            Some(subject) if subject != usual => self.key("subject", subject.as_str()),
            Some(_) => self,
            None => self.example("subject", usual, "where the app keeps the user's id"),
        }
    }
    /// Drafts a call to the app's own "who am I" URL, for sessions that no other kind can read. Without `cookies`, the
    /// credential is in `Authorization`.
    pub(crate) fn ask(cookies: &[&str]) -> Self {
        let draft = Self::new("session_endpoint").example(
            "url",
            format!("{APP}{WHO_AM_I}"),
            "a URL of the app that returns the signed-in user",
        );
        let draft = if cookies.is_empty() {
            draft.key("forward_headers", vec!["Authorization"])
        } else {
            draft.key("cookies", cookies.to_vec())
        };
        draft.example(
            "subject",
            "{user.id}",
            "the path of the user's id in the answer",
        )
    }
    /// Drafts a section that calls the app's endpoint with this cookie or, if it is `None`, with `Authorization`.
    pub(crate) fn ask_with(cookie: Option<&str>) -> Self {
        Self::ask(cookie.as_slice())
    }

    /// Drafts a call to the session endpoint of an Auth.js app.
    pub(crate) fn ask_authjs() -> Self {
        Self::new("session_endpoint")
            .preset("authjs")
            .app()
            .example(
                "subject",
                "{user.id}",
                "a stable id, which the app's session callback must add",
            )
    }

    pub(crate) fn secret(self, name: &'static str, what: &str) -> Self {
        self.push(name, Value::String(String::new()), what, Role::Secret)
    }

    /// Sets a key to a string, or to a list if the key holds a list. A dotted key names a member of a table.
    ///
    /// # Errors
    /// If the key is dotted, and the part before the dot names a value that is not a table.
    pub fn set(&mut self, key: &str, text: &str) -> Result<(), String> {
        let (name, member) = key.split_once('.').unwrap_or((key, ""));
        let known = self.keys.iter().position(|known| known.name == name);
        let old = known.map(|index| &self.keys[index].value);
        let mut value = match old {
            Some(Value::Array(_)) => text.split(',').map(str::trim).collect::<Vec<_>>().into(),
            _ => Value::String(text.to_owned()),
        };
        if !member.is_empty() {
            let mut table = match old {
                Some(Value::Table(table)) => table.clone(),
                None => Table::new(),
                Some(_) => return Err(format!("{name} is not a table")),
            };
            table.insert(member.to_owned(), value);
            value = Value::Table(table);
        }
        let key = DraftKey {
            name: name.to_owned().into(),
            value,
            comment: String::new(),
            role: Role::Known,
        };
        match known {
            Some(index) => self.keys[index] = key,
            None => self.keys.push(key),
        }
        Ok(())
    }

    /// Replaces the app's origin in the examples with the [`public_origin`] of a request to the app. If that request
    /// seems to call a "who am I" URL, its path replaces the example path.
    pub(super) fn address(&mut self, request: &Url) {
        let asks = request
            .path_segments()
            .and_then(|mut segments| segments.next_back())
            .is_some_and(|last| ["me", "whoami", "userinfo", "session", "user"].contains(&last));
        let origin = public_origin(request);
        for key in self.keys.iter_mut().filter(|key| key.role == Role::Example) {
            let Some(path) = key.value.as_str().and_then(|url| url.strip_prefix(APP)) else {
                continue;
            };
            let path = if path == WHO_AM_I && asks {
                request.path()
            } else {
                path
            };
            key.value = format!("{origin}{path}").into();
        }
    }

    /// The keys whose values are examples, which the operator replaces.
    pub fn examples(&self) -> impl Iterator<Item = &DraftKey> {
        self.keys.iter().filter(|key| key.role == Role::Example)
    }

    fn push(
        mut self,
        name: &'static str,
        value: Value,
        comment: impl Into<String>,
        role: Role,
    ) -> Self {
        self.keys.push(DraftKey {
            name: name.into(),
            value,
            comment: comment.into(),
            role,
        });
        self
    }

    /// The names of the keys whose values are secrets.
    pub fn secrets(&self) -> Vec<Cow<'static, str>> {
        self.secret_keys().map(|key| key.name.clone()).collect()
    }

    pub fn secret_keys(&self) -> impl Iterator<Item = &DraftKey> {
        self.keys.iter().filter(|key| key.role == Role::Secret)
    }

    /// The configuration with only this section. `secret` returns the line for a secret, or `None` to omit it.
    pub fn to_toml(&self, secret: impl Fn(&DraftKey) -> Option<String>) -> String {
        let mut lines = vec![(format!("kind = \"{}\"", self.kind), String::new())];
        if let Some(preset) = self.preset {
            lines.push((format!("preset = \"{preset}\""), String::new()));
        }
        for key in self.keys.iter().filter(|key| key.role != Role::Secret) {
            lines.push((format!("{} = {}", key.name, key.value), key.note()));
        }
        let commented = lines.iter().filter(|(_, comment)| !comment.is_empty());
        let width = commented.map(|(line, _)| line.chars().count()).max();
        let width = width.unwrap_or_default();
        let mut text =
            format!("[session]\nextractors = [\"{SECTION}\"]\n\n[extractors.{SECTION}]\n");
        for (line, comment) in &lines {
            let _ = match comment.as_str() {
                "" => writeln!(text, "{line}"),
                comment => writeln!(text, "{line:<width$}  # {comment}"),
            };
        }
        for line in self.secret_keys().filter_map(secret) {
            text.push_str(&line);
            text.push('\n');
        }
        text
    }

    /// The configuration as a file. For each secret, it has a key `NAME_file` with the path of a separate file.
    pub fn to_file(&self) -> String {
        self.to_toml(|key| {
            Some(format!(
                "{0}_file = \"/run/secrets/{0}\"  # {1}",
                key.name, key.comment
            ))
        })
    }

    /// The configuration as environment variables: name, value, comment. The value of a secret is empty.
    pub fn to_variables(&self) -> Vec<(String, String, String)> {
        let of = |name: &str, value: &str| (name.to_owned(), value.to_owned(), String::new());
        let mut variables = vec![
            of("ROLLOUT__SESSION__EXTRACTORS", SECTION),
            of(&variable("kind"), self.kind),
        ];
        variables.extend(self.preset.map(|preset| of(&variable("preset"), preset)));
        for key in &self.keys {
            flatten(
                &variable(&key.name),
                &key.value,
                &key.note(),
                &mut variables,
            );
        }
        variables
    }
}

/// The origin of a URL, with `https` in place of `http` unless the host is loopback, because the service calls no other
/// host over `http` unless `allow_http` is set.
pub(super) fn public_origin(url: &Url) -> String {
    let is_loopback = url.host_str().is_some_and(is_loopback);
    let origin = url.origin().ascii_serialization();
    match origin.strip_prefix("http://") {
        Some(authority) if !is_loopback => format!("https://{authority}"),
        _ => origin,
    }
}

/// The environment variable for a key of the drafted section. In a dotted key, a member name with an upper-case
/// letter keeps its case.
pub fn variable(key: &str) -> String {
    let (first, rest) = key.split_once('.').unwrap_or((key, ""));
    let mut name = format!(
        "ROLLOUT__EXTRACTORS__{}__{}",
        SECTION.to_ascii_uppercase(),
        first.to_ascii_uppercase()
    );
    for part in rest.split('.').filter(|part| !part.is_empty()) {
        name = format!("{name}__{}", folded(part));
    }
    name
}

/// The name of a claim or header as part of an environment variable. A name without upper-case letters is written in
/// upper case, and converted back to lower case when the service reads the variable.
fn folded(name: &str) -> String {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        name.to_owned()
    } else {
        name.to_ascii_uppercase()
    }
}

fn flatten(
    name: &str,
    value: &Value,
    comment: &str,
    variables: &mut Vec<(String, String, String)>,
) {
    match value {
        Value::Table(members) => {
            for (member, value) in members {
                let name = format!("{name}__{}", folded(member));
                flatten(&name, value, comment, variables);
            }
        }
        value => variables.push((name.to_owned(), plain(value), comment.to_owned())),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

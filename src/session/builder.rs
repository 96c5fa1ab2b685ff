//! Builds the chain from `session.extractors` and the sections listed there. Each kind in `extractors` defines the keys
//! of its section.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use config::{Value, ValueKind};

use crate::config::{
    Elsewhere, FileFingerprint, Findings, Problems, Section, Table, Warnings, join, lay,
    no_section, parse, properties, read, take, unknown,
};
use crate::session::backends::Context;
use crate::session::backends::outgoing::Outgoing;
use crate::session::chain::{Chain, ConfiguredExtractor};
use crate::session::kind::Kind;
use crate::session::registry::{Registry, sections_for};
use crate::session::subject::{SubjectRule, Template, VerifiedEmail};

/// The result of building the chain.
#[derive(Debug, Default)]
pub(crate) struct Built {
    pub(crate) chain: Chain,
    /// The effective sections by name, with defaults and presets applied.
    pub(crate) effective: serde_json::Map<String, serde_json::Value>,
    /// The inputs of each extractor, by the extractor's name.
    pub(crate) sources: BTreeMap<String, BuiltFrom>,
    pub(crate) warnings: Warnings,
    /// The number of secrets in each list or table of secrets, with the full key of that list or table.
    pub(crate) secret_counts: Vec<(String, usize)>,
}

/// The inputs from which an extractor was built. A reload keeps the extractor if they have not changed.
#[derive(PartialEq)]
pub(crate) struct BuiltFrom {
    section: Table,
    /// `token.cap_to_session`. If it is true, `redis_session` also reads the expiry of the session's key.
    cap_to_session: bool,
    /// `[outgoing]`, whose keys a section may override.
    outgoing: Outgoing,
    /// The fingerprints of the files that the section names, such as files with secrets or public keys.
    pub(crate) files: Vec<FileFingerprint>,
}

impl fmt::Debug for BuiltFrom {
    /// Omits the section, because it contains secrets in plain text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuiltFrom")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

/// Builds extractors from their sections.
pub(crate) struct Builder<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) elsewhere: Elsewhere<'a>,
    pub(crate) context: &'a Context,
}

/// The keys that the sections of all kinds have in common.
#[derive(Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Common {
    kind: Option<String>,
    subject: Option<String>,
    preset: Option<String>,
    allow_unverified_email: Option<bool>,
    allow_ambiguous_subject: Option<bool>,
}

impl Common {
    pub(crate) const KEYS: [&'static str; 5] = [
        "kind",
        "subject",
        "preset",
        "allow_unverified_email",
        "allow_ambiguous_subject",
    ];

    /// Returns these keys, with the preset's keys as defaults.
    fn or_from(self, preset: Self) -> Self {
        Self {
            kind: self.kind,
            preset: self.preset,
            subject: self.subject.or(preset.subject),
            allow_unverified_email: self
                .allow_unverified_email
                .or(preset.allow_unverified_email),
            allow_ambiguous_subject: self
                .allow_ambiguous_subject
                .or(preset.allow_ambiguous_subject),
        }
    }
}

impl Builder<'_> {
    /// Builds the extractors called `names`, in that order. Reports an empty list, a repeated name and every other
    /// section as a problem.
    pub(crate) fn chain(
        &self,
        names: &[String],
        mut sections: Table,
        problems: &mut Problems,
    ) -> Built {
        let mut built = Built::default();
        let mut extractors = Vec::new();
        if names.is_empty() {
            problems.add(
                "session.extractors",
                "is empty, so every request would get 401 no_session: in a file for --config, set it to [\"web\"] and \
                 add a section [extractors.web]; or set ROLLOUT__SESSION__EXTRACTORS",
            );
        }
        for (index, name) in names.iter().enumerate() {
            if names[..index].contains(name) {
                problems.add("session.extractors", format!("names {name} twice"));
            } else if let Some(table) = self.table(name, &mut sections, problems) {
                extractors.extend(self.configure(name, table, &mut built, problems));
            }
        }
        for unused in sections.keys().collect::<BTreeSet<_>>() {
            let joined = |name: &String| {
                let key = unused.strip_prefix(name.as_str())?.strip_prefix('_')?;
                Some(format!("ROLLOUT__EXTRACTORS__{name}__{key}").to_uppercase())
            };
            let text = match names.iter().find_map(joined) {
                Some(variable) => format!(
                    "is not in session.extractors: did you mean {variable}? In a variable's name, two underscores \
                     separate the parts"
                ),
                None => {
                    "is not used: add it to session.extractors or remove the section".to_owned()
                }
            };
            problems.add(join("extractors", unused), text);
        }
        built.chain = Chain::new(extractors);
        built.warnings.extend(built.chain.warnings());
        built
    }

    /// The section of the extractor called `name`. The section may be missing if the name is a kind, because some kinds
    /// have no required keys.
    fn table(&self, name: &str, sections: &mut Table, problems: &mut Problems) -> Option<Table> {
        let path = join("extractors", name);
        let is_plain = name.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte)
        });
        let section = sections.remove(name);
        if !is_plain || name.len() > 64 {
            problems.add(
                path,
                "an extractor's name must consist of at most 64 lower-case letters, digits, `_` and `-`, so that a \
                 variable's name can contain it",
            );
            return None;
        }
        match section {
            Some(Value {
                kind: ValueKind::Table(table),
                ..
            }) => Some(table),
            None if self.registry.entry(name).is_some() => Some(Table::new()),
            Some(value) => {
                problems.add(&path, no_section(&path, &value));
                None
            }
            None => {
                problems.add(
                    &path,
                    format!("is in session.extractors, but there is no section [{path}]"),
                );
                None
            }
        }
    }

    /// The message for a section whose kind is unknown or missing. Often the given kind is the name of a provider, for
    /// which there is a preset, or of a library.
    fn wrong_kind(&self, name: &str, common: &Common) -> String {
        let given = common.kind.as_deref();
        let spelled = given.unwrap_or(name).replace('-', "_");
        if let (None, Some((kind, _))) = (&common.preset, self.registry.entry(&spelled)) {
            return format!("must be spelled with underscores: write kind = \"{kind}\"");
        }
        let names = [common.preset.as_deref(), given, Some(name)];
        let found = names
            .into_iter()
            .flatten()
            .find_map(|preset| Some((preset, self.kinds_with(preset)?)));
        match (found, given) {
            (Some((preset, kinds)), _) => {
                let ways = kinds.iter().map(|kind| format!("kind = \"{kind}\""));
                let ways: Vec<String> = ways.collect();
                format!(
                    "must be a kind, but {preset} is a preset: write {}, preset = \"{preset}\"",
                    ways.join(" or ")
                )
            }
            (None, given) if let Some(sections) = sections_for(given.unwrap_or(name)) => {
                let ways = sections.iter().map(|(kind, preset)| match preset {
                    Some(preset) => format!("kind = \"{kind}\", preset = \"{preset}\""),
                    None => format!("kind = \"{kind}\""),
                });
                let (ways, library) = (
                    ways.collect::<Vec<_>>().join(", or "),
                    given.unwrap_or(name),
                );
                format!("must be a kind, but {library} is a library: write {ways}")
            }
            (None, Some(kind)) => unknown("kind", kind, self.registry.names()),
            (None, None) => {
                let known = self.registry.names().collect::<Vec<_>>().join(", ");
                format!(
                    "is missing, and the section's name {name} is not a kind. The kinds are {known}"
                )
            }
        }
    }

    fn kinds_with(&self, preset: &str) -> Option<Vec<&'static str>> {
        let has = |kind: &&str| {
            let entry = self.registry.entry(kind);
            entry.is_some_and(|(_, kind)| kind.preset(preset).is_some())
        };
        Some(self.registry.names().filter(has).collect()).filter(|kinds: &Vec<_>| !kinds.is_empty())
    }

    fn configure(
        &self,
        name: &str,
        mut table: Table,
        built: &mut Built,
        problems: &mut Problems,
    ) -> Option<ConfiguredExtractor> {
        let path = join("extractors", name);
        let section = table.clone();
        let common = take(&mut table, &Common::KEYS);
        let common: Common = read(&path, &common, &[], &mut Vec::new(), problems);
        let Some((kind_name, kind)) = self.registry.entry(common.kind.as_deref().unwrap_or(name))
        else {
            problems.add(join(&path, "kind"), self.wrong_kind(name, &common));
            return None;
        };
        // A preset may set the default of `subject`, or the message for a section without `subject`.
        let mut preset_subject = Table::new();
        if let Some(preset) = &common.preset {
            match preset_keys(kind, preset) {
                Ok(mut keys) => {
                    preset_subject = take(&mut keys, &Common::KEYS);
                    preset_subject.extend(take(&mut keys, &["subject_missing"]));
                    remove_overridden_members(&mut keys, &table);
                    let own = std::mem::replace(&mut table, keys);
                    lay(own, &mut table, &path, problems);
                }
                Err(text) => problems.add(join(&path, "preset"), text),
            }
        }
        let names_subject = common.subject.is_some();
        let subject_missing = preset_subject
            .remove("subject_missing")
            .and_then(|text| text.into_string().ok());
        let from_preset = read(&path, &preset_subject, &[], &mut Vec::new(), problems);
        let common = common.or_from(from_preset);
        let subject = common.subject.as_deref().unwrap_or(kind.subject).to_owned();
        let rule = subject_rule(&path, kind_name, &subject, &common, problems);

        let mut keys = Section::new(path, table, &Common::KEYS, self.elsewhere);
        keys.names_subject = names_subject;
        keys.subject.clone_from(&subject);
        if let Some(text) = subject_missing {
            keys.require_subject(&text, problems);
        }
        let extractor = (kind.build)(&keys, self.context);
        let findings = keys.into_findings();
        built.sources.insert(
            name.to_owned(),
            BuiltFrom {
                section,
                cap_to_session: self.elsewhere.cap_to_session,
                outgoing: self.context.http.outgoing().clone(),
                files: findings.fingerprints,
            },
        );
        built.warnings.extend(findings.warnings);
        built.secret_counts.extend(findings.secret_counts);
        if let Some(serde_json::Value::Object(mut keys)) = findings.effective {
            keys.insert("kind".to_owned(), kind_name.into());
            keys.insert("subject".to_owned(), subject.into());
            for (key, value) in [
                ("allow_unverified_email", common.allow_unverified_email),
                ("allow_ambiguous_subject", common.allow_ambiguous_subject),
            ] {
                keys.insert(key.to_owned(), value.unwrap_or_default().into());
            }
            built.effective.insert(name.to_owned(), keys.into());
        }
        match extractor {
            Ok(extractor) => Some(ConfiguredExtractor {
                name: Arc::from(name),
                kind: kind_name,
                subject: rule?,
                extractor,
            }),
            Err(found) => {
                problems.extend(found);
                None
            }
        }
    }
}

/// Removes the members of a preset's tables that the section also sets. Even if such a member is itself a table, for
/// example a claim rule, the section's member replaces it and is not merged with it.
fn remove_overridden_members(preset: &mut Table, section: &Table) {
    for (key, value) in section {
        if let (
            Some(Value {
                kind: ValueKind::Table(preset),
                ..
            }),
            ValueKind::Table(own),
        ) = (preset.get_mut(key), &value.kind)
        {
            preset.retain(|member, _| !own.contains_key(member));
        }
    }
}

/// The subject rule for the template `subject`, with the checks that the common keys configure.
fn subject_rule(
    path: &str,
    kind: &str,
    subject: &str,
    common: &Common,
    problems: &mut Problems,
) -> Option<SubjectRule> {
    let key = || join(path, "subject");
    let template = problems.accept(key(), subject.parse::<Template>())?;
    let allow_ambiguous = common.allow_ambiguous_subject.unwrap_or_default();
    problems.require(
        template.has_placeholder(),
        key(),
        "has no placeholder, so all users would have the same subject: write for example \"{sub}\"",
    );
    problems.require(
        allow_ambiguous || !template.has_adjacent_placeholders(),
        key(),
        "has two placeholders without text between them, so two users could have the same subject: write for example \
         \"{org}:{sub}\" (or set allow_ambiguous_subject = true)",
    );
    problems.require(
        common.preset.as_deref() != Some("supabase") || !template.reads_below("user_metadata"),
        key(),
        "reads user_metadata, which users can change, so a user could impersonate any other user: use {sub}, or put \
         the id into app_metadata",
    );
    let email = match kind {
        _ if common.allow_unverified_email.unwrap_or_default() => None,
        "jwt" | "introspection" => Some(VerifiedEmail::Oidc),
        "better_auth" => Some(VerifiedEmail::BetterAuth),
        _ => None,
    };
    Some(SubjectRule {
        template,
        email,
        allow_ambiguous,
    })
}

fn preset_keys(kind: &Kind, preset: &str) -> Result<Table, String> {
    if let Some((_, keys)) = kind.preset(preset) {
        return parse(keys, None);
    }
    let known: Vec<&str> = kind.presets.iter().map(|(name, _)| *name).collect();
    if known.is_empty() {
        return Err("this kind has no presets".to_owned());
    }
    Err(format!("must be one of {}", known.join(", ")))
}

/// Builds one extractor from the keys of its section, for [`crate::session::contract`].
#[cfg(any(test, feature = "testing"))]
pub(crate) fn build_extractor(
    registry: &Registry,
    kind: &str,
    toml: &str,
    context: &Context,
) -> Result<Arc<dyn crate::session::types::SessionExtractor>, Problems> {
    let mut problems = Problems::default();
    let table = problems.accept(kind, parse(toml, None)).unwrap_or_default();
    let builder = Builder {
        registry,
        elsewhere: Elsewhere::DEFAULT,
        context,
    };
    let configured = builder.configure(kind, table, &mut Built::default(), &mut problems);
    match configured {
        Some(configured) if problems.is_empty() => Ok(configured.extractor),
        _ => Err(problems),
    }
}

/// The JSON Schema properties of a section of this kind, including the common keys.
pub fn properties_of_kind(
    registry: &Registry,
    kind: &str,
    context: &Context,
) -> Option<serde_json::Map<String, serde_json::Value>> {
    let (name, kind) = registry.entry(kind)?;
    let mut keys = (findings_of(kind, context).properties?)();
    let presets: Vec<&str> = kind.presets.iter().map(|(preset, _)| *preset).collect();
    keys.extend(properties::<Common>());
    keys["kind"] = serde_json::json!({"const": name});
    if presets.is_empty() {
        keys.remove("preset");
    } else {
        keys["preset"] = serde_json::json!({"enum": presets});
    }
    Some(keys)
}

/// The findings from building an extractor of this kind with an empty section.
fn findings_of(kind: &Kind, context: &Context) -> Findings {
    let (path, table) = (String::new(), Table::new());
    let section = Section::new(path, table, &Common::KEYS, Elsewhere::DEFAULT);
    // The problems are ignored, because they only report that required keys are missing.
    let _ = (kind.build)(&section, context);
    section.into_findings()
}

/// The keys of a kind with their defaults, or `null` for a key without a default. Used for the documentation.
pub fn keys_of_kind(
    registry: &Registry,
    kind: &str,
    context: &Context,
) -> Option<serde_json::Value> {
    let (_, kind) = registry.entry(kind)?;
    findings_of(kind, context).effective
}

//! The sessions of real frameworks, sealed into cookies, through the configured chain: `tests/vectors/`.
//! What is damaged on purpose is at the end; the traps of each format are in its own file.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests say what they expect by panicking"
)]

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use axum::http::request::Parts;
use axum::http::{HeaderValue, Request, header};
use futures_util::FutureExt;
use proptest::prelude::*;
use rollout_token::clock::{Clock, ManualClock};
use rollout_token::config::{self, Settings, Sources};
use rollout_token::extractors::{Context, Denial, Registry};
use rollout_token::metrics::Metrics;
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::Value;
use toml::Table;

#[derive(Deserialize)]
struct Family {
    cases: Vec<Case>,
}

#[derive(Clone, Deserialize)]
struct Case {
    name: String,
    config: Value,
    request: Sent,
    /// Missing where no cookie is sent.
    #[serde(default)]
    now: i64,
    expect: Expect,
}

#[derive(Clone, Deserialize)]
struct Sent {
    cookies: Pairs,
    headers: BTreeMap<String, String>,
}

/// The cookies in the order of the file, which is the order in the header.
#[derive(Clone, Default)]
struct Pairs(Vec<(String, String)>);

#[derive(Clone, Deserialize)]
struct Expect {
    outcome: String,
    #[serde(default)]
    also_acceptable: Vec<String>,
    subject: Option<String>,
    subject_if_authenticated: Option<String>,
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("cookies")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = access.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl Case {
    fn text(&self, key: &str) -> &str {
        self.config[key].as_str().unwrap_or_else(|| panic!("{}: {key}", self.name))
    }

    fn accepts(&self, outcome: &str) -> bool {
        self.expect.outcome == outcome || self.expect.also_acceptable.iter().any(|also| also == outcome)
    }

    /// The `Cookie` header as the case means it.
    fn cookie_header(&self) -> Option<String> {
        if let Some(exact) = self.request.headers.get("cookie") {
            return Some(exact.clone());
        }
        let pairs: Vec<_> =
            self.request.cookies.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    fn request(&self) -> Parts {
        request(
            self.cookie_header().as_deref(),
            self.request.headers.get("authorization").map(String::as_str),
        )
    }
}

fn request(cookies: Option<&str>, authorization: Option<&str>) -> Parts {
    let (mut parts, ()) = Request::post("/rollout/token").body(()).unwrap().into_parts();
    for (name, value) in [(header::COOKIE, cookies), (header::AUTHORIZATION, authorization)] {
        if let Some(value) = value {
            parts.headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
    }
    parts
}

fn cases(family: &str) -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(format!("{family}.json"));
    let family: Family = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    family.cases
}

/// A case's `config` in our keys.
fn section(case: &Case) -> Table {
    let mut table = Table::new();
    let mut set = |key: &str, value: &dyn Fn() -> Value| {
        table.insert(key.to_owned(), toml::Value::try_from(value()).unwrap());
    };
    let config = &case.config;
    // What is a default is left out, so that the defaults are tested as well.
    let cookie = case.text("cookie_name");
    if !cookie.ends_with("authjs.session-token") && !cookie.ends_with("next-auth.session-token") {
        set("cookie", &|| cookie.into());
    }
    let subject = case.text("subject_path");
    set("subject", &|| format!("{{{subject}}}").into());
    match case.text("scheme") {
        scheme @ ("authjs-v5" | "nextauth-v4") => {
            set("kind", &|| "authjs".into());
            set("version", &|| scheme[scheme.len() - 2..].into());
            set("secrets", &|| match &config["secret"] {
                Value::Array(list) => list.clone().into(),
                one => vec![one.clone()].into(),
            });
            if ![cookie, ""].contains(&case.text("salt")) {
                set("salt", &|| config["salt"].clone());
            }
            set("accept_bearer", &|| config["accept_bearer"].as_bool().unwrap_or(false).into());
        }
        "iron-session" => {
            set("kind", &|| "iron_session".into());
            set("password", &|| config["password"].clone());
            set("version", &|| config["version"].clone());
        }
        "better-auth-cache" => {
            set("kind", &|| "better_auth".into());
            set("secret", &|| config["secret"].clone());
            set("strategy", &|| config["strategy"].clone());
            set("max_age", &|| format!("{}s", config["max_age"]).into());
        }
        "laravel" => {
            set("kind", &|| "laravel".into());
            for key in ["app_key", "previous_keys", "cipher"] {
                set(key, &|| config[key].clone());
            }
            set("lifetime", &|| format!("{}m", config["lifetime_minutes"]).into());
        }
        scheme => {
            set("kind", &|| "rails".into());
            set("scheme", &|| scheme.strip_prefix("rails-").unwrap().replace('-', "_").into());
            for (ours, theirs) in [
                ("secret_key_base", "secret_key_base"),
                ("digest", "kdf_digest"),
                ("salt", "salt"),
                ("signed_salt", "signed_salt"),
                ("hmac_digest", "hmac_digest"),
                ("purpose", "purpose"),
                ("allow_missing_purpose", "allow_missing_purpose"),
            ] {
                if !config[theirs].is_null() {
                    set(ours, &|| config[theirs].clone());
                }
            }
            if let Some(rotations) = config["rotations"].as_array() {
                let renamed = |rotation: &Value| {
                    serde_json::json!({
                        "secret_key_base": rotation["secret_key_base"], "digest": rotation["kdf_digest"]
                    })
                };
                set("rotations", &|| rotations.iter().map(renamed).collect());
            }
        }
    }
    table
}

fn settings(case: &Case) -> Settings {
    let mut root = Table::new();
    root.insert("session".to_owned(), toml::toml! { extractors = ["web"] }.into());
    root.insert("extractors".to_owned(), Table::from_iter([("web".to_owned(), section(case).into())]).into());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), root.to_string()).unwrap();
    let client =
        [("ROLLOUT_CLIENT_ID", "test"), ("ROLLOUT_CLIENT_SECRET", "another-secret-".repeat(5).leak())];
    let environment = client.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let sources = Sources { files: vec![file.path().to_owned()], environment, ..Sources::default() };
    let context = Context::new(Clock::new(ManualClock::at(case.now)), Arc::new(Metrics::new()));
    config::load(&sources, &Registry::builtin(), &context)
        .unwrap_or_else(|problems| panic!("{}: {problems}", case.name))
}

/// The subject, or the outcome in the vectors' words with our own behind it.
fn authenticate(settings: &Settings, request: &Parts) -> Result<String, (&'static str, String)> {
    let answer = settings.chain.authenticate(request).now_or_never().expect("no waiting");
    match answer {
        Ok(authenticated) => Ok(authenticated.subject.to_string()),
        Err(denied) => Err(match (denied.extractor, denied.denial) {
            (None, denial) => ("not_applicable", format!("{denial:?}")),
            // A session in which nobody is signed in: the vectors call it a rejection.
            (Some(_), Denial::Nobody(word)) => ("rejected", word.to_owned()),
            (Some(_), Denial::Rejected(reason)) => ("rejected", reason.word.to_owned()),
            (Some(_), denial) => ("unavailable", format!("{denial:?}")),
        }),
    }
}

/// What is wrong with our answer to the case.
fn fault(case: &Case) -> Option<String> {
    let answer = authenticate(&settings(case), &case.request());
    let good = match &answer {
        Ok(subject) => {
            let expected = [&case.expect.subject, &case.expect.subject_if_authenticated];
            case.accepts("authenticated") && expected.contains(&&Some(subject.clone()))
        }
        Err((outcome, _)) => case.accepts(outcome),
    };
    (!good).then(|| format!("{}: {} expected, {answer:?}", case.name, case.expect.outcome))
}

#[track_caller]
fn run(cases: &[Case], signed_in: usize) {
    let answered = cases.iter().filter(|case| authenticate(&settings(case), &case.request()).is_ok()).count();
    assert_eq!(answered, signed_in, "cases that are signed in");
    let faults: Vec<String> = cases.iter().filter_map(fault).collect();
    assert!(faults.is_empty(), "{} of {}\n{}", faults.len(), cases.len(), faults.join("\n"));
}

#[test]
fn authjs_v5() {
    let cases = cases("authjs-v5");
    assert_eq!(cases.len(), 81);
    run(&cases, 23);
}

#[test]
fn nextauth_v4() {
    let cases = cases("nextauth-v4");
    assert_eq!(cases.len(), 56);
    run(&cases, 15);
}

#[test]
fn iron_session() {
    let cases = cases("iron-session");
    assert_eq!(cases.len(), 163);
    run(&cases, 28);
}

#[test]
fn better_auth() {
    let (cached, stored): (Vec<_>, Vec<_>) =
        cases("better-auth").into_iter().partition(|case| case.text("scheme") == "better-auth-cache");
    // The stored sessions need the app's database or Redis: other kinds read them.
    assert_eq!((cached.len(), stored.len()), (22, 57));
    run(&cached, 3);
}

#[test]
fn rails() {
    let (twice, once): (Vec<_>, Vec<_>) =
        cases("rails").into_iter().partition(|case| case.request.headers.contains_key("cookie"));
    assert_eq!((once.len(), twice.len()), (297, 12));
    run(&once, 54);
    // Rails takes the first of two cookies; we take neither, as for every kind.
    for case in &twice {
        let answer = authenticate(&settings(case), &case.request());
        assert_eq!(answer, Err(("rejected", "ambiguous_identity".to_owned())), "{}", case.name);
    }
}

#[test]
fn laravel() {
    let (ours, stored): (Vec<_>, Vec<_>) =
        cases("laravel").into_iter().partition(|case| case.config["driver"] == "cookie");
    assert_eq!((ours.len(), stored.len()), (36, 396));
    run(&ours, 12);
    // The stored sessions need the app's database: another kind reads them. Their cookies have the same
    // seal, so what is damaged must be refused here as well, and what is whole lacks its second cookie.
    let (whole, damaged): (Vec<_>, Vec<_>) =
        stored.into_iter().partition(|case| case.expect.outcome == "authenticated");
    assert_eq!((whole.len(), damaged.len()), (68, 328));
    run(&damaged, 0);
    for case in &whole {
        let answer = authenticate(&settings(case), &case.request());
        assert_eq!(answer, Err(("rejected", "no_session_cookie".to_owned())), "{}", case.name);
    }
}

/// All texts under keys that hold secrets.
fn secrets(config: &Value) -> Vec<&str> {
    fn texts<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::String(text) => found.push(text),
            Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
            Value::Object(members) => members.values().for_each(|member| texts(member, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut found = Vec::new();
    for key in ["secret", "password", "app_key", "previous_keys", "secret_key_base"] {
        texts(&config[key], &mut found);
    }
    for rotation in config["rotations"].as_array().into_iter().flatten() {
        texts(&rotation["secret_key_base"], &mut found);
    }
    found
}

#[test]
fn no_secret_is_printed_however_deep_it_stands_in_its_section() {
    let mut seen = 0;
    for family in ["authjs-v5", "iron-session", "better-auth", "rails", "laravel"] {
        let with_most = |case: &Case| secrets(&case.config).len();
        let cases = cases(family).into_iter().filter(|case| case.text("scheme") != "better-auth");
        let case = cases.max_by_key(with_most).unwrap();
        let settings = settings(&case);
        for shown in [settings.effective().to_string(), format!("{settings:?}")] {
            for secret in secrets(&case.config) {
                assert!(!shown.contains(secret), "{}", case.name);
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 18, "two secrets of every family but one, shown in two ways");
}

/// A good session, and the cookies that make it.
struct Good {
    name: String,
    settings: Settings,
    pairs: Vec<(String, String)>,
    subject: String,
}

fn good(family: &str, ours: fn(&Case) -> bool) -> Vec<Good> {
    let cases = cases(family).into_iter().filter(|case| {
        case.expect.outcome == "authenticated" && !case.request.cookies.0.is_empty() && ours(case)
    });
    let made = cases.map(|case| Good {
        settings: settings(&case),
        pairs: case.request.cookies.0,
        subject: case.expect.subject.unwrap(),
        name: case.name,
    });
    // Some vectors are accepted by the framework only.
    made.filter(|good| {
        let cookies: Vec<_> = good.pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        authenticate(&good.settings, &request(Some(&cookies.join("; ")), None)).is_ok()
    })
    .collect()
}

/// One way to damage a text.
#[derive(Clone, Debug)]
enum Damage {
    Replace(prop::sample::Index, u8),
    Truncate(prop::sample::Index),
    Remove(prop::sample::Index),
    Insert(prop::sample::Index, u8),
    Swap(prop::sample::Index, prop::sample::Index),
    SwapHalves(prop::sample::Index),
}

/// A byte that may stand in a cookie's value (RFC 6265, section 4.1.1).
fn cookie_byte() -> impl Strategy<Value = u8> {
    (b'!'..=b'~').prop_filter("a cookie's byte", |byte| !b"\",;\\".contains(byte))
}

fn damage() -> impl Strategy<Value = Damage> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => (index(), cookie_byte()).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        1 => index().prop_map(Damage::Truncate),
        1 => index().prop_map(Damage::Remove),
        1 => (index(), cookie_byte()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        2 => (index(), index()).prop_map(|(one, other)| Damage::Swap(one, other)),
        1 => index().prop_map(Damage::SwapHalves),
    ]
}

impl Damage {
    fn apply(&self, text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        let length = bytes.len();
        match self {
            Self::Replace(at, byte) => bytes[at.index(length)] = *byte,
            Self::Truncate(at) => bytes.truncate(at.index(length)),
            Self::Remove(at) => drop(bytes.remove(at.index(length))),
            Self::Insert(at, byte) => bytes.insert(at.index(length), *byte),
            Self::Swap(one, other) => bytes.swap(one.index(length), other.index(length)),
            Self::SwapHalves(at) => bytes.rotate_left(at.index(length)),
        }
        String::from_utf8(bytes).unwrap()
    }
}

/// Damages one cookie of a good session and expects a refusal, unless `same` says that the damage is to
/// bytes which the format does not protect; then the session must be unchanged.
fn check_damage(
    good: &[Good],
    which: prop::sample::Index,
    pair: prop::sample::Index,
    damage: &Damage,
    same: fn(&str, &str) -> bool,
) -> Result<(), TestCaseError> {
    let good = &good[which.index(good.len())];
    let mut pairs = good.pairs.clone();
    let pair = pair.index(pairs.len());
    let damaged = damage.apply(&pairs[pair].1);
    let unchanged = damaged == pairs[pair].1 || same(&damaged, &pairs[pair].1);
    pairs[pair].1 = damaged;
    let cookies: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    match authenticate(&good.settings, &request(Some(&cookies.join("; ")), None)) {
        Ok(subject) => {
            prop_assert!(unchanged, "{}: {damage:?} was accepted", good.name);
            prop_assert_eq!(subject, good.subject.as_str());
        }
        // Not even "expired": that would say that the rest is genuine.
        Err((outcome, word)) => {
            prop_assert!(outcome != "unavailable" && word != "expired", "{}: {damage:?}: {word}", good.name);
        }
    }
    Ok(())
}

/// Percent-encoding is not protected: `%2f`, `%2F` and `/` are one byte.
fn same_decoded(one: &str, other: &str) -> bool {
    percent_decoded(one) == percent_decoded(other)
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let hex = (byte == b'%').then(|| bytes.clone().take(2).collect::<Vec<u8>>());
        let hex = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok());
        if let Some(value) = hex {
            decoded.push(value);
            bytes.nth(1);
        } else {
            decoded.push(byte);
        }
    }
    decoded
}

/// Laravel protects `iv`, `value` and `tag`, not how the JSON around them is written.
fn same_envelope(one: &str, other: &str) -> bool {
    use base64::Engine;
    let sealed = |text: &str| {
        let json = base64::engine::general_purpose::STANDARD.decode(percent_decoded(text)).ok()?;
        let object: Value = serde_json::from_slice(&json).ok()?;
        Some((object["iv"].clone(), object["value"].clone(), object["mac"].clone()))
    };
    sealed(one).is_some() && sealed(one) == sealed(other)
}

fn nothing(_: &str, _: &str) -> bool {
    false
}

macro_rules! damaged_cookies_are_refused {
    ($($test:ident: $family:literal, $ours:expr, $same:expr;)*) => {
        proptest! {
            #![proptest_config(ProptestConfig {
                cases: 1500,
                failure_persistence: None,
                ..ProptestConfig::default()
            })]
            $(
                #[test]
                fn $test(
                    which: prop::sample::Index,
                    pair: prop::sample::Index,
                    damage in damage(),
                ) {
                    static GOOD: LazyLock<Vec<Good>> = LazyLock::new(|| good($family, $ours));
                    check_damage(&GOOD, which, pair, &damage, $same)?;
                }
            )*
        }
    };
}

damaged_cookies_are_refused! {
    i1_damaged_authjs_v5: "authjs-v5", |case| !case.name.contains("other-cookies"), nothing;
    i1_damaged_nextauth_v4: "nextauth-v4", |_| true, nothing;
    i1_damaged_iron_session: "iron-session", |case| !case.name.contains("chunked-and-whole"), nothing;
    i1_damaged_better_auth: "better-auth", |case| case.config["strategy"].is_string(), nothing;
    i1_damaged_rails: "rails", |case| case.request.headers.is_empty(), same_decoded;
    i1_damaged_laravel: "laravel", |case| case.config["driver"] == "cookie", same_envelope;
}

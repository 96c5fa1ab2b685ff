//! What real frameworks wrote into their cookies, read by our kinds of extractors (FAULTS group I).
//! The sessions in `tests/vectors/` were made by the frameworks themselves; `README.md` of the vectors
//! says what a case means. A family is a row of [`FAMILIES`] and an arm of [`section`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what it expects by panicking"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::request::Parts;
use futures_util::FutureExt;
use proptest::prelude::*;
use rollout_token::clock::{Clock, ManualClock};
use rollout_token::config::{self, Problems, Settings, Sources};
use rollout_token::extractors::{Authenticated, Context, Denial, Denied, Registry, contract};
use rollout_token::metrics::Metrics;
use rollout_token::subject::Template;
use serde::Deserialize;
use serde_json::{Value, json};

const FAMILIES: [&str; 4] = [
    include_str!("vectors/cookie-session.json"),
    include_str!("vectors/django-signed-cookies.json"),
    include_str!("vectors/flask.json"),
    include_str!("vectors/starlette.json"),
];

#[derive(Debug, Deserialize)]
struct Family {
    family: String,
    cases: Vec<Case>,
}

#[derive(Clone, Debug, Deserialize)]
struct Case {
    name: String,
    config: serde_json::Map<String, Value>,
    request: Request,
    now: i64,
    expect: Expect,
}

#[derive(Clone, Debug, Deserialize)]
struct Request {
    cookies: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Expect {
    outcome: String,
    #[serde(default)]
    also_acceptable: Vec<String>,
    reason: Option<String>,
    session: Option<Value>,
    subject: Option<String>,
    subject_if_authenticated: Option<String>,
    org: Option<String>,
}

fn families() -> Vec<Family> {
    FAMILIES.iter().map(|text| serde_json::from_str(text).expect("vectors")).collect()
}

/// The keys of our section for a case's `config`, without `subject`.
fn section(config: &serde_json::Map<String, Value>) -> Value {
    let of = |key: &str| config.get(key).cloned().unwrap_or(Value::Null);
    let max_age = of("max_age").as_i64().map_or_else(|| "none".to_owned(), |age| format!("{age}s"));
    let mut section = match config["scheme"].as_str().expect("a scheme") {
        "cookie-session" => json!({
            "kind": "cookie_session",
            "keys": of("keys"),
            "algorithm": of("algorithm"),
            "encoding": of("encoding"),
        }),
        "django-signed-cookies" => json!({
            "kind": "django_signed",
            "secret_key": of("secret_key"),
            "secret_key_fallbacks": of("secret_key_fallbacks"),
            "salt": of("salt"),
            "max_age": max_age,
        }),
        "flask" => json!({
            "kind": "flask",
            "secret_key": of("secret_key"),
            "secret_key_fallbacks": of("secret_key_fallbacks"),
            "salt": of("salt"),
            "digest": of("digest"),
            "max_age": max_age,
        }),
        "starlette" => json!({
            "kind": "starlette",
            "secret_key": of("secret_key"),
            "max_age": max_age,
        }),
        other => panic!("no kind for the scheme {other}"),
    };
    section["cookie"] = of("cookie_name");
    // What a case leaves out has our default.
    section.as_object_mut().expect("a table").retain(|_, value| !value.is_null());
    section
}

impl Case {
    /// The service's settings for this case, loaded from a file as an operator's would be.
    fn settings(&self) -> Settings {
        let secret = "client-secret-client-secret-client-secret-client-secret-client-secret";
        self.load(secret).unwrap_or_else(|problems| panic!("{}: {problems}", self.name))
    }

    fn load(&self, client_secret: &str) -> Result<Settings, Problems> {
        let mut section = section(&self.config);
        let pointer = self.config["subject_path"].as_str().expect("a JSON Pointer");
        section["subject"] = format!("{{{pointer}}}").into();
        let toml = json!({
            "client_id": "test-client",
            "client_secret": client_secret,
            "session": { "extractors": ["web"] },
            "extractors": { "web": section },
        });
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), toml::to_string(&toml).unwrap()).unwrap();
        let sources = Sources { files: vec![file.path().to_owned()], ..Sources::default() };
        let context = Context::new(Clock::new(ManualClock::at(self.now)), Arc::new(Metrics::new()));
        config::load(&sources, &Registry::builtin(), &context)
    }

    /// The `Cookie` header, exactly as the case has it.
    fn cookies(&self) -> String {
        match self.request.headers.get("cookie") {
            Some(header) => header.clone(),
            None => join(&self.request.cookies),
        }
    }

    /// Frameworks pick one of two cookies with the same name, and not all the same one. The vectors
    /// follow them; we refuse to pick (FAULTS I6).
    fn names_its_cookie_twice(&self) -> bool {
        let prefix = format!("{}=", self.config["cookie_name"].as_str().expect("a name"));
        self.cookies().split(';').filter(|pair| pair.trim().starts_with(&prefix)).count() > 1
    }

    /// Whether only somebody who reads the app's own table of users could know.
    fn needs_the_users_row(&self) -> bool {
        self.expect.reason.as_deref() == Some("auth_hash")
    }

    /// Whether every sound verifier accepts the case.
    fn is_plainly_good(&self) -> bool {
        self.expect.outcome == "authenticated"
            && self.expect.also_acceptable.is_empty()
            && self.request.headers.is_empty()
    }
}

fn join(cookies: &BTreeMap<String, String>) -> String {
    cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
}

fn request(cookies: &str) -> Parts {
    contract::request(&[("cookie", cookies)])
}

/// What the chain says; these kinds never wait for anything.
fn authenticate(settings: &Settings, request: &Parts) -> Result<Authenticated, Denied> {
    settings.chain.authenticate(request).now_or_never().expect("no waiting")
}

/// The vectors' word for it. A session without a user was found and is of no use: `rejected`.
fn outcome(answer: &Result<Authenticated, Denied>) -> &'static str {
    match answer {
        Ok(_) => "authenticated",
        Err(Denied { extractor: None, .. }) => "not_applicable",
        Err(Denied { denial: Denial::Unavailable(_), .. }) => "unavailable",
        Err(_) => "rejected",
    }
}

fn check(case: &Case) -> Result<(), String> {
    let answer = authenticate(&case.settings(), &request(&case.cookies()));
    let outcome = outcome(&answer);
    let expect = &case.expect;
    if case.names_its_cookie_twice() {
        return match answer {
            Err(Denied { denial: Denial::Rejected(reason), .. }) if reason.word == "ambiguous_identity" => {
                Ok(())
            }
            answer => Err(format!("two cookies of one name: {answer:?}")),
        };
    }
    if outcome != expect.outcome && !expect.also_acceptable.iter().any(|other| other == outcome) {
        return Err(format!("{outcome}, not {}: {answer:?}", expect.outcome));
    }
    let Ok(Authenticated { subject, session, .. }) = answer else { return Ok(()) };

    let subjects = [&expect.subject, &expect.subject_if_authenticated];
    if !subjects.iter().any(|wanted| wanted.as_deref() == Some(subject.as_str())) {
        return Err(format!("the subject is {subject}"));
    }
    let attributes = serde_json::to_value(&session.attributes).map_err(|error| error.to_string())?;
    if expect.session.as_ref().is_some_and(|wanted| *wanted != attributes) {
        return Err(format!("the session is {attributes}"));
    }
    if let (Some(path), Some(wanted)) = (case.config.get("org_path"), &expect.org) {
        let template: Template = format!("{{{}}}", path.as_str().expect("a JSON Pointer")).parse()?;
        let org = template.text(&session.attributes);
        if org.as_ref() != Ok(wanted) {
            return Err(format!("the organisation is {org:?}"));
        }
    }
    let ends = session.expires_at.unwrap_or(i64::MAX);
    if ends < case.now { Err(format!("it ended at {ends}")) } else { Ok(()) }
}

#[test]
fn every_session_that_a_framework_made_is_read_as_the_framework_reads_it() {
    for Family { family, cases } in families() {
        let (unseen, cases): (Vec<_>, Vec<_>) = cases.into_iter().partition(Case::needs_the_users_row);
        assert!(unseen.len() <= 2, "{family}: {} cases left out", unseen.len());
        assert!(cases.iter().filter(|case| case.is_plainly_good()).count() > 5, "{family}");
        let failures: Vec<String> = cases
            .iter()
            .filter_map(|case| check(case).err().map(|failure| format!("{family} {}: {failure}", case.name)))
            .collect();
        assert!(failures.is_empty(), "of {} cases fail\n{}", cases.len(), failures.join("\n"));
    }
}

/// The first good cookies of a family, with the settings that accept them.
fn good_cases(scheme: &str) -> Vec<(Case, Settings)> {
    let family = families().into_iter().find(|family| family.family == scheme).expect("a family");
    let good = family.cases.into_iter().filter(Case::is_plainly_good).take(12);
    good.map(|case| (case.clone(), case.settings())).collect()
}

/// One way to damage a text. Positions are taken modulo its length.
#[derive(Clone, Debug)]
enum Damage {
    Replace(usize, u8),
    Remove(usize),
    Insert(usize, u8),
    Truncate(usize),
    Swap(usize, usize),
    Rotate(usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let place = 0..8192_usize;
    // Any byte that a header can carry, the separators of cookies and of signatures among them.
    let byte = prop_oneof![b' '..=b'~', Just(b'.'), Just(b':'), Just(b'='), Just(b';'), b'\x80'..=b'\xff'];
    prop_oneof![
        4 => (place.clone(), byte.clone()).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        1 => place.clone().prop_map(Damage::Remove),
        1 => (place.clone(), byte).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        1 => place.clone().prop_map(Damage::Truncate),
        1 => (place.clone(), place.clone()).prop_map(|(a, b)| Damage::Swap(a, b)),
        1 => place.prop_map(Damage::Rotate),
    ]
}

impl Damage {
    fn apply(&self, text: &[u8]) -> Vec<u8> {
        let mut text = text.to_vec();
        let length = text.len();
        match *self {
            Self::Replace(at, byte) => text[at % length] = byte,
            Self::Remove(at) => drop(text.remove(at % length)),
            Self::Insert(at, byte) => text.insert(at % length, byte),
            Self::Truncate(at) => text.truncate(at % length),
            Self::Swap(a, b) => text.swap(a % length, b % length),
            Self::Rotate(at) => text.rotate_left(at % length),
        }
        text
    }
}

/// Damages one of a good case's cookies: it must not be accepted, and nothing may panic.
fn damaged_is_refused(
    (case, settings): &(Case, Settings),
    which: usize,
    damage: &Damage,
) -> Result<(), TestCaseError> {
    let (name, value) =
        case.request.cookies.iter().nth(which % case.request.cookies.len()).expect("a cookie");
    let damaged = damage.apply(value.as_bytes());
    // A space at the end or a semicolon behind the whole value is not part of it.
    let is_whole =
        damaged.split(|&byte| byte == b';').next().map(<[u8]>::trim_ascii) == Some(value.as_bytes());
    prop_assume!(!is_whole);
    let others = case.request.cookies.iter().filter(|(other, _)| *other != name);
    let others = join(&others.map(|(name, value)| (name.clone(), value.clone())).collect());
    let header = [format!("{others}; {name}=").into_bytes(), damaged].concat();
    let mut request = request("");
    request.headers.insert("cookie", axum::http::HeaderValue::from_bytes(&header).expect("a header"));
    // Never `expired`, which callers can tell: it would say that the signature was good.
    match authenticate(settings, &request) {
        Err(Denied { denial: Denial::Rejected(reason), .. }) if !reason.expired => Ok(()),
        Err(Denied { extractor: None, .. }) => Ok(()),
        answer => Err(TestCaseError::fail(format!("{}: {answer:?}", case.name))),
    }
}

fn no_damage_is_accepted(scheme: &str) {
    let cases = good_cases(scheme);
    for (case, settings) in &cases {
        let answer = authenticate(settings, &request(&case.cookies()));
        assert!(answer.is_ok(), "{}: the undamaged cookie is accepted", case.name);
    }
    let strategy = (0..cases.len(), 0..2_usize, damage());
    let config = ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner
        .run(&strategy, |(case, which, damage)| damaged_is_refused(&cases[case], which, &damage))
        .unwrap_or_else(|failure| panic!("{scheme}: {failure}"));
}

#[test]
fn no_damaged_cookie_session_is_accepted() {
    no_damage_is_accepted("cookie-session");
}

#[test]
fn no_damaged_django_signed_session_is_accepted() {
    no_damage_is_accepted("django-signed-cookies");
}

#[test]
fn no_damaged_flask_session_is_accepted() {
    no_damage_is_accepted("flask");
}

#[test]
fn no_damaged_starlette_session_is_accepted() {
    no_damage_is_accepted("starlette");
}

/// One byte at a time, all of them: the property above only samples (FAULTS I1).
#[test]
fn no_flipped_byte_is_accepted_and_all_refusals_look_alike() {
    for Family { cases, .. } in families() {
        let case = cases.into_iter().find(Case::is_plainly_good).expect("a good case");
        let good = (case.clone(), case.settings());
        for which in 0..case.request.cookies.len() {
            let length = case.request.cookies.values().nth(which).expect("a cookie").len();
            for at in 0..length {
                for byte in [b'A', b'B', b'.', b':', b'=', b'-', b' '] {
                    match damaged_is_refused(&good, which, &Damage::Replace(at, byte)) {
                        Ok(()) | Err(TestCaseError::Reject(_)) => {}
                        Err(TestCaseError::Fail(failure)) => panic!("{}, byte {at}: {failure}", case.name),
                    }
                }
            }
        }
    }
}

#[test]
fn c21_no_secret_of_a_framework_may_sign_our_tokens_and_none_is_shown() {
    const SECRETS: [&str; 2] = ["the-current-secret-of-the-app", "an-older-secret-of-the-app"];
    for Family { family, mut cases } in families() {
        let mut case = cases.remove(0);
        for (key, value) in [
            ("keys", json!(SECRETS)),
            ("secret_key", json!(SECRETS[0])),
            ("secret_key_fallbacks", json!([SECRETS[1]])),
        ] {
            if let Some(own) = case.config.get_mut(key) {
                *own = value;
            }
        }
        let settings = case.settings();
        let shown = format!("{settings:?} {}", settings.effective());
        let configured = serde_json::to_string(&case.config).unwrap();
        for secret in SECRETS.into_iter().filter(|secret| configured.contains(secret)) {
            assert!(!shown.contains(secret), "{family}");
            let problems = case.load(secret).map(|_| ()).expect_err(&family).to_string();
            assert!(problems.contains("is the same secret as client_secret"), "{family}: {problems}");
            assert!(!problems.contains(secret), "{family}: {problems}");
        }
    }
}

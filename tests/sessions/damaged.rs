//! Tests of damaged cookies of real frameworks: a cookie with a damaged protected byte is refused, though never as
//! expired, and nothing panics. Also tests cookies made with another secret, and secrets that equal the client secret.
//! `main.rs` tests undamaged cookies.

use std::sync::Arc;

use axum::http::HeaderValue;
use futures_util::FutureExt;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rollout_token::clock::{Clock, ManualClock};
use rollout_token::config::Problems;
use rollout_token::session::backends::Context;
use rollout_token::session::chain::{Denial, Denied};
use rollout_token::session::contract;
use rollout_token::session::registry::Registry;
use rollout_token::settings::Settings;
use rollout_token::telemetry::metrics::Metrics;
use serde_json::{Value, json};
use toml::Table;

use crate::helpers;
use crate::vectors::{Case, join, load};

/// The service's settings for a case, loaded from a configuration file.
fn settings(case: &Case, section: Table) -> Result<Settings, Problems> {
    let context = Context::new(
        Clock::new(ManualClock::at(case.now)),
        Arc::new(Metrics::new()),
    );
    helpers::load_with(
        &case.configuration(section).to_string(),
        &Registry::builtin(),
        &context,
    )
}

fn section(case: &Case) -> Table {
    case.section(None, std::path::Path::new("/nowhere"))
}

/// Returns the subject, or the reason for the refusal. These kinds need no I/O, so the future is ready at once.
fn authenticate(settings: &Settings, cookies: &[u8]) -> Result<String, Denied> {
    let mut request = contract::request(&[]);
    request.headers.insert(
        "cookie",
        HeaderValue::from_bytes(cookies).expect("a header"),
    );
    let answer = settings
        .chain
        .authenticate(settings.chain.walk(&request))
        .now_or_never()
        .expect("no waiting");
    answer.map(|authenticated| authenticated.subject.to_string())
}

/// A valid session, and its cookies.
struct Good {
    name: String,
    settings: Settings,
    pairs: Vec<(String, String)>,
    subject: String,
}

/// The sessions of a family that are stored in cookies and accepted by the framework.
fn in_cookies(family: &str) -> impl Iterator<Item = Case> {
    load(family).into_iter().filter(|case| {
        let in_store = case.text("scheme") == "better-auth"
            || case.text("scheme") == "laravel" && case.config["driver"] != "cookie";
        case.expect["outcome"] == "authenticated"
            && case.request.headers.is_empty()
            && !in_store
            && !case.is_row_of_rails8()
            // The cookies of these cases include some that the session does not need.
            && !case.name.contains("other-cookies")
            && !case.name.contains("chunked-and-whole")
    })
}

/// The sessions of [`in_cookies`] that the service accepts too.
fn good(family: &str) -> Vec<Good> {
    let made = in_cookies(family).map(|case| Good {
        settings: settings(&case, section(&case)).unwrap(),
        pairs: case.cookies(),
        subject: case.expect["subject"]
            .as_str()
            .expect("a subject")
            .to_owned(),
        name: case.name,
    });
    made.filter(|good| authenticate(&good.settings, join(&good.pairs).as_bytes()).is_ok())
        .collect()
}

/// A change to a cookie value. Positions are taken modulo the length of the value.
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
    // Any byte that is allowed in a header, except the tab; the separators of cookies and signatures are more frequent.
    let byte = prop_oneof![
        8 => b' '..=b'~',
        1 => prop_oneof![Just(b'.'), Just(b':'), Just(b'='), Just(b';'), Just(b'*'), Just(b'%')],
        1 => b'\x80'..=b'\xff',
    ];
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

/// Damages one cookie of a valid session. The service must refuse it, unless `same` reports that the format does not
/// protect the damaged bytes. In that case the subject must be unchanged.
fn damaged_is_refused(
    good: &Good,
    which: usize,
    damage: &Damage,
    same: fn(&[u8], &[u8]) -> bool,
) -> Result<(), TestCaseError> {
    let which = which % good.pairs.len();
    let (name, value) = &good.pairs[which];
    let damaged = damage.apply(value.as_bytes());
    // Surrounding spaces, and everything after a semicolon, are not part of the value.
    let sent = damaged
        .split(|&byte| byte == b';')
        .next()
        .expect("a part")
        .trim_ascii();
    let unchanged = sent == value.as_bytes() || same(sent, value.as_bytes());
    let mut others = good.pairs.clone();
    others.remove(which);
    let header = [format!("{}; {name}=", join(&others)).into_bytes(), damaged].concat();
    match authenticate(&good.settings, &header) {
        Ok(subject) => {
            prop_assert!(unchanged, "{}: {damage:?} was accepted", good.name);
            prop_assert_eq!(&subject, &good.subject);
        }
        // The code is never `session_expired`, because that would reveal that the rest of the cookie is authentic.
        Err(Denied {
            denial: Denial::Rejected(reason),
            ..
        }) => {
            prop_assert!(
                !reason.reason.is_expired(),
                "{}: {damage:?}: expired",
                good.name
            );
        }
        Err(Denied {
            denial: Denial::NotSignedIn(_),
            extractor: None,
        }) => {}
        Err(denied) => prop_assert!(false, "{}: {damage:?}: {denied:?}", good.name),
    }
    Ok(())
}

/// A family of sessions, and a function that returns whether two cookie values differ only in bytes that the family's
/// format does not protect.
type Row = (&'static str, fn(&[u8], &[u8]) -> bool);

const FAMILIES: [Row; 11] = [
    ("authjs-v5", nothing),
    ("better-auth", nothing),
    ("cookie-session", nothing),
    ("django-signed-cookies", nothing),
    ("flask", nothing),
    ("iron-session", nothing),
    ("laravel", same_envelope),
    ("nextauth-v4", nothing),
    ("rails", same_decoded),
    ("react-router", same_decoded),
    ("starlette", nothing),
];

fn nothing(_: &[u8], _: &[u8]) -> bool {
    false
}

/// Whether two cookies differ at most in their percent-encoding, which the signature does not protect: `%2f`, `%2F` and
/// `/` are the same byte.
fn same_decoded(one: &[u8], other: &[u8]) -> bool {
    percent_decoded(one) == percent_decoded(other)
}

fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        let hex = bytes.as_slice().get(..2).filter(|_| byte == b'%');
        let value = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        if let Some(value) = value {
            decoded.push(value);
            bytes.nth(1);
        } else {
            decoded.push(byte);
        }
    }
    decoded
}

/// Whether two Laravel cookies have the same `iv`, `value` and `mac`. Laravel authenticates these values, but not the
/// spelling of the JSON around them, so a cookie with another spelling is still valid.
fn same_envelope(one: &[u8], other: &[u8]) -> bool {
    use base64::Engine;
    let sealed = |text: &[u8]| {
        let json = base64::engine::general_purpose::STANDARD
            .decode(percent_decoded(text))
            .ok()?;
        let object: Value = serde_json::from_slice(&json).ok()?;
        Some((
            object["iv"].clone(),
            object["value"].clone(),
            object["mac"].clone(),
        ))
    };
    sealed(one).is_some() && sealed(one) == sealed(other)
}

#[test]
fn damaged_cookie_is_refused() {
    for (family, same) in FAMILIES {
        let good = good(family);
        assert!(good.len() > 2, "{family}");
        let config = ProptestConfig {
            cases: 2000,
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        let strategy = (0..good.len(), 0..16_usize, damage());
        TestRunner::new(config)
            .run(&strategy, |(case, which, damage)| {
                damaged_is_refused(&good[case], which, &damage, same)
            })
            .unwrap_or_else(|failure| panic!("{family}: {failure}"));
    }
}

/// Replaces every byte of the shortest session of each family, one at a time, with each of seven characters. The
/// property test above covers only random samples.
#[test]
fn cookie_with_any_byte_replaced_is_refused_and_never_as_expired() {
    for (family, same) in FAMILIES {
        let good = good(family)
            .into_iter()
            .min_by_key(|good| join(&good.pairs).len())
            .expect("a session");
        for which in 0..good.pairs.len() {
            for at in 0..good.pairs[which].1.len() {
                for byte in [b'A', b'B', b'.', b':', b'=', b'-', b' '] {
                    match damaged_is_refused(&good, which, &Damage::Replace(at, byte), same) {
                        Ok(()) | Err(TestCaseError::Reject(_)) => {}
                        Err(TestCaseError::Fail(failure)) => {
                            panic!("{family}, byte {at}: {failure}")
                        }
                    }
                }
            }
        }
    }
}

/// The section of the case, with one of these secrets in place of each secret.
fn with_secrets(case: &Case, secrets: [&str; 2]) -> Table {
    let mut section = section(case);
    let Value::Object(keys) = serde_json::to_value(&section).unwrap() else {
        panic!("a section")
    };
    for (key, value) in keys {
        let ours = match (key.as_str(), &value) {
            (
                "secret" | "secret_key" | "secret_key_base" | "app_key" | "password",
                Value::String(_),
            ) => {
                json!(secrets[0])
            }
            ("password", _) => json!({ "2": secrets[0], "1": secrets[1] }),
            ("keys" | "secrets", _) => json!(secrets),
            ("secret_key_fallbacks" | "previous_keys", _) => json!([secrets[1]]),
            ("rotations", _) => json!([{ "secret_key_base": secrets[1] }]),
            _ => continue,
        };
        section.insert(key, toml::Value::try_from(ours).unwrap());
    }
    section
}

/// Secrets with which no case was created. They are 32 bytes long, like Laravel's keys.
const SECRETS: [&str; 2] = [
    "the-current-secret-of-the-app-32",
    "an-older-secret-of-the-app-of-32",
];

#[test]
fn cookie_made_with_another_secret_is_refused_and_the_cause_names_the_key() {
    for (family, _) in FAMILIES {
        for case in in_cookies(family) {
            let cookies = join(&case.cookies());
            let own = settings(&case, section(&case)).unwrap();
            if authenticate(&own, cookies.as_bytes()).is_err() {
                continue;
            }
            // Laravel requires a key of exactly the length that the cipher uses.
            let is_short = section(&case)
                .get("cipher")
                .and_then(toml::Value::as_str)
                .is_some_and(|cipher| cipher.starts_with("aes-128"));
            let length = if is_short { 16 } else { 32 };
            let secrets = SECRETS.map(|secret| &secret[..length]);
            let other = settings(&case, with_secrets(&case, secrets)).unwrap();
            let answer = authenticate(&other, cookies.as_bytes());
            let Err(Denied {
                denial: Denial::Rejected(rejection),
                ..
            }) = answer
            else {
                panic!("{family}, {}: {answer:?}", case.name)
            };
            let cause = rejection.detail.unwrap_or_default();
            assert!(
                cause.starts_with("the app's secret differs from ")
                    || cause.starts_with("password has no id "),
                "{family}, {}: {:?} {cause}",
                case.name,
                rejection.reason
            );
        }
    }
}

#[test]
fn framework_secret_equal_to_the_client_secret_is_refused_and_not_shown() {
    let mut seen = 0;
    for (family, _) in FAMILIES {
        // Use the case whose section contains the most secrets, at any depth.
        let cases = load(family)
            .into_iter()
            .filter(|case| case.text("scheme") != "better-auth");
        let holds = |case: &Case| {
            let section = with_secrets(case, SECRETS).to_string();
            SECRETS
                .iter()
                .filter(|secret| section.contains(*secret))
                .count()
        };
        let case = cases.max_by_key(holds).unwrap();
        let good = settings(&case, with_secrets(&case, SECRETS)).unwrap();
        let shown = format!("{good:?} {}", good.effective());
        let configured = with_secrets(&case, SECRETS).to_string();
        for secret in SECRETS
            .into_iter()
            .filter(|secret| configured.contains(secret))
        {
            assert!(!shown.contains(secret), "{family}");
            let same = configured.replace(secret, helpers::CLIENT_SECRET);
            let problems = settings(&case, same.parse().unwrap())
                .map(|_| ())
                .expect_err(family)
                .to_string();
            assert!(
                !problems.contains(helpers::CLIENT_SECRET),
                "{family}: {problems}"
            );
            // The client secret does not have the length of a Laravel key, so it is refused with another message.
            let word = if family == "laravel" {
                "app_key"
            } else {
                "is the same secret as client_secret"
            };
            assert!(
                problems.contains(word) || problems.contains("previous_keys"),
                "{family}: {problems}"
            );
            seen += 1;
        }
    }
    assert_eq!(
        seen, 20,
        "two secrets of nine families, and one each of starlette and better-auth"
    );
}

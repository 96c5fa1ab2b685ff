//! Collects the result of each extractor for one request, for `explain` and for the dev page. Unlike
//! [`Chain::authenticate`], [`explain`] also tries the extractors after the one that decides.

use std::sync::Arc;

use axum::http::request::Parts;
use axum::http::{HeaderMap, header};

use crate::bytes::before;
use crate::json::Value;
use crate::session::chain::{Chain, ConfiguredExtractor, Denial, Denied};
use crate::session::detect::{self, Detected};
use crate::session::formats::cookies;
use crate::session::formats::page_link::page_link;
use crate::session::formats::shown::escaped;
use crate::session::reason::Reason;
use crate::session::subject::Subject;
use crate::session::types::{CredentialSource, Rejection, ResponseCookies};

/// The result of the chain for a request.
#[derive(Debug)]
pub struct Explanation {
    pub steps: Vec<Step>,
    /// The subject for the token, or why no token would be issued.
    pub outcome: Result<Subject, Denied>,
}

/// The result of one extractor for a request, with what `explain` prints about it.
#[derive(Debug, Default)]
pub struct Step {
    pub name: Arc<str>,
    pub kind: &'static str,
    pub places: Arc<[CredentialSource]>,
    pub said: Said,
    /// The member names and types of the session that was found.
    pub shape: Option<String>,
    /// The configured template for `subject`, if it yields no subject for the session that was found.
    pub tried: Option<Tried>,
    /// Templates for `subject` that would identify a user in the session that was found.
    pub candidates: Vec<String>,
    /// The extractor's remarks, for example about unusable keys of its provider.
    pub notes: Vec<String>,
    /// Whether this extractor decides about the request.
    pub decides: bool,
}

/// A template for `subject` that yields no subject for the session.
#[derive(Debug)]
pub struct Tried {
    pub template: String,
    /// Whether the session has no member at the template's path, rather than a value that cannot be a subject.
    pub is_absent: bool,
}

/// The outcome of one extractor.
#[derive(Debug, Default)]
pub enum Said {
    /// The extractor was not tried, because it does not read the only header that may identify the caller. This is the
    /// header whose credential was `NotMine`, or `Authorization` for a caller who may send only a bearer token.
    #[default]
    NotAsked,
    NotPresent,
    Subject(Subject),
    Denied(Denial),
}

/// Tries the extractors in order, even after one has decided. Calls `asking` with each extractor before it is tried.
///
/// If `is_bearer_alone` is true, only a bearer token identifies the caller.
pub async fn explain(
    chain: &Chain,
    request: &Parts,
    is_bearer_alone: bool,
    mut asking: impl FnMut(&ConfiguredExtractor),
) -> Explanation {
    // Collects the cookies that apps set in their answers.
    let cookies = ResponseCookies::default();
    let mut request = request.clone();
    request.extensions.insert(cookies.clone());
    let mut walk = if is_bearer_alone {
        chain.walk_with_bearer_alone(&request)
    } else {
        chain.walk(&request)
    };
    let mut steps = Vec::new();
    let mut outcome = None;
    for (configured, reach) in chain.with_reaches() {
        let mut step = Step {
            name: configured.name.clone(),
            kind: configured.kind,
            places: reach.places.clone(),
            ..Step::default()
        };
        if walk.includes(reach) {
            asking(configured);
            step.said = match configured.session(walk.request()).await {
                Ok(None) => Said::NotPresent,
                Ok(Some(session)) => {
                    step.shape = Some(shape(&session.attributes));
                    step.candidates = detect::candidates(&session.attributes);
                    match configured.subject(&session) {
                        Ok(subject) => Said::Subject(subject),
                        Err(denial) => {
                            let template = &configured.subject.template;
                            step.tried = Some(Tried {
                                template: template.to_string(),
                                is_absent: matches!(denial, Denial::NotSignedIn(_))
                                    && template.is_absent_from(&session.attributes),
                            });
                            Said::Denied(denial)
                        }
                    }
                }
                Err(denial) => Said::Denied(denial),
            };
            step.notes = configured.extractor.notes();
            step.notes.extend(renewed(&cookies, configured));
        }
        let decided = match &step.said {
            Said::NotAsked | Said::NotPresent => None,
            Said::Denied(Denial::NotMine(rejection, place)) => {
                walk.pass_over(configured, rejection.clone(), place);
                None
            }
            Said::Subject(subject) => Some(Ok(subject.clone())),
            Said::Denied(denial) => Some(Err(Denied {
                extractor: Some(configured.name.clone()),
                denial: denial.clone(),
            })),
        };
        if outcome.is_none() && decided.is_some() {
            step.decides = true;
            outcome = decided;
        }
        steps.push(step);
    }
    Explanation {
        steps,
        outcome: outcome.unwrap_or_else(|| Err(walk.denied())),
    }
}

/// A note if the app set cookies in its answer to this extractor: the app may have renewed the session, and the cookies
/// of the request may no longer be valid.
fn renewed(cookies: &ResponseCookies, configured: &ConfiguredExtractor) -> Option<String> {
    cookies.keep_if(|session| configured.subject.subject(session).is_ok());
    let lines = cookies.lines();
    cookies.keep_if(|_| false);
    let names = lines
        .iter()
        .map(|line| String::from_utf8_lossy(cookies::name_set_by(line.as_bytes())).into_owned());
    let names = names.collect::<Vec<_>>().join(", ");
    (!names.is_empty()).then(|| {
        format!(
            "the app's answer sets cookies ({names}), which the service passes on to the caller: if the app renewed the session, sign in again in the browser from which you copied the cookie"
        )
    })
}

impl Said {
    /// Describes the outcome without secrets. A detail may quote the request, so it is escaped, and no control sequence
    /// from the request reaches a terminal.
    pub fn describe(&self) -> String {
        let with_detail = |reason: Reason, detail: &Option<String>| match detail {
            Some(detail) => format!("{reason} ({})", escaped(detail)),
            None => reason.to_string(),
        };
        let shown = |rejection: &Rejection| with_detail(rejection.reason, &rejection.detail);
        match self {
            Self::NotAsked => "not tried, because the caller is identified by a header that this \
                               section does not read"
                .to_owned(),
            Self::NotPresent => "not present".to_owned(),
            Self::Subject(subject) => format!("subject = {:?}", subject.as_str()),
            Self::Denied(Denial::NotSignedIn(rejection)) => {
                format!("no user is signed in: {}", shown(rejection))
            }
            Self::Denied(Denial::NotMine(rejection, place)) => format!(
                "not mine, with reason {}: another party issued the credential in {place}",
                shown(rejection)
            ),
            Self::Denied(Denial::Rejected(rejection)) => {
                format!("rejected with reason {}", shown(rejection))
            }
            Self::Denied(Denial::Unavailable(cause)) => {
                let cause = with_detail(cause.reason, &cause.detail);
                format!("cannot decide now, with reason {cause}")
            }
        }
    }
}

/// The places that each extractor read without finding a credential, a hint if `Authorization` has no scheme, and the
/// names of the cookies and headers that the request has. Empty if no extractor looked for a credential in vain.
pub fn searched(explanation: &Explanation, headers: &HeaderMap) -> Vec<String> {
    let absent = |step: &&Step| matches!(step.said, Said::NotPresent) && !step.places.is_empty();
    let steps = explanation.steps.iter().filter(absent).map(|step| {
        let places: Vec<String> = step.places.iter().map(ToString::to_string).collect();
        format!("{} looked for {}", step.name, places.join(", "))
    });
    let mut lines: Vec<String> = steps.collect();
    if lines.is_empty() {
        return lines;
    }
    if without_scheme(explanation, headers) {
        lines.push(
            "authorization has a value without a scheme, so it was not read: send Authorization: Bearer …"
                .to_owned(),
        );
    }
    let cookies = headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b';'))
        .map(|pair| String::from_utf8_lossy(before(pair, b'=').trim_ascii()).into_owned());
    let cookies = names(cookies);
    let headers = names(headers.keys().map(ToString::to_string));
    lines.push(format!(
        "cookies in the request: {cookies}; headers: {headers}"
    ));
    lines
}

fn names(names: impl Iterator<Item = String>) -> String {
    let names = names.filter(|name| !name.is_empty()).take(MAX_NAMES);
    match names.collect::<Vec<_>>().join(", ").as_str() {
        "" => "none".to_owned(),
        names => names.to_owned(),
    }
}

/// Whether the value of `Authorization` lacks a scheme such as `Bearer`, and an extractor that reads `Authorization`
/// therefore found no credential. A value that consists of letters only is a scheme without a credential.
fn without_scheme(explanation: &Explanation, headers: &HeaderMap) -> bool {
    let value = headers
        .get(header::AUTHORIZATION)
        .map(|value| value.as_bytes().trim_ascii());
    let is_unread = value
        .is_some_and(|value| !value.contains(&b' ') && !value.iter().all(u8::is_ascii_alphabetic));
    is_unread
        && explanation.steps.iter().any(|step| {
            matches!(step.said, Said::NotPresent) && step.places.contains(&CredentialSource::Bearer)
        })
}

/// The maximum number of cookie or header names that are listed.
const MAX_NAMES: usize = 100;

/// The maximum length of a shape, in bytes. A longer shape is truncated.
const MAX_SHAPE: usize = 2000;

/// Hints for the operator about the credentials in the request, if no extractor found a credential.
pub fn hints(found: &[Detected], explanation: &Explanation, headers: &HeaderMap) -> Vec<String> {
    let denial = explanation
        .outcome
        .as_ref()
        .err()
        .map(|denied| &denied.denial);
    if !matches!(denial, Some(Denial::NotSignedIn(it)) if it.reason == Reason::NoCredential) {
        return Vec::new();
    }
    let hint = |detected: &Detected| {
        let steps = explanation.steps.iter();
        let draft = detected
            .drafts
            .iter()
            .find(|draft| steps.clone().any(|step| step.kind == draft.kind))
            .or(detected.drafts.first())?;
        let (place, name) = detected.place.split_once(':')?;
        let what = if place == "header" {
            "header"
        } else {
            "cookie"
        };
        let preset = draft.preset.map(|preset| format!(", preset = {preset:?}"));
        let preset = preset.unwrap_or_default();
        let keys: String = draft
            .keys
            .iter()
            .filter(|key| ["cookie", "from"].contains(&&*key.name))
            .map(|key| format!(", {} = {}", key.name, key.value))
            .collect();
        Some(format!(
            "this request has a {what} {name:?} that looks like {}: kind = {:?}{preset}{keys} ({})",
            detected.product,
            draft.kind,
            page_link(detected.page)
        ))
    };
    // No hint is needed for the credential in `Authorization` if a section reads it and only its scheme is missing.
    let is_configured = |detected: &&Detected| {
        detected.place == CredentialSource::Bearer.to_string()
            && without_scheme(explanation, headers)
    };
    let found = found.iter().filter(|detected| !is_configured(detected));
    found.filter_map(hint).collect()
}

/// The member names and types of a session, without its values: enough to find the user's id.
pub fn shape(session: &Value) -> String {
    let mut shape = String::new();
    draw(session, &mut shape);
    shape
}

fn draw(value: &Value, shape: &mut String) {
    match value {
        _ if shape.len() > MAX_SHAPE => {}
        Value::Null => shape.push_str("null"),
        Value::Bool(_) => shape.push_str("true or false"),
        Value::Number(_) => shape.push_str("number"),
        Value::String(text) if text.is_empty() => shape.push_str("empty text"),
        Value::String(_) => shape.push_str("text"),
        Value::Array(items) => {
            shape.push('[');
            for (index, item) in items.iter().enumerate() {
                if !separate(index, shape) {
                    break;
                }
                draw(item, shape);
            }
            shape.push(']');
        }
        Value::Object(members) => {
            shape.push('{');
            for (index, (name, value)) in members.iter().enumerate() {
                if !separate(index, shape) {
                    break;
                }
                shape.extend(name.escape_debug());
                shape.push_str(": ");
                draw(value, shape);
            }
            shape.push('}');
        }
    }
}

/// Adds the separator before the next member. If the limit is reached, adds `…` as well and returns `false`.
fn separate(index: usize, shape: &mut String) -> bool {
    let has_room = shape.len() <= MAX_SHAPE;
    shape.push_str(if index > 0 { ", " } else { "" });
    shape.push_str(if has_room { "" } else { "…" });
    has_room
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_shows_names_and_types_without_values_and_is_truncated_at_the_limit() {
        let drawn = |json: &str| shape(&Value::parse(json.as_bytes()).expect("JSON"));
        assert_eq!(
            drawn(r#"{"a\u001b":"s3cr3t","b":[1,"",null,true,{}]}"#),
            r"{a\u{1b}: text, b: [number, empty text, null, true or false, {}]}"
        );
        for long in [
            format!("[{}0]", "0,".repeat(100_000)),
            format!("[{}0]", "[0],".repeat(100_000)),
        ] {
            let shape = drawn(&long);
            assert!(
                shape.len() < MAX_SHAPE + 50 && shape.ends_with(", …]"),
                "{}",
                shape.len()
            );
        }
    }
}

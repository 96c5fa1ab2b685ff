//! Serves the dev page's data about sessions: detects and explains the session in a pasted request, and lists the
//! latest token requests. No part of a pasted request is logged or stored.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, State};
use serde::Serialize;
use url::form_urlencoded;

use crate::clock::UnixSeconds;
use crate::http;
use crate::http::app::{App, InForce};
use crate::http::pasted;
use crate::session::detect::{Detected, Draft, detect};
use crate::session::explain::{self, Said, Step};
use crate::telemetry::requests::Outcome;

/// The maximum number of requests that the page lists.
const RECENT: usize = 50;

/// The extractors of the current configuration.
#[derive(Debug, Serialize)]
pub struct Extractors {
    extractors: Vec<Extractor>,
    /// Whether `static_user` is the only kind of extractor, so that every caller is signed in.
    every_caller_signed_in: bool,
}

#[derive(Debug, Serialize)]
struct Extractor {
    name: Arc<str>,
    kind: &'static str,
}

/// The credentials in a pasted request, and the service's answer to it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Explained {
    /// The pasted text is not a request. The string describes the problem.
    Problem(String),
    Request {
        credentials: Vec<Credential>,
        /// The result of the checks before the extractors.
        checks: Vec<String>,
        /// Whether the request is answered before any extractor is tried.
        refused: bool,
        steps: Vec<Explanation>,
        /// The places in which no credential was found, and the names of the cookies and headers in the request.
        searched: Vec<String>,
        /// The status and the code of the response.
        answer: String,
        subject: Option<String>,
    },
}

#[derive(Debug, Serialize)]
pub struct Credential {
    #[serde(flatten)]
    detected: Detected,
    product: String,
    subjects: Vec<String>,
    /// The suggested extractor section, as TOML for a configuration file.
    section: String,
    needs_in_words: Vec<String>,
}

/// The result of one extractor for the pasted request.
#[derive(Debug, Serialize)]
pub struct Explanation {
    name: Arc<str>,
    kind: &'static str,
    places: Vec<String>,
    /// The last stage that succeeded: finding a credential, a session, or a subject.
    reached: Reached,
    says: String,
    shape: Option<String>,
    subjects: Vec<String>,
    notes: Vec<String>,
    decides: bool,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reached {
    Nothing,
    Place,
    Session,
    Subject,
}

/// `GET /dev/extractors`
pub async fn extractors(Extension(InForce { live, .. }): Extension<InForce>) -> Json<Extractors> {
    let configured = live.settings.chain.extractors();
    Json(Extractors {
        every_caller_signed_in: configured.iter().all(|one| one.kind == "static_user"),
        extractors: configured
            .iter()
            .map(|one| Extractor {
                name: one.name.clone(),
                kind: one.kind,
            })
            .collect(),
    })
}

/// `POST /dev/explain`: a form whose field `request` is the pasted request. Only its headers are used, as if they were
/// sent to the token route: operators paste requests to their app, which has another `Host` and other paths.
pub async fn explain(
    State(app): State<Arc<App>>,
    Extension(InForce { live, .. }): Extension<InForce>,
    form: Bytes,
) -> Json<Explained> {
    let pasted = form_urlencoded::parse(&form)
        .find_map(|(name, value)| (name == "request").then_some(value))
        .unwrap_or_default();
    let head = match pasted::headers(pasted.as_bytes()) {
        Ok(headers) => pasted::request_head(headers, Ipv4Addr::LOCALHOST.into()),
        Err(problem) => return Json(Explained::Problem(problem)),
    };
    let found = detect(&head.headers, &app.registry);
    let checks = http::explain::headers(&live.settings, head.clone()).describe(&head);
    let explanation = checks.explain(&live.settings.chain, |_| ()).await;
    let searched = explain::searched(&explanation, &checks.head.headers);
    let (answer, subject) = match checks.verdict(explanation.outcome) {
        Ok(subject) => ("200".to_owned(), Some(subject.as_str().to_owned())),
        Err(answer) => (answer, None),
    };
    Json(Explained::Request {
        credentials: found.into_iter().map(credential).collect(),
        refused: checks.answer.is_some(),
        checks: checks.lines,
        steps: explanation.steps.into_iter().map(step).collect(),
        searched,
        answer,
        subject,
    })
}

fn credential(detected: Detected) -> Credential {
    let draft = detected.drafts.first();
    let needs = draft.into_iter().flat_map(Draft::secret_keys);
    Credential {
        product: detected.product.clone(),
        subjects: detected.subjects.clone(),
        section: draft.map(Draft::to_file).unwrap_or_default(),
        needs_in_words: needs
            .map(|key| format!("{}: {}", key.name, key.comment))
            .collect(),
        detected,
    }
}

fn step(step: Step) -> Explanation {
    let reached = match (&step.said, &step.shape) {
        (Said::NotAsked | Said::NotPresent, _) => Reached::Nothing,
        (Said::Subject(_), _) => Reached::Subject,
        (Said::Denied(_), Some(_)) => Reached::Session,
        (Said::Denied(_), None) => Reached::Place,
    };
    Explanation {
        says: step.said.describe(),
        name: step.name,
        kind: step.kind,
        places: step.places.iter().map(ToString::to_string).collect(),
        reached,
        shape: step.shape,
        subjects: step.candidates,
        notes: step.notes,
        decides: step.decides,
    }
}

/// The latest token requests, for the dev page.
#[derive(Debug, Default)]
pub struct RecentRequests(Mutex<VecDeque<RecentRequest>>);

#[derive(Clone, Debug, Serialize)]
struct RecentRequest {
    /// The time of the request, in seconds since 1970.
    at: UnixSeconds,
    status: u16,
    code: &'static str,
    reason: Option<&'static str>,
    extractor: Option<String>,
    subject: Option<String>,
    hint: Option<&'static str>,
}

impl RecentRequests {
    pub fn record(&self, at: UnixSeconds, outcome: &Outcome<'_>) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.truncate(RECENT - 1);
        recent.push_front(RecentRequest {
            at,
            status: outcome.status.as_u16(),
            code: outcome.code,
            reason: outcome.reason,
            extractor: outcome.extractor.map(str::to_owned),
            subject: outcome.subject.map(str::to_owned),
            hint: outcome.hint,
        });
    }
}

/// `GET /dev/requests`: lists the latest request first.
pub async fn requests(State(app): State<Arc<App>>) -> Json<Vec<impl Serialize>> {
    let recent = app.recent.0.lock().unwrap_or_else(PoisonError::into_inner);
    Json(recent.iter().cloned().collect::<Vec<_>>())
}

//! The extractors in their configured order, and the rule that determines which of them decides about a request.
//!
//! The first extractor that finds a credential of its own kind and issuer decides. If an extractor finds a credential
//! from another issuer ([`ExtractError::NotMine`]), the chain tries the next extractors. Such a credential in a cookie
//! is ignored, because browsers send cookies automatically. Such a credential in a header is an identity that the
//! client chose: from then on, the extractors see only that header, so that the client does not get a token for the
//! identity in a cookie or in another header.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use axum::http::request::Parts;
use axum::http::{HeaderName, header};
use tracing::{Instrument, Span};

use crate::config::Warnings;
use crate::session::credential_source;
use crate::session::detect;
use crate::session::formats::issuer;
use crate::session::formats::shown::listed;
use crate::session::reason::Reason;
use crate::session::subject::{Subject, SubjectError, SubjectRule};
use crate::session::types::{
    Authority, Cause, CredentialSource, ExtractError, Reach, Readiness, Rejection, ResponseCookies,
    Session, SessionExtractor,
};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::spans;

/// An extractor with its configured name and its subject rule.
#[derive(Clone, Debug)]
pub struct ConfiguredExtractor {
    pub name: Arc<str>,
    pub kind: &'static str,
    pub subject: SubjectRule,
    pub extractor: Arc<dyn SessionExtractor>,
}

/// The configured extractors, in order.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    extractors: Vec<ConfiguredExtractor>,
    /// The reach of each extractor, in the same order as `extractors`.
    reaches: Vec<Reach>,
}

/// A caller with a valid session that names a subject. `Debug` does not show the subject.
pub struct Authenticated {
    /// The name of the extractor that decided.
    pub extractor: Arc<str>,
    /// The places that this extractor reads.
    pub places: Arc<[CredentialSource]>,
    pub subject: Subject,
    pub session: Session,
}

impl fmt::Debug for Authenticated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticated")
            .field("extractor", &self.extractor)
            .field("places", &self.places)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

/// A caller who gets no token.
#[derive(Clone, Debug)]
pub struct Denied {
    /// The name of the extractor that decided or, if none decided, of the first that returned `NotMine`; `None` if no
    /// extractor found a credential.
    pub extractor: Option<Arc<str>>,
    pub denial: Denial,
}

/// Why a caller gets no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// There is no credential, or the session has no signed-in user.
    NotSignedIn(Rejection),
    /// Another party issued the credential in this place.
    NotMine(Rejection, CredentialSource),
    Rejected(Rejection),
    Unavailable(Cause),
}

impl Chain {
    pub fn new(extractors: Vec<ConfiguredExtractor>) -> Self {
        let reaches = extractors
            .iter()
            .map(|configured| configured.extractor.reach());
        Self {
            reaches: reaches.collect(),
            extractors,
        }
    }

    pub fn extractors(&self) -> &[ConfiguredExtractor] {
        &self.extractors
    }

    /// Tries the extractors in order; the first that finds a credential of its own kind and issuer decides.
    pub async fn authenticate(&self, mut walk: ChainWalk<'_>) -> Result<Authenticated, Denied> {
        for (configured, reach) in self.with_reaches() {
            if !walk.includes(reach) {
                continue;
            }
            spans::record_extractor(&configured.name);
            let span = spans::extractor_span(&configured.name, configured.kind);
            let answer = configured
                .authenticate(walk.request())
                .instrument(span.clone())
                .await;
            record(&span, &answer);
            if let Some(cookies) = walk.request().extensions.get::<ResponseCookies>() {
                cookies.keep_if(|session| configured.subject.subject(session).is_ok());
            }
            match answer {
                Ok(None) => {}
                Ok(Some((subject, session))) => {
                    return Ok(Authenticated {
                        extractor: configured.name.clone(),
                        places: reach.places.clone(),
                        subject,
                        session,
                    });
                }
                Err(Denial::NotMine(rejection, place)) => {
                    walk.pass_over(configured, rejection, &place);
                }
                Err(denial) => {
                    return Err(Denied {
                        extractor: Some(configured.name.clone()),
                        denial,
                    });
                }
            }
        }
        Err(walk.denied())
    }

    /// Starts a walk through the extractors for a request.
    pub fn walk<'a>(&'a self, request: &'a Parts) -> ChainWalk<'a> {
        ChainWalk {
            chain: self,
            request: Cow::Borrowed(request),
            header: None,
            is_bearer_alone: false,
            passed_over: None,
        }
    }

    /// Starts a walk for a caller who is identified only by a bearer token in `Authorization`: the extractors see no
    /// cookie, no credential in another header, and no identity that a proxy asserts.
    pub fn walk_with_bearer_alone<'a>(&'a self, request: &'a Parts) -> ChainWalk<'a> {
        let mut walk = self.walk(request);
        walk.keep_header(&header::AUTHORIZATION);
        walk.is_bearer_alone = true;
        let headers = &mut walk.request.to_mut().headers;
        if !credential_source::has_bearer(headers) {
            headers.remove(header::AUTHORIZATION);
        }
        walk
    }

    /// The headers in which clients send credentials to the extractors of this chain.
    pub fn session_headers(&self) -> BTreeSet<&str> {
        let by_clients = self.reaches.iter().filter(|reach| !reach.by_proxy);
        by_clients
            .flat_map(|reach| &*reach.places)
            .filter_map(CredentialSource::client_header)
            .map(HeaderName::as_str)
            .collect()
    }

    /// Each extractor with its [`Reach`].
    pub fn with_reaches(&self) -> impl Iterator<Item = (&ConfiguredExtractor, &Reach)> {
        self.extractors.iter().zip(&self.reaches)
    }

    /// Lets every extractor prefetch what it needs to decide.
    pub fn start(&self) {
        for configured in &self.extractors {
            configured.extractor.start();
        }
    }

    /// Lets every extractor set its gauges. Gauges of extractors that a reload removed are removed.
    pub fn observe(&self, metrics: &Metrics) {
        metrics.clear_extractor_gauges();
        for configured in &self.extractors {
            configured.extractor.observe(&configured.name, metrics);
        }
    }

    /// Whether every extractor has the data that it needs to decide.
    pub fn is_ready(&self) -> bool {
        let mut readiness = self.extractors.iter().map(|it| it.extractor.readiness());
        readiness.all(|readiness| !matches!(readiness, Readiness::Waiting(_)))
    }

    /// Warns about two sections that accept the same credentials, and about two sections that could give the same
    /// subject to different users.
    pub fn warnings(&self) -> Warnings {
        let mut warnings = Warnings::default();
        let all: Vec<_> = self.with_reaches().collect();
        for (index, (later, reach)) in all.iter().enumerate() {
            for (earlier, before) in &all[..index] {
                if let Some(place) = shadowed(before, reach) {
                    warnings.add(
                        format!("extractors.{}", later.name),
                        format!(
                            "extractors.{} comes first and decides about the credentials in {place} that this \
                             section could accept: give each section its own issuers or place, or change the \
                             order in session.extractors",
                            earlier.name
                        ),
                    );
                }
                if are_other_users(before, reach) && later.subject.may_equal(&earlier.subject) {
                    warnings.add(
                        format!("extractors.{}.subject", later.name),
                        format!(
                            "a user of this section and another user of extractors.{} could have the same id, and \
                             Rollout would treat them as one user: begin one of the templates with a literal prefix, \
                             such as \"{}:{{sub}}\", unless both sections use the same ids for the same users",
                            earlier.name, later.name
                        ),
                    );
                }
            }
        }
        warnings
    }
}

/// A place where `earlier` handles credentials that `later` could accept; `None` if there is no such place. If
/// `earlier` accepts only some issuers and `later` accepts every issuer, there is no conflict, because that is the
/// usual order.
fn shadowed(earlier: &Reach, later: &Reach) -> Option<CredentialSource> {
    let same_family = earlier.hmac.is_none() || later.hmac.is_none() || earlier.hmac == later.hmac;
    let same_issuer = match (&earlier.jwts_of, &later.jwts_of) {
        (Some(earlier), Some(later)) => earlier.is_empty() || overlap(earlier, later),
        _ => false,
    };
    let same_form = (earlier.opaque && later.opaque) || (same_family && same_issuer);
    let mut shared = later
        .places
        .iter()
        .filter(|place| earlier.places.contains(place));
    shared.next().filter(|_| same_form).cloned()
}

fn overlap(one: &[String], other: &[String]) -> bool {
    one.iter()
        .any(|one| other.iter().any(|other| issuer::overlap(one, other)))
}

/// Whether the user ids of two sections come from issuers that do not overlap, or from different stores.
fn are_other_users(one: &Reach, other: &Reach) -> bool {
    match (&one.authority, &other.authority) {
        (Some(Authority::Issuers(one)), Some(Authority::Issuers(other))) => !overlap(one, other),
        (Some(Authority::Store(one)), Some(Authority::Store(other))) => one != other,
        _ => false,
    }
}

/// The state of one request's walk through the chain.
pub struct ChainWalk<'a> {
    chain: &'a Chain,
    /// The request as the next extractor sees it.
    request: Cow<'a, Parts>,
    /// If set, the extractors see no credential outside this header: its credential was `NotMine`, or the caller is
    /// identified only by a bearer token in `Authorization`.
    header: Option<HeaderName>,
    /// Whether only a bearer token identifies the caller.
    is_bearer_alone: bool,
    /// The first `NotMine` outcome, which is the result if no extractor decides.
    passed_over: Option<Denied>,
}

impl fmt::Debug for ChainWalk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChainWalk")
            .field("header", &self.header)
            .field("is_bearer_alone", &self.is_bearer_alone)
            .field("passed_over", &self.passed_over)
            .finish_non_exhaustive()
    }
}

impl ChainWalk<'_> {
    pub fn request(&self) -> &Parts {
        &self.request
    }

    /// Whether the walk tries an extractor with this reach.
    pub fn includes(&self, reach: &Reach) -> bool {
        let mut headers = reach.places.iter().map(CredentialSource::header);
        let reads_it = match &self.header {
            None => true,
            only => headers.any(|header| header == only.as_ref()),
        };
        reads_it && !(self.is_bearer_alone && reach.by_proxy)
    }

    /// Records that the extractor returned `NotMine` for the credential in `place`. If `place` is a header, hides the
    /// credentials in all other places from the next extractors.
    pub fn pass_over(
        &mut self,
        configured: &ConfiguredExtractor,
        rejection: Rejection,
        place: &CredentialSource,
    ) {
        self.passed_over.get_or_insert_with(|| Denied {
            extractor: Some(configured.name.clone()),
            denial: Denial::Rejected(rejection),
        });
        if let Some(header) = place.header() {
            self.keep_header(header);
        }
    }

    /// Hides the credentials in all places but `header`.
    fn keep_header(&mut self, header: &HeaderName) {
        let headers = &mut self.request.to_mut().headers;
        headers.remove(header::COOKIE);
        let places = self.chain.reaches.iter().flat_map(|reach| &*reach.places);
        let others = places.filter_map(CredentialSource::header);
        for other in others.filter(|other| *other != header) {
            headers.remove(other);
        }
        self.header = Some(header.clone());
    }

    /// The result if no extractor has decided.
    pub fn denied(self) -> Denied {
        self.passed_over.unwrap_or(Denied {
            extractor: None,
            denial: Denial::NotSignedIn(Rejection::of(Reason::NoCredential)),
        })
    }
}

/// Records the extractor's outcome in its trace span.
fn record<T>(span: &Span, answer: &Result<Option<T>, Denial>) {
    let (outcome, reason) = match answer {
        Ok(None) => ("not_present", None),
        Ok(Some(_)) => ("session", None),
        Err(Denial::NotSignedIn(rejection)) => ("not_signed_in", Some(rejection.reason)),
        Err(Denial::NotMine(rejection, _)) => ("not_mine", Some(rejection.reason)),
        Err(Denial::Rejected(rejection)) => ("rejected", Some(rejection.reason)),
        Err(Denial::Unavailable(cause)) => ("unavailable", Some(cause.reason)),
    };
    spans::record_outcome(span, outcome, reason.map(Reason::as_str));
    if let Err(Denial::Unavailable(cause)) = answer {
        spans::record_failure(span, cause.reason.as_str());
    }
}

impl ConfiguredExtractor {
    /// Tries only this extractor; `Ok(None)` if the request has no credential of its kind.
    pub async fn authenticate(
        &self,
        request: &Parts,
    ) -> Result<Option<(Subject, Session)>, Denial> {
        match self.session(request).await? {
            None => Ok(None),
            Some(session) => Ok(Some((self.subject(&session)?, session))),
        }
    }

    /// The session that this extractor finds. Does not check its subject.
    pub async fn session(&self, request: &Parts) -> Result<Option<Session>, Denial> {
        let found = self.extractor.extract(request).await;
        found.map_err(|error| match error {
            ExtractError::NotMine(rejection, place) => Denial::NotMine(rejection, place),
            ExtractError::Rejected(rejection) => Denial::Rejected(rejection),
            ExtractError::Unavailable(cause) => Denial::Unavailable(cause),
        })
    }

    /// The subject of the session.
    pub fn subject(&self, session: &Session) -> Result<Subject, Denial> {
        self.subject
            .subject(&session.attributes)
            .map_err(|error| match error {
                SubjectError::Absent => Denial::NotSignedIn(Rejection {
                    reason: Reason::NoSubject,
                    detail: Some(self.no_subject(session)),
                }),
                SubjectError::Invalid(reason) => Denial::Rejected(Rejection::of(reason)),
            })
    }

    /// Names the template's placeholders that have no value in the session, and the members that could contain the
    /// user's id. The string contains member names, but no values.
    fn no_subject(&self, session: &Session) -> String {
        let absent = self.subject.template.absent(&session.attributes);
        let mut candidates = detect::candidates(&session.attributes);
        candidates.retain(|candidate| !absent.contains(candidate));
        let absent = listed(absent);
        if candidates.is_empty() {
            return format!("no value at {absent}");
        }
        format!("no value at {absent}; candidates: {}", listed(candidates))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::contract;

    #[test]
    fn debug_of_a_walk_shows_its_state_but_no_credential() {
        let credentials = [("authorization", "Bearer s3cr3t"), ("cookie", "sid=s3cr3t")];
        let (chain, request) = (Chain::default(), contract::request(&credentials));
        let walk = format!("{:?}", chain.walk_with_bearer_alone(&request));
        assert!(walk.contains("is_bearer_alone: true"), "{walk}");
        assert!(!walk.contains("s3cr3t"), "{walk}");
    }
}

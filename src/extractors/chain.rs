//! The extractors in their configured order, and the one rule that joins them: the first that finds
//! a credential decides.

use std::sync::Arc;

use axum::http::request::Parts;

use super::{Cause, ExtractError, Readiness, Reason, Session, SessionExtractor};
use crate::subject::{Subject, SubjectError, Template};
use crate::trace;

/// One extractor with its configured name and the template for its subject.
#[derive(Clone, Debug)]
pub struct Link {
    pub name: Arc<str>,
    pub kind: &'static str,
    pub subject: Template,
    pub extractor: Arc<dyn SessionExtractor>,
}

/// The configured extractors, in order.
#[derive(Clone, Debug, Default)]
pub struct Chain(Vec<Link>);

/// A caller whose session is genuine and names a subject.
#[derive(Debug)]
pub struct Authenticated {
    /// The name of the extractor that decided.
    pub extractor: Arc<str>,
    pub subject: Subject,
    pub session: Session,
}

/// A caller who gets no token.
#[derive(Clone, Debug)]
pub struct Denied {
    /// The name of the extractor that decided; `None` if none found a credential.
    pub extractor: Option<Arc<str>>,
    pub denial: Denial,
}

/// Why a caller gets no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// No credential, or a session in which nobody is signed in; the word is for logs.
    Nobody(&'static str),
    Rejected(Reason),
    Unavailable(Cause),
}

impl Chain {
    pub fn new(links: Vec<Link>) -> Self {
        Self(links)
    }

    pub fn links(&self) -> &[Link] {
        &self.0
    }

    /// Asks the extractors in order; the first that does not answer `Ok(None)` decides.
    pub async fn authenticate(&self, request: &Parts) -> Result<Authenticated, Denied> {
        for link in &self.0 {
            match trace::extractor(&link.name, link.kind, link.authenticate(request)).await {
                Ok(None) => {}
                Ok(Some((subject, session))) => {
                    return Ok(Authenticated { extractor: link.name.clone(), subject, session });
                }
                Err(denial) => return Err(Denied { extractor: Some(link.name.clone()), denial }),
            }
        }
        Err(Denied { extractor: None, denial: Denial::Nobody("no_credential") })
    }

    /// Lets every extractor fetch ahead what it needs.
    pub fn start(&self) {
        for link in &self.0 {
            link.extractor.start();
        }
    }

    /// Lets every extractor set its gauges.
    pub fn observe(&self) {
        for link in &self.0 {
            link.extractor.observe();
        }
    }

    /// Whether every extractor has what it needs to decide.
    pub fn is_ready(&self) -> bool {
        self.0.iter().all(|link| !matches!(link.extractor.readiness(), Readiness::Waiting(_)))
    }
}

impl Link {
    /// What this extractor alone says: `Ok(None)` if it finds no credential of its kind.
    pub async fn authenticate(&self, request: &Parts) -> Result<Option<(Subject, Session)>, Denial> {
        match self.session(request).await? {
            None => Ok(None),
            Some(session) => Ok(Some((self.subject(&session)?, session))),
        }
    }

    /// The session that this extractor finds, whoever it may be.
    pub async fn session(&self, request: &Parts) -> Result<Option<Session>, Denial> {
        self.extractor.extract(request).await.map_err(|error| match error {
            ExtractError::Rejected(reason) => Denial::Rejected(reason),
            ExtractError::Unavailable(cause) => Denial::Unavailable(cause),
        })
    }

    /// Whom the session is for.
    pub fn subject(&self, session: &Session) -> Result<Subject, Denial> {
        self.subject.subject(&session.attributes).map_err(|error| match error {
            SubjectError::Absent => Denial::Nobody("no_subject"),
            SubjectError::Invalid(word) => Denial::Rejected(Reason { word, expired: false, detail: None }),
        })
    }
}

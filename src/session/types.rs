//! The trait [`SessionExtractor`], and the outcomes of trying an extractor on a request. `registry` lists the kinds;
//! `chain` tries the configured extractors in order.

use std::fmt;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue};
use futures_util::future::BoxFuture;
use url::Url;

use crate::clock::{self, UnixSeconds};
use crate::headers::DuplicateHeader;
use crate::json::{Object, Value};
use crate::secret::Secret;
use crate::session::reason::Reason;
use crate::telemetry::metrics::Metrics;

/// The outcome of one extractor for one request:
///
/// - `Ok(None)`: the request has no credential of this kind, or one that means that no user is signed in. The chain
///   tries the next extractor.
/// - `Ok(Some(session))`: the credential is valid. The chain stops.
/// - `Err(NotMine)`: a credential of this kind is present, but its form or content shows that another party issued it.
///   `chain.rs` documents how the chain continues.
/// - `Err(Rejected)`: a credential is present but not acceptable. The chain stops and tries no other extractor.
/// - `Err(Unavailable)`: a credential is present but cannot be checked right now. The chain stops.
pub type Extracted = Result<Option<Session>, ExtractError>;

/// Recognises one kind of session in a request.
pub trait SessionExtractor: fmt::Debug + Send + Sync + 'static {
    /// Looks for a session in the request head. The head's extensions contain the peer's address as
    /// `ConnectInfo<SocketAddr>`, as in axum apps that are served with `into_make_service_with_connect_info`.
    fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted>;

    /// The credentials that this extractor handles. After `NotMine` for a credential in a header, the chain tries
    /// only extractors that read the same header. The default is an empty reach.
    fn reach(&self) -> Reach {
        Reach::default()
    }

    /// Called once, when the service starts or a reload builds the extractor, to prefetch what requests will need. Runs
    /// inside the service's runtime.
    fn start(&self) {}

    /// Called before metrics are read, to set the gauges of this extractor, which is configured under this name.
    fn observe(&self, _name: &Arc<str>, _metrics: &Metrics) {}

    /// Remarks for `explain` after a request, for example about a provider's keys that cannot be used.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether the extractor can decide about requests now. The chain tries it even if it is not ready.
    fn readiness(&self) -> Readiness {
        Readiness::Ready
    }

    /// The backend that [`SessionExtractor::extract`] calls, so that commands can print what they wait for. By default,
    /// an extractor has no backend.
    fn backend(&self) -> Option<BackendCall> {
        None
    }

    /// Calls each backend once, without a user's credential, for `doctor`. By default, an extractor has no backend.
    fn probe(&self) -> BoxFuture<'_, Vec<BackendReport>> {
        Box::pin(async { Vec::new() })
    }
}

/// A call to a backend.
#[derive(Clone, Debug)]
pub struct BackendCall {
    /// A description of the call. Neither a URL's query nor its password is included.
    pub backend: String,
    pub at_most: Duration,
}

/// The result of [`SessionExtractor::probe`] for one backend.
#[derive(Clone, Debug)]
pub struct BackendReport {
    /// A description of the call. Neither a URL's query nor its password is included.
    pub backend: String,
    pub took: Duration,
    /// A summary of the backend's answer, or why the call failed or the answer cannot be used.
    pub result: Result<String, String>,
}

impl BackendReport {
    /// Awaits `asking`, and reports its result and its duration.
    pub async fn of(
        backend: impl Into<String>,
        asking: impl Future<Output = Result<String, String>> + Send,
    ) -> Self {
        let started = tokio::time::Instant::now();
        let result = asking.await;
        Self {
            backend: backend.into(),
            took: started.elapsed(),
            result,
        }
    }
}

/// The URL for logs, truncated to 256 characters. Query, fragment and credentials are removed, because they can
/// contain secrets.
pub fn without_query(url: &Url) -> String {
    const MAX: usize = 256;
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // These calls fail only for URLs that cannot have credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.as_str().chars().take(MAX).collect()
}

/// A place in a request that can hold a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialSource {
    /// `header:authorization`: a bearer token (RFC 6750, section 2.1).
    Bearer,
    /// A header other than `Authorization`. Its value is the credential, optionally preceded by `Bearer`.
    Header(HeaderName),
    Cookie(String),
    /// The cookie of `@supabase/ssr`, unchunked or in chunks: a JSON session that contains the token (`src/cookies.ts`
    /// and `src/utils/chunker.ts` in that library).
    Supabase(String),
    /// The cookie in which AWS Amplify stores the access token of the user who last signed in. The string is the app
    /// client id of the Cognito user pool (`TokenStore.ts` and `CookieStorage.ts` in that library).
    Amplify(String),
}

/// The credentials that an extractor handles, described by their place and form.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// The places from which the extractor reads credentials.
    pub places: Arc<[CredentialSource]>,
    /// Whether the extractor handles credentials that are not JWTs (opaque tokens).
    pub opaque: bool,
    /// The issuers whose JWTs the extractor handles. An empty list means all issuers, `None` means no JWTs.
    pub jwts_of: Option<Vec<String>>,
    /// If set, the extractor handles only JWTs signed with a shared secret (`true`) or only those signed with a private
    /// key (`false`).
    pub hmac: Option<bool>,
    /// The authority that assigns the user ids, if known.
    pub authority: Option<Authority>,
    /// Whether a proxy in front of the service, rather than the client, sets the credential.
    pub by_proxy: bool,
}

/// The authority that assigns the user ids of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authority {
    Issuers(Vec<String>),
    /// A session store, identified by a hash of its address. The address itself may contain a secret.
    Store(u64),
}

impl Authority {
    /// The store at the host, port and path of `url`. All other parts of the URL, such as credentials, are ignored.
    pub fn store(url: &Secret) -> Self {
        let url = std::str::from_utf8(url.expose())
            .ok()
            .and_then(|text| Url::parse(text).ok());
        let mut hasher = DefaultHasher::new();
        let parts = url
            .as_ref()
            .map(|url| (url.host_str(), url.port(), url.path()));
        parts.hash(&mut hasher);
        Self::Store(hasher.finish())
    }
}

impl Reach {
    /// A reach that includes every credential in these places.
    pub fn everything(places: impl IntoIterator<Item = CredentialSource>) -> Self {
        let places = places.into_iter().collect();
        Self {
            places,
            opaque: true,
            jwts_of: Some(Vec::new()),
            ..Self::default()
        }
    }

    /// A reach that includes every credential in these places that is not a JWT.
    pub(crate) fn opaque(places: impl IntoIterator<Item = CredentialSource>) -> Self {
        Self {
            jwts_of: None,
            ..Self::everything(places)
        }
    }

    /// A reach that includes the cookie called `name` and its chunks.
    pub fn cookie(name: &str) -> Self {
        Self::everything([CredentialSource::Cookie(name.to_owned())])
    }
}

/// A valid session: its decoded attributes, and its expiry if it has one.
///
/// `Debug` shows the names of the attributes but no values, because some apps keep access tokens in their sessions.
#[derive(Clone)]
pub struct Session {
    pub attributes: Value,
    pub expires_at: Option<UnixSeconds>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = self
            .attributes
            .as_object()
            .into_iter()
            .flat_map(Object::iter);
        let names: Vec<&str> = members.map(|(name, _)| name).collect();
        f.debug_struct("Session")
            .field("attributes", &names)
            .field("expires_at", &self.expires_at)
            .finish()
    }
}

impl Session {
    /// A session whose only attribute is `sub`.
    pub fn of_subject(subject: &str) -> Self {
        let sub = Value::String(subject.to_owned());
        Self {
            attributes: Value::Object([("sub", sub)].into_iter().collect()),
            expires_at: None,
        }
    }
}

/// The `Set-Cookie` lines in an app's answer about a credential, and the session in that answer.
pub struct OfferedCookies {
    pub session: Value,
    pub lines: Vec<HeaderValue>,
}

impl fmt::Debug for OfferedCookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OfferedCookies").finish_non_exhaustive()
    }
}

/// The `Set-Cookie` lines that are passed on to the caller, whatever the response to the request is. Each request has
/// this value in its extensions: an extractor offers lines, and the chain keeps them if their session names a subject.
#[derive(Clone, Debug, Default)]
pub struct ResponseCookies(Arc<Mutex<Option<Arc<OfferedCookies>>>>);

impl ResponseCookies {
    /// Offers the lines for the response to `request`.
    pub fn offer(request: &Parts, cookies: Arc<OfferedCookies>) {
        if let Some(Self(slot)) = request.extensions.get() {
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(cookies);
        }
    }

    /// Drops the offered lines unless their session passes `names_subject`.
    pub fn keep_if(&self, names_subject: impl FnOnce(&Value) -> bool) {
        let mut offered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *offered = offered
            .take()
            .filter(|cookies| names_subject(&cookies.session));
    }

    pub fn lines(&self) -> Vec<HeaderValue> {
        let offered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = offered.as_ref().map(|cookies| cookies.lines.clone());
        lines.unwrap_or_default()
    }
}

/// Why a credential that is present yields no session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtractError {
    /// The form or content of the credential in this place shows that another party issued it. An extractor must decide
    /// this before it fetches a key or calls a backend.
    NotMine(Rejection, CredentialSource),
    Rejected(Rejection),
    Unavailable(Cause),
}

/// Why a credential is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub reason: Reason,
    /// Details for the operator, shown in the log and by `explain`: what was found, and what was expected. May quote
    /// claims such as `aud`, but never a secret, a signature or the user's identity.
    pub detail: Option<String>,
}

/// Why an extractor cannot decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    pub reason: Reason,
    /// Details for the operator, shown in the log and by `explain`. Contains no part of the request.
    pub detail: Option<String>,
    /// The wait before a retry, if the backend's response has `Retry-After`.
    pub retry_after: Option<Duration>,
}

impl Rejection {
    pub(crate) fn of(reason: Reason) -> Self {
        Self {
            reason,
            detail: None,
        }
    }
}

impl From<DuplicateHeader> for ExtractError {
    fn from(_: DuplicateHeader) -> Self {
        Self::rejected(Reason::DuplicateHeader)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(detail) => write!(f, "{}: {detail}", self.reason.as_str()),
            None => f.write_str(self.reason.as_str()),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(detail) => write!(f, "{} ({detail})", self.reason.as_str()),
            None => f.write_str(self.reason.as_str()),
        }
    }
}

impl ExtractError {
    /// The credential has expired.
    pub fn expired() -> Self {
        Self::rejected(Reason::Expired)
    }

    /// The credential expired at `end`.
    pub fn expired_at(end: UnixSeconds, now: UnixSeconds) -> Self {
        let ago = Duration::from_secs(u64::try_from(now.saturating_sub(end)).unwrap_or(0));
        let ago = humantime::format_duration(ago);
        Self::expired().because(match clock::rfc3339(end) {
            Some(end) => format!("expired at {end}, {ago} ago"),
            None => format!("expired {ago} ago"),
        })
    }

    /// The time `name` in the credential is further in the future than `leeway` allows.
    pub fn ahead(
        reason: Reason,
        name: &str,
        time: UnixSeconds,
        now: UnixSeconds,
        leeway: UnixSeconds,
    ) -> Self {
        let ahead = time.saturating_sub(now);
        Self::rejected(reason).because(format!(
            "{name} is {ahead}s ahead of the service's clock, and the leeway is {leeway}s"
        ))
    }

    /// The credential does not match the secret under the configuration key `key`.
    pub fn other_secret(reason: Reason, key: &str) -> Self {
        Self::rejected(reason).because(format!(
            "the app's secret differs from {key}, or the credential was changed"
        ))
    }

    /// The credential is not accepted.
    pub fn rejected(reason: Reason) -> Self {
        Self::Rejected(Rejection::of(reason))
    }

    /// The credential does not have the expected form.
    pub(crate) fn malformed() -> Self {
        Self::rejected(Reason::Malformed)
    }

    /// Another party issued the credential in `place`.
    pub fn not_mine(reason: Reason, place: &CredentialSource) -> Self {
        Self::NotMine(Rejection::of(reason), place.clone())
    }

    /// The credential cannot be checked right now.
    pub fn unavailable(reason: Reason) -> Self {
        Self::Unavailable(Cause {
            reason,
            detail: None,
            retry_after: None,
        })
    }

    /// Adds details for the operator.
    #[must_use]
    pub fn because(mut self, text: impl Into<String>) -> Self {
        match &mut self {
            Self::NotMine(Rejection { detail, .. }, _)
            | Self::Rejected(Rejection { detail, .. })
            | Self::Unavailable(Cause { detail, .. }) => *detail = Some(text.into()),
        }
        self
    }

    pub fn reason(&self) -> Reason {
        match self {
            Self::NotMine(rejection, _) | Self::Rejected(rejection) => rejection.reason,
            Self::Unavailable(cause) => cause.reason,
        }
    }

    /// Sets the wait that the backend requests before a retry. Does not change a rejection.
    #[must_use]
    pub fn again_after(mut self, wait: Option<Duration>) -> Self {
        if let Self::Unavailable(cause) = &mut self {
            cause.retry_after = wait;
        }
        self
    }
}

/// Whether an extractor has the data that it needs to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    /// The extractor decides with old data, or the last call to its backend failed.
    Stale,
    /// The extractor still lacks data that it needs. The string is a stable identifier for the missing data.
    Waiting(&'static str),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_of_a_session_shows_names_and_expiry_but_no_values() {
        let json = br#"{"sub":"ann","accessToken":"s3cr3t","user":{"email":"s3cr3t"}}"#;
        let session = Session {
            attributes: Value::parse(json).unwrap(),
            expires_at: Some(7),
        };
        let shown =
            r#"Session { attributes: ["sub", "accessToken", "user"], expires_at: Some(7) }"#;
        assert_eq!(format!("{session:?}"), shown);
        let text = Session {
            attributes: Value::String("s3cr3t".to_owned()),
            expires_at: None,
        };
        let shown = "Session { attributes: [], expires_at: None }";
        assert_eq!(format!("{text:?}"), shown);
    }
}

//! What a session extractor is, and what it says about a request.
//! Which kinds there are is in `registry`; how they are asked in turn is in `chain`.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderName;
use axum::http::request::Parts;
use futures_util::future::BoxFuture;
use url::Url;

use crate::clock::UnixSeconds;
use crate::json::Value;
use crate::secret::Secret;

/// What an extractor says about one request:
///
/// - `Ok(None)`: no credential of my kind. The next extractor is asked.
/// - `Ok(Some(session))`: genuine. The chain stops.
/// - `Err(NotMine)`: a credential of my kind that by its form was issued by another. What the chain does then
///   is in `chain.rs`.
/// - `Err(Rejected)`: a credential is present and not acceptable. The chain stops; it never falls through.
/// - `Err(Unavailable)`: a credential is present and cannot be checked right now. The chain stops.
pub type Extracted = Result<Option<Session>, ExtractError>;

/// Recognises one kind of session in a request.
pub trait SessionExtractor: fmt::Debug + Send + Sync + 'static {
    /// Looks for a session in the request's head. The peer's address is in its extensions as
    /// [`Peer`].
    fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted>;

    /// Which credentials this extractor decides about. After a credential in a header that is another's, only
    /// extractors that read the same header are asked. The default reads none.
    fn reach(&self) -> Reach {
        Reach::default()
    }

    /// Called once when the service starts, inside its runtime: fetch ahead what requests will need.
    fn start(&self) {}

    /// Called before metrics are read: the place to set gauges.
    fn observe(&self) {}

    /// Whether the extractor can decide about requests now. Requests are sent to it in any case.
    fn readiness(&self) -> Readiness {
        Readiness::Ready
    }
}

/// One place where a credential may stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialSource {
    /// `header:authorization`: a bearer token (RFC 6750, section 2.1).
    Bearer,
    /// Any other header, which holds the bare credential.
    Header(HeaderName),
    Cookie(String),
    /// The cookie of `@supabase/ssr`, whole or in parts: a JSON session with the token in it
    /// (`src/cookies.ts` and `utils/chunker.ts` there).
    Supabase(String),
}

/// The credentials that an extractor decides about, as far as their place and form tell.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// Where they stand in a request.
    pub places: Arc<[CredentialSource]>,
    /// Credentials that are no JWT.
    pub opaque: bool,
    /// JWTs of these issuers; an empty list means of any.
    pub jwts_of: Option<Vec<String>>,
    /// Only JWTs signed with a shared secret (`true`) or with a private key (`false`).
    pub hmac: Option<bool>,
    /// Where users get their ids, if it is known.
    pub authority: Option<Authority>,
}

/// Where the users of a section get their ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authority {
    Issuers(Vec<String>),
    /// A session store, by a hash of its address, of which a part may be secret.
    Store(u64),
}

impl Authority {
    /// The store at `url`, without the credentials in it.
    pub fn store(url: &Secret) -> Self {
        let url = std::str::from_utf8(url.expose())
            .ok()
            .and_then(|text| Url::parse(text).ok());
        let mut hasher = DefaultHasher::new();
        url.map(|url| {
            (
                url.host_str().map(str::to_owned),
                url.port(),
                url.path().to_owned(),
            )
        })
        .hash(&mut hasher);
        Self::Store(hasher.finish())
    }
}

impl Reach {
    /// Everything that stands in these places.
    pub fn everything(places: impl IntoIterator<Item = CredentialSource>) -> Self {
        let places = places.into_iter().collect();
        Self {
            places,
            opaque: true,
            jwts_of: Some(Vec::new()),
            ..Self::default()
        }
    }

    /// The cookie called `name` and its parts.
    pub fn cookie(name: &str) -> Self {
        Self::everything([CredentialSource::Cookie(name.to_owned())])
    }
}

/// The address on the other end of the connection: a proxy's, if there is one.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// A genuine session: its decoded attributes, and when it ends if it says so.
#[derive(Clone, Debug)]
pub struct Session {
    pub attributes: Value,
    pub expires_at: Option<UnixSeconds>,
}

impl Session {
    /// A session that only says who its user is.
    pub fn of_subject(subject: &str) -> Self {
        let sub = Value::String(subject.to_owned());
        Self {
            attributes: Value::Object([("sub", sub)].into_iter().collect()),
            expires_at: None,
        }
    }
}

/// Why a credential that is present does not give a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtractError {
    /// By its form the credential, which stands in this place, was issued by another. To be decided before a
    /// key is fetched or a backend is asked.
    NotMine(Reason, CredentialSource),
    Rejected(Reason),
    Unavailable(Cause),
}

/// What is wrong with a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// A stable word for logs, such as `bad_signature`.
    pub word: &'static str,
    /// The credential was good once: the user has to sign in again.
    pub expired: bool,
    /// More for the operator, shown by `explain` only. May quote the credential's claims, never a
    /// secret or a signature.
    pub detail: Option<String>,
}

/// What keeps an extractor from deciding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// A stable word for logs, such as `jwks_unreachable`.
    pub word: &'static str,
    /// More for the operator's log. Holds no part of the request.
    pub detail: Option<String>,
    /// When to ask again, if a back end said so.
    pub retry_after: Option<Duration>,
}

impl ExtractError {
    /// The credential's time is over.
    pub fn expired() -> Self {
        Self::Rejected(Reason {
            word: "expired",
            expired: true,
            detail: None,
        })
    }

    /// The credential is wrong in the way that `word` names.
    pub fn rejected(word: &'static str) -> Self {
        Self::Rejected(Reason {
            word,
            expired: false,
            detail: None,
        })
    }

    /// The credential in `place` was issued by another, as `word` says.
    pub fn not_mine(word: &'static str, place: &CredentialSource) -> Self {
        Self::NotMine(
            Reason {
                word,
                expired: false,
                detail: None,
            },
            place.clone(),
        )
    }

    /// Nobody can tell right now, for the cause that `word` names.
    pub fn unavailable(word: &'static str) -> Self {
        Self::Unavailable(Cause {
            word,
            detail: None,
            retry_after: None,
        })
    }

    /// The same, with something more for the operator.
    #[must_use]
    pub fn because(mut self, text: impl Into<String>) -> Self {
        match &mut self {
            Self::NotMine(Reason { detail, .. }, _)
            | Self::Rejected(Reason { detail, .. })
            | Self::Unavailable(Cause { detail, .. }) => *detail = Some(text.into()),
        }
        self
    }

    /// The stable word for logs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::NotMine(reason, _) | Self::Rejected(reason) => reason.word,
            Self::Unavailable(cause) => cause.word,
        }
    }

    /// The same, with the back end's word on when to ask again. A rejection stays what it is.
    #[must_use]
    pub fn again_after(mut self, wait: Option<Duration>) -> Self {
        if let Self::Unavailable(cause) = &mut self {
            cause.retry_after = wait;
        }
        self
    }
}

/// Whether an extractor has what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    /// It works with what it has, which is old, or the back end that it asks did not answer last time.
    Stale,
    /// It never had what it needs; the word says what.
    Waiting(&'static str),
}

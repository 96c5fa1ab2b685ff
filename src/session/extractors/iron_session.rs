//! `iron_session`: a session in a cookie that is encrypted and signed ("sealed") with @hapi/iron. iron-session writes
//! such cookies, and so do h3 (Nuxt) and hapi, which seal the session without iron-session's layout. Format:
//! iron-session `src/core.ts`; h3 `src/utils/session.ts` and `src/utils/cookie.ts`; hapi's statehood `lib/index.js`.
//! [`crate::session::formats::iron`] opens seals.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Once};
use std::thread::available_parallelism;

use axum::http::HeaderName;
use axum::http::request::Parts;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::config::{HumanDuration, Problems, Section};
use crate::json::{Object, Value};
use crate::secret::Secret;
use crate::session::backends::Context;
use crate::session::backends::waiting::Waiting;
use crate::session::formats::iron::Seal;
use crate::session::formats::jwt_form;
use crate::session::formats::page_link::page_link;
use crate::session::formats::shown::shown;
use crate::session::kind::{BuildResult, Kind};
use crate::session::reason::Reason;
use crate::session::sections::app_secret;
use crate::session::sections::cookie::{self, Cookie};
use crate::session::sections::one_or_map::OneOrMap;
use crate::session::sections::session_end::{ExpiresPath, SessionEnd};
use crate::session::types::{
    CredentialSource, ExtractError, Extracted, Reach, Session, SessionExtractor,
};

/// The app decides what a session contains. The default subject follows the README and examples of iron-session.
pub const KIND: Kind = Kind::new(build).with_subject("{user.id}");

/// The version of the seal's data layout, appended after the MAC and therefore not authenticated. iron-session v8 reads
/// a seal with another version as one of v6, and v9 ignores the version. Neither writes another version, so a seal with
/// another version is refused here.
const LAYOUT: &str = "~2";
/// The id that iron-session gives to a single password.
const SINGLE_ID: &str = "1";
/// The id that @hapi/iron uses for a seal without a password id if several passwords are configured.
const DEFAULT_ID: &str = "default";
/// The minimum length of a password, which the libraries enforce too.
const MIN_PASSWORD: usize = 32;
/// The maximum number of cookies into which v9 splits a seal.
const MAX_PARTS: usize = 4;
/// The prefix of h3's cookie value if the seal is split over `NAME.1`, `NAME.2` …; the number of chunks follows it.
const CHUNKED: &str = "__chunked__";
/// The maximum number of h3's chunks that are read. By default, h3's chunks have almost 4 KiB, so the default of
/// `server.max_header_bytes` allows fewer.
const MAX_CHUNKS: usize = 16;
/// The number of PBKDF2 iterations with which @hapi/iron and iron-webcrypto derive keys.
const ITERATIONS: NonZeroU32 = NonZeroU32::MIN;
/// The number of PBKDF2 iterations in h3 version 2, which also reads seals of version 1.
const H3_ITERATIONS: NonZeroU32 = NonZeroU32::new(8192).expect("not zero");
/// The cookie of `WorkOS` `AuthKit`.
const AUTHKIT: &str = "wos-session";
/// `[extractors.NAME]` with `kind = "iron_session"`
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct IronSessionConfig {
    cookie: Option<String>,
    password: Option<OneOrMap<Secret>>,
    version: Version,
    expires_path: Option<ExpiresPath>,
    idle: Option<HumanDuration>,
    max_waiting: Option<usize>,
}

/// The layout of a seal's content, and how the seal is stored in cookies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Version {
    /// iron-session 9, which splits a long seal into numbered cookies.
    #[default]
    V9,
    /// iron-session 8.
    V8,
    /// h3 and hapi, which seal the session without iron-session's layout. h3 also reads the seal from a header.
    Raw,
}

#[derive(Debug)]
struct IronSession {
    /// The header that h3 reads before the cookie. hapi reads no header, but accepting one is safe, because the seal is
    /// encrypted and signed wherever it is sent.
    header: Option<CredentialSource>,
    cookie: Cookie,
    passwords: Passwords,
    version: Version,
    /// Opens seals of h3 version 2. `None` unless the version is `raw`.
    derivations: Option<Derivations>,
    end: SessionEnd,
    clock: Clock,
    extractor: String,
    authkit_warning: Once,
}

/// Derives the keys of h3 version 2 on blocking threads. A derivation takes milliseconds of processor time, even for a
/// forged seal. Therefore at most half as many derivations run at a time as there are processors, and the number of
/// waiting requests is limited, so that forged seals cannot block all in-flight requests of the service.
#[derive(Debug)]
struct Derivations {
    permits: Arc<Semaphore>,
    waiting: Arc<Waiting>,
}

/// The passwords that open seals. Keys cannot be derived from them in advance, because each seal has its own salts.
#[derive(Debug)]
enum Passwords {
    /// One password for every seal. As in @hapi/iron, the seal's password id is ignored.
    Any(Secret),
    /// The passwords, keyed by the password id in the seal.
    ById(BTreeMap<String, Secret>),
}

fn build(section: &Section<'_>, context: &Context) -> BuildResult {
    let mut problems = Problems::default();
    let config: IronSessionConfig = section.read(&mut problems);
    let name = config.cookie.as_deref().unwrap_or_default();
    let cookie = Cookie::named(section, "cookie", name, &mut problems);
    problems.require(
        name != AUTHKIT,
        section.key("cookie"),
        format!("{name} {}", authkit_advice()),
    );
    let passwords = passwords(section, config.password, config.version, &mut problems);
    let end = SessionEnd::read(section, config.expires_path, config.idle, &mut problems);
    let is_raw = config.version == Version::Raw;
    let max = config.max_waiting;
    let derivations =
        is_raw.then(|| Derivations::new(Waiting::read(section, context, max, &mut problems)));
    problems.require(
        is_raw || max.is_none(),
        section.key("max_waiting"),
        "has no effect unless version is \"raw\": remove it",
    );
    let (Some(cookie), Some(passwords)) = (cookie, passwords) else {
        return Err(problems);
    };
    problems.or(Arc::new(IronSession {
        header: h3_header(&cookie).filter(|_| is_raw),
        cookie,
        passwords,
        version: config.version,
        derivations,
        end,
        clock: context.clock.clone(),
        extractor: section.name().to_owned(),
        authkit_warning: Once::new(),
    }))
}

/// The header `x-NAME-session`, h3's default for a cookie called `NAME`. `None` if the name contains characters that a
/// header name cannot contain.
fn h3_header(cookie: &Cookie) -> Option<CredentialSource> {
    let name = HeaderName::try_from(format!("x-{}-session", cookie.name()));
    name.ok().map(CredentialSource::Header)
}

fn passwords(
    section: &Section<'_>,
    values: Option<OneOrMap<Secret>>,
    version: Version,
    problems: &mut Problems,
) -> Option<Passwords> {
    app_secret::require_given(section, "password", values.is_some(), "password", problems);
    match values? {
        OneOrMap::One(value) => {
            let password = password(section, "password", value, problems)?;
            Some(match version {
                Version::Raw => Passwords::Any(password),
                Version::V8 | Version::V9 => {
                    Passwords::ById(BTreeMap::from([(SINGLE_ID.to_owned(), password)]))
                }
            })
        }
        OneOrMap::Map(values) => {
            section.count_secrets("password", values.len());
            let mut passwords = BTreeMap::new();
            for (id, value) in values {
                let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
                problems.require(
                    !id.is_empty() && id.bytes().all(is_word),
                    section.key("password"),
                    "must have ids that consist of letters, digits and `_`",
                );
                let password = password(section, &format!("password.{id}"), value, problems);
                passwords.extend(password.map(|password| (id, password)));
            }
            Some(Passwords::ById(passwords))
        }
    }
}

fn password(
    section: &Section<'_>,
    key: &str,
    value: Secret,
    problems: &mut Problems,
) -> Option<Secret> {
    let password = app_secret::required(section, key, Some(value), "password", problems)?;
    problems.require(
        password.expose().len() >= MIN_PASSWORD,
        section.key(key),
        "is shorter than 32 characters, the minimum of the library: copy the app's password",
    );
    Some(password)
}

impl Passwords {
    fn get(&self, id: &str, version: Version) -> Option<&Secret> {
        match self {
            Self::Any(password) => Some(password),
            Self::ById(passwords) if id.is_empty() && version == Version::Raw => {
                passwords.get(DEFAULT_ID)
            }
            Self::ById(passwords) => passwords.get(id),
        }
    }
}

impl Derivations {
    fn new(waiting: Arc<Waiting>) -> Self {
        let processors = available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            permits: Arc::new(Semaphore::new((processors / 2).max(1))),
            waiting,
        }
    }

    async fn open(&self, seal: &str, password: &Secret) -> Result<Option<Vec<u8>>, ExtractError> {
        let interrupted = || ExtractError::unavailable(Reason::Interrupted);
        let busy =
            "max_waiting is reached: too many seals of h3 version 2 are waiting to be opened";
        let place = self.waiting.enter();
        let _place =
            place.ok_or_else(|| ExtractError::unavailable(Reason::BackendBusy).because(busy))?;
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|_| interrupted())?;
        let (seal, password) = (seal.to_owned(), password.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            Seal::parse(&seal)?.open(&password, H3_ITERATIONS)
        });
        opened.await.map_err(|_| interrupted())
    }
}

impl IronSession {
    async fn session(&self, request: &Parts) -> Extracted {
        let Some(text) = self.text(request)? else {
            return Ok(None);
        };
        let sealed = match self.version {
            Version::V8 | Version::V9 => text.strip_suffix(LAYOUT),
            Version::Raw => Some(&*text),
        };
        let seal = sealed
            .and_then(Seal::parse)
            .ok_or_else(ExtractError::malformed)?;
        let password = self.passwords.get(seal.id, self.version).ok_or_else(|| {
            let found = format!("password has no id {}", shown(seal.id));
            ExtractError::rejected(Reason::UnknownKey).because(found)
        })?;
        let opened = match (seal.open(password, ITERATIONS), &self.derivations) {
            (None, Some(derivations)) => derivations.open(&text, password).await?,
            (opened, _) => opened,
        };
        let opened =
            opened.ok_or_else(|| ExtractError::other_secret(Reason::BadSeal, "password"))?;
        let now = self.clock.now();
        if let Some(end) = seal.expires_at().filter(|_| seal.is_expired(now)) {
            return Err(ExtractError::expired_at(end, now));
        }
        let attributes = Value::parse(&opened).map_err(|_| ExtractError::malformed())?;
        match &attributes {
            Value::Object(session) if is_authkit(session) => return Err(self.authkit()),
            Value::Object(_) => {}
            // hapi seals values of any type, so the session need not be an object.
            _ if self.version == Version::Raw => {}
            _ => return Err(ExtractError::malformed()),
        }
        Ok(Some(Session {
            attributes,
            expires_at: seal.expires_at(),
        }))
    }

    /// The seal in the header, or else in the cookie, whole or joined from its chunks.
    fn text<'a>(&self, request: &'a Parts) -> Result<Option<Cow<'a, str>>, ExtractError> {
        if let Some(text) = self.header_text(request)? {
            return Ok(Some(Cow::Borrowed(text)));
        }
        let whole = self.cookie.find(request)?;
        match (self.version, whole) {
            // As in the library, an unchunked cookie takes precedence over chunks.
            (Version::V9, None) => {
                Ok(
                    cookie::find_chunks(&request.headers, self.cookie.name(), MAX_PARTS)?
                        .map(Cow::Owned),
                )
            }
            (Version::Raw, Some(value)) if value.starts_with(CHUNKED) => {
                self.h3_chunks(request, value).map(Some)
            }
            _ => Ok(whole.map(Cow::Borrowed)),
        }
    }

    /// The seal in h3's header. A JWT in that header is not a seal: it belongs to another section.
    fn header_text<'a>(&self, request: &'a Parts) -> Result<Option<&'a str>, ExtractError> {
        let Some(place) = &self.header else {
            return Ok(None);
        };
        match place.opaque(&request.headers, &["bearer"])? {
            Some(text) if jwt_form::is_jwt(text) => {
                Err(ExtractError::not_mine(Reason::SignedJwt, place))
            }
            text => Ok(text),
        }
    }

    /// Joins the chunks of the current seal: h3 writes the number of chunks into the cookie itself. Chunks that are
    /// numbered higher are left over from a longer session.
    fn h3_chunks<'a>(
        &self,
        request: &'a Parts,
        marker: &str,
    ) -> Result<Cow<'a, str>, ExtractError> {
        let count = marker.strip_prefix(CHUNKED).and_then(|it| it.parse().ok());
        let count: usize = count.ok_or_else(ExtractError::malformed)?;
        if count > MAX_CHUNKS {
            return Err(ExtractError::rejected(Reason::TooManyParts));
        }
        let mut joined = String::new();
        for number in 1..=count {
            let name = format!("{}.{number}", self.cookie.name());
            let chunk = cookie::find(&request.headers, &name)?;
            joined += chunk.ok_or_else(|| ExtractError::rejected(Reason::MissingPart))?;
        }
        Ok(Cow::Owned(joined))
    }

    fn authkit(&self) -> ExtractError {
        self.authkit_warning.call_once(|| {
            let (name, advice) = (self.cookie.name(), authkit_advice());
            tracing::warn!(extractor = self.extractor, "the cookie {name} {advice}");
        });
        ExtractError::rejected(Reason::Purpose).because(format!("the cookie {}", authkit_advice()))
    }
}

/// Why a session of `AuthKit` is refused.
fn authkit_advice() -> String {
    let page = page_link("docs/recipes/workos-authkit.md");
    format!(
        "is a session of WorkOS AuthKit: it has no expiry of its own, and the access token inside, which expires after \
         minutes, is not checked here. Use session_endpoint: see {page}"
    )
}

/// Whether the session has the form that `AuthKit` seals (`authkit-nextjs` `src/session.ts`), whatever the cookie's
/// name.
fn is_authkit(session: &Object) -> bool {
    let is_token = match session.get("accessToken") {
        Ok(Some(Value::String(token))) => jwt_form::is_jwt(token),
        Ok(_) => false,
        Err(_) => true,
    };
    is_token && session.contains("refreshToken") && session.contains("user")
}

impl SessionExtractor for IronSession {
    fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted> {
        Box::pin(async move {
            let session = self.session(request).await;
            self.end.apply(session, self.clock.now())
        })
    }

    fn reach(&self) -> Reach {
        let cookie = CredentialSource::Cookie(self.cookie.name().to_owned());
        Reach::opaque(self.header.iter().cloned().chain([cookie]))
    }
}

#[cfg(test)]
mod tests;

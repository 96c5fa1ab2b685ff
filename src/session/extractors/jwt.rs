//! Sessions that are signed JWTs (RFC 7519), as identity providers issue them.
//! Keys are kept in `shared/jwks.rs`; configuration and the providers' presets are in `jwt/`.

mod config;
mod presets;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::{self, BoxFuture, FutureExt};

use crate::clock::{Clock, UnixSeconds};
use crate::json::{Object, Value};
use crate::session::backends::jwks::{FetchedKeys, Found, KeysByKid, Wait};
use crate::session::backends::keys::{Alg, KeySet};
use crate::session::credential_source;
use crate::session::formats::jwt_form;
use crate::session::kind::Kind;
use crate::session::sections::claims::{ClaimRules, check_scopes};
use crate::session::types::{
    Authority, CredentialSource, ExtractError, Extracted, Reach, Readiness, Session,
    SessionExtractor,
};

pub const KIND: Kind = Kind {
    build: config::build,
    subject: "{sub}",
    presets: presets::PRESETS,
};

/// Header parameters that change what is verified, or bring the key along (RFC 7515, section 4.1,
/// RFC 7797). A token that needs them is not for us; one that does not need them must not have them.
const REFUSED_PARAMETERS: [&str; 8] = ["crit", "b64", "zip", "cty", "jwk", "jku", "x5u", "x5c"];

/// The last second of the year 9999: a later expiry is a mistake, such as milliseconds.
const LAST_SECOND: UnixSeconds = 253_402_300_799;

/// Verifies JWTs.
///
/// Only the signature is left to `jsonwebtoken`. Its `decode` reads the machine's clock, keeps the
/// last of two members with one name, ignores `crit`, `b64`, `zip` and `typ`, and quotes the token in
/// its errors.
#[derive(Debug)]
struct Jwt {
    places: Vec<CredentialSource>,
    keys: Keys,
    /// The algorithms that a header may name.
    algorithms: Vec<Alg>,
    /// Who may have issued the token; empty means anybody who has the key.
    issuers: Vec<String>,
    /// Whom the token may be meant for; empty means anybody.
    audiences: Vec<String>,
    leeway: UnixSeconds,
    claims: ClaimRules,
    header_claims: ClaimRules,
    required_scopes: Vec<String>,
    max_token_bytes: usize,
    token_types: Vec<String>,
    padded_base64: bool,
    clock: Clock,
    /// The header of the last genuine token. An issuer writes the same one into all of its tokens.
    last_header: ArcSwapOption<Header>,
}

/// A header that is in order.
#[derive(Debug)]
struct Header {
    /// As it stands in the token.
    encoded: String,
    alg: Alg,
    kid: Option<String>,
}

/// The keys that verify tokens.
#[derive(Debug)]
enum Keys {
    /// One key, whatever id a token's header gives it.
    One(Arc<KeySet>),
    /// A set that does not change while the service runs.
    Set(Arc<KeySet>),
    Fetched(FetchedKeys),
    ByKid(KeysByKid),
}

impl Keys {
    fn get(&self, kid: Option<&str>) -> Result<Found, ExtractError> {
        match self {
            Self::One(keys) | Self::Set(keys) => Ok(Found::Keys(keys.clone())),
            Self::Fetched(keys) => keys.get(kid),
            Self::ByKid(keys) => keys.get(kid),
        }
    }

    /// The key id to look for among the keys that were found.
    fn wanted<'a>(&self, kid: Option<&'a str>) -> Option<&'a str> {
        match self {
            Self::One(_) | Self::ByKid(_) => None,
            Self::Set(_) | Self::Fetched(_) => kid,
        }
    }
}

/// A token whose form and header are in order, and nothing more.
struct Unverified<'a> {
    header: Arc<Header>,
    /// It is not the one of the last genuine token.
    is_new: bool,
    signed: &'a str,
    payload: Value,
    signature: &'a str,
}

impl Unverified<'_> {
    fn kid(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }
}

impl SessionExtractor for Jwt {
    fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted> {
        let found = match credential_source::find(&self.places, request) {
            Ok(Some(found)) => found,
            Ok(None) => return future::ready(Ok(None)).boxed(),
            Err(error) => return future::ready(Err(error)).boxed(),
        };
        match self.session(&found) {
            Ok(Step::Done(session)) => future::ready(Ok(Some(session))).boxed(),
            Ok(Step::Wait(wait)) => async move {
                let token = self.read(&found)?;
                let keys = wait.keys(self.keys.wanted(token.kid())).await?;
                self.verify(token, &keys).map(Some)
            }
            .boxed(),
            Err(error) => future::ready(Err(error)).boxed(),
        }
    }

    fn reach(&self) -> Reach {
        Reach {
            places: self.places.clone().into(),
            opaque: false,
            jwts_of: Some(self.issuers.clone()),
            hmac: Some(self.is_hmac()),
            authority: (!self.issuers.is_empty()).then(|| Authority::Issuers(self.issuers.clone())),
        }
    }

    fn start(&self) {
        if let Keys::Fetched(keys) = &self.keys {
            keys.start();
        }
    }

    fn observe(&self) {
        if let Keys::Fetched(keys) = &self.keys {
            keys.observe();
        }
    }

    fn readiness(&self) -> Readiness {
        match &self.keys {
            Keys::Fetched(keys) => keys.readiness(),
            Keys::ByKid(keys) => keys.readiness(),
            Keys::One(_) | Keys::Set(_) => Readiness::Ready,
        }
    }
}

/// How far a token can be taken without waiting.
enum Step {
    Done(Session),
    /// Its keys have to be fetched first.
    Wait(Wait),
}

impl Jwt {
    fn session(&self, found: &credential_source::Found<'_>) -> Result<Step, ExtractError> {
        let token = self.read(found)?;
        match self.keys.get(token.kid())? {
            Found::Keys(keys) => self.verify(token, &keys).map(Step::Done),
            Found::Wait(wait) => Ok(Step::Wait(wait)),
        }
    }

    /// Checks everything about a token that can be checked without a key, first whose it is.
    fn read<'a>(
        &self,
        found: &'a credential_source::Found<'_>,
    ) -> Result<Unverified<'a>, ExtractError> {
        let token = &*found.text;
        if token.len() > self.max_token_bytes {
            return Err(ExtractError::rejected("too_large"));
        }
        let not_mine = |word| ExtractError::not_mine(word, found.place);
        let [header, payload, signature] =
            jwt_form::parts(token).ok_or_else(|| not_mine("not_a_jwt"))?;
        let known = self
            .last_header
            .load_full()
            .filter(|last| last.encoded == header);
        if known.is_none() {
            let header = jwt_form::decode(header).ok_or_else(|| not_mine("not_a_jwt"))?;
            let alg = jwt_form::alg(&header)?.ok_or_else(|| not_mine("not_a_jwt"))?;
            if jwt_form::is_hmac(alg).is_some_and(|is_hmac| is_hmac != self.is_hmac()) {
                return Err(not_mine("alg_not_allowed"));
            }
        }
        if payload.is_empty() || signature.is_empty() {
            return Err(malformed("a part is empty"));
        }
        let signed = &token[..header.len() + 1 + payload.len()];
        let payload = self.parse(payload)?;
        let issuer = jwt_form::issuer(object(&payload, "the payload")?)?;
        if !self.accepts_issuer(issuer) {
            return Err(
                not_mine("issuer").because(format!("iss is {}", issuer.unwrap_or("missing")))
            );
        }
        let (header, is_new) = match known {
            Some(last) => (last, false),
            None => (Arc::new(self.read_header(header)?), true),
        };
        Ok(Unverified {
            header,
            is_new,
            signed,
            payload,
            signature: self.unpadded(signature)?,
        })
    }

    /// Whether tokens are signed with a shared secret: a section never takes both families.
    fn is_hmac(&self) -> bool {
        self.algorithms.iter().any(|alg| alg.is_hmac())
    }

    fn accepts_issuer(&self, issuer: Option<&str>) -> bool {
        self.issuers.is_empty()
            || self
                .issuers
                .iter()
                .any(|known| Some(known.as_str()) == issuer)
    }

    fn read_header(&self, encoded: &str) -> Result<Header, ExtractError> {
        let header = self.json(encoded)?;
        let header = object(&header, "the header")?;
        let alg = self.check_header(header)?;
        let kid = member(header, "kid")?
            .and_then(Value::as_str)
            .map(str::to_owned);
        Ok(Header {
            encoded: encoded.to_owned(),
            alg,
            kid,
        })
    }

    fn check_header(&self, header: &Object) -> Result<Alg, ExtractError> {
        if let Some(name) = REFUSED_PARAMETERS
            .into_iter()
            .find(|name| header.contains(name))
        {
            return Err(ExtractError::rejected("header").because(format!("the header has {name}")));
        }
        match member(header, "typ")? {
            None => {}
            Some(Value::String(typ)) if self.is_token_type(typ) => {}
            Some(_) => return Err(ExtractError::rejected("token_type")),
        }
        if !matches!(member(header, "kid")?, None | Some(Value::String(_))) {
            return Err(malformed("the key id is no text"));
        }
        self.header_claims.check(header)?;
        let name = member(header, "alg")?.and_then(Value::as_str);
        let alg = self.algorithms.iter().find(|alg| Some(alg.name) == name);
        alg.copied()
            .ok_or_else(|| ExtractError::rejected("alg_not_allowed"))
    }

    /// Media types may drop their `application/` (RFC 7515, section 4.1.9).
    fn is_token_type(&self, typ: &str) -> bool {
        self.token_types
            .iter()
            .any(|known| bare_type(known).eq_ignore_ascii_case(bare_type(typ)))
    }

    fn verify(&self, token: Unverified<'_>, keys: &KeySet) -> Result<Session, ExtractError> {
        let kid = self.keys.wanted(token.kid());
        match keys.verify(
            token.signed.as_bytes(),
            token.signature,
            token.header.alg,
            kid,
        ) {
            Some(true) if token.is_new => self.last_header.store(Some(token.header.clone())),
            Some(true) => {}
            Some(false) => return Err(ExtractError::rejected("bad_signature")),
            None => return Err(ExtractError::rejected("unknown_key")),
        }
        let attributes = token.payload;
        if attributes.has_duplicates() {
            return Err(malformed("a member stands twice"));
        }
        let expires_at = self.check_claims(object(&attributes, "the payload")?)?;
        Ok(Session {
            attributes,
            expires_at: Some(expires_at),
        })
    }

    /// Checks the claims; gives the expiry.
    fn check_claims(&self, claims: &Object) -> Result<UnixSeconds, ExtractError> {
        let now = self.clock.now();
        let exp = member(claims, "exp")?.and_then(numeric_date);
        let Some((ends, over)) = exp.filter(|(ends, _)| *ends <= LAST_SECOND) else {
            return Err(
                ExtractError::rejected("exp").because("exp is missing, no number, or too far away")
            );
        };
        if now >= over.saturating_add(self.leeway) {
            return Err(ExtractError::expired());
        }
        for (name, must_be_number) in [("nbf", true), ("iat", true), ("auth_time", false)] {
            let Some(value) = member(claims, name)? else {
                continue;
            };
            match numeric_date(value) {
                Some((_, begins)) if begins > now.saturating_add(self.leeway) => {
                    return Err(
                        ExtractError::rejected("not_yet_valid").because(format!("{name} is ahead"))
                    );
                }
                None if must_be_number => return Err(malformed(format!("{name} is no number"))),
                Some(_) | None => {}
            }
        }
        self.check_audience(claims)?;
        self.claims.check(claims)?;
        check_scopes(&self.required_scopes, claims)?;
        Ok(ends)
    }

    fn check_audience(&self, claims: &Object) -> Result<(), ExtractError> {
        if self.audiences.is_empty() {
            return Ok(());
        }
        let audience = match member(claims, "aud")? {
            Some(Value::Array(items)) => items.as_slice(),
            Some(one) => std::slice::from_ref(one),
            None => &[],
        };
        let is_text = audience.iter().all(|item| item.as_str().is_some());
        let mut known = self.audiences.iter();
        if is_text && known.any(|known| audience.iter().any(|item| item.as_str() == Some(known))) {
            return Ok(());
        }
        Err(ExtractError::rejected("audience")
            .because("aud names none of the configured audiences"))
    }

    /// One part of a token as JSON in which every name has one meaning.
    fn json(&self, part: &str) -> Result<Value, ExtractError> {
        let value = self.parse(part)?;
        if value.has_duplicates() {
            Err(malformed("a member stands twice"))
        } else {
            Ok(value)
        }
    }

    fn parse(&self, part: &str) -> Result<Value, ExtractError> {
        let bytes = URL_SAFE_NO_PAD
            .decode(self.unpadded(part)?)
            .map_err(|_| malformed("not base64url"))?;
        Value::parse(&bytes).map_err(|_| malformed("not JSON"))
    }

    /// The part without padding, which is required where it is configured and refused elsewhere.
    fn unpadded<'a>(&self, part: &'a str) -> Result<&'a str, ExtractError> {
        if !self.padded_base64 {
            return Ok(part);
        }
        let unpadded = part.trim_end_matches('=');
        let is_canonical = part.len().is_multiple_of(4) && part.len() - unpadded.len() <= 2;
        is_canonical
            .then_some(unpadded)
            .ok_or_else(|| malformed("not padded base64url"))
    }
}

fn malformed(detail: impl Into<String>) -> ExtractError {
    ExtractError::rejected("malformed").because(detail)
}

fn object<'a>(value: &'a Value, what: &str) -> Result<&'a Object, ExtractError> {
    value
        .as_object()
        .ok_or_else(|| malformed(format!("{what} is no object")))
}

fn member<'a>(object: &'a Object, name: &str) -> Result<Option<&'a Value>, ExtractError> {
    object
        .get(name)
        .map_err(|_| malformed("a member stands twice"))
}

fn bare_type(media_type: &str) -> &str {
    const PREFIX: &str = "application/";
    match media_type.get(..PREFIX.len()) {
        Some(prefix) if prefix.eq_ignore_ascii_case(PREFIX) => &media_type[PREFIX.len()..],
        Some(_) | None => media_type,
    }
}

/// A `NumericDate`, rounded down and up to whole seconds: it may have a fraction.
fn numeric_date(value: &Value) -> Option<(UnixSeconds, UnixSeconds)> {
    let Value::Number(number) = value else {
        return None;
    };
    if let Some(seconds) = number.as_i64() {
        return Some((seconds, seconds));
    }
    let seconds = number.as_f64()?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a cast from a float stops at the bounds"
    )]
    Some((
        seconds.floor() as UnixSeconds,
        seconds.ceil() as UnixSeconds,
    ))
}

#[cfg(test)]
mod tests;

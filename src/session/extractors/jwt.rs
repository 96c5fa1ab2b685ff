//! Sessions that are signed JWTs (RFC 7519), as identity providers issue them.
//! The configuration and the providers' presets are in `jwt/`, the cache of fetched keys in `backends/jwks.rs`.

mod config;
mod presets;

use std::sync::Arc;

use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::BoxFuture;

use crate::clock::{Clock, UnixSeconds};
use crate::json::{Object, Value};
use crate::session::backends::jwks::{FetchedKeys, Found, KeysByKid};
use crate::session::backends::keys::{Alg, KeySet};
use crate::session::credential_source;
use crate::session::formats::jwt_form;
use crate::session::kind::Kind;
use crate::session::reason::Reason;
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

/// Header parameters that change what is verified, or that contain or locate the key (RFC 7515, section 4.1,
/// RFC 7797). A token with any of them is refused.
const REFUSED_PARAMETERS: [&str; 8] = ["crit", "b64", "zip", "cty", "jwk", "jku", "x5u", "x5c"];

/// The last second of the year 9999. A later expiry is a mistake, such as a time in milliseconds.
const LATEST_EXPIRY: UnixSeconds = 253_402_300_799;

/// Verifies JWTs.
///
/// Only the signature is checked with `jsonwebtoken`. Its `decode` is not used: it reads the machine's clock,
/// keeps the last of two members with the same name, ignores `crit`, `b64`, `zip` and `typ`, and quotes the
/// token in its errors.
#[derive(Debug)]
struct Jwt {
    places: Vec<CredentialSource>,
    keys: KeySource,
    /// Accepted values of the header's `alg`.
    algorithms: Vec<Alg>,
    /// Accepted values of `iss`; an empty list accepts any, also none.
    issuers: Vec<String>,
    /// Accepted values of `aud`; an empty list accepts any, also none.
    audiences: Vec<String>,
    leeway: UnixSeconds,
    claims: ClaimRules,
    header_claims: ClaimRules,
    required_scopes: Vec<String>,
    max_token_bytes: usize,
    token_types: Vec<String>,
    padded_base64: bool,
    clock: Clock,
}

/// Where the keys that verify tokens come from.
#[derive(Debug)]
enum KeySource {
    /// Keys from the configuration that are used for every `kid`.
    AnyKid(Arc<KeySet>),
    /// A JWK set from the configuration, whose keys are chosen by `kid`.
    Set(Arc<KeySet>),
    /// A published JWK set.
    Fetched(FetchedKeys),
    /// A URL for each `kid`.
    ByKid(KeysByKid),
}

impl KeySource {
    /// The keys for a token that names `kid`, after a fetch if one is needed.
    async fn get(&self, kid: Option<&str>) -> Result<Arc<KeySet>, ExtractError> {
        let found = match self {
            Self::AnyKid(keys) | Self::Set(keys) => return Ok(keys.clone()),
            Self::Fetched(keys) => keys.get(kid)?,
            Self::ByKid(keys) => keys.get(kid)?,
        };
        match found {
            Found::Keys(keys) => Ok(keys),
            Found::Wait(wait) => wait.keys(self.kid_in_set(kid)).await,
        }
    }

    /// The key id by which a key is chosen in the set; `None` if every key of the set may be used.
    fn kid_in_set<'a>(&self, kid: Option<&'a str>) -> Option<&'a str> {
        match self {
            Self::AnyKid(_) | Self::ByKid(_) => None,
            Self::Set(_) | Self::Fetched(_) => kid,
        }
    }
}

/// A token whose form and header were checked. Neither its signature nor its claims were.
struct UnverifiedToken<'a> {
    alg: Alg,
    kid: Option<String>,
    /// Header and payload, as they were signed.
    signed: &'a str,
    payload: Value,
    signature: &'a str,
}

impl SessionExtractor for Jwt {
    fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted> {
        Box::pin(async move {
            let Some(found) = credential_source::find(&self.places, request)? else {
                return Ok(None);
            };
            let token = self.read(&found)?;
            let keys = self.keys.get(token.kid.as_deref()).await?;
            self.verify(token, &keys).map(Some)
        })
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
        if let KeySource::Fetched(keys) = &self.keys {
            keys.start();
        }
    }

    fn observe(&self) {
        if let KeySource::Fetched(keys) = &self.keys {
            keys.observe();
        }
    }

    fn readiness(&self) -> Readiness {
        match &self.keys {
            KeySource::Fetched(keys) => keys.readiness(),
            KeySource::ByKid(keys) => keys.readiness(),
            KeySource::AnyKid(_) | KeySource::Set(_) => Readiness::Ready,
        }
    }
}

impl Jwt {
    /// Checks the form and the header of a token. The first checks decide whether another extractor may be
    /// asked (`NotMine`): the form, the family of `alg`, and the issuer.
    fn read<'a>(
        &self,
        found: &'a credential_source::Found<'_>,
    ) -> Result<UnverifiedToken<'a>, ExtractError> {
        let token = &*found.text;
        if token.len() > self.max_token_bytes {
            return Err(ExtractError::rejected(Reason::TooLarge));
        }
        let not_mine = |word| ExtractError::not_mine(word, found.place);
        let [header, payload, signature] =
            jwt_form::parts(token).ok_or_else(|| not_mine(Reason::NotAJwt))?;
        let form = jwt_form::decode(header).ok_or_else(|| not_mine(Reason::NotAJwt))?;
        let alg = jwt_form::alg(&form)?.ok_or_else(|| not_mine(Reason::NotAJwt))?;
        if jwt_form::is_hmac(alg).is_some_and(|is_hmac| is_hmac != self.is_hmac()) {
            return Err(not_mine(Reason::AlgNotAllowed));
        }
        if payload.is_empty() || signature.is_empty() {
            return Err(malformed("a part is empty"));
        }
        let signed = &token[..header.len() + 1 + payload.len()];
        let payload = self.parse(payload)?;
        let issuer = jwt_form::issuer(object(&payload, "the payload")?)?;
        if !self.accepts_issuer(issuer) {
            return Err(
                not_mine(Reason::Issuer).because(format!("iss is {}", issuer.unwrap_or("missing")))
            );
        }
        // Parsed again, because the first time padding and duplicate members were accepted.
        let header = self.json(header)?;
        let (alg, kid) = self.check_header(object(&header, "the header")?)?;
        Ok(UnverifiedToken {
            alg,
            kid,
            signed,
            payload,
            signature: self.unpadded(signature)?,
        })
    }

    /// Whether tokens are signed with a shared secret. A section never accepts both families.
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

    /// Checks the header; gives its `alg` and `kid`.
    fn check_header(&self, header: &Object) -> Result<(Alg, Option<String>), ExtractError> {
        if let Some(name) = REFUSED_PARAMETERS
            .into_iter()
            .find(|name| header.contains(name))
        {
            return Err(ExtractError::rejected(Reason::Header)
                .because(format!("the header parameter {name} is not supported")));
        }
        match member(header, "typ")? {
            None => {}
            Some(Value::String(typ)) if self.is_token_type(typ) => {}
            Some(_) => return Err(ExtractError::rejected(Reason::TokenType)),
        }
        let kid = match member(header, "kid")? {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(malformed("kid is not a string")),
        };
        self.header_claims.check(header)?;
        let name = member(header, "alg")?.and_then(Value::as_str);
        let alg = self.algorithms.iter().find(|alg| Some(alg.name) == name);
        let alg = alg.ok_or_else(|| ExtractError::rejected(Reason::AlgNotAllowed))?;
        Ok((*alg, kid))
    }

    /// The prefix `application/` may be left out of a media type (RFC 7515, section 4.1.9).
    fn is_token_type(&self, typ: &str) -> bool {
        self.token_types
            .iter()
            .any(|known| bare_type(known).eq_ignore_ascii_case(bare_type(typ)))
    }

    fn verify(&self, token: UnverifiedToken<'_>, keys: &KeySet) -> Result<Session, ExtractError> {
        let kid = self.keys.kid_in_set(token.kid.as_deref());
        match keys.verify(token.signed.as_bytes(), token.signature, token.alg, kid) {
            Some(true) => {}
            Some(false) => return Err(ExtractError::rejected(Reason::BadSignature)),
            None => return Err(ExtractError::rejected(Reason::UnknownKey)),
        }
        let attributes = token.payload;
        if attributes.has_duplicates() {
            return Err(malformed("the payload has a duplicate member"));
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
        let Some(exp) = exp.filter(|exp| exp.floor <= LATEST_EXPIRY) else {
            return Err(ExtractError::rejected(Reason::Exp)
                .because("exp is missing, not a number, or after the year 9999"));
        };
        if now >= exp.ceil.saturating_add(self.leeway) {
            return Err(ExtractError::expired());
        }
        for (name, must_be_number) in [("nbf", true), ("iat", true), ("auth_time", false)] {
            let Some(value) = member(claims, name)? else {
                continue;
            };
            match numeric_date(value) {
                Some(date) if date.ceil > now.saturating_add(self.leeway) => {
                    return Err(ExtractError::rejected(Reason::NotYetValid)
                        .because(format!("{name} is in the future")));
                }
                None if must_be_number => {
                    return Err(malformed(format!("{name} is not a number")));
                }
                Some(_) | None => {}
            }
        }
        self.check_audience(claims)?;
        self.claims.check(claims)?;
        check_scopes(&self.required_scopes, claims)?;
        Ok(exp.floor)
    }

    fn check_audience(&self, claims: &Object) -> Result<(), ExtractError> {
        if self.audiences.is_empty() {
            return Ok(());
        }
        let audience = match member(claims, "aud")? {
            Some(Value::Array(items)) => items.as_slice(),
            Some(single) => std::slice::from_ref(single),
            None => &[],
        };
        // Every item must be a string (RFC 7519, section 4.1.3).
        let audience: Option<Vec<&str>> = audience.iter().map(Value::as_str).collect();
        let is_accepted = audience.is_some_and(|audience| {
            self.audiences
                .iter()
                .any(|known| audience.contains(&known.as_str()))
        });
        if is_accepted {
            return Ok(());
        }
        Err(ExtractError::rejected(Reason::Audience)
            .because("aud contains none of the configured audiences"))
    }

    /// One part of a token as JSON without duplicate members.
    fn json(&self, part: &str) -> Result<Value, ExtractError> {
        let value = self.parse(part)?;
        if value.has_duplicates() {
            Err(malformed("a part of the token has a duplicate member"))
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

    /// The part without padding. Padding is required with `padded_base64`; without it the decoder refuses it.
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
    ExtractError::rejected(Reason::Malformed).because(detail)
}

fn object<'a>(value: &'a Value, what: &str) -> Result<&'a Object, ExtractError> {
    value
        .as_object()
        .ok_or_else(|| malformed(format!("{what} is not a JSON object")))
}

fn member<'a>(object: &'a Object, name: &str) -> Result<Option<&'a Value>, ExtractError> {
    object
        .get(name)
        .map_err(|_| malformed(format!("{name} occurs twice")))
}

fn bare_type(media_type: &str) -> &str {
    const PREFIX: &str = "application/";
    match media_type.get(..PREFIX.len()) {
        Some(prefix) if prefix.eq_ignore_ascii_case(PREFIX) => &media_type[PREFIX.len()..],
        Some(_) | None => media_type,
    }
}

/// A `NumericDate` (RFC 7519, section 2), which may have a fraction, rounded to whole seconds.
struct NumericDate {
    floor: UnixSeconds,
    ceil: UnixSeconds,
}

fn numeric_date(value: &Value) -> Option<NumericDate> {
    let Value::Number(number) = value else {
        return None;
    };
    if let Some(seconds) = number.as_i64() {
        return Some(NumericDate {
            floor: seconds,
            ceil: seconds,
        });
    }
    let seconds = number.as_f64()?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the cast saturates, and such a date is then refused"
    )]
    Some(NumericDate {
        floor: seconds.floor() as UnixSeconds,
        ceil: seconds.ceil() as UnixSeconds,
    })
}

#[cfg(test)]
mod tests;

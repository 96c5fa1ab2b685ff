//! `jwt`: sessions that are signed JWTs (RFC 7519), as identity providers issue them.
//! The configuration and the provider presets are in `jwt/`, and the cache of fetched keys is in `backends/jwks.rs`.

mod config;
mod key_source;
mod presets;

use std::sync::Arc;

use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::BoxFuture;

use self::key_source::KeySource;
use crate::clock::{Clock, UnixSeconds};
use crate::json::{Object, Value};
use crate::session::backends::keys::{Alg, SignatureError, Signed};
use crate::session::credential_source;
use crate::session::formats::issuer::{self, IssuerMatch, TENANT};
use crate::session::formats::jwt_form;
use crate::session::formats::jwt_times::numeric_date;
use crate::session::formats::shown::{differs, listed, shown};
use crate::session::kind::Kind;
use crate::session::reason::Reason;
use crate::session::sections::claims::{ClaimRules, check_scopes};
use crate::session::types::{
    Authority, BackendCall, BackendReport, CredentialSource, ExtractError, Extracted, Reach,
    Readiness, Session, SessionExtractor,
};
use crate::telemetry::metrics::Metrics;

pub const KIND: Kind = Kind::new(config::build).with_presets(presets::PRESETS);

/// Header parameters that change what is verified (RFC 7515, section 4.1.11; RFC 7516, section 4.1.3). A token with any
/// of them is refused, and so is a token with `b64` other than `true` (RFC 7797). Parameters that contain or locate a
/// key (`jwk`, `jku`, `x5u`, `x5c`) are ignored: only configured keys verify tokens.
const REFUSED_PARAMETERS: [&str; 2] = ["crit", "zip"];

/// The last second of the year 9999. A later expiry is a mistake, such as a time in milliseconds.
const LATEST_EXPIRY: UnixSeconds = 253_402_300_799;

/// Verifies JWTs.
///
/// Of `jsonwebtoken`, only the signature check is used, and not `decode`, because `decode` reads the machine's clock,
/// keeps the last of two members with the same name, ignores `crit`, `b64`, `zip` and `typ`, and quotes the token in
/// its errors.
#[derive(Debug)]
struct Jwt {
    places: Vec<CredentialSource>,
    keys: KeySource,
    /// Accepted values of the header's `alg`.
    algorithms: Vec<Alg>,
    /// Accepted values of `iss`; a value may contain `{tenantid}`. If empty, `iss` may have any value or be absent.
    issuers: Vec<String>,
    /// Accepted values of `tid`, in lower case. If empty, `tid` may have any value or be absent.
    tenants: Vec<String>,
    /// Accepted values of `aud`. If empty, `aud` may have any value or be absent.
    audiences: Vec<String>,
    leeway: UnixSeconds,
    claims: ClaimRules,
    header_claims: ClaimRules,
    required_scopes: Vec<String>,
    max_token_bytes: usize,
    token_types: Vec<String>,
    allow_sender_constrained: bool,
    padded_base64: bool,
    clock: Clock,
}

/// A token whose form and header have been checked, but not its signature and claims.
struct ParsedToken<'a> {
    alg: Alg,
    kid: Option<String>,
    /// The encoded header and payload, which the signature covers.
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
            self.check_signature(&token).await?;
            self.session(token).map(Some)
        })
    }

    fn reach(&self) -> Reach {
        Reach {
            places: self.places.clone().into(),
            jwts_of: Some(self.issuers_of_tenants()),
            hmac: Some(self.is_hmac()),
            authority: (!self.issuers.is_empty())
                .then(|| Authority::Issuers(self.issuers_of_tenants())),
            ..Reach::default()
        }
    }

    fn start(&self) {
        if let KeySource::Fetched(keys) = &self.keys {
            keys.start();
        }
    }

    fn observe(&self, name: &Arc<str>, metrics: &Metrics) {
        metrics.jwks_unusable_keys(name, self.keys.unusable().len());
        if let KeySource::Fetched(keys) = &self.keys
            && let Some(age) = keys.age()
        {
            metrics.jwks_age(name, age);
        }
    }

    fn notes(&self) -> Vec<String> {
        let unusable = self.keys.unusable().into_iter();
        unusable
            .map(|key| format!("a key cannot be used: {key}"))
            .collect()
    }

    fn readiness(&self) -> Readiness {
        match &self.keys {
            KeySource::Fetched(keys) => keys.readiness(),
            KeySource::ByKid(keys) => keys.readiness(),
            KeySource::AnyKid(_) | KeySource::Set(_) => Readiness::Ready,
        }
    }

    fn backend(&self) -> Option<BackendCall> {
        match &self.keys {
            KeySource::Fetched(keys) => Some(keys.call()),
            KeySource::ByKid(keys) => Some(keys.call()),
            KeySource::AnyKid(_) | KeySource::Set(_) => None,
        }
    }

    fn probe(&self) -> BoxFuture<'_, Vec<BackendReport>> {
        Box::pin(async move {
            match &self.keys {
                KeySource::Fetched(keys) => vec![keys.probe().await],
                KeySource::ByKid(keys) => vec![keys.probe().await],
                KeySource::AnyKid(_) | KeySource::Set(_) => Vec::new(),
            }
        })
    }
}

impl Jwt {
    /// Parses a token, and checks its length, form, header and issuer. If the form, the family of `alg` or the issuer
    /// does not fit, the error is `NotMine`, so that the chain may try another extractor.
    fn read<'a>(
        &self,
        found: &'a credential_source::Found<'_>,
    ) -> Result<ParsedToken<'a>, ExtractError> {
        let token = &*found.text;
        if token.len() > self.max_token_bytes {
            let (length, limit) = (token.len(), self.max_token_bytes);
            let detail = format!("the token has {length} bytes, and max_token_bytes is {limit}");
            return Err(ExtractError::rejected(Reason::TooLarge).because(detail));
        }
        let not_mine = |word| ExtractError::not_mine(word, found.place);
        let [header, payload, signature] =
            jwt_form::parts(token).ok_or_else(|| not_mine(Reason::NotAJwt))?;
        let form = jwt_form::decode(header).ok_or_else(|| not_mine(Reason::NotAJwt))?;
        let alg = jwt_form::alg(&form)?.ok_or_else(|| not_mine(Reason::NotAJwt))?;
        if jwt_form::is_hmac(alg).is_some_and(|is_hmac| is_hmac != self.is_hmac()) {
            return Err(not_mine(Reason::AlgNotAllowed).because(self.wrong_alg(alg)));
        }
        if payload.is_empty() || signature.is_empty() {
            return Err(malformed("a part is empty"));
        }
        let signed = &token[..header.len() + 1 + payload.len()];
        let payload = self.parse(payload)?;
        let issuer = jwt_form::issuer(object(&payload, "the payload")?)?;
        if !self.accepts_issuer(issuer) {
            let detail = differs("iss", issuer, "issuers", &self.issuers);
            return Err(not_mine(Reason::Issuer).because(detail));
        }
        if self.unpadded(header)?.ends_with('=') {
            return Err(malformed("not base64url"));
        }
        if form.has_duplicates() {
            return Err(malformed("the header has a duplicate member"));
        }
        let (alg, kid) = self.check_header(object(&form, "the header")?)?;
        Ok(ParsedToken {
            alg,
            kid,
            signed,
            payload,
            signature: self.unpadded(signature)?,
        })
    }

    /// Whether tokens are signed with a shared secret. A section never accepts both symmetric and asymmetric
    /// algorithms.
    fn is_hmac(&self) -> bool {
        self.algorithms.iter().any(|alg| alg.is_hmac())
    }

    fn accepts_issuer(&self, issuer: Option<&str>) -> bool {
        let is_known = |known: &String, issuer| match issuer::matches(known, issuer) {
            Some(IssuerMatch::Exact) => true,
            Some(IssuerMatch::OfTenant(tenant)) => self.accepts_tenant(tenant),
            None => false,
        };
        let mut known = self.issuers.iter();
        self.issuers.is_empty()
            || issuer.is_some_and(|issuer| known.any(|known| is_known(known, issuer)))
    }

    fn accepts_tenant(&self, tenant: &str) -> bool {
        self.tenants.is_empty() || self.tenants.contains(&tenant.to_ascii_lowercase())
    }

    /// The issuers, with `{tenantid}` replaced by each configured tenant.
    fn issuers_of_tenants(&self) -> Vec<String> {
        let mut all = Vec::new();
        for issuer in &self.issuers {
            if issuer.contains(TENANT) && !self.tenants.is_empty() {
                all.extend(
                    self.tenants
                        .iter()
                        .map(|tenant| issuer.replace(TENANT, tenant)),
                );
            } else {
                all.push(issuer.clone());
            }
        }
        all
    }

    /// Checks the header, and returns its `alg` and `kid`.
    fn check_header(&self, header: &Object) -> Result<(Alg, Option<String>), ExtractError> {
        let refused = ExtractError::rejected(Reason::Header);
        let mut names = REFUSED_PARAMETERS.into_iter();
        if let Some(name) = names.find(|name| header.contains(name)) {
            return Err(refused.because(format!("the header parameter {name} is not supported")));
        }
        if !matches!(member(header, "b64")?, None | Some(Value::Bool(true))) {
            return Err(refused.because("the header parameter b64 is not true"));
        }
        match member(header, "typ")? {
            None => {}
            Some(Value::String(typ)) if self.is_token_type(typ) => {}
            Some(typ) => {
                let found = differs("typ", typ.as_str(), "token_types", &self.token_types);
                return Err(ExtractError::rejected(Reason::TokenType).because(found));
            }
        }
        let kid = match member(header, "kid")? {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(malformed("kid is not a string")),
        };
        self.header_claims.check(header)?;
        let name = member(header, "alg")?.and_then(Value::as_str);
        match self.algorithms.iter().find(|alg| Some(alg.name) == name) {
            Some(alg) => Ok((*alg, kid)),
            None => Err(ExtractError::rejected(Reason::AlgNotAllowed)
                .because(self.wrong_alg(name.unwrap_or_default()))),
        }
    }

    fn wrong_alg(&self, alg: &str) -> String {
        let algorithms: Vec<&str> = self.algorithms.iter().map(|alg| alg.name).collect();
        differs("alg", Some(alg), "algorithms", &algorithms)
    }

    fn is_token_type(&self, typ: &str) -> bool {
        let mut known = self.token_types.iter();
        known.any(|known| is_media_type(known, typ))
    }

    /// Verifies the signature. If that fails, verifies it once more with newer keys, if there are any.
    async fn check_signature(&self, token: &ParsedToken<'_>) -> Result<(), ExtractError> {
        let kid = token.kid.as_deref();
        let signed = Signed {
            text: token.signed.as_bytes(),
            signature: token.signature,
            alg: token.alg,
            kid: self.keys.kid_in_set(kid),
            claims: token.payload.as_object(),
        };
        let keys = self.keys.get(kid).await?;
        let mut outcome = keys.verify(signed);
        if outcome.is_err()
            && let Some(newer) = self.keys.newer(kid, &keys).await
        {
            outcome = newer.verify(signed);
        }
        outcome.map_err(|error| match error {
            SignatureError::Wrong => {
                let kid = kid.map_or("no kid".to_owned(), |kid| format!("kid {}", shown(kid)));
                let (alg, source) = (token.alg.name, self.keys.name(token.alg));
                let detail = format!(
                    "the token has alg {alg} and {kid}; the keys that were tried are from {source}"
                );
                ExtractError::rejected(Reason::BadSignature).because(detail)
            }
            SignatureError::NoKey(found) => {
                ExtractError::rejected(Reason::UnknownKey).because(found)
            }
        })
    }

    /// Checks the claims of a token whose signature has been verified, and creates the session from its payload.
    fn session(&self, token: ParsedToken<'_>) -> Result<Session, ExtractError> {
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

    /// Checks the claims, and returns the expiry.
    fn check_claims(&self, claims: &Object) -> Result<UnixSeconds, ExtractError> {
        let now = self.clock.now();
        let exp = member(claims, "exp")?.and_then(numeric_date);
        let Some(exp) = exp.filter(|(floor, _)| *floor <= LATEST_EXPIRY) else {
            return Err(ExtractError::rejected(Reason::Exp)
                .because("exp is missing, not a number, or after the year 9999"));
        };
        if now >= exp.1.saturating_add(self.leeway) {
            return Err(ExtractError::expired_at(exp.0, now));
        }
        for (name, must_be_number) in [("nbf", true), ("iat", true), ("auth_time", false)] {
            let Some(value) = member(claims, name)? else {
                continue;
            };
            match numeric_date(value) {
                Some((_, ceil)) if ceil > now.saturating_add(self.leeway) => {
                    let reason = Reason::NotYetValid;
                    return Err(ExtractError::ahead(reason, name, ceil, now, self.leeway));
                }
                None if must_be_number => {
                    return Err(malformed(format!("{name} is not a number")));
                }
                Some(_) | None => {}
            }
        }
        self.check_tenant(claims)?;
        self.check_audience(claims)?;
        self.check_sender(claims)?;
        self.claims.check(claims)?;
        check_scopes(&self.required_scopes, claims)?;
        Ok(exp.0)
    }

    /// Refuses sender-constrained tokens (RFC 8705, RFC 9449), because the request does not prove possession of the
    /// key. With `allow_sender_constrained`, they are accepted without that proof.
    fn check_sender(&self, claims: &Object) -> Result<(), ExtractError> {
        match member(claims, "cnf")? {
            Some(cnf) if *cnf != Value::Null && !self.allow_sender_constrained => {
                Err(ExtractError::rejected(Reason::SenderConstrained).because(
                    "the token is bound to a key that its sender holds (cnf), and \
                     allow_sender_constrained is false",
                ))
            }
            _ => Ok(()),
        }
    }

    /// Checks that `tid` is an accepted tenant and, if the configured issuer contains `{tenantid}`, that `tid` equals
    /// the tenant in `iss`.
    fn check_tenant(&self, claims: &Object) -> Result<(), ExtractError> {
        let tenant = member(claims, "tid")?.and_then(Value::as_str);
        let wrong = |found| Err(ExtractError::rejected(Reason::Tenant).because(found));
        if !self.tenants.is_empty() && !tenant.is_some_and(|tenant| self.accepts_tenant(tenant)) {
            return wrong(differs("tid", tenant, "tenants", &self.tenants));
        }
        let issuer = jwt_form::issuer(claims)?;
        let matches = |known: &String| issuer::matches(known, issuer?);
        let is_of_tenant = |known: &String| match matches(known) {
            Some(IssuerMatch::OfTenant(other)) => tenant == Some(other),
            Some(IssuerMatch::Exact) => true,
            None => false,
        };
        if self.issuers.is_empty() || self.issuers.iter().any(is_of_tenant) {
            Ok(())
        } else {
            let (tenant, issuer) = (listed(tenant), listed(issuer));
            wrong(format!("tid is {tenant}, but iss is {issuer}"))
        }
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
        let texts: Option<Vec<&str>> = audience.iter().map(Value::as_str).collect();
        let mut accepted = self.audiences.iter();
        let found = match texts {
            Some(texts) if accepted.any(|known| texts.contains(&known.as_str())) => return Ok(()),
            Some(texts) => differs("aud", texts, "audiences", &self.audiences),
            None => "aud contains a value that is not a string".to_owned(),
        };
        Err(ExtractError::rejected(Reason::Audience).because(found))
    }

    fn parse(&self, part: &str) -> Result<Value, ExtractError> {
        let bytes = URL_SAFE_NO_PAD
            .decode(self.unpadded(part)?)
            .map_err(|_| malformed("not base64url"))?;
        Value::parse(&bytes).map_err(|_| malformed("not JSON"))
    }

    /// The part without its padding. With `padded_base64`, padding is required; otherwise the decoder refuses padding.
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
    ExtractError::malformed().because(detail)
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

/// Whether two media types are the same. The prefix `application/` may be left out (RFC 7515, section 4.1.9).
fn is_media_type(one: &str, other: &str) -> bool {
    bare_type(one).eq_ignore_ascii_case(bare_type(other))
}

fn bare_type(media_type: &str) -> &str {
    const PREFIX: &str = "application/";
    match media_type.get(..PREFIX.len()) {
        Some(prefix) if prefix.eq_ignore_ascii_case(PREFIX) => &media_type[PREFIX.len()..],
        Some(_) | None => media_type,
    }
}

#[cfg(test)]
mod tests;

//! Mints Rollout auth tokens, which are JWTs (RFC 7519) signed with HS512 (RFC 7518, section 3.2), with the claims
//! described in Rollout's guide "Getting your API Key".

use std::fmt;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use crate::clock::{self, UnixSeconds};
use crate::json::Value;
use crate::secret::Secret;
use crate::session::reason::Reason;
use crate::session::subject::{Subject, SubjectError, Template};
use crate::session::types::Session;

/// `{"typ":"JWT","alg":"HS512"}` in base64url, followed by a dot.
const HEADER: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzUxMiJ9.";

/// The maximum length of a token. It is sent in a header, and servers and proxies commonly limit headers to 8 KiB.
const MAX_BYTES: usize = 4096;

/// The length of an HS512 signature in base64url, including the dot before it.
const SIGNATURE_BYTES: usize = 1 + 86;

/// The claims that `token.claims` cannot set.
const RESERVED: [&str; 5] = ["iss", "sub", "iat", "exp", "nbf"];

/// The client credentials from Rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutClient {
    pub id: String,
    pub secret: Secret,
}

/// Mints tokens, and stores none of them.
///
/// Signs with `aws_lc_rs::hmac` and a key that is prepared once. `jsonwebtoken::encode` would prepare the key for every
/// token, which takes longer than the signature itself. The tests verify the tokens with that library.
#[derive(Debug)]
pub struct Minter {
    client_id: String,
    key: hmac::Key,
    ttl: UnixSeconds,
    cap_to_session: bool,
    claims: ClaimTemplates,
}

/// A signed token, its `iat` and its `exp`. `Debug` does not show the token.
pub struct Minted {
    pub token: String,
    pub issued_at: UnixSeconds,
    pub expires_at: UnixSeconds,
}

impl fmt::Debug for Minted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minted")
            .field("issued_at", &self.issued_at)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// Why no token can be minted for a valid session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MintError {
    /// The machine's clock was never set, so `iat` and `exp` would be wrong.
    ClockNotSet,
    /// `token.cap_to_session` is set, and the session has expired.
    SessionOver,
    /// The configured claims cannot be filled from this session, or make the token too long. The reason is logged.
    Claim(Reason),
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    iat: UnixSeconds,
    exp: UnixSeconds,
    #[serde(flatten)]
    configured: serde_json::Map<String, serde_json::Value>,
}

impl Minter {
    pub fn new(
        client: &RolloutClient,
        ttl: Duration,
        cap_to_session: bool,
        claims: ClaimTemplates,
    ) -> Self {
        Self {
            client_id: client.id.clone(),
            key: hmac::Key::new(hmac::HMAC_SHA512, client.secret.expose()),
            ttl: ttl.as_secs().try_into().unwrap_or(UnixSeconds::MAX),
            cap_to_session,
            claims,
        }
    }

    /// Mints a token for `subject` that is valid from `now` for `token.ttl` or, with `token.cap_to_session`, until the
    /// session ends if that is earlier.
    ///
    /// # Errors
    /// If the clock is not set, if `token.cap_to_session` is set and the session has expired, if the session's value
    /// for a claim cannot be used, or if the token is too long. A claim for which the session has no value is omitted.
    pub fn mint(
        &self,
        subject: &Subject,
        session: &Session,
        now: UnixSeconds,
    ) -> Result<Minted, MintError> {
        if !clock::is_set(now) {
            return Err(MintError::ClockNotSet);
        }
        let mut exp = now.saturating_add(self.ttl);
        if let (true, Some(end)) = (self.cap_to_session, session.expires_at) {
            exp = exp.min(end);
        }
        if exp <= now {
            return Err(MintError::SessionOver);
        }
        let claims = Claims {
            iss: &self.client_id,
            sub: subject.as_str(),
            iat: now,
            exp,
            configured: self.claims.fill(&session.attributes)?,
        };
        // The claims are strings, integers and JSON values, all of which can be serialized without errors.
        let payload =
            serde_json::to_vec(&claims).map_err(|_| MintError::Claim(Reason::ClaimUnwritable))?;

        let length = HEADER.len() + (payload.len() * 4).div_ceil(3) + SIGNATURE_BYTES;
        if length > MAX_BYTES {
            return Err(MintError::Claim(Reason::ClaimsTooLarge));
        }
        let mut token = String::with_capacity(length);
        token.push_str(HEADER);
        URL_SAFE_NO_PAD.encode_string(payload, &mut token);
        let signature = hmac::sign(&self.key, token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(Minted {
            token,
            issued_at: now,
            expires_at: exp,
        })
    }
}

/// `[token.claims]`: the claims in addition to `iss`, `sub`, `iat` and `exp`.
#[derive(Clone, Debug, Default)]
pub struct ClaimTemplates(Vec<(String, Node)>);

#[derive(Clone, Debug)]
enum Node {
    Template(Template),
    Table(Vec<(String, Node)>),
    Array(Vec<Node>),
    Fixed(serde_json::Value),
}

impl ClaimTemplates {
    /// Parses the table `[token.claims]`.
    ///
    /// # Errors
    /// If a claim is reserved or a template is malformed. The error names the claim.
    pub fn parse(claims: serde_json::Map<String, serde_json::Value>) -> Result<Self, String> {
        if let Some(ours) = RESERVED.iter().find(|name| claims.contains_key(**name)) {
            return Err(format!("{ours} cannot be configured: remove it"));
        }
        parse_members(claims).map(Self)
    }

    fn fill(
        &self,
        session: &Value,
    ) -> Result<serde_json::Map<String, serde_json::Value>, MintError> {
        fill_members(&self.0, session)
    }
}

fn parse_members(
    members: serde_json::Map<String, serde_json::Value>,
) -> Result<Vec<(String, Node)>, String> {
    members
        .into_iter()
        .map(|(name, value)| match parse_node(value) {
            Ok(node) => Ok((name, node)),
            Err(error) => Err(format!("{name}: {error}")),
        })
        .collect()
}

fn parse_node(value: serde_json::Value) -> Result<Node, String> {
    match value {
        serde_json::Value::String(text) => text.parse().map(Node::Template).map_err(str::to_owned),
        serde_json::Value::Object(members) => parse_members(members).map(Node::Table),
        serde_json::Value::Array(items) => items
            .into_iter()
            .map(parse_node)
            .collect::<Result<_, _>>()
            .map(Node::Array),
        fixed @ (serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)) => Ok(Node::Fixed(fixed)),
    }
}

/// Fills the members. Omits claims for which the session has no value.
fn fill_members(
    members: &[(String, Node)],
    session: &Value,
) -> Result<serde_json::Map<String, serde_json::Value>, MintError> {
    let mut filled = serde_json::Map::new();
    for (name, node) in members {
        if let Some(value) = fill_node(node, session)? {
            filled.insert(name.clone(), value);
        }
    }
    Ok(filled)
}

fn fill_node(node: &Node, session: &Value) -> Result<Option<serde_json::Value>, MintError> {
    match node {
        Node::Fixed(value) => Ok(Some(value.clone())),
        Node::Table(members) => fill_members(members, session).map(|members| Some(members.into())),
        Node::Array(items) => {
            let filled = items
                .iter()
                .filter_map(|item| fill_node(item, session).transpose());
            filled
                .collect::<Result<Vec<_>, _>>()
                .map(|items| Some(items.into()))
        }
        Node::Template(template) => match template.value(session) {
            Ok(None) | Err(SubjectError::Absent) => Ok(None),
            Ok(Some(value)) => serde_json::to_value(value)
                .map(Some)
                .map_err(|_| MintError::Claim(Reason::ClaimDuplicateMember)),
            Err(SubjectError::Invalid(reason)) => Err(MintError::Claim(reason)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;
    use jsonwebtoken::{Algorithm, DecodingKey, Validation};

    const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const NOW: UnixSeconds = 1_700_000_000;

    #[test]
    fn debug_does_not_show_the_token() {
        let minted = Minted {
            token: "s3cr3t".to_owned(),
            issued_at: NOW,
            expires_at: NOW + 900,
        };
        assert!(!format!("{minted:?}").contains("s3cr3t"));
    }

    fn minter(ttl: u64, cap: bool, claims: serde_json::Value) -> Minter {
        let client = RolloutClient {
            id: "client-1".to_owned(),
            secret: Secret::new(SECRET),
        };
        let serde_json::Value::Object(claims) = claims else {
            panic!("claims are a table")
        };
        Minter::new(
            &client,
            Duration::from_secs(ttl),
            cap,
            ClaimTemplates::parse(claims).expect("good claims"),
        )
    }

    fn session(attributes: serde_json::Value, expires_at: Option<UnixSeconds>) -> Session {
        Session {
            attributes: attributes.into(),
            expires_at,
        }
    }

    /// The claims as decoded by `jsonwebtoken`, which also verifies the signature.
    fn verified(token: &str) -> serde_json::Value {
        let mut validation = Validation::new(Algorithm::HS512);
        validation.validate_exp = false;
        jsonwebtoken::decode(
            token,
            &DecodingKey::from_secret(SECRET.as_bytes()),
            &validation,
        )
        .expect("the library accepts the token")
        .claims
    }

    #[test]
    fn token_has_exactly_the_header_and_claims_that_rollout_documents() {
        let subject = Subject::new("user-\u{fc}\"\\,\"admin\":true").unwrap();
        let minted = minter(900, false, serde_json::json!({}))
            .mint(
                &subject,
                &session(serde_json::json!({"role": "admin"}), None),
                1_700_000_000,
            )
            .unwrap();
        assert_eq!(
            (minted.issued_at, minted.expires_at),
            (1_700_000_000, 1_700_000_900)
        );
        assert_eq!(
            verified(&minted.token),
            serde_json::json!({
                "iss": "client-1", "sub": subject.as_str(), "iat": 1_700_000_000, "exp": 1_700_000_900,
            })
        );
        let parts: Vec<_> = minted
            .token
            .split('.')
            .map(|part| URL_SAFE_NO_PAD.decode(part).unwrap())
            .collect();
        assert_eq!(parts[0], br#"{"typ":"JWT","alg":"HS512"}"#);
        assert!(
            parts[1].starts_with(br#"{"iss":"client-1","sub":"user-"#),
            "the claims are not in the documented order"
        );
    }

    #[test]
    fn token_expires_with_the_session_only_if_cap_to_session_is_set() {
        let subject = Subject::new("u").unwrap();
        let ends_soon = session(serde_json::json!({}), Some(NOW + 60));
        let mint =
            |cap: bool| minter(900, cap, serde_json::json!({})).mint(&subject, &ends_soon, NOW);
        assert_eq!(mint(false).unwrap().expires_at, NOW + 900);
        assert_eq!(mint(true).unwrap().expires_at, NOW + 60);
        let over = minter(900, true, serde_json::json!({})).mint(&subject, &ends_soon, NOW + 60);
        assert_eq!(over.unwrap_err(), MintError::SessionOver);
    }

    #[test]
    fn clock_before_2020_is_refused() {
        let subject = Subject::new("u").unwrap();
        let mint = |now| {
            minter(900, false, serde_json::json!({})).mint(
                &subject,
                &session(serde_json::json!({}), None),
                now,
            )
        };
        assert_eq!(mint(1_577_836_799).unwrap_err(), MintError::ClockNotSet);
        assert!(mint(1_577_836_800).is_ok());
    }

    #[test]
    fn configured_claims_keep_the_json_types_of_the_session_values() {
        let claims = serde_json::json!({
            "rollout.com": {"authData": "{org}", "note": "user {id}"},
            "roles": "{roles}", "missing": "{nobody.home}", "fixed": [true, "{id}"],
        });
        let subject = Subject::new("u").unwrap();
        let attributes = serde_json::json!({"org": {"id": 7}, "id": 12, "roles": ["a", 1]});
        let minted = minter(900, false, claims)
            .mint(&subject, &session(attributes, None), NOW)
            .unwrap();
        let got = verified(&minted.token);
        assert_eq!(
            got["rollout.com"],
            serde_json::json!({"authData": {"id": 7}, "note": "user 12"})
        );
        assert_eq!(got["roles"], serde_json::json!(["a", 1]));
        assert_eq!(got["fixed"], serde_json::json!([true, 12]));
        assert_eq!(got.get("missing"), None);
    }

    #[test]
    fn token_longer_than_4096_bytes_is_claims_too_large() {
        let subject = Subject::new("u").unwrap();
        let mint = |length: usize| {
            let attributes = serde_json::json!({ "all": "x".repeat(length) });
            minter(900, false, serde_json::json!({ "all": "{all}" })).mint(
                &subject,
                &session(attributes, None),
                1_800_000_000,
            )
        };
        let longest = (0..4096)
            .rev()
            .find_map(|length| mint(length).ok())
            .expect("a token");
        assert_eq!(longest.token.len(), 4096);
        assert_eq!(verified(&longest.token)["sub"], "u");
        assert_eq!(
            mint(7000).unwrap_err(),
            MintError::Claim(Reason::ClaimsTooLarge)
        );
    }

    #[test]
    fn reserved_claims_cannot_be_configured() {
        for name in RESERVED {
            let claims = serde_json::Map::from_iter([(name.to_owned(), "x".into())]);
            assert!(ClaimTemplates::parse(claims).is_err(), "{name}");
        }
    }
}

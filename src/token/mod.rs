//! Minting: the claims of a Rollout auth token and its signature.
//! Format: Rollout's guide "Getting your API Key"; JWT (RFC 7519) signed with HS512 (RFC 7518, 3.2).

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use crate::clock::{self, UnixSeconds};
use crate::json::Value;
use crate::secret::Secret;
use crate::session::subject::{Subject, SubjectError, Template};
use crate::session::types::Session;

/// `{"typ":"JWT","alg":"HS512"}` in base64url, with the dot that follows it.
const HEADER: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzUxMiJ9.";

/// The longest token: servers and proxies commonly take 8 KiB of headers, in which it is sent on.
const MAX_BYTES: usize = 4096;

/// A signature of HS512 in base64url, with the dot before it.
const SIGNATURE_BYTES: usize = 1 + 86;

/// The claims that are ours alone; an operator cannot set them.
const RESERVED: [&str; 5] = ["iss", "sub", "iat", "exp", "nbf"];

/// Who we are at Rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutClient {
    pub id: String,
    pub secret: Secret,
}

/// Makes tokens. Nothing that it makes is kept.
///
/// The key is prepared once. `jsonwebtoken::encode` derives it from the secret for every token, which
/// takes longer than the signature itself; the tests still check every token with that library.
#[derive(Debug)]
pub struct Minter {
    client_id: String,
    key: hmac::Key,
    ttl: UnixSeconds,
    cap_to_session: bool,
    claims: ClaimTemplates,
}

/// A signed token and its times.
#[derive(Debug)]
pub struct Minted {
    pub token: String,
    pub issued_at: UnixSeconds,
    pub expires_at: UnixSeconds,
}

/// Why no token can be made for a genuine session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MintError {
    /// The clock was never set: the token's times would be wrong.
    ClockNotSet,
    /// The session ends now, and `token.cap_to_session` ends the token with it.
    SessionOver,
    /// A configured claim cannot be taken from this session; the word is for logs.
    Claim(&'static str),
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
            ttl: ttl.as_secs().try_into().unwrap_or(900),
            cap_to_session,
            claims,
        }
    }

    /// A token for `subject` that lives from `now` for the configured time.
    ///
    /// # Errors
    /// If the clock is not set, the session is over, a configured claim is ambiguous in it, or the claims make the
    /// token too long.
    pub fn mint(
        &self,
        subject: &Subject,
        session: &Session,
        now: UnixSeconds,
    ) -> Result<Minted, MintError> {
        if !clock::is_set(now) {
            return Err(MintError::ClockNotSet);
        }
        let mut exp = now + self.ttl;
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
        // Claims are strings, integers and JSON values: none of them can fail to be written.
        let payload =
            serde_json::to_vec(&claims).map_err(|_| MintError::Claim("claim_unwritable"))?;

        let length = HEADER.len() + (payload.len() * 4).div_ceil(3) + SIGNATURE_BYTES;
        if length > MAX_BYTES {
            return Err(MintError::Claim("claims_too_large"));
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

/// `[token.claims]`: what a token says beside `iss`, `sub`, `iat` and `exp`.
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
    /// Reads the table.
    ///
    /// # Errors
    /// On a claim that is ours, or a broken template, with the claim's name.
    pub fn parse(claims: serde_json::Map<String, serde_json::Value>) -> Result<Self, String> {
        if let Some(ours) = RESERVED.iter().find(|name| claims.contains_key(**name)) {
            return Err(format!("{ours} is set by the service: remove it"));
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

/// A claim that the session has nothing for is left out.
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
                .map_err(|_| MintError::Claim("claim_duplicate_member")),
            Err(SubjectError::Invalid(word)) => Err(MintError::Claim(word)),
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

    /// The claims as the `jsonwebtoken` library reads them, signature checked.
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
    fn the_token_is_exactly_what_rollout_documents() {
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
            "claims in the documented order"
        );
    }

    #[test]
    fn the_token_ends_with_the_session_only_if_asked_to() {
        let subject = Subject::new("u").unwrap();
        let ends_soon = session(serde_json::json!({}), Some(NOW + 60));
        let lives =
            |cap: bool| minter(900, cap, serde_json::json!({})).mint(&subject, &ends_soon, NOW);
        assert_eq!(lives(false).unwrap().expires_at, NOW + 900);
        assert_eq!(lives(true).unwrap().expires_at, NOW + 60);
        let over = minter(900, true, serde_json::json!({})).mint(&subject, &ends_soon, NOW + 60);
        assert_eq!(over.unwrap_err(), MintError::SessionOver);
    }

    #[test]
    fn clock_before_2020_mints_nothing() {
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
    fn configured_claims_are_filled_from_the_session_with_their_types() {
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
    fn token_is_at_most_4096_bytes_and_claims_beyond_that_are_claims_too_large() {
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
            MintError::Claim("claims_too_large")
        );
    }

    #[test]
    fn claims_that_are_ours_cannot_be_configured() {
        for name in RESERVED {
            let claims = serde_json::Map::from_iter([(name.to_owned(), "x".into())]);
            assert!(ClaimTemplates::parse(claims).is_err(), "{name}");
        }
    }
}

//! `authjs`: the session of Auth.js v5 or `NextAuth` v4 with the JWT strategy, a JWE in a cookie. Format: Auth.js
//! `packages/core/src/jwt.ts` and `lib/utils/cookie.ts`; for v4, next-auth `src/jwt/index.ts`. Sessions stored in a
//! database are read by `sql_session`.

use std::borrow::Cow;
use std::sync::Arc;

use axum::http::request::Parts;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, UnixSeconds};
use crate::config::{HumanDuration, List, Problems, Section};
use crate::json::{Object, Value};
use crate::secret::Secret;
use crate::session::backends::Context;
use crate::session::formats::jwe::{self, ContentKey, Thumbprint};
use crate::session::formats::percent::{self, Plus};
use crate::session::formats::{hkdf, jwt_form, jwt_times};
use crate::session::kind::{BuildResult, Kind};
use crate::session::reason::Reason;
use crate::session::sections::app_secret;
use crate::session::sections::cookie::{self, Cookie};
use crate::session::sections::session_end::{ExpiresPath, SessionEnd};
use crate::session::types::{
    CredentialSource, ExtractError, Extracted, Reach, Session, SessionExtractor,
};

pub const KIND: Kind = Kind::new(build);

/// Without an adapter that stores users, Auth.js v5 creates the user's id with `crypto.randomUUID()` at each sign-in
/// (`packages/core/src/lib/actions/callback/oauth/callback.ts` and `.../callback/index.ts`).
const SUBJECT_MISSING: &str = "is missing: without a database adapter, or if authorize() returns no id, Auth.js v5 \
     creates a new random `sub` for the user at each sign-in. Store a stable id in the app's jwt callback, such \
     as token.userId = account.providerAccountId, and set subject = \"{userId}\"; or set subject = \"{email}\" if \
     every provider verifies addresses, or subject = \"{sub}\" if an adapter stores the users";

/// The clock tolerance that both versions use, in seconds.
const TOLERANCE: UnixSeconds = 15;
/// The maximum number of chunks that are read. The library's chunks have almost 4 KiB, so the default of
/// `server.max_header_bytes` allows fewer.
const MAX_PARTS: usize = 16;
/// The maximum length of a bearer token, in bytes. A chunked cookie has the same limit.
const MAX_BEARER: usize = 64 * 1024;

/// `[extractors.NAME]` with `kind = "authjs"`
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AuthJsConfig {
    version: Version,
    secrets: List<Secret>,
    cookie: Option<String>,
    salt: Option<String>,
    accept_bearer: bool,
    expires_path: Option<ExpiresPath>,
    idle: Option<HumanDuration>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Version {
    #[default]
    V5,
    V4,
}

/// The token of a session, and the keys that may decrypt it.
struct FoundToken<'a> {
    token: Cow<'a, str>,
    keys: Vec<&'a ContentKey>,
}

#[derive(Debug)]
struct AuthJs {
    cookies: Vec<EncryptedCookie>,
    accept_bearer: bool,
    end: SessionEnd,
    clock: Clock,
}

/// A cookie, and the keys that decrypt it. In v5 the keys depend on the cookie's name.
#[derive(Debug)]
struct EncryptedCookie {
    cookie: Cookie,
    keys: Vec<ContentKey>,
}

fn build(section: &Section<'_>, context: &Context) -> BuildResult {
    let mut problems = Problems::default();
    let config: AuthJsConfig = section.read(&mut problems);
    let version = config.version;
    match version {
        Version::V5 => section.require_subject(SUBJECT_MISSING, &mut problems),
        // In v4, `sub` is the id that the provider or `authorize()` returned.
        Version::V4 => {}
    }

    let setting = "AUTH_SECRET or NEXTAUTH_SECRET";
    let secrets =
        app_secret::required_list(section, "secrets", config.secrets, setting, &mut problems);

    let names = match &config.cookie {
        Some(name) => vec![name.as_str()],
        None => version.cookies().to_vec(),
    };
    let cookies = names.into_iter().filter_map(|name| {
        let cookie = Cookie::named(section, "cookie", name, &mut problems)?;
        let salt = version.salt(cookie.name());
        let salt = config.salt.as_deref().unwrap_or(salt);
        let keys = secrets.iter().flat_map(|secret| version.keys(secret, salt));
        let keys = keys.collect();
        Some(EncryptedCookie { cookie, keys })
    });
    let cookies = cookies.collect();
    let end = SessionEnd::read(section, config.expires_path, config.idle, &mut problems);
    problems.or(Arc::new(AuthJs {
        cookies,
        accept_bearer: config.accept_bearer,
        end,
        clock: context.clock.clone(),
    }))
}

impl Version {
    /// The cookie names for http and for https.
    fn cookies(self) -> [&'static str; 2] {
        match self {
            Self::V4 => [
                "next-auth.session-token",
                "__Secure-next-auth.session-token",
            ],
            Self::V5 => ["authjs.session-token", "__Secure-authjs.session-token"],
        }
    }

    fn salt(self, cookie: &str) -> &str {
        match self {
            Self::V4 => "",
            Self::V5 => cookie,
        }
    }

    /// One key for each encryption algorithm that this version can decrypt.
    fn keys(self, secret: &Secret, salt: &str) -> Vec<ContentKey> {
        match self {
            Self::V4 => {
                let name = "NextAuth.js Generated Encryption Key";
                let info = if salt.is_empty() {
                    name.to_owned()
                } else {
                    format!("{name} ({salt})")
                };
                let key = hkdf::hkdf(secret.expose(), salt, &info);
                vec![ContentKey::gcm(&key, None)]
            }
            Self::V5 => {
                let info = format!("Auth.js Generated Encryption Key ({salt})");
                let cbc = hkdf::hkdf(secret.expose(), salt, &info);
                let gcm = hkdf::hkdf(secret.expose(), salt, &info);
                vec![
                    ContentKey::cbc_hs512(&cbc, Some(Thumbprint::Sha512)),
                    ContentKey::gcm(&gcm, Some(Thumbprint::Sha256)),
                ]
            }
        }
    }
}

impl AuthJs {
    fn session(&self, request: &Parts) -> Extracted {
        let found = match self.cookie(request)? {
            None => self.bearer(request)?,
            found => found,
        };
        let Some(FoundToken { token, keys }) = found else {
            return Ok(None);
        };
        let payload = jwe::open(&token, keys.into_iter(), "secrets")?;
        let claims = Object::parse(&payload).ok_or_else(ExtractError::malformed)?;
        // `exp` is required. The library accepts a token without `exp` but never issues one, and such a token would
        // never expire.
        let expires_at = jwt_times::check(&claims, self.clock.now(), TOLERANCE)?;
        Ok(Some(Session {
            attributes: Value::Object(claims),
            expires_at: Some(expires_at),
        }))
    }

    /// The token in the session cookie. If the request sends the token under several cookie names, the keys of all
    /// these names are returned. Refuses different tokens under two names, as [`cookie::find_one_of`] does with
    /// unchunked cookies.
    fn cookie<'a>(&'a self, request: &'a Parts) -> Result<Option<FoundToken<'a>>, ExtractError> {
        let mut found: Vec<(&EncryptedCookie, Cow<'a, str>)> = Vec::new();
        for candidate in &self.cookies {
            let Some(token) = candidate.cookie.find_whole_or_chunks(request, MAX_PARTS)? else {
                continue;
            };
            if let Some((first, other)) = found.first()
                && *other != token
            {
                return Err(cookie::two_names(&first.cookie, &candidate.cookie));
            }
            found.push((candidate, token));
        }
        let keys = found.iter().flat_map(|(cookie, _)| &cookie.keys).collect();
        let first = found.into_iter().next();
        Ok(first.map(|(_, token)| FoundToken { token, keys }))
    }

    /// The token in `Authorization: Bearer`. Like the library's `getToken()`, percent-decodes it.
    fn bearer(&self, request: &Parts) -> Result<Option<FoundToken<'_>>, ExtractError> {
        if !self.accept_bearer {
            return Ok(None);
        }
        let Some(token) = CredentialSource::Bearer.opaque(&request.headers, &["bearer"])? else {
            return Ok(None);
        };
        if token.len() > MAX_BEARER {
            return Err(ExtractError::rejected(Reason::TooLarge));
        }
        let token = percent::decode(token, Plus::Plus).ok_or_else(ExtractError::malformed)?;
        // The library's tokens are encrypted and have five parts, so a signed JWT was issued by another party.
        if jwt_form::is_jwt(&token) {
            let place = CredentialSource::Bearer;
            return Err(ExtractError::not_mine(Reason::SignedJwt, &place));
        }
        Ok(Some(FoundToken {
            token: Cow::Owned(token),
            keys: self
                .cookies
                .iter()
                .flat_map(|cookie| &cookie.keys)
                .collect(),
        }))
    }
}

impl SessionExtractor for AuthJs {
    fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted> {
        Box::pin(async move { self.end.apply(self.session(request), self.clock.now()) })
    }

    fn reach(&self) -> Reach {
        let cookies = self
            .cookies
            .iter()
            .map(|encrypted| CredentialSource::Cookie(encrypted.cookie.name().to_owned()));
        let bearer = self.accept_bearer.then_some(CredentialSource::Bearer);
        Reach::opaque(cookies.chain(bearer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::contract;
    use crate::session::formats::aes::seal;
    use crate::session::sections::testing::{NOW, answer, build, refused};
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    const SECRET: &str = "hunter2-hunter2-hunter2-hunter2";
    const COOKIE: &str = "next-auth.session-token";

    fn v4(more: &str) -> Arc<dyn SessionExtractor> {
        build(
            "authjs",
            &format!("version = \"v4\"\nsecrets = [\"{SECRET}\"]\n{more}"),
        )
        .unwrap()
    }

    /// A token of `NextAuth` v4, which has no `kid`.
    fn token(secret: &str, payload: &str) -> String {
        let key = hkdf::hkdf(
            secret.as_bytes(),
            "",
            "NextAuth.js Generated Encryption Key",
        );
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"dir","enc":"A256GCM"}"#);
        let (text, tag) = seal::gcm(&key, [3; 12], payload.as_bytes(), header.as_bytes());
        let [iv, text, tag] = [&[3; 12][..], &text, &tag].map(|part| URL_SAFE_NO_PAD.encode(part));
        format!("{header}..{iv}.{text}.{tag}")
    }

    fn payload(more: &str) -> String {
        format!(r#"{{"sub":"u-1","exp":{}{more}}}"#, NOW + 60)
    }

    #[tokio::test]
    async fn signed_jwt_as_bearer_is_not_mine() {
        let signed = jsonwebtoken::encode(
            &jsonwebtoken::Header::default(),
            &serde_json::json!({ "sub": "bob" }),
            &jsonwebtoken::EncodingKey::from_secret(b"another's"),
        );
        let bearer = format!("Bearer {}", signed.expect("a token"));
        let request = contract::request(&[("authorization", &bearer)]);
        let answer = v4("accept_bearer = true").extract(&request).await;
        assert!(
            matches!(
                answer,
                Err(ExtractError::NotMine(_, CredentialSource::Bearer))
            ),
            "{answer:?}"
        );
    }

    #[tokio::test]
    async fn extractor_passes_the_contract_checks() {
        contract::check(&*v4("accept_bearer = true"), &[SECRET]).await;
        let v5 = build(
            "authjs",
            &format!("secrets = \"{SECRET}\"\nsubject = \"{{sub}}\""),
        )
        .unwrap();
        contract::check(&*v5, &[SECRET]).await;
    }

    #[test]
    fn payload_that_is_not_an_object_or_has_a_missing_duplicate_or_past_exp_is_refused() {
        let session = |payload: &str| {
            answer(
                &*v4(""),
                &[("cookie", &format!("{COOKIE}={}", token(SECRET, payload)))],
            )
        };
        assert_eq!(session(&payload("")), Ok(Some(payload(""))));
        for (payload, want) in [
            (r#"{"sub":"u-1"}"#, "exp"),
            (r#"{"sub":"u-1","exp":1800000060,"exp":1900000000}"#, "exp"),
            (r#"{"sub":"u-1","exp":1}"#, "expired"),
            ("[]", "malformed"),
            ("u-1", "malformed"),
            ("", "malformed"),
        ] {
            assert_eq!(session(payload), Err(want), "{payload}");
        }
    }

    #[test]
    fn two_session_cookies_with_different_values_are_ambiguous_identity() {
        let one = format!("{COOKIE}={}", token(SECRET, &payload("")));
        let part = format!("{COOKIE}.0={}", token(SECRET, &payload("")));
        let other = format!("{COOKIE}={}", token(SECRET, &payload(r#","name":"Bob""#)));
        let other_part = format!("{COOKIE}.0={}", token(SECRET, &payload(r#","name":"Bob""#)));
        for (case, cookies, want) in [
            (
                "twice",
                format!("{one}; {other}"),
                Err("ambiguous_identity"),
            ),
            (
                "with and without __Secure-",
                format!("{one}; __Secure-{other}"),
                Err("ambiguous_identity"),
            ),
            (
                "whole and in chunks",
                format!("{one}; {part}"),
                Err("ambiguous_identity"),
            ),
            (
                "in parts twice",
                format!("{part}; {other_part}"),
                Err("ambiguous_identity"),
            ),
            (
                "different chunks under both names",
                format!("{part}; __Secure-{other_part}"),
                Err("ambiguous_identity"),
            ),
            (
                "one of them invalid",
                format!("{one}; __Secure-{COOKIE}=bad"),
                Err("ambiguous_identity"),
            ),
            ("the same twice", format!("{one}; {one}"), Ok(true)),
            (
                "one value under both names",
                format!("{one}; __Secure-{one}"),
                Ok(true),
            ),
            (
                "the same in parts",
                format!("{part}; __Secure-{part}"),
                Ok(true),
            ),
            (
                "one value, unchunked and chunked, under both names",
                format!("{one}; __Secure-{part}"),
                Ok(true),
            ),
            (
                "together with a cleared cookie",
                format!("{COOKIE}=; __Secure-{one}"),
                Ok(true),
            ),
        ] {
            let answer = answer(&*v4(""), &[("cookie", &cookies)]).map(|session| session.is_some());
            assert_eq!(answer, want, "{case}");
        }
        let named = v4(&format!("cookie = \"{COOKIE}\""));
        assert!(
            answer(&*named, &[("cookie", &format!("{one}; __Secure-{other}"))])
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn v5_without_subject_is_refused_with_advice() {
        let secrets = format!("secrets = [\"{SECRET}\"]");
        let problems = build("authjs", &secrets)
            .map(|_| ())
            .expect_err("no subject")
            .to_string();
        assert!(
            problems.starts_with("extractors.authjs.subject: is missing"),
            "{problems}"
        );
        for text in [
            "account.providerAccountId",
            "subject = \"{userId}\"",
            "{email}",
            "authorize()",
        ] {
            assert!(problems.contains(text), "{text}: {problems}");
        }
        assert!(build("authjs", &format!("{secrets}\nsubject = \"{{sub}}\"")).is_ok());
        assert!(build("authjs", &format!("{secrets}\nversion = \"v4\"")).is_ok());
    }

    #[test]
    fn only_tokens_encrypted_with_a_listed_secret_are_accepted() {
        let cookie = |secret: &str| format!("{COOKIE}={}", token(secret, &payload("")));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            format!("the-new-secret-of-the-app\r\n\n{SECRET}\n"),
        )
        .unwrap();
        let keys = format!(
            "version = \"v4\"\nsecrets_file = \"{}\"",
            file.path().display()
        );
        let extractor = build("authjs", &keys).unwrap();
        for (secret, good) in [
            (SECRET, true),
            ("the-new-secret-of-the-app", true),
            ("the-old-secret-of-the-app", false),
        ] {
            let answer = answer(&*extractor, &[("cookie", &cookie(secret))]);
            assert_eq!(answer.is_ok(), good, "{secret}: {answer:?}");
        }
    }

    #[test]
    fn bearer_is_used_only_with_accept_bearer_and_without_a_session_cookie() {
        let (good, bad) = (
            token(SECRET, &payload("")),
            token("another-secret-of-another-app", &payload("")),
        );
        let bearer = format!("Bearer {good}");
        assert_eq!(answer(&*v4(""), &[("authorization", &bearer)]), Ok(None));
        let extractor = v4("accept_bearer = true");
        for (case, headers, want) in [
            ("good", &[("authorization", bearer.as_str())][..], Ok(true)),
            (
                "two spaces",
                &[("authorization", &bearer.replace(' ', "  "))],
                Ok(true),
            ),
            (
                "scheme Token",
                &[("authorization", &bearer.replace("Bearer", "Token"))],
                Ok(false),
            ),
            (
                "encoded",
                &[(
                    "authorization",
                    &format!("Bearer {}", good.replace('.', "%2E")),
                )],
                Ok(true),
            ),
            (
                "other scheme",
                &[("authorization", "Basic dTpw")],
                Ok(false),
            ),
            ("no token", &[("authorization", "Bearer")], Ok(false)),
            (
                "other secret",
                &[("authorization", &format!("Bearer {bad}"))],
                Err("bad_seal"),
            ),
            (
                "incomplete percent-encoding",
                &[("authorization", &format!("Bearer {good}%2"))],
                Err("malformed"),
            ),
            (
                "a JWS",
                &[("authorization", "Bearer e30.e30.e30")],
                Err("malformed"),
            ),
            (
                "twice",
                &[("authorization", &bearer), ("authorization", &bearer)],
                Err("duplicate_header"),
            ),
            (
                "invalid cookie and valid bearer",
                &[
                    ("authorization", &bearer),
                    ("cookie", &format!("{COOKIE}={bad}")),
                ],
                Err("bad_seal"),
            ),
        ] {
            let answer = answer(&*extractor, headers).map(|session| session.is_some());
            assert_eq!(answer, want, "{case}");
        }
    }

    #[test]
    fn invalid_section_is_refused_and_the_problem_names_the_key() {
        refused(
            "authjs",
            &[
                ("no secret", "", "secrets"),
                ("empty secret", "secrets = [\"\"]", "secrets"),
                (
                    "placeholder",
                    "secrets = [\"hunter2-hunter2-hunter2\", \"changeme\"]",
                    "secrets",
                ),
                ("no file", "secrets_file = \"/nowhere\"", "secrets_file"),
                (
                    "both",
                    "secrets = [\"hunter2-hunter2-hunter2\"]\nsecrets_file = \"/nowhere\"",
                    "secrets",
                ),
                (
                    "version",
                    "secrets = [\"hunter2-hunter2-hunter2\"]\nversion = \"v6\"",
                    "version",
                ),
                (
                    "empty cookie name",
                    "secrets = [\"hunter2-hunter2-hunter2\"]\ncookie = \"\"",
                    "cookie",
                ),
                (
                    "invalid cookie name",
                    "secrets = [\"hunter2-hunter2-hunter2\"]\ncookie = \"a b\"",
                    "cookie",
                ),
                ("wrong type", "secrets = [1234]", "secrets.0"),
            ],
        );
    }
}

//! `redis_session`: the app stores its sessions in Redis. The cookie or header contains the session's id. The key in
//! Redis consists of a prefix and this id or its hash. Format: connect-redis (`index.ts`), Better Auth's secondary
//! storage (`internal-adapter.ts`) and Laravel (`Illuminate/Cache/RedisStore.php`). `redis_session/server.rs` reads a
//! key from the server.

mod server;

use std::sync::Arc;

use axum::http::request::Parts;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::config::{HumanDuration, List, Problems, PublicText, Section};
use crate::json::Value;
use crate::secret::Secret;
use crate::session::backends::Context;
use crate::session::backends::pool::{Pool, PoolLimits};
use crate::session::backends::waiting::Waiting;
use crate::session::formats::php;
use crate::session::kind::{BuildResult, Kind};
use crate::session::reason::Reason;
use crate::session::sections::authority;
use crate::session::sections::laravel;
use crate::session::sections::session_credential::{CredentialFields, SessionCredential, StoreKey};
use crate::session::sections::session_end::TimePath;
use crate::session::sections::stored_session::{StoredFormat, StoredSession};
use crate::session::types::{
    Authority, BackendCall, BackendReport, ExtractError, Extracted, Reach, Readiness, Session,
    SessionExtractor,
};
use server::{RedisServer, Stored};

/// Presets by session library. A key in the section overrides the preset's value.
const PRESETS: &[(&str, &str)] = &[
    (
        // The keys are the session tokens, prefixed if the app uses `@better-auth/redis-storage`, and without a prefix
        // if it implements the storage itself. The same namespace also contains lists of each user's sessions.
        "better-auth",
        r#"
            subject = "{session.userId}"
            key_prefix = ["better-auth:", ""]
            cookie = ["__Secure-better-auth.session_token", "better-auth.session_token"]
            cookie_format = "better_auth_signed"
            expires_path = "session.expiresAt"
        "#,
    ),
    (
        // The app decides which member contains the user; the default is Passport's. The Redis key's expiry is the
        // session's expiry: `touch` extends it and does not change `cookie.expires` in the value.
        "connect-redis",
        r#"
            subject = "{passport.user}"
            cookie = "connect.sid"
            cookie_format = "express_signed"
            key_prefix = "sess:"
        "#,
    ),
    (
        // `key_prefix` has no default, because Laravel's default depends on APP_NAME and on the version of Laravel.
        "laravel",
        r#"
            subject = "{login_web_59ba36addc2b2f9401580f014c7f58ea4e30989d}"
            cookie = "laravel_session"
            cookie_format = "laravel"
            payload = "laravel"
        "#,
    ),
];

pub const KIND: Kind = Kind::new(build)
    .with_subject("{user_id}")
    .with_presets(PRESETS);

/// `[extractors.NAME]` with `kind = "redis_session"`
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RedisSessionConfig {
    url: Option<Secret>,
    password: Option<Secret>,
    ca: Option<PublicText>,
    from: List<String>,
    cookie: List<String>,
    cookie_format: String,
    cookie_secrets: List<Secret>,
    app_key: Option<Secret>,
    previous_keys: List<Secret>,
    cipher: String,
    key_prefix: Option<List<String>>,
    key_hash: String,
    payload: String,
    expires_path: Option<String>,
    max_waiting: Option<usize>,
    max_connections: usize,
    pool_wait: HumanDuration,
    timeout: HumanDuration,
}

impl Default for RedisSessionConfig {
    fn default() -> Self {
        Self {
            url: None,
            password: None,
            ca: None,
            from: List::default(),
            cookie: List::default(),
            cookie_format: "plain".to_owned(),
            cookie_secrets: List::default(),
            app_key: None,
            previous_keys: List::default(),
            cipher: laravel::CIPHER.to_owned(),
            key_prefix: None,
            key_hash: "none".to_owned(),
            payload: "json".to_owned(),
            expires_path: None,
            max_waiting: None,
            max_connections: 8,
            pool_wait: HumanDuration::millis(250),
            timeout: HumanDuration::millis(500),
        }
    }
}

#[derive(Debug)]
struct RedisSession {
    credential: SessionCredential,
    /// The key prefixes, in the order in which they are tried.
    key_prefixes: Vec<String>,
    authority: Option<Authority>,
    pool: Arc<Pool<RedisServer>>,
    payload: Payload,
    /// The path of the session's expiry in the value. The expiry of the Redis key always applies as well.
    expires: Option<TimePath>,
    clock: Clock,
}

/// The format of the values.
#[derive(Debug)]
enum Payload {
    Plain(StoredSession),
    /// The format of Laravel's cache driver.
    Laravel(Arc<laravel::AppKeySet>),
}

fn build(section: &Section<'_>, context: &Context) -> BuildResult {
    let mut problems = Problems::default();
    let config: RedisSessionConfig = section.read(&mut problems);
    let url = section.secret("url", config.url, &mut problems);
    let authority = url.as_ref().map(Authority::store);
    let password = section.secret("password", config.password, &mut problems);
    let ca = config.ca.as_ref();
    let outgoing = authority::trust(section, context, ca, &mut problems);
    let server = if let Some(url) = url {
        let server = RedisServer::new(section, &url, password.as_ref(), ca, outgoing);
        problems.accept(section.key("url"), server)
    } else {
        problems.add(
            section.key("url"),
            "is missing: set it to the server's URL, such as \"redis://redis.internal:6379/0\"",
        );
        None
    };
    let fields = CredentialFields {
        from: &config.from,
        cookie: &config.cookie,
        cookie_format: &config.cookie_format,
        cookie_secrets: config.cookie_secrets,
        key_hash: &config.key_hash,
        app_key: config.app_key,
        previous_keys: config.previous_keys,
        cipher: &config.cipher,
    };
    let credential = SessionCredential::read(section, fields, &mut problems);
    let key_prefixes = key_prefixes(section, config.key_prefix, &credential, &mut problems);
    let expires = config.expires_path.as_deref();
    let expires = expires.and_then(|path| TimePath::read(section, path, &mut problems));
    let (connections, wait) = (config.max_connections, config.pool_wait);
    let limits = PoolLimits::read(section, connections, wait, config.timeout, &mut problems);
    let waiting = Waiting::read(section, context, config.max_waiting, &mut problems);
    let payload = payload(section, &config.payload, &credential, &mut problems);
    let (Some(server), Some(payload), true) = (server, payload, problems.is_empty()) else {
        return Err(problems);
    };
    Ok(Arc::new(RedisSession {
        credential,
        key_prefixes,
        authority,
        pool: Pool::new(section, context, server, limits, waiting),
        payload,
        expires,
        clock: context.clock.clone(),
    }))
}

/// Reads the key prefixes. `key_prefix` is required if ids are neither signed nor hashed, because otherwise a client
/// could name any key without a colon in this Redis database as its session.
fn key_prefixes(
    section: &Section<'_>,
    key_prefix: Option<List<String>>,
    credential: &SessionCredential,
    problems: &mut Problems,
) -> Vec<String> {
    let Some(List(mut prefixes)) = key_prefix else {
        problems.require(
            !credential.takes_any_key(),
            section.key("key_prefix"),
            "is missing: the session's id is not signed, so a client could name any key of this Redis as its session. \
             Set it to the prefix of the session keys, such as \"sess:\", or set key_hash = \"sha256\" if the app \
             stores hashes of the ids",
        );
        return vec![String::new()];
    };
    if prefixes.is_empty() {
        prefixes.push(String::new());
    }
    if prefixes.iter().any(String::is_empty) && credential.takes_any_key() {
        section.warn(
            "key_prefix",
            "is empty and the session's id is not signed, so a client can name any key of this Redis as its session, \
             except keys with a colon: keep nothing else there, or store sessions under a prefix",
        );
    }
    prefixes
}

fn payload(
    section: &Section<'_>,
    name: &str,
    credential: &SessionCredential,
    problems: &mut Problems,
) -> Option<Payload> {
    if let Some(format) = StoredFormat::named(name) {
        let stored = StoredSession::new(section, format, problems);
        return Some(Payload::Plain(stored));
    }
    if name != "laravel" {
        problems.add(
            section.key("payload"),
            "must be one of json, msgpack, php, text, laravel",
        );
        return None;
    }
    let keys = credential
        .laravel()
        .ok_or("is \"laravel\", which needs cookie_format = \"laravel\" as well");
    problems
        .accept(section.key("payload"), keys)
        .map(|keys| Payload::Laravel(keys.clone()))
}

impl SessionExtractor for RedisSession {
    fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted> {
        Box::pin(async move {
            let now = self.clock.now();
            let Some(id) = self.credential.key(&request.headers, now)? else {
                return Ok(None);
            };
            // Colons separate the parts of a key, so an unsigned id with a colon could name a key under another prefix.
            if self.credential.takes_any_key() && id.key.contains(':') {
                return Err(ExtractError::malformed());
            }
            self.session(id).await.map(Some)
        })
    }

    fn reach(&self) -> Reach {
        Reach {
            authority: self.authority.clone(),
            ..Reach::opaque(self.credential.places())
        }
    }

    fn start(&self) {
        self.pool.warm();
    }

    fn readiness(&self) -> Readiness {
        self.pool.readiness()
    }

    fn backend(&self) -> Option<BackendCall> {
        let queries = u32::try_from(self.key_prefixes.len()).unwrap_or(1);
        Some(self.pool.call(queries))
    }

    fn probe(&self) -> BoxFuture<'_, Vec<BackendReport>> {
        Box::pin(async move {
            let prefix = self.key_prefixes.first().map_or("", String::as_str);
            let key = format!("{prefix}rollout-token-doctor");
            vec![self.pool.probe("a key", &key).await]
        })
    }
}

impl RedisSession {
    async fn session(&self, id: StoreKey) -> Result<Session, ExtractError> {
        let Some(stored) = self.stored(&id.key).await? else {
            let prefixes = self.key_prefixes.iter().map(|prefix| format!("{prefix:?}"));
            let prefixes = prefixes.collect::<Vec<_>>().join(" or ");
            let detail =
                format!("the store has no session with this id under the prefix {prefixes}");
            return Err(ExtractError::rejected(Reason::SessionNotFound).because(detail));
        };
        let now = self.clock.now();
        let attributes = self.attributes(&stored.value)?;
        let value_expires_at = match &self.expires {
            Some(path) => path.time(&attributes).map_err(corrupt)?,
            None => None,
        };
        let value_expires_at = value_expires_at
            .map(|expiry| expiry.check(now))
            .transpose()?;
        let left = stored.seconds_left;
        let key_expires_at = left.map(|seconds| now.saturating_add(seconds));
        let ends = [value_expires_at, key_expires_at, id.expires_at];
        Ok(Session {
            attributes,
            expires_at: ends.into_iter().flatten().min(),
        })
    }

    /// The value under the first prefix for which a key exists.
    async fn stored(&self, id: &str) -> Result<Option<Stored>, ExtractError> {
        for prefix in &self.key_prefixes {
            if let Some(stored) = self.pool.ask(&format!("{prefix}{id}")).await? {
                return Ok(Some(stored));
            }
        }
        Ok(None)
    }

    fn attributes(&self, stored: &[u8]) -> Result<Value, ExtractError> {
        match &self.payload {
            Payload::Plain(format) => format.read(stored),
            Payload::Laravel(keys) => {
                // Laravel's cache serializes the already serialized session once more, as a PHP string.
                let data = php::string(stored)
                    .ok_or_else(|| corrupt("the value is not a string that PHP serialized"))?;
                keys.attributes(data)
            }
        }
    }
}

fn corrupt(detail: &str) -> ExtractError {
    ExtractError::rejected(Reason::SessionCorrupt).because(detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::contract;
    use crate::session::sections::testing::{broken_certificate, build, word};

    fn extractor(keys: &str) -> Result<Arc<dyn SessionExtractor>, Problems> {
        build("redis_session", keys)
    }

    const GOOD: &str = r#"
        preset = "connect-redis"
        url = "rediss://app:hunter2-in-url@127.0.0.1:1/3"
        cookie_secrets = ["keyboard-cat", "older-cat"]
    "#;

    #[tokio::test]
    async fn extractor_passes_the_contract_checks_without_a_connection() {
        let extractor = extractor(GOOD).unwrap();
        contract::check(&*extractor, &["hunter2", "keyboard-cat", "older-cat"]).await;
    }

    #[tokio::test]
    async fn unreachable_server_is_store_unreachable() {
        let extractor =
            extractor("url = \"redis://127.0.0.1:1\"\ncookie = \"sid\"\nkey_prefix = \"sess:\"")
                .unwrap();
        let answer = extractor
            .extract(&contract::request(&[("cookie", "sid=abc")]))
            .await;
        let Err(ExtractError::Unavailable(cause)) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(cause.reason, "store_unreachable");
    }

    /// A valid section, to which tests add keys.
    const PLAIN: &str = "url = \"redis://h\"\ncookie = \"sid\"\nkey_prefix = \"sess:\"\n";

    fn assert_refused(case: &str, keys: &str, key: &str) {
        let problems = extractor(keys).map(|_| ()).expect_err(case).to_string();
        assert!(
            problems.starts_with(&format!("extractors.redis_session.{key}:")),
            "{case}: {problems}"
        );
        assert!(!problems.contains("hunter2"), "{case}: {problems}");
    }

    #[test]
    fn invalid_section_is_refused_and_the_problem_names_the_key_but_not_the_secret() {
        let preset = "url = \"redis://h\"\npreset";
        for (case, keys, key) in [
            (
                "unsigned without key_prefix",
                "url = \"redis://h\"\ncookie = \"sid\"",
                "key_prefix",
            ),
            ("no url", "cookie = \"sid\"\nkey_prefix = \"sess:\"", "url"),
            ("no cookie", "url = \"redis://h\"", "cookie"),
            (
                "invalid cookie name",
                "url = \"redis://h\"\ncookie = \"a=b\"",
                "cookie",
            ),
            (
                "scheme",
                &PLAIN.replace("redis://h", "http://u:hunter2@h"),
                "url",
            ),
            ("not a URL", &PLAIN.replace("redis://h", "hunter2"), "url"),
            (
                "unverified TLS",
                &PLAIN.replace("redis://h", "rediss://:hunter2@h/#insecure"),
                "url",
            ),
            (
                "two passwords",
                &PLAIN.replace("redis://h\"", "redis://:hunter2@h\"\npassword = \"x\""),
                "url",
            ),
            (
                "no secret",
                &format!("{preset} = \"connect-redis\""),
                "cookie_secrets",
            ),
            (
                "empty secret",
                &format!("{preset} = \"connect-redis\"\ncookie_secrets = [\"hunter2\", \"\"]"),
                "cookie_secrets",
            ),
            (
                "no key of Laravel",
                &format!("{preset} = \"laravel\""),
                "app_key",
            ),
            (
                "unsigned ids in a header without key_prefix",
                "url = \"redis://h\"\nfrom = [\"header:authorization\"]",
                "key_prefix",
            ),
            (
                "header with a cookie format",
                &format!(
                    "{preset} = \"laravel\"\napp_key = \"hunter2\"\nfrom = [\"header:authorization\"]"
                ),
                "from",
            ),
        ] {
            assert_refused(case, keys, key);
        }
    }

    #[test]
    fn invalid_or_unused_key_is_refused() {
        for (case, added, key) in [
            ("key_hash", "key_hash = \"md5\"", "key_hash"),
            ("format", "cookie_format = \"x\"", "cookie_format"),
            (
                "secret without signed cookies",
                "cookie_secrets = [\"hunter2\"]",
                "cookie_secrets",
            ),
            (
                "app_key without Laravel",
                "app_key = \"hunter2\"",
                "app_key",
            ),
            ("payload", "payload = \"pickle\"", "payload"),
            ("text without subject", "payload = \"text\"", "subject"),
            ("from", "from = [\"authorization\"]", "from"),
            ("from of Supabase", "from = [\"supabase:sb\"]", "from"),
            (
                "payload without cookie_format",
                "payload = \"laravel\"",
                "payload",
            ),
            ("path", "expires_path = \"a..b\"", "expires_path"),
            ("no connections", "max_connections = 0", "max_connections"),
            ("timeout of zero", "timeout = \"0s\"", "timeout"),
        ] {
            assert_refused(case, &format!("{PLAIN}{added}"), key);
        }
    }

    #[test]
    fn invalid_ca_file_is_refused() {
        let broken = broken_certificate();
        let broken = broken.path().display().to_string();
        for (case, file, key) in [
            ("no such file", "/nowhere", "ca_file"),
            ("broken certificate", &*broken, "ca"),
            ("no certificate", "/dev/null", "ca"),
        ] {
            let tls = PLAIN.replace("redis://", "rediss://");
            assert_refused(case, &format!("{tls}ca_file = \"{file}\""), key);
        }
    }

    #[tokio::test]
    async fn unsigned_id_with_a_colon_is_malformed_unless_ids_are_hashed() {
        let plain = "url = \"redis://127.0.0.1:1\"\ncookie = \"sid\"";
        let prefixed = format!("{plain}\nkey_prefix = \"sess:\"");
        let empty = format!("{plain}\nkey_prefix = \"\"");
        let hashed = format!("{plain}\nkey_hash = \"sha256\"");
        for (keys, id, want) in [
            (&prefixed, "cache:profile:42", "malformed"),
            (&empty, "cache:profile:42", "malformed"),
            (&prefixed, "cache%3Aprofile%3a42", "malformed"),
            (&prefixed, "%63ache%3A42", "malformed"),
            (&prefixed, "abc%0d%0aFLUSHALL", "malformed"),
            (&prefixed, "abc%00", "malformed"),
            (&prefixed, "%5b*", "store_unreachable"),
            (&prefixed, "abc", "store_unreachable"),
            (&empty, "abc", "store_unreachable"),
            (&hashed, "cache:profile:42", "store_unreachable"),
        ] {
            let extractor = extractor(keys).unwrap();
            let answer = extractor
                .extract(&contract::request(&[("cookie", &format!("sid={id}"))]))
                .await;
            assert_eq!(word(answer), want, "{keys}, {id}");
        }
    }

    #[test]
    fn preset_with_signed_ids_needs_no_key_prefix() {
        for preset in ["connect-redis", "better-auth"] {
            let keys = format!(
                "url = \"redis://h\"\npreset = \"{preset}\"\ncookie_secrets = [\"the-cat\"]"
            );
            assert!(extractor(&keys).is_ok(), "{preset}");
        }
    }

    #[test]
    fn cookie_secrets_file_holds_one_secret_per_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "new, with a comma\r\n\nold\n").unwrap();
        let keys = |more: &str| {
            let path = file.path().display();
            format!(
                "url = \"redis://h\"\npreset = \"connect-redis\"\ncookie_secrets_file = \"{path}\"\n{more}"
            )
        };
        assert!(extractor(&keys("")).is_ok());
        assert!(extractor(&keys("cookie_secrets = [\"x\"]")).is_err());
    }
}

//! Detects cookies by their name or by the alphabet of their value: cookies that contain the id of a stored session,
//! and cookies that only the product that sets them can read.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use toml::{Table, Value as Toml};

use super::Confidence::{Certain, Guess, Likely};
use super::draft::Draft;
use super::encoding::without_prefix;
use super::jar::CookiePair;
use super::{Finding, python};
use crate::session::formats::issuer::is_guid;
use crate::session::registry::Registry;

/// `SFMyNTY.PAYLOAD.SIGNATURE`, as Phoenix's `Plug.Crypto` writes it; the prefix is "HS256" in base64url. The payload
/// is an Erlang term.
pub(super) fn phoenix(cookie: &CookiePair<'_>) -> Option<Finding> {
    let page = "docs/recipes/phoenix.md";
    let is_phoenix = cookie.value.starts_with("SFMyNTY.");
    is_phoenix.then(|| Finding::ask("the session of Phoenix", Certain, page, Some(cookie.name)))
}

/// Cookies that only the product that sets them can read. Each row is the cookie's name, or its prefix followed by `*`,
/// and the product.
const ASKED: [(&str, &str); 16] = [
    (".AspNetCore.*", "ASP.NET Core"),
    (".AspNet.*", "ASP.NET"),
    ("ASP.NET_SessionId", "ASP.NET"),
    (".ASPXAUTH", "ASP.NET"),
    ("JSESSIONID", "a Java servlet container"),
    ("PHPSESSID", "PHP"),
    ("ci_session", "CodeIgniter"),
    ("wordpress_logged_in_*", "WordPress"),
    ("a_session_*", "Appwrite"),
    ("_shibsession_*", "Shibboleth"),
    (
        "AWSELBAuthSessionCookie*",
        "an AWS Application Load Balancer",
    ),
    ("CAKEPHP", "CakePHP"),
    ("rack.session", "Rack"),
    ("GCP_IAP_*", "Google Identity-Aware Proxy"),
    ("fusionauth.*", "FusionAuth"),
    ("frontegg*", "Frontegg"),
];

pub(super) fn by_name(cookie: &CookiePair<'_>, registry: &Registry) -> Option<Finding> {
    let (name, value) = (cookie.name, cookie.value.as_str());
    if let Some(finding) = endpoint_preset(name, registry) {
        return Some(finding);
    }
    if ["authjs.session-token", "next-auth.session-token"].contains(&without_prefix(name)) {
        let draft = Draft::new("sql_session")
            .preset("authjs-database")
            .database();
        return Some(Finding::new(
            "Auth.js or NextAuth with the database strategy",
            Certain,
            "docs/recipes/nextauth.md",
            [draft, Draft::ask_authjs()],
        ));
    }
    if let Some(finding) = python::django_id(cookie) {
        return Some(finding);
    }
    let asked = ASKED.iter().find(|(known, _)| {
        known
            .strip_suffix('*')
            .map_or(name == *known, |start| name.starts_with(start))
    });
    if let Some((_, product)) = asked {
        let page = "docs/providers/ask-my-app.md";
        return Some(Finding::ask(*product, Likely, page, Some(name)));
    }
    // Spring Session writes a UUID in base64.
    if name == "SESSION"
        && STANDARD
            .decode(value)
            .is_ok_and(|uuid| is_guid(&String::from_utf8_lossy(&uuid)))
    {
        let page = "docs/recipes/spring-boot.md";
        return Some(Finding::ask("Spring Session", Likely, page, Some(name)));
    }
    let folded = name.to_ascii_lowercase();
    let means_session = [
        "sess", "sid", "auth", "token", "login", "jwt", "identity", "user",
    ]
    .iter()
    .any(|part| folded.contains(part));
    let is_id = value.len() >= 16
        && value
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"{}[]\"<>|&".contains(&byte));
    if !means_session || !is_id {
        return None;
    }
    // Flask-Session creates its ids with `secrets.token_urlsafe(32)`.
    if name == "session" && value.len() == 43 && URL_SAFE_NO_PAD.decode(value).is_ok() {
        return Some(python::flask_session(cookie, Guess));
    }
    let sql = Draft::new("sql_session")
        .key("cookie", name)
        .database()
        .example(
            "query",
            "SELECT user_id FROM sessions WHERE id = $1 AND expires_at > to_timestamp($2)",
            "the app's table of sessions",
        )
        .key("subject", "{user_id}");
    let redis = Draft::new("redis_session")
        .key("cookie", name)
        .redis()
        .example("key_prefix", "session:", "the prefix of the session's key")
        .example(
            "subject",
            "{user_id}",
            "the path of the user's id in the value",
        );
    Some(Finding::new(
        "the id of a session that the app stores",
        Guess,
        "docs/choosing.md",
        [Draft::ask_with(Some(name)), sql, redis],
    ))
}

/// Recognises products with a "who am I" URL by the names of their cookies, and drafts a section of `session_endpoint`
/// with the product's preset.
fn endpoint_preset(name: &str, registry: &Registry) -> Option<Finding> {
    let (_, kind) = registry.entry("session_endpoint")?;
    let is_kratos = name.starts_with("ory_kratos_session") || name.starts_with("ory_session_");
    let (preset, url, page) = match name {
        "_oauth2_proxy" => (
            "oauth2-proxy",
            "http://localhost:4180",
            "docs/providers/proxies.md",
        ),
        _ if is_kratos => (
            "kratos",
            "http://localhost:4433",
            "docs/providers/kratos.md",
        ),
        _ => return None,
    };
    let (_, keys) = kind.preset(preset)?;
    let keys: Table = keys.parse().ok()?;
    let is_forwarded = keys
        .get("cookies")
        .and_then(Toml::as_array)
        .is_some_and(|cookies| cookies.contains(&name.into()));
    let draft = Draft::new("session_endpoint").preset(preset);
    let mut draft = draft.example("url", url, "the public API of the product");
    if !is_forwarded {
        draft = draft.key("cookies", vec![name]);
    }
    Some(Finding::new(preset, Certain, page, [draft]))
}

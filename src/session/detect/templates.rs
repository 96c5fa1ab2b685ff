//! Drafts a section for a kind, a preset or both, as the operator names them, without a request. If the kind has an
//! example credential, the draft is what `detect` returns for that credential, so that `init` and `detect` agree.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::detect;
use super::draft::{Draft, Role};
use crate::session::formats::page_link::page_link;
use crate::session::registry::{Registry, sections_for};

/// The kinds that are searched for a preset if the operator names no kind, in this order.
const KINDS_WITH_PRESETS: [&str; 6] = [
    "jwt",
    "redis_session",
    "sql_session",
    "trusted_header",
    "session_endpoint",
    "introspection",
];

/// The section for a kind, for a preset, or for both, and its documentation page.
///
/// # Errors
/// If the kind is unknown or does not have the preset, if no kind has the preset, or if neither is given.
pub fn template(
    kind: Option<&str>,
    preset: Option<&str>,
    registry: &Registry,
) -> Result<(Draft, &'static str), String> {
    let has = |kind: &str, preset: &str| {
        let entry = registry.entry(kind);
        entry.is_some_and(|(_, kind)| kind.preset(preset).is_some())
    };
    let choosing = || page_link("docs/choosing.md");
    let kind = match (kind, preset) {
        (Some(kind), _) => kind,
        (None, Some(preset)) => KINDS_WITH_PRESETS
            .into_iter()
            .find(|kind| has(kind, preset))
            .ok_or_else(|| match flags_for(preset) {
                Some(flags) => format!("{preset} is not a preset: use {flags}"),
                None => format!("{preset} is not a preset: see {}", choosing()),
            })?,
        (None, None) => return Err(format!("name a kind or a preset: see {}", choosing())),
    };
    let Some((kind, entry)) = registry.entry(kind) else {
        let known: Vec<_> = registry.names().collect();
        let advice = flags_for(kind).map_or_else(
            || format!(". The kinds are {}", known.join(", ")),
            |flags| format!(": use {flags}"),
        );
        return Err(format!("{kind} is not a kind{advice}"));
    };
    let preset = match preset {
        None => None,
        Some(preset) => match entry.preset(preset) {
            Some((preset, _)) => Some(preset),
            None => return Err(format!("{kind} has no preset {preset}")),
        },
    };
    let found = specimen(kind, preset).map(|headers| detect(&headers, registry));
    let fitting = found.into_iter().flatten().find_map(|detected| {
        let mut drafts = detected.drafts.into_iter();
        let draft = drafts.find(|draft| draft.kind == kind && draft.preset == preset)?;
        Some((draft, detected.page))
    });
    let (mut draft, page) = fitting.unwrap_or_else(|| plain(kind, preset));
    for key in draft.keys.iter_mut().filter(|key| key.role == Role::Known) {
        let is_invented = match kind {
            "jwt" => !["from", "algorithms", "allow_any_audience"].contains(&&*key.name),
            _ => ["cookie", "cookies"].contains(&&*key.name),
        };
        if is_invented {
            key.role = Role::Example;
        }
    }
    Ok((draft, page))
}

/// The flags of `init` for a library that is neither a kind nor a preset.
fn flags_for(library: &str) -> Option<String> {
    let sections = sections_for(library)?;
    let flags: Vec<String> = sections
        .iter()
        .map(|(kind, preset)| match preset {
            Some(preset) => format!("--kind {kind} --preset {preset}"),
            None => format!("--kind {kind}"),
        })
        .collect();
    Some(flags.join(", or "))
}

/// Drafts a section for a kind that has no example credential.
fn plain(kind: &'static str, preset: Option<&'static str>) -> (Draft, &'static str) {
    let draft = Draft::new(kind).preset(preset);
    match (kind, preset) {
        ("session_endpoint", Some("authjs")) => (Draft::ask_authjs(), "docs/recipes/nextauth.md"),
        ("session_endpoint", Some("kratos")) => (
            draft.example("url", "http://localhost:4433", "the public API of Kratos"),
            "docs/providers/kratos.md",
        ),
        ("session_endpoint", Some(_)) => (draft.app(), "docs/providers/ask-my-app.md"),
        ("trusted_header", None) => (
            draft
                .example("header", "X-User", "the header that the proxy sets")
                .trusted_proxies(),
            "docs/providers/proxies.md",
        ),
        ("trusted_header", Some(_)) => (draft.trusted_proxies(), "docs/providers/proxies.md"),
        ("introspection", Some(_)) => (
            draft.introspection(
                "https://keycloak.example/realms/REALM/protocol/openid-connect/token/introspect",
            ),
            "docs/providers/introspection.md",
        ),
        ("session_endpoint", None) => (Draft::ask(&["sid"]), "docs/providers/ask-my-app.md"),
        _ => (draft, "docs/choosing.md"),
    }
}

/// An example request with a credential of this kind.
fn specimen(kind: &str, preset: Option<&str>) -> Option<HeaderMap> {
    let signature = |length: usize| "A".repeat(length);
    let json = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let laravel = STANDARD.encode(r#"{"iv":"a","value":"a","mac":"a","tag":""}"#);
    let cookies = match (kind, preset) {
        ("jwt", preset) => return Some(token(preset)),
        ("api_key" | "introspection", None) => {
            let bearer = HeaderValue::from_static("Bearer an-opaque-token");
            return Some(HeaderMap::from_iter([(header::AUTHORIZATION, bearer)]));
        }
        ("authjs", None) => format!(
            "authjs.session-token={}..a.a.a",
            json(r#"{"alg":"dir","enc":"A256CBC-HS512","kid":"a"}"#)
        ),
        ("better_auth", None) => format!(
            "better-auth.session_data={}",
            json(r#"{"session":{},"expiresAt":1,"signature":"a"}"#)
        ),
        ("cookie_session", None) => format!("session=e30=; session.sig={}", signature(27)),
        ("django_signed", None) => format!("sessionid=e30:1xW0i2:{}", signature(43)),
        ("flask", None) => format!("session=e30.awYopw.{}", signature(27)),
        ("iron_session", None) => "app_session=Fe26.2*1*a*a*a*a*a*a~2".to_owned(),
        ("laravel", None) => format!("laravel_session={laravel}; {}={laravel}", "a".repeat(40)),
        ("rails", None) => format!(
            "_app_session=AAAA--{}--{}",
            STANDARD.encode([0; 12]),
            STANDARD.encode([0; 16])
        ),
        ("react_router", None) => format!("__session=e30=.{}", signature(43)),
        ("starlette", None) => format!("session=e30=.awYopw.{}", signature(27)),
        (_, Some("connect-redis" | "connect-pg-simple")) => {
            format!("connect.sid=s:id.{}", signature(43))
        }
        ("sql_session", Some("django")) => format!("sessionid={}", "z".repeat(32)),
        ("sql_session", Some("authjs-database")) => {
            "authjs.session-token=00000000-0000-4000-8000-000000000000".to_owned()
        }
        ("sql_session" | "redis_session", Some("better-auth")) => {
            format!("better-auth.session_token=token.{}=", signature(43))
        }
        ("sql_session" | "redis_session", Some("laravel")) => format!("laravel_session={laravel}"),
        ("sql_session", Some("rails8")) => format!(
            "session_id={}--{}",
            STANDARD.encode(r#"{"_rails":{"message":"MQ=="}}"#),
            "a".repeat(40)
        ),
        ("sql_session" | "redis_session", None) => {
            "session_id=00000000-0000-4000-8000-000000000000".to_owned()
        }
        _ => return None,
    };
    let cookies = HeaderValue::try_from(cookies).ok()?;
    Some(HeaderMap::from_iter([(header::COOKIE, cookies)]))
}

/// An example request with a JWT of a provider. The JWT contains the claims that identify the provider and those that
/// the section needs.
fn token(preset: Option<&str>) -> HeaderMap {
    let name = match preset {
        Some("aws-alb") => "x-amzn-oidc-data",
        Some("cloudflare-access") => "cf-access-jwt-assertion",
        Some("google-iap") => "x-goog-iap-jwt-assertion",
        _ => "authorization",
    };
    let header = match preset {
        Some("aws-alb") => {
            r#","signer":"arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/NAME/ID""#
        }
        Some("clerk") => r#","kid":"ins_a""#,
        _ => "",
    };
    let (issuer, claims) = match preset {
        Some("auth0") => (
            "https://TENANT.eu.auth0.com/",
            r#","aud":"https://api.your-app.com""#,
        ),
        Some("aws-alb") => ("https://idp.example.com", ""),
        Some("clerk") => (
            "https://clerk.your-app.com",
            r#","azp":"https://your-app.com""#,
        ),
        Some("cloudflare-access") => ("https://TEAM.cloudflareaccess.com", r#","aud":["AUD-TAG"]"#),
        Some("cognito") => (
            "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_POOL",
            r#","client_id":"APP-CLIENT-ID","token_use":"access""#,
        ),
        Some("entra") => (
            "https://login.microsoftonline.com/TENANT-ID/v2.0",
            r#","aud":"API-APPLICATION-ID""#,
        ),
        Some("firebase") => (
            "https://securetoken.google.com/PROJECT",
            r#","aud":"PROJECT""#,
        ),
        Some("google-iap") => (
            "https://cloud.google.com/iap",
            r#","aud":"/projects/NUMBER/global/backendServices/ID""#,
        ),
        Some("keycloak") => (
            "https://keycloak.your-app.com/realms/REALM",
            r#","aud":"account","azp":"web","typ":"Bearer""#,
        ),
        Some("okta") => (
            "https://TENANT.okta.com/oauth2/default",
            r#","aud":"api://default""#,
        ),
        Some("supabase") => (
            "https://REF.supabase.co/auth/v1",
            r#","aud":"authenticated""#,
        ),
        Some("workos") => ("https://api.workos.com/user_management/client_CLIENT", ""),
        _ => (
            "https://idp.example.com",
            r#","aud":"https://api.your-app.com""#,
        ),
    };
    let encode = |text: String| URL_SAFE_NO_PAD.encode(text);
    let token = format!(
        "Bearer {}.{}.c2ln",
        encode(format!(r#"{{"alg":"RS256"{header}}}"#)),
        encode(format!(r#"{{"iss":"{issuer}"{claims},"sub":"user"}}"#))
    );
    HeaderValue::try_from(token)
        .map(|token| HeaderMap::from_iter([(HeaderName::from_static(name), token)]))
        .unwrap_or_default()
}

//! Drafts a section for a kind and a preset that the operator names, without a request. If the kind has an example
//! credential, the draft is what `detect` returns for that credential, so that `init` and `detect` agree.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::draft::{Draft, Role};
use super::{Detected, detect};
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
/// If the kind or preset is unknown, or if neither is given.
pub fn template(
    kind: Option<&str>,
    preset: Option<&str>,
    registry: &Registry,
) -> Result<(Draft, &'static str), String> {
    let has = |kind: &str, preset: &str| {
        registry
            .entry(kind)
            .is_some_and(|(_, kind)| kind.presets.iter().any(|(name, _)| *name == preset))
    };
    let kind = match (kind, preset) {
        (Some(kind), _) => kind,
        (None, Some(preset)) => KINDS_WITH_PRESETS
            .into_iter()
            .find(|kind| has(kind, preset))
            .ok_or_else(|| match flags_for(preset) {
                Some(flags) => format!("{preset} is not a preset: use {flags}"),
                None => format!(
                    "{preset} is not a preset: see {}",
                    page_link("docs/choosing.md")
                ),
            })?,
        (None, None) => {
            return Err(format!(
                "name a kind or a preset: see {}",
                page_link("docs/choosing.md")
            ));
        }
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
        Some(preset) => {
            let found = entry.presets.iter().find(|(name, _)| *name == preset);
            Some(
                found
                    .ok_or_else(|| format!("{kind} has no preset {preset}"))?
                    .0,
            )
        }
    };
    let found = specimen(kind, preset)
        .map(|headers| detect(&headers, registry))
        .unwrap_or_default();
    let fitting = found.iter().find_map(|detected: &Detected| {
        let draft = detected
            .drafts
            .iter()
            .find(|draft| draft.kind == kind && draft.preset == preset)?;
        Some((draft.clone(), detected.page))
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
    let mut draft = Draft::new(kind);
    if let Some(preset) = preset {
        draft = draft.preset(preset);
    }
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
                .example(
                    "trusted_proxies",
                    vec!["10.0.0.5"],
                    "the proxy's address, as this service sees it",
                ),
            "docs/providers/proxies.md",
        ),
        ("trusted_header", Some(_)) => (
            draft.example(
                "trusted_proxies",
                vec!["10.0.0.5"],
                "the proxy's address, as this service sees it",
            ),
            "docs/providers/proxies.md",
        ),
        ("introspection", Some(_)) => (
            draft
                .example(
                    "url",
                    "https://keycloak.example/realms/REALM/protocol/openid-connect/token/introspect",
                    "the issuer's introspection endpoint",
                )
                .example("client_id", "rollout-token", "the client id of this service at the issuer")
                .secret("client_secret", "the secret of this client")
                .example("client_ids", vec!["web"], "the apps whose tokens you accept"),
            "docs/providers/introspection.md",
        ),
        ("session_endpoint", None) => (Draft::ask(&["sid"], &[]), "docs/providers/ask-my-app.md"),
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

/// An example request with a JWT of a provider, which contains the claims that identify the provider and those that the
/// section needs.
fn token(preset: Option<&str>) -> HeaderMap {
    let (name, header, claims) = match preset {
        Some("auth0") => (
            "authorization",
            "",
            r#""iss":"https://TENANT.eu.auth0.com/","aud":"https://api.your-app.com""#,
        ),
        Some("aws-alb") => (
            "x-amzn-oidc-data",
            r#","signer":"arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/NAME/ID""#,
            r#""iss":"https://idp.example.com""#,
        ),
        Some("clerk") => (
            "authorization",
            r#","kid":"ins_a""#,
            r#""iss":"https://clerk.your-app.com","azp":"https://your-app.com""#,
        ),
        Some("cloudflare-access") => (
            "cf-access-jwt-assertion",
            "",
            r#""iss":"https://TEAM.cloudflareaccess.com","aud":["AUD-TAG"]"#,
        ),
        Some("cognito") => (
            "authorization",
            "",
            r#""iss":"https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_POOL","client_id":"APP-CLIENT-ID","token_use":"access""#,
        ),
        Some("entra") => (
            "authorization",
            "",
            r#""iss":"https://login.microsoftonline.com/TENANT-ID/v2.0","aud":"API-APPLICATION-ID""#,
        ),
        Some("firebase") => (
            "authorization",
            "",
            r#""iss":"https://securetoken.google.com/PROJECT","aud":"PROJECT""#,
        ),
        Some("google-iap") => (
            "x-goog-iap-jwt-assertion",
            "",
            r#""iss":"https://cloud.google.com/iap","aud":"/projects/NUMBER/global/backendServices/ID""#,
        ),
        Some("keycloak") => (
            "authorization",
            "",
            r#""iss":"https://keycloak.your-app.com/realms/REALM","aud":"account","azp":"web","typ":"Bearer""#,
        ),
        Some("okta") => (
            "authorization",
            "",
            r#""iss":"https://TENANT.okta.com/oauth2/default","aud":"api://default""#,
        ),
        Some("supabase") => (
            "authorization",
            "",
            r#""iss":"https://REF.supabase.co/auth/v1","aud":"authenticated""#,
        ),
        Some("workos") => (
            "authorization",
            "",
            r#""iss":"https://api.workos.com/user_management/client_CLIENT""#,
        ),
        _ => (
            "authorization",
            "",
            r#""iss":"https://idp.example.com","aud":"https://api.your-app.com""#,
        ),
    };
    let encode = |text: String| URL_SAFE_NO_PAD.encode(text);
    let token = format!(
        "Bearer {}.{}.c2ln",
        encode(format!(r#"{{"alg":"RS256"{header}}}"#)),
        encode(format!(r#"{{{claims},"sub":"user"}}"#))
    );
    HeaderValue::try_from(token)
        .map(|token| HeaderMap::from_iter([(HeaderName::from_static(name), token)]))
        .unwrap_or_default()
}

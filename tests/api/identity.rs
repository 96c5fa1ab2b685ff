//! Tests of identity: which extractor of a chain decides, which subjects are refused, and which requests share a rate
//! limit. A client that presents one identity never gets a token for another. Also tests request targets with a
//! fragment, chunked bodies and navigation requests.

use std::time::Duration;

use serde_json::{Value, json};

use crate::backend::{self, Backend};
use crate::binary::{binary, run};
use crate::helpers::{CLIENT_ID, CLIENT_SECRET, NOW, Service, load, sign_session};
use crate::settings::ConfigBuilder;

/// The outcome of a request: the subject, or the error code.
async fn outcome(service: &Service, headers: &[(&str, &str)]) -> Result<String, String> {
    let outcome = service.outcome(headers).await;
    outcome.map_err(|(_, code)| code)
}

fn signed(issuer: &str, subject: &str) -> String {
    sign_session(&json!({ "iss": issuer, "sub": subject, "exp": NOW + 600 }))
}

fn bearer(token: &str) -> (&'static str, String) {
    ("authorization", format!("Bearer {token}"))
}

fn jwt(name: &str, issuer: &str, from: &str) -> String {
    format!(
        "[extractors.{name}]\nkind = \"jwt\"\nfrom = [\"{from}\"]\nissuers = [\"{issuer}\"]\nalgorithms = [\"HS256\"]\n\
         secret = \"session-secret-session-secret-session-secret\"\nallow_any_audience = true\n"
    )
}

const KEY: &str = "3f1c8a5e0b7d49c2a6e8f0d1b3c5a7e9f1d3b5c7";
const KEY_HASH: &str = "e100750804bc6090f7431dcaae937ba23eccbca056275c9f485797aa5ccb8548";
const PROXY: &str = "[extractors.proxy]\nkind = \"trusted_header\"\nheader = \"X-User\"\ntrusted_proxies = [\"127.0.0.1\"]\n";

fn api_key() -> String {
    format!("[extractors.backend]\nkind = \"api_key\"\nkeys = {{ app = \"{KEY_HASH}\" }}\n")
}

fn introspection(url: &str, more: &str) -> String {
    format!(
        "[extractors.opaque]\nkind = \"introspection\"\nurl = \"{url}\"\nclient_id = \"us\"\n\
         client_secret = \"the-secret-of-our-client\"\nrequired_scopes = [\"read\"]\n{more}\n"
    )
}

/// An issuer that reports every token as active. The subject is `opaque:` followed by the token itself.
async fn issuer() -> Backend {
    Backend::start(|seen| async move {
        let form = String::from_utf8(seen.body.to_vec()).expect("a form");
        let token = form
            .split('&')
            .find_map(|pair| pair.strip_prefix("token="))
            .unwrap_or_default();
        backend::json(
            &json!({ "active": true, "scope": "read", "sub": format!("opaque:{token}") })
                .to_string(),
        )
    })
    .await
}

fn chain(names: &[&str], sections: &[&str]) -> Service {
    Service::start(format!(
        "[session]\nextractors = {names:?}\n{}",
        sections.concat()
    ))
}

#[tokio::test]
async fn chain_of_api_key_and_introspection_accepts_api_keys_and_opaque_tokens() {
    let issuer = issuer().await;
    let service = chain(
        &["backend", "opaque"],
        &[&api_key(), &introspection(&issuer.url("/"), "")],
    );
    let (name, key) = bearer(KEY);
    assert_eq!(
        outcome(&service, &[(name, &key), ("x-rollout-subject", "ann")]).await,
        Ok("ann".to_owned())
    );
    assert_eq!(issuer.visits(), 0);
    let (name, token) = bearer("bobs-token");
    assert_eq!(
        outcome(&service, &[(name, &token)]).await,
        Ok("opaque:bobs-token".to_owned())
    );
    // The header with the subject is read only in combination with a valid API key.
    let spoofed = [(name, &*token), ("x-rollout-subject", "ann")];
    assert_eq!(
        outcome(&service, &spoofed).await,
        Ok("opaque:bobs-token".to_owned())
    );
}

#[tokio::test]
async fn two_jwt_sections_for_one_header_accept_the_tokens_of_both_issuers() {
    let a = jwt("a", "https://a", "header:authorization");
    let b = jwt("b", "https://b", "header:authorization");
    for names in [["a", "b"], ["b", "a"]] {
        let service = chain(&names, &[&a, &b]);
        for issuer in ["https://a", "https://b"] {
            let (name, token) = bearer(&signed(issuer, issuer));
            assert_eq!(
                outcome(&service, &[(name, &token)]).await,
                Ok(issuer.to_owned()),
                "{names:?}"
            );
        }
        let (name, token) = bearer(&signed("https://c", "cid"));
        assert_eq!(
            outcome(&service, &[(name, &token)]).await,
            Err("session_invalid".to_owned())
        );
    }
}

#[tokio::test]
async fn opaque_token_is_sent_to_introspection_and_the_jwt_of_another_issuer_is_not() {
    let issuer = issuer().await;
    let api = jwt("api", "https://a", "header:authorization");
    let opaque = introspection(&issuer.url("/"), "issuers = [\"https://i\"]");
    for names in [["api", "opaque"], ["opaque", "api"]] {
        let service = chain(&names, &[&api, &opaque]);
        let before = issuer.visits();
        let (name, token) = bearer(&signed("https://a", "ann"));
        assert_eq!(
            outcome(&service, &[(name, &token)]).await,
            Ok("ann".to_owned()),
            "{names:?}"
        );
        let (name, token) = bearer(&signed("https://c", "cid"));
        assert_eq!(
            outcome(&service, &[(name, &token)]).await,
            Err("session_invalid".to_owned())
        );
        assert_eq!(issuer.visits(), before, "{names:?}");
        // The response lacks the `iss` that `issuers` requires; this checks only that the issuer was called.
        let (name, token) = bearer("opaque-token");
        assert_eq!(
            outcome(&service, &[(name, &token)]).await,
            Err("session_invalid".to_owned())
        );
        assert_eq!(issuer.visits(), before + 1, "{names:?}");
    }
}

#[tokio::test]
async fn rejected_credential_does_not_fall_through_to_the_next_extractor() {
    let a = ConfigBuilder::new(&jwt("a", "https://a", "header:authorization"))
        .with("extractors.a.secret = 'another-secret-another-secret-another-secret'");
    let b = ConfigBuilder::new(&jwt("b", "https://a", "header:authorization"))
        .without("extractors.b.issuers");
    let service = chain(&["a", "b"], &[&a.to_string(), &b.to_string()]);
    let (name, token) = bearer(&signed("https://a", "ann"));
    assert_eq!(
        outcome(&service, &[(name, &token)]).await,
        Err("session_invalid".to_owned())
    );
    let (name, token) = bearer(&signed("https://b", "bob"));
    assert_eq!(
        outcome(&service, &[(name, &token)]).await,
        Ok("bob".to_owned())
    );
}

#[tokio::test]
async fn foreign_bearer_token_is_session_invalid_despite_another_valid_credential() {
    let app = Backend::json("{\"sub\":\"ann\"}").await;
    let endpoint = format!(
        "[extractors.app]\nkind = \"session_endpoint\"\nurl = \"{}\"\ncookies = [\"sid\"]\nforward_headers = [\"X-Token\"]\n",
        app.url("/me")
    );
    let api = jwt("api", "https://a", "header:authorization");
    let web = jwt("web", "https://a", "cookie:session");
    let sections = [&*api, &*web, &*endpoint, &*api_key(), PROXY];
    let service = chain(&["api", "web", "app", "backend", "proxy"], &sections);
    let session = format!("session={}", signed("https://a", "ann"));
    let others: [&[(&str, &str)]; 5] = [
        &[("cookie", &session)],
        &[("cookie", "sid=anns")],
        &[("x-token", "anns")],
        &[("x-api-key", KEY), ("x-rollout-subject", "ann")],
        &[("x-user", "ann")],
    ];
    for other in others {
        assert_eq!(
            outcome(&service, other).await,
            Ok("ann".to_owned()),
            "{other:?} alone"
        );
        let visits = app.visits();
        for foreign in [signed("https://b", "bob"), "bobs-opaque-token".to_owned()] {
            let (name, token) = bearer(&foreign);
            let both = [other, &[(name, &*token)]].concat();
            assert_eq!(
                outcome(&service, &both).await,
                Err("session_invalid".to_owned()),
                "{other:?}"
            );
        }
        assert_eq!(app.visits(), visits, "{other:?}");
    }
}

#[tokio::test]
async fn foreign_credential_in_a_header_is_forwarded_without_cookies_and_other_credentials() {
    let app = Backend::start(|seen| async move {
        let user = if seen.header("authorization").is_some() {
            "bob"
        } else {
            "ann"
        };
        backend::json(&json!({ "sub": user }).to_string())
    })
    .await;
    let endpoint = format!(
        "[extractors.app]\nkind = \"session_endpoint\"\nurl = \"{}\"\ncookies = [\"sid\"]\n\
         forward_headers = [\"Authorization\", \"X-Token\"]\n",
        app.url("/me")
    );
    let service = chain(
        &["api", "app"],
        &[&jwt("api", "https://a", "header:authorization"), &endpoint],
    );
    let (name, token) = bearer("bobs-token");
    let all = [("cookie", "sid=anns"), ("x-token", "anns"), (name, &*token)];
    assert_eq!(outcome(&service, &all).await, Ok("bob".to_owned()));
    let seen = app.seen().pop().expect("a call");
    assert_eq!(
        (seen.header("cookie"), seen.header("x-token")),
        (None, None)
    );
    assert_eq!(seen.header("authorization"), Some(&*token));

    assert_eq!(outcome(&service, &all[..2]).await, Ok("ann".to_owned()));
    let seen = app.seen().pop().expect("a call");
    assert_eq!(
        (seen.header("cookie"), seen.header("x-token")),
        (Some("sid=anns"), Some("anns"))
    );
}

#[tokio::test]
async fn foreign_cookie_is_session_invalid_unless_a_later_extractor_finds_a_session() {
    let service = chain(
        &["web", "proxy"],
        &[&jwt("web", "https://a", "cookie:session"), PROXY],
    );
    for foreign in [signed("https://b", "bob"), "opaque".to_owned()] {
        let cookie = format!("session={foreign}");
        assert_eq!(
            outcome(&service, &[("cookie", &cookie)]).await,
            Err("session_invalid".to_owned())
        );
        let both = [("cookie", &*cookie), ("x-user", "ann")];
        assert_eq!(outcome(&service, &both).await, Ok("ann".to_owned()));
    }
    assert_eq!(outcome(&service, &[]).await, Err("no_session".to_owned()));
}

#[test]
fn explain_shows_foreign_credentials_and_skipped_extractors() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let sections = [
        &*jwt("api", "https://a", "header:authorization"),
        &*jwt("web", "https://a", "cookie:session"),
    ];
    let config = format!(
        "[session]\nextractors = [\"api\", \"web\"]\n{}",
        sections.concat()
    );
    std::fs::write(file.path(), config).unwrap();
    let (name, token) = bearer(&signed("https://b", "bob"));
    let authorization = format!("{name}: {token}");
    let cookie = format!("cookie: session={}", signed("https://a", "ann"));
    let mut command = binary(&["explain", "-H", &authorization, "-H", &cookie]);
    command.env_clear();
    command.envs([
        ("ROLLOUT_CLIENT_ID", CLIENT_ID),
        ("ROLLOUT_CLIENT_SECRET", CLIENT_SECRET),
    ]);
    let (code, out, err) = run(command.args(["--config", file.path().to_str().unwrap()]));
    assert_eq!(code, Some(0), "{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(
        lines[1],
        "api (jwt): not mine, with reason issuer (iss is https://b, but issuers allows only https://a): another party issued the credential in header:authorization"
    );
    assert!(
        lines[2].starts_with(
            "web (jwt): not tried, because the caller is identified by a header that this section does not read"
        ),
        "{out}"
    );
    assert_eq!(lines[3], "answer: 401 session_invalid");
}

#[test]
fn section_shadowed_by_an_earlier_section_is_a_warning() {
    let place = "header:authorization";
    let (a, b) = (jwt("a", "https://a", place), jwt("b", "https://b", place));
    let any = ConfigBuilder::new(&jwt("any", "https://x", place))
        .without("extractors.any.issuers")
        .to_string();
    let opaque = introspection("http://127.0.0.1:9/", "");
    let public = "[extractors.idp]\nkind = \"jwt\"\njwks_url = \"http://127.0.0.1:9/keys\"\nissuers = [\"https://a\"]\n\
                  allow_any_audience = true\n";
    for (case, names, sections, warned) in [
        ("other issuers", ["a", "b"], [&a, &b], None),
        (
            "same issuer",
            ["a", "a2"],
            [&a, &jwt("a2", "https://a", place)],
            Some("a2"),
        ),
        ("any issuer first", ["any", "a"], [&any, &a], Some("a")),
        ("any issuer last", ["a", "any"], [&a, &any], None),
        ("other family", ["a", "idp"], [&a, &public.to_owned()], None),
        (
            "other place",
            ["a", "c"],
            [&a, &jwt("c", "https://a", "cookie:session")],
            None,
        ),
        (
            "introspection first",
            ["opaque", "a"],
            [&opaque, &a],
            Some("a"),
        ),
        ("introspection last", ["a", "opaque"], [&a, &opaque], None),
    ] {
        let config = format!(
            "[session]\nextractors = {names:?}\n{}{}",
            sections[0], sections[1]
        );
        let settings = load(&config).unwrap_or_else(|problems| panic!("{case}: {problems}"));
        let lines: Vec<String> = settings.warnings.lines().collect();
        let shadowed: Vec<&String> = lines
            .iter()
            .filter(|line| line.contains("comes first and decides"))
            .collect();
        let key = warned.map(|name| format!("extractors.{name}: extractors."));
        assert_eq!(
            shadowed.len(),
            usize::from(warned.is_some()),
            "{case}: {lines:?}"
        );
        assert!(
            key.is_none_or(|key| shadowed[0].starts_with(&key) && shadowed[0].contains(place)),
            "{case}: {lines:?}"
        );
    }
}

#[test]
fn possibly_equal_subjects_of_two_sections_are_a_warning_unless_literal_prefixes_differ() {
    let (a, b) = (
        jwt("a", "https://a", "header:authorization"),
        jwt("b", "https://b", "header:authorization"),
    );
    let with = |section: &str, subject: &str| format!("{section}subject = \"{subject}\"\n");
    let store = |name: &str, url: &str| {
        format!(
            "[extractors.{name}]\nkind = \"redis_session\"\nurl = \"{url}\"\ncookie = \"{name}\"\nkey_prefix = \"s:\"\n"
        )
    };
    for (case, names, sections, warned) in [
        ("two issuers", ["a", "b"], [a.clone(), b.clone()], true),
        (
            "one prefix",
            ["a", "b"],
            [a.clone(), with(&b, "b:{sub}")],
            true,
        ),
        (
            "two prefixes",
            ["a", "b"],
            [with(&a, "a:{sub}"), with(&b, "b:{sub}")],
            false,
        ),
        (
            "one issuer in two credential sources",
            ["a", "c"],
            [a.clone(), jwt("c", "https://a", "cookie:c")],
            false,
        ),
        (
            "two stores",
            ["s", "t"],
            [store("s", "redis://one"), store("t", "redis://two")],
            true,
        ),
        (
            "one store",
            ["s", "t"],
            [store("s", "redis://one"), store("t", "redis://x:y@one")],
            false,
        ),
        (
            "issuer and store",
            ["a", "s"],
            [a.clone(), store("s", "redis://one")],
            false,
        ),
        (
            "issuer and proxy",
            ["a", "proxy"],
            [a.clone(), PROXY.to_owned()],
            false,
        ),
    ] {
        let config = format!(
            "[session]\nextractors = {names:?}\n{}{}",
            sections[0], sections[1]
        );
        let settings = load(&config).unwrap_or_else(|problems| panic!("{case}: {problems}"));
        let lines: Vec<String> = settings.warnings.lines().collect();
        let key = format!(
            "extractors.{}.subject: a user of this section and another user",
            names[1]
        );
        assert_eq!(
            lines.iter().any(|line| line.starts_with(&key)),
            warned,
            "{case}: {lines:?}"
        );
        assert!(!lines.concat().contains("redis://"), "{lines:?}");
    }
}

#[tokio::test]
async fn unverified_email_is_401_unless_allow_unverified_email_is_set() {
    let section = |more: &str| {
        let web = jwt("web", "https://a", "header:authorization");
        format!("[session]\nextractors = [\"web\"]\n{web}subject = \"{{email}}\"\n{more}")
    };
    let token = |verified: Value| {
        sign_session(&json!({
            "iss": "https://a", "exp": NOW + 600, "email": "ann@a.example", "email_verified": verified,
        }))
    };
    let service = Service::start(section(""));
    let lifted = Service::start(section("allow_unverified_email = true"));
    for (verified, passes) in [
        (json!(true), true),
        (json!("true"), true),
        (json!(false), false),
        (json!(null), false),
    ] {
        let (name, token) = bearer(&token(verified.clone()));
        let want = if passes {
            Ok("ann@a.example".to_owned())
        } else {
            Err("session_invalid".to_owned())
        };
        assert_eq!(
            outcome(&service, &[(name, &token)]).await,
            want,
            "{verified}"
        );
        assert!(
            outcome(&lifted, &[(name, &token)]).await.is_ok(),
            "{verified}"
        );
    }

    let issuer = Backend::json(
        r#"{"active":true,"scope":"read","email":"ann@a.example","email_verified":false}"#,
    )
    .await;
    let opaque = introspection(&issuer.url("/"), "subject = \"{email}\"");
    let service = chain(&["opaque"], &[&opaque]);
    let (name, token) = bearer("opaque");
    assert_eq!(
        outcome(&service, &[(name, &token)]).await,
        Err("session_invalid".to_owned())
    );
}

#[test]
fn cloudflare_access_and_google_iap_presets_allow_unverified_email() {
    for (preset, more) in [
        (
            "cloudflare-access",
            "issuers = [\"https://team.cloudflareaccess.com\"]",
        ),
        ("google-iap", ""),
    ] {
        let config = format!(
            "[session]\nextractors = [\"web\"]\n[extractors.web]\nkind = \"jwt\"\npreset = \"{preset}\"\n\
             audiences = [\"x\"]\nsubject = \"{{email}}\"\n{more}"
        );
        let allows = |config: &str| {
            let settings = load(config).unwrap_or_else(|problems| panic!("{problems}"));
            settings.effective()["extractors"]["web"]["allow_unverified_email"] == true
        };
        assert!(allows(&config), "{preset}");
        assert!(
            !allows(&format!("{config}\nallow_unverified_email = false")),
            "an explicit key takes precedence over the preset {preset}"
        );
    }
}

#[test]
fn supabase_subject_from_user_metadata_is_refused() {
    let config = |subject: &str| {
        load(&format!(
            "[session]\nextractors = [\"web\"]\n[extractors.web]\nkind = \"jwt\"\npreset = \"supabase\"\n\
             issuers = [\"https://ref.supabase.co/auth/v1\"]\nsubject = \"{subject}\""
        ))
    };
    for subject in [
        "{user_metadata.org}",
        "{/user_metadata/org}",
        "o:{user_metadata}",
    ] {
        let problems = config(subject).map(|_| ()).expect_err(subject).to_string();
        assert!(
            problems.starts_with("extractors.web.subject: reads user_metadata"),
            "{problems}"
        );
    }
    assert!(config("{app_metadata.org}").is_ok());
}

#[tokio::test]
async fn ambiguous_subject_is_401_or_refused_at_start_unless_allow_ambiguous_subject_is_set() {
    let section = |subject: &str, more: &str| {
        let web = jwt("web", "https://a", "header:authorization");
        format!("[session]\nextractors = [\"web\"]\n{web}subject = \"{subject}\"\n{more}")
    };
    let token = |org: &str, user: &str| {
        bearer(&sign_session(
            &json!({ "iss": "https://a", "exp": NOW + 600, "org": org, "user": user }),
        ))
    };
    let lift = "allow_ambiguous_subject = true";
    let service = Service::start(section("{org}-{user}", ""));
    let lifted = Service::start(section("{org}-{user}", lift));
    let (name, plain) = token("a", "b-c");
    let (_, ambiguous) = token("a-b", "c");
    assert_eq!(
        outcome(&service, &[(name, &plain)]).await,
        Ok("a-b-c".to_owned())
    );
    assert_eq!(
        outcome(&service, &[(name, &ambiguous)]).await,
        Err("session_invalid".to_owned())
    );
    assert_eq!(
        outcome(&lifted, &[(name, &ambiguous)]).await,
        Ok("a-b-c".to_owned())
    );

    let problems = load(&section("{org}{user}", ""))
        .map(|_| ())
        .expect_err("adjacent")
        .to_string();
    assert!(
        problems.starts_with("extractors.web.subject: has two placeholders without text"),
        "{problems}"
    );
    assert!(load(&section("{org}{user}", lift)).is_ok());
}

#[tokio::test]
async fn session_whose_token_would_exceed_4_kib_is_session_invalid() {
    let service = Service::start(format!(
        "[session]\nextractors = [\"web\"]\n{}[token.claims]\nall = \"{{}}\"\n",
        jwt("web", "https://a", "header:authorization")
    ));
    for (length, passes) in [(100, true), (5000, false)] {
        let claims =
            json!({ "iss": "https://a", "sub": "ann", "exp": NOW + 600, "x": "x".repeat(length) });
        let (name, token) = bearer(&sign_session(&claims));
        assert_eq!(
            outcome(&service, &[(name, &token)]).await.is_ok(),
            passes,
            "{length}"
        );
    }
}

/// A service in which all agents of an organisation have the same subject.
fn brokerage() -> Service {
    chain(
        &["web"],
        &[
            &jwt("web", "https://a", "cookie:session"),
            "subject = \"org:{org}\"\n",
        ],
    )
}

fn agent(n: usize) -> String {
    let claims =
        json!({ "iss": "https://a", "exp": NOW + 600, "org": 7, "sub": format!("agent-{n}") });
    format!("_ga={n}; session={}", sign_session(&claims))
}

async fn given(service: &Service, cookies: impl Iterator<Item = String>) -> usize {
    let mut given = 0;
    for cookie in cookies {
        given += usize::from(outcome(service, &[("cookie", &cookie)]).await.is_ok());
    }
    given
}

#[tokio::test]
async fn one_credential_is_rate_limited_while_other_credentials_of_its_subject_are_served() {
    let service = brokerage();
    let session = agent(0).split_once(' ').expect("two cookies").1.to_owned();
    // Another cookie, which changes with each call, does not change the credential.
    let looping = given(&service, (0..300).map(|n| format!("{session}; _ga={n}"))).await;
    let agents = given(&service, (1..=120).map(agent)).await;
    assert_eq!((looping, agents), (20, 120));
    service.clock.advance(Duration::from_secs(3));
    assert_eq!(given(&service, (0..10).map(|_| session.clone())).await, 3);
}

#[tokio::test]
async fn requests_with_changing_credentials_reach_the_limit_of_their_subject() {
    let service = brokerage();
    let (mut agents, mut looping) = (0, 0);
    for n in 1..=120 {
        looping += given(&service, (0..2).map(|call| agent(1000 + 2 * n + call))).await;
        agents += given(&service, std::iter::once(agent(n))).await;
    }
    assert_eq!((agents, looping), (120, 240));
    let more = given(&service, (2000..2500).map(agent)).await;
    assert_eq!(
        more, 40,
        "the burst of all credentials of a subject together is 400"
    );
    let other = sign_session(&json!({ "iss": "https://a", "exp": NOW + 600, "org": 8 }));
    assert_eq!(
        given(&service, std::iter::once(format!("session={other}"))).await,
        1
    );
}

#[tokio::test]
async fn fragment_in_the_request_target_is_400() {
    let service = Service::start(format!("[session]\nextractors = [\"proxy\"]\n{PROXY}"));
    let request = |target: &str| {
        format!("POST {target} HTTP/1.1\r\nHost: a\r\nX-User: ann\r\nContent-Length: 2\r\n\r\n{{}}")
    };
    for target in [
        "/rollout/token#x",
        "/rollout/token#",
        "/rollout/token?a#b",
        "/#/rollout/token",
        "#",
    ] {
        let answer = service.raw(request(target).as_bytes()).await;
        assert!(
            answer.starts_with("HTTP/1.1 400 ") && answer.contains("\"bad_request\""),
            "{target}: {answer}"
        );
    }
    // A fragment in a pipelined request after a valid request is refused too.
    let two = request("/rollout/token") + &request("/rollout/token#x");
    let answer = service.raw(two.as_bytes()).await;
    assert!(
        answer.contains("HTTP/1.1 400 ") && answer.matches("\"token\"").count() <= 1,
        "{answer}"
    );
    let referer = "POST /rollout/token HTTP/1.1\r\nHost: a\r\nX-User: ann\r\nReferer: https://a/#b\r\nConnection: close\r\n\r\n";
    assert!(
        service
            .raw(referer.as_bytes())
            .await
            .starts_with("HTTP/1.1 200 ")
    );
}

#[tokio::test]
async fn chunked_body_within_the_limit_is_accepted_and_other_transfer_encodings_are_400() {
    let service = Service::start(format!("[session]\nextractors = [\"proxy\"]\n{PROXY}"));
    let many = format!("1001\r\n{}\r\n0\r\n\r\n", "x".repeat(0x1001));
    for (headers, body, want) in [
        ("Transfer-Encoding: chunked", "0\r\n\r\n", 200),
        ("Transfer-Encoding: chunked", "2\r\n{}\r\n0\r\n\r\n", 200),
        ("Transfer-Encoding: chunked", &many, 413),
        ("Transfer-Encoding: chunked", "z\r\n\r\n", 400),
        ("Transfer-Encoding: gzip, chunked", "0\r\n\r\n", 400),
        ("Transfer-Encoding: Chunked", "0\r\n\r\n", 400),
        ("Transfer-Encoding:\tchunked", "0\r\n\r\n", 400),
        (
            "TE: trailers, chunked\r\nTransfer-Encoding: chunked",
            "0\r\n\r\n",
            400,
        ),
        (
            "TE: trailers\r\nTransfer-Encoding: chunked",
            "0\r\n\r\n",
            200,
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "0\r\n\r\n",
            400,
        ),
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "0\r\n\r\n",
            400,
        ),
    ] {
        let asked = format!(
            "POST /rollout/token HTTP/1.1\r\nHost: a\r\nX-User: ann\r\nConnection: close\r\n{headers}\r\n\r\n{body}"
        );
        let answer = service.raw(asked.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {want} ")),
            "{headers}: {answer}"
        );
    }
}

#[tokio::test]
async fn navigation_or_embedded_resource_is_403_not_a_fetch_on_both_token_paths() {
    let config =
        format!("[server]\ndocs_alias = true\n[session]\nextractors = [\"proxy\"]\n{PROXY}");
    let service = Service::start(&config);
    for (method, path) in [("POST", "/rollout/token"), ("GET", "/rollout-token")] {
        for (mode, destination, want) in [
            ("cors", "empty", 200),
            ("navigate", "document", 403),
            ("navigate", "iframe", 403),
            ("no-cors", "image", 403),
            ("no-cors", "embed", 403),
        ] {
            let request = service
                .request(method.parse().unwrap(), path)
                .header("x-user", "ann");
            let request = request
                .header("sec-fetch-site", "same-origin")
                .header("sec-fetch-mode", mode);
            let response = request
                .header("sec-fetch-dest", destination)
                .send()
                .await
                .unwrap();
            assert_eq!(
                response.status(),
                want,
                "{method} {path} {mode} {destination}"
            );
            if want == 403 {
                assert_eq!(crate::helpers::refused(response).await.1, "not_a_fetch");
            }
        }
    }
}

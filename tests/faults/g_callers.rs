//! Groups G, K and L: who may say who somebody is, and which pages may ask.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::json;

use crate::Group;
use crate::a_framing::BY_JWT;
use crate::c_tokens::refuses;
use crate::report::{API_KEY, PROXY_SECRET, QUERY_VALUE};
use crate::service::{Service, Setup};
use crate::tokens::hs256;
use crate::upstream::{Upstream, ok};
use crate::wire::{LISTED, bearer, post, post_raw, request};

const INVALID: &[&str] = &["401 session_invalid"];
const FORBIDDEN: &[&str] = &["403 origin_not_allowed"];

struct Stage {
    /// Believes `X-Forwarded-User` from this machine.
    proxied: Arc<Service>,
    /// Believes it from elsewhere.
    elsewhere: Arc<Service>,
    /// Believes it beside a secret.
    secret: Arc<Service>,
    keys: Arc<Service>,
    /// Takes session tokens as bearer and as cookie, and asks nobody.
    web: Arc<Service>,
}

fn by_header(gate: &str) -> String {
    format!(
        "rate_limit.per_minute = 0\nlog.level = \"trace\"\n[session]\nextractors = [\"proxy\"]\n[extractors.proxy]\nkind = \"trusted_header\"\n\
         header = \"X-Forwarded-User\"\n{gate}\n"
    )
}

fn by_key(more: &str) -> String {
    let hex: String =
        digest(&SHA256, API_KEY.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "rate_limit.per_minute = 0\nlog.level = \"trace\"\n[session]\nextractors = [\"backend\"]\n[extractors.backend]\nkind = \"api_key\"\n\
         keys = {{ ours = \"{hex}\" }}\n{more}\n"
    )
}

pub async fn group() -> Group {
    let gate = format!("shared_secret_header = \"X-Proxy-Secret\"\nshared_secret = \"{PROXY_SECRET}\"");
    let stage = Arc::new(Stage {
        proxied: Service::start(&by_header("trusted_proxies = [\"127.0.0.0/8\"]")).await,
        elsewhere: Service::start(&by_header("trusted_proxies = [\"10.0.0.0/8\"]")).await,
        secret: Service::start(&by_header(&gate)).await,
        keys: Service::start(&by_key("allowed_subjects = [\"team-*\", \"ann\"]")).await,
        web: Service::start(BY_JWT).await,
    });
    let mut group = Group::new("G", Some(stage.proxied.clone()));
    group.quick("G1 an underscore for a hyphen", g1(stage.clone()));
    group.quick("G2 the header twice, and its twins", g2(stage.clone()));
    group.quick("G3 odd values", g3(stage.clone()));
    group.quick("G4 a stranger", g4(stage.clone()));
    group.quick("G5 a stranger who claims another address", g5(stage.clone()));
    group.quick("G6 a chain of proxies", g6(stage.clone()));
    group.quick("G7 other forwarding headers", g7(stage.clone()));
    group.quick("G8 headers that would rewrite the path", g8(stage.clone()));
    group.quick("G9 names of health checks", g9(stage.clone()));
    group.quick("G10 hop by hop", g10(stage.clone()));
    group.quick("G11 no gate at all", g11());
    group.quick("G12 the secret, nearly", g12(stage.clone()));
    group.quick("K1 the key, nearly", k1(stage.clone()));
    group.quick("K3 the key in the query", k3(stage.clone()));
    group.quick("K4 keys that protect nothing", k4());
    group.quick("K5 a key without a subject", k5(stage.clone()));
    group.quick("K6 dev mode where it must not be", k6());
    group.quick("K7 dev mode says so", k7());
    group.quick("K9 dev mode and other pages", k9());
    group.quick("L1 a listed page", l1(stage.clone()));
    group.quick("L2 another page", l2());
    group.quick("L3 a page without an origin", l3(stage.clone()));
    group.quick("L4 every page at once", l4());
    group.quick("L5 origins that look like it", l5(stage.clone()));
    group.quick("L6 other spellings of it", l6(stage.clone()));
    group.quick("L8 another scheme, port, sibling", l8(stage.clone()));
    group.quick("L9 two origins", l9(stage.clone()));
    group.quick("L10 preflights", l10(stage.clone()));
    group.quick("L12 a listed page of another site", l12(stage.clone()));
    group.quick("L13 a sibling that is not listed", l13(stage.clone()));
    group.quick("L16 a bearer without a page", l16(stage.clone()));
    group.quick("L17 nothing is kept", l17(stage.clone()));
    group.quick("L19 paths that deceive caches", l19(stage.clone()));
    group.quick("L21 errors that pages can read", l21(stage.clone()));
    group.quick("L23 always JSON", l23(stage.clone()));
    group
}

impl Stage {
    async fn hold(&self) {
        for service in [&self.elsewhere, &self.secret, &self.keys, &self.web] {
            service.holds().await;
        }
    }
}

async fn g1(s: Arc<Stage>) {
    assert_eq!(s.proxied.expect("good", &post("X-Forwarded-User: bob\r\n"), &["200"]).await.subject(), "bob");
    for headers in [
        "X_Forwarded_User: admin\r\nX-Forwarded-User: bob\r\n",
        "X-Forwarded-User: bob\r\nX_Forwarded_User: admin\r\n",
        "X_Forwarded_User: admin\r\n",
        "X-Forwarded_User: admin\r\nX-Forwarded-User: bob\r\n",
    ] {
        s.proxied.expect(headers, &post(headers), INVALID).await;
    }
}

async fn g2(s: Arc<Stage>) {
    for headers in [
        "X-Forwarded-User: bob\r\nX-Forwarded-User: bob\r\n",
        "X-Forwarded-User: bob\r\nX-Forwarded-User: admin\r\n",
        "X-FORWARDED-USER: bob\r\nx-forwarded-user: admin\r\n",
        "x.forwarded.user: admin\r\nX-Forwarded-User: bob\r\n",
        "x.forwarded.user: admin\r\n",
        "X-Forwarded-User: bob\r\nX-Forwarded-User:\r\n",
        "X-Forwarded-User:\r\nX-Forwarded-User: bob\r\n",
    ] {
        s.proxied.expect(headers, &post(headers), INVALID).await;
    }
    for headers in [
        "X-Forwarded-User : admin\r\n",
        "X-Forwarded-User\t: admin\r\n",
        " X-Forwarded-User: admin\r\n",
        "X: y\r\n\tX-Forwarded-User: admin\r\n",
        "X-Forwarded-User\0: admin\r\n",
    ] {
        s.proxied.expect(headers, &post(headers), &["400 bad_request"]).await;
    }
    s.proxied
        .expect(
            "a longer name",
            &post("X-Forwarded-Users: admin\r\nXX-Forwarded-User: admin\r\n"),
            &["401 no_session"],
        )
        .await;
}

async fn g3(s: Arc<Stage>) {
    for value in ["bob, admin", "bob,", ",bob", "", ",", "bob;admin,x"] {
        s.proxied.expect(value, &post(&format!("X-Forwarded-User: {value}\r\n")), INVALID).await;
    }
    for value in [" bob", "bob ", "\tbob\t"] {
        assert_eq!(
            s.proxied
                .expect(value, &post(&format!("X-Forwarded-User:{value}\r\n")), &["200"])
                .await
                .subject(),
            "bob"
        );
    }
    for value in [
        &b"\xff\xfe"[..],
        b"bo\x80b",
        "bob\u{200b}".as_bytes(),
        "\u{a0}".as_bytes(),
        "bob\u{202e}".as_bytes(),
        &[b'x'; 257],
    ] {
        s.proxied.expect("odd bytes", &post_raw("X-Forwarded-User", value), INVALID).await;
    }
    assert_eq!(
        s.proxied
            .expect("UTF-8", &post_raw("X-Forwarded-User", "bj\u{f6}rn".as_bytes()), &["200"])
            .await
            .subject(),
        "bj\u{f6}rn"
    );
}

async fn g4(s: Arc<Stage>) {
    s.elsewhere.expect("a stranger", &post("X-Forwarded-User: bob\r\n"), INVALID).await;
    s.elsewhere.expect("nobody", &post(""), &["401 no_session"]).await;
    s.elsewhere.logs("untrusted_peer", 1).await;
    s.hold().await;
}

async fn g5(s: Arc<Stage>) {
    for claim in [
        "X-Forwarded-For: 10.0.0.1",
        "Forwarded: for=10.0.0.1",
        "X-Real-IP: 10.0.0.1",
        "X-Client-IP: 10.0.0.1",
        "True-Client-IP: 10.0.0.1",
        "CF-Connecting-IP: 10.0.0.1",
        "Client-IP: 10.0.0.1",
        "X-Cluster-Client-IP: 10.0.0.1",
        "Forwarded: for=\"[::ffff:10.0.0.1]\"",
        "Via: 1.1 10.0.0.1",
        "X-Envoy-External-Address: 10.0.0.1",
        "Host: 10.0.0.1",
    ] {
        let asked = format!(
            "POST /rollout/token HTTP/1.1\r\n{}Connection: close\r\nX-Forwarded-User: bob\r\n{claim}\r\n\r\n",
            if claim.starts_with("Host") { "" } else { "Host: a\r\n" }
        );
        s.elsewhere.expect(claim, asked.as_bytes(), INVALID).await;
    }
    s.hold().await;
}

async fn g6(s: Arc<Stage>) {
    for chain in [
        "1.2.3.4, 10.0.0.1",
        "10.0.0.1, 1.2.3.4",
        "10.0.0.1,10.0.0.2,10.0.0.3",
        "unknown, 10.0.0.1",
        "10.0.0.1:80",
    ] {
        s.elsewhere
            .expect(chain, &post(&format!("X-Forwarded-For: {chain}\r\nX-Forwarded-User: bob\r\n")), INVALID)
            .await;
        let answer = s
            .proxied
            .expect(chain, &post(&format!("X-Forwarded-For: {chain}\r\nX-Forwarded-User: bob\r\n")), &["200"])
            .await;
        assert_eq!(answer.subject(), "bob");
    }
    s.hold().await;
}

async fn g7(s: Arc<Stage>) {
    let odd = "X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\nX-Forwarded-Port: 443\r\nX-Forwarded-Prefix: /admin\r\nX-Forwarded-Server: evil\r\nForwarded: host=evil.example;proto=https\r\n";
    let answer =
        s.web.expect("as without", &post(&format!("{}{odd}", bearer(&hs256(&json!({}))))), &["200"]).await;
    assert!(!format!("{answer:?}").contains("evil"));
    // They make no page our own.
    s.web
        .expect(
            "another page",
            &post(&format!("{}{odd}Origin: https://evil.example\r\n", bearer(&hs256(&json!({}))))),
            FORBIDDEN,
        )
        .await;
    s.hold().await;
}

async fn g8(s: Arc<Stage>) {
    for header in [
        "X-Forwarded-Uri: /healthz",
        "X-Original-URL: /healthz",
        "X-Rewrite-URL: /rollout/token",
        "X-Original-Uri: /healthz",
        "X-Forwarded-Path: /healthz",
        "X-Accel-Redirect: /healthz",
        "X-HTTP-DestinationURL: /healthz",
    ] {
        s.web.expect(header, &post(&format!("{header}\r\n")), &["401 no_session"]).await;
        s.web
            .expect(
                header,
                &request("POST /nothing HTTP/1.1", &format!("{header}\r\n{}", bearer(&hs256(&json!({}))))),
                &["404 not_found"],
            )
            .await;
    }
    s.hold().await;
}

async fn g9(s: Arc<Stage>) {
    for agent in
        ["kube-probe/1.30", "GoogleHC/1.0", "ELB-HealthChecker/2.0", "Prometheus/2.0", "curl/8.0", ""]
    {
        s.web.expect(agent, &post(&format!("User-Agent: {agent}\r\n")), &["401 no_session"]).await;
        s.elsewhere
            .expect(agent, &post(&format!("User-Agent: {agent}\r\nX-Forwarded-User: admin\r\n")), INVALID)
            .await;
    }
    s.hold().await;
}

async fn g10(s: Arc<Stage>) {
    for connection in [
        "X-Forwarded-User",
        "x-forwarded-user",
        "keep-alive, X-Forwarded-User",
        "X-Forwarded-User, X-Forwarded-For",
        "\tX-Forwarded-User ",
    ] {
        let asked = format!(
            "POST /rollout/token HTTP/1.1\r\nHost: a\r\nConnection: close, {connection}\r\nX-Forwarded-User: bob\r\n\r\n"
        );
        s.proxied.expect(connection, asked.as_bytes(), INVALID).await;
        let asked = format!(
            "POST /rollout/token HTTP/1.1\r\nHost: a\r\nConnection: close\r\nConnection: {connection}\r\nX-Forwarded-User: bob\r\n\r\n"
        );
        s.proxied.expect(connection, asked.as_bytes(), INVALID).await;
    }
    let asked = format!(
        "POST /rollout/token HTTP/1.1\r\nHost: a\r\nConnection: close, X-Proxy-Secret\r\nX-Forwarded-User: bob\r\nX-Proxy-Secret: {PROXY_SECRET}\r\n\r\n"
    );
    s.secret.expect("the secret", asked.as_bytes(), INVALID).await;
    s.hold().await;
}

async fn g11() {
    refuses(&by_header(""), "extractors.proxy.trusted_proxies").await;
    for all in ["0.0.0.0/0", "::/0"] {
        refuses(&by_header(&format!("trusted_proxies = [\"{all}\"]")), "extractors.proxy.trusted_proxies")
            .await;
    }
    refuses(
        &by_header("shared_secret_header = \"X-S\"\nshared_secret = \"changeme\""),
        "extractors.proxy.shared_secret",
    )
    .await;
}

async fn g12(s: Arc<Stage>) {
    let with = |secret: &str| post(&format!("X-Forwarded-User: bob\r\nX-Proxy-Secret: {secret}\r\n"));
    s.secret.expect("right", &with(PROXY_SECRET), &["200"]).await;
    for wrong in [
        "",
        "x",
        &PROXY_SECRET[..PROXY_SECRET.len() - 1],
        &format!("{PROXY_SECRET}x"),
        &PROXY_SECRET.to_uppercase(),
        &format!("{PROXY_SECRET},{PROXY_SECRET}"),
        &format!("x{PROXY_SECRET}"),
    ] {
        s.secret.expect("wrong", &with(wrong), INVALID).await;
    }
    s.secret.expect("none", &post("X-Forwarded-User: bob\r\n"), INVALID).await;
    s.secret
        .expect(
            "twice",
            &post(&format!("X-Forwarded-User: bob\r\n{0}{0}", format!("X-Proxy-Secret: {PROXY_SECRET}\r\n"))),
            INVALID,
        )
        .await;
    s.secret
        .expect(
            "in the query",
            &request(
                &format!("POST /rollout/token?X-Proxy-Secret={QUERY_VALUE} HTTP/1.1"),
                "X-Forwarded-User: bob\r\n",
            ),
            INVALID,
        )
        .await;
    s.hold().await;
}

async fn k1(s: Arc<Stage>) {
    let with = |key: &str| post(&format!("X-Api-Key: {key}\r\nX-Rollout-Subject: ann\r\n"));
    assert_eq!(s.keys.expect("right", &with(API_KEY), &["200"]).await.subject(), "ann");
    for wrong in [
        "x",
        &API_KEY[..API_KEY.len() - 1],
        &format!("{API_KEY}x"),
        &API_KEY.to_uppercase(),
        &format!("\"{API_KEY}\""),
        &format!("{API_KEY},{API_KEY}"),
        "*",
        "null",
    ] {
        s.keys.expect("wrong", &with(wrong), INVALID).await;
    }
    s.keys.expect("empty", &with(""), &["401 no_session", "401 session_invalid"]).await;
    for odd in [format!("{API_KEY}\u{a0}"), format!("\u{a0}{API_KEY}"), format!("{API_KEY}\u{200b}")] {
        let asked = [b"POST /rollout/token HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Rollout-Subject: ann\r\nX-Api-Key: ".as_slice(), odd.as_bytes(), b"\r\n\r\n"].concat();
        s.keys.expect("NBSP", &asked, INVALID).await;
    }
    s.keys
        .expect(
            "twice",
            &post(&format!("{0}{0}X-Rollout-Subject: ann\r\n", format!("X-Api-Key: {API_KEY}\r\n"))),
            INVALID,
        )
        .await;
    s.keys
        .expect(
            "the hash",
            &with(
                &digest(&SHA256, API_KEY.as_bytes())
                    .as_ref()
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect::<String>(),
            ),
            INVALID,
        )
        .await;
    s.hold().await;
}

async fn k3(s: Arc<Stage>) {
    for query in ["api_key", "x-api-key", "key", "apikey", "access_token"] {
        let asked = request(
            &format!("POST /rollout/token?{query}={QUERY_VALUE} HTTP/1.1"),
            "X-Rollout-Subject: ann\r\n",
        );
        s.keys.expect(query, &asked, &["401 no_session"]).await;
    }
    s.hold().await;
}

async fn k4() {
    let hash = |key: &str| -> String {
        digest(&SHA256, key.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let good = by_key("");
    let (before, rest) = good.split_once("ours = \"").expect("a key");
    let after = &rest[64..];
    for bad in [
        String::new(),
        "changeme".to_owned(),
        API_KEY.to_owned(),
        hash("changeme"),
        hash("secret"),
        hash(""),
        hash("test"),
        "g".repeat(64),
        hash("x")[..63].to_owned(),
    ] {
        let (code, text) = Setup::new(&format!("{before}ours = \"{bad}{after}")).refusal().await;
        assert!(code == 2 && text.contains("extractors.backend.keys.ours"), "{bad}: {text}");
    }
}

async fn k5(s: Arc<Stage>) {
    let with = |headers: &str| post(&format!("X-Api-Key: {API_KEY}\r\n{headers}"));
    s.keys.expect("no subject", &with(""), &["401 no_session"]).await;
    let body = "{\"subject\":\"ann\",\"sub\":\"ann\"}";
    let asked =
        [with(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())), body.into()]
            .concat();
    s.keys.expect("in the body", &asked, &["401 no_session"]).await;
    for headers in [
        "X-Rollout-Subject: bob\r\n",
        "X-Rollout-Subject: team\r\n",
        "X-Rollout-Subject: xteam-1\r\n",
        "X-Rollout-Subject: ann\r\nX-Rollout-Subject: ann\r\n",
        "X-Rollout-Subject: ann\r\nX_Rollout_Subject: bob\r\n",
        "X-Rollout-Subject: ANN\r\n",
        "X-Rollout-Subject:\r\n",
        "X-Rollout-Subject: ann\r\nConnection: X-Rollout-Subject\r\n",
    ] {
        s.keys.expect(headers, &with(headers), INVALID).await;
    }
    assert_eq!(
        s.keys.expect("a team", &with("X-Rollout-Subject: team-7\r\n"), &["200"]).await.subject(),
        "team-7"
    );
    s.hold().await;
}

fn dev() -> Setup {
    Setup::new("")
        .arguments(&["dev"])
        .env("ROLLOUT__LOG__FORMAT", "json")
        .env("ROLLOUT__SERVER__LISTEN", "127.0.0.1:0")
}

async fn k6() {
    for (name, value) in [
        ("ROLLOUT__SERVER__LISTEN", "0.0.0.0:0"),
        ("ROLLOUT__SERVER__LISTEN", "[::]:0"),
        ("ROLLOUT__SERVER__ADMIN_LISTEN", "0.0.0.0:0"),
    ] {
        let (code, text) = dev().env(name, value).refusal().await;
        assert!(code == 2 && text.contains("loopback"), "{name}={value}: {text}");
    }
    for name in ["ENV", "APP_ENV", "NODE_ENV", "RAILS_ENV"] {
        for value in ["production", "PRODUCTION"] {
            let (code, text) = dev().env(name, value).refusal().await;
            assert!(code == 2 && text.contains(name), "{name}={value}: {text}");
        }
    }
    let toml = "[session]\nextractors = [\"static_user\"]\n";
    refuses(toml, "static_user").await;
}

async fn k7() {
    let s = Service::start_with(&dev()).await;
    for asked in [
        post(""),
        request("GET /healthz HTTP/1.1", ""),
        request("GET /nothing HTTP/1.1", ""),
        post("Origin: https://evil\r\n"),
        request("GET / HTTP/1.1", ""),
    ] {
        let asked = String::from_utf8(asked).expect("text").replace("Host: app.example", "Host: localhost");
        let answer = s.one(asked.as_bytes()).await;
        assert_eq!(answer.header("x-rollout-dev"), Some("1"), "{answer:?}");
    }
    assert_eq!(s.ready().await.json()["dev"], true);
    s.logs("\"dev\":true", 1).await;
    s.logs("Development mode", 1).await;
    s.does_not_count();
    s.holds().await;
    s.stop().await;
}

async fn k9() {
    let s = Service::start_with(&dev().env("ROLLOUT__ORIGINS__ALLOWED", None)).await;
    let at_home = |headers: &str| {
        String::from_utf8(post(headers))
            .expect("text")
            .replace("Host: app.example", "Host: localhost")
            .into_bytes()
    };
    for headers in [
        "Origin: https://evil\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
        "Origin: http://localhost.evil\r\n",
        "Origin: http://127.0.0.1:9\r\n",
    ] {
        s.expect(headers, &at_home(headers), FORBIDDEN).await;
    }
    s.expect("here", &at_home("Sec-Fetch-Site: same-origin\r\n"), &["200"]).await;
    // A name that was made to lead here is not ours.
    for host in ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "10.0.0.1"] {
        s.expect(
            host,
            &String::from_utf8(at_home("")).expect("text").replace("localhost", host).into_bytes(),
            &["403 host_not_allowed"],
        )
        .await;
    }
    s.holds().await;
    s.stop().await;
}

fn page(origin: &str) -> Vec<u8> {
    post(&format!("{}Origin: {origin}\r\n", bearer(&hs256(&json!({})))))
}

async fn l1(s: Arc<Stage>) {
    let answer = s.web.expect("listed", &page(LISTED), &["200"]).await;
    assert_eq!(answer.header("access-control-allow-origin"), Some(LISTED));
    assert_eq!(answer.header("access-control-expose-headers"), Some("X-Request-Id, Retry-After"));
    s.hold().await;
}

async fn l2() {
    let app = Upstream::start(ok("{\"sub\":\"ann\"}")).await;
    let toml = format!(
        "[session]\nextractors = [\"app\"]\n[extractors.app]\nkind = \"session_endpoint\"\nurl = \"http://127.0.0.1:{}/me\"\ncookies = [\"sid\"]\n",
        app.port
    );
    let s = Service::start(&toml).await;
    for headers in ["Origin: https://evil\r\n", "Sec-Fetch-Site: cross-site\r\n", "Origin: null\r\n"] {
        s.expect(headers, &post(&format!("Cookie: sid=a\r\n{headers}")), FORBIDDEN).await;
    }
    assert_eq!(app.connections(), 0);
    s.expect("listed", &post(&format!("Cookie: sid=a\r\nOrigin: {LISTED}\r\n")), &["200"]).await;
    s.holds().await;
    s.stop().await;
}

async fn l3(s: Arc<Stage>) {
    for headers in [
        "null",
        "null\r\nSec-Fetch-Site: same-origin",
        "null\r\nSec-Fetch-Site: none",
        "",
        "NULL",
        "undefined",
        "file://",
        "data:",
        "blob:https://app.example/x",
        "about:blank",
        "chrome-extension://abc",
    ] {
        s.web.expect(headers, &page(headers), FORBIDDEN).await;
    }
    for listed in ["null", "NULL", "https://app.example,null"] {
        let (code, text) = Setup::new(BY_JWT).env("ROLLOUT__ORIGINS__ALLOWED", Some(listed)).refusal().await;
        assert!(code == 2 && text.contains("origins.allowed"), "{text}");
    }
    s.hold().await;
}

async fn l4() {
    for listed in [
        "*",
        "https://*",
        "https://*.example",
        "https://app.example,*",
        "https://u:p@app.example",
        "https://app.example/path",
        "app.example",
        "ftp://app.example",
    ] {
        let (code, text) = Setup::new(BY_JWT).env("ROLLOUT__ORIGINS__ALLOWED", Some(listed)).refusal().await;
        assert!(
            code == 2 && text.contains("origins.allowed") && !text.contains("panicked"),
            "{listed}: {text}"
        );
    }
}

async fn l5(s: Arc<Stage>) {
    for origin in [
        "https://app.example.evil",
        "https://evilapp.example",
        "https://app.example.com.evil",
        "https://evil/https://app.example",
        "https://app.examplé",
        "https://app.example%00.evil",
        "https://app.example@evil",
        "https://xn--pp-lia.example",
        "https://app-example",
        "https://appXexample",
        "https://app.example evil",
    ] {
        s.web.expect(origin, &page(origin), FORBIDDEN).await;
    }
    s.hold().await;
}

async fn l6(s: Arc<Stage>) {
    for origin in [
        "HTTPS://App.Example",
        "https://APP.example",
        "https://app.example.",
        "https://app.example:443",
        "https://app.example/",
        "https://app.example/x",
        "https://u@app.example",
        "https://app.example?",
        "https://app.example#",
        "https:app.example",
        "https:/app.example",
        "//app.example",
        "app.example",
    ] {
        s.web.expect(origin, &page(origin), FORBIDDEN).await;
    }
    for listed in ["HTTPS://App.Example:443/", "https://app.example/"] {
        let own =
            Service::start_with(&Setup::new(BY_JWT).env("ROLLOUT__ORIGINS__ALLOWED", Some(listed))).await;
        own.expect(listed, &page(LISTED), &["200"]).await;
        own.stop().await;
    }
    s.hold().await;
}

async fn l8(s: Arc<Stage>) {
    // Behind a proxy that ends TLS the service cannot tell its own scheme: a page of its own host is its own, by
    // Sec-Fetch-Site first. Under another Host the listed scheme is the only one.
    for origin in [
        "http://app.example",
        "https://app.example:8443",
        "https://other.example",
        "https://sub.app.example",
        "https://example",
        "http://app.example:443",
        "wss://app.example",
    ] {
        let asked = String::from_utf8(page(origin))
            .expect("text")
            .replace("Host: app.example", "Host: token.example");
        s.web.expect(origin, asked.as_bytes(), FORBIDDEN).await;
    }
    s.hold().await;
}

async fn l9(s: Arc<Stage>) {
    for headers in [
        format!("{LISTED}\r\nOrigin: {LISTED}"),
        format!("{LISTED}\r\nOrigin: https://evil"),
        format!("{LISTED}, {LISTED}"),
        format!("{LISTED} {LISTED}"),
        format!("{LISTED}, https://evil"),
        format!("https://evil\r\nOrigin: {LISTED}"),
    ] {
        s.web.expect(&headers, &page(&headers), FORBIDDEN).await;
    }
    s.hold().await;
}

async fn l10(s: Arc<Stage>) {
    let preflight = |origin: &str, more: &str| {
        request(
            "OPTIONS /rollout/token HTTP/1.1",
            &format!("Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\n{more}"),
        )
    };
    let answer = s
        .web
        .expect("good", &preflight(LISTED, "Access-Control-Request-Headers: authorization\r\n"), &["204"])
        .await;
    assert_eq!(answer.header("access-control-allow-methods"), Some("POST, OPTIONS"));
    assert!(
        answer
            .header("access-control-max-age")
            .is_some_and(|age| age.parse::<u32>().is_ok_and(|age| age <= 7200))
    );
    assert!(answer.header("access-control-allow-headers").is_some_and(|names| !names.contains('*')));
    for origin in ["https://evil", "null", "https://app.example.evil"] {
        let answer = s.web.one(&preflight(origin, "")).await;
        assert!(
            matches!(answer.status, 204 | 403) && answer.header("access-control-allow-origin").is_none(),
            "{answer:?}"
        );
    }
    for more in
        ["Access-Control-Request-Headers: x-evil\r\n", "Access-Control-Request-Private-Network: true\r\n"]
    {
        let answer = s.web.one(&preflight(LISTED, more)).await;
        assert!(
            !format!("{answer:?}").contains("evil")
                && answer.header("access-control-allow-private-network").is_none()
        );
    }
    let other = request(
        "OPTIONS /rollout/token HTTP/1.1",
        &format!("Origin: {LISTED}\r\nAccess-Control-Request-Method: DELETE\r\n"),
    );
    assert!(
        !s.web
            .one(&other)
            .await
            .header("access-control-allow-methods")
            .unwrap_or_default()
            .contains("DELETE")
    );
    s.hold().await;
}

async fn l12(s: Arc<Stage>) {
    for site in ["cross-site", "same-site", "same-origin", "none", "nonsense"] {
        s.web.expect(site, &page(&format!("{LISTED}\r\nSec-Fetch-Site: {site}")), &["200"]).await;
    }
    s.hold().await;
}

async fn l13(s: Arc<Stage>) {
    for site in ["same-site", "cross-site", "", "SAME-ORIGIN", "same-origin, same-origin", "nonsense"] {
        s.web
            .expect(site, &page(&format!("https://sibling.example\r\nSec-Fetch-Site: {site}")), FORBIDDEN)
            .await;
        s.web
            .expect(
                site,
                &post(&format!("{}Sec-Fetch-Site: {site}\r\n", bearer(&hs256(&json!({}))))),
                FORBIDDEN,
            )
            .await;
    }
    s.hold().await;
}

async fn l16(s: Arc<Stage>) {
    s.web.expect("bearer", &post(&bearer(&hs256(&json!({})))), &["200"]).await;
    s.web.expect("cookie", &post(&format!("Cookie: session={}\r\n", hs256(&json!({})))), &["200"]).await;
    s.web
        .expect(
            "a referer is no origin",
            &post(&format!("{}Referer: https://evil/\r\n", bearer(&hs256(&json!({}))))),
            &["200"],
        )
        .await;
    s.hold().await;
}

async fn l17(s: Arc<Stage>) {
    // The reader checks these headers on every answer of every case; here it has each kind at once.
    for asked in [
        page(LISTED),
        post(""),
        request("GET /x HTTP/1.1", ""),
        request("GET /readyz HTTP/1.1", ""),
        request("GET /openapi.json HTTP/1.1", ""),
        request("HEAD /healthz HTTP/1.1", ""),
        request("OPTIONS /rollout/token HTTP/1.1", ""),
        page("https://evil"),
    ] {
        let answer = s.web.one(&asked).await;
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
        for name in ["etag", "last-modified", "age", "expires"] {
            assert_eq!(answer.header(name), None);
        }
    }
    for conditional in [
        "If-None-Match: *\r\n",
        "If-Modified-Since: Wed, 21 Oct 2026 07:28:00 GMT\r\n",
        "If-Match: \"x\"\r\n",
        "If-Range: \"x\"\r\nRange: bytes=0-3\r\n",
        "Cache-Control: only-if-cached\r\n",
    ] {
        s.web
            .expect(conditional, &post(&format!("{}{conditional}", bearer(&hs256(&json!({}))))), &["200"])
            .await;
    }
    s.hold().await;
}

async fn l19(s: Arc<Stage>) {
    for path in [
        "/rollout/token/x.css",
        "/rollout/token;x.js",
        "/rollout/token.css",
        "/rollout/token%2fx.css",
        "/rollout/token%3bx.js",
        "/rollout/token/.css",
        "/rollout/token%0a.css",
        "/rollout/token%23x.css",
        "/static/../rollout/token",
    ] {
        for method in ["GET", "POST"] {
            let answer = s
                .web
                .expect(
                    path,
                    &request(&format!("{method} {path} HTTP/1.1"), &bearer(&hs256(&json!({})))),
                    &["404 not_found"],
                )
                .await;
            assert_eq!(answer.header("cache-control"), Some("no-store"));
        }
    }
    s.hold().await;
}

async fn l21(s: Arc<Stage>) {
    let origin = format!("Origin: {LISTED}\r\n");
    for (asked, outcome) in [
        (post(&origin), "401 no_session"),
        (post(&format!("{origin}{}", bearer("x.y.z"))), "401 session_invalid"),
        (
            [post(&format!("{origin}Content-Length: 5000\r\n")), vec![b'x'; 5000]].concat(),
            "413 body_too_large",
        ),
        (request("GET /nothing HTTP/1.1", &origin), "404 not_found"),
        (request("GET /rollout/token HTTP/1.1", &origin), "405 method_not_allowed"),
    ] {
        let answer = s.web.expect(outcome, &asked, &[outcome]).await;
        assert_eq!(answer.header("access-control-allow-origin"), Some(LISTED), "{outcome}");
    }
    let own = Service::start(&BY_JWT.replace("per_minute = 0", "burst = 1")).await;
    own.expect("first", &page(LISTED), &["200"]).await;
    own.expect("429", &page(LISTED), &["429 rate_limited"]).await;
    own.holds().await;
    own.stop().await;
    let down = Service::start("[session]\nextractors = [\"app\"]\n[extractors.app]\nkind = \"session_endpoint\"\nurl = \"http://127.0.0.1:1/me\"\ncookies = [\"sid\"]\n").await;
    down.expect("503", &post(&format!("{origin}Cookie: sid=a\r\n")), &["503 session_backend_unavailable"])
        .await;
    down.holds().await;
    down.stop().await;
    s.hold().await;
}

async fn l23(s: Arc<Stage>) {
    let good = bearer(&hs256(&json!({})));
    for more in [
        "",
        "Accept: text/html\r\n",
        "Accept: */*\r\n",
        "Accept: image/png\r\n",
        "Accept: application/jwt\r\n",
        "Accept:\r\n",
    ] {
        let answer = s.web.expect(more, &post(&format!("{good}{more}")), &["200"]).await;
        assert_eq!(answer.header("content-type"), Some("application/json"));
        s.web.expect(more, &post(more), &["401 no_session"]).await;
    }
    for query in ["callback=alert", "jsonp=x", "cb=<script>", "format=html", "_=1"] {
        let answer = s
            .web
            .expect(
                query,
                &request(&format!("POST /rollout/token?{} HTTP/1.1", query.replace(['<', '>'], "")), &good),
                &["200"],
            )
            .await;
        assert!(answer.body.starts_with(b"{\"token\":"));
    }
    s.hold().await;
}

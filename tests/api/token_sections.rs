//! Tests of `jwt` sections that deployments use: two keys of one project, several providers, and tenants that share a
//! key set. Also tests that the client secret is refused as a session secret.

use std::sync::Arc;

use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::helpers::{CLIENT_SECRET, NOW, SESSION_SECRET, Service, load};
use crate::idp::Idp;

const ISSUER: &str = "https://ref.supabase.co/auth/v1";

/// The status of a response, and the subject or the error code.
async fn outcome(service: &Service, token: &str) -> (u16, String) {
    let bearer = format!("Bearer {token}");
    let outcome = service.outcome(&[("authorization", &bearer)]).await;
    outcome.map_or_else(|refused| refused, |subject| (200, subject))
}

fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "sub": "ann", "aud": "authenticated", "role": "authenticated", "iat": NOW, "exp": NOW + 600
    });
    for (name, value) in changes.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims
}

fn hs256(claims: &Value, secret: &[u8]) -> String {
    jsonwebtoken::encode(
        &Header::default(),
        claims,
        &EncodingKey::from_secret(secret),
    )
    .expect("a token")
}

/// The configuration for a Supabase project that migrates from its legacy JWT secret to signing keys.
fn migrating(idp: &Idp) -> String {
    let section =
        |keys: &str| format!("kind = 'jwt'\npreset = 'supabase'\nissuers = ['{ISSUER}']\n{keys}\n");
    format!(
        "session.extractors = ['new', 'legacy']\n[extractors.new]\n{}[extractors.legacy]\n{}",
        section(&format!("jwks_url = '{}'", idp.jwks_url())),
        section(&format!(
            "secret = '{SESSION_SECRET}'\nalgorithms = ['HS256']"
        ))
    )
}

#[tokio::test]
async fn hs256_and_es256_tokens_of_one_project_are_both_accepted_in_the_same_header() {
    let idp = Idp::start().await;
    let service = Service::start(migrating(&idp));
    let ok = (200, "ann".to_owned());
    assert_eq!(outcome(&service, &idp.token(&claims(json!({})))).await, ok);
    let legacy = hs256(&claims(json!({})), SESSION_SECRET.as_bytes());
    assert_eq!(outcome(&service, &legacy).await, ok);

    // The public key is not accepted as a shared secret in any encoding.
    let jwks = reqwest::get(idp.jwks_url())
        .await
        .expect("keys")
        .text()
        .await
        .expect("text");
    let keys: Value = serde_json::from_str(&jwks).expect("JSON");
    let part = |name: &str| keys["keys"][0][name].as_str().expect("text").to_owned();
    let point = [part("x"), part("y")]
        .map(|part| URL_SAFE_NO_PAD.decode(part).expect("base64url"))
        .concat();
    let point = [&[4], &point[..]].concat();
    for secret in [jwks.as_bytes(), &point, part("x").as_bytes()] {
        let forged = hs256(&claims(json!({})), secret);
        assert_eq!(
            outcome(&service, &forged).await,
            (401, "session_invalid".to_owned())
        );
    }
}

#[tokio::test]
async fn client_secret_as_a_session_secret_is_refused_even_if_base64_encoded_or_in_a_list() {
    let encoded = base64::engine::general_purpose::STANDARD.encode(CLIENT_SECRET);
    let rest = "algorithms = ['HS256']\nallow_any_audience = true";
    for (keys, key) in [
        (format!("secret = '{CLIENT_SECRET}'"), Some("secret")),
        (
            format!("secrets = ['{SESSION_SECRET}', '{CLIENT_SECRET}']"),
            Some("secrets"),
        ),
        (
            format!("secret = '{encoded}'\nsecret_encoding = 'base64'"),
            Some("secret"),
        ),
        (
            format!("secrets = ['{encoded}']\nsecret_encoding = 'base64'"),
            Some("secrets"),
        ),
        // Here the key is the base64 string itself, which differs from the client secret.
        (format!("secret = '{encoded}'"), None),
    ] {
        let toml =
            format!("session.extractors = ['web']\n[extractors.web]\nkind = 'jwt'\n{keys}\n{rest}");
        let problems = Service::try_start(toml)
            .map(drop)
            .map_err(|problems| problems.to_string());
        match key {
            None => assert!(problems.is_ok(), "{keys}: {problems:?}"),
            Some(key) => {
                let text = problems.expect_err("the client secret");
                assert!(
                    text.contains(&format!(
                        "extractors.web.{key}: is the same secret as client_secret"
                    )),
                    "{text}"
                );
                assert!(!text.contains(CLIENT_SECRET), "{text}");
            }
        }
    }
}

#[tokio::test]
async fn outage_of_one_provider_does_not_affect_the_users_of_another() {
    let (idp, other) = (Idp::start().await, Idp::start().await);
    idp.down.store(true, std::sync::atomic::Ordering::SeqCst);
    let third = format!(
        "{}\n[extractors.other]\nkind = 'jwt'\nissuers = ['https://other']\nallow_any_audience = true\n\
         subject = 'other:{{sub}}'\njwks_url = '{}'",
        migrating(&idp).replace("'legacy']", "'legacy', 'other']"),
        other.jwks_url()
    );
    let service = Service::start(third);
    for _ in 0..3 {
        let token = idp.token(&claims(json!({})));
        assert_eq!(
            outcome(&service, &token).await,
            (503, "session_backend_unavailable".to_owned())
        );
        let legacy = hs256(&claims(json!({})), SESSION_SECRET.as_bytes());
        assert_eq!(outcome(&service, &legacy).await, (200, "ann".to_owned()));
        let token = other.token(&claims(json!({ "iss": "https://other" })));
        assert_eq!(
            outcome(&service, &token).await,
            (200, "other:ann".to_owned())
        );
    }
}

/// An identity provider with many tenants and one key set for all of them, as in Microsoft Entra.
struct Entra {
    base: String,
    keys: Arc<Vec<(String, EncodingKey)>>,
}

const OURS: &str = "8b5abb95-0643-4c5e-837e-8bea3904411f";
const THEIRS: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
const CONSUMERS: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";

impl Entra {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let (mut keys, mut jwks) = (Vec::new(), Vec::new());
        for (kid, tenant) in [("every", "{tenantid}"), ("consumers", CONSUMERS)] {
            let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
            let key = EncodingKey::from_ec_der(&pair.serialize_der());
            let jwk =
                jsonwebtoken::jwk::Jwk::from_encoding_key(&key, Algorithm::ES256).expect("a JWK");
            let mut jwk = serde_json::to_value(jwk).expect("JSON");
            jwk["kid"] = kid.into();
            jwk["issuer"] = format!("{base}/{tenant}/v2.0").into();
            jwks.push(jwk);
            keys.push((kid.to_owned(), key));
        }
        let document = json!({ "issuer": format!("{base}/{{tenantid}}/v2.0"), "jwks_uri": format!("{base}/keys") });
        let set = json!({ "keys": jwks });
        let router = axum::Router::new()
            .route(
                "/common/v2.0/.well-known/openid-configuration",
                get(move || async move { axum::Json(document) }),
            )
            .route("/keys", get(move || async move { axum::Json(set) }));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            base,
            keys: Arc::new(keys),
        }
    }

    /// A token that is signed with the key `kid` and whose `iss` names the tenant `issuer`.
    fn token(&self, kid: &str, issuer: &str, changes: Value) -> String {
        let mut all = json!({
            "iss": format!("{}/{issuer}/v2.0", self.base), "tid": issuer, "oid": "oid-1", "sub": "s-1", "aud": "api",
            "scp": "access", "upn": "ann@ours.example", "ver": "2.0", "iat": NOW, "nbf": NOW, "exp": NOW + 600
        });
        for (name, value) in changes.as_object().expect("an object") {
            all[name] = value.clone();
        }
        let (_, key) = self
            .keys
            .iter()
            .find(|(name, _)| name == kid)
            .expect("a key");
        let header = Header {
            kid: Some(kid.to_owned()),
            ..Header::new(Algorithm::ES256)
        };
        jsonwebtoken::encode(&header, &all, key).expect("a token")
    }

    fn section(&self, keys: &str) -> String {
        format!(
            "session.extractors = ['entra']\n[extractors.entra]\nkind = 'jwt'\npreset = 'entra'\nalgorithms = ['ES256']\n\
             audiences = ['api']\n{}",
            keys.replace("BASE", &self.base)
        )
    }
}

#[tokio::test]
async fn token_of_an_allowed_tenant_is_accepted_if_tid_and_key_match_its_issuer() {
    let entra = Entra::start().await;
    let groups: Vec<String> = (0..200)
        .map(|number| format!("{number:08}-0643-4c5e-837e-8bea3904411f"))
        .collect();
    let (ok, invalid) = (
        (200, "oid-1".to_owned()),
        (401, "session_invalid".to_owned()),
    );
    let template = "issuers = ['BASE/{tenantid}/v2.0']";
    let discovered = "oidc_issuer = 'BASE/common/v2.0'";
    let pasted = "oidc_issuer = 'BASE/common/v2.0/.well-known/openid-configuration'";
    for issuers in [template, discovered, pasted] {
        for (tenants, is_open) in [
            ("", true),
            (
                "\ntenants = ['8B5ABB95-0643-4c5e-837e-8bea3904411f']",
                false,
            ),
        ] {
            let service = Service::start(entra.section(&format!("{issuers}{tenants}")));
            for (case, token, want) in [
                ("a tenant", entra.token("every", OURS, json!({})), &ok),
                (
                    "200 groups",
                    entra.token("every", OURS, json!({ "groups": groups })),
                    &ok,
                ),
                (
                    "another tenant",
                    entra.token("every", THEIRS, json!({})),
                    if is_open { &ok } else { &invalid },
                ),
                (
                    "tid of another",
                    entra.token("every", OURS, json!({ "tid": THEIRS })),
                    &invalid,
                ),
                (
                    "iss of another",
                    entra.token("every", THEIRS, json!({ "tid": OURS })),
                    &invalid,
                ),
                (
                    "no tid",
                    entra.token("every", OURS, json!({ "tid": null })),
                    &invalid,
                ),
                (
                    "tid in a list",
                    entra.token("every", OURS, json!({ "tid": [OURS] })),
                    &invalid,
                ),
                (
                    "no tenant",
                    entra.token("every", "common", json!({})),
                    &invalid,
                ),
                (
                    "the pattern",
                    entra.token("every", "{tenantid}", json!({})),
                    &invalid,
                ),
                (
                    "key of one issuer",
                    entra.token("consumers", OURS, json!({})),
                    &invalid,
                ),
                (
                    "key of its issuer",
                    entra.token("consumers", CONSUMERS, json!({})),
                    if is_open { &ok } else { &invalid },
                ),
            ] {
                assert_eq!(
                    outcome(&service, &token).await,
                    *want,
                    "{case}: {issuers} {tenants}"
                );
            }
        }
    }
}

#[tokio::test]
async fn tenant_controlled_subject_without_tenants_and_invalid_tenants_or_issuers_are_refused() {
    let entra = Entra::start().await;
    let upn = "subject = '{upn}'";
    for (keys, want) in [
        (
            format!("issuers = ['BASE/{{tenantid}}/v2.0']\n{upn}"),
            Some("extractors.entra.subject:"),
        ),
        (
            format!("oidc_issuer = 'BASE/common/v2.0'\n{upn}"),
            Some("extractors.entra.subject:"),
        ),
        (
            format!("issuers = ['BASE/{{tenantid}}/v2.0']\n{upn}\ntenants = ['{OURS}']"),
            None,
        ),
        (
            "issuers = ['BASE/{tenantid}/v2.0']\nsubject = '{tid}:{oid}'".to_owned(),
            None,
        ),
        (
            "issuers = ['BASE/{tenantid}/v2.0']\ntenants = ['contoso.example']".to_owned(),
            Some("extractors.entra.tenants:"),
        ),
        (
            "issuers = ['BASE/{tenantid}/{tenantid}']".to_owned(),
            Some("extractors.entra.issuers:"),
        ),
    ] {
        let started = Service::try_start(entra.section(&keys));
        match (started, want) {
            (Ok(_), None) => {}
            (Err(problems), Some(want)) => {
                let text = problems.to_string();
                assert!(text.contains(want), "{keys}: {text}");
            }
            (Ok(_), Some(want)) => panic!("{keys} should be refused with {want}"),
            (Err(problems), None) => panic!("{keys}: {problems}"),
        }
    }
}

#[test]
fn section_shadowed_by_an_earlier_multi_tenant_section_is_a_warning() {
    let section = |name: &str, keys: &str| {
        format!(
            "[extractors.{name}]\nkind = 'jwt'\njwks_url = 'https://login.example/keys'\nallow_any_audience = true\n{keys}\n"
        )
    };
    let every = "issuers = ['https://login.example/{tenantid}/v2.0']";
    let ours = format!("issuers = ['https://login.example/{OURS}/v2.0']");
    let only = |tenant: &str| format!("{every}\ntenants = ['{tenant}']");
    for (first, second, is_shadowed) in [
        (every.to_owned(), ours.clone(), true),
        (only(OURS), ours.clone(), true),
        (only(THEIRS), ours, false),
        (only(THEIRS), only(OURS), false),
    ] {
        let toml = format!(
            "session.extractors = ['first', 'second']\n{}{}",
            section("first", &first),
            section("second", &second)
        );
        let settings = load(&toml).expect("a good configuration");
        let warned = settings
            .warnings
            .lines()
            .any(|line| line.contains("extractors.first comes first"));
        assert_eq!(warned, is_shadowed, "{first}, {second}");
    }
}

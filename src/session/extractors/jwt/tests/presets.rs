//! Tests of the presets: the keys that they require, and the tokens that they accept and refuse.

use super::section::{assert_refused, warnings_of};
use super::*;

#[test]
fn incomplete_preset_is_refused_and_the_problem_names_the_missing_key() {
    for (toml, key) in [
        (
            "preset = \"cognito\"\nissuers = [\"https://id\"]",
            "claims.client_id",
        ),
        (
            "preset = \"aws-alb\"\njwks_url = \"https://k/{kid}\"\nissuers = [\"i\"]",
            "header_claims.signer",
        ),
        (
            "preset = \"cognito\"\nissuers = [\"https://id\"]\nclaims.client_id = { any = true }",
            "claims.client_id",
        ),
        (
            "preset = \"cognito\"\nissuers = [\"https://id\"]\nclaims.client_id = { absent_or = \"c\" }",
            "claims.client_id",
        ),
        (
            "preset = \"workos\"\nissuers = [\"https://api.workos.com\"]",
            "issuers",
        ),
        (
            "preset = \"workos\"\nissuers = [\"https://auth.your-app.com/\"]",
            "issuers",
        ),
        ("preset = \"clerk\"", "issuers"),
        ("preset = \"clerk\"\nissuers = [\"not a URL\"]", "issuers"),
        (
            "preset = \"auth0\"\nissuers = [\"https://id/\"]",
            "audiences",
        ),
    ] {
        assert_refused(toml, key);
    }
}

#[test]
fn preset_with_its_required_keys_is_accepted() {
    for (preset, keys) in [
        (
            "auth0",
            "issuers = [\"https://t.auth0.com/\"]\naudiences = [\"api\"]",
        ),
        (
            "aws-alb",
            "issuers = [\"i\"]\njwks_url = \"https://k/{kid}\"\nheader_claims.signer = \"arn\"",
        ),
        ("clerk", "issuers = [\"https://clerk.example.com\"]"),
        (
            "clerk",
            "issuers = [\"https://clerk.example.com\"]\naudiences = [\"app\"]",
        ),
        (
            "cloudflare-access",
            "issuers = [\"https://t.cloudflareaccess.com\"]\naudiences = [\"a\"]",
        ),
        (
            "cognito",
            "issuers = [\"https://cognito/pool\"]\nclaims.client_id = \"c\"",
        ),
        (
            "entra",
            "issuers = [\"https://login.microsoftonline.com/t/v2.0\"]\naudiences = [\"a\"]",
        ),
        (
            "firebase",
            "issuers = [\"https://securetoken.google.com/p\"]\naudiences = [\"p\"]",
        ),
        (
            "google-iap",
            "audiences = [\"/projects/1/global/backendServices/2\"]",
        ),
        (
            "keycloak",
            "issuers = [\"https://kc/realms/main\"]\naudiences = [\"account\"]",
        ),
        (
            "okta",
            "issuers = [\"https://o/oauth2/default\"]\naudiences = [\"api://default\"]",
        ),
        (
            "supabase",
            "issuers = [\"https://ref.supabase.co/auth/v1\"]",
        ),
        (
            "supabase",
            "secret = \"the secret of the sessions!!!\"\nalgorithms = [\"HS256\"]",
        ),
        (
            "workos",
            "issuers = [\"https://api.workos.com/user_management/client_1\"]",
        ),
        (
            "workos",
            "issuers = [\"https://auth.your-app.com\"]\njwks_url = \"https://api.workos.com/sso/jwks/client_1\"",
        ),
    ] {
        let built = build(&format!("preset = \"{preset}\"\n{keys}"));
        assert!(built.is_ok(), "{preset}: {built:?}");
    }
    let names: std::collections::BTreeSet<_> = super::super::presets::PRESETS
        .iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names.len(), 12);
}

/// Checks the outcomes of tokens in a section with this preset. A case consists of the changes to [`claims`] and the
/// expected outcome.
async fn under_preset(preset: &str, keys: &str, cases: &[(Value, &str)]) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    std::fs::write(file.path(), pair.public_key_pem()).expect("written");
    let path = file.path().display().to_string();
    let toml = format!(
        "preset = \"{preset}\"\nissuers = [\"i\"]\nalgorithms = [\"ES256\"]\npublic_key_file = {path:?}\n{keys}"
    );
    let extractor = build(&toml).expect("a good section");
    let key = EncodingKey::from_ec_der(&pair.serialize_der());
    for (changes, want) in cases {
        let mut all = json!({ "iss": "i" });
        all.as_object_mut()
            .expect("claims")
            .extend(changes.as_object().expect("claims").clone());
        let token = sign(
            r#"{"alg":"ES256"}"#,
            claims(&all).as_bytes(),
            &key,
            Algorithm::ES256,
        );
        assert_eq!(
            word(&extract(&*extractor, &token).await),
            *want,
            "{preset} {changes}"
        );
    }
}

#[tokio::test]
async fn auth0_service_token_is_refused_and_refreshed_user_token_is_accepted() {
    let cases = [
        (json!({ "gty": "password" }), "ok"),
        (json!({ "gty": "refresh_token" }), "ok"),
        (json!({ "gty": ["refresh_token", "password"] }), "ok"),
        (json!({ "gty": "client-credentials" }), "claim"),
        (json!({ "gty": ["client-credentials"] }), "claim"),
        (json!({ "gty": null }), "claim"),
        // The RFC 9068 profile has no `gty`.
        (json!({ "sub": "auth0|1", "client_id": "c" }), "ok"),
        (json!({ "sub": "c@clients", "client_id": "c" }), "claim"),
    ];
    under_preset("auth0", "audiences = [\"app\"]", &cases).await;
}

#[tokio::test]
async fn claim_rule_of_the_section_replaces_the_rule_of_the_preset() {
    let service = json!({ "sub": "c@clients", "gty": "client-credentials" });
    let presets = [(service.clone(), "claim")];
    under_preset("auth0", "audiences = [\"app\"]", &presets).await;
    let dropped = "audiences = [\"app\"]\n[claims]\nsub = { any = true }\ngty = { any = true }";
    under_preset("auth0", dropped, &[(service.clone(), "ok")]).await;
    let one = "audiences = [\"app\"]\n[claims]\nsub = { any = true }";
    under_preset("auth0", one, &[(service, "claim")]).await;
    let table_over_text = "claims.client_id = \"c\"\nclaims.token_use = { any = true }";
    let id_token = json!({ "token_use": "id", "username": "u", "client_id": "c" });
    under_preset("cognito", table_over_text, &[(id_token, "ok")]).await;
    let text_over_table = "audiences = [\"app\"]\nclaims.scp = \"access\"";
    under_preset(
        "entra",
        text_over_table,
        &[
            (json!({ "scp": "access" }), "ok"),
            (json!({ "scp": "x" }), "claim"),
        ],
    )
    .await;
}

#[test]
fn clerk_section_without_a_rule_for_azp_logs_a_warning() {
    let warnings = |keys: &str| {
        let clerk = "preset = \"clerk\"\nissuers = [\"https://clerk.example.com\"]";
        let warnings = warnings_of(&format!("{clerk}\n{keys}"));
        warnings
            .iter()
            .filter(|line| line.contains("claims.azp"))
            .count()
    };
    assert_eq!(warnings(""), 1);
    assert_eq!(warnings("claims.azp = { any = true }"), 1);
    assert_eq!(warnings("claims.azp = [\"https://app.example.com\"]"), 0);
}

#[tokio::test]
async fn required_scope_is_found_in_scope_or_scp() {
    let keys = "audiences = [\"app\"]\nrequired_scopes = [\"access\"]";
    let cases = [
        (json!({ "scp": "openid access" }), "ok"),
        (json!({ "scp": ["access"] }), "ok"),
        (json!({ "scp": "openid", "scope": "access" }), "ok"),
        (json!({ "scp": "openid" }), "scope"),
        (json!({ "scp": "access2" }), "scope"),
    ];
    under_preset("entra", keys, &cases).await;
}

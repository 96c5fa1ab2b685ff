//! Tests of the keys of a section of the kind `jwt`: refused values, warnings, and values from environment variables.

use super::*;

#[test]
fn claim_rule_that_contradicts_the_section_is_refused() {
    let public = "jwks_url = \"https://id/keys\"\nissuers = [\"https://id\"]\naudiences = [\"app\"]\nalgorithms = [\"RS256\"]";
    for (rule, key) in [
        ("claims.iss = \"https://other\"", Some("claims")),
        ("claims.iss = { absent = true }", Some("claims")),
        ("claims.exp = { absent = true }", Some("claims")),
        ("claims.exp = \"never\"", Some("claims")),
        ("claims.aud = { absent = true }", Some("claims")),
        ("claims.cnf = { present = true }", Some("claims")),
        ("header_claims.alg = \"HS256\"", Some("header_claims")),
        ("header_claims.typ = \"id+jwt\"", Some("header_claims")),
        (
            "header_claims.crit = { present = true }",
            Some("header_claims"),
        ),
        ("header_claims.b64 = false", Some("header_claims")),
        (
            "claims.tid = \"x\"\ntenants = [\"8b5abb95-0643-4c5e-837e-8bea3904411f\"]",
            Some("claims"),
        ),
        ("claims.iss = [\"https://other\", \"https://id\"]", None),
        ("claims.aud = \"another\"", None),
        ("claims.cnf = { absent = true }", None),
        (
            "claims.cnf = { present = true }\nallow_sender_constrained = true",
            None,
        ),
        ("header_claims.alg = [\"RS256\", \"HS256\"]", None),
        ("header_claims.typ = \"application/at+jwt\"", None),
        ("header_claims.crit = { absent = true }", None),
    ] {
        let toml = format!("{public}\n{rule}");
        match key {
            Some(key) => assert_refused(&toml, key),
            None => assert!(build(&toml).is_ok(), "{rule}: {:?}", build(&toml)),
        }
    }
}

pub(super) fn assert_refused(toml: &str, key: &str) {
    let text = build(toml).expect_err(toml).to_string();
    assert!(
        text.contains(&format!("extractors.jwt.{key}: ")),
        "{toml}:\n{text}"
    );
    assert!(!text.contains("changeme-changeme"), "{text}");
}

#[test]
fn unsafe_section_is_refused_and_the_problem_names_the_key() {
    let public =
        "jwks_url = \"https://id/keys\"\nissuers = [\"https://id\"]\naudiences = [\"app\"]\n";
    for (toml, key) in [
        ("", "jwks_url"),
        (
            "secret = \"the secret of the sessions!!!\"\naudiences = [\"app\"]",
            "algorithms",
        ),
        (
            "secret = \"\"\nalgorithms = [\"HS256\"]\naudiences = [\"app\"]",
            "secret",
        ),
        (
            "secret = \"changeme-changeme-changeme\"\nalgorithms = [\"HS256\"]\naudiences = [\"app\"]",
            "secret",
        ),
        (
            "jwks_url = \"https://id/keys\"\naudiences = [\"app\"]",
            "issuers",
        ),
        (
            "jwks_url = \"https://id/keys\"\nissuers = [\"\"]\naudiences = [\"app\"]",
            "issuers",
        ),
        (
            "jwks_url = \"https://id/keys\"\nissuers = [\"i\"]",
            "audiences",
        ),
        (
            "jwks_url = \"http://id/keys\"\nissuers = [\"i\"]\naudiences = [\"app\"]",
            "jwks_url",
        ),
        (
            "jwks_url = \"https://{kid}/keys\"\nissuers = [\"i\"]\naudiences = [\"app\"]",
            "jwks_url",
        ),
        (
            "oidc_issuer = \"http://id\"\naudiences = [\"app\"]",
            "oidc_issuer",
        ),
        (
            "jwks_file = \"/nowhere\"\nissuers = [\"i\"]\naudiences = [\"app\"]",
            "jwks_file",
        ),
        (&format!("{public}allow_any_audience = true"), "audiences"),
        (
            &format!("{public}secret = \"the secret of the sessions!!!\""),
            "jwks_url",
        ),
        (&format!("{public}oidc_issuer = \"https://id\""), "jwks_url"),
        (
            &format!("{public}algorithms = [\"RS256\", \"HS256\"]"),
            "algorithms",
        ),
        (&format!("{public}algorithms = [\"none\"]"), "algorithms"),
        (&format!("{public}algorithms = [\"rs256\"]"), "algorithms"),
        (&format!("{public}from = []"), "from"),
        (&format!("{public}from = [\"query:token\"]"), "from"),
        (&format!("{public}leeway = \"6m\""), "leeway"),
        (&format!("{public}leeway = \"1500ms\""), "leeway"),
        (&format!("{public}max_token_bytes = 0"), "max_token_bytes"),
        (&format!("{public}typo = 1"), "typo"),
        (
            "secret = \"the secret of the sessions!!!\"\nsecrets = [\"another session secret\"]\nalgorithms = [\"HS256\"]",
            "jwks_url",
        ),
        (
            "secret = \"the secret of the sessions!!!\"\nsecret_encoding = \"base64\"\nalgorithms = [\"HS256\"]",
            "secret",
        ),
        (
            "secret = \"the secret of the sessions!!!\"\nsecret_encoding = \"hex\"\nalgorithms = [\"HS256\"]",
            "secret_encoding",
        ),
        (
            &format!("secrets = {:?}\nalgorithms = [\"HS256\"]", vec![SECRET; 11]),
            "secrets",
        ),
        (
            &format!("{public}required_scopes = [\"a b\"]"),
            "required_scopes",
        ),
        (&format!("{public}claims.role = []"), "claims.role"),
        (
            &format!("{public}claims.role = {{ present = false }}"),
            "claims.role.present",
        ),
        (&format!("{public}claims.role.inner = \"a\""), "claims.role"),
        (
            &format!("{public}header_claims.kid = {{ like = \"*\" }}"),
            "header_claims.kid.like",
        ),
    ] {
        assert_refused(toml, key);
    }
}

/// The warnings of a configuration with this section, `[extractors.web]`.
pub(super) fn warnings_of(keys: &str) -> Vec<String> {
    let toml =
        format!("[session]\nextractors = [\"web\"]\n[extractors.web]\nkind = \"jwt\"\n{keys}");
    let client = [
        ("ROLLOUT_CLIENT_ID", "client"),
        (
            "ROLLOUT_CLIENT_SECRET",
            "S3cret of the client: 0f1e2d3c4b5a69788796a5b4c3d2e1f00112233445566778899",
        ),
    ];
    let environment = client
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let sources = Sources {
        base: Some(toml),
        environment,
        ..Sources::default()
    };
    let settings =
        settings::load(&sources, &Registry::builtin(), &context()).expect("a good configuration");
    settings.warnings.lines().collect()
}

#[test]
fn secret_with_a_trailing_newline_causes_a_warning_unless_it_is_decoded_from_base64() {
    let key: Vec<u8> = (0..40).map(|byte| 0xf8 ^ byte).chain([b'\n']).collect();
    let encoded = base64::engine::general_purpose::STANDARD.encode(&key);
    let rest = "algorithms = [\"HS256\"]\naudiences = [\"app\"]";
    let encoding = "secret_encoding = \"base64\"";
    assert_eq!(
        warnings_of(&format!("secret = {encoded:?}\n{encoding}\n{rest}")),
        [""; 0]
    );
    let damaged = warnings_of(&format!(
        "secret = \"a session secret of at least 32 bytes\\n\"\n{rest}"
    ));
    assert!(
        damaged.iter().any(|line| line.contains("line feed")),
        "{damaged:?}"
    );
    let quoted = format!("secret = \"'{encoded}'\"\n{encoding}\n{rest}");
    assert_refused(&quoted, "secret");
}

#[tokio::test]
async fn section_can_be_configured_by_environment_variables_alone() {
    let environment = [
        ("ROLLOUT_CLIENT_ID", "client"),
        (
            "ROLLOUT_CLIENT_SECRET",
            "a client secret of at least 32 bytes",
        ),
        ("ROLLOUT__SESSION__EXTRACTORS", "jwt"),
        ("ROLLOUT__EXTRACTORS__JWT__SECRET", SECRET),
        ("ROLLOUT__EXTRACTORS__JWT__ALGORITHMS", "HS256,HS512"),
        ("ROLLOUT__EXTRACTORS__JWT__ALLOW_ANY_AUDIENCE", "true"),
        ("ROLLOUT__EXTRACTORS__JWT__CLAIMS__EMAIL_VERIFIED", "true"),
        (
            "ROLLOUT__EXTRACTORS__JWT__CLAIMS__PLAN__ABSENT_OR",
            "team, pro",
        ),
        ("ROLLOUT__EXTRACTORS__JWT__CLAIMS__SUB__LIKE", "u-*"),
        ("ROLLOUT__EXTRACTORS__JWT__CLAIMS__ACT__ABSENT", "true"),
    ];
    let environment = environment
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let sources = Sources {
        environment,
        ..Sources::default()
    };
    let settings =
        settings::load(&sources, &Registry::builtin(), &context()).expect("a good configuration");
    let extractor = &settings.chain.extractors()[0].extractor;
    for (changes, want) in [
        (json!({ "email_verified": true }), "ok"),
        (json!({ "email_verified": true, "plan": "pro" }), "ok"),
        (json!({ "email_verified": true, "plan": "free" }), "claim"),
        (json!({ "email_verified": false }), "claim"),
        (json!({ "email_verified": true, "sub": "s-1" }), "claim"),
        (
            json!({ "email_verified": true, "act": { "sub": "u-2" } }),
            "claim",
        ),
        (json!({}), "claim"),
    ] {
        let outcome = extract(&**extractor, &hs256(PLAIN, claims(&changes))).await;
        assert_eq!(word(&outcome), want, "{changes}");
    }
    // `check-config --print` prints these settings, which must not contain the secret.
    assert!(!settings.effective().to_string().contains(SECRET));
}

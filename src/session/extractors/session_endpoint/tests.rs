use super::*;
use crate::config::Problems;
use crate::session::contract;
use crate::session::sections::testing::build;

fn extractor(keys: &str) -> Result<Arc<dyn SessionExtractor>, Problems> {
    build("session_endpoint", keys)
}

#[tokio::test]
async fn extractor_passes_the_contract_checks() {
    let keys = r#"
        url = "http://127.0.0.1:9/me"
        cookies = ["sid"]
        forward_headers = ["Authorization"]
        additional_headers = { X-Api-Key = "a-secret-of-ours" }
    "#;
    contract::check(&*extractor(keys).unwrap(), &["a-secret-of-ours"]).await;
}

#[tokio::test]
async fn ambiguous_credential_is_refused_without_a_call() {
    let keys =
        "url = \"http://127.0.0.1:9/\"\ncookies = [\"sid\"]\nforward_headers = [\"X-Token\"]";
    for (headers, word) in [
        (&[("cookie", "sid=a; sid=b")][..], "ambiguous_identity"),
        (&[("x-token", "a"), ("x-token", "b")], "duplicate_header"),
        (
            &[("cookie", "sid=a"), ("x-token", "a"), ("x-token", "a")],
            "duplicate_header",
        ),
        (&[("cookie", "sid=\u{e9}")], "malformed"),
    ] {
        let outcome = extractor(keys)
            .unwrap()
            .extract(&contract::request(headers))
            .await;
        assert!(
            matches!(&outcome, Err(ExtractError::Rejected(reason)) if reason.reason == word),
            "{outcome:?}"
        );
    }
}

#[test]
fn invalid_section_is_refused_and_the_problem_names_the_key() {
    const GOOD: &str = "url = \"https://app.example/me\"\ncookies = [\"sid\"]\n";
    for (case, keys, key) in [
        ("no URL", "cookies = [\"sid\"]".to_owned(), "url"),
        ("http", GOOD.replace("https", "http"), "url"),
        ("password", GOOD.replace("app.", "ann:hunter2@app."), "url"),
        (
            "nothing forwarded",
            "url = \"https://app.example/me\"".to_owned(),
            "cookies",
        ),
        ("invalid cookie name", GOOD.replace("sid", "s=d"), "cookies"),
        (
            "every cookie",
            format!("{GOOD}forward_headers = [\"Cookie\"]"),
            "forward_headers",
        ),
        (
            "host",
            format!("{GOOD}forward_headers = [\"Host\"]"),
            "forward_headers",
        ),
        (
            "length",
            format!("{GOOD}forward_headers = [\"content-length\"]"),
            "forward_headers",
        ),
        ("method", format!("{GOOD}method = \"get\""), "method"),
        (
            "long cache",
            format!("{GOOD}cache_ttl = \"11s\""),
            "cache_ttl",
        ),
        (
            "timeout of zero",
            format!("{GOOD}timeout = \"0s\""),
            "timeout",
        ),
        (
            "long connect_timeout",
            format!("{GOOD}connect_timeout = \"1m\""),
            "connect_timeout",
        ),
        (
            "invalid template",
            format!("{GOOD}expires_path = \"{{a\""),
            "expires_path",
        ),
        (
            "additional cookie",
            format!("{GOOD}additional_headers = {{ cookie = \"a=b\" }}"),
            "additional_headers.cookie",
        ),
        (
            "line break",
            format!("{GOOD}additional_headers = {{ x = \"hunter2\\r\\nx\" }}"),
            "additional_headers.x",
        ),
        (
            "empty",
            format!("{GOOD}additional_headers = {{ x = \"\" }}"),
            "additional_headers.x",
        ),
        (
            "no file",
            format!("{GOOD}additional_headers_file = {{ x = \"/nowhere\" }}"),
            "additional_headers_file.x",
        ),
        (
            "additional and forwarded",
            format!("{GOOD}forward_headers = [\"X\"]\nadditional_headers = {{ x = \"hunter2\" }}"),
            "additional_headers.x",
        ),
    ] {
        let problems = extractor(&keys).map(|_| ()).expect_err(case).to_string();
        assert!(
            problems.contains(&format!("extractors.session_endpoint.{key}:")),
            "{case}: {problems}"
        );
        assert!(!problems.contains("hunter2"), "{case}: {problems}");
    }
}

//! Tests of `explain`: it gives the same answer as the service, names the reason for a refusal, and accepts requests in
//! several formats.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use crate::binary::{Process, binary, good_session, run};

const MORE: [(&str, &str); 3] = [
    (
        "ROLLOUT__ORIGINS__ALLOWED",
        "https://app.example,https://*-team.vercel.app",
    ),
    ("ROLLOUT__SERVER__BASE_PATH", "/api"),
    ("ROLLOUT__RATE_LIMIT__PER_MINUTE", "0"),
];

/// The output of `explain --raw` for this request.
fn explain(raw: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), raw).unwrap();
    let mut command = binary(&["explain", "--raw", file.path().to_str().unwrap()]);
    let (code, out, err) = run(command.envs(MORE));
    assert_eq!(code, Some(0), "{raw}: {err}");
    out
}

/// The status and code of the service's response, in the format in which `explain` prints them.
fn served(process: &Process, raw: &str) -> String {
    let mut stream = TcpStream::connect(process.address).unwrap();
    stream.write_all(raw.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap_or("none");
    match answer.split_once("\"code\":\"") {
        Some((_, rest)) => format!("{status} {}", rest.split('"').next().unwrap()),
        None if answer.contains("\"token\"") => "200, a token".to_owned(),
        None => status.to_owned(),
    }
}

#[test]
fn explain_and_the_service_give_the_same_answer_to_a_raw_request() {
    let process = Process::start(binary(&["serve"]).envs(MORE));
    let good = format!("Host: a\r\nAuthorization: Bearer {}\r\n", good_session());
    let cookie = format!("Host: a\r\nCookie: session={}\r\n", good_session());
    let many: String = (0..120).map(|n| format!("X-{n}: y\r\n")).collect();
    let post = "POST /api/rollout/token HTTP/1.1";
    for (line, headers, want) in [
        (post, good.clone(), "200, a token"),
        (post, "Host: a\r\n".to_owned(), "401 no_session"),
        (
            "POST /rollout/token HTTP/1.1",
            good.clone(),
            "404 not_found",
        ),
        ("POST /token HTTP/1.1", good.clone(), "404 not_found"),
        (
            "GET /api/rollout/token HTTP/1.1",
            good.clone(),
            "405 method_not_allowed",
        ),
        (
            "GET /api/rollout-token HTTP/1.1",
            good.clone(),
            "404 not_found",
        ),
        ("GET /healthz HTTP/1.1", good.clone(), "200"),
        (post, good.replace("Host: a\r\n", ""), "400 bad_request"),
        (post, format!("{good}Host: b\r\n"), "400 bad_request"),
        (
            post,
            format!("{good}Transfer-Encoding: gzip\r\n"),
            "400 bad_request",
        ),
        (
            post,
            format!("{good}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"),
            "400 bad_request",
        ),
        (
            post,
            format!("{good}Content-Length: 5000\r\n"),
            "413 body_too_large",
        ),
        (post, format!("{good}{many}"), "431 headers_too_large"),
        (
            "POST /api/rollout/token#x HTTP/1.1",
            good.clone(),
            "400 bad_request",
        ),
        (
            "POST https://a/api/rollout/token HTTP/1.1",
            good.clone(),
            "400 bad_request",
        ),
        ("nonsense", String::new(), "400 bad_request"),
        (post, format!("{good}X: y\r\n z\r\n"), "400 bad_request"),
        (post, format!("{good}X: y\0z\r\n"), "400 bad_request"),
        (
            "POST /api/rollout/token/ HTTP/1.1",
            good.clone(),
            "404 not_found",
        ),
        (
            post,
            format!("{good}Origin: https://evil.example\r\n"),
            "403 origin_not_allowed",
        ),
        (
            post,
            format!("{good}Origin: https://app.example\r\n"),
            "200, a token",
        ),
        (
            post,
            format!("{cookie}Origin: https://a-team.vercel.app\r\n"),
            "401 no_session",
        ),
        (
            post,
            format!("{good}Origin: https://a-team.vercel.app\r\n"),
            "200, a token",
        ),
        (
            post,
            format!("{good}Sec-Fetch-Mode: navigate\r\n"),
            "403 not_a_fetch",
        ),
        (
            "OPTIONS /api/rollout/token HTTP/1.1",
            "Host: a\r\nOrigin: https://app.example\r\nAccess-Control-Request-Method: POST\r\n"
                .to_owned(),
            "204",
        ),
    ] {
        let raw = format!("{line}\r\n{headers}Connection: close\r\n\r\n");
        let said = explain(&raw);
        let answer = said.lines().last().unwrap();
        assert_eq!(answer, format!("answer: {want}"), "{raw}\n{said}");
        assert_eq!(served(&process, &raw), want, "{raw}");
    }
    // An empty chunked body is valid, so `explain` and the service both answer with a token.
    let chunked =
        format!("{post}\r\n{good}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n");
    assert!(explain(&chunked).ends_with("answer: 200, a token\n"));
    assert_eq!(served(&process, &chunked), "200, a token");
}

#[test]
fn refused_request_is_explained_with_reason_origin_and_host() {
    let refused = |headers: &str| {
        explain(&format!(
            "POST /api/rollout/token HTTP/1.1\r\n{headers}\r\n"
        ))
    };
    for (headers, want) in [
        (
            "Host: app.internal\r\nOrigin: http://app.internal:8080\r\n",
            "origin: refused with reason origin_is_not_host, so no extractor would run (Origin: \
             http://app.internal:8080, Host: app.internal)\n    if this is the service's own origin",
        ),
        (
            "Host: a\r\nOrigin: null\r\n",
            "origin: refused with reason null_origin, so no extractor would run (Origin: null, Host: a)",
        ),
        (
            "Host: a\r\nSec-Fetch-Site: cross-site\r\n",
            "origin: refused with reason cross_site, so no extractor would run (Origin: none, Host: a)",
        ),
        (
            "Host: a\r\nSec-Fetch-Dest: image\r\n",
            "request: refused (not made by a script with fetch) with reason embedded",
        ),
        ("Cookie: a=b\r\n", "request: refused with reason no_host"),
    ] {
        let said = refused(headers);
        assert!(said.starts_with(want), "{said}");
    }
    let said = explain("POST /api/rollout/token/ HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(
        said.starts_with("request: refused with reason trailing_slash"),
        "{said}"
    );
    let said = explain(
        "OPTIONS /api/rollout/token HTTP/1.1\r\nHost: a\r\nOrigin: https://app.example\r\n\
         Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: x-tenant\r\n\r\n",
    );
    assert!(
        said.starts_with("request: preflight refused with reason preflight_header, so the browser does not send the request")
            && said.contains("access-control-request-headers: x-tenant")
            && said.ends_with("answer: 204\n"),
        "{said}"
    );
    let said = explain("POST /rollout/token HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n");
    assert!(
        said.starts_with("request: answered before any extractor is tried: 400 bad_request\n    reason malformed: "),
        "{said}"
    );
    let said = explain("POST /rollout/token HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(
        said.starts_with("request: refused with reason path_prefix")
            && said.contains("server.base_path"),
        "{said}"
    );
}

#[test]
fn explain_accepts_request_heads_header_lines_curl_commands_and_bare_credentials() {
    let session = good_session();
    for raw in [
        format!(
            "POST /api/rollout/token HTTP/2\nHost: a\nCookie: session={session}\nContent-Length: 2\n"
        ),
        format!("Host: a\nAuthorization: Bearer {session}\n"),
        format!("\r\nHost: a\r\nCookie: session={session}"),
        format!("Cookie: session={session}"),
        format!(
            ":authority:\na.b.example\n:method:\nPOST\n:path:\n/api/rollout/token\ncookie:\nsession={session}\n"
        ),
        format!("curl 'https://a.example/' -H 'Cookie: session={session}' --compressed"),
        format!("session={session}\n"),
        format!("Bearer {session}\n"),
        session.clone(),
    ] {
        let said = explain(&raw);
        assert!(said.ends_with("answer: 200, a token\n"), "{raw}\n{said}");
    }
}

#[test]
fn explain_lists_the_searched_credential_sources_and_the_names_of_cookies_and_headers() {
    let curl = [
        "explain",
        "curl",
        "https://app.example/api/rollout/token",
        "-s",
        "-L",
        "-A",
        "agent",
        "-F",
        "a=b",
        "-e",
        "https://app.example/",
        "-i",
        "-k",
        "--http2",
        "--globoff",
        "--url",
        "https://app.example/",
        "--compressed",
        "-H",
        "X-Tenant: s3cr3t",
        "-b",
        "_ga=s3cr3t; sid=s3cr3t",
    ];
    let (code, said, err) = run(&mut binary(&curl));
    assert_eq!(code, Some(0), "{err}");
    for want in [
        "cookie (jwt): not present\n",
        "    cookie looked for cookie:session\n",
        "    bearer looked for header:authorization\n",
        "cookies in the request: _ga, sid; headers: ",
        "x-tenant",
    ] {
        assert!(said.contains(want), "{want}\n{said}");
    }
    assert!(!said.contains("s3cr3t"), "{said}");
    let (_, said, _) = run(&mut binary(&["explain", "curl", "--globoff"]));
    assert!(
        said.contains("cookies in the request: none; headers: none"),
        "{said}"
    );
    // Browsers send no `Sec-Fetch-Site` over plain HTTP, except to loopback hosts.
    let own = [
        "explain",
        "curl",
        "http://a.internal:8080/rollout/token",
        "-H",
        "Origin: http://a.internal:8080",
    ];
    let (_, said, _) = run(&mut binary(&own));
    assert!(
        said.starts_with("origin: allowed, the page has the service's own origin"),
        "{said}"
    );
    let basic = ["explain", "curl", "-u", "ann:s3cr3t", "https://a.example"];
    let (code, said, _) = run(&mut binary(&basic));
    assert_eq!(code, Some(0));
    assert!(said.ends_with("answer: 401 no_session\n"), "{said}");
}

#[test]
fn explain_without_a_request_is_a_usage_error() {
    let session = good_session();
    let session = session.as_str();
    for words in [&[][..], &[session], &["Bearer", session], &["-s"]] {
        let arguments = [&["explain"][..], words].concat();
        let (code, _, err) = run(&mut binary(&arguments));
        assert_eq!(code, Some(2), "{words:?}: {err}");
        assert!(err.contains("no request was given"), "{err}");
        assert!(!err.contains(session), "{err}");
    }
}

#[test]
fn authorization_value_without_a_scheme_is_explained_with_advice_to_send_bearer() {
    let explain = |value: &str| {
        let header = format!("authorization: {value}");
        run(&mut binary(&["explain", "-H", &header])).1
    };
    let advice = "authorization has a value without a scheme, so it was not read: send Authorization: Bearer …";
    let session = good_session();
    for value in [session.as_str(), "0pa9ue"] {
        let said = explain(value);
        assert!(said.contains("bearer (jwt): not present"), "{said}");
        assert!(said.contains(advice), "{said}");
        assert!(!said.contains("kind = \"jwt\""), "{said}");
    }
    for value in [&*format!("Bearer {session}"), "Basic YW5uOnB3", "Bearer"] {
        let said = explain(value);
        assert!(!said.contains("without a scheme"), "{said}");
    }
}

#[test]
fn explain_refuses_a_request_copied_as_fetch_or_powershell() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let raw = ["explain", "--raw", file.path().to_str().unwrap()];
    for (text, form) in [
        (
            "fetch(\"https://a.example/\", {\n  \"headers\": {\"cookie\": \"s3cr3t\"}});",
            "copied as fetch",
        ),
        (
            "Invoke-WebRequest -UseBasicParsing -Uri \"https://a.example/\"",
            "copied as PowerShell",
        ),
    ] {
        std::fs::write(file.path(), text).unwrap();
        let (code, _, err) = run(&mut binary(&raw));
        assert_eq!(code, Some(2), "{text}: {err}");
        assert!(err.contains(form) && !err.contains("s3cr3t"), "{err}");
    }
}

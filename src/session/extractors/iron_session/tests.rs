use super::*;
use crate::session::contract;
use crate::session::formats::iron;
use crate::session::sections::testing::{NOW, build, refused};

const PASSWORD: &str = "hunter2-hunter2-hunter2-hunter2-hunter2";

fn extractor(more: &str) -> Arc<dyn SessionExtractor> {
    build(
        "iron_session",
        &format!("cookie = \"sid\"\npassword = \"{PASSWORD}\"\n{more}"),
    )
    .unwrap()
}

fn sealed(id: &str, expires_at: &str, json: &str) -> String {
    let seal = iron::sealing::sealed(PASSWORD, ITERATIONS, id, expires_at, json);
    format!("{seal}{LAYOUT}")
}

fn raw(id: &str, expires_at: &str, json: &str) -> String {
    iron::sealing::sealed(PASSWORD, H3_ITERATIONS, id, expires_at, json)
}

fn extracted(extractor: &dyn SessionExtractor, request: &Parts) -> Extracted {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(extractor.extract(request))
}

fn answer(extractor: &dyn SessionExtractor, cookies: &str) -> Result<Option<String>, &'static str> {
    answer_to(extractor, &contract::request(&[("cookie", cookies)]))
}

fn answer_to(
    extractor: &dyn SessionExtractor,
    request: &Parts,
) -> Result<Option<String>, &'static str> {
    match extracted(extractor, request) {
        Ok(session) => Ok(session.map(|it| serde_json::to_string(&it.attributes).unwrap())),
        Err(error) => Err(error.reason().as_str()),
    }
}

fn asked(more: &str, cookies: &str) -> Result<Option<String>, &'static str> {
    answer(&*extractor(more), cookies)
}

#[tokio::test]
async fn extractor_passes_the_contract_checks() {
    contract::check(&*extractor(""), &[PASSWORD]).await;
}

#[test]
fn seal_is_accepted_until_60_s_after_its_expiry() {
    for (case, seal, want) in [
        (
            "no expiry",
            sealed("1", "", "{}"),
            Ok(Some("{}".to_owned())),
        ),
        (
            "within the skew",
            sealed("1", &format!("{}", (NOW - 60) * 1000 + 1), "{}"),
            Ok(Some("{}".to_owned())),
        ),
        (
            "past the skew",
            sealed("1", &format!("{}", (NOW - 60) * 1000), "{}"),
            Err("expired"),
        ),
        ("zero", sealed("1", "0", "{}"), Err("expired")),
        ("negative", sealed("1", "-1", "{}"), Err("malformed")),
        (
            "with a plus sign",
            sealed("1", "+1900000000000", "{}"),
            Err("malformed"),
        ),
        (
            "number too large",
            sealed("1", "99999999999999999999", "{}"),
            Err("malformed"),
        ),
        ("a list", sealed("1", "", "[]"), Err("malformed")),
        ("not JSON", sealed("1", "", "user"), Err("malformed")),
        ("unknown id", sealed("2", "", "{}"), Err("unknown_key")),
        ("no id", sealed("", "", "{}"), Err("unknown_key")),
    ] {
        assert_eq!(asked("", &format!("sid={seal}")), want, "{case}");
    }
}

#[test]
fn changed_text_that_the_mac_does_not_cover_is_refused() {
    let good = sealed("1", "", "{}");
    let bare = good.strip_suffix("~2").unwrap();
    for changed in [
        bare.to_owned(),
        format!("{bare}~1"),
        format!("{bare}~02"),
        format!("{bare}~2~2"),
        format!("{good} x"),
        format!("{bare}*~2"),
        format!("*{good}"),
        good.replacen("Fe26.2", "Fe26.1", 1),
    ] {
        assert!(asked("", &format!("sid={changed}")).is_err(), "{changed}");
        assert!(
            asked("version = \"v8\"", &format!("sid={changed}")).is_err(),
            "{changed}"
        );
    }
}

#[test]
fn chunked_cookie_is_read_for_v9_but_not_for_v8() {
    let seal = sealed("1", "", "{}");
    let (head, tail) = seal.split_at(20);
    let parts = format!("sid.0={head}; sid.1={tail}");
    assert!(asked("", &parts).unwrap().is_some());
    assert_eq!(
        asked("version = \"v8\"", &parts),
        Ok(None),
        "v8 does not read parts"
    );
    assert_eq!(asked("", &format!("sid.1={tail}")), Err("missing_part"));
    assert_eq!(
        asked("", &format!("{parts}; sid.4=x")),
        Err("too_many_parts")
    );
    let user = sealed("1", "", r#"{"user":1}"#);
    assert_eq!(
        asked("", &format!("sid={user}; {parts}")),
        Ok(Some(r#"{"user":1}"#.to_owned()))
    );
}

#[test]
fn password_is_chosen_by_the_id_in_the_seal() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{PASSWORD}\n")).unwrap();
    let path = file.path().display();
    for keys in [
        format!(
            "password = {{ 7 = \"{PASSWORD}\", 12 = \"another-password-of-more-than-32-characters\" }}"
        ),
        format!("password_file = {{ 7 = \"{path}\" }}"),
        format!(
            "password = {{ 12 = \"another-password-of-more-than-32-characters\" }}\n\
             password_file = {{ 7 = \"{path}\" }}"
        ),
    ] {
        let extractor = build("iron_session", &format!("cookie = \"sid\"\n{keys}")).unwrap();
        let asked = |id: &str| answer(&*extractor, &format!("sid={}", sealed(id, "", "{}")));
        assert!(asked("7").is_ok(), "{keys}");
        assert!(asked("12").is_err(), "{keys}");
        assert_eq!(asked("1"), Err("unknown_key"), "{keys}");
    }
    let alone = format!("cookie = \"sid\"\npassword_file = \"{path}\"");
    let alone = build("iron_session", &alone).unwrap();
    assert!(answer(&*alone, &format!("sid={}", sealed("1", "", "{}"))).is_ok());
}

#[test]
fn raw_seal_with_any_password_id_is_opened_if_a_single_password_is_set() {
    let asked = |value: &str| asked("version = \"raw\"", &format!("sid={value}"));
    let later = format!("{}", (NOW + 60) * 1000);
    let bad_password = iron::sealing::sealed(&"x".repeat(40), ITERATIONS, "", "", "{}");
    let other_iterations = NonZeroU32::new(2).unwrap();
    let other_iterations = iron::sealing::sealed(PASSWORD, other_iterations, "", "", "{}");
    let object = Ok(Some(r#"{"id":7}"#.to_owned()));
    for (case, seal, want) in [
        ("h3", raw("", &later, r#"{"id":7}"#), object.clone()),
        (
            "h3 v1 or hapi",
            iron::sealing::sealed(PASSWORD, ITERATIONS, "", "", r#"{"id":7}"#),
            object.clone(),
        ),
        ("an id", raw("app", "", r#"{"id":7}"#), object),
        (
            "a text",
            raw("", "", "\"u-7\""),
            Ok(Some("\"u-7\"".to_owned())),
        ),
        (
            "iron-session's layout",
            sealed("1", "", "{}"),
            Err("malformed"),
        ),
        ("not JSON", raw("", "", "u-7"), Err("malformed")),
        ("empty", raw("", "", ""), Err("malformed")),
        ("expired", raw("", "1", "{}"), Err("expired")),
        ("another password", bad_password, Err("bad_seal")),
        ("other iterations", other_iterations, Err("bad_seal")),
        (
            "expiry removed",
            raw("", &later, "{}").replace(&later, ""),
            Err("bad_seal"),
        ),
        ("a longer seal", raw("", "", "{}") + "*", Err("malformed")),
    ] {
        assert_eq!(asked(&seal), want, "{case}");
    }
    let v9 = self::asked("", &format!("sid={}", raw("1", "", "{}")));
    assert_eq!(v9, Err("malformed"), "no layout");
}

#[test]
fn debug_of_a_seal_does_not_show_its_text() {
    let text = raw("app", "", "{}");
    let seal = format!("{:?}", Seal::parse(&text).unwrap());
    let parts = text.split('*').filter(|part| part.len() > 8);
    assert!(seal.contains("app") && parts.into_iter().all(|part| !seal.contains(part)));
    assert!(!seal.contains("[3, 3"), "{seal}");
}

#[tokio::test]
async fn seals_beyond_max_waiting_are_refused_with_reason_backend_busy() {
    let derivations = Derivations::new(Waiting::new(Some(2), &Arc::default()));
    let processors = u32::try_from(derivations.permits.available_permits()).unwrap();
    let running = derivations.permits.acquire_many(processors).await.unwrap();
    let (seal, password) = (raw("", "", "{}"), Secret::new(PASSWORD.to_owned()));
    let waiting = [(); 3].map(|()| derivations.open(&seal, &password));
    let free = async { drop(running) };
    let (opened, ()) = tokio::join!(futures_util::future::join_all(waiting), free);
    let opened = opened
        .into_iter()
        .map(|opened| opened.map_err(|error| error.reason().as_str()));
    let text = || Ok(Some(b"{}".to_vec()));
    assert_eq!(
        opened.collect::<Vec<_>>(),
        [text(), text(), Err("backend_busy")]
    );
    assert_eq!(
        derivations.open(&seal, &password).await.unwrap(),
        text().unwrap()
    );
}

#[test]
fn raw_seal_without_id_is_opened_with_the_password_called_default() {
    let keys = format!(
        "cookie = \"sid\"\nversion = \"raw\"\n\
         password = {{ default = \"{PASSWORD}\", new = \"{}\" }}",
        "another-password-of-more-than-32-characters"
    );
    let extractor = build("iron_session", &keys).unwrap();
    for (id, want) in [
        ("", Ok(Some("{}".to_owned()))),
        ("default", Ok(Some("{}".to_owned()))),
        ("new", Err("bad_seal")),
        ("other", Err("unknown_key")),
    ] {
        let cookie = format!("sid={}", raw(id, "", "{}"));
        assert_eq!(answer(&*extractor, &cookie), want, "{id}");
    }
}

#[test]
fn h3_chunks_are_read_up_to_the_number_in_the_cookie() {
    let seal = raw("", "", "{}");
    let (head, tail) = seal.split_at(20);
    for (case, cookies, want) in [
        (
            "two chunks and an old chunk",
            format!("sid=__chunked__2; sid.1={head}; sid.2={tail}; sid.3=old"),
            Ok(Some("{}".to_owned())),
        ),
        (
            "unchunked, together with old chunks",
            format!("sid={seal}; sid.1={head}"),
            Ok(Some("{}".to_owned())),
        ),
        (
            "parts alone",
            format!("sid.1={head}; sid.2={tail}"),
            Ok(None),
        ),
        (
            "one missing",
            format!("sid=__chunked__2; sid.1={head}"),
            Err("missing_part"),
        ),
        (
            "too few",
            format!("sid=__chunked__1; sid.1={head}; sid.2={tail}"),
            Err("malformed"),
        ),
        (
            "two values",
            format!("sid=__chunked__2; sid.1={head}; sid.1=x; sid.2={tail}"),
            Err("ambiguous_identity"),
        ),
        ("none", "sid=__chunked__0".to_owned(), Err("malformed")),
        ("no number", "sid=__chunked__".to_owned(), Err("malformed")),
        (
            "not a number",
            "sid=__chunked__2x".to_owned(),
            Err("malformed"),
        ),
        (
            "hundred",
            "sid=__chunked__100".to_owned(),
            Err("too_many_parts"),
        ),
    ] {
        assert_eq!(asked("version = \"raw\"", &cookies), want, "{case}");
    }
}

#[test]
fn h3_header_is_read_before_the_cookie_only_for_version_raw() {
    let user = |id: u8| iron::sealing::sealed(PASSWORD, ITERATIONS, "", "", &id.to_string());
    let (one, two) = (user(1), user(2));
    let found = |id: u8| Ok(Some(id.to_string()));
    let bearer = format!("Bearer {one}");
    let jwt = "eyJhbGciOiJSUzI1NiJ9.e30.c2ln";
    let cookie = format!("sid={two}");
    for (case, header, cookie, want) in [
        ("alone", &*one, "", found(1)),
        ("after a scheme", &bearer, "", found(1)),
        ("before a cookie", &one, &*cookie, found(1)),
        ("empty", "", &cookie, found(2)),
        ("another scheme", "Basic dTpw", &cookie, found(2)),
        ("a third scheme", "Token abc", &cookie, found(2)),
        ("two spaces", &bearer.replace(' ', "  "), "", found(1)),
        ("damaged", &one[1..], &cookie, Err("malformed")),
        (
            "a number of parts",
            "__chunked__1",
            &cookie,
            Err("malformed"),
        ),
        ("a JWT", jwt, &cookie, Err("signed_jwt")),
    ] {
        let request = contract::request(&[("x-sid-session", header), ("cookie", cookie)]);
        let answer = answer_to(&*extractor("version = \"raw\""), &request);
        assert_eq!(answer, want, "{case}");
    }
    let twice = contract::request(&[("x-sid-session", &one), ("x-sid-session", &one)]);
    let refused = answer_to(&*extractor("version = \"raw\""), &twice);
    assert_eq!(refused, Err("duplicate_header"));
    let sealed = format!("{one}{LAYOUT}");
    let request = contract::request(&[("x-sid-session", &sealed)]);
    assert_eq!(answer_to(&*extractor(""), &request), Ok(None), "v9");
    let odd = format!("cookie = \"app/sid\"\npassword = \"{PASSWORD}\"\nversion = \"raw\"");
    let odd = build("iron_session", &odd).unwrap();
    assert_eq!(answer(&*odd, &format!("app/sid={one}")), found(1));
}

#[test]
fn authkit_session_is_refused_and_the_message_names_the_recipe() {
    let token = "eyJhbGciOiJSUzI1NiJ9.e30.c2ln";
    let with = |token: &str| {
        format!(r#"{{"accessToken":{token},"refreshToken":"r","user":{{"id":"u-1"}}}}"#)
    };
    let jwt = format!("\"{token}\"");
    for (case, session, refused) in [
        ("AuthKit", with(&jwt), true),
        (
            "two tokens",
            with(&format!("{jwt},\"accessToken\":1")),
            true,
        ),
        ("another token", with("\"opaque\""), false),
        (
            "no refresh token",
            with(&jwt).replace("refreshToken", "x"),
            false,
        ),
        ("no user", with(&jwt).replace("user", "x"), false),
    ] {
        let want = if refused { Err("purpose") } else { Ok(()) };
        for (version, seal) in [
            ("v9", sealed("1", "", &session)),
            ("raw", raw("", "", &session)),
        ] {
            let keys = format!("version = \"{version}\"");
            let answer = asked(&keys, &format!("sid={seal}")).map(drop);
            assert_eq!(answer, want, "{case}, {version}");
        }
    }
    let cookie = format!("sid={}", sealed("1", "", &with(&jwt)));
    let request = contract::request(&[("cookie", &cookie)]);
    let refusal = format!("{:?}", extracted(&*extractor(""), &request).unwrap_err());
    assert!(
        refusal.contains("docs/recipes/workos-authkit.md"),
        "{refusal}"
    );
    assert!(!refusal.contains(token), "{refusal}");
}

#[test]
fn invalid_section_is_refused_and_the_problem_names_the_key() {
    let with = |keys: &str| format!("cookie = \"sid\"\npassword = \"{PASSWORD}\"\n{keys}");
    refused(
        "iron_session",
        &[
            ("nothing", "", "password"),
            ("no cookie", &with("").replace("sid", ""), "cookie"),
            (
                "31 characters",
                &with("").replace(PASSWORD, &PASSWORD[..31]),
                "password",
            ),
            (
                "short password of several",
                "cookie = \"sid\"\npassword = { 2 = \"hunter2\" }",
                "password.2",
            ),
            (
                "invalid id",
                "cookie = \"sid\"\npassword = { \"a*b\" = \"hunter2-hunter2-hunter2-hunter2-\" }",
                "password",
            ),
            ("number", "cookie = \"sid\"\npassword = 1234", "password"),
            ("version", &with("version = \"v6\""), "version"),
            ("AuthKit", &with("").replace("sid", "wos-session"), "cookie"),
            (
                "limit without effect",
                &with("max_waiting = 8"),
                "max_waiting",
            ),
            (
                "limit of zero",
                &with("version = \"raw\"\nmax_waiting = 0"),
                "max_waiting",
            ),
            ("both", &with("password_file = \"/nowhere\""), "password"),
        ],
    );
}

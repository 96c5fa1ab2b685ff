use super::*;

fn request(pairs: &[(&str, &[u8])]) -> Parts {
    let pairs = pairs.iter().map(|(name, value)| {
        (
            HeaderName::try_from(*name).expect("a header name"),
            HeaderValue::from_bytes(value).expect("a header value"),
        )
    });
    let (mut parts, ()) = axum::http::Request::new(()).into_parts();
    pairs.for_each(|(name, value)| {
        parts.headers.append(name, value);
    });
    parts
}

#[track_caller]
fn assert_found(
    places: &[CredentialSource],
    request: &Parts,
    want: Result<Option<&str>, &str>,
    case: &str,
) {
    let found = find(places, request).map_err(|error| error.reason().as_str());
    let text = found.map(|found| found.map(|found| found.text.into_owned()));
    assert_eq!(text, want.map(|text| text.map(str::to_owned)), "{case}");
}

#[test]
fn bearer_token_is_read_as_in_rfc_6750_and_other_schemes_are_ignored() {
    let malformed = Err("malformed");
    for (name, value, want) in [
        (
            "plain",
            &b"Bearer a.b-c_d~e+f/g=="[..],
            Ok(Some("a.b-c_d~e+f/g==")),
        ),
        ("lower case", b"bearer x", Ok(Some("x"))),
        ("upper case", b"BEARER x", Ok(Some("x"))),
        ("alone", b"Bearer", Ok(None)),
        ("empty", b"Bearer ", Ok(None)),
        ("only spaces", b"Bearer   ", Ok(None)),
        ("basic", b"Basic dXNlcjpwYXNz", Ok(None)),
        ("basic with odd bytes", b"Basic \xff", Ok(None)),
        ("no scheme", b"eyJ.eyJ.x", Ok(None)),
        ("no space", b"BearereyJ.eyJ.x", Ok(None)),
        ("nothing", b"", Ok(None)),
        ("two spaces", b"Bearer  x", Ok(Some("x"))),
        ("space and tab", b"Bearer \tx", malformed),
        ("tab", b"Bearer\tx", malformed),
        ("two tokens", b"Bearer x y", malformed),
        ("comma", b"Bearer x,y", malformed),
        ("parameter", b"Bearer realm=\"x\"", malformed),
        ("quotes", b"Bearer \"x\"", malformed),
        ("padding inside", b"Bearer a=b", malformed),
        ("only padding", b"Bearer ==", malformed),
        ("not ASCII", b"Bearer \xc3\xa9", malformed),
        ("not UTF-8", b"Bearer \xff", malformed),
        ("no-break space", b"Bearer\xc2\xa0x", malformed),
    ] {
        let request = request(&[("authorization", value)]);
        assert_found(&[CredentialSource::Bearer], &request, want, name);
    }
    let twice = request(&[
        ("authorization", b"Bearer x"),
        ("authorization", b"Bearer x"),
    ]);
    let want = Err("duplicate_header");
    assert_found(&[CredentialSource::Bearer], &twice, want, "twice");
}

#[test]
fn opaque_token_is_read_after_scheme_bearer_or_token_and_other_schemes_are_ignored() {
    let header: CredentialSource = "header:x-auth-token".parse().expect("a place");
    for (value, in_authorization, elsewhere) in [
        (&b"Bearer abc"[..], Ok(Some("abc")), Ok(Some("abc"))),
        (b"bearer   abc ", Ok(Some("abc")), Ok(Some("abc"))),
        (b"Token 9944b0", Ok(Some("9944b0")), Ok(Some("9944b0"))),
        (b"TOKEN 9944b0", Ok(Some("9944b0")), Ok(Some("9944b0"))),
        (b"Bearer 7|aB3", Ok(Some("7|aB3")), Ok(Some("7|aB3"))),
        (
            b"Bearer a.b%2B/=,",
            Ok(Some("a.b%2B/=,")),
            Ok(Some("a.b%2B/=,")),
        ),
        (b"abc", Ok(None), Ok(Some("abc"))),
        (b"Bearer", Ok(None), Ok(Some("Bearer"))),
        (b"Bearer ", Ok(None), Ok(Some("Bearer"))),
        (b"Basic abc", Ok(None), Ok(None)),
        (b"Tokens abc", Ok(None), Ok(None)),
        (b"", Ok(None), Ok(None)),
        (b"Bearer a b", Err("malformed"), Err("malformed")),
        (b"abc, abc", Err("malformed"), Err("malformed")),
        (b"Bearer a\tb", Err("malformed"), Err("malformed")),
        (b"Token \xc3\xa9", Err("malformed"), Err("malformed")),
        (b"Token \xff", Err("malformed"), Err("malformed")),
    ] {
        for (place, want) in [
            (&CredentialSource::Bearer, in_authorization),
            (&header, elsewhere),
        ] {
            let request = request(&[(place.header().expect("a header").as_str(), value)]);
            let found = place.opaque(&request.headers, &["bearer", "token"]);
            let found = found.map_err(|error| error.reason().as_str());
            assert_eq!(found, want, "{place}: {value:?}");
        }
    }
}

#[test]
fn bearer_scheme_is_removed_from_the_value_of_any_header_or_cookie() {
    for (name, value, want) in [
        ("plain", "eyJ.eyJ.x", Ok(Some("eyJ.eyJ.x"))),
        ("bearer", "Bearer eyJ.eyJ.x", Ok(Some("eyJ.eyJ.x"))),
        (
            "lower case, two spaces",
            "bearer  eyJ.eyJ.x",
            Ok(Some("eyJ.eyJ.x")),
        ),
        ("basic", "Basic dXNlcjpwYXNz", Ok(None)),
        ("alone", "Bearer", Ok(None)),
        (
            "a word that begins with Bearer",
            "BearerToken",
            Ok(Some("BearerToken")),
        ),
        ("with a plus", "abc+def", Ok(Some("abc+def"))),
    ] {
        let header = request(&[("x-forwarded-authorization", value.as_bytes())]);
        let place = "header:x-forwarded-authorization".parse().expect("a place");
        assert_found(&[place], &header, want, name);
        for quote in ["", "\""] {
            let line = format!("sid={quote}{value}{quote}");
            let cookie = request(&[("cookie", line.as_bytes())]);
            let place = CredentialSource::Cookie("sid".to_owned());
            assert_found(&[place], &cookie, want, name);
        }
    }
    for value in ["Bearer%20x", "Bearer+x", "bearer%20%20x"] {
        let line = format!("sid={value}");
        let cookie = request(&[("cookie", line.as_bytes())]);
        let place = CredentialSource::Cookie("sid".to_owned());
        assert_found(&[place], &cookie, Ok(Some("x")), value);
    }
}

#[test]
fn unchunked_supabase_cookie_takes_precedence_over_stale_chunks() {
    let session = |token: &str| {
        let json = format!(r#"{{"access_token":"{token}"}}"#);
        format!("base64-{}", URL_SAFE_NO_PAD.encode(json))
    };
    let place: CredentialSource = "supabase:sb".parse().expect("a place");
    let (new, old) = (session("new"), session("old"));
    let (first, second) = old.split_at(20);
    for (name, line, want) in [
        (
            "whole and chunks",
            format!("sb.0={first}; sb.1={second}; sb={new}"),
            Ok(Some("new")),
        ),
        (
            "unchunked cookie and invalid chunks",
            format!("sb={new}; sb.7=x; sb.99=y"),
            Ok(Some("new")),
        ),
        (
            "chunks",
            format!("sb.0={first}; sb.1={second}"),
            Ok(Some("old")),
        ),
        (
            "cleared whole",
            format!("sb=; sb.0={first}; sb.1={second}"),
            Ok(Some("old")),
        ),
        (
            "the same twice",
            format!("sb={new}; sb={new}"),
            Ok(Some("new")),
        ),
        (
            "two values",
            format!("sb={new}; sb={old}"),
            Err("ambiguous_identity"),
        ),
    ] {
        let request = request(&[("cookie", line.as_bytes())]);
        assert_found(std::slice::from_ref(&place), &request, want, name);
    }
}

#[test]
fn amplify_token_of_the_last_user_is_found_in_every_encoding_of_the_user_name() {
    const LAST: &str = "CognitoIdentityServiceProvider.c1.LastAuthUser";
    let place: CredentialSource = "amplify:c1".parse().expect("a place");
    let token = |user: &str, token: &str| {
        format!("CognitoIdentityServiceProvider.c1.{user}.accessToken={token}")
    };
    for (name, pairs, want) in [
        (
            "a plain user",
            vec![format!("{LAST}=ann"), token("ann", "t"), token("bob", "u")],
            Ok(Some("t")),
        ),
        (
            "js-cookie",
            vec![
                format!("{LAST}=ann@x.example"),
                token("ann%40x.example", "t"),
            ],
            Ok(Some("t")),
        ),
        (
            "encoded twice",
            vec![
                format!("{LAST}=ann%40x.example"),
                token("ann%40x.example", "t"),
            ],
            Ok(Some("t")),
        ),
        (
            "raw",
            vec![
                format!("{LAST}=ann%40x.example"),
                token("ann@x.example", "t"),
            ],
            Ok(Some("t")),
        ),
        (
            "a plus",
            vec![
                format!("{LAST}=ann%2Bb@x.example"),
                token("ann+b%40x.example", "t"),
            ],
            Ok(Some("t")),
        ),
        ("signed out", vec![token("ann", "t")], Ok(None)),
        (
            "no token",
            vec![format!("{LAST}=ann"), token("bob", "t")],
            Ok(None),
        ),
        (
            "another app",
            vec![LAST.replace("c1", "c2") + "=ann", token("ann", "t")],
            Ok(None),
        ),
        (
            "two values",
            vec![
                format!("{LAST}=a@x"),
                token("a@x", "t"),
                token("a%40x", "u"),
            ],
            Err("ambiguous_identity"),
        ),
        (
            "equal values",
            vec![
                format!("{LAST}=a@x"),
                token("a@x", "t"),
                token("a%40x", "t"),
            ],
            Ok(Some("t")),
        ),
    ] {
        let line = pairs.join("; ");
        let request = request(&[("cookie", line.as_bytes())]);
        assert_found(std::slice::from_ref(&place), &request, want, name);
        let sent: Vec<_> = sent(std::slice::from_ref(&place), &request.headers).collect();
        assert!(
            sent.len() <= pairs.len() && sent.iter().all(|piece| !piece.is_empty()),
            "{name}"
        );
    }
}

#[test]
fn debug_does_not_show_the_credential() {
    let found = Found {
        place: &CredentialSource::Bearer,
        text: Cow::Borrowed("s3cr3t"),
    };
    let shown = format!("{found:?}");
    assert!(
        shown.contains("Bearer") && !shown.contains("s3cr3t"),
        "{shown}"
    );
}

#[test]
fn first_non_empty_place_decides() {
    let places: Vec<CredentialSource> = ["header:x-token", "cookie:sid"]
        .map(|text| text.parse().expect("a place"))
        .into();
    for (name, pairs, want) in [
        (
            "header first",
            vec![("x-token", &b"a"[..]), ("cookie", b"sid=b")],
            Ok(Some("a")),
        ),
        (
            "header empty",
            vec![("x-token", b""), ("cookie", b"sid=b")],
            Ok(Some("b")),
        ),
        ("cookie alone", vec![("cookie", b"sid=b")], Ok(Some("b"))),
        ("neither", vec![("cookie", b"other=b")], Ok(None)),
        (
            "header broken",
            vec![("x-token", b"\xff"), ("cookie", b"sid=b")],
            Err("malformed"),
        ),
        (
            "header twice",
            vec![("x-token", b"a"), ("x-token", b"a")],
            Err("duplicate_header"),
        ),
        (
            "cookie twice",
            vec![("cookie", b"sid=a; sid=b")],
            Err("ambiguous_identity"),
        ),
    ] {
        assert_found(&places, &request(&pairs), want, name);
    }
}

#[test]
fn sent_returns_only_the_bytes_in_the_given_places() {
    let places: Vec<CredentialSource> = ["header:authorization", "cookie:sid"]
        .map(|text| text.parse().expect("a place"))
        .into();
    let request = request(&[
        ("authorization", b"Bearer x"),
        ("x-other", b"1"),
        ("cookie", b"_ga=1; sid.0=a; sid.1=b; sidx=c"),
        ("cookie", b"sid=d; sid.sig=e; side=f"),
    ]);
    let sent: Vec<_> = sent(&places, &request.headers).collect();
    assert_eq!(sent, [&b"Bearer x"[..], b"sid.0=a", b"sid.1=b", b"sid=d"]);
}

#[test]
fn invalid_place_is_refused() {
    for text in [
        "",
        "authorization",
        "header:",
        "header:a b",
        "cookie:",
        "cookie:a=b",
        "amplify:",
        "amplify:a b",
        "query:token",
    ] {
        assert!(text.parse::<CredentialSource>().is_err(), "{text}");
    }
    assert_eq!("header:Authorization".parse(), Ok(CredentialSource::Bearer));
}

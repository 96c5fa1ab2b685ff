//! Fuzzes the origin check. The four lines of the input are the allowed origin, `Origin`, `Host` and `Sec-Fetch-Site`.
//! A page is allowed only if its origin is exactly the allowed origin, or the service's own origin.
#![no_main]

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use rollout_token::http::origin::{self, Caller};
use rollout_token::settings::{Origin, Origins};
use url::Url;

const HEADERS: [HeaderName; 3] = [
    header::ORIGIN,
    header::HOST,
    HeaderName::from_static("sec-fetch-site"),
];

libfuzzer_sys::fuzz_target!(|text: &str| {
    let lines: Vec<&str> = text.split('\n').collect();
    let &[configured, origin, host, site] = &lines[..] else {
        return;
    };
    let Ok(allowed) = Origin::parse(configured) else {
        return;
    };
    let normal = allowed.as_str().to_owned();
    assert_eq!(
        Origin::parse(&normal).as_ref(),
        Ok(&allowed),
        "a normalized origin is parsed unchanged"
    );

    let mut headers = HeaderMap::new();
    for (name, value) in HEADERS.into_iter().zip([origin, host, site]) {
        let Ok(value) = HeaderValue::from_str(value) else {
            return;
        };
        if !value.is_empty() {
            headers.append(name, value);
        }
    }
    let origins = Origins {
        allowed: vec![allowed],
        ..Origins::none()
    };
    match origin::check(&origins, &headers) {
        Ok(Caller::Listed) => assert_eq!(origin, normal),
        Ok(Caller::ListedByPattern) => panic!("there is no pattern"),
        Ok(Caller::NoBrowser) => assert_eq!(origin, ""),
        Ok(Caller::SameOrigin) if site == "same-origin" => {}
        Ok(Caller::SameOrigin) => {
            assert_eq!(site, "");
            let page = Url::parse(origin).expect("a URL");
            let own = Url::parse(&format!("{}://{host}", page.scheme())).expect("a host");
            assert_eq!((page.host(), page.port()), (own.host(), own.port()));
        }
        Err(_) => assert_ne!(origin, normal, "a listed page was refused"),
    }
});

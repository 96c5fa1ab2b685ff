//! The policy for browsers: pages of which origins may request tokens (Fetch, section 3.2), and the CORS headers of the
//! answers. It does not depend on the session.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::headers::single;
use crate::settings::Origin;

/// The request headers that a listed page may send. In dev mode it can also choose its user.
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "Authorization, Content-Type, X-Request-Id, X-CSRF-Token, traceparent",
);
const DEV_REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "Authorization, Content-Type, X-Request-Id, X-CSRF-Token, traceparent, X-Dev-User",
);

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Where a request comes from, according to the headers that browsers set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Not a browser, such as curl or a server.
    NoBrowser,
    /// A page of this service's own origin.
    SameOrigin,
    /// A page of an origin in `origins.allowed`.
    Listed,
}

/// The page's origin is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forbidden;

/// The request was not made by a script: the browser navigates, submits a form or loads an embedded document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAFetch;

/// Of a browser's requests, accepts only those of `fetch` and `XMLHttpRequest`, so that a token does not become a
/// document, a file or a history entry. Requests with neither header are accepted.
///
/// # Errors
/// If `Sec-Fetch-Mode` is `navigate`, or `Sec-Fetch-Dest` is other than `empty`.
pub fn check_fetch(headers: &HeaderMap) -> Result<(), NotAFetch> {
    let navigates = headers
        .get_all(SEC_FETCH_MODE)
        .iter()
        .any(|mode| mode == "navigate");
    let embeds = headers
        .get_all(SEC_FETCH_DEST)
        .iter()
        .any(|destination| destination != "empty");
    if navigates || embeds {
        Err(NotAFetch)
    } else {
        Ok(())
    }
}

/// Checks the origin of the request by `Origin` and `Sec-Fetch-Site`, which scripts cannot set: both are forbidden
/// request headers (Fetch, section 2.2.2).
///
/// # Errors
/// If the page's origin is neither `allowed` nor the service's own, or the headers are repeated or contradictory.
pub fn check(allowed: &[Origin], headers: &HeaderMap) -> Result<Caller, Forbidden> {
    let origin = single(headers, &header::ORIGIN).map_err(|_| Forbidden)?;
    let site = single(headers, &SEC_FETCH_SITE)
        .map_err(|_| Forbidden)?
        .map(HeaderValue::as_bytes);
    match (origin, site) {
        (None, None | Some(b"none")) => Ok(Caller::NoBrowser),
        (None, Some(b"same-origin")) => Ok(Caller::SameOrigin),
        (Some(origin), _) if allowed.iter().any(|one| one == origin) => Ok(Caller::Listed),
        (Some(origin), Some(b"same-origin")) if origin != "null" => Ok(Caller::SameOrigin),
        (Some(origin), None) if is_own(origin, headers) => Ok(Caller::SameOrigin),
        (_, _) => Err(Forbidden),
    }
}

/// The `Origin` of the request, if there is exactly one and it is in `allowed`.
pub fn listed<'a>(allowed: &[Origin], headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
    let origin = single(headers, &header::ORIGIN).ok().flatten()?;
    allowed.iter().any(|one| one == origin).then_some(origin)
}

/// For browsers without `Sec-Fetch-Site`: whether the host and port of the origin equal `Host`. The scheme is not
/// compared, because TLS ends at the proxy in front of this service.
fn is_own(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let Ok(Some(host)) = single(headers, &header::HOST) else {
        return false;
    };
    let (Ok(host), Ok(origin)) = (host.to_str(), origin.to_str()) else {
        return false;
    };
    match origin.split_once("://") {
        Some((scheme @ ("http" | "https"), _)) => {
            Origin::parse(&format!("{scheme}://{host}")).is_ok_and(|own| own.as_str() == origin)
        }
        _ => false,
    }
}

/// Adds the CORS headers that let a listed page read the answer.
pub fn allow_reading(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
        HeaderValue::from_static("true"),
    );
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("X-Request-Id, Retry-After"),
    );
}

/// Adds the CORS headers of the answer to a preflight (Fetch, section 3.2.2). Chromium caches it for at most two hours.
pub fn allow_preflight(headers: &mut HeaderMap, methods: HeaderValue, dev: bool) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    let names = if dev {
        DEV_REQUEST_HEADERS
    } else {
        REQUEST_HEADERS
    };
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names);
    headers.insert(
        header::ACCESS_CONTROL_MAX_AGE,
        HeaderValue::from_static("7200"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins() -> [Origin; 1] {
        [Origin::parse("https://app.example").unwrap()]
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        headers
    }

    #[test]
    fn navigations_and_embedded_documents_are_not_a_fetch() {
        for (mode, destination, is_fetch) in [
            ("cors", "empty", true),
            ("same-origin", "empty", true),
            ("no-cors", "empty", true),
            ("navigate", "document", false),
            ("navigate", "empty", false),
            ("navigate", "iframe", false),
            ("no-cors", "image", false),
            ("no-cors", "script", false),
            ("cors", "worker", false),
            ("cors", "", false),
        ] {
            let headers = headers(&[("sec-fetch-mode", mode), ("sec-fetch-dest", destination)]);
            assert_eq!(
                check_fetch(&headers).is_ok(),
                is_fetch,
                "{mode} {destination}"
            );
        }
        assert_eq!(check_fetch(&HeaderMap::new()), Ok(()));
    }

    #[test]
    fn same_origin_pages_listed_pages_and_non_browsers_are_allowed() {
        use Caller::{Listed, NoBrowser, SameOrigin};
        type Case = (
            &'static [(&'static str, &'static str)],
            Result<Caller, Forbidden>,
        );
        let cases: [Case; 24] = [
            (&[], Ok(NoBrowser)),
            (&[("sec-fetch-site", "none")], Ok(NoBrowser)),
            (&[("sec-fetch-site", "same-origin")], Ok(SameOrigin)),
            (&[("sec-fetch-site", "cross-site")], Err(Forbidden)),
            (&[("sec-fetch-site", "same-site")], Err(Forbidden)),
            (&[("sec-fetch-site", "nonsense")], Err(Forbidden)),
            (&[("origin", "https://app.example")], Ok(Listed)),
            (
                &[
                    ("origin", "https://app.example"),
                    ("sec-fetch-site", "cross-site"),
                ],
                Ok(Listed),
            ),
            (
                &[
                    ("origin", "https://app.example"),
                    ("origin", "https://app.example"),
                ],
                Err(Forbidden),
            ),
            (
                &[("origin", "https://app.example, https://app.example")],
                Err(Forbidden),
            ),
            (
                &[
                    ("origin", "https://own.example"),
                    ("sec-fetch-site", "same-origin"),
                ],
                Ok(SameOrigin),
            ),
            (
                &[
                    ("origin", "https://sub.example"),
                    ("sec-fetch-site", "same-site"),
                ],
                Err(Forbidden),
            ),
            (
                &[("origin", "https://own.example"), ("host", "own.example")],
                Ok(SameOrigin),
            ),
            (
                &[
                    ("origin", "http://own.example:8080"),
                    ("host", "own.example:8080"),
                ],
                Ok(SameOrigin),
            ),
            (
                &[
                    ("origin", "https://own.example"),
                    ("host", "own.example:443"),
                ],
                Ok(SameOrigin),
            ),
            (
                &[
                    ("origin", "https://own.example"),
                    ("host", "own.example:8080"),
                ],
                Err(Forbidden),
            ),
            (
                &[
                    ("origin", "https://own.example"),
                    ("host", "own.example"),
                    ("sec-fetch-site", "cross-site"),
                ],
                Err(Forbidden),
            ),
            (&[("origin", "null")], Err(Forbidden)),
            (
                &[("origin", "null"), ("sec-fetch-site", "same-origin")],
                Err(Forbidden),
            ),
            (&[("origin", "null"), ("host", "null")], Err(Forbidden)),
            (&[("origin", "http://app.example")], Err(Forbidden)),
            (&[("origin", "https://app.example.evil")], Err(Forbidden)),
            (&[("origin", "https://evilapp.example")], Err(Forbidden)),
            (&[("origin", "HTTPS://APP.EXAMPLE")], Err(Forbidden)),
        ];
        for (lines, want) in cases {
            assert_eq!(check(&origins(), &headers(lines)), want, "{lines:?}");
        }
    }
}

//! The one policy for browsers: which origins may ask for tokens (Fetch, section 3.2) and what they
//! may read. Sessions are not looked at here.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::headers::single;
use crate::settings::Origin;

/// What a listed page may send along. Under dev it also chooses its user.
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "Authorization, Content-Type, X-Request-Id, X-CSRF-Token, traceparent",
);
const DEV_REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "Authorization, Content-Type, X-Request-Id, X-CSRF-Token, traceparent, X-Dev-User",
);

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Who a request comes from, as far as browsers tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// No sign of a browser: curl, a back end.
    NoBrowser,
    /// A page of this service's own origin.
    SameOrigin,
    /// A page of an origin in `origins.allowed`.
    Listed,
}

/// A page that may not ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forbidden;

/// The browser does not ask for a script: it navigates, submits a form or loads an embedded document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAFetch;

/// Refuses everything of a browser but the calls of `fetch` and `XMLHttpRequest`: a token must not become a
/// document, a file or a history entry. Browsers that send neither header pass.
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

/// Decides whether the request may go on. Nothing is trusted but what a page cannot set itself: `Origin` and
/// `Sec-Fetch-Site` are forbidden request headers (Fetch, section 2.2.2).
///
/// # Errors
/// If the request comes from a page whose origin is neither `allowed` nor the service's own, or does not tell clearly.
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

/// The `Origin` of the request, if there is exactly one and it is allowed.
pub fn listed<'a>(allowed: &[Origin], headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
    let origin = single(headers, &header::ORIGIN).ok().flatten()?;
    allowed.iter().any(|one| one == origin).then_some(origin)
}

/// For browsers without `Sec-Fetch-Site`: does the origin's host and port equal `Host`? The scheme is
/// left out, since TLS ends in front of this service.
fn is_own(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let (Ok(Some(host)), Ok(origin)) = (single(headers, &header::HOST), origin.to_str()) else {
        return false;
    };
    let own = |scheme: &str| {
        let own = format!("{scheme}://{}", host.to_str().unwrap_or_default());
        Origin::parse(&own).is_ok_and(|own| own.as_str() == origin)
    };
    match origin.split_once("://") {
        Some((scheme @ ("http" | "https"), _)) => own(scheme),
        _ => false,
    }
}

/// Lets a listed page read the answer.
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

/// What a preflight request from a listed page is told (Fetch, section 3.2.2). Two hours is the
/// longest that any browser keeps it.
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
    fn navigations_and_embedded_documents_are_no_fetch() {
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
    fn only_our_own_pages_listed_pages_and_programs_may_ask() {
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

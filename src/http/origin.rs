//! The policy for browsers: the origins whose pages may request tokens, and the CORS headers of the responses (Fetch
//! Standard, "CORS protocol"). The policy does not depend on the session. docs/decisions/own-origin-policy.md says why
//! tower-http's layers do not fit.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::headers::single;
use crate::session::reason::Reason;
use crate::settings::{Origin, Origins, is_loopback};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// The kind of caller, according to the headers that browsers set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A client other than a browser, such as curl or a server. A browser's GET over plain HTTP looks the same, because
    /// it has neither `Origin` nor `Sec-Fetch-Site`.
    NoBrowser,
    /// A page of this service's own origin.
    SameOrigin,
    /// A page of an origin in `origins.allowed` or, under `dev`, of a loopback origin.
    Listed,
    /// A page whose origin matches a pattern in `origins.allowed`. Only a bearer token identifies its user.
    ListedByPattern,
}

/// Why an origin is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    Exact,
    Pattern,
    /// A loopback origin, under `dev`.
    Loopback,
}

/// Refuses browser requests that were not made by `fetch` or `XMLHttpRequest`, so that a token does not end up in a
/// document, a file or a history entry. Requests with neither `Sec-Fetch-Mode` nor `Sec-Fetch-Dest` are accepted.
///
/// # Errors
/// If `Sec-Fetch-Mode` is `navigate`, or `Sec-Fetch-Dest` is not `empty`.
pub fn check_fetch(headers: &HeaderMap) -> Result<(), Reason> {
    let any = |name, is_bad: fn(&HeaderValue) -> bool| headers.get_all(name).iter().any(is_bad);
    if any(SEC_FETCH_MODE, |mode| mode == "navigate") {
        Err(Reason::Navigation)
    } else if any(SEC_FETCH_DEST, |destination| destination != "empty") {
        Err(Reason::Embedded)
    } else {
        Ok(())
    }
}

/// Checks the origin of the page that sent the request, and returns which kind of caller sent it. The browser describes
/// the origin in `Origin` and `Sec-Fetch-Site`, which scripts cannot set: both are forbidden request-headers (Fetch
/// Standard).
///
/// `Sec-Fetch-Site: same-origin` is accepted with every `Origin`, because a page with `Referrer-Policy: no-referrer`
/// sends `Origin: null` even to its own origin.
///
/// # Errors
/// If the page's origin is neither listed nor the service's own, if a page of another origin sent no `Origin`, if one
/// of the two headers is repeated, or if `Origin` is absent and `Sec-Fetch-Site` has an unknown value.
pub fn check(origins: &Origins, headers: &HeaderMap) -> Result<Caller, Reason> {
    let origin = single(headers, &header::ORIGIN).map_err(|_| Reason::TwoOrigins)?;
    let site = single(headers, &SEC_FETCH_SITE)
        .map_err(|_| Reason::SecFetchSite)?
        .map(HeaderValue::as_bytes);
    let Some(origin) = origin else {
        return match site {
            None | Some(b"none") => Ok(Caller::NoBrowser),
            Some(b"same-origin") => Ok(Caller::SameOrigin),
            Some(b"same-site") => Err(Reason::SameSite),
            Some(b"cross-site") => Err(Reason::CrossSite),
            Some(_) => Err(Reason::SecFetchSite),
        };
    };
    match (listing(origins, origin), site) {
        (Some(Listing::Exact | Listing::Loopback), _) => Ok(Caller::Listed),
        (_, Some(b"same-origin")) => Ok(Caller::SameOrigin),
        (_, None | Some(b"none")) if is_own(origin, headers) => Ok(Caller::SameOrigin),
        (Some(Listing::Pattern), _) => Ok(Caller::ListedByPattern),
        (None, _) if origin == "null" => Err(Reason::NullOrigin),
        (None, None) => Err(Reason::OriginIsNotHost),
        (None, Some(_)) => Err(Reason::OriginNotListed),
    }
}

/// Like [`check`], but ignores `[origins]`, for routes that only the service's own pages and clients other than
/// browsers may call.
///
/// # Errors
/// The errors of [`check`].
pub fn check_own(headers: &HeaderMap) -> Result<Caller, Reason> {
    check(&Origins::none(), headers)
}

/// How the origin is listed; `None` if it is not listed.
fn listing(origins: &Origins, origin: &HeaderValue) -> Option<Listing> {
    if origins.allowed.iter().any(|one| one == origin) {
        Some(Listing::Exact)
    } else if origins.loopback && origin.to_str().is_ok_and(is_loopback) {
        Some(Listing::Loopback)
    } else if origins.patterns.iter().any(|one| one.matches(origin)) {
        Some(Listing::Pattern)
    } else {
        None
    }
}

/// The request's `Origin` and how it is listed; `None` unless there is exactly one `Origin` and it is listed.
pub fn listed<'a>(origins: &Origins, headers: &'a HeaderMap) -> Option<(&'a HeaderValue, Listing)> {
    let origin = single(headers, &header::ORIGIN).ok().flatten()?;
    Some((origin, listing(origins, origin)?))
}

/// Whether the host and port of the origin equal `Host`, for requests whose `Sec-Fetch-Site` is absent or `none` and so
/// does not show whether the page is same-origin. The scheme is not compared, because TLS ends at the proxy in front of
/// this service.
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

/// Adds the CORS headers that let a listed page read the response. A page whose origin matches a pattern gets no
/// permission for credentials, so it cannot read the response to a request with cookies.
pub fn allow_reading(headers: &mut HeaderMap, origin: HeaderValue, listing: Listing) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    if listing != Listing::Pattern {
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
            HeaderValue::from_static("true"),
        );
    }
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("X-Request-Id, Retry-After"),
    );
}

/// Adds the CORS headers of a preflight response. Chromium caches such a response for at most two hours.
pub fn allow_preflight(headers: &mut HeaderMap, methods: &'static str, origins: &Origins) {
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static(methods),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        origins.request_headers.clone(),
    );
    headers.insert(
        header::ACCESS_CONTROL_MAX_AGE,
        HeaderValue::from_static("7200"),
    );
}

/// The reason why the browser will not send the request that this preflight announces, and the announced method or
/// headers; `None` if the browser will send it.
pub fn refused_preflight<'a>(
    headers: &'a HeaderMap,
    methods: &str,
    origins: &Origins,
) -> Option<(Reason, &'a HeaderValue)> {
    let allowed = |list: &[u8], asked: &[u8]| {
        asked.is_empty()
            || list
                .split(|&byte| byte == b',')
                .any(|one| one.trim_ascii().eq_ignore_ascii_case(asked))
    };
    let method = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD);
    if let Some(method) = method.filter(|method| !allowed(methods.as_bytes(), method.as_bytes())) {
        return Some((Reason::PreflightMethod, method));
    }
    let names = origins.request_headers.as_bytes();
    let asked = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS)?;
    let is_allowed = asked
        .as_bytes()
        .split(|&byte| byte == b',')
        .all(|name| allowed(names, name.trim_ascii()));
    (!is_allowed).then_some((Reason::PreflightHeader, asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins() -> Origins {
        Origins {
            allowed: vec![Origin::parse("https://app.example").unwrap()],
            patterns: Vec::new(),
            loopback: false,
            request_headers: HeaderValue::from_static("Authorization, X-Token"),
        }
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
    fn navigation_or_load_of_a_subresource_is_not_a_fetch() {
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

    type Case = (
        &'static [(&'static str, &'static str)],
        Result<Caller, Reason>,
    );

    const CALLERS: [Case; 27] = [
        (&[], Ok(Caller::NoBrowser)),
        (&[("sec-fetch-site", "none")], Ok(Caller::NoBrowser)),
        (&[("sec-fetch-site", "same-origin")], Ok(Caller::SameOrigin)),
        (&[("sec-fetch-site", "cross-site")], Err(Reason::CrossSite)),
        (&[("sec-fetch-site", "same-site")], Err(Reason::SameSite)),
        (&[("sec-fetch-site", "nonsense")], Err(Reason::SecFetchSite)),
        (&[("origin", "https://app.example")], Ok(Caller::Listed)),
        (
            &[
                ("origin", "https://app.example"),
                ("sec-fetch-site", "cross-site"),
            ],
            Ok(Caller::Listed),
        ),
        (
            &[
                ("origin", "https://app.example"),
                ("origin", "https://app.example"),
            ],
            Err(Reason::TwoOrigins),
        ),
        (
            &[("origin", "https://app.example, https://app.example")],
            Err(Reason::OriginIsNotHost),
        ),
        (
            &[
                ("origin", "https://own.example"),
                ("sec-fetch-site", "same-origin"),
            ],
            Ok(Caller::SameOrigin),
        ),
        (
            &[
                ("origin", "https://sub.example"),
                ("sec-fetch-site", "same-site"),
            ],
            Err(Reason::OriginNotListed),
        ),
        (
            &[("origin", "https://own.example"), ("host", "own.example")],
            Ok(Caller::SameOrigin),
        ),
        (
            &[
                ("origin", "http://own.example:8080"),
                ("host", "own.example:8080"),
            ],
            Ok(Caller::SameOrigin),
        ),
        (
            &[
                ("origin", "https://own.example"),
                ("host", "own.example:443"),
            ],
            Ok(Caller::SameOrigin),
        ),
        (
            &[
                ("origin", "https://own.example"),
                ("host", "own.example:8080"),
            ],
            Err(Reason::OriginIsNotHost),
        ),
        (
            &[
                ("origin", "http://own.example:8080"),
                ("host", "own.example"),
            ],
            Err(Reason::OriginIsNotHost),
        ),
        (
            &[
                ("origin", "https://own.example"),
                ("host", "own.example"),
                ("sec-fetch-site", "cross-site"),
            ],
            Err(Reason::OriginNotListed),
        ),
        (
            &[
                ("origin", "https://own.example"),
                ("host", "own.example"),
                ("sec-fetch-site", "none"),
            ],
            Ok(Caller::SameOrigin),
        ),
        (
            &[
                ("origin", "https://other.example"),
                ("host", "own.example"),
                ("sec-fetch-site", "none"),
            ],
            Err(Reason::OriginNotListed),
        ),
        (&[("origin", "null")], Err(Reason::NullOrigin)),
        (
            &[("origin", "null"), ("sec-fetch-site", "same-origin")],
            Ok(Caller::SameOrigin),
        ),
        (
            &[("origin", "null"), ("sec-fetch-site", "cross-site")],
            Err(Reason::NullOrigin),
        ),
        (
            &[("origin", "null"), ("host", "null")],
            Err(Reason::NullOrigin),
        ),
        (
            &[("origin", "http://app.example")],
            Err(Reason::OriginIsNotHost),
        ),
        (
            &[("origin", "https://evilapp.example")],
            Err(Reason::OriginIsNotHost),
        ),
        (
            &[("origin", "HTTPS://APP.EXAMPLE")],
            Err(Reason::OriginIsNotHost),
        ),
    ];

    #[test]
    fn only_requests_from_own_or_listed_origins_and_from_non_browsers_are_allowed() {
        for (lines, want) in CALLERS {
            assert_eq!(check(&origins(), &headers(lines)), want, "{lines:?}");
        }
    }

    #[test]
    fn preflight_for_a_method_or_header_that_is_not_allowed_is_refused() {
        for (method, asked, want) in [
            ("POST", "", None),
            ("POST", "authorization,x-token", None),
            ("POST", "Authorization, , X-TOKEN", None),
            ("POST", "x-token,x-other", Some(Reason::PreflightHeader)),
            ("POST", "x", Some(Reason::PreflightHeader)),
            ("DELETE", "x-token", Some(Reason::PreflightMethod)),
        ] {
            let headers = headers(&[
                ("access-control-request-method", method),
                ("access-control-request-headers", asked),
            ]);
            let found = refused_preflight(&headers, "POST, OPTIONS", &origins());
            assert_eq!(found.map(|(reason, _)| reason), want, "{method} {asked}");
        }
    }
}

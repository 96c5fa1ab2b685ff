//! The routes that only `rollout-token dev` serves: the dev page at `/` and the routes that it calls. Also contains the
//! `Host` check of dev mode. The page itself is in `web/`.

pub mod session;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use serde::Serialize;
use url::Url;

use crate::http::app::{App, read_only};
use crate::http::error::{self, Error};
use crate::http::origin;
use crate::settings::is_loopback;

/// The `Content-Security-Policy` of the dev page: it allows only the page's own script, style and icon, and fetches to
/// this service.
const CSP: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
);

/// The only path whose request body is used. The body is a form that contains a pasted request.
pub const EXPLAIN_PATH: &str = "/dev/explain";

const PAGE: &str = include_str!("../../../web/dev.html");
const SCRIPT: &str = include_str!("../../../web/dev.js");
const STYLE: &str = include_str!("../../../web/dev.css");
const ICON: &str = include_str!("../../../web/dev.svg");

/// The response with a file of the dev page, which axum accepts as a handler.
fn file(content_type: &'static str, content: &'static str) -> impl IntoResponse + Clone {
    ([(header::CONTENT_TYPE, content_type)], content)
}

/// An example of an error response, for the dev page.
#[derive(Debug, Serialize)]
pub struct Sample {
    code: &'static str,
    status: u16,
    headers: BTreeMap<String, String>,
    /// The JSON body as a string, which preserves the order of its members.
    body: String,
}

/// The routes of the dev page. Pages of other origins may not fetch its data, even if they may request tokens.
pub fn routes() -> [(&'static str, MethodRouter<Arc<App>>); 8] {
    let own = |route: MethodRouter<Arc<App>>| route.route_layer(from_fn(own_page_only));
    let page = file("text/html; charset=utf-8", PAGE);
    let page = ([(header::CONTENT_SECURITY_POLICY, CSP)], page);
    let script = file("text/javascript; charset=utf-8", SCRIPT);
    let style = file("text/css; charset=utf-8", STYLE);
    let icon = file("image/svg+xml; charset=utf-8", ICON);
    [
        ("/", read_only(get(page))),
        ("/dev.js", read_only(get(script))),
        ("/dev.css", read_only(get(style))),
        ("/dev.svg", read_only(get(icon))),
        ("/dev/samples", own(read_only(get(samples)))),
        ("/dev/extractors", own(read_only(get(session::extractors)))),
        ("/dev/requests", own(read_only(get(session::requests)))),
        (
            EXPLAIN_PATH,
            own(post(session::explain)).fallback(|| async { Error::MethodNotAllowed("POST") }),
        ),
    ]
}

async fn own_page_only(request: Request, next: Next) -> Result<Response, Error> {
    origin::check_own(request.headers()).map_err(Error::OriginNotAllowed)?;
    Ok(next.run(request).await)
}

/// One example response for each code. The dev page shows the responses that it cannot cause itself, such as the
/// response to a page whose origin is not allowed.
async fn samples() -> Result<Json<Vec<Sample>>, Error> {
    let mut samples = Vec::new();
    for error in Error::every() {
        let mut response = error.respond("sample");
        error::protect(response.headers_mut());
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = response.headers().iter();
        let body = serde_json::to_string(&error.problem("sample"));
        samples.push(Sample {
            code: error.code(),
            status: response.status().as_u16(),
            headers: headers
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect(),
            body: body.map_err(|_| Error::Internal)?,
        });
    }
    Ok(Json(samples))
}

/// Whether the `Host` is a loopback host. If every host were accepted, a page whose host name resolves to this machine
/// (DNS rebinding) would be treated as same-origin.
pub fn is_local(headers: &HeaderMap) -> bool {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let url = host.and_then(|host| Url::parse(&format!("http://{host}")).ok());
    url.is_some_and(|url| is_loopback(&url.origin().ascii_serialization()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_hosts_are_local() {
        for (host, want) in [
            ("localhost", true),
            ("localhost:8080", true),
            ("127.0.0.1:8080", true),
            ("[::1]:8080", true),
            ("127.0.0.2", true),
            ("app.localhost:8080", true),
            ("localhost.evil.example", false),
            ("evil.example", false),
            ("127.0.0.1.nip.io", false),
            ("localhost:80@evil", false),
            ("0.0.0.0:8080", false),
            ("192.168.0.2", false),
            ("evillocalhost", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]);
            assert_eq!(is_local(&headers), want, "{host}");
        }
    }
}

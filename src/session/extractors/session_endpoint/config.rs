//! The configuration of a `session_endpoint` section: its keys, their validation, and the construction of the
//! extractor. `session_endpoint.rs` makes the call and reads the answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use reqwest::Method;
use serde::{Deserialize, Serialize};

use super::context::{Forwarded, X_FORWARDED_FOR};
use super::{SessionEndpoint, WhoAmI};
use crate::config::{HumanDuration, List, Problems, PublicText, Section};
use crate::secret::Secret;
use crate::session::backends::Context;
use crate::session::backends::endpoint::{self, Endpoint};
use crate::session::backends::lookup::Lookups;
use crate::session::backends::waiting::Waiting;
use crate::session::kind::BuildResult;
use crate::session::sections::cookie::Cookie;
use crate::session::sections::session_end::TimePath;

/// Request headers that no key may list: most apply to one connection or one message (RFC 9110, sections 7.6.1 and
/// 8.6), or change the meaning of an answer. The key `cookies` determines the header `Cookie`.
const NEVER_SENT: [HeaderName; 10] = [
    header::ACCEPT_ENCODING,
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::COOKIE,
    header::EXPECT,
    header::RANGE,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// `[extractors.NAME]` with `kind = "session_endpoint"`
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SessionEndpointConfig {
    url: Option<String>,
    method: String,
    cookies: List<String>,
    forward_headers: List<String>,
    context_headers: List<String>,
    /// The values are often API keys, so they are never printed.
    additional_headers: BTreeMap<String, Secret>,
    forwarded: Forwarded,
    signed_out: Option<List<u16>>,
    pass_set_cookie: bool,
    response_headers: List<String>,
    expires_path: Option<String>,
    timeout: HumanDuration,
    connect_timeout: HumanDuration,
    cache_ttl: HumanDuration,
    proxy: Option<Secret>,
    no_proxy: Option<List<String>>,
    ca: Option<PublicText>,
    max_waiting: Option<usize>,
    allow_http: bool,
    /// For presets: the path that is added to a `url` without a path.
    #[serde(skip_serializing)]
    path: Option<String>,
}

impl Default for SessionEndpointConfig {
    fn default() -> Self {
        Self {
            url: None,
            method: "GET".to_owned(),
            cookies: List::default(),
            forward_headers: List::default(),
            context_headers: List::default(),
            additional_headers: BTreeMap::new(),
            forwarded: Forwarded::Scheme,
            signed_out: None,
            pass_set_cookie: true,
            response_headers: List::default(),
            expires_path: None,
            timeout: HumanDuration::secs(2),
            connect_timeout: endpoint::CONNECT_TIMEOUT,
            cache_ttl: HumanDuration::secs(0),
            proxy: None,
            no_proxy: None,
            ca: None,
            max_waiting: None,
            allow_http: false,
            path: None,
        }
    }
}

pub fn build(section: &Section<'_>, context: &Context) -> BuildResult {
    let mut problems = Problems::default();
    let mut config: SessionEndpointConfig = section.read(&mut problems);
    add_path(&mut config);
    let keys = endpoint::EndpointConfig {
        url: config.url.as_deref(),
        timeout: config.timeout,
        connect_timeout: config.connect_timeout,
        cache_ttl: config.cache_ttl,
        longest_cache_ttl: HumanDuration::secs(10),
        is_repeatable: config.method == "GET",
        allow_http: config.allow_http,
    };
    let context = &context.through(
        section,
        config.proxy.take(),
        config.no_proxy.take(),
        config.ca.take(),
        &mut problems,
    );
    let endpoint = Endpoint::new(section, context, keys, &mut problems);
    let waiting = Waiting::read(section, context, config.max_waiting, &mut problems);
    let signed_out = config.signed_out.take().map(|List(statuses)| statuses);
    let mut statuses = signed_out.iter().flatten();
    problems.require(
        statuses.all(|status| (201..=499).contains(status)),
        section.key("signed_out"),
        "must be statuses from 201 to 499: 200 means signed in, and 5xx means that the app failed",
    );
    let method = match config.method.as_str() {
        "POST" => Ok(Method::POST),
        "GET" => Ok(Method::GET),
        _ => Err("must be GET or POST"),
    };
    let method = problems.accept(section.key("method"), method);
    let cookies = check_cookies(section, &config, &mut problems);
    let forward_headers = check_headers(
        section,
        "forward_headers",
        &config.forward_headers,
        &mut problems,
    );
    let context_headers = check_headers(
        section,
        "context_headers",
        &config.context_headers,
        &mut problems,
    );
    let repeated = context_headers
        .iter()
        .filter(|name| forward_headers.contains(name));
    for name in repeated {
        let text = format!(
            "contains {name}, which is also in forward_headers: keep it in one of the two keys"
        );
        problems.add(section.key("context_headers"), text);
    }
    let from_caller = [
        ("forward_headers", &forward_headers),
        ("context_headers", &context_headers),
    ];
    let additional_headers = check_additional(section, &config, &from_caller, &mut problems);
    let names = config.response_headers.iter();
    let key = section.key("response_headers");
    let response_headers = names
        .filter_map(|name| problems.parse(&*key, name, "names of headers"))
        .collect();
    let expires = config.expires_path.as_deref();
    let expires = expires.and_then(|path| TimePath::read(section, path, &mut problems));
    // `session/builder.rs` reports an invalid template.
    let subject = section.subject().parse();
    let (Some(endpoint), Ok(subject), true) = (endpoint, subject, problems.is_empty()) else {
        return Err(problems);
    };
    let passed_cookies = if config.pass_set_cookie {
        cookies.clone()
    } else {
        Vec::new()
    };
    Ok(Arc::new(SessionEndpoint {
        whoami: Arc::new(WhoAmI {
            endpoint,
            method: method.unwrap_or_default(),
            context_headers,
            additional_headers,
            forwarded: config.forwarded,
            signed_out,
            passed_cookies,
            response_headers,
            expires,
            subject,
        }),
        cookies,
        forward_headers,
        lookups: Lookups::new(section.name(), context, waiting),
    }))
}

/// Adds the preset's path to a `url` that has no path. An invalid URL is reported later.
fn add_path(config: &mut SessionEndpointConfig) {
    if let (Some(url), Some(path)) = (&config.url, &config.path)
        && let Ok(mut url) = url::Url::parse(url)
        && url.path() == "/"
    {
        url.set_path(path);
        config.url = Some(url.into());
    }
}

fn check_cookies(
    section: &Section<'_>,
    config: &SessionEndpointConfig,
    problems: &mut Problems,
) -> Vec<String> {
    problems.require(
        !(config.cookies.is_empty() && config.forward_headers.is_empty()),
        section.key("cookies"),
        "is empty, so the endpoint could not recognise the caller: list the app's session cookies, or headers in \
         forward_headers",
    );
    let names = config.cookies.iter();
    names
        .filter_map(|name| Cookie::named(section, "cookies", name, problems))
        .map(|cookie| cookie.name().to_owned())
        .collect()
}

/// The valid names among the caller's headers that are listed under `key`. Reports each other name as a problem.
fn check_headers(
    section: &Section<'_>,
    key: &str,
    names: &List<String>,
    problems: &mut Problems,
) -> Vec<HeaderName> {
    let mut headers = Vec::new();
    let is_context = key == "context_headers";
    let key = section.key(key);
    for name in names.iter() {
        let Some(name) = problems.parse::<HeaderName>(&*key, name, "names of headers") else {
            continue;
        };
        let why = if name == header::COOKIE {
            problems.add(
                &*key,
                "must not contain Cookie, which would forward every cookie: list the cookies to forward in the key cookies",
            );
            continue;
        } else if name == header::HOST || NEVER_SENT.contains(&name) {
            "is never forwarded"
        } else if name == X_FORWARDED_FOR && !is_context {
            "is not a credential: list it in context_headers"
        } else if name != X_FORWARDED_FOR && describes_the_route(&name) {
            "any caller can set: use the key forwarded instead"
        } else {
            headers.push(name);
            continue;
        };
        problems.add(&*key, format!("must not contain {name}, which {why}"));
    }
    headers
}

/// Whether proxies describe the original request in this header (RFC 7239 and its predecessors).
fn describes_the_route(name: &HeaderName) -> bool {
    *name == header::FORWARDED || name.as_str().starts_with("x-forwarded-")
}

fn check_additional(
    section: &Section<'_>,
    config: &SessionEndpointConfig,
    from_caller: &[(&str, &Vec<HeaderName>)],
    problems: &mut Problems,
) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &config.additional_headers {
        let key = format!("additional_headers.{name}");
        let secret = section.secret(&key, Some(value.clone()), problems);
        let Some(value) = secret else { continue };
        let key = section.key(&key);
        let name = problems.parse::<HeaderName>(&*key, name, "the name of a header");
        let value = HeaderValue::from_bytes(value.expose())
            .map_err(|_| "must be text without line breaks or other control characters");
        let (Some(name), Some(mut value)) = (name, problems.accept(&*key, value)) else {
            continue;
        };
        let mut lists = from_caller.iter();
        if NEVER_SENT.contains(&name) {
            problems.add(key, "is a header that cannot be set here: remove it");
        } else if let Some((list, _)) = lists.find(|(_, names)| names.contains(&name)) {
            let text = format!("is also in {list}: keep it in one of the two keys");
            problems.add(key, text);
        } else {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    }
    headers
}

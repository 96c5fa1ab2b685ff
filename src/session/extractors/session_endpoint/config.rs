//! The configuration of a `session_endpoint` section: its keys, their checks, and the extractor built from them.
//! The call, and how answers are read, is in `session_endpoint.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use reqwest::Method;
use serde::{Deserialize, Serialize};

use super::{Forwarded, SessionEndpoint, SignedOut, WhoAmI};
use crate::config::{HumanDuration, List, Problems, Section};
use crate::secret::Secret;
use crate::session::backends::Context;
use crate::session::backends::endpoint::{self, Endpoint};
use crate::session::backends::lookup::Lookups;
use crate::session::backends::waiting::Waiting;
use crate::session::sections::cookie::Cookie;
use crate::session::types::SessionExtractor;

/// Headers that are never sent: they belong to one connection or one message (RFC 9110, sections 7.6.1 and 8.6),
/// or they change what an answer means.
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
    /// The values are often API keys, so they are never printed.
    additional_headers: BTreeMap<String, Secret>,
    signed_out: Option<List<u16>>,
    response_headers: List<String>,
    expires_path: Option<String>,
    timeout: HumanDuration,
    connect_timeout: HumanDuration,
    cache_ttl: HumanDuration,
    max_waiting: Option<usize>,
    allow_http: bool,
    /// For presets: the path of a `url` that has none.
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
            additional_headers: BTreeMap::new(),
            signed_out: None,
            response_headers: List::default(),
            expires_path: None,
            timeout: HumanDuration::secs(2),
            connect_timeout: HumanDuration::millis(300),
            cache_ttl: HumanDuration::secs(0),
            max_waiting: None,
            allow_http: false,
            path: None,
        }
    }
}

pub fn build(
    section: &Section<'_>,
    context: &Context,
) -> Result<Arc<dyn SessionExtractor>, Problems> {
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
    let endpoint = Endpoint::new(section, context, keys, &mut problems);
    let waiting = Waiting::read(section, context, config.max_waiting, &mut problems);
    let signed_out = check_signed_out(section, &config, &mut problems);
    let method = match config.method.as_str() {
        "POST" => Method::POST,
        "GET" => Method::GET,
        _ => {
            problems.add(section.key("method"), "must be GET or POST");
            Method::GET
        }
    };
    let forwarded = check_forwarded(section, &config, &mut problems);
    let additional_headers = check_additional(section, &config, &forwarded, &mut problems);
    let names = config.response_headers.iter();
    let response_headers = names
        .filter_map(|name| {
            problems.parse(section.key("response_headers"), name, "names of headers")
        })
        .collect();
    let expires = config.expires_path.as_deref().map(|path| {
        let path = if path.contains('{') {
            path.to_owned()
        } else {
            format!("{{{path}}}")
        };
        path.parse()
    });
    let expires = expires.and_then(|path| problems.accept(section.key("expires_path"), path));
    let Some(endpoint) = endpoint.filter(|_| problems.is_empty()) else {
        return Err(problems);
    };
    Ok(Arc::new(SessionEndpoint {
        forwarded,
        whoami: Arc::new(WhoAmI {
            endpoint,
            method,
            additional_headers,
            signed_out,
            response_headers,
            expires,
        }),
        lookups: Lookups::new(section.name(), context, waiting),
    }))
}

/// Adds the preset's path to a `url` without path. An invalid URL is reported later.
fn add_path(config: &mut SessionEndpointConfig) {
    let url = config
        .url
        .as_deref()
        .and_then(|url| url::Url::parse(url).ok());
    if let (Some(mut url), Some(path)) = (url, &config.path)
        && url.path() == "/"
    {
        url.set_path(path);
        config.url = Some(url.into());
    }
}

fn check_signed_out(
    section: &Section<'_>,
    config: &SessionEndpointConfig,
    problems: &mut Problems,
) -> SignedOut {
    let Some(statuses) = &config.signed_out else {
        return SignedOut::Default;
    };
    problems.require(
        statuses.iter().all(|status| (201..=499).contains(status)),
        section.key("signed_out"),
        "must be statuses from 201 to 499: 200 is a session, and 5xx is a failure of the app",
    );
    SignedOut::Listed(statuses.0.clone())
}

fn check_forwarded(
    section: &Section<'_>,
    config: &SessionEndpointConfig,
    problems: &mut Problems,
) -> Vec<Forwarded> {
    let mut forwarded = Vec::new();
    for name in config.cookies.iter() {
        let cookie = Cookie::named(section, "cookies", name, problems);
        forwarded.extend(cookie.map(|cookie| Forwarded::Cookie(cookie.name().to_owned())));
    }
    for name in config.forward_headers.iter() {
        let key = section.key("forward_headers");
        match problems.parse::<HeaderName>(&*key, name, "names of headers") {
            Some(header::COOKIE) => {
                problems.add(
                    key,
                    "must not contain Cookie, which would send every cookie: name the cookies to send in cookies",
                );
            }
            Some(name) if name == header::HOST || NEVER_SENT.contains(&name) => {
                problems.add(
                    key,
                    format!("must not contain {name}, which is never forwarded"),
                );
            }
            Some(name) => forwarded.push(Forwarded::Header(name)),
            None => {}
        }
    }
    problems.require(
        !(config.cookies.is_empty() && config.forward_headers.is_empty()),
        section.key("cookies"),
        "is empty, so the endpoint could not recognise the caller: list the app's session cookies, or headers in \
         forward_headers",
    );
    forwarded
}

fn check_additional(
    section: &Section<'_>,
    config: &SessionEndpointConfig,
    forwarded: &[Forwarded],
    problems: &mut Problems,
) -> HeaderMap {
    let mut headers =
        HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static("application/json"))]);
    for (name, value) in &config.additional_headers {
        let key = format!("additional_headers.{name}");
        let secret = section.secret(&key, Some(value.clone()), problems);
        let Some(value) = secret else { continue };
        let key = section.key(&key);
        let name = problems.parse::<HeaderName>(&*key, name, "the name of a header");
        let value =
            HeaderValue::from_bytes(value.expose()).map_err(|_| "must be text without line breaks");
        let (Some(name), Some(mut value)) = (name, problems.accept(&*key, value)) else {
            continue;
        };
        if NEVER_SENT.contains(&name) {
            problems.add(key, "is a header that is never sent: remove it");
        } else if forwarded.contains(&Forwarded::Header(name.clone())) {
            problems.add(key, "is also in forward_headers: remove one");
        } else {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    }
    headers
}

//! `doctor`: mints a token and asks Rollout whether it accepts it, and says what to mend if not.

use std::cmp::Ordering;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use reqwest::{Method, Request};

use super::{Failure, block_on, context, mint_for, say};
use crate::clock::{Clock, UnixSeconds};
use crate::config::{self, Sources};
use crate::extractors::shared::http::{HttpClient, Limits, check_url};
use crate::subject::Subject;

/// What Rollout's API is called with; nobody's credentials are stored under it.
const SUBJECT: &str = "rollout-token-doctor";
/// Verifiers differ in how much of a difference they forgive; from here on some forgive none.
const CLOCK_TOLERANCE: UnixSeconds = 5;
/// Far away and perhaps behind a slow name server: patience costs nothing here.
const LIMITS: Limits = Limits {
    connect: std::time::Duration::from_secs(5),
    total: std::time::Duration::from_secs(10),
    body: 1024 * 1024,
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Rollout's API.
    #[arg(long, value_name = "URL", default_value = "https://universal.rollout.com/api")]
    base_url: String,
}

pub fn run(args: &Args, sources: &Sources) -> Result<(), Failure> {
    let client = config::load_client(sources)?;
    let url = format!("{}/credentials", args.base_url.trim_end_matches('/'));
    let url =
        check_url(&url, false).map_err(|text| Failure::Config(config::Problems::of("--base-url", text)))?;
    let clock = Clock::system();
    let subject = Subject::new(SUBJECT).map_err(|_| Failure::Runtime("cannot name a subject".to_owned()))?;
    let token = mint_for(&client, &subject, &clock)?;

    let mut request = Request::new(Method::GET, url);
    let mut bearer = HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_| Failure::Runtime("cannot write a header".to_owned()))?;
    bearer.set_sensitive(true);
    request.headers_mut().insert(header::AUTHORIZATION, bearer);
    let host = request.url().host_str().unwrap_or_default().to_owned();
    let http: HttpClient = context().http;
    let answer = block_on(http.send(request, LIMITS))?
        .map_err(|error| Failure::Runtime(format!("cannot reach {host}: {error}")))?;

    let ahead = clock_difference(&answer.headers, clock.now());
    match answer.status {
        StatusCode::OK => {
            say(format_args!("{host} accepts the client id {:?} and its secret.", client.id))?;
            match ahead.and_then(describe_difference) {
                Some(text) => say(format_args!("But {text}: others may refuse the tokens.")),
                None => Ok(()),
            }
        }
        StatusCode::UNAUTHORIZED => Err(Failure::Runtime(match ahead.and_then(describe_difference) {
            Some(text) => format!("{host} refuses the token, and {text}: set the clock (NTP) and try again"),
            None => format!(
                "{host} refuses the client id {:?} or its secret: compare both with your Rollout dashboard",
                client.id
            ),
        })),
        status => Err(Failure::Runtime(format!(
            "{host} answered {}, which says nothing about client id and secret",
            status.as_u16()
        ))),
    }
}

/// How many seconds this machine's clock is ahead of the other side's, by its `Date` (RFC 9110, 6.6.1).
fn clock_difference(headers: &HeaderMap, now: UnixSeconds) -> Option<UnixSeconds> {
    let date = headers.get(header::DATE)?.to_str().ok()?;
    let theirs = httpdate::parse_http_date(date).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(now - UnixSeconds::try_from(theirs.as_secs()).ok()?)
}

fn describe_difference(ahead: UnixSeconds) -> Option<String> {
    let by = ahead.abs();
    match ahead.cmp(&0) {
        _ if by <= CLOCK_TOLERANCE => None,
        Ordering::Greater => Some(format!("this machine's clock is {by} s ahead")),
        _ => Some(format!("this machine's clock is {by} s behind")),
    }
}

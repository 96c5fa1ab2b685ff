//! `doctor`: mints a token and asks Rollout whether it accepts it, and says what to fix if not.
//! How tokens are made is in the room `token`.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use reqwest::{Method, Request};

use super::mint::{TOKEN_LIFE, mint_for};
use super::{Failure, block_on, context, say};
use crate::clock::{Clock, UnixSeconds};
use crate::config::{Problems, Sources};
use crate::session::backends::http::{CallLimits, HttpClient, check_url};
use crate::session::subject::Subject;
use crate::settings;

/// The subject of the token that Rollout's API is called with. No user has it, so no credentials are stored under it.
const SUBJECT: &str = "rollout-token-doctor";
/// The clock difference in seconds above which some verifiers refuse tokens.
const CLOCK_TOLERANCE: UnixSeconds = 5;
/// Longer than for a backend of the service: a person waits, and the name server may be slow.
const LIMITS: CallLimits = CallLimits {
    connect: std::time::Duration::from_secs(5),
    total: std::time::Duration::from_secs(10),
    body: 1024 * 1024,
    retry_closed: true,
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Rollout's API.
    #[arg(
        long,
        value_name = "URL",
        default_value = "https://universal.rollout.com/api"
    )]
    base_url: String,
}

pub fn run(args: &Args, sources: &Sources) -> Result<(), Failure> {
    let client = settings::load_client(sources)?;
    let url = format!("{}/credentials", args.base_url.trim_end_matches('/'));
    let url =
        check_url(&url, false).map_err(|text| Failure::Config(Problems::of("--base-url", text)))?;
    let clock = Clock::system();
    let subject =
        Subject::new(SUBJECT).map_err(|_| Failure::Runtime("cannot name a subject".to_owned()))?;
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

    let clock = ClockDifference::of(&answer.headers, clock.now());
    let aside = clock
        .describe()
        .map_or_else(String::new, |text| format!("; besides, {text}"));
    match answer.status {
        // A page for people, say, at a wrong address.
        StatusCode::OK if serde_json::from_slice::<serde_json::Value>(&answer.body).is_err() => {
            Err(Failure::Runtime(format!(
                "{host} answered with something that is not JSON: is --base-url the address of Rollout's API?"
            )))
        }
        StatusCode::OK => {
            say(format_args!(
                "{host} accepts the client id {:?} and its secret.",
                client.id
            ))?;
            match clock.describe() {
                Some(text) => say(format_args!("But {text}: others may refuse the tokens.")),
                None => Ok(()),
            }
        }
        StatusCode::UNAUTHORIZED if clock.invalidates_tokens() => Err(Failure::Runtime(format!(
            "{host} refuses the token, and {}: set the clock (NTP) and try again",
            clock.describe().unwrap_or_default()
        ))),
        StatusCode::UNAUTHORIZED => Err(Failure::Runtime(format!(
            "{host} refuses the client id {:?} or its secret: compare both with your Rollout dashboard{aside}",
            client.id
        ))),
        status => Err(Failure::Runtime(format!(
            "{host} answered {}, which says nothing about client id and secret{aside}",
            status.as_u16()
        ))),
    }
}

/// How many seconds this machine's clock is ahead of the other side's, by its `Date` (RFC 9110, section 6.6.1).
#[derive(Clone, Copy)]
struct ClockDifference(UnixSeconds);

impl ClockDifference {
    /// 0 without a `Date`.
    fn of(headers: &HeaderMap, now: UnixSeconds) -> Self {
        let date = headers
            .get(header::DATE)
            .and_then(|date| date.to_str().ok());
        let theirs = date.and_then(|date| httpdate::parse_http_date(date).ok());
        let theirs = theirs.and_then(|date| date.duration_since(std::time::UNIX_EPOCH).ok());
        Self(
            theirs
                .and_then(|date| UnixSeconds::try_from(date.as_secs()).ok())
                .map_or(0, |theirs| now - theirs),
        )
    }

    fn describe(self) -> Option<String> {
        let by = self.0.abs();
        let direction = if self.0 > 0 { "ahead" } else { "behind" };
        (by > CLOCK_TOLERANCE).then(|| format!("this machine's clock is {by} s {direction}"))
    }

    /// Whether a good token would seem to be issued in the future, or expired.
    fn invalidates_tokens(self) -> bool {
        self.0 > CLOCK_TOLERANCE || self.0 < CLOCK_TOLERANCE - TOKEN_LIFE
    }
}

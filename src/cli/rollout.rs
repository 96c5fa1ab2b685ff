//! The endpoint of Rollout's API that the commands call: `GET /credentials`, with a token for a subject.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use reqwest::{Method, Request};
use serde_json::Value;
use url::Url;

use super::Failure;
use super::mint::{TOKEN_LIFE, mint_for};
use super::waiting::WaitNotice;
use crate::clock::{Clock, UnixSeconds};
use crate::config::Problems;
use crate::session::backends::http::{CallLimits, HttpClient, check_url};
use crate::session::subject::Subject;
use crate::session::types::BackendCall;
use crate::token::RolloutClient;

/// The clock difference, in seconds, above which some verifiers refuse tokens.
const CLOCK_TOLERANCE: UnixSeconds = 5;

/// These timeouts are longer than the service's own, because a command can wait for slow DNS.
const LIMITS: CallLimits = CallLimits {
    connect: Duration::from_secs(5),
    total: Duration::from_secs(10),
    body: 1024 * 1024,
    retry_closed: true,
};

#[derive(Debug, clap::Args)]
pub(super) struct ApiArgs {
    /// The base URL of Rollout's API.
    #[arg(
        long,
        value_name = "URL",
        default_value = "https://universal.rollout.com/api"
    )]
    base_url: String,
}

impl ApiArgs {
    /// The URL that lists the credentials of the token's subject.
    pub(super) fn credentials(&self) -> Result<Url, Failure> {
        let url = format!("{}/credentials", self.base_url.trim_end_matches('/'));
        check_url(&url, false).map_err(|text| Failure::Config(Problems::of("--base-url", text)))
    }
}

/// Rollout's response.
pub(super) struct Answered {
    /// The credentials, or why Rollout did not return them.
    pub(super) credentials: Result<Value, String>,
    pub(super) clock: ClockDifference,
}

/// Requests the credentials of `subject` with a fresh token.
pub(super) async fn get_credentials(
    url: &Url,
    client: &RolloutClient,
    subject: &Subject,
    http: &HttpClient,
) -> Result<Answered, Failure> {
    let clock = Clock::system();
    let token = mint_for(client, subject, &clock)?;
    let mut request = Request::new(Method::GET, url.clone());
    let mut bearer = HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_| Failure::Runtime("cannot build the Authorization header".to_owned()))?;
    bearer.set_sensitive(true);
    request.headers_mut().insert(header::AUTHORIZATION, bearer);
    let host = url.host_str().unwrap_or_default();
    let waiting = WaitNotice::for_backend(&BackendCall {
        backend: format!("Rollout at {url}"),
        at_most: LIMITS.total,
    });
    let answer = http.send(request, LIMITS).await;
    drop(waiting);
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            return Ok(Answered {
                credentials: Err(format!("cannot reach {host}: {error}")),
                clock: ClockDifference(0),
            });
        }
    };
    let clock = ClockDifference::of(&answer.headers, clock.now());
    let aside = clock
        .describe()
        .map_or_else(String::new, |text| format!("; besides, {text}"));
    let credentials = match answer.status {
        // The body is not JSON if, for example, a web page is at this URL.
        StatusCode::OK => serde_json::from_slice(&answer.body).map_err(|_| {
            format!("{host} answered with a body that is not JSON: check that --base-url is the address of Rollout's API")
        }),
        StatusCode::UNAUTHORIZED if clock.invalidates_tokens() => Err(format!(
            "{host} refuses the token, and {}: set the clock (NTP) and try again",
            clock.describe().unwrap_or_default()
        )),
        StatusCode::UNAUTHORIZED => Err(format!(
            "{host} refuses the client id {:?} or its secret: compare both with your Rollout dashboard{aside}",
            client.id
        )),
        status => Err(format!(
            "{host} answered {}, so it is unknown whether it accepts the client id and secret{aside}",
            status.as_u16()
        )),
    };
    Ok(Answered { credentials, clock })
}

/// How many seconds this machine's clock is ahead of the server's, according to the `Date` header (RFC 9110, section
/// 6.6.1).
#[derive(Clone, Copy)]
pub(super) struct ClockDifference(pub(super) UnixSeconds);

impl ClockDifference {
    /// The difference, or 0 if there is no valid `Date` header.
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

    /// Describes the difference, or returns `None` if it is at most [`CLOCK_TOLERANCE`].
    pub(super) fn describe(self) -> Option<String> {
        let by = self.0.abs();
        let direction = if self.0 > 0 { "ahead" } else { "behind" };
        (by > CLOCK_TOLERANCE).then(|| format!("this machine's clock is {by} s {direction}"))
    }

    /// Whether the difference makes a valid token appear to be issued in the future or expired.
    fn invalidates_tokens(self) -> bool {
        self.0 > CLOCK_TOLERANCE || self.0 < CLOCK_TOLERANCE - TOKEN_LIFE
    }
}

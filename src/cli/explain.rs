//! `explain`: passes one request through the chain, and prints each extractor's result. The checks before the chain are
//! in `http/explain.rs`, the chain itself in `session/explain.rs`.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header};

use super::dev::dev_sources;
use super::waiting::{self, Waiting};
use super::{Failure, block_on, context, say, with_throwaway_client};
use crate::config::Sources;
use crate::http;
use crate::http::app::App;
use crate::http::error::Error;
use crate::http::explain::Beginning;
use crate::http::origin::Caller;
use crate::http::pasted::{self, CurlArgs};
use crate::http::server::Drain;
use crate::session::chain::{Chain, ConfiguredExtractor};
use crate::session::detect::{Detected, detect};
use crate::session::explain;
use crate::session::formats::shown::escaped;
use crate::session::registry::Registry;
use crate::settings;

/// The request, as curl's own flags or as the raw text of an HTTP request.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    request: CurlArgs,
    /// A file with a raw HTTP request, or - for standard input. Unlike flags, it is not visible to other users of the
    /// machine.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["words", "headers", "cookies"])]
    raw: Option<PathBuf>,
    /// The IP address of the client or proxy that sends the request.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    peer: IpAddr,
    /// Explains the request as `dev` would handle it: the kind `static_user` is allowed.
    #[arg(long)]
    dev: bool,
}

pub fn run(args: &Args, mut sources: Sources, registry: &Registry) -> Result<(), Failure> {
    let mut context = context();
    context.dev = args.dev;
    (sources, _) = if args.dev {
        dev_sources(sources)?
    } else {
        let (sources, client) = with_throwaway_client(sources)?;
        (sources, client.secret)
    };
    let settings = settings::load(&sources, registry, &context)?;
    let app = App::new(settings, context, Drain::default());
    let pasted = pasted_request(args)?;
    block_on(async {
        let chain = &app.live().settings.chain;
        let beginning = match &pasted.raw {
            Some(raw) => http::explain::raw(&app, raw, args.peer.to_canonical()).await,
            None => http::explain::headers(&app.live().settings, pasted.head.clone()),
        };
        let found = detect(&pasted.head.headers, registry);
        explain(chain, beginning, &pasted, &found).await
    })?
}

/// Prints the result of the checks before the extractors, then each extractor's result. It tries the extractors even if
/// the service would refuse the request earlier, so that the operator sees all results.
async fn explain(
    chain: &Chain,
    beginning: Beginning,
    request: &Pasted,
    found: &[Detected],
) -> Result<(), Failure> {
    let pasted = &request.head;
    let (head, caller, before) = match beginning {
        Beginning::Reached(head, caller) => {
            let who = match caller {
                Caller::NoBrowser => "the client is not a browser",
                Caller::SameOrigin => "the page has the service's own origin",
                Caller::Listed => "the page's origin is in origins.allowed",
                Caller::ListedByPattern => {
                    "the page's origin matches a pattern, so only a bearer token identifies the user"
                }
            };
            say(format_args!("origin: allowed, {who}"))?;
            (Cow::Owned(head), Some(caller), None)
        }
        Beginning::Refused(error) => {
            say_refusal(&error, pasted)?;
            (Cow::Borrowed(pasted), None, Some(describe_answer(&error)))
        }
        Beginning::RefusedPreflight(status, reason) => {
            say(format_args!(
                "request: preflight refused with reason {reason}, so the browser does not send the request ({}: {}, {}: {})",
                header::ACCESS_CONTROL_REQUEST_METHOD,
                shown(pasted, &header::ACCESS_CONTROL_REQUEST_METHOD),
                header::ACCESS_CONTROL_REQUEST_HEADERS,
                shown(pasted, &header::ACCESS_CONTROL_REQUEST_HEADERS),
            ))?;
            (
                Cow::Borrowed(pasted),
                None,
                Some(status.as_u16().to_string()),
            )
        }
        Beginning::Answered(outcome) => {
            say(format_args!(
                "request: answered with {outcome} before any extractor is tried"
            ))?;
            (Cow::Borrowed(pasted), None, Some(outcome))
        }
    };
    if let (Some(problem), Some(answer)) = (&request.problem, &before) {
        say(format_args!("    {problem}"))?;
        return say(format_args!("answer: {answer}"));
    }
    let mut waiting = None;
    let asking = |asked: &ConfiguredExtractor| waiting = Some(Waiting::for_extractor(asked));
    let explanation = if caller == Some(Caller::ListedByPattern) {
        explain::explain_bearer_alone(chain, &head, asking).await
    } else {
        explain::explain(chain, &head, asking).await
    };
    drop(waiting);
    for step in &explanation.steps {
        let decides = step.decides && before.is_none();
        let mark = if decides { "  <- decides" } else { "" };
        say(format_args!(
            "{} ({}): {}{mark}",
            step.name,
            step.kind,
            step.said.describe()
        ))?;
        if let Some(shape) = &step.shape {
            say(format_args!("    of a session with {shape}"))?;
        }
        for note in &step.notes {
            say(format_args!("    {}", escaped(note)))?;
        }
    }
    for line in explain::searched(&explanation, &head.headers) {
        say(format_args!("    {}", escaped(&line)))?;
    }
    for hint in explain::hints(found, &explanation) {
        say(format_args!("    {hint}"))?;
    }
    let verdict = match (before, explanation.outcome) {
        (Some(before), _) => before,
        (None, Ok(_)) => "200, a token".to_owned(),
        (None, Err(denied)) => describe_answer(&denied.into()),
    };
    say(format_args!("answer: {verdict}"))
}

/// Prints why the service would refuse the request before it tries an extractor, with the values that it compared.
fn say_refusal(error: &Error, pasted: &Parts) -> Result<(), Failure> {
    let what = match error {
        Error::OriginNotAllowed(_) | Error::HostNotAllowed => "origin: refused",
        Error::NotAFetch(_) => "request: refused (not a fetch by a script)",
        _ => "request: refused",
    };
    say(format_args!(
        "{what} with reason {}, so no extractor would run (Origin: {}, Host: {})",
        error.reason(),
        shown(pasted, &header::ORIGIN),
        shown(pasted, &header::HOST)
    ))?;
    let path_ends_in_token = pasted.uri.path().ends_with("token");
    for text in error
        .cause()
        .into_iter()
        .chain(error.hint(path_ends_in_token))
    {
        say(format_args!("    {text}"))?;
    }
    Ok(())
}

/// A header of the request, with control characters escaped.
fn shown(pasted: &Parts, name: &HeaderName) -> String {
    let value = pasted.headers.get(name).map(HeaderValue::as_bytes);
    value.map_or_else(
        || "none".to_owned(),
        |value| value.escape_ascii().to_string(),
    )
}

fn describe_answer(error: &Error) -> String {
    format!("{} {}", error.status().as_u16(), error.code())
}

/// A request as the operator pasted it.
struct Pasted {
    /// The headers, and the URI if the pasted text contains a request line.
    head: Parts,
    /// The whole pasted text, if it is a raw HTTP request.
    raw: Option<Vec<u8>>,
    /// The problem, if the headers cannot be parsed.
    problem: Option<String>,
}

fn pasted_request(args: &Args) -> Result<Pasted, Failure> {
    let (mut head, ()) = Request::new(()).into_parts();
    let raw = args.raw.as_deref().map(waiting::request).transpose()?;
    let mut problem = None;
    head.headers = match &raw {
        None => args.request.headers_with_host().map_err(Failure::Usage)?,
        Some(text) if pasted::is_curl(text) => pasted::curl(text)
            .and_then(|command| command.headers_with_host())
            .map_err(Failure::Usage)?,
        Some(text) => {
            let (line, lines) = pasted::head_lines(text);
            head.uri = line.and_then(target).unwrap_or_default();
            let lines = lines.iter().filter(|line| !line.starts_with(b":"));
            pasted::headers_of(lines.map(Vec::as_slice)).unwrap_or_else(|text| {
                problem = Some(text);
                HeaderMap::new()
            })
        }
    };
    head.extensions
        .insert(ConnectInfo(SocketAddr::new(args.peer.to_canonical(), 0)));
    Ok(Pasted {
        head,
        raw: raw.filter(|text| !pasted::is_curl(text)),
        problem,
    })
}

fn target(line: &[u8]) -> Option<Uri> {
    let target = line.split(|&byte| byte == b' ').nth(1)?;
    Uri::try_from(target).ok()
}

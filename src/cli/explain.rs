//! `explain`: passes one request through the chain, and prints each extractor's result. `http/explain.rs` explains the
//! checks before the chain, and `session/explain.rs` the chain.

use std::net::IpAddr;
use std::path::PathBuf;

use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri};

use super::dev::DEV_BASE;
use super::waiting::{self, WaitNotice};
use super::{Failure, block_on, context, say, with_throwaway_client};
use crate::config::Sources;
use crate::http;
use crate::http::app::App;
use crate::http::explain::Checks;
use crate::http::pasted::{self, CurlArgs};
use crate::http::server::Drain;
use crate::session::chain::{Chain, ConfiguredExtractor};
use crate::session::detect::{Detected, detect};
use crate::session::explain;
use crate::session::formats::shown::escaped;
use crate::session::registry::Registry;
use crate::settings;

/// The request, as curl's own flags or as text in a file, its peer, and whether to explain it as `dev` would.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    request: CurlArgs,
    /// A file with the request (a cURL command, a raw HTTP request, header lines, or only cookies or a token), or - for
    /// standard input. Other users of the machine can see flags, but not this input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["words", "headers", "cookies"])]
    raw: Option<PathBuf>,
    /// The IP address of the client or proxy that sends the request.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    peer: IpAddr,
    /// Explains the request as `dev` would handle it, with the defaults and the origin check of `dev`.
    #[arg(long)]
    dev: bool,
}

pub fn run(args: &Args, sources: Sources, registry: &Registry) -> Result<(), Failure> {
    let mut context = context();
    context.dev = args.dev;
    let base = if args.dev { DEV_BASE } else { "" };
    let (sources, _) = with_throwaway_client(sources, base)?;
    let settings = settings::load(&sources, registry, &context)?;
    let app = App::new(settings, registry, context, Drain::default());
    let pasted = pasted_request(args)?;
    block_on(async {
        let chain = &app.live().settings.chain;
        let beginning = match &pasted.raw {
            Some(raw) => http::explain::raw(&app, raw, args.peer.to_canonical()).await,
            None => http::explain::headers(&app.live().settings, pasted.head.clone()),
        };
        let found = detect(&pasted.head.headers, registry);
        let checks = beginning.describe(&pasted.head);
        explain(chain, checks, pasted.problem.as_deref(), &found).await
    })?
}

/// Prints the result of the checks before the extractors, each extractor's result, hints, and the service's answer.
async fn explain(
    chain: &Chain,
    checks: Checks,
    problem: Option<&str>,
    found: &[Detected],
) -> Result<(), Failure> {
    for (index, line) in checks.lines.iter().enumerate() {
        say(format_args!(
            "{}{line}",
            if index > 0 { "    " } else { "" }
        ))?;
    }
    if let (Some(problem), Some(answer)) = (problem, &checks.answer) {
        say(format_args!("    {problem}"))?;
        return say(format_args!("answer: {answer}"));
    }
    let mut waiting = None;
    let asking = |asked: &ConfiguredExtractor| waiting = Some(WaitNotice::for_extractor(asked));
    let explanation = checks.explain(chain, asking).await;
    drop(waiting);
    for step in &explanation.steps {
        let mark = if step.decides { "  <- decides" } else { "" };
        say(format_args!(
            "{} ({}): {}{mark}",
            step.name,
            step.kind,
            step.said.describe()
        ))?;
        if let Some(shape) = &step.shape {
            say(format_args!("    the session has {shape}"))?;
        }
        for note in &step.notes {
            say(format_args!("    {}", escaped(note)))?;
        }
    }
    for line in explain::searched(&explanation, &checks.head.headers) {
        say(format_args!("    {}", escaped(&line)))?;
    }
    for hint in explain::hints(found, &explanation, &checks.head.headers) {
        say(format_args!("    {hint}"))?;
    }
    let answer = checks.verdict(explanation.outcome);
    let answer = answer.map_or_else(|answer| answer, |_| "200, a token".to_owned());
    say(format_args!("answer: {answer}"))
}

/// A request as the operator pasted it.
struct Pasted {
    /// The headers, and the URI if the pasted text contains a request line.
    head: Parts,
    /// The whole pasted text; `None` for a cURL command and for curl's own flags.
    raw: Option<Vec<u8>>,
    /// The problem, if the headers cannot be parsed.
    problem: Option<String>,
}

fn pasted_request(args: &Args) -> Result<Pasted, Failure> {
    let mut uri = Uri::default();
    let raw = args.raw.as_deref().map(waiting::request).transpose()?;
    let mut problem = None;
    let headers = match &raw {
        None if args.request.is_empty() => {
            return Err(Failure::Usage(
                "no request was given: write explain in front of a command that the browser copied \"as cURL\", or pass \
                 -H 'Authorization: Bearer …', -b 'NAME=VALUE' or --raw FILE"
                    .to_owned(),
            ));
        }
        None => args.request.headers_with_host().map_err(Failure::Usage)?,
        Some(text) if pasted::is_curl(text) => pasted::curl(text)
            .and_then(|command| command.headers_with_host())
            .map_err(Failure::Usage)?,
        Some(text) => {
            pasted::check_form(text).map_err(Failure::Usage)?;
            let (line, lines) = pasted::head_lines(text);
            uri = line.and_then(target).unwrap_or_default();
            pasted::headers_of(pasted::headers_only(&lines)).unwrap_or_else(|text| {
                problem = Some(text);
                HeaderMap::new()
            })
        }
    };
    let mut head = pasted::request_head(headers, args.peer.to_canonical());
    head.uri = uri;
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

//! `explain`: one request through the chain, and what each extractor says about it.
//! The chain is in `session/chain.rs`; what a real request goes through is in `http/app.rs`.

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use axum::extract::ConnectInfo;
use axum::http::Request;
use axum::http::request::Parts;

use super::dev::dev_sources;
use super::{Failure, block_on, context, say, with_throwaway_client};
use crate::config::Sources;
use crate::http::error::Error;
use crate::http::origin::{self, Caller};
use crate::http::pasted::{self, CurlArgs};
use crate::session::detect::{Detected, detect};
use crate::session::explain;
use crate::session::formats::shown::escaped;
use crate::session::registry::Registry;
use crate::settings::{self, Settings};

/// The request is given by curl's own flags, or as the raw text of an HTTP request.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    request: CurlArgs,
    /// A file with a raw HTTP request, or - for standard input. Unlike flags, others on the machine do not
    /// see it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["words", "headers", "cookies"])]
    raw: Option<PathBuf>,
    /// The address that the request comes from.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    peer: IpAddr,
    /// Explains as `dev` would serve: the kind `static_user` is allowed.
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
    let request = request(args)?;
    let found = detect(&request.headers, registry, context.clock.now());
    block_on(explain(&settings, &request, &found))?
}

async fn explain(settings: &Settings, request: &Parts, found: &[Detected]) -> Result<(), Failure> {
    let fetches = origin::check_fetch(&request.headers).map_err(Error::NotAFetch);
    let may_ask = fetches.and_then(|()| {
        origin::check(&settings.origins, &request.headers).map_err(Error::OriginNotAllowed)
    });
    let with_bearer_alone = matches!(may_ask, Ok(Caller::ListedByPattern));
    let refused = match may_ask {
        Ok(caller) => {
            let caller = match caller {
                Caller::NoBrowser => "no browser asks",
                Caller::SameOrigin => "a page of this service's own origin asks",
                Caller::Listed => "a page asks whose origin is in origins.allowed",
                Caller::ListedByPattern => {
                    "a page asks whose origin matches a pattern, so only a bearer token counts"
                }
            };
            say(format_args!("origin: allowed, {caller}"))?;
            None
        }
        Err(error) => {
            let what = if matches!(error, Error::NotAFetch(_)) {
                "no fetch of a script"
            } else {
                "not allowed"
            };
            say(format_args!(
                "origin: {what}, so no extractor would be asked"
            ))?;
            Some(error)
        }
    };
    let explanation = if with_bearer_alone {
        explain::explain_bearer_alone(&settings.chain, request).await
    } else {
        explain::explain(&settings.chain, request).await
    };
    for step in &explanation.steps {
        let decides = step.decides && refused.is_none();
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
    for hint in explain::hints(found, &explanation) {
        say(format_args!("    {hint}"))?;
    }
    let verdict = match (refused, explanation.outcome) {
        (Some(error), _) => describe_answer(&error),
        (None, Ok(_)) => "200, a token".to_owned(),
        (None, Err(denied)) => describe_answer(&denied.into()),
    };
    say(format_args!("answer: {verdict}"))
}

fn describe_answer(error: &Error) -> String {
    format!("{} {}", error.status().as_u16(), error.code())
}

fn request(args: &Args) -> Result<Parts, Failure> {
    let (mut parts, ()) = Request::new(()).into_parts();
    let headers = match &args.raw {
        Some(path) => {
            let lines = raw_headers(path)?;
            pasted::headers_of(lines.iter().map(Vec::as_slice))
        }
        None => args.request.headers(),
    };
    parts.headers = headers.map_err(Failure::Usage)?;
    parts
        .extensions
        .insert(ConnectInfo(SocketAddr::new(args.peer, 0)));
    Ok(parts)
}

/// The header lines of a raw request: after its first line, up to the empty one. They are bytes, because a request
/// that is not UTF-8 can be explained too.
fn raw_headers(path: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let mut bytes = Vec::new();
    let read = if path.as_os_str() == "-" {
        io::stdin().read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|mut file| file.read_to_end(&mut bytes))
    };
    read.map_err(|error| Failure::Runtime(format!("cannot read {}: {error}", path.display())))?;
    let lines = bytes.split(|&byte| byte == b'\n').skip(1);
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    Ok(lines
        .take_while(|line| !line.is_empty())
        .map(<[u8]>::to_vec)
        .collect())
}

//! `explain`: one request through the chain, and what each extractor says about it.

use std::net::IpAddr;
use std::path::PathBuf;

use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Request};

use super::{Failure, context, read_stdin, runtime};
use crate::config::{self, Settings, Sources};
use crate::error::Error;
use crate::extractors::{Denial, Denied, Link, Peer, Registry};

/// The request is given by curl's own flags, or as the raw text of an HTTP request.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A header, as for curl: -H 'Authorization: Bearer …'.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Cookies, as for curl: -b 'session=…'.
    #[arg(short = 'b', long = "cookie", value_name = "NAME=VALUE")]
    cookies: Vec<String>,
    /// A file with a raw HTTP request, or - for standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["headers", "cookies"])]
    raw: Option<PathBuf>,
    /// The address that the request comes from.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    peer: IpAddr,
    /// Explains as `dev` would serve: the kind `static_user` is allowed.
    #[arg(long)]
    dev: bool,
}

pub fn run(args: &Args, sources: &Sources, registry: &Registry) -> Result<(), Failure> {
    let mut context = context();
    context.dev = args.dev;
    let settings = config::load(sources, registry, &context)?;
    let request = request(args)?;
    runtime()?.block_on(explain(&settings, &request));
    Ok(())
}

/// Asks every extractor, also those behind the one that decides: the point is to see them all.
async fn explain(settings: &Settings, request: &Parts) {
    let mut verdict = match settings.origins.check(&request.headers) {
        Ok(caller) => {
            println!("origin: allowed ({caller:?})");
            None
        }
        Err(forbidden) => {
            println!("origin: not allowed, so no extractor would be asked");
            Some(describe_answer(&forbidden.into()))
        }
    };
    for link in settings.chain.links() {
        let said = link.authenticate(request).await;
        let decides = verdict.is_none() && !matches!(said, Ok(None));
        let mark = if decides { "  <- decides" } else { "" };
        println!("{} ({}): {}{mark}", link.name, link.kind, describe(&said));
        if decides {
            verdict = Some(match said {
                Ok(_) => "200, a token".to_owned(),
                Err(denial) => describe_answer(&denied(Some(link), denial)),
            });
        }
    }
    let nobody = || describe_answer(&denied(None, Denial::Nobody("no_credential")));
    println!("answer: {}", verdict.unwrap_or_else(nobody));
}

fn describe<S: std::fmt::Debug>(said: &Result<Option<(crate::subject::Subject, S)>, Denial>) -> String {
    match said {
        Ok(None) => "not present".to_owned(),
        Ok(Some((subject, _))) => format!("subject = {:?}", subject.as_str()),
        Err(Denial::Nobody(word)) => format!("nobody is signed in: {word}"),
        Err(Denial::Rejected(reason)) => {
            format!("rejected because {}{}", reason.word, more(reason.detail.as_deref()))
        }
        Err(Denial::Unavailable(cause)) => {
            format!("cannot tell because {}{}", cause.word, more(cause.detail.as_deref()))
        }
    }
}

/// A detail may quote what somebody sent: it is escaped, so that it cannot drive the terminal.
fn more(detail: Option<&str>) -> String {
    detail.map(|detail| format!(" ({})", detail.escape_debug())).unwrap_or_default()
}

fn denied(link: Option<&Link>, denial: Denial) -> Error {
    Error::Denied(Denied { extractor: link.map(|link| link.name.clone()), denial })
}

fn describe_answer(error: &Error) -> String {
    format!("{} {}", error.status().as_u16(), error.code())
}

fn request(args: &Args) -> Result<Parts, Failure> {
    let lines = if let Some(path) = &args.raw {
        raw_headers(path)?
    } else {
        let cookies = args.cookies.iter().map(|cookie| format!("Cookie: {cookie}"));
        args.headers.iter().cloned().chain(cookies).collect()
    };
    let (mut parts, ()) = Request::new(()).into_parts();
    for line in &lines {
        let (name, value) = line.split_once(':').ok_or_else(|| wrong(line, "has no colon"))?;
        let name = HeaderName::try_from(name.trim()).map_err(|_| wrong(line, "has no header's name"))?;
        let value = HeaderValue::from_bytes(value.trim().as_bytes())
            .map_err(|_| wrong(line, "has characters that no header may hold"))?;
        parts.headers.append(name, value);
    }
    parts.extensions.insert(Peer((args.peer, 0).into()));
    Ok(parts)
}

/// Only the name is repeated: the value may be a session.
fn wrong(line: &str, what: &str) -> Failure {
    let name: String = line.chars().take_while(|c| *c != ':').take(40).collect();
    Failure::Runtime(format!("the header {name:?} {what}"))
}

/// The header lines of a raw request: after its first line, up to the empty one.
fn raw_headers(path: &PathBuf) -> Result<Vec<String>, Failure> {
    let text = if path.as_os_str() == "-" {
        read_stdin()?
    } else {
        std::fs::read_to_string(path)
            .map_err(|error| Failure::Runtime(format!("cannot read {}: {error}", path.display())))?
    };
    let lines = text.lines().skip(1).take_while(|line| !line.trim().is_empty());
    Ok(lines.map(str::to_owned).collect())
}

//! `explain`: one request through the chain, and what each extractor says about it.
//! The chain is in `session/chain.rs`; what a real request goes through is in `http/app.rs`.

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Request};

use super::dev::dev_sources;
use super::{Failure, block_on, context, say, with_throwaway_client};
use crate::config::Sources;
use crate::http::error::Error;
use crate::http::origin::{self, Caller};
use crate::json::Value;
use crate::session::chain::{ConfiguredExtractor, Denial, Denied};
use crate::session::registry::Registry;
use crate::session::subject::Subject;
use crate::settings::{self, Settings};

/// The request is given by curl's own flags, or as the raw text of an HTTP request. What browsers copy
/// "as cURL" has more flags; those that change nothing here are taken and ignored.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ignored, as -X and -d are: a request copied "as cURL" in a browser can be pasted behind `explain`.
    #[arg(value_name = "URL", conflicts_with = "raw")]
    _url: Option<String>,
    /// A header, as for curl: -H 'Authorization: Bearer …'.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Cookies, as for curl: -b 'session=…'.
    #[arg(short = 'b', long = "cookie", value_name = "NAME=VALUE")]
    cookies: Vec<String>,
    /// A file with a raw HTTP request, or - for standard input. Unlike flags, others on the machine do not
    /// see it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["headers", "cookies"])]
    raw: Option<PathBuf>,
    /// The address that the request comes from.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    peer: IpAddr,
    /// Explains as `dev` would serve: the kind `static_user` is allowed.
    #[arg(long)]
    dev: bool,
    #[arg(short = 'X', long = "request", hide = true)]
    _method: Option<String>,
    #[arg(short = 'd', long = "data", aliases = ["data-raw", "data-binary"], hide = true)]
    _body: Vec<String>,
    #[arg(long = "compressed", hide = true)]
    _compressed: bool,
    #[arg(short = 'k', long = "insecure", hide = true)]
    _insecure: bool,
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
    block_on(explain(&settings, &request))?
}

/// Asks every extractor, also those behind the one that decides: the point is to see them all.
async fn explain(settings: &Settings, request: &Parts) -> Result<(), Failure> {
    let fetches = origin::check_fetch(&request.headers).map_err(Error::from);
    let may_ask = fetches
        .and_then(|()| origin::check(&settings.origins, &request.headers).map_err(Error::from));
    let mut verdict = match may_ask {
        Ok(caller) => {
            let caller = match caller {
                Caller::NoBrowser => "no browser asks",
                Caller::SameOrigin => "a page of this service's own origin asks",
                Caller::Listed => "a page asks whose origin is in origins.allowed",
            };
            say(format_args!("origin: allowed, {caller}"))?;
            None
        }
        Err(error) => {
            let what = if matches!(error, Error::NotAFetch) {
                "no fetch of a script"
            } else {
                "not allowed"
            };
            say(format_args!(
                "origin: {what}, so no extractor would be asked"
            ))?;
            Some(describe_answer(&error))
        }
    };
    let mut walk = settings.chain.walk(request);
    for (link, reach) in settings.chain.with_reaches() {
        if !walk.includes(reach) {
            say(format_args!(
                "{} ({}): not asked, {ANOTHERS}",
                link.name, link.kind
            ))?;
            continue;
        }
        let (session, said) = match link.session(walk.request()).await {
            Ok(None) => (None, Ok(None)),
            Ok(Some(session)) => {
                let subject = link.subject(&session).map(Some);
                (Some(session), subject)
            }
            Err(denial) => (None, Err(denial)),
        };
        if let Err(Denial::NotMine(rejection, place)) = &said {
            walk.pass_over(link, rejection.clone(), place);
        }
        let decides = verdict.is_none() && !matches!(said, Ok(None) | Err(Denial::NotMine(..)));
        let mark = if decides { "  <- decides" } else { "" };
        say(format_args!(
            "{} ({}): {}{mark}",
            link.name,
            link.kind,
            describe(&said)
        ))?;
        if let Some(session) = session {
            let mut shape = String::new();
            draw(&session.attributes, &mut shape);
            say(format_args!("    of a session with {shape}"))?;
        }
        if decides {
            verdict = Some(match said {
                Ok(_) => "200, a token".to_owned(),
                Err(denial) => describe_answer(&denied(Some(link), denial)),
            });
        }
    }
    let verdict = verdict.unwrap_or_else(|| describe_answer(&walk.denied().into()));
    say(format_args!("answer: {verdict}"))
}

/// Why an extractor is not asked.
const ANOTHERS: &str =
    "because a header holds another's credential and this section does not read that header";

/// The most bytes of a drawing; a longer one is not read.
const MAX_DRAWN: usize = 2000;

/// What the session holds, without what it says: enough to find where the user is.
fn draw(value: &Value, shape: &mut String) {
    match value {
        _ if shape.len() > MAX_DRAWN => {}
        Value::Null => shape.push_str("null"),
        Value::Bool(_) => shape.push_str("true or false"),
        Value::Number(_) => shape.push_str("number"),
        Value::String(text) if text.is_empty() => shape.push_str("empty text"),
        Value::String(_) => shape.push_str("text"),
        Value::Array(items) => {
            shape.push('[');
            for (index, item) in items.iter().enumerate() {
                if !separate(index, shape) {
                    break;
                }
                draw(item, shape);
            }
            shape.push(']');
        }
        Value::Object(members) => {
            shape.push('{');
            for (index, (name, value)) in members.clone().into_iter().enumerate() {
                if !separate(index, shape) {
                    break;
                }
                shape.extend(name.escape_debug());
                shape.push_str(": ");
                draw(&value, shape);
            }
            shape.push('}');
        }
    }
}

/// Makes room for one more; `false` if there is none.
fn separate(index: usize, shape: &mut String) -> bool {
    let has_room = shape.len() <= MAX_DRAWN;
    shape.push_str(if index > 0 { ", " } else { "" });
    shape.push_str(if has_room { "" } else { "…" });
    has_room
}

fn describe(said: &Result<Option<Subject>, Denial>) -> String {
    match said {
        Ok(None) => "not present".to_owned(),
        Ok(Some(subject)) => format!("subject = {:?}", subject.as_str()),
        Err(Denial::NotSignedIn(reason)) => format!("no user is signed in: {reason}"),
        Err(Denial::NotMine(rejection, place)) => {
            let more = more(rejection.detail.as_deref());
            format!(
                "not mine because {}{more}: the credential in {place} is another's",
                rejection.reason
            )
        }
        Err(Denial::Rejected(rejection)) => {
            format!(
                "rejected because {}{}",
                rejection.reason,
                more(rejection.detail.as_deref())
            )
        }
        Err(Denial::Unavailable(cause)) => {
            format!(
                "cannot tell because {}{}",
                cause.reason,
                more(cause.detail.as_deref())
            )
        }
    }
}

/// A detail may quote the request. It is escaped, so that it cannot send commands to the terminal.
fn more(detail: Option<&str>) -> String {
    detail
        .map(|detail| format!(" ({})", detail.escape_debug()))
        .unwrap_or_default()
}

fn denied(link: Option<&ConfiguredExtractor>, denial: Denial) -> Error {
    Error::Denied(Denied {
        extractor: link.map(|link| link.name.clone()),
        denial,
    })
}

fn describe_answer(error: &Error) -> String {
    format!("{} {}", error.status().as_u16(), error.code())
}

fn request(args: &Args) -> Result<Parts, Failure> {
    let lines: Vec<Vec<u8>> = if let Some(path) = &args.raw {
        raw_headers(path)?
    } else {
        let cookies = args
            .cookies
            .iter()
            .map(|cookie| format!("Cookie: {cookie}"));
        args.headers
            .iter()
            .cloned()
            .chain(cookies)
            .map(String::into_bytes)
            .collect()
    };
    let (mut parts, ()) = Request::new(()).into_parts();
    for line in &lines {
        let colon = line
            .iter()
            .position(|&byte| byte == b':')
            .ok_or_else(|| wrong(line, "has no colon"))?;
        let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
        let name = HeaderName::from_bytes(name).map_err(|_| wrong(line, "has no header's name"))?;
        let value = HeaderValue::from_bytes(value)
            .map_err(|_| wrong(line, "has characters that no header may hold"))?;
        parts.headers.append(name, value);
    }
    parts
        .extensions
        .insert(ConnectInfo(SocketAddr::new(args.peer, 0)));
    Ok(parts)
}

/// Only the name is repeated: the value may be a session.
fn wrong(line: &[u8], what: &str) -> Failure {
    let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
    let name = String::from_utf8_lossy(&name[..name.len().min(40)]).into_owned();
    Failure::Usage(format!("the header {name:?} {what}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawing_has_names_and_types_without_values_and_is_cut_at_its_limit() {
        let drawn = |json: &str| {
            let mut shape = String::new();
            draw(&Value::parse(json.as_bytes()).expect("JSON"), &mut shape);
            shape
        };
        assert_eq!(
            drawn(r#"{"a\u001b":"s3cr3t","b":[1,"",null,true,{}]}"#),
            r"{a\u{1b}: text, b: [number, empty text, null, true or false, {}]}"
        );
        for long in [
            format!("[{}0]", "0,".repeat(100_000)),
            format!("[{}0]", "[0],".repeat(100_000)),
        ] {
            let shape = drawn(&long);
            assert!(
                shape.len() < MAX_DRAWN + 50 && shape.ends_with(", …]"),
                "{}",
                shape.len()
            );
        }
    }
}

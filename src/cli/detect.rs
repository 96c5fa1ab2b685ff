//! `detect`: identifies the credentials in a pasted request, and prints for each the configuration section that reads
//! it. If the operator also passes the secret or the store, the command opens the session with the extractor itself.
//! The rules are in `session/detect/`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use axum::http::HeaderMap;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::waiting::{self, WaitNotice};
use super::{Failure, block_on, context, say, with_throwaway_client};
use crate::config::Sources;
use crate::http::pasted::{self, CurlArgs};
use crate::session::detect::{Detected, Draft, Role, detect_for, variable};
use crate::session::explain::{self, Said, Tried};
use crate::session::formats::page_link::page_link;
use crate::session::registry::Registry;
use crate::settings;

/// The request, as curl's own flags or as text in a file, the keys to set, and the format of the output.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub(super) request: CurlArgs,
    /// A file with the request (a cURL command, a raw HTTP request, header lines, or only cookies or a token), or - for
    /// standard input. Other users of the machine can see flags, but not this input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["words", "headers", "cookies"])]
    raw: Option<PathBuf>,
    /// Sets a key of the section, such as keys=… or url=…, and opens the session. If the key ends in _file, the value
    /// is a file name. Without =VALUE, the command prompts for the value and does not echo it.
    #[arg(long, value_name = "KEY[=VALUE]")]
    set: Vec<String>,
    /// Prints the result as JSON.
    #[arg(long, conflicts_with = "set")]
    json: bool,
}

pub fn run(args: &Args, registry: &Registry) -> Result<(), Failure> {
    let (headers, url) = match &args.raw {
        Some(path) => {
            let text = waiting::request(path)?;
            (pasted::headers(&text), pasted::target(&text))
        }
        None => (
            args.request.headers().and_then(pasted::some),
            args.request.target(),
        ),
    };
    let headers = headers.map_err(Failure::Usage)?;
    let found = detect_for(&headers, url.as_ref(), registry);
    if args.json {
        let report = serde_json::to_string_pretty(&BTreeMap::from([("credentials", &found)]));
        return say(report.map_err(|error| Failure::Runtime(error.to_string()))?);
    }
    if found.is_empty() {
        return say(format_args!(
            "No known credential found. Sign in to the app, and copy a request that the app's own page sends.\n\
             If the app has an endpoint that returns the signed-in user, see {}.",
            page_link("docs/providers/ask-my-app.md")
        ));
    }
    if args.set.is_empty() {
        for (index, detected) in found.iter().enumerate() {
            if index > 0 {
                say("")?;
            }
            print(detected)?;
        }
        return say(
            "\nNothing was sent over the network. To open the session and see its content, pass its secret or store:\n  \
             --set KEY=VALUE, --set KEY_file=PATH, or --set KEY, which prompts for the value.",
        );
    }
    let keys = keys(&args.set)?;
    let (detected, draft) = chosen(&found, &keys)?;
    open(detected, draft, &keys, headers, registry)
}

fn print(detected: &Detected) -> Result<(), Failure> {
    say(format_args!(
        "{}: {} ({})",
        detected.place,
        detected.product,
        detected.confidence.as_str()
    ))?;
    let ways: Vec<String> = detected.drafts.iter().map(way).collect();
    say(format_args!("  kind      {}", ways.join("\n         or ")))?;
    let Some(draft) = detected.drafts.first() else {
        return Ok(());
    };
    for key in draft.secret_keys() {
        say(format_args!("  needs     {}: {}", key.name, key.comment))?;
    }
    if !detected.subjects.is_empty() {
        say(format_args!(
            "  subject   {}",
            detected.subjects.join(" or ")
        ))?;
    }
    say(format_args!("  page      {}", page_link(detected.page)))?;
    say(format_args!("\nAs a file:\n\n{}", draft.to_file()))?;
    say("As variables:\n")?;
    for (name, value, comment) in draft.to_variables() {
        // Docker's `--env-file` treats a comment at the end of a line as part of the value.
        if !comment.is_empty() {
            say(format_args!("# {comment}"))?;
        }
        say(format_args!("{name}={}", shell_quoted(&value)))?;
    }
    Ok(())
}

pub(super) fn way(draft: &Draft) -> String {
    draft.preset.map_or_else(
        || draft.kind.to_owned(),
        |preset| format!("{}, preset {preset}", draft.kind),
    )
}

/// Quotes a string for a shell. A string that needs no quotes is returned unchanged, because `docker run --env-file`
/// would make quotes part of the value.
pub(super) fn shell_quoted(text: &str) -> String {
    let is_plain = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"_-.,:/@%+".contains(&byte));
    if is_plain {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Parses the arguments of `--set` into keys and values. Prompts for a value that is missing.
pub(super) fn keys(set: &[String]) -> Result<Vec<(String, String)>, Failure> {
    set.iter()
        .map(|pair| {
            if let Some((key, value)) = pair.split_once('=') {
                return Ok((key.trim().to_owned(), value.to_owned()));
            }
            let key = pair.trim();
            let value = ask(key).map_err(|error| {
                Failure::Runtime(format!(
                    "cannot prompt for {key} on the terminal ({error}): use --set {key}_file=PATH"
                ))
            })?;
            Ok((key.to_owned(), value))
        })
        .collect()
}

/// Reads a line from the terminal without echoing it.
fn ask(key: &str) -> io::Result<String> {
    let mut terminal = File::options().read(true).write(true).open("/dev/tty")?;
    let shown = tcgetattr(&terminal)?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    write!(terminal, "{key} (not shown): ")?;
    tcsetattr(&terminal, OptionalActions::Flush, &hidden)?;
    let mut line = String::new();
    let read = BufReader::new(&terminal).read_line(&mut line);
    tcsetattr(&terminal, OptionalActions::Flush, &shown)?;
    writeln!(terminal)?;
    read?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// Chooses the credential to open, and its draft. If the key `kind` is given, only drafts of that kind are candidates.
/// Otherwise a Redis or SQL URL in the key `url` determines the kind; with another URL or none, all drafts are
/// candidates. The first candidate that has one of the given keys is chosen, or else the first candidate.
fn chosen<'a>(
    found: &'a [Detected],
    keys: &[(String, String)],
) -> Result<(&'a Detected, &'a Draft), Failure> {
    let value = |name: &str| {
        keys.iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    let by_url = value("url").and_then(|url| match url.split(':').next()? {
        "redis" | "rediss" => Some("redis_session"),
        "postgres" | "postgresql" | "mysql" | "sqlite" => Some("sql_session"),
        _ => None,
    });
    let kind = value("kind").or(by_url);
    let fits = |draft: &&Draft| kind.is_none_or(|kind| draft.kind == kind);
    let has_key = |draft: &Draft| {
        keys.iter().any(|(key, _)| {
            let key = key.strip_suffix("_file").unwrap_or(key);
            draft.keys.iter().any(|known| known.name == key)
        })
    };
    let all = || {
        found.iter().flat_map(|detected| {
            detected
                .drafts
                .iter()
                .filter(fits)
                .map(move |draft| (detected, draft))
        })
    };
    all()
        .find(|(_, draft)| has_key(draft))
        .or_else(|| all().next())
        .ok_or_else(|| {
            Failure::Usage(format!(
                "no credential in this request looks like a credential of kind {:?}",
                kind.unwrap_or_default()
            ))
        })
}

/// Opens the session with the extractor itself, and prints the session's content and the subject that a token would
/// have.
fn open(
    detected: &Detected,
    draft: &Draft,
    keys: &[(String, String)],
    headers: HeaderMap,
    registry: &Registry,
) -> Result<(), Failure> {
    // Only URLs that the operator passes with `--set` may be called, so all other URLs are removed from the draft.
    let is_given = |name: &str| {
        keys.iter()
            .any(|(key, _)| key.strip_suffix("_file").unwrap_or(key) == name)
    };
    let has_key_source = ["jwks", "jwks_url", "oidc_issuer", "public_key", "secret"]
        .iter()
        .any(|name| is_given(name));
    if draft.kind == "jwt" && !has_key_source {
        return Err(Failure::Usage(
            "to verify a JWT, pass its keys: --set jwks_file=PATH, public_key_file=PATH or secret=…; or --set jwks_url=… \
             to fetch them"
                .to_owned(),
        ));
    }
    if let Some(url) = draft.keys.iter().find(|key| key.name == "url")
        && !is_given("url")
    {
        return Err(Failure::Usage(format!(
            "the command calls only a URL that you pass: add, for example, --set url={} ({})",
            shell_quoted(url.value.as_str().unwrap_or_default()),
            url.comment
        )));
    }
    let mut draft = draft.clone();
    draft.keys.retain(|key| {
        let is_address = ["url", "jwks_url", "oidc_issuer"].contains(&&*key.name);
        !is_address || (key.role == Role::Example && is_given(&key.name))
    });
    if draft.kind == "jwt" && !draft.keys.iter().any(|key| key.name == "issuers") {
        // `oidc_issuer`, which was removed above, would have been the default value of `issuers`.
        let issuer = detected
            .drafts
            .iter()
            .flat_map(|draft| &draft.keys)
            .find(|key| key.name == "oidc_issuer");
        if let Some(issuer) = issuer.and_then(|key| key.value.as_str()) {
            draft = draft.key("issuers", vec![issuer]);
        }
    }
    let section = draft.to_toml(|_| None);
    let (mut sources, _) = with_throwaway_client(Sources::default(), &section)?;
    for (key, value) in keys {
        sources.environment.insert(variable(key), value.clone());
    }
    let settings = settings::load(&sources, registry, &context())?;
    let request = pasted::request_head(headers, Ipv4Addr::LOCALHOST.into());
    let mut waiting = None;
    let asking = |asked: &_| waiting = Some(WaitNotice::for_extractor(asked));
    let explanation = block_on(explain::explain(&settings.chain, &request, false, asking))?;
    drop(waiting);
    for step in &explanation.steps {
        say(format_args!("{}: {}", detected.place, way(&draft)))?;
        if let Some(shape) = &step.shape {
            say(format_args!("  session   {shape}"))?;
        }
        if !step.candidates.is_empty() {
            say(format_args!("  subject   {}", step.candidates.join(" or ")))?;
        }
        match (&step.said, &step.tried) {
            (Said::Subject(subject), _) => {
                say(format_args!("  token for {:?}", subject.as_str()))?;
            }
            (said, Some(tried)) => say_no_subject(said, tried, &step.candidates)?,
            (said, None) => {
                return Err(Failure::Runtime(format!(
                    "the session could not be opened: {}",
                    said.describe()
                )));
            }
        }
    }
    Ok(())
}

/// Prints the template for `subject` that produced no subject, the reason, and the templates that would produce one.
fn say_no_subject(said: &Said, tried: &Tried, candidates: &[String]) -> Result<(), Failure> {
    let why = if tried.is_absent {
        "the session has no such member".to_owned()
    } else {
        said.describe()
    };
    let others = candidates
        .iter()
        .filter(|candidate| **candidate != tried.template);
    let others: Vec<&str> = others.map(String::as_str).collect();
    let advice = match others.first() {
        Some(best) => format!(
            "Candidates: {}. Choose one: --set subject='{best}'",
            others.join(", ")
        ),
        None => {
            "Candidates: none. Name the member that holds the user's id: --set subject='{NAME}'"
                .to_owned()
        }
    };
    say(format_args!(
        "  no token: {}: {why}. {advice}",
        tried.template
    ))
}

//! `init`: writes a configuration for the app from a pasted request or from flags, and prints the lines of the proxy's
//! configuration that forward requests to the service. `session/detect/` drafts the section.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::{Failure, context, say, with_throwaway_client};
use crate::config::Sources;
use crate::http::pasted;
use crate::session::detect::{Draft, detect, template, variable};
use crate::session::registry::Registry;
use crate::settings;

const CONFIG: &str = "rollout-token.toml";
const EXAMPLE: &str = ".env.example";
/// The documentation page with the proxy configuration for each server.
const CONNECT: &str = include_str!("../../docs/connect.md");

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A file with a request of a signed-in user (as cURL, raw, or its Cookie or Authorization line), or - for
    /// standard input.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// The kind of the extractor. It replaces --from, or chooses among the credentials in the request.
    #[arg(long)]
    kind: Option<String>,
    /// The preset for a product, such as connect-redis or clerk. It is used in the same way as --kind.
    #[arg(long)]
    preset: Option<String>,
    /// The server that delivers your app's pages. Prints the lines with which this server forwards /rollout/ to the
    /// service.
    #[arg(long)]
    app: Option<App>,
    /// A key of the section and its value, such as subject={userId}. Secrets are not accepted: set them in environment
    /// variables.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Replaces existing files.
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum App {
    Express,
    Next,
    Vite,
    Nginx,
    Caddy,
    Django,
}

impl App {
    /// The heading of this server's part of `docs/connect.md`.
    fn heading(self) -> &'static str {
        match self {
            Self::Express => "Express",
            Self::Next => "Next.js",
            Self::Vite => "Vite",
            Self::Nginx => "nginx",
            Self::Caddy => "Caddy",
            Self::Django => "Django",
        }
    }

    /// The usual kind and preset of an app with this server. They are used if no request, kind or preset is given.
    fn usual(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Express => ("redis_session", Some("connect-redis")),
            Self::Next => ("authjs", None),
            Self::Django => ("sql_session", Some("django")),
            Self::Vite | Self::Nginx | Self::Caddy => ("session_endpoint", None),
        }
    }
}

pub fn run(args: &Args, registry: &Registry) -> Result<(), Failure> {
    let (mut draft, page) = draft(args, registry)?;
    for pair in &args.set {
        set(&mut draft, pair)?;
    }
    write_files(&draft, args.force)?;
    say(format_args!(
        "Written: {CONFIG} and {EXAMPLE}, for {}.\nSee {page}.",
        super::detect::way(&draft)
    ))?;
    if let Some(app) = args.app {
        print_proxy_lines(app)?;
    } else {
        say(
            "\nForward /rollout/ from your app to the service: --app prints the lines for one server, and docs/connect.md lists more servers.",
        )?;
    }
    check(&draft, registry)
}

/// The draft of the section, from the request or from the flags.
fn draft(args: &Args, registry: &Registry) -> Result<(Draft, &'static str), Failure> {
    let (kind, preset) = (args.kind.as_deref(), args.preset.as_deref());
    let Some(path) = &args.from else {
        let (kind, preset) = match (kind, preset, args.app) {
            (None, None, Some(app)) => {
                let (kind, preset) = app.usual();
                (Some(kind), preset)
            }
            (None, None, None) => {
                return Err(Failure::Usage(
                    "pass a request of a signed-in user with --from FILE, or name the kind of session with --kind, --preset or --app"
                        .to_owned(),
                ));
            }
            _ => (kind, preset),
        };
        return template(kind, preset, registry).map_err(Failure::Usage);
    };
    let headers = pasted::headers(&super::waiting::request(path)?).map_err(Failure::Usage)?;
    let found = detect(&headers, registry);
    let fits = |draft: &&Draft| {
        kind.is_none_or(|kind| draft.kind == kind)
            && preset.is_none_or(|preset| draft.preset == Some(preset))
    };
    let fitting = found.iter().find_map(|detected| {
        let draft = detected.drafts.iter().find(fits)?;
        Some((detected, draft))
    });
    let Some((detected, draft)) = fitting else {
        return Err(Failure::Usage(
            "nothing in this request looks like a known session: sign in, and copy a request that the app's \
             own page sends; or leave out the request and name the kind with --kind or --preset (docs/choosing.md)"
                .to_owned(),
        ));
    };
    say(format_args!(
        "Found {}: {}.",
        detected.place, detected.product
    ))?;
    let mut draft = draft.clone();
    let shown = detected.subjects.first();
    if let Some(key) = draft.keys.iter_mut().find(|key| key.name == "subject")
        && let Some(subject) = shown
    {
        key.value = subject.as_str().into();
    }
    Ok((draft, detected.page))
}

/// Sets a key of the section that is not a secret. A dotted key sets a member of a table.
fn set(draft: &mut Draft, pair: &str) -> Result<(), Failure> {
    let Some((key, value)) = pair.split_once('=') else {
        return Err(Failure::Usage(format!(
            "--set {pair}: must have the form KEY=VALUE"
        )));
    };
    let is_secret = draft.secrets().iter().any(|secret| secret == key)
        || key.contains("secret")
        || key.contains("password");
    if is_secret && !key.ends_with("_file") {
        return Err(Failure::Usage(format!(
            "--set {key}: a secret is not written to the file; set it in the environment variable {}",
            variable(key)
        )));
    }
    draft.set(key, value).map_err(Failure::Usage)
}

/// Writes both files, or neither file if one of them exists and `force` is false.
fn write_files(draft: &Draft, force: bool) -> Result<(), Failure> {
    let there: Vec<&str> = [CONFIG, EXAMPLE]
        .into_iter()
        .filter(|path| Path::new(path).exists())
        .collect();
    if !there.is_empty() && !force {
        return Err(Failure::Usage(format!(
            "nothing was written, because {} already exists: --force replaces existing files",
            there.join(" and ")
        )));
    }
    let secrets: String = draft
        .secret_keys()
        .map(|key| {
            format!(
                "# {} ({}) is set by the environment variable {}.\n",
                key.name,
                key.comment,
                variable(&key.name)
            )
        })
        .collect();
    let config = format!(
        "#:schema ./rollout-token.schema.json\n# To create the schema for editors: rollout-token config-schema > rollout-token.schema.json\n\n\
         # This file configures how rollout-token recognises your users. docs/configuration.md lists all keys.\n\n{}{secrets}",
        draft.to_toml(|_| None)
    );
    let mut example = "# Copy this file to .env, fill in the values, and keep .env out of version control.\n\n# The client id and secret \
         are in your Rollout dashboard. `rollout-token dev` works without them.\n# ROLLOUT_CLIENT_ID=\n# ROLLOUT_CLIENT_SECRET=\n"
        .to_owned();
    example.extend(
        draft
            .secret_keys()
            .map(|key| format!("\n# {}\n{}=\n", key.comment, variable(&key.name))),
    );
    for (path, text) in [(CONFIG, config), (EXAMPLE, example)] {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .create_new(!force)
            .truncate(true)
            .open(path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| Failure::Runtime(format!("cannot write {path}: {error}")))?;
    }
    Ok(())
}

/// Prints the code blocks of the server's part of `docs/connect.md`, each after the line that introduces it.
fn print_proxy_lines(app: App) -> Result<(), Failure> {
    let heading = format!("\n## {}\n", app.heading());
    let part = CONNECT
        .split_once(&heading)
        .and_then(|(_, rest)| rest.split("\n## ").next())
        .unwrap_or_default();
    say(format_args!(
        "\nForward /rollout/ from {} to the service:",
        app.heading()
    ))?;
    let mut inside = false;
    for line in part.lines() {
        if line.starts_with("```") {
            if !inside {
                say("")?;
            }
            inside = !inside;
        } else if inside {
            say(format_args!("    {line}").to_string().trim_end())?;
        } else if line.ends_with("`:") {
            say(format_args!("\n  {}", line.replace('`', "")))?;
        }
    }
    Ok(())
}

/// Validates the files as `check-config` does. Secrets without a value are listed, but are not an error.
fn check(draft: &Draft, registry: &Registry) -> Result<(), Failure> {
    let sources = Sources::from_process(vec![CONFIG.into()]);
    let (mut sources, stand_in) = with_throwaway_client(sources)?;
    let mut missing = Vec::new();
    for key in draft.secret_keys() {
        let name = variable(&key.name);
        let is_given = |name: &str| sources.environment.contains_key(name);
        if !is_given(&name) && !is_given(&format!("{name}_FILE")) {
            let value = if key.name == "app_key" {
                // 32 bytes in the format of Laravel's `key:generate`.
                "base64:eI5d8RkzVWrk4l5UREkGvTjUwS4L3a3y7MAR4DpRHyw=".to_owned()
            } else {
                format!("s{}", String::from_utf8_lossy(stand_in.secret.expose()))
            };
            sources.environment.insert(name.clone(), value);
            missing.push((name, key.comment.clone()));
        }
    }
    let settings = settings::load(&sources, registry, &context())?;
    let mut err = io::stderr().lock();
    for warning in settings.warnings.lines() {
        let _ = writeln!(err, "{warning}");
    }
    if missing.is_empty() {
        say("\ncheck-config: the configuration is good.")?;
    } else {
        say(
            "\ncheck-config: the configuration is good once these variables have a value, for example in .env:",
        )?;
        for (name, comment) in &missing {
            say(format_args!("  {name}  {comment}"))?;
        }
    }
    let variables = if missing.is_empty() {
        ""
    } else {
        "set -a; . ./.env; set +a; "
    };
    say(format_args!(
        "\nNext: {variables}rollout-token --config {CONFIG} dev"
    ))
}

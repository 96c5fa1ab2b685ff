//! `init`: writes a configuration for the app from a pasted request or from flags, and prints the lines of the proxy's
//! configuration that forward requests to the service. `session/detect/` drafts the section.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::{CONFIG, Failure, context, names, say, tell, with_throwaway_client};
use crate::config::Sources;
use crate::http::pasted;
use crate::session::detect::{Detected, Draft, DraftKey, Role, detect_for, template, variable};
use crate::session::formats::page_link::page_link;
use crate::session::registry::Registry;
use crate::settings;

const EXAMPLE: &str = ".env.example";
/// The documentation page with the proxy configuration for each server.
const CONNECT: &str = include_str!("../../docs/connect.md");

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A file with a request of a signed-in user (a cURL command, a raw HTTP request, header lines, or only cookies or
    /// a token), or - for standard input.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// The kind of the extractor. With --from, it selects one of the credentials in the request.
    #[arg(long, value_parser = names::kinds(), hide_possible_values = true)]
    kind: Option<String>,
    /// The preset for a product, such as connect-redis or clerk. With --from, it selects one of the
    /// credentials in the request.
    #[arg(long, value_parser = names::presets(), hide_possible_values = true)]
    preset: Option<String>,
    /// The server that delivers your app's pages. The command prints the lines with which this server forwards
    /// /rollout/ to the service.
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
    if !args.force {
        refuse_to_overwrite()?;
    }
    // Validate first, so that a misspelled key leaves no files behind.
    let missing = check(&draft, registry)?;
    write_files(&draft, args.force)?;
    say(format_args!(
        "Written: {CONFIG} and {EXAMPLE}, for {}.\nSee {}.",
        super::detect::way(&draft),
        page_link(page)
    ))?;
    if let Some(app) = args.app {
        print_proxy_lines(app)?;
    } else {
        say(format_args!(
            "\nForward /rollout/ from your app to the service: --app prints the lines for one server. More servers: {}.",
            page_link("docs/connect.md")
        ))?;
    }
    say_next(&draft, &missing)
}

/// The draft of the section, from the request or from the flags, and the section's documentation page.
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
    if kind.is_some() || preset.is_some() {
        // Report an unknown name before the request is read.
        template(kind, preset, registry).map_err(Failure::Usage)?;
    }
    let text = super::waiting::request(path)?;
    let headers = pasted::headers(&text).map_err(Failure::Usage)?;
    let found = detect_for(&headers, pasted::target(&text).as_ref(), registry);
    let fits = |draft: &&Draft| {
        kind.is_none_or(|kind| draft.kind == kind)
            && preset.is_none_or(|preset| draft.preset == Some(preset))
    };
    let fitting = found.iter().find_map(|detected| {
        let draft = detected.drafts.iter().find(fits)?;
        Some((detected, draft))
    });
    let Some((detected, draft)) = fitting else {
        return Err(Failure::Usage(format!(
            "nothing in this request looks like a known session: sign in, and copy a request that the app's \
             own page sends; or leave out the request and name the kind with --kind or --preset ({})",
            page_link("docs/choosing.md")
        )));
    };
    say(format_args!(
        "Found {}: {}.",
        detected.place, detected.product
    ))?;
    if kind.is_none() && preset.is_none() {
        let others = found.iter().filter(|other| other.place != detected.place);
        others
            .into_iter()
            .try_for_each(|other| say_other(other, draft))?;
    }
    let mut draft = draft.clone();
    let shown = detected.subjects.first();
    if let Some(key) = draft.keys.iter_mut().find(|key| key.name == "subject")
        && let Some(subject) = shown
    {
        key.value = subject.as_str().into();
        key.role = Role::Known;
    }
    Ok((draft, detected.page))
}

/// Prints a credential that was not chosen, and how to choose it.
fn say_other(other: &Detected, chosen: &Draft) -> Result<(), Failure> {
    let kind = other.kinds.iter().find(|kind| **kind != chosen.kind);
    let how = match kind {
        Some(kind) => format!("choose with --kind {kind}"),
        None => "to choose it, remove the other credential from the request".to_owned(),
    };
    say(format_args!(
        "Also found: {} ({}); {how}.",
        other.place, other.product
    ))
}

/// Sets a key of the section, and refuses a secret. A key with `_file`, which names a secret's file, replaces the
/// secret in the draft. A dotted key sets a member of a table.
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
    draft.set(key, value).map_err(Failure::Usage)?;
    if let Some(secret) = key.strip_suffix("_file") {
        draft
            .keys
            .retain(|key| key.role != Role::Secret || key.name != secret);
    }
    Ok(())
}

/// Refuses to write if one of the files exists.
fn refuse_to_overwrite() -> Result<(), Failure> {
    let there: Vec<&str> = [CONFIG, EXAMPLE]
        .into_iter()
        .filter(|path| Path::new(path).exists())
        .collect();
    if there.is_empty() {
        return Ok(());
    }
    let exist = if there.len() == 1 { "exists" } else { "exist" };
    Err(Failure::Usage(format!(
        "nothing was written, because {} already {exist}: --force replaces existing files",
        there.join(" and ")
    )))
}

/// The lines for a secret in the example file.
fn example_of(key: &DraftKey) -> String {
    let name = variable(&key.name);
    let (separator, file) = if key.is_list() {
        ("; a comma separates two secrets", "one secret per line")
    } else {
        ("", "only the secret")
    };
    format!(
        "\n# {}: keep the single quotes{separator}\n# Or name a file with {file}: {name}_FILE=/run/secrets/{}\n{name}=''\n",
        key.comment, key.name
    )
}

fn write_files(draft: &Draft, force: bool) -> Result<(), Failure> {
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
         # This file configures how rollout-token recognises your users. All keys:\n# {}.\n\n{}{secrets}",
        page_link("docs/configuration.md"),
        draft.to_toml(|_| None)
    );
    let mut example = "# Copy this file to .env, fill in the values, and keep .env out of version control. A shell reads it with\n\
         #   set -a; . ./.env; set +a\n\
         # The single quotes keep $, # and spaces in a value. `docker run --env-file` does not remove them: there, use the\n\
         # variables with _FILE, which name files.\n\n\
         # The client id and secret are in your Rollout dashboard. `rollout-token dev` works without them.\n\
         # ROLLOUT_CLIENT_ID=''\n# ROLLOUT_CLIENT_SECRET=''\n"
        .to_owned();
    example.extend(draft.secret_keys().map(example_of));
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

/// Validates the configuration as `check-config` does, and prints its warnings. A secret without a value is not an
/// error yet: its environment variable is returned, with a description of the secret.
fn check(draft: &Draft, registry: &Registry) -> Result<Vec<(String, String)>, Failure> {
    let section = draft.to_toml(|_| None);
    let (mut sources, stand_in) =
        with_throwaway_client(Sources::from_process(Vec::new()), &section)?;
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
    settings.warnings.lines().for_each(|line| tell(&line));
    Ok(missing)
}

/// Prints the result of the check, the values that the operator must review, and the next commands.
fn say_next(draft: &Draft, missing: &[(String, String)]) -> Result<(), Failure> {
    if missing.is_empty() {
        say("\ncheck-config: the configuration is valid.")?;
    } else {
        say(
            "\ncheck-config: the configuration is valid once these variables have a value, for example in .env:",
        )?;
        for (name, comment) in missing {
            say(format_args!("  {name}  {comment}"))?;
        }
    }
    let guesses: Vec<&str> = draft.examples().map(|key| &*key.name).collect();
    if !guesses.is_empty() {
        say(format_args!(
            "Check the example values of these keys before you start: {}",
            guesses.join(", ")
        ))?;
    }
    say("\nNext:")?;
    if !missing.is_empty() {
        if Path::new(".env").exists() {
            say(format_args!(
                "  # add the lines of {EXAMPLE} to .env, and fill in the values"
            ))?;
        } else {
            say(format_args!(
                "  cp {EXAMPLE} .env  # then fill in the values"
            ))?;
        }
        say("  set -a; . ./.env; set +a")?;
    }
    say(format_args!("  rollout-token --config {CONFIG} dev"))
}

//! `credentials`: lists the apps that a user has connected at Rollout.

use serde_json::Value;

use super::rollout::{ApiArgs, get_credentials};
use super::{Failure, block_on, say, subject_of};
use crate::config::{Sources, escape_controls};
use crate::settings;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The user's subject: the sub claim of your tokens.
    subject: String,
    #[command(flatten)]
    api: ApiArgs,
    /// Prints Rollout's whole answer, as JSON.
    #[arg(long)]
    json: bool,
}

/// The columns of the output, and the credential's field that each column shows.
const COLUMNS: [(&str, &str); 4] = [
    ("APP", "appKey"),
    ("ID", "id"),
    ("CONNECTED", "createdAt"),
    ("LABEL", "label"),
];

pub(super) fn run(args: &Args, sources: &Sources) -> Result<(), Failure> {
    let subject = subject_of(&args.subject)?;
    let (client, http) = settings::load_client_and_http(sources)?;
    let url = args.api.credentials()?;
    let answered = block_on(get_credentials(&url, &client, &subject, &http))??;
    let answer = answered.credentials.map_err(Failure::Runtime)?;
    if args.json {
        return say(format_args!("{answer:#}"));
    }
    // Rollout's API returns a list as an array, or as an object with the items in `data`.
    let Some(items) = answer.as_array().or_else(|| answer["data"].as_array()) else {
        return Err(Failure::Runtime(
            "Rollout's answer is not a list of credentials: use --json to see it".to_owned(),
        ));
    };
    if items.is_empty() {
        return say(format_args!(
            "{:?} has no connected apps at Rollout.",
            args.subject
        ));
    }
    say(table(items))
}

fn table(items: &[Value]) -> String {
    let header = COLUMNS.map(|(title, _)| title.to_owned()).to_vec();
    let row = |item: &Value| COLUMNS.map(|(_, member)| shown(&item[member])).to_vec();
    let rows: Vec<Vec<String>> = std::iter::once(header)
        .chain(items.iter().map(row))
        .collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let lines = rows.iter().map(|row| {
        let cells = row.iter().enumerate();
        let cells = cells.map(|(column, cell)| format!("{cell:<width$}", width = width(column)));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Escapes control characters, because users choose the labels, which may contain terminal escape sequences.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => escape_controls(text),
        value => escape_controls(&value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_aligned_and_control_characters_are_escaped() {
        let items = [
            json!({"id": "cred_1", "appKey": "follow-up-boss", "createdAt": "2026-01-02T03:04:05Z", "label": "Ann\u{1b}[31m"}),
            json!({"id": 7, "appKey": "x", "label": ["\u{9b}31m"]}),
        ];
        assert_eq!(
            table(&items),
            "APP             ID      CONNECTED             LABEL\n\
             follow-up-boss  cred_1  2026-01-02T03:04:05Z  Ann\\u{1b}[31m\n\
             x               7       -                     [\"\\u{9b}31m\"]"
        );
    }
}

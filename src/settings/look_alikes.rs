//! Warns about environment variables that begin with `ROLLOUT_` and are probably misspelled keys. An app that uses
//! Rollout may define other such variables, so only names that resemble a key are reported.

use strsim::osa_distance;

/// A message for each name that resembles a key. `sections` are all sections with their keys.
pub(super) fn find<'a>(
    names: &'a [String],
    sections: &serde_json::Map<String, serde_json::Value>,
) -> Vec<(&'a str, String)> {
    let known = known_variables(sections);
    let message = |name: &'a String| {
        let meant = resembling(name, &known)?;
        let text = format!("is not a variable of this service: did you mean {meant}?");
        Some((name.as_str(), text))
    };
    names.iter().filter_map(message).collect()
}

fn known_variables(sections: &serde_json::Map<String, serde_json::Value>) -> Vec<String> {
    let mut known: Vec<String> = [
        "ROLLOUT_CONFIG",
        "ROLLOUT_CLIENT_ID",
        "ROLLOUT_CLIENT_SECRET",
        "ROLLOUT_CLIENT_SECRET_FILE",
    ]
    .map(str::to_owned)
    .to_vec();
    for (section, keys) in sections {
        let keys = keys.as_object().into_iter().flatten();
        known.extend(keys.map(|(key, _)| format!("ROLLOUT__{section}__{key}").to_uppercase()));
    }
    known
}

/// The variable that `name` probably misspells. A name that begins with `ROLLOUT_EXTRACTORS_` is rewritten with double
/// underscores, because the keys of extractors are not in `known`.
fn resembling(name: &str, known: &[String]) -> Option<String> {
    let name = name.to_ascii_uppercase();
    let letters = |name: &str| {
        name.strip_prefix("ROLLOUT")
            .unwrap_or(name)
            .replace('_', "")
    };
    let given = letters(&name);
    if let Some(rest) = name.strip_prefix("ROLLOUT_EXTRACTORS_") {
        let rest = rest.trim_start_matches('_');
        let rest = if rest.contains("__") {
            rest.to_owned()
        } else {
            rest.replacen('_', "__", 1)
        };
        return Some(format!("ROLLOUT__EXTRACTORS__{rest}"));
    }
    let is_alike = |known: &&String| {
        let known = letters(known);
        let most = if known.len() < 12 { 1 } else { 2 };
        osa_distance(&given, &known) <= most
            || given
                .strip_prefix(&known)
                .is_some_and(|rest| matches!(rest, "FILE" | "PATH"))
    };
    // If several names are similar, return the closest.
    known
        .iter()
        .filter(is_alike)
        .min_by_key(|known| osa_distance(&given, &letters(known)))
        .cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelled_variables_are_detected_and_variables_of_apps_and_kubernetes_are_not() {
        let sections = serde_json::json!({
            "server": {"listen": "", "admin_listen": ""},
            "session": {"extractors": []},
            "token": {"ttl": "", "claims": {}},
            "log": {"level": "", "format": ""},
        });
        let known = known_variables(sections.as_object().expect("sections"));
        for (name, want) in [
            ("ROLLOUT_SERVER_LISTEN", Some("ROLLOUT__SERVER__LISTEN")),
            ("ROLLOUT_SERVER__LISTEN", Some("ROLLOUT__SERVER__LISTEN")),
            ("rollout__server__listen", Some("ROLLOUT__SERVER__LISTEN")),
            ("ROLLOUT_ADMIN_LISTEN", None),
            (
                "ROLLOUT_SESSION_EXTRACTOR",
                Some("ROLLOUT__SESSION__EXTRACTORS"),
            ),
            (
                "ROLLOUT_EXTRACTORS_WEB_KIND",
                Some("ROLLOUT__EXTRACTORS__WEB__KIND"),
            ),
            (
                "ROLLOUT_EXTRACTORS__WEB__SECRET_KEY",
                Some("ROLLOUT__EXTRACTORS__WEB__SECRET_KEY"),
            ),
            ("ROLLOUT_LOG_LEVEL", Some("ROLLOUT__LOG__LEVEL")),
            ("ROLLOUT_CLIENTID", Some("ROLLOUT_CLIENT_ID")),
            ("rollout_client_secret", Some("ROLLOUT_CLIENT_SECRET")),
            ("ROLLOUT_CLIENT_SECRETS", Some("ROLLOUT_CLIENT_SECRET")),
            ("ROLLOUT_CLIENT_SERCET", Some("ROLLOUT_CLIENT_SECRET")),
            ("ROLLOUT_CLIENT_SECRET_PATH", Some("ROLLOUT_CLIENT_SECRET")),
            ("ROLLOUT_CLIENT_ID_FILE", Some("ROLLOUT_CLIENT_ID")),
            ("ROLLOUT_CONFIG_FILE", Some("ROLLOUT_CONFIG")),
            ("ROLLOUT_APP_KEY", None),
            ("ROLLOUT_API_KEY", None),
            ("ROLLOUT_ENV", None),
            ("ROLLOUT_SECRET", None),
            ("ROLLOUT_WEBHOOK_SECRET", None),
            ("ROLLOUT_TOKEN_URL", None),
            ("ROLLOUT_TOKEN_ENV", None),
            ("ROLLOUT_PORT", None),
            ("ROLLOUT_SERVICE_HOST", None),
            ("ROLLOUT_TOKEN_PORT", None),
            ("ROLLOUT_TOKEN_SERVICE_PORT_HTTP", None),
            ("ROLLOUT_TOKEN_PORT_8080_TCP_ADDR", None),
        ] {
            assert_eq!(resembling(name, &known).as_deref(), want, "{name}");
        }
    }
}

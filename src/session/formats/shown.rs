//! Formats a credential's values for logs and `explain`, next to the expected values.

/// The maximum number of characters in one value.
const MAX_CHARS: usize = 100;
/// The maximum number of values in a list.
const MAX_VALUES: usize = 5;

/// The text, truncated to [`MAX_CHARS`] and [`escaped`]; the word `empty` if the text is empty.
pub fn shown(text: &str) -> String {
    if text.is_empty() {
        return "empty".to_owned();
    }
    let mut chars = text.chars();
    let first: String = chars.by_ref().take(MAX_CHARS).collect();
    let mut shown = escaped(&first);
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}

/// Escapes the characters that a terminal does not display literally, such as control and bidirectional characters.
pub fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '"' | '\'' | '\\' => escaped.push(c),
            c => escaped.extend(c.escape_debug()),
        }
    }
    escaped
}

/// The first [`MAX_VALUES`] values of a list, separated by commas, and the number of the others; the word `missing` if
/// the list is empty.
pub fn listed<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> String {
    let mut values = values.into_iter();
    let first: Vec<String> = values
        .by_ref()
        .take(MAX_VALUES)
        .map(|value| shown(value.as_ref()))
        .collect();
    let more = values.count();
    match (first.is_empty(), more) {
        (true, _) => "missing".to_owned(),
        (false, 0) => first.join(", "),
        (false, more) => format!("{} and {more} more", first.join(", ")),
    }
}

/// Describes a mismatch between a value in a credential and the values that the configuration accepts: "`name` is …,
/// but `key` allows only …".
pub fn differs<F: AsRef<str>, E: AsRef<str>>(
    name: &str,
    found: impl IntoIterator<Item = F>,
    key: &str,
    expected: impl IntoIterator<Item = E>,
) -> String {
    format!(
        "{name} is {}, but {key} allows only {}",
        listed(found),
        listed(expected)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_and_expected_values_are_shown_truncated_and_escaped() {
        assert_eq!(
            differs("aud", ["a", "b\n\u{1b}"], "audiences", ["app"]),
            r"aud is a, b\n\u{1b}, but audiences allows only app"
        );
        assert_eq!(
            differs("iss", Some(""), "issuers", ["https://id"]),
            "iss is empty, but issuers allows only https://id"
        );
        assert_eq!(
            differs("iss", None::<&str>, "issuers", ["https://id"]),
            "iss is missing, but issuers allows only https://id"
        );
        let long = "x".repeat(500);
        assert_eq!(shown(&long), format!("{}…", "x".repeat(100)));
        assert_eq!(listed(["a"; 7]), "a, a, a, a, a and 2 more");
    }
}

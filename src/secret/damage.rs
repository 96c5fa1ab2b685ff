//! Detects common damage to a secret on its way from a dashboard to this process: quotes, white space or invisible
//! characters around it, a byte order mark, another encoding, or its own name in front of it.

use std::fmt;

/// Descriptions of the damage to a value. They never contain the value.
#[derive(Debug, PartialEq, Eq)]
pub struct Damage(Vec<String>);

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", and "))
    }
}

const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";
const UTF16_MARKS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// Pairs of quotes that shells, `.env` files, Markdown and word processors put around a value.
const QUOTES: [(&str, &str, &str); 5] = [
    ("\"", "\"", "double quotes"),
    ("'", "'", "single quotes"),
    ("`", "`", "backticks"),
    ("\u{201c}", "\u{201d}", "typographic quotes"),
    ("\u{2018}", "\u{2019}", "typographic quotes"),
];

/// The damage to the value; `None` if it looks intact. `names` are names that may be in front of the value, as in
/// `NAME=value`.
pub fn damage(value: &[u8], names: &[&str]) -> Option<Damage> {
    if UTF16_MARKS.iter().any(|mark| value.starts_with(mark)) {
        return Some(Damage(vec![
            "begins with the byte order mark of UTF-16 (save it as UTF-8)".to_owned(),
        ]));
    }
    if value.contains(&0) {
        return Some(Damage(vec![
            "contains NUL bytes, as text in UTF-16 does (save it as UTF-8)".to_owned(),
        ]));
    }
    let (mut found, mut rest) = (Vec::new(), value);
    // Damage may be nested, for example quotes followed by a carriage return.
    while let Some((what, inner)) = outermost(rest, names) {
        if !found.contains(&what) {
            found.push(what);
        }
        rest = inner;
    }
    (!found.is_empty()).then_some(Damage(found))
}

/// The outermost damage, and the value inside it.
fn outermost<'a>(value: &'a [u8], names: &[&str]) -> Option<(String, &'a [u8])> {
    if let Some(inner) = value.strip_prefix(UTF8_MARK) {
        let what = "begins with a byte order mark (save it as UTF-8 without one)";
        return Some((what.to_owned(), inner));
    }
    for (open, close, what) in QUOTES {
        let inner = value
            .strip_prefix(open.as_bytes())
            .and_then(|rest| rest.strip_suffix(close.as_bytes()));
        if let Some(inner) = inner {
            let what =
                format!("is wrapped in {what} (Docker's --env-file, for example, keeps them)");
            return Some((what, inner));
        }
    }
    if let Some((name, inner)) = names
        .iter()
        .filter(|name| !name.is_empty())
        .find_map(|name| Some((name, without_name(value, name)?)))
    {
        return Some((format!("begins with its own name, {name}="), inner));
    }
    let text = String::from_utf8_lossy(value);
    let last = text.chars().next_back().filter(|c| is_blank(*c));
    if let Some(c) = last {
        let what = format!("ends with {}", name_of(c));
        return Some((what, &value[..value.len() - c.len_utf8()]));
    }
    let first = text.chars().next().filter(|c| is_blank(*c));
    first.map(|c| {
        (
            format!("begins with {}", name_of(c)),
            &value[c.len_utf8()..],
        )
    })
}

/// The value after `NAME=` or `export NAME =`, where the name may be in upper or lower case.
fn without_name<'a>(value: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let rest = value.strip_prefix(b"export ").unwrap_or(value);
    let (start, rest) = rest.split_at_checked(name.len())?;
    let rest = rest.trim_ascii_start().strip_prefix(b"=")?;
    start
        .eq_ignore_ascii_case(name.as_bytes())
        .then_some(rest.trim_ascii_start())
}

/// Whether the character is white space, a control character, or a zero-width character that word processors add.
fn is_blank(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
}

fn name_of(c: char) -> String {
    match c {
        '\n' => "a line feed (LF)".to_owned(),
        '\r' => "a carriage return (CR)".to_owned(),
        '\t' => "a tab".to_owned(),
        ' ' => "a space".to_owned(),
        c if c.is_whitespace() => format!("white space (U+{:04X})", u32::from(c)),
        c => format!("an invisible character (U+{:04X})", u32::from(c)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 2] = ["ROLLOUT_CLIENT_SECRET", "client_secret"];

    #[test]
    fn each_kind_of_damage_is_described_and_an_intact_value_has_none() {
        for (value, want) in [
            (&b"\"value\""[..], "is wrapped in double quotes"),
            (b"'value'", "is wrapped in single quotes"),
            ("\u{201c}value\u{201d}".as_bytes(), "typographic quotes"),
            (b"value\r", "ends with a carriage return (CR)"),
            (b"value\n", "ends with a line feed (LF)"),
            (b"value ", "ends with a space"),
            (b"\tvalue", "begins with a tab"),
            (b"value\x1b", "ends with an invisible character (U+001B)"),
            ("value\u{a0}".as_bytes(), "ends with white space (U+00A0)"),
            (
                "\u{200b}value".as_bytes(),
                "begins with an invisible character (U+200B)",
            ),
            (b"\xef\xbb\xbfvalue", "begins with a byte order mark"),
            (b"\xff\xfev\0a\0", "byte order mark of UTF-16"),
            (b"v\0a\0l\0", "contains NUL bytes"),
            (
                b"ROLLOUT_CLIENT_SECRET=value",
                "begins with its own name, ROLLOUT_CLIENT_SECRET=",
            ),
            (
                b"export ROLLOUT_CLIENT_SECRET=value",
                "begins with its own name",
            ),
            (b"client_secret = value", "begins with its own name"),
        ] {
            let found = damage(value, &NAMES).map(|damage| damage.to_string());
            assert!(
                found
                    .as_ref()
                    .is_some_and(|found| found.contains(want) && !found.contains("alue")),
                "{value:?}: {found:?}"
            );
        }
        for intact in [
            &b"value"[..],
            b"\"value",
            b"val\"ue'",
            b"it is a value",
            b"NAME=value",
            b"ROLLOUT_CLIENT_SECRETvalue",
            b"\x80\xffvalue\x80",
            b"'",
            b"",
        ] {
            assert_eq!(damage(intact, &NAMES), None, "{intact:?}");
        }
    }

    #[test]
    fn every_layer_of_nested_damage_is_described_once() {
        let found = damage(b"client_secret=\"value\"\r\r", &NAMES);
        let found = found.expect("damage").to_string();
        for want in ["a carriage return (CR)", "its own name", "double quotes"] {
            assert_eq!(found.matches(want).count(), 1, "{want} in {found}");
        }
    }
}

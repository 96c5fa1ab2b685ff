//! The types of values that have their own notation: durations with a unit, public keys and certificates, and lists.
//! `settings` and the extractor kinds choose the type of each key.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{
    self, Deserialize, Deserializer, IntoDeserializer, SeqAccess, Unexpected, Visitor,
};
use serde::{Serialize, Serializer};

use super::deserializer::{Error, StrictValue};
use crate::clock::UnixSeconds;
use crate::secret::{Secret, refuse};

/// A duration written with its unit: `"500ms"`, `"15m"`, `"1h 30m"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanDuration(pub Duration);

/// The maximum duration. No timeout or lifetime of this service is longer, so a longer duration must be a typing error.
const LONGEST: Duration = Duration::from_secs(400 * 24 * 60 * 60);

impl HumanDuration {
    pub const fn secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// Reads a number without a unit as seconds, which the operator probably meant. Returns `None` for other text, and
    /// above the maximum: such a number may be a secret under the wrong key, which no message may repeat.
    pub fn of_bare_number(text: &str) -> Option<Self> {
        let seconds = Duration::from_secs(text.trim().parse().ok()?);
        (seconds <= LONGEST).then_some(Self(seconds))
    }

    /// The duration in seconds, rounded down.
    pub fn whole_seconds(self) -> UnixSeconds {
        self.0.as_secs().try_into().unwrap_or(UnixSeconds::MAX)
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u128, &str); 4] = [
            (24 * 60 * 60 * 1000, "d"),
            (60 * 60 * 1000, "h"),
            (60 * 1000, "m"),
            (1000, "s"),
        ];
        let millis = self.0.as_millis();
        match UNITS
            .iter()
            .find(|(unit, _)| millis >= *unit && millis.is_multiple_of(*unit))
        {
            Some((unit, name)) => write!(f, "{}{name}", millis / unit),
            None if millis == 0 => f.write_str("0s"),
            None => write!(f, "{millis}ms"),
        }
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(HumanDurationVisitor)
    }
}

struct HumanDurationVisitor;

impl HumanDurationVisitor {
    fn help(text: &str) -> String {
        match HumanDuration::of_bare_number(text) {
            Some(HumanDuration(span)) => format!(
                "must be a duration with its unit: write \"{0}s\" for seconds, or \"{0}ms\" for milliseconds",
                span.as_secs()
            ),
            None => "must be a duration with its unit, such as \"10s\" or \"500ms\"".to_owned(),
        }
    }
}

impl Visitor<'_> for HumanDurationVisitor {
    type Value = HumanDuration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration with its unit, such as \"10s\" or \"500ms\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<HumanDuration, E> {
        // humantime accepts a bare `0`, and no other number without a unit.
        match humantime::parse_duration(text) {
            Ok(span) if span > LONGEST => Err(E::custom("is longer than 400 days")),
            Ok(span) if text.trim() != "0" => Ok(HumanDuration(span)),
            Ok(_) | Err(_) => Err(E::custom(Self::help(text))),
        }
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<HumanDuration, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<HumanDuration, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<HumanDuration, E> {
        Err(E::custom(Self::help("")))
    }
}

/// A value that is not secret but is usually stored in its own file: certificates, public keys or a key set.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicText(Vec<u8>);

impl PublicText {
    /// Removes a byte order mark, which some editors add, and converts each escape `\n` to a line end, because many
    /// platforms allow only a single line in an environment variable. A `\n` in JSON is kept.
    fn new(bytes: &[u8]) -> Self {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let is_json = || serde_json::from_slice::<de::IgnoredAny>(bytes).is_ok();
        match str::from_utf8(bytes) {
            Ok(text) if text.contains("\\n") && !is_json() => Self(
                text.replace("\\r\\n", "\n")
                    .replace("\\n", "\n")
                    .into_bytes(),
            ),
            _ => Self(bytes.to_vec()),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

// Only the size is shown, because a key set may contain private keys by mistake.
impl fmt::Debug for PublicText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} bytes]", self.0.len())
    }
}

impl Serialize for PublicText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{self:?}"))
    }
}

impl<'de> Deserialize<'de> for PublicText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PublicTextVisitor)
    }
}

struct PublicTextVisitor;

impl Visitor<'_> for PublicTextVisitor {
    type Value = PublicText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string in quotes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<PublicText, E> {
        Ok(PublicText::new(text.as_bytes()))
    }

    /// Accepts the content of a file.
    fn visit_bytes<E: de::Error>(self, content: &[u8]) -> Result<PublicText, E> {
        Ok(PublicText::new(content))
    }
}

/// A list. The value of an environment variable is split at its commas; any other string is a single item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct List<T>(pub Vec<T>);

// `Default` is not derived, because the derived impl would require `T: Default`, which an empty list does not need.
impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl List<String> {
    pub fn of(items: &[&str]) -> Self {
        Self(items.iter().map(|&item| item.to_owned()).collect())
    }
}

impl<T> std::ops::Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ListVisitor(PhantomData))
    }
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
    type Value = List<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<List<T>, E> {
        T::deserialize(text.into_deserializer()).map(|item| List(vec![item]))
    }

    /// Accepts the content of a file with one item per line. Empty lines are skipped.
    fn visit_bytes<E: de::Error>(self, content: &[u8]) -> Result<List<T>, E> {
        let lines = content.split(|&byte| byte == b'\n');
        let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let items: Vec<T> = lines
            .filter(|line| !line.is_empty())
            .map(|line| T::deserialize(StrictValue::FileContent(Secret::new(line))))
            .collect::<Result<_, _>>()
            .map_err(|error| match error {
                Error::NotFromFile => E::invalid_type(Unexpected::Bytes(&[]), &self),
                error => E::custom(error),
            })?;
        if items.is_empty() {
            return Err(E::custom(
                "contains no secret: write one secret per line, or leave the key out",
            ));
        }
        Ok(List(items))
    }

    refuse!("must be a list, not a number"; visit_i64: i64, visit_u64: u64, visit_f64: f64);

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<List<T>, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(access)).map(List)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::deserializer::StrictValue;

    #[test]
    fn duration_without_unit_or_above_400_days_is_refused() {
        for (text, want) in [
            ("\"15m\"", Some(Duration::from_secs(900))),
            ("\"500ms\"", Some(Duration::from_millis(500))),
            ("\"0s\"", Some(Duration::ZERO)),
            ("\"5\"", None),
            ("\"0\"", None),
            ("5", None),
            ("\"-5s\"", None),
            ("\"1000000000000000000s\"", None),
            ("\"\"", None),
            ("true", None),
        ] {
            let span = serde_json::from_str::<HumanDuration>(text)
                .ok()
                .map(|span| span.0);
            assert_eq!(span, want, "{text}");
        }
    }

    #[test]
    fn duration_is_shown_in_the_largest_unit_that_divides_it() {
        for text in ["0s", "500ms", "75s", "15m", "2h", "31d", "1500ms"] {
            let span: HumanDuration = serde_json::from_value(text.into()).unwrap();
            assert_eq!(span.to_string(), text);
        }
    }

    #[test]
    fn byte_order_mark_is_removed_and_escaped_line_ends_are_decoded_except_in_json() {
        let read = |text: &str| {
            let text: PublicText = serde_json::from_value(text.into()).unwrap();
            String::from_utf8(text.bytes().to_vec()).unwrap()
        };
        for (text, want) in [
            ("-----BEGIN X-----\nAA\n", "-----BEGIN X-----\nAA\n"),
            ("-----BEGIN X-----\\nAA\\n", "-----BEGIN X-----\nAA\n"),
            ("-----BEGIN X-----\\r\\nAA", "-----BEGIN X-----\nAA"),
            ("\u{feff}{\"keys\":[]}", "{\"keys\":[]}"),
            ("{\\n\"keys\":[]}", "{\n\"keys\":[]}"),
            (r#"{"x":"a\nb"}"#, r#"{"x":"a\nb"}"#),
        ] {
            assert_eq!(read(text), want, "{text:?}");
        }
    }

    #[test]
    fn number_in_place_of_a_list_is_refused_without_repeating_it() {
        assert_eq!(
            serde_json::from_str::<List<String>>("[\"a\",\"b\"]").unwrap(),
            List::of(&["a", "b"])
        );
        for number in [123_454_321_i64.into(), 123_454_321.5.into()] {
            let error = List::<String>::deserialize(StrictValue::Given(number));
            let error = error.unwrap_err().to_string();
            assert!(!error.contains("123454321"), "{error}");
        }
    }
}

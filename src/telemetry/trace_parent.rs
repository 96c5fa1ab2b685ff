//! The header `traceparent`, by which a request is part of its caller's trace.
//!
//! Only a well-formed one is read, and backends get one that is written from what was read. `tracestate` and
//! `baggage` can hold anything, so they are neither read nor passed on.

use std::fmt;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
#[cfg(feature = "otel")]
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

use crate::headers::single;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A span in a trace, as others are told of it (W3C Trace Context, section 3.2), in the form of version 00.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceParent([u8; Self::LENGTH]);

impl TraceParent {
    /// `00-`, the trace's id in 32 digits, `-`, the span's in 16, `-`, flags in 2.
    const LENGTH: usize = 55;

    /// The caller's. `None` if there is none, more than one, or one that is not well-formed: the request
    /// then begins a trace.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        Self::parse(single(headers, &TRACEPARENT).ok()??.as_bytes())
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let (known, more) = text.split_first_chunk::<{ Self::LENGTH }>()?;
        let digits = |range: std::ops::Range<usize>| {
            known[range]
                .iter()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let not_zero =
            |range: std::ops::Range<usize>| known[range].iter().any(|&byte| byte != b'0');
        // A later version may add fields; what this one has stays where it is.
        let fits = match &known[..2] {
            b"00" => more.is_empty(),
            b"ff" => false,
            _ => more.is_empty() || more.starts_with(b"-"),
        };
        let dashes = [2, 35, 52].iter().all(|&at| known[at] == b'-');
        let hex = digits(0..2) && digits(3..35) && digits(36..52) && digits(53..55);
        if !(fits && dashes && hex && not_zero(3..35) && not_zero(36..52)) {
            return None;
        }
        let mut own = Self(*known);
        own.0[..2].copy_from_slice(b"00");
        Some(own)
    }

    pub fn trace_id(&self) -> &str {
        self.text(3..35)
    }

    /// The library's form, as the span of another process.
    #[cfg(feature = "otel")]
    pub(super) fn span_context(&self) -> SpanContext {
        let flags = u8::from_str_radix(self.text(53..55), 16).unwrap_or_default();
        SpanContext::new(
            TraceId::from_hex(self.trace_id()).unwrap_or(TraceId::INVALID),
            SpanId::from_hex(self.text(36..52)).unwrap_or(SpanId::INVALID),
            // The other flags have no meaning here.
            TraceFlags::new(flags & TraceFlags::SAMPLED.to_u8()),
            true,
            TraceState::NONE,
        )
    }

    #[cfg(feature = "otel")]
    pub(super) fn of_span_context(own: &SpanContext) -> Option<Self> {
        let text = format!(
            "00-{}-{}-{:02x}",
            own.trace_id(),
            own.span_id(),
            own.trace_flags()
        );
        Self::parse(text.as_bytes())
    }

    fn text(&self, range: std::ops::Range<usize>) -> &str {
        // It is digits and dashes.
        std::str::from_utf8(&self.0[range]).unwrap_or_default()
    }

    pub(super) fn put_into(self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::from_bytes(&self.0) {
            headers.insert(TRACEPARENT, value);
        }
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text(0..Self::LENGTH))
    }
}

/// Passes the caller's trace on to a backend that is called for them. Where traces are sent, the span of the
/// call takes its place.
pub fn pass_on(caller: &HeaderMap, request: &mut reqwest::Request) {
    if let Some(parent) = TraceParent::of(caller) {
        parent.put_into(request.headers_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of(values: &[&str]) -> Option<String> {
        let headers = values
            .iter()
            .map(|value| (TRACEPARENT, HeaderValue::from_str(value).unwrap()));
        let parent = TraceParent::of(&headers.collect())?;
        let mut headers = HeaderMap::new();
        parent.put_into(&mut headers);
        assert_eq!(parent.trace_id().len(), 32);
        Some(headers[TRACEPARENT].to_str().unwrap().to_owned())
    }

    #[test]
    fn well_formed_traceparent_is_passed_on_unchanged() {
        assert_eq!(of(&[GOOD]).as_deref(), Some(GOOD));
        let not_sampled = GOOD.replace("-01", "-00");
        assert_eq!(of(&[&not_sampled]), Some(not_sampled));
        let later = format!("{}-more-that-we-do-not-know", GOOD.replacen("00", "cc", 1));
        assert_eq!(of(&[&later]).as_deref(), Some(GOOD), "in version 00");
    }

    #[test]
    fn malformed_or_repeated_traceparent_is_ignored() {
        let ids = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        for bad in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-"),
            &format!("{GOOD}x"),
            &format!(" {GOOD}"),
            &GOOD.to_uppercase(),
            &GOOD.replacen("00", "ff", 1),
            &GOOD.replacen("00", "0g", 1),
            &GOOD.replace('-', "_"),
            &GOOD.replace(ids.0, &"0".repeat(32)),
            &GOOD.replace(ids.1, &"0".repeat(16)),
            &format!("{}x", GOOD.replacen("00", "cc", 1)),
            &GOOD.replace("4bf9", "4bF9"),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0\u{a0}",
        ] {
            assert_eq!(of(&[bad]), None, "{bad}");
        }
        assert_eq!(of(&[GOOD, GOOD]), None, "twice");
        assert_eq!(of(&[]), None);
    }
}

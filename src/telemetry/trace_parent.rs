//! The header `traceparent`, which makes a request part of its caller's trace.
//!
//! A malformed value is ignored, and the value that backends get is rebuilt from the parsed fields. `tracestate` and
//! `baggage` can contain arbitrary data, so they are neither read nor passed on.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
#[cfg(feature = "otel")]
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

use crate::headers::single;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A `traceparent` (W3C Trace Context, section 3.2) in the format of version 00.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceParent(String);

impl TraceParent {
    /// The length of `00-TRACE-SPAN-FLAGS`, with 32, 16 and 2 hexadecimal digits after the version.
    const LENGTH: usize = 55;

    /// The caller's `traceparent`, or `None` if it is absent, repeated or malformed. If traces are exported, such a
    /// request starts a new trace.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        Self::parse(single(headers, &TRACEPARENT).ok()??.to_str().ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let (known, more) = text.split_at_checked(Self::LENGTH)?;
        let mut fields = known.split('-');
        let (version, trace_id) = (fields.next()?, fields.next()?);
        let (span_id, flags) = (fields.next()?, fields.next()?);
        let is_hex = |text: &str| {
            text.bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_id = |text: &str, length| {
            text.len() == length && is_hex(text) && text.bytes().any(|byte| byte != b'0')
        };
        // A later version may add fields at the end.
        let is_version = match version {
            "00" => more.is_empty(),
            "ff" => false,
            _ => {
                version.len() == 2 && is_hex(version) && (more.is_empty() || more.starts_with('-'))
            }
        };
        let is_well_formed = is_version
            && is_id(trace_id, 32)
            && is_id(span_id, 16)
            && flags.len() == 2
            && is_hex(flags);
        is_well_formed.then(|| Self(format!("00-{trace_id}-{span_id}-{flags}")))
    }

    pub fn trace_id(&self) -> &str {
        &self.0[3..35]
    }

    /// Converts this value to the OpenTelemetry context of a remote span.
    #[cfg(feature = "otel")]
    pub(super) fn span_context(&self) -> Option<SpanContext> {
        let flags = u8::from_str_radix(&self.0[53..], 16).ok()?;
        Some(SpanContext::new(
            TraceId::from_hex(self.trace_id()).ok()?,
            SpanId::from_hex(&self.0[36..52]).ok()?,
            // Only the sampled flag is used. All other flags are dropped.
            TraceFlags::new(flags & TraceFlags::SAMPLED.to_u8()),
            true,
            TraceState::NONE,
        ))
    }

    #[cfg(feature = "otel")]
    pub(super) fn of_span_context(own: &SpanContext) -> Option<Self> {
        Self::parse(&format!(
            "00-{}-{}-{:02x}",
            own.trace_id(),
            own.span_id(),
            own.trace_flags()
        ))
    }

    pub(super) fn put_into(&self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::from_str(&self.0) {
            headers.insert(TRACEPARENT, value);
        }
    }
}

/// Passes the caller's `traceparent` on to a backend. If traces are exported, `inject` replaces it with that of the
/// call's span.
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
    fn well_formed_traceparent_is_passed_on_in_version_00() {
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

//! One request's place in a trace: the caller's `traceparent`, and the spans of a build with the
//! feature `otel`. What is logged and counted about a request is in `telemetry` and `metrics`.
//!
//! Of the caller's, only a well-formed `traceparent` is read, and written anew: `tracestate` and
//! `baggage` can hold anything, so they are neither kept nor passed on.

mod export;
#[cfg(not(feature = "otel"))]
#[path = "off.rs"]
mod spans;
#[cfg(feature = "otel")]
#[path = "otel.rs"]
mod spans;

use std::fmt;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

pub use export::{Export, PREFIX};
pub(crate) use spans::{call, carry, extractor, start, store};

use crate::http::error::Error;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Where a caller stands in a trace (W3C Trace Context, section 3.2), in the form of version 00.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceParent([u8; Self::LENGTH]);

impl TraceParent {
    /// `00-`, the trace's id in 32 digits, `-`, the span's in 16, `-`, flags in 2.
    const LENGTH: usize = 55;

    /// The caller's. `None` if there is none, more than one, or one that is not well-formed: the
    /// request is then the first of a trace.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        Self::parse(value.as_bytes())
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let (known, more) = text.split_first_chunk::<{ Self::LENGTH }>()?;
        let digits = |range: std::ops::Range<usize>| {
            known[range].iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let not_zero = |range: std::ops::Range<usize>| known[range].iter().any(|&byte| byte != b'0');
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

    fn text(&self, range: std::ops::Range<usize>) -> &str {
        // It is digits and dashes.
        std::str::from_utf8(&self.0[range]).unwrap_or_default()
    }

    fn put_into(self, headers: &mut HeaderMap) {
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

/// Lets the back end that is asked on a caller's behalf see whose trace it is in. Spans, where there are
/// some, put themselves in between.
pub fn pass_on(caller: &HeaderMap, request: &mut reqwest::Request) {
    if let Some(parent) = TraceParent::of(caller) {
        parent.put_into(request.headers_mut());
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub struct Trace {
    parent: Option<TraceParent>,
    span: spans::RequestSpan,
}

impl Trace {
    pub fn begin(request: &Request, request_id: &str) -> Self {
        let caller = TraceParent::of(request.headers());
        let span = spans::RequestSpan::begin(request, caller, request_id);
        Self { parent: span.own().or(caller), span }
    }

    /// By which the trace is found: for the log.
    pub fn id(&self) -> Option<&str> {
        self.parent.as_ref().map(TraceParent::trace_id)
    }

    /// The work of answering. What it calls is part of the trace.
    pub fn over<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        self.span.over(work)
    }


    pub fn refused(&self, error: &Error) {
        self.span.refused(error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of(values: &[&str]) -> Option<String> {
        let headers = values.iter().map(|value| (TRACEPARENT, HeaderValue::from_str(value).unwrap()));
        let parent = TraceParent::of(&headers.collect())?;
        let mut headers = HeaderMap::new();
        parent.put_into(&mut headers);
        assert_eq!(parent.trace_id().len(), 32);
        Some(headers[TRACEPARENT].to_str().unwrap().to_owned())
    }

    #[test]
    fn a_well_formed_parent_is_passed_on_as_it_is() {
        assert_eq!(of(&[GOOD]).as_deref(), Some(GOOD));
        let not_sampled = GOOD.replace("-01", "-00");
        assert_eq!(of(&[&not_sampled]), Some(not_sampled));
        let later = format!("{}-more-that-we-do-not-know", GOOD.replacen("00", "cc", 1));
        assert_eq!(of(&[&later]).as_deref(), Some(GOOD), "in the version that we speak");
    }

    #[test]
    fn anything_else_is_as_if_it_were_not_there() {
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

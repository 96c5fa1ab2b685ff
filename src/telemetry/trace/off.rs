//! Spans in a build without the feature `otel`: there are none, and work goes on as it is.
//! The same names with the feature are in `otel.rs`.

#![expect(
    clippy::unnecessary_wraps,
    clippy::unused_async,
    clippy::unused_self,
    reason = "these have the form of what does something"
)]

use std::convert::Infallible;

use axum::extract::Request;

use super::{Export, TraceParent};
use crate::http::error::Error;
use crate::session::backends::http::HttpClient;

#[derive(Debug)]
pub struct Traces;

pub fn start(_: Option<&Export>, _: &HttpClient) -> Result<Traces, Infallible> {
    Ok(Traces)
}

impl Traces {
    pub async fn flush(self) {}
}

#[derive(Debug)]
pub struct RequestSpan;

impl RequestSpan {
    pub fn begin(_: &Request, _: Option<TraceParent>, _: &str) -> Self {
        Self
    }

    pub fn own(&self) -> Option<TraceParent> {
        None
    }

    pub fn over<F: Future>(&self, work: F) -> F {
        work
    }


    pub fn refused(&self, _: &Error) {}
}

pub fn extractor<F: Future>(_: &str, _: &'static str, work: F) -> F {
    work
}

pub fn call<F: Future>(request: reqwest::Request, send: impl FnOnce(reqwest::Request) -> F) -> F {
    send(request)
}

pub fn store<F: Future>(_: &'static str, work: F) -> F {
    work
}

pub fn carry<F: Future>(work: F) -> F {
    work
}

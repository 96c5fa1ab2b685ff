//! What several kinds of extractors use. No kind is mentioned here.

pub mod app_secret;
pub mod cookie;
pub mod headers;
pub mod payload;
pub mod stamped;

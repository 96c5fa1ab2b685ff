//! What several kinds of extractors use. No kind is mentioned here.

pub mod headers;

//! What several kinds of extractors have in common: where a credential stands, keys, outgoing calls.
//! Nothing here knows which kind is asking.

pub mod app_secret;
pub mod cookie;
pub mod headers;
pub mod http;
pub mod jwks;
pub mod keys;
pub mod payload;
pub mod places;
pub mod stamped;

//! What several kinds of extractors have in common: where a credential stands, keys, outgoing calls.
//! Nothing here knows which kind is asking.

pub mod endpoint;
pub mod headers;
pub mod http;
pub mod jwks;
pub mod keys;
pub mod lookup;
pub mod places;

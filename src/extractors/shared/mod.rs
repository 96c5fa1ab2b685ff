//! What several kinds of extractors have in common: where a credential stands, keys, outgoing calls,
//! session stores.
//! Nothing here knows which kind is asking.

pub mod expiry;
pub mod headers;
pub mod http;
pub mod jwks;
pub mod keys;
pub mod places;
pub mod pool;
pub mod session_cookie;

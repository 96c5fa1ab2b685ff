//! What several kinds of extractors have in common: where a credential stands, keys, outgoing calls,
//! session stores.
//! Nothing here knows which kind is asking.

pub mod aes;
pub mod app_secret;
pub mod authority;
pub mod claims;
pub mod cookie;
pub mod derive;
pub mod endpoint;
pub mod expiry;
pub mod glob;
pub mod headers;
pub mod health;
pub mod hex;
pub mod http;
pub mod jwe;
pub mod jwks;
pub mod jwt_form;
pub mod jwt_times;
pub mod keys;
pub mod laravel;
pub mod lookup;
pub mod payload;
pub mod per_id;
pub mod percent;
pub mod php;
pub mod places;
pub mod pool;
pub mod session_cookie;
pub mod stamped;
#[cfg(test)]
pub mod testing;
pub mod waiting;

//! The formats in which frameworks and identity providers write sessions, and helpers for headers, hosts and messages.
//! The modules consist of pure functions, without I/O and without configuration.

pub mod aes;
pub mod any_base64;
pub mod cookies;
pub mod expiry;
pub mod glob;
pub mod headers;
pub mod hex;
pub mod hkdf;
pub mod iron;
pub mod issuer;
pub mod jwe;
pub mod jwt_form;
pub mod jwt_times;
pub mod loopback;
pub mod msgpack;
pub mod page_link;
pub mod payload;
pub mod percent;
pub mod php;
pub mod rails;
pub mod shown;
pub mod signatures;
pub mod signed_timestamp;

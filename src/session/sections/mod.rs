//! Keys that the sections of several kinds have in common: secrets of the app, cookies, certificates.

pub mod app_secret;
pub mod authority;
pub mod claims;
pub mod cookie;
pub mod hmac_algorithm;
pub mod laravel;
pub mod one_or_map;
pub mod session_cookie;
pub mod signed_timestamp;
#[cfg(test)]
pub mod testing;

//! The parts of a section that several kinds share, such as the app's secrets, cookies, session ids, expiry times and
//! claim rules.

pub mod app_secret;
pub mod authority;
pub mod claims;
pub mod cookie;
pub mod hmac_algorithm;
pub mod laravel;
pub mod one_or_map;
pub mod session_cookie;
pub mod session_credential;
pub mod session_end;
pub mod session_id;
pub mod signed_timestamp;
pub mod stored_session;
#[cfg(test)]
pub mod testing;

//! What several kinds of extractors use. No kind is mentioned here.

pub mod aes;
pub mod cookie_parts;
pub mod derive;
pub mod framework_secret;
pub mod headers;
pub mod hex;
pub mod iso_time;
pub mod jwe;
pub mod jwt_times;
pub mod per_id;
pub mod percent;
pub mod php;
#[cfg(test)]
pub mod testing;

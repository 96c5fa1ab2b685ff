//! The configuration key for an HMAC algorithm, used by the kinds whose framework lets the app choose the algorithm.

use aws_lc_rs::hmac;

use crate::config::{Problems, Section};
use crate::session::formats::signed_timestamp::HMAC_SHA1;

/// The HMAC algorithm called `name`, in Node's and Python's spelling. Reports an unknown name as a problem under `key`.
pub fn read(
    section: &Section<'_>,
    key: &str,
    name: &str,
    problems: &mut Problems,
) -> Option<hmac::Algorithm> {
    let algorithm = match name {
        "sha1" => Ok(HMAC_SHA1),
        "sha256" => Ok(hmac::HMAC_SHA256),
        "sha384" => Ok(hmac::HMAC_SHA384),
        "sha512" => Ok(hmac::HMAC_SHA512),
        _ => Err("must be one of sha1, sha256, sha384, sha512"),
    };
    problems.accept(section.key(key), algorithm)
}

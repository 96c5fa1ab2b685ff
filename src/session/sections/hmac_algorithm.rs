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
        "sha1" => Some(HMAC_SHA1),
        "sha256" => Some(hmac::HMAC_SHA256),
        "sha384" => Some(hmac::HMAC_SHA384),
        "sha512" => Some(hmac::HMAC_SHA512),
        _ => None,
    };
    problems.require(
        algorithm.is_some(),
        section.key(key),
        "must be one of sha1, sha256, sha384, sha512",
    );
    algorithm
}

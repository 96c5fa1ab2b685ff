//! `inspect`: verifies a token with the client secret and prints its header and claims. If the signature does not
//! match, it tries the common misreadings of the secret.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use jsonwebtoken::{Algorithm, DecodingKey, TokenData, Validation};
use serde_json::Value;

use super::{Failure, say, waiting};
use crate::clock::Clock;
use crate::config::Sources;
use crate::session::formats::hex;
use crate::settings;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The token, or - to read it from standard input, where other users of the machine cannot see it.
    token: String,
}

pub(super) fn run(args: Args, sources: &Sources) -> Result<(), Failure> {
    let given = settings::load_client_as_given(sources)?;
    let token = if args.token == "-" {
        waiting::token_on_standard_input()?
    } else {
        args.token
    };
    let token = token.trim();
    let secret = given.secret.expose();
    let decoded = verify(token, secret);
    if let (None, Some(reading)) = (&decoded, fitting_reading(token, secret)) {
        return Err(Failure::Runtime(format!(
            "{NOT_SIGNED} as given, but {reading}"
        )));
    }
    let client = settings::load_client(sources)?;
    let Some(decoded) = decoded else {
        return Err(Failure::Runtime(why_not(token)));
    };

    let header = serde_json::to_string(&decoded.header)
        .map_err(|error| Failure::Runtime(error.to_string()))?;
    say(format_args!("header  {header}"))?;
    say(format_args!("claims  {:#}", decoded.claims))?;
    say("signature is good")?;
    let issuer = &decoded.claims["iss"];
    if *issuer != client.id.as_str() {
        return Err(Failure::Runtime(format!(
            "the token's iss is {issuer}, but the client id is {:?}",
            client.id
        )));
    }
    let now = Clock::system().now();
    match decoded.claims["exp"].as_i64() {
        Some(exp) if exp > now => say(format_args!("expires in {} s", exp.saturating_sub(now))),
        Some(exp) => Err(Failure::Runtime(format!(
            "expired {} s ago",
            now.saturating_sub(exp)
        ))),
        None => Err(Failure::Runtime(
            "the token has no exp, or its exp is not an integer".to_owned(),
        )),
    }
}

/// The token's content, if this key verifies its signature. An expired token is still decoded; its expiry is checked
/// later.
fn verify(token: &str, key: &[u8]) -> Option<TokenData<Value>> {
    let mut validation = Validation::new(Algorithm::HS512);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    // Drop the library's own message, which can quote the token.
    jsonwebtoken::decode(token, &DecodingKey::from_secret(key), &validation).ok()
}

const NOT_SIGNED: &str = "the token is not signed with this client secret";

/// How the program that signed the token misread the secret; `None` if no known misreading yields the signing key.
fn fitting_reading(token: &str, secret: &[u8]) -> Option<&'static str> {
    let fitting = readings(secret).find(|(key, _)| verify(token, key).is_some());
    fitting.map(|(_, reading)| reading)
}

/// Explains why the token cannot be verified: it is malformed, it has another algorithm, or it was signed with another
/// key.
fn why_not(token: &str) -> String {
    let header = token.split_once('.').map_or(token, |(header, _)| header);
    let header = URL_SAFE_NO_PAD.decode(header).unwrap_or_default();
    let header: Value = serde_json::from_slice(&header).unwrap_or_default();
    match header["alg"].as_str() {
        None => "this is not a token: it has no header with an alg".to_owned(),
        Some("HS512") => format!(
            "{NOT_SIGNED}, nor with the secret trimmed, without quotes, with a line break after it, or decoded from base64 or hexadecimal"
        ),
        Some(alg) => format!(
            "this is not a token for Rollout: its alg is {:?}, but Rollout accepts only HS512",
            alg.chars().take(16).collect::<String>()
        ),
    }
}

/// The explanation for a token that was signed with the base64-decoded secret.
const BASE64: &str = "with the secret decoded from base64: the program that signed the token decodes the secret, as Rollout's Java sample does (jjwt's signWith(HS512, String)). Rollout uses the undecoded bytes: in Java, pass secret.getBytes(StandardCharsets.UTF_8)";

/// Other keys that a program may derive from the same secret, each with an explanation. Rollout uses the bytes of the
/// secret unchanged.
fn readings(secret: &[u8]) -> impl Iterator<Item = (Vec<u8>, &'static str)> {
    let text = String::from_utf8_lossy(secret).into_owned();
    let trimmed = text.trim();
    let unquoted = trimmed.trim_matches(['"', '\'', '`']);
    let lenient = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = |alphabet| GeneralPurpose::new(alphabet, lenient);
    let decoded = |alphabet| engine(alphabet).decode(unquoted).ok();
    let all = [
        (
            Some(trimmed.as_bytes().to_vec()),
            "with the secret without the white space around it: trim the configured secret",
        ),
        (
            Some(unquoted.as_bytes().to_vec()),
            "with the secret without the quotes around it: remove them from the configured secret",
        ),
        (
            Some([secret, b"\n"].concat()),
            "with the secret and a line break after it: the program that signed the token read the secret from a file and did not trim it",
        ),
        (decoded(&base64::alphabet::STANDARD), BASE64),
        (decoded(&base64::alphabet::URL_SAFE), BASE64),
        (Some(as_jjwt(unquoted)), BASE64),
        (
            hex::decode(&unquoted.to_ascii_lowercase()),
            "with the secret decoded from hexadecimal: Rollout uses the undecoded bytes, so do not decode the secret",
        ),
    ];
    let secret = secret.to_vec();
    all.into_iter()
        .filter_map(|(key, reading)| Some((key?, reading)))
        .filter(move |(key, _)| !key.is_empty() && *key != secret)
}

/// The base64 decoder of jjwt before 0.10 (`DatatypeConverter.parseBase64Binary`): it skips every character that is not
/// in the alphabet, and drops an incomplete group of four.
fn as_jjwt(text: &str) -> Vec<u8> {
    let known = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
    let known: Vec<u8> = text.bytes().filter(known).collect();
    let groups = known.chunks_exact(4);
    groups
        .flat_map(|group| {
            let unpadded = group.iter().position(|byte| *byte == b'=').unwrap_or(4);
            STANDARD
                .decode(group)
                .or_else(|_| STANDARD_NO_PAD.decode(&group[..unpadded]))
                .unwrap_or_default()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected lengths are those that jjwt 0.9.1 returns.
    #[test]
    fn jjwt_base64_skips_characters_outside_the_alphabet_and_drops_an_incomplete_group() {
        assert_eq!(as_jjwt("abcdefghijklmnopqrstuvwxyz0").len(), 18);
        assert_eq!(as_jjwt("not base64 !!").len(), 6);
        assert_eq!(as_jjwt("YWI="), b"ab");
    }
}

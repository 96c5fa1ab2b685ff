//! `inspect`: checks a token with the client secret and prints its header and claims.

use std::io;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};

use super::{Failure, say};
use crate::clock::Clock;
use crate::config::Sources;
use crate::settings;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The token, or - to read it from standard input, where others on the machine do not see it.
    token: String,
}

pub(super) fn run(args: Args, sources: &Sources) -> Result<(), Failure> {
    let client = settings::load_client(sources)?;
    let token = if args.token == "-" {
        read_stdin()?
    } else {
        args.token
    };
    let mut validation = Validation::new(Algorithm::HS512);
    // An expired token is still shown; its end is judged below.
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let key = DecodingKey::from_secret(client.secret.expose());
    let decoded = jsonwebtoken::decode::<serde_json::Value>(token.trim(), &key, &validation)
        // Not the library's own words: they can quote the token.
        .map_err(|_| {
            Failure::Runtime("this is not a token signed with this client secret".to_owned())
        })?;

    say(format_args!(
        "header  {}",
        serde_json::to_string(&decoded.header).unwrap_or_default()
    ))?;
    say(format_args!("claims  {:#}", decoded.claims))?;
    say("signature is good")?;
    if decoded.claims["iss"] != client.id.as_str() {
        return Err(Failure::Runtime("iss is not this client id".to_owned()));
    }
    let now = Clock::system().now();
    match decoded.claims["exp"].as_i64() {
        Some(exp) if exp > now => say(format_args!("expires in {} s", exp - now)),
        Some(exp) => Err(Failure::Runtime(format!("expired {} s ago", now - exp))),
        None => Err(Failure::Runtime("it has no exp".to_owned())),
    }
}

fn read_stdin() -> Result<String, Failure> {
    io::read_to_string(io::stdin())
        .map_err(|error| Failure::Runtime(format!("cannot read standard input: {error}")))
}

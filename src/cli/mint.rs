//! `mint`: prints a token, which the module `token` mints.

use std::time::Duration;

use super::{Failure, say, subject_of};
use crate::clock::{Clock, UnixSeconds};
use crate::config::Sources;
use crate::session::subject::Subject;
use crate::session::types::Session;
use crate::settings;
use crate::token::{ClaimTemplates, MintError, Minter, RolloutClient};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The subject of the token, which is the user's id in your app: up to 256 bytes.
    subject: String,
}

pub(super) fn run(args: &Args, sources: &Sources) -> Result<(), Failure> {
    let client = settings::load_client(sources)?;
    let subject = subject_of(&args.subject)?;
    say(mint_for(&client, &subject, &Clock::system())?)
}

/// The lifetime in seconds of a token that a command mints.
pub(super) const TOKEN_LIFE: UnixSeconds = 900;

/// Mints a token with only the four standard claims, because the commands ignore `[token]`.
pub(super) fn mint_for(
    client: &RolloutClient,
    subject: &Subject,
    clock: &Clock,
) -> Result<String, Failure> {
    let minter = Minter::new(
        client,
        Duration::from_secs(TOKEN_LIFE.unsigned_abs()),
        false,
        ClaimTemplates::default(),
    );
    minter
        .mint(subject, &Session::of_subject(subject.as_str()), clock.now())
        .map(|minted| minted.token)
        .map_err(|error| {
            Failure::Runtime(match error {
                MintError::ClockNotSet => {
                    "cannot mint a token: the machine's clock is set to a time before 2020: set the clock"
                        .to_owned()
                }
                MintError::SessionOver | MintError::Claim(_) => {
                    format!("cannot mint a token: {error:?}")
                }
            })
        })
}

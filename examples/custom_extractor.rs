//! A service with a custom kind of session extractor, in addition to the built-in kinds.
//!
//! In this example, users of the app send tickets in a header, `X-Ticket: <user>.<HMAC-SHA-256 in hex>`. Run it with
//!
//! ```text
//! export ROLLOUT_CLIENT_ID=my-client ROLLOUT_CLIENT_SECRET=$(openssl rand -hex 32)
//! export ROLLOUT__SESSION__EXTRACTORS=ticket ROLLOUT__EXTRACTORS__TICKET__KEY=$(openssl rand -hex 32)
//! cargo run --example custom_extractor -- serve
//! ```

use std::process::ExitCode;
use std::sync::Arc;

use aws_lc_rs::hmac;
use axum::http::HeaderName;
use axum::http::request::Parts;
use futures_util::future::BoxFuture;
use rollout_token::{
    Cli, Context, CredentialSource, ExtractError, Extracted, Kind, Problems, Reach, Reason,
    Registry, Secret, Section, Session, SessionExtractor, single_header,
};
use serde::{Deserialize, Serialize};

const TICKET: HeaderName = HeaderName::from_static("x-ticket");

/// The keys of a section with `kind = "ticket"`. Every key needs a default. The secret may also be in a file
/// that `key_file` names; [`Section::read`] reads the file.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TicketConfig {
    key: Option<Secret>,
}

#[derive(Debug)]
struct Ticket {
    key: hmac::Key,
}

impl Ticket {
    /// Builds the extractor. The service calls this function at start and on a reload. `check-config` calls it too, so
    /// this function must not use the network. Every reported problem names the configuration key that is wrong.
    fn build(section: &Section<'_>, _: &Context) -> Result<Arc<dyn SessionExtractor>, Problems> {
        let mut problems = Problems::default();
        let config: TicketConfig = section.read(&mut problems);
        let name = section.key("key");
        // `Section::read` has already reported a `key_file` that cannot be read.
        problems.require(
            config.key.is_some() || problems.are_about(&name),
            name,
            "set it to the secret with which the app signs its tickets",
        );
        let key = section.secret("key", config.key, &mut problems);
        if let Some(weakness) = key.as_ref().and_then(Secret::weakness) {
            problems.add(
                section.key("key"),
                format!("{weakness}: create a secret with `openssl rand -hex 32`"),
            );
        }
        let Some(key) = key else { return Err(problems) };
        problems.or(Arc::new(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, key.expose()),
        }))
    }

    fn session(&self, request: &Parts) -> Extracted {
        // A repeated header is refused, because another program, such as a proxy, might use the other value.
        let Some(ticket) = single_header(&request.headers, &TICKET)? else {
            return Ok(None);
        };
        // A ticket is present, so from here on the result is a session or an error, never `Ok(None)`.
        let malformed = || ExtractError::rejected(Reason::Malformed);
        let (user, tag) = ticket.rsplit_once('.').ok_or_else(malformed)?;
        let tag = from_hex(tag).ok_or_else(malformed)?;
        // The comparison is constant-time.
        hmac::verify(&self.key, user.as_bytes(), &tag)
            .map_err(|_| ExtractError::rejected(Reason::BadSignature))?;
        Ok(Some(Session::of_subject(user)))
    }
}

impl SessionExtractor for Ticket {
    fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted> {
        Box::pin(async move { self.session(request) })
    }

    fn reach(&self) -> Reach {
        Reach::everything([CredentialSource::Header(TICKET)])
    }
}

/// Decodes hexadecimal with lower-case digits only, so that every tag has exactly one valid spelling.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2)
        || !text
            .bytes()
            .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    {
        return None;
    }
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

fn registry() -> Registry {
    Registry::builtin().with("ticket", Kind::new(Ticket::build))
}

fn main() -> ExitCode {
    match Cli::parse().run(&registry()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit_code()
        }
    }
}

#[cfg(test)]
mod tests {
    use rollout_token::{Clock, contract};

    use super::*;

    const KEY: &str = "a-key-that-only-the-app-knows";

    fn extractor(keys: &str) -> Result<Arc<dyn SessionExtractor>, Problems> {
        contract::build(
            &registry(),
            "ticket",
            keys,
            &Context::new(Clock::system(), Arc::default()),
        )
    }

    fn ticket(user: &str) -> String {
        let tag = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes()),
            user.as_bytes(),
        );
        let hex: String = tag
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("{user}.{hex}")
    }

    #[tokio::test]
    async fn extractor_passes_the_contract_checks() {
        contract::check(&*extractor(&format!("key = \"{KEY}\"")).unwrap(), &[KEY]).await;
    }

    #[tokio::test]
    async fn valid_ticket_is_a_session_and_invalid_tickets_are_refused() {
        let extractor = extractor(&format!("key = \"{KEY}\"")).unwrap();
        let good = ticket("ann");
        let session = extractor
            .extract(&contract::request(&[("x-ticket", &good)]))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(session.attributes, Session::of_subject("ann").attributes);
        for bad in [
            good.replace("ann", "bob"),
            format!("{good}0"),
            "ann".to_owned(),
            "ann.zz".to_owned(),
            String::new(),
        ] {
            let refused = extractor
                .extract(&contract::request(&[("x-ticket", &bad)]))
                .await;
            assert!(matches!(refused, Err(ExtractError::Rejected(_))), "{bad}");
        }
    }

    #[test]
    fn missing_key_is_reported_under_its_name() {
        assert!(
            extractor("")
                .unwrap_err()
                .to_string()
                .starts_with("extractors.ticket.key:")
        );
    }
}

//! Reads the source of the signing keys from the configuration of a `jwt` section, or else from its preset.

use std::sync::Arc;

use super::{JwtConfig, SecretEncoding, is_given};
use crate::config::{Problems, Section};
use crate::secret::Secret;
use crate::session::backends::Context;
use crate::session::backends::http::check_url;
use crate::session::backends::jwks::FetchedKeys;
use crate::session::backends::jwks_source::{Discovery, Source};
use crate::session::backends::keys::{KeySet, KeysError};
use crate::session::backends::keys_by_kid::{KID_PLACEHOLDER, KeysByKid};
use crate::session::backends::waiting::Waiting;
use crate::session::extractors::jwt::key_source::KeySource;
use crate::session::formats::any_base64;
use crate::session::formats::issuer::TENANT;
use crate::session::sections::app_secret;

/// The maximum number of `secrets`. It is small, because each secret may be tried for a token.
const MAX_SECRETS: usize = 10;

/// The URL template of an issuer's discovery document.
const DISCOVERY: &str = "{issuer}/.well-known/openid-configuration";

/// Reads the source of keys of one section.
struct Reader<'a, 's> {
    section: &'a Section<'s>,
    context: &'a Context,
    config: &'a JwtConfig,
    problems: &'a mut Problems,
}

/// The source of keys that the section configures, or else the one that its preset names.
pub(super) fn read(
    section: &Section<'_>,
    context: &Context,
    config: &JwtConfig,
    problems: &mut Problems,
) -> Option<KeySource> {
    let given: Vec<&str> = [
        ("jwks_url", config.jwks_url.is_some()),
        ("oidc_issuer", config.oidc_issuer.is_some()),
        ("jwks", config.jwks.is_some()),
        ("public_key", config.public_key.is_some()),
        ("secret", config.secret.is_some()),
        ("secrets", !config.secrets.is_empty()),
    ]
    .into_iter()
    .filter_map(|(key, has_value)| is_given(section, problems, key, has_value).then_some(key))
    .collect();
    let mut reader = Reader {
        section,
        context,
        config,
        problems,
    };
    match given.as_slice() {
        [key @ "jwks_url"] => reader.keys_at(key, config.jwks_url.as_deref()?),
        [key @ "oidc_issuer"] => reader.discovered(key, config.oidc_issuer.as_deref()?),
        [key @ "jwks"] => {
            let keys = KeySet::from_jwks(config.jwks.as_ref()?.bytes());
            reader.configured(key, keys).map(KeySource::Set)
        }
        [key @ "public_key"] => {
            let keys = KeySet::from_pem(config.public_key.as_ref()?.bytes());
            reader.configured(key, keys).map(KeySource::AnyKid)
        }
        [key @ "secret"] => {
            let secret = section.secret(key, config.secret.clone(), reader.problems);
            Some(reader.shared_secrets(key, secret.into_iter().collect()))
        }
        [key @ "secrets"] => {
            let secrets = section.secrets(key, config.secrets.clone(), reader.problems);
            Some(reader.shared_secrets(key, secrets))
        }
        [] => reader.provider_keys(),
        several => {
            let several = several.join(" and ");
            let text = format!("{several} are set: keep one source of keys");
            reader.problems.add(section.key("jwks_url"), text);
            None
        }
    }
}

impl Reader<'_, '_> {
    /// The keys from the shared secrets under `key`. The strength check applies to the decoded keys, not to their
    /// base64.
    fn shared_secrets(&mut self, key: &str, texts: Vec<Secret>) -> KeySource {
        self.problems.require(
            texts.len() <= MAX_SECRETS,
            self.section.key(key),
            format!(
                "has {} secrets, and at most {MAX_SECRETS} are allowed: remove the secrets whose tokens have all expired",
                texts.len()
            ),
        );
        let secrets = match self.config.secret_encoding {
            SecretEncoding::Text => texts,
            SecretEncoding::Base64 => texts
                .iter()
                .filter_map(|text| self.decoded(key, text))
                .collect(),
        };
        let algorithms = &self.config.algorithms;
        app_secret::check_jwt(self.section, key, &secrets, algorithms, self.problems);
        KeySource::AnyKid(Arc::new(KeySet::from_secrets(&secrets)))
    }

    /// Decodes a secret from base64. A placeholder is not decoded, so that the check for placeholders recognises it.
    fn decoded(&mut self, key: &str, text: &Secret) -> Option<Secret> {
        if text.placeholder().is_some() {
            return Some(text.clone());
        }
        let bytes = Some(text.expose())
            .filter(|text| !text.contains(&b' ') && !text.contains(&b'\t'))
            .and_then(any_base64::decode)
            .filter(|bytes| !bytes.is_empty());
        let bytes = bytes.ok_or(
            "is not base64, for example because it contains a quote or a space. Fix it, or set \
             secret_encoding = \"text\" if the app uses the text itself as the key",
        );
        let bytes = self.problems.accept(self.section.key(key), bytes)?;
        self.section
            .refuse_client_secret(key, &bytes, self.problems);
        Some(Secret::new(bytes))
    }

    fn provider_keys(&mut self) -> Option<KeySource> {
        let Some(template) = &self.config.provider_keys else {
            self.problems.add(
                self.section.key("jwks_url"),
                "no source of keys is set: set one of jwks_url, oidc_issuer, jwks, public_key, secret, secrets, jwks_file, \
                 public_key_file, secret_file, secrets_file",
            );
            return None;
        };
        // A missing issuer has already been reported.
        let issuer = self.config.issuers.first()?;
        if template == DISCOVERY {
            return self.discovered("issuers", &issuer.replace(TENANT, "common"));
        }
        let bare = issuer.trim_end_matches('/');
        let tail = bare.rsplit_once('/').map_or(bare, |(_, tail)| tail);
        if template.contains("{client_id}") && !tail.starts_with("client_") {
            self.problems.add(
                self.section.key("issuers"),
                "does not end in a client id (client_…), which the URL of the keys must contain: copy iss from one of your \
                 tokens, or set jwks_url as well",
            );
            return None;
        }
        let url = template.replace("{issuer}", bare);
        self.keys_at("issuers", &url.replace("{client_id}", tail))
    }

    /// Keys that are fetched from `url`, each by its id if the URL contains [`KID_PLACEHOLDER`]. Reports problems under
    /// `key`.
    fn keys_at(&mut self, key: &str, url: &str) -> Option<KeySource> {
        let key = self.section.key(key);
        let allow_http = self.config.allow_http;
        if url.contains(KID_PLACEHOLDER) {
            let (name, waiting) = (self.section.name(), self.waiting());
            let keys = KeysByKid::new(name, url, allow_http, self.context, waiting);
            return self.problems.accept(key, keys).map(KeySource::ByKid);
        }
        let url = self.problems.accept(key, check_url(url, allow_http))?;
        Some(self.fetched(Source::Jwks(url)))
    }

    /// Keys at the URL that the discovery document of `issuer` names. Reports problems under `key`.
    fn discovered(&mut self, key: &str, issuer: &str) -> Option<KeySource> {
        let discovery = Discovery::new(issuer, self.config.allow_http);
        let mut discovery = self.problems.accept(self.section.key(key), discovery)?;
        // The host name in the document's URL may differ from that in `iss`, so a document that names one of the
        // configured `issuers` is accepted too.
        discovery.also_for(&self.config.issuers);
        Some(self.fetched(Source::Discovery(discovery)))
    }

    /// Keys from the configuration. Warns about keys that cannot be used.
    fn configured(&mut self, key: &str, keys: Result<KeySet, KeysError>) -> Option<Arc<KeySet>> {
        let keys = self.problems.accept(self.section.key(key), keys)?;
        for unusable in keys.faults() {
            let text = format!("has a key that cannot be used: {unusable}");
            self.section.warn(key, text);
        }
        Some(Arc::new(keys))
    }

    fn fetched(&mut self, source: Source) -> KeySource {
        let (name, waiting) = (self.section.name(), self.waiting());
        KeySource::Fetched(FetchedKeys::new(name, source, self.context, waiting))
    }

    fn waiting(&mut self) -> Arc<Waiting> {
        let max = self.config.max_waiting;
        Waiting::read(self.section, self.context, max, self.problems)
    }
}

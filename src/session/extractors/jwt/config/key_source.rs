//! Reads the source of the signing keys from the configuration of a `jwt` section, or else from its preset.

use std::sync::Arc;

use super::{JwtConfig, SecretEncoding, is_given};
use crate::config::{Problems, Section};
use crate::secret::Secret;
use crate::session::backends::Context;
use crate::session::backends::http::check_url;
use crate::session::backends::jwks::FetchedKeys;
use crate::session::backends::jwks_source::{Discovery, Source};
use crate::session::backends::keys::KeySet;
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

/// The source of keys that the section configures, or else the one that its preset names.
pub(super) fn read(
    section: &Section<'_>,
    context: &Context,
    config: &mut JwtConfig,
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
    match given.as_slice() {
        ["jwks_url"] => {
            let url = config.jwks_url.as_deref()?;
            from_url(section, context, config, "jwks_url", url, problems)
        }
        ["oidc_issuer"] => {
            let issuer = config.oidc_issuer.as_deref()?;
            from_discovery(section, context, config, "oidc_issuer", issuer, problems)
        }
        ["jwks"] => {
            let keys = KeySet::from_jwks(config.jwks.as_ref()?.bytes());
            problems
                .accept(section.key("jwks"), keys)
                .map(|keys| KeySource::Set(configured(section, context, "jwks", keys)))
        }
        ["public_key"] => {
            let keys = KeySet::from_pem(config.public_key.as_ref()?.bytes());
            problems
                .accept(section.key("public_key"), keys)
                .map(|keys| KeySource::AnyKid(configured(section, context, "public_key", keys)))
        }
        [key @ "secret"] => {
            let secret = section.secret(key, config.secret.take(), problems);
            let secrets = secret.into_iter().collect();
            Some(shared_secrets(section, config, key, secrets, problems))
        }
        [key @ "secrets"] => {
            let secrets = section.secrets(key, std::mem::take(&mut config.secrets), problems);
            Some(shared_secrets(section, config, key, secrets, problems))
        }
        [] => from_provider(section, context, config, problems),
        several => {
            let several = several.join(" and ");
            problems.add(
                section.key("jwks_url"),
                format!("{several} are set: keep one source of keys"),
            );
            None
        }
    }
}

/// The keys from the shared secrets under `key`. The strength check applies to the decoded keys, not to their base64.
fn shared_secrets(
    section: &Section<'_>,
    config: &JwtConfig,
    key: &str,
    texts: Vec<Secret>,
    problems: &mut Problems,
) -> KeySource {
    problems.require(
        texts.len() <= MAX_SECRETS,
        section.key(key),
        format!(
            "has {} secrets, and at most {MAX_SECRETS} are allowed: remove the secrets whose tokens have all expired",
            texts.len()
        ),
    );
    let secrets = match config.secret_encoding {
        SecretEncoding::Text => texts,
        SecretEncoding::Base64 => decoded(section, key, &texts, problems),
    };
    app_secret::check_jwt(section, key, &secrets, &config.algorithms, problems);
    KeySource::AnyKid(Arc::new(KeySet::from_secrets(&secrets)))
}

/// Decodes the secrets from the base64 in `texts`. A placeholder is not decoded, so that the check for placeholders
/// recognises it.
fn decoded(
    section: &Section<'_>,
    key: &str,
    texts: &[Secret],
    problems: &mut Problems,
) -> Vec<Secret> {
    let mut secrets = Vec::new();
    for text in texts {
        let bytes = Some(text.expose())
            .filter(|text| !text.contains(&b' ') && !text.contains(&b'\t'))
            .and_then(any_base64::decode)
            .filter(|bytes| !bytes.is_empty());
        match bytes {
            _ if text.placeholder().is_some() => secrets.push(text.clone()),
            Some(bytes) => {
                section.refuse_client_secret(key, &bytes, problems);
                secrets.push(Secret::new(bytes));
            }
            None => problems.add(
                section.key(key),
                "is not base64, for example because it contains a quote or a space. Fix it, or set \
                 secret_encoding = \"text\" if the app uses the text itself as the key",
            ),
        }
    }
    secrets
}

fn from_provider(
    section: &Section<'_>,
    context: &Context,
    config: &JwtConfig,
    problems: &mut Problems,
) -> Option<KeySource> {
    let Some(template) = &config.provider_keys else {
        problems.add(
            section.key("jwks_url"),
            "no source of keys is set: set one of jwks_url, oidc_issuer, jwks, public_key, secret, secrets, jwks_file, \
             public_key_file, secret_file, secrets_file",
        );
        return None;
    };
    // A missing issuer has already been reported.
    let issuer = config.issuers.first()?;
    if template == DISCOVERY {
        let issuer = issuer.replace(TENANT, "common");
        return from_discovery(section, context, config, "issuers", &issuer, problems);
    }
    let bare = issuer.trim_end_matches('/');
    let tail = bare.rsplit_once('/').map_or(bare, |(_, tail)| tail);
    if template.contains("{client_id}") && !tail.starts_with("client_") {
        problems.add(
            section.key("issuers"),
            "does not end in a client id (client_…), which the URL of the keys must contain: copy iss from one of your \
             tokens, or set jwks_url as well",
        );
        return None;
    }
    let url = template
        .replace("{issuer}", bare)
        .replace("{client_id}", tail);
    from_url(section, context, config, "issuers", &url, problems)
}

/// Keys that are fetched from `url`. Reports problems under `key`.
fn from_url(
    section: &Section<'_>,
    context: &Context,
    config: &JwtConfig,
    key: &str,
    url: &str,
    problems: &mut Problems,
) -> Option<KeySource> {
    if url.contains(KID_PLACEHOLDER) {
        let waiting = Waiting::read(section, context, config.max_waiting, problems);
        let keys = KeysByKid::new(section.name(), url, config.allow_http, context, waiting);
        return problems
            .accept(section.key(key), keys)
            .map(KeySource::ByKid);
    }
    let url = problems.accept(section.key(key), check_url(url, config.allow_http))?;
    Some(fetched(
        section,
        context,
        config,
        Source::Jwks(url),
        problems,
    ))
}

/// Keys at the URL that the discovery document of `issuer` names. Reports problems under `key`.
fn from_discovery(
    section: &Section<'_>,
    context: &Context,
    config: &JwtConfig,
    key: &str,
    issuer: &str,
    problems: &mut Problems,
) -> Option<KeySource> {
    let discovery = Discovery::new(issuer, config.allow_http);
    let mut discovery = problems.accept(section.key(key), discovery)?;
    // The host name in the document's URL may differ from that in `iss`, so a document that names one of the configured
    // `issuers` is accepted too.
    discovery.also_for(&config.issuers);
    let source = Source::Discovery(discovery);
    Some(fetched(section, context, config, source, problems))
}

/// Keys from the configuration. Warns about keys that cannot be used.
fn configured(section: &Section<'_>, context: &Context, key: &str, keys: KeySet) -> Arc<KeySet> {
    for unusable in keys.faults() {
        section.warn(key, format!("has a key that cannot be used: {unusable}"));
    }
    let name = Arc::from(section.name());
    context
        .metrics
        .jwks_unusable_keys(&name, keys.faults().count());
    Arc::new(keys)
}

fn fetched(
    section: &Section<'_>,
    context: &Context,
    config: &JwtConfig,
    source: Source,
    problems: &mut Problems,
) -> KeySource {
    let waiting = Waiting::read(section, context, config.max_waiting, problems);
    KeySource::Fetched(FetchedKeys::new(section.name(), source, context, waiting))
}

//! The sources of the keys that verify tokens. The caches of fetched keys are in `backends`.

use std::sync::Arc;

use crate::session::backends::jwks::{FetchedKeys, Found};
use crate::session::backends::keys::{Alg, KeySet, UnusableKey};
use crate::session::backends::keys_by_kid::KeysByKid;
use crate::session::types::ExtractError;

/// The source of the keys that verify tokens.
#[derive(Debug)]
pub(super) enum KeySource {
    /// Configured keys, which are used for every `kid`.
    AnyKid(Arc<KeySet>),
    /// A configured JWK set, in which `kid` selects the key.
    Set(Arc<KeySet>),
    /// A published JWK set.
    Fetched(FetchedKeys),
    /// Keys that are each published at their own URL, which contains the `kid`.
    ByKid(KeysByKid),
}

impl KeySource {
    /// The keys for a token with this `kid`. Fetches them first if necessary.
    pub(super) async fn get(&self, kid: Option<&str>) -> Result<Arc<KeySet>, ExtractError> {
        let found = match self {
            Self::AnyKid(keys) | Self::Set(keys) => return Ok(keys.clone()),
            Self::Fetched(keys) => keys.get(kid)?,
            Self::ByKid(keys) => keys.get(kid)?,
        };
        match found {
            Found::Keys(keys) => Ok(keys),
            Found::Wait(wait) => wait.keys(self.kid_in_set(kid)).await,
        }
    }

    /// Newer keys for a token whose signature no key in `than` verifies. Fetches them first if the cache has none and
    /// the cooldown has passed.
    pub(super) async fn newer(&self, kid: Option<&str>, than: &Arc<KeySet>) -> Option<Arc<KeySet>> {
        let found = match self {
            Self::AnyKid(_) | Self::Set(_) => None,
            Self::Fetched(keys) => keys.newer(than),
            Self::ByKid(keys) => keys.newer(kid, than),
        };
        match found? {
            Found::Keys(keys) => Some(keys),
            Found::Wait(wait) => wait.keys(self.kid_in_set(kid)).await.ok(),
        }
    }

    /// The keys that were meant for signatures but cannot be used. Empty for keys that are fetched by their `kid`.
    pub(super) fn unusable(&self) -> Vec<UnusableKey> {
        match self {
            Self::AnyKid(keys) | Self::Set(keys) => keys.faults().cloned().collect(),
            Self::Fetched(keys) => keys.unusable(),
            Self::ByKid(_) => Vec::new(),
        }
    }

    /// Describes where the keys for `alg` come from: a configuration key of the section, or a URL.
    pub(super) fn name(&self, alg: Alg) -> String {
        match self {
            Self::AnyKid(_) if alg.is_hmac() => "the section's secret".to_owned(),
            Self::AnyKid(_) => "the section's public_key".to_owned(),
            Self::Set(_) => "the section's jwks".to_owned(),
            Self::Fetched(keys) => keys.call().backend,
            Self::ByKid(keys) => keys.call().backend,
        }
    }

    /// The `kid` that selects a key in the set; `None` if every key of the set may be used.
    pub(super) fn kid_in_set<'a>(&self, kid: Option<&'a str>) -> Option<&'a str> {
        match self {
            Self::AnyKid(_) | Self::ByKid(_) => None,
            Self::Set(_) | Self::Fetched(_) => kid,
        }
    }
}

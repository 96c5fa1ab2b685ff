//! The configuration of a `jwt` section: its keys, their validation, and the construction of the extractor. `jwt.rs`
//! verifies tokens.

mod key_source;
mod rules;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Jwt;

use crate::config::{HumanDuration, List, Problems, PublicText, Section};
use crate::secret::Secret;
use crate::session::backends::Context;
use crate::session::backends::jwks_source::Discovery;
use crate::session::backends::keys::Alg;
use crate::session::credential_source;
use crate::session::formats::issuer::{TENANT, is_guid};
use crate::session::kind::BuildResult;
use crate::session::sections::claims::{ClaimRules, check_required_scopes};
use crate::session::subject::Template;

/// `[extractors.NAME]` with `kind = "jwt"`
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a configuration key")]
struct JwtConfig {
    from: List<String>,
    jwks_url: Option<String>,
    oidc_issuer: Option<String>,
    jwks: Option<PublicText>,
    public_key: Option<PublicText>,
    secret: Option<Secret>,
    secrets: List<Secret>,
    secret_encoding: SecretEncoding,
    algorithms: List<String>,
    issuers: List<String>,
    tenants: List<String>,
    audiences: List<String>,
    allow_any_audience: bool,
    leeway: HumanDuration,
    claims: ClaimRules,
    header_claims: ClaimRules,
    required_scopes: List<String>,
    max_token_bytes: usize,
    token_types: List<String>,
    proxy: Option<Secret>,
    no_proxy: Option<List<String>>,
    ca: Option<PublicText>,
    allow_sender_constrained: bool,
    max_waiting: Option<usize>,
    allow_http: bool,
    padded_base64: bool,
    /// For presets: the URL where the provider publishes an issuer's keys. `{issuer}` is the first of `issuers`, and
    /// `{client_id}` is the client id at the end of that issuer. Used if the section names no other source of keys.
    #[serde(skip_serializing)]
    provider_keys: Option<String>,
    /// For presets of providers whose tokens have no audience: `audiences` may be left out.
    #[serde(skip_serializing)]
    audience_optional: bool,
    /// For presets that are not safe alone: the section must set one of these keys.
    #[serde(skip_serializing)]
    require_one_of: List<String>,
    /// For presets: a key that makes the preset safer. A warning is logged if the section does not set it.
    #[serde(skip_serializing)]
    recommend: Option<String>,
}

impl Default for JwtConfig {
    fn default() -> Self {
        Self {
            from: List::of(&["header:authorization"]),
            jwks_url: None,
            oidc_issuer: None,
            jwks: None,
            public_key: None,
            secret: None,
            secrets: List::default(),
            secret_encoding: SecretEncoding::Text,
            algorithms: List::default(),
            issuers: List::default(),
            tenants: List::default(),
            audiences: List::default(),
            allow_any_audience: false,
            leeway: HumanDuration::secs(30),
            claims: ClaimRules::default(),
            header_claims: ClaimRules::default(),
            required_scopes: List::default(),
            max_token_bytes: 16 * 1024,
            token_types: List::of(&["JWT", "at+jwt"]),
            proxy: None,
            no_proxy: None,
            ca: None,
            allow_sender_constrained: false,
            max_waiting: None,
            allow_http: false,
            padded_base64: false,
            provider_keys: None,
            audience_optional: false,
            require_one_of: List::default(),
            recommend: None,
        }
    }
}

/// How the key is read from a shared secret's text.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SecretEncoding {
    /// The bytes of the text are the key.
    Text,
    /// The text is the key in base64, in either alphabet, with or without padding.
    Base64,
}

/// Builds the extractor of a section.
pub fn build(section: &Section<'_>, context: &Context) -> BuildResult {
    let mut problems = Problems::default();
    let mut config: JwtConfig = section.read(&mut problems);
    if let (true, Some(issuer)) = (config.issuers.is_empty(), &config.oidc_issuer)
        && let Ok(discovery) = Discovery::new(issuer, config.allow_http)
    {
        config.issuers = List(discovery.token_issuers());
    }
    let places = credential_source::read_from(section, &config.from, &mut problems);
    check_limits(section, &config, &mut problems);
    check_audiences(section, &config, &mut problems);
    check_required(section, &config, &mut problems);
    let is_hmac = is_given(section, &problems, "secret", config.secret.is_some())
        || is_given(section, &problems, "secrets", !config.secrets.is_empty());
    let algorithms = check_algorithms(section, &config, is_hmac, &mut problems);
    check_issuers(section, &config, is_hmac, &mut problems);
    let context = &context.through(
        section,
        config.proxy.take(),
        config.no_proxy.take(),
        config.ca.take(),
        &mut problems,
    );
    check_tenants(section, &config, &mut problems);
    rules::check(section, &config, &algorithms, &mut problems);
    let keys = key_source::read(section, context, &config, &mut problems);
    let Some(keys) = keys.filter(|_| problems.is_empty()) else {
        return Err(problems);
    };
    Ok(Arc::new(Jwt {
        places,
        keys,
        algorithms,
        issuers: config.issuers.0,
        tenants: config
            .tenants
            .iter()
            .map(|tenant| tenant.to_ascii_lowercase())
            .collect(),
        audiences: config.audiences.0,
        leeway: config.leeway.whole_seconds(),
        claims: config.claims,
        header_claims: config.header_claims,
        required_scopes: config.required_scopes.0,
        max_token_bytes: config.max_token_bytes,
        token_types: config.token_types.0,
        allow_sender_constrained: config.allow_sender_constrained,
        padded_base64: config.padded_base64,
        clock: context.clock.clone(),
    }))
}

fn check_limits(section: &Section<'_>, config: &JwtConfig, problems: &mut Problems) {
    let leeway = config.leeway.0;
    problems.require(
        leeway.subsec_nanos() == 0 && leeway.as_secs() <= 300,
        section.key("leeway"),
        "must be in whole seconds and at most 5m",
    );
    problems.require(
        (256..=64 * 1024).contains(&config.max_token_bytes),
        section.key("max_token_bytes"),
        "must be from 256 to 65536",
    );
    problems.require(
        config.token_types.iter().all(|name| !name.is_empty()),
        section.key("token_types"),
        "must not contain an empty string",
    );
    problems.accept(
        section.key("required_scopes"),
        check_required_scopes(&config.required_scopes),
    );
}

fn check_audiences(section: &Section<'_>, config: &JwtConfig, problems: &mut Problems) {
    let key = section.key("audiences");
    match (config.audiences.is_empty(), config.allow_any_audience) {
        (true, false) if !config.audience_optional => problems.add(
            key,
            "must contain the audience of your app's tokens (their aud), so that tokens for other apps are refused; \
             or set allow_any_audience = true",
        ),
        (false, true) => problems.add(
            key,
            "contradicts allow_any_audience = true: remove one key (audiences = [] removes a preset's audiences)",
        ),
        _ => problems.require(
            config.audiences.iter().all(|name| !name.is_empty()),
            key,
            "must not contain an empty string",
        ),
    }
}

fn check_required(section: &Section<'_>, config: &JwtConfig, problems: &mut Problems) {
    let is_given = |key: &String| match key.split_once('.') {
        Some(("claims", claim)) => config.claims.limit(claim),
        Some(("header_claims", parameter)) => config.header_claims.limit(parameter),
        _ => key == "audiences" && !config.audiences.is_empty(),
    };
    let required = &config.require_one_of;
    if let (Some(first), false) = (required.first(), required.iter().any(is_given)) {
        let all = required.join(" or ");
        problems.add(
            section.key(first),
            format!("this preset needs {all}: without it, tokens for other apps would be accepted"),
        );
    }
    if let Some(key) = config.recommend.as_ref().filter(|key| !is_given(key)) {
        section.warn(
            key,
            "is not set: this issuer's tokens for other pages are accepted too. List the origins of your \
             own pages",
        );
    }
}

fn check_algorithms(
    section: &Section<'_>,
    config: &JwtConfig,
    is_hmac: bool,
    problems: &mut Problems,
) -> Vec<Alg> {
    let key = section.key("algorithms");
    if config.algorithms.is_empty() {
        problems.require(
            !is_hmac,
            key,
            "is missing: name the algorithm that signs the tokens, such as [\"HS256\"]",
        );
        return Alg::ALL.into_iter().filter(|alg| !alg.is_hmac()).collect();
    }
    let names = config.algorithms.iter();
    let algorithms: Vec<Alg> = names.filter_map(|name| Alg::named(name)).collect();
    if algorithms.len() < config.algorithms.len() {
        let known = Alg::ALL.map(|alg| alg.name).join(", ");
        problems.add(key, format!("must be one or more of {known}"));
    } else if algorithms.iter().any(|alg| alg.is_hmac() != is_hmac) {
        // If a section accepted HMAC and public keys, anyone could sign tokens with the public key as the HMAC secret.
        problems.add(
            key,
            "must match the keys: only HS256, HS384 and HS512 with secret or secrets, and none of these three with public keys",
        );
    }
    algorithms
}

fn check_issuers(
    section: &Section<'_>,
    config: &JwtConfig,
    is_hmac: bool,
    problems: &mut Problems,
) {
    let key = section.key("issuers");
    problems.require(
        is_hmac || !config.issuers.is_empty(),
        key.clone(),
        "is missing: name the issuer exactly as in the iss claim of its tokens",
    );
    problems.require(
        config.issuers.iter().all(|name| !name.is_empty()),
        key,
        "must not contain an empty string",
    );
}

fn check_tenants(section: &Section<'_>, config: &JwtConfig, problems: &mut Problems) {
    problems.require(
        config.tenants.iter().all(|tenant| is_guid(tenant)),
        section.key("tenants"),
        "must be tenant ids (tid), such as 8b5abb95-0643-4c5e-837e-8bea3904411f",
    );
    let mut placeholders = config
        .issuers
        .iter()
        .map(|issuer| issuer.matches(TENANT).count());
    problems.require(
        placeholders.clone().all(|count| count <= 1),
        section.key("issuers"),
        "must contain {tenantid} at most once per issuer",
    );
    let is_for_every_tenant = config.tenants.is_empty() && placeholders.any(|count| count > 0);
    let subject = section.subject().parse::<Template>();
    problems.require(
        !is_for_every_tenant || subject.is_ok_and(|subject| subject.reads_only(&["oid", "sub", "tid"])),
        section.key("subject"),
        "may use {oid}, {sub} and {tid} only, because tenants is empty: the administrators of any tenant choose the other \
         claims of their users, and could copy the claims of one of your users. List the tenants that you serve in tenants",
    );
}

/// Whether the section sets the key, even if the key has no value because its file could not be read.
fn is_given(section: &Section<'_>, problems: &Problems, key: &str, has_value: bool) -> bool {
    has_value || problems.are_about(&section.key(key))
}

//! Detects claim rules that contradict the rest of their section, so that no token can satisfy them.

use super::JwtConfig;
use crate::config::{Problems, Section};
use crate::session::backends::keys::Alg;
use crate::session::extractors::jwt::{REFUSED_PARAMETERS, is_media_type};
use crate::session::formats::issuer;

/// Reports the rules that can never match.
pub(super) fn check(
    section: &Section<'_>,
    config: &JwtConfig,
    algorithms: &[Alg],
    problems: &mut Problems,
) {
    let (claims, header) = (&config.claims, &config.header_claims);
    let (issuers, tenants) = (&config.issuers, &config.tenants);
    let has_issuer = |value: &str| {
        issuers.is_empty()
            || issuers
                .iter()
                .any(|known| issuer::matches(known, value).is_some())
    };
    let has_tenant = |value: &str| {
        tenants.is_empty()
            || tenants
                .iter()
                .any(|tenant| tenant.eq_ignore_ascii_case(value))
    };
    let is_algorithm = |value: &str| algorithms.iter().any(|alg| alg.name == value);
    let is_type = |value: &str| {
        config
            .token_types
            .iter()
            .any(|known| is_media_type(known, value))
    };
    let is_number = |value: &str| value.parse::<f64>().is_ok();
    for (is_impossible, key, claim, because) in [
        (
            claims.contradict("exp", false, is_number),
            "claims",
            "exp",
            "it must be a number in every token",
        ),
        (
            claims.contradict("iss", issuers.is_empty(), has_issuer),
            "claims",
            "iss",
            "issuers has other values",
        ),
        (
            claims.contradict("tid", tenants.is_empty(), has_tenant),
            "claims",
            "tid",
            "tenants has other values",
        ),
        (
            claims.contradict("aud", config.audiences.is_empty(), |_| true),
            "claims",
            "aud",
            "audiences requires a value",
        ),
        (
            claims.demand("cnf") && !config.allow_sender_constrained,
            "claims",
            "cnf",
            "allow_sender_constrained is false",
        ),
        (
            header.contradict("alg", false, is_algorithm),
            "header_claims",
            "alg",
            "algorithms has other values",
        ),
        (
            header.contradict("typ", true, is_type),
            "header_claims",
            "typ",
            "token_types has other values",
        ),
        (
            header.contradict("b64", true, |value| value == "true"),
            "header_claims",
            "b64",
            "tokens with b64 other than true are refused",
        ),
    ] {
        if is_impossible {
            problems.add(
                section.key(key),
                format!("has a rule for {claim} that no token can satisfy, because {because}: correct the rule, \
                     or the key that contradicts it"),
            );
        }
    }
    for name in REFUSED_PARAMETERS
        .into_iter()
        .filter(|name| header.demand(name))
    {
        problems.add(
            section.key("header_claims"),
            format!("has a rule for {name} that no token can satisfy, because tokens with {name} are refused: remove it"),
        );
    }
}

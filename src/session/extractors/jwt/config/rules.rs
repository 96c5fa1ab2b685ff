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
        let mut known = issuers.iter();
        issuers.is_empty() || known.any(|known| issuer::matches(known, value).is_some())
    };
    let has_tenant = |value: &str| {
        let mut known = tenants.iter();
        tenants.is_empty() || known.any(|tenant| tenant.eq_ignore_ascii_case(value))
    };
    let is_algorithm = |value: &str| algorithms.iter().any(|alg| alg.name == value);
    let is_type = |value: &str| {
        let mut known = config.token_types.iter();
        known.any(|known| is_media_type(known, value))
    };
    let is_number = |value: &str| value.parse::<f64>().is_ok();
    let check = |key, claim, may_be_absent: bool, may_be: &dyn Fn(&str) -> bool| {
        let rules = if key == "claims" { claims } else { header };
        let is_impossible = rules.contradict(claim, may_be_absent, may_be);
        is_impossible.then_some((key, claim))
    };
    let must_be_absent = claims.demand("cnf") && !config.allow_sender_constrained;
    let impossible = [
        check("claims", "exp", false, &is_number),
        check("claims", "iss", issuers.is_empty(), &has_issuer),
        check("claims", "tid", tenants.is_empty(), &has_tenant),
        check("claims", "aud", config.audiences.is_empty(), &|_| true),
        must_be_absent.then_some(("claims", "cnf")),
        check("header_claims", "alg", false, &is_algorithm),
        check("header_claims", "typ", true, &is_type),
        check("header_claims", "b64", true, &|value| value == "true"),
    ];
    for (key, claim) in impossible.into_iter().flatten() {
        let because = match claim {
            "exp" => "it must be a number in every token",
            "iss" => "issuers has other values",
            "tid" => "tenants has other values",
            "aud" => "audiences requires a value",
            "cnf" => "allow_sender_constrained is false",
            "alg" => "algorithms has other values",
            "typ" => "token_types has other values",
            _ => "tokens with b64 other than true are refused",
        };
        problems.add(
            section.key(key),
            format!("has a rule for {claim} that no token can satisfy, because {because}: correct the rule, \
                 or the key that contradicts it"),
        );
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

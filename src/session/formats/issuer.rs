//! Compares issuers of a provider that has many tenants. As in Microsoft Entra's documents, `{tenantid}` in a
//! configured or published issuer is the placeholder for a tenant's id, which is a GUID.

/// The placeholder for the tenant's id.
pub const TENANT: &str = "{tenantid}";

/// How an issuer matches a known issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssuerMatch<'a> {
    Exact,
    /// The issuer contains this tenant's id at the place of [`TENANT`] in the known issuer.
    OfTenant(&'a str),
}

/// Compares `issuer` with the known issuer `known`, which may contain [`TENANT`] once; `None` if they do not match.
pub fn matches<'a>(known: &str, issuer: &'a str) -> Option<IssuerMatch<'a>> {
    let Some((before, after)) = known.split_once(TENANT) else {
        return (known == issuer).then_some(IssuerMatch::Exact);
    };
    let tenant = issuer.strip_prefix(before)?.strip_suffix(after)?;
    is_guid(tenant).then_some(IssuerMatch::OfTenant(tenant))
}

/// Whether one issuer could match both known issuers.
pub fn overlap(one: &str, other: &str) -> bool {
    one == other || matches(one, other).is_some() || matches(other, one).is_some()
}

/// Whether the text is a GUID such as `9188040d-6c67-4c5b-b112-36a304b66dad`.
pub fn is_guid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.concat().bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The issuer with [`TENANT`] in place of `common` or `organizations`, which stand for every tenant in Microsoft
/// Entra's URLs; `None` if the issuer is not such a URL.
pub fn for_every_tenant(issuer: &str) -> Option<String> {
    let (host, path) = issuer
        .strip_prefix("https://")
        .or_else(|| issuer.strip_prefix("http://"))?
        .split_once('/')?;
    let scheme = &issuer[..issuer.len() - host.len() - 1 - path.len()];
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    let version = match rest {
        "" => "",
        "v2.0" | "v2.0/" => "v2.0",
        _ => return None,
    };
    matches!(first, "common" | "organizations")
        .then(|| format!("{scheme}{host}/{TENANT}/{version}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUID: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";

    #[test]
    fn tenant_placeholder_matches_a_guid_only() {
        let known = "https://login.example/{tenantid}/v2.0";
        for (issuer, want) in [
            (
                format!("https://login.example/{GUID}/v2.0"),
                Some(IssuerMatch::OfTenant(GUID)),
            ),
            (known.to_owned(), None),
            ("https://login.example/common/v2.0".to_owned(), None),
            (format!("https://login.example/{GUID}/v2.0/"), None),
            (format!("https://login.example/{GUID}/x/v2.0"), None),
            (
                format!("https://login.example/{}/v2.0", GUID.replace('7', "g")),
                None,
            ),
            ("https://login.example/v2.0".to_owned(), None),
        ] {
            assert_eq!(matches(known, &issuer), want, "{issuer}");
        }
        assert_eq!(matches("https://a", "https://a"), Some(IssuerMatch::Exact));
        assert_eq!(matches("https://a", "https://b"), None);
    }

    #[test]
    fn known_issuers_overlap_if_they_are_equal_or_one_matches_the_other() {
        let tenant = format!("https://login.example/{GUID}/v2.0");
        let every_tenant = "https://login.example/{tenantid}/v2.0";
        for (one, other, want) in [
            ("https://a", "https://a", true),
            ("https://a", "https://b", false),
            (every_tenant, every_tenant, true),
            (every_tenant, &tenant, true),
            (every_tenant, "https://login.example/common/v2.0", false),
        ] {
            assert_eq!(overlap(one, other), want, "{one} {other}");
            assert_eq!(overlap(other, one), want, "{other} {one}");
        }
    }

    #[test]
    fn common_and_organizations_in_an_entra_issuer_become_the_tenant_placeholder() {
        for (issuer, want) in [
            (
                "https://login.microsoftonline.com/common/v2.0",
                Some("https://login.microsoftonline.com/{tenantid}/v2.0"),
            ),
            (
                "https://login.microsoftonline.com/common/v2.0/",
                Some("https://login.microsoftonline.com/{tenantid}/v2.0"),
            ),
            (
                "http://127.0.0.1:8080/organizations/v2.0",
                Some("http://127.0.0.1:8080/{tenantid}/v2.0"),
            ),
            (
                "https://login.microsoftonline.com/common",
                Some("https://login.microsoftonline.com/{tenantid}/"),
            ),
            ("https://login.microsoftonline.com/contoso/v2.0", None),
            ("https://kc.example/realms/common", None),
            ("https://idp.example", None),
        ] {
            assert_eq!(for_every_tenant(issuer).as_deref(), want, "{issuer}");
        }
    }
}

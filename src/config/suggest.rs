//! The message for an unknown name, with a suggestion ("did you mean"). The caller passes the known names.

/// The minimum Jaro-Winkler similarity at which a name is treated as a misspelling of a known name.
const ALIKE: f64 = 0.85;

/// The message that `name` is unknown. It suggests the closest known name, or lists all known names.
pub(crate) fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    let alike = |candidate: &str| strsim::jaro_winkler(name, candidate);
    match known
        .iter()
        .copied()
        .max_by(|a, b| alike(a).total_cmp(&alike(b)))
    {
        Some(closest) if alike(closest) >= ALIKE => {
            format!("is not a {what}: did you mean {closest}?")
        }
        _ => format!("is not a {what}; expected one of {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_suggests_the_closest_name_for_a_misspelling_and_otherwise_lists_all_names() {
        let said = |name| unknown("key", name, ["issuers", "claims", "from"].into_iter());
        assert_eq!(said("issuer"), "is not a key: did you mean issuers?");
        assert_eq!(said("clams"), "is not a key: did you mean claims?");
        assert_eq!(
            said("port"),
            "is not a key; expected one of issuers, claims, from"
        );
        assert_eq!(
            unknown("key", "secret", ["server"].into_iter()),
            "is not a key; expected one of server"
        );
    }
}

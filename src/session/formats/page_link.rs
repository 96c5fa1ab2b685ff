//! Links to the pages of the documentation.

/// The URL of a documentation page if the build knows the repository's address, as a release build does; otherwise the
/// page's path in the repository. The installed packages do not contain the pages.
pub fn page_link(page: &str) -> String {
    page_in(option_env!("REPOSITORY_URL"), page)
}

fn page_in(repository: Option<&str>, page: &str) -> String {
    match repository {
        Some(url) if !url.is_empty() => {
            format!("{url}/blob/v{}/{page}", env!("CARGO_PKG_VERSION"))
        }
        _ => format!("{page} in the rollout-token repository"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_link_is_a_url_of_this_version_or_a_path_if_the_repository_is_unknown() {
        let page = "docs/choosing.md";
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            page_in(Some("https://git.example/rollout-token"), page),
            format!("https://git.example/rollout-token/blob/v{version}/docs/choosing.md")
        );
        for unknown in [None, Some("")] {
            assert_eq!(
                page_in(unknown, page),
                "docs/choosing.md in the rollout-token repository"
            );
        }
    }
}

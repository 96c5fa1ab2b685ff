//! Fuzzes a request pasted into `detect`. Each suggested section is printed as a configuration file, which must be
//! valid TOML, and as environment variables, whose names must begin with `ROLLOUT`.
#![no_main]

use std::sync::LazyLock;

use rollout_token::http::pasted;
use rollout_token::session::detect::detect;
use rollout_token::session::registry::Registry;

static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::builtin);

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(headers) = pasted::headers(bytes) else {
        return;
    };
    for detected in detect(&headers, &REGISTRY) {
        assert!(!detected.drafts.is_empty() && detected.drafts[0].kind == detected.kinds[0]);
        for draft in &detected.drafts {
            let file = draft.to_file();
            let section: rollout_token_fuzz::Table = file
                .parse()
                .unwrap_or_else(|error| panic!("{error}: {file}"));
            assert!(section.contains_key("extractors"), "{file}");
            assert!(
                draft
                    .to_variables()
                    .iter()
                    .all(|(name, ..)| name.starts_with("ROLLOUT")),
                "{file}"
            );
        }
    }
});

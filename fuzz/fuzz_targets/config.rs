//! Fuzzes a configuration file: neither the settings, if they are printed, nor the report of problems contains the
//! client secret.
#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;

use rollout_token::settings;

use rollout_token::clock::{Clock, ManualClock};
use rollout_token::config::Sources;
use rollout_token::session::backends::Context;
use rollout_token::session::registry::Registry;

const SECRET: &str = "sentinel-client-secret-sentinel-client-secret-sentinel-client-secret";

libfuzzer_sys::fuzz_target!(|text: &str| {
    // Skip inputs that name files, because reading a device such as /dev/zero never ends.
    if text.contains("file") {
        return;
    }
    let environment = [
        ("ROLLOUT_CLIENT_ID", "client"),
        ("ROLLOUT_CLIENT_SECRET", SECRET),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let sources = Sources {
        base: Some(text.to_owned()),
        environment: BTreeMap::from(environment),
        ..Sources::default()
    };
    let context = Context::new(
        Clock::new(ManualClock::at(rollout_token_fuzz::NOW)),
        Arc::default(),
    );
    let shown = match settings::load(&sources, &Registry::builtin(), &context) {
        Ok(settings) => format!("{settings:?}{}", settings.effective()),
        Err(problems) => problems.to_string(),
    };
    assert!(!shown.contains(SECRET), "{shown}");
});

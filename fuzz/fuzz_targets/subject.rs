//! Fuzzes a subject template and a session: every result satisfies the rules for subjects.
#![no_main]

use rollout_token::json::Value;
use rollout_token::session::subject::{MAX_BYTES, Template};

libfuzzer_sys::fuzz_target!(|input: (&str, &[u8])| {
    let (template, session) = input;
    let (Ok(template), Ok(session)) = (template.parse::<Template>(), Value::parse(session)) else {
        return;
    };
    if let Ok(subject) = template.subject(&session) {
        assert!(!subject.as_str().trim().is_empty() && subject.as_str().len() <= MAX_BYTES);
        assert!(!subject.as_str().chars().any(char::is_control));
    }
});

//! Valid sessions of each framework, with the configuration keys that accept them. Benchmarks measure these sessions,
//! and fuzzers start from them. The sessions come from `tests/vectors/`.

use std::sync::Arc;

use rollout_token::clock::{Clock, ManualClock};
use rollout_token::session::backends::Context;
use rollout_token::session::contract;
use rollout_token::session::registry::Registry;
use rollout_token::session::types::SessionExtractor;
use serde_json::Value;

/// The paths of the vectors, relative to the package that includes this file: the project or its fuzzers.
const VECTORS: [&str; 2] = ["tests/vectors", "../tests/vectors"];

pub struct Sample {
    pub kind: &'static str,
    /// The section's keys, as TOML.
    keys: &'static str,
    /// The vector file, and the case in it.
    pub family: &'static str,
    case: &'static str,
}

#[rustfmt::skip]
pub const SAMPLES: [Sample; 13] = [
    Sample { kind: "authjs", family: "authjs-v5", case: "signin-a",
        keys: "secrets = [\"public-demo-secret-0123456789abcdef\"]\nsubject = \"{sub}\"" },
    Sample { kind: "authjs", family: "nextauth-v4", case: "signin-a",
        keys: "version = \"v4\"\nsecrets = [\"public-demo-secret-0123456789abcdef\"]" },
    Sample { kind: "better_auth", family: "better-auth", case: "v17-cache-compact-valid",
        keys: r#"secret = "public-better-auth-secret-0123456789abcd""# },
    Sample { kind: "cookie_session", family: "cookie-session", case: "default-0-signin",
        keys: r#"keys = ["keyboard cat"]"# },
    Sample { kind: "django_signed", family: "django-signed-cookies", case: "plain-0-signin",
        keys: r#"secret_key = "django-insecure-public-0123456789abcdefghijklmnopqrstu""# },
    Sample { kind: "flask", family: "flask", case: "plain-0-signin",
        keys: r#"secret_key = "dev-public-flask-secret-0001""# },
    Sample { kind: "iron_session", family: "iron-session", case: "v9-signin-0",
        keys: "cookie = \"app_session\"\npassword = \"public-password-one-0123456789abcdef-32+\"" },
    Sample { kind: "iron_session", family: "iron-raw", case: "h3-v1-signin",
        keys: "cookie = \"h3\"\nversion = \"raw\"\npassword = \"public-raw-password-0123456789abcdef-one\"" },
    Sample { kind: "laravel", family: "laravel", case: "l8-aes-256-cbc-cookie-driver-0",
        keys: "cookie = \"laravel_session\"\napp_key = \"base64:eI5d8RkzVWrk4l5UREkGvTjUwS4L3a3y7MAR4DpRHyw=\"" },
    Sample { kind: "rails", family: "rails", case: "rails61-sha1-signin-0",
        keys: "cookie = \"_app_session\"\ndigest = \"sha1\"\nsecret_key_base = \"pub0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d\"" },
    Sample { kind: "react_router", family: "react-router", case: "rr7-signin",
        keys: r#"secrets = ["public-remix-secret-0123456789abcdef"]"# },
    Sample { kind: "starlette", family: "starlette", case: "signin-0",
        keys: r#"secret_key = "public-starlette-secret""# },
    Sample { kind: "jwt", family: "supabase-ssr", case: "hs256-0-good",
        keys: r#"
            from = ["supabase:sb-abcdefghijklmnopqrst-auth-token"]
            algorithms = ["HS256"]
            secret = "public-jwt-secret-with-more-than-32-characters"
            audiences = ["authenticated"]
        "# },
];

impl Sample {
    fn case(&self) -> Value {
        let path = |folder| {
            format!(
                "{}/{folder}/{}.json",
                env!("CARGO_MANIFEST_DIR"),
                self.family
            )
        };
        let file = VECTORS
            .into_iter()
            .find_map(|folder| std::fs::read(path(folder)).ok());
        let family: Value = serde_json::from_slice(&file.expect("vectors")).expect("JSON");
        let cases = family["cases"].as_array().expect("cases");
        cases
            .iter()
            .find(|case| case["name"] == self.case)
            .expect("the case")
            .clone()
    }

    /// The name of the benchmark.
    pub fn name(&self) -> String {
        if self.kind == self.family {
            self.kind.to_owned()
        } else {
            format!("{} ({})", self.kind, self.family)
        }
    }

    /// The extractor, with its clock set to the time of the session.
    pub fn extractor(&self) -> Arc<dyn SessionExtractor> {
        let now = self.case()["now"].as_i64().expect("a time");
        let context = Context::new(Clock::new(ManualClock::at(now)), Arc::default());
        contract::build(&Registry::builtin(), self.kind, self.keys, &context).expect("good keys")
    }

    /// The session's cookies, by name.
    pub fn cookies(&self) -> Vec<(String, String)> {
        let case = self.case();
        let cookies = case["request"]["cookies"].as_object().expect("cookies");
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        cookies
            .iter()
            .map(|(name, value)| (name.clone(), text(value)))
            .collect()
    }
}

//! Fuzzes the cookie with the id of a stored session, in each signed form. The first byte selects the form. Only the id
//! that the framework signed may reach the store.
#![no_main]

use std::sync::{Arc, LazyLock};

use axum::http::{HeaderValue, header};
use rollout_token::session::contract;
use rollout_token::session::types::{ExtractError, SessionExtractor};
use tokio::runtime::Runtime;

struct Form {
    name: &'static str,
    secret: &'static str,
    id: &'static str,
}

/// The signed forms, each with a secret and a session id from `tests/stores/vectors/redis-stores.json` or
/// `tests/vectors/rails.json`. The corpus contains the cookies with these ids, signed with these secrets.
const FORMS: [Form; 5] = [
    Form {
        name: "express_signed",
        secret: "public-secret-one",
        id: "zoë b ñ/7.x",
    },
    Form {
        name: "fastify_signed",
        secret: "public-secret-of-32-characters-at-least",
        id: "VQfcI1JRy4wLspMI9iyclau3enQ6ddjJ",
    },
    Form {
        name: "better_auth_signed",
        secret: "public-better-auth-secret-0123456789abcd",
        id: "N14qWYRsIbCnRwIbmjR59LDwH9wknlul",
    },
    Form {
        name: "flask_signed",
        secret: "public-flask-secret-0001",
        id: "GpXETpurG0aaynrjpTp0-RE49b0yawD8xtxwtfepotw",
    },
    Form {
        name: "rails_signed",
        secret: "pub0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1d",
        id: "17",
    },
];

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

/// An extractor for each form. The query returns the requested key itself, so the SQLite database needs no tables.
static EXTRACTORS: LazyLock<Vec<Arc<dyn SessionExtractor>>> = LazyLock::new(|| {
    let path =
        std::env::temp_dir().join(format!("rollout-token-fuzz-{}.sqlite3", std::process::id()));
    std::fs::write(&path, "").expect("an empty database");
    let keys = |form: &Form| {
        format!(
            "url = \"sqlite://{}\"\nquery = \"SELECT $1 AS key\"\nsubject = \"{{key}}\"\n\
             cookie = \"session_id\"\ncookie_format = \"{}\"\ncookie_secrets = [\"{}\"]",
            path.display(),
            form.name,
            form.secret
        )
    };
    FORMS
        .iter()
        .map(|form| rollout_token_fuzz::build("sql_session", &keys(form)))
        .collect()
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&first, value)) = bytes.split_first() else {
        return;
    };
    let number = usize::from(first) % FORMS.len();
    let Ok(cookie) = HeaderValue::from_bytes(&[b"session_id=", value].concat()) else {
        return;
    };
    let mut request = contract::request(&[]);
    request.headers.append(header::COOKIE, cookie);
    match RUNTIME.block_on(EXTRACTORS[number].extract(&request)) {
        Ok(None) | Err(ExtractError::Rejected(_)) => {}
        Ok(Some(session)) => {
            let session = session
                .attributes
                .as_object()
                .expect("a row")
                .get("key")
                .expect("one column");
            assert_eq!(session.and_then(|key| key.as_str()), Some(FORMS[number].id));
        }
        other => panic!("{other:?}"),
    }
});

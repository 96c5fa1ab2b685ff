//! The secrets that every attack uses, and the search for them in all output.

use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

pub const CLIENT_SECRET: &str =
    "client+secret/sentinel:Aq7Zx0-Bv2-0123456789-0123456789-0123456789-0123456789";
pub const SESSION_SECRET: &str = "session+secret/sentinel:Kd81Qw-0123456789-0123456789";
pub const API_KEY: &str = "api-key-sentinel-Tr55Yu-0123456789-0123456789";
pub const PROXY_SECRET: &str = "proxy-secret-sentinel-Jm42Lo-0123456789";
pub const COOKIE_VALUE: &str = "cookie-value-sentinel-Wx93Ne-0123456789";
pub const UPSTREAM_SECRET: &str = "upstream-secret-sentinel-Hb60Ft-0123456789";
pub const QUERY_VALUE: &str = "query-value-sentinel-Gv17Ip-0123456789";
const SENTINELS: [&str; 7] = [
    CLIENT_SECRET,
    SESSION_SECRET,
    API_KEY,
    PROXY_SECRET,
    COOKIE_VALUE,
    UPSTREAM_SECRET,
    QUERY_VALUE,
];

/// Panics if `bytes` contains one of the secrets, in plain text or encoded.
pub fn no_sentinel(place: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for (sentinel, form) in forms() {
        if let Some(at) = text.find(form.as_str()) {
            let from = text.floor_char_boundary(at.saturating_sub(200));
            panic!("{sentinel} is in {place}: {}", &text[from..at]);
        }
    }
}

/// All forms of the secrets, plain and encoded, each with a name for failure messages.
fn forms() -> &'static [(&'static str, String)] {
    static FORMS: OnceLock<Vec<(&str, String)>> = OnceLock::new();
    FORMS.get_or_init(|| {
        let mut forms = Vec::new();
        for sentinel in SENTINELS {
            // The first 24 characters identify the secret, and JSON escapes none of them.
            let core = &sentinel[..24];
            forms.push(core.to_owned());
            let hex: String = core.bytes().map(|byte| format!("{byte:02x}")).collect();
            let percent: String = core.bytes().map(|byte| format!("%{byte:02x}")).collect();
            forms.extend([hex.to_uppercase(), hex, percent.to_uppercase(), percent]);
            let some: String = core
                .chars()
                .map(|c| {
                    if c.is_ascii_alphanumeric() || c == '-' {
                        c.to_string()
                    } else {
                        format!("%{:02X}", c as u32)
                    }
                })
                .collect();
            forms.push(some);
            // The base64 encoding of a substring depends on its offset modulo three.
            for before in ["", "x", "xx"] {
                let text = format!("{before}{core}");
                for encoded in [STANDARD_NO_PAD.encode(&text), URL_SAFE_NO_PAD.encode(&text)] {
                    forms.push(encoded[4..encoded.len() - 4].to_owned());
                }
            }
            forms.sort();
            forms.dedup();
        }
        let named = |form: String| {
            let sentinel = SENTINELS.iter().find(|sentinel| form == sentinel[..24]);
            (*sentinel.unwrap_or(&"a secret, encoded,"), form)
        };
        forms.into_iter().map(named).collect()
    })
}

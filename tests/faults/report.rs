//! What all cases share: the words that must never come out, and the figures of the whole run.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

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
const SENTINELS: [&str; 7] =
    [CLIENT_SECRET, SESSION_SECRET, API_KEY, PROXY_SECRET, COOKIE_VALUE, UPSTREAM_SECRET, QUERY_VALUE];

static CHECKS: AtomicU64 = AtomicU64::new(0);
static REQUESTS: AtomicU64 = AtomicU64::new(0);
static LOST: AtomicU64 = AtomicU64::new(0);
static FAULTS: AtomicU64 = AtomicU64::new(0);
static PEAK_KIB: AtomicU64 = AtomicU64::new(0);

/// Answers that were checked.
pub fn count_checks(count: u64) {
    CHECKS.fetch_add(count, Ordering::Relaxed);
}

/// Requests and other bytes sent to a service.
pub fn count_requests(count: u64) {
    REQUESTS.fetch_add(count, Ordering::Relaxed);
}

/// Honest requests that got no answer, or not theirs.
pub fn count_lost(count: u64) {
    LOST.fetch_add(count, Ordering::Relaxed);
}

/// Answers of a hostile back end, and connections on which a proxy misbehaved.
pub fn count_faults(count: u64) {
    FAULTS.fetch_add(count, Ordering::Relaxed);
}

pub fn count_memory(kib: u64) {
    PEAK_KIB.fetch_max(kib, Ordering::Relaxed);
}

pub fn figures() -> String {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    format!(
        "{} answers checked, {} requests sent, {} lost, {} faults injected, {} MiB at most in one service",
        load(&CHECKS),
        load(&REQUESTS),
        load(&LOST),
        load(&FAULTS),
        load(&PEAK_KIB) / 1024
    )
}

/// Panics if one of the secrets stands in `bytes`, plainly or encoded.
pub fn no_sentinel(place: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for (sentinel, form) in forms() {
        if let Some(at) = text.find(form.as_str()) {
            let from = text.floor_char_boundary(at.saturating_sub(200));
            panic!("{sentinel} is in {place}: {}", &text[from..at]);
        }
    }
}

/// Every form in which a secret might get out.
fn forms() -> &'static [(&'static str, String)] {
    static FORMS: OnceLock<Vec<(&str, String)>> = OnceLock::new();
    FORMS.get_or_init(|| {
        let mut forms = Vec::new();
        for sentinel in SENTINELS {
            // The middle of it is enough to give it away, and cannot hide behind an escape.
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
            // Inside of a longer text, base64 looks different by where it begins.
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

/// Lets this process open as many files as it may: some cases hold ten thousand connections.
pub fn open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).expect("a limit");
}

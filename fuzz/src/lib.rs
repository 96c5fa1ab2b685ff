//! What the targets share: one extractor for each target, and a request with the fuzzer's bytes where a
//! browser would put its cookie.

#[path = "../../tests/shared/samples.rs"]
mod samples;

use std::sync::{Arc, OnceLock};

use axum::http::{HeaderValue, header};
use futures_util::FutureExt;
use rollout_token::extractors::{ExtractError, SessionExtractor, contract};
use samples::{SAMPLES, Sample};

/// A genuine session of each framework, as the cookie's value: the corpus starts there.
pub fn sample(kind: &str) -> &'static Sample {
    SAMPLES.iter().find(|sample| sample.kind == kind).expect("a sample of the kind")
}

/// Gives an extractor of `kind` the bytes as its cookie. Whatever they are, it must answer, and it must
/// not take them for a session unless they are the genuine one.
pub fn cookie(kind: &'static str, bytes: &[u8]) {
    static EXTRACTOR: OnceLock<(Arc<dyn SessionExtractor>, Vec<(String, String)>)> = OnceLock::new();
    let (extractor, genuine) = EXTRACTOR.get_or_init(|| (sample(kind).extractor(), sample(kind).cookies()));
    let mut request = contract::request(&[]);
    // The first cookie is the fuzzer's; a second one, such as a signature, stays genuine.
    for (number, (name, value)) in genuine.iter().enumerate() {
        let value = if number == 0 { bytes } else { value.as_bytes() };
        let pair = [name.as_bytes(), b"=", value].concat();
        let Ok(pair) = HeaderValue::from_bytes(&pair) else { return };
        request.headers.append(header::COOKIE, pair);
    }
    match extractor.extract(&request).now_or_never().expect("no waiting") {
        Ok(None) | Err(ExtractError::Rejected(_)) => {}
        Ok(Some(session)) => {
            assert!(is_spelling_of(bytes, genuine[0].1.as_bytes()), "taken for a session: {session:?}")
        }
        Err(ExtractError::Unavailable(cause)) => panic!("nothing can be unavailable: {cause:?}"),
    }
}

/// Whether the bytes are the genuine value, perhaps with other percent-encoding, quotes or spaces.
fn is_spelling_of(bytes: &[u8], genuine: &[u8]) -> bool {
    let plain = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let text = text.trim_matches(['"', ' ', '\t']).replace('+', "%2B");
        let mut plain = String::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once('%') {
            plain.push_str(before);
            let code = after.get(..2).and_then(|code| u8::from_str_radix(code, 16).ok());
            plain.push(char::from(code.unwrap_or(b'%')));
            rest = after.get(2..).unwrap_or_default();
        }
        plain + rest
    };
    plain(bytes) == plain(genuine)
}

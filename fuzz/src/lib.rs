//! What the targets share: one extractor for each target, and a request with the fuzzer's bytes where a
//! browser would put its cookie.

#[path = "../../tests/shared/samples.rs"]
mod samples;

use std::sync::{Arc, OnceLock};

use axum::http::{HeaderValue, header};
use futures_util::FutureExt;
use rollout_token::extractors::{ExtractError, SessionExtractor, contract};
use rollout_token::value::Value;
use samples::{SAMPLES, Sample};

/// A genuine session of each framework, as the cookie's value: the corpus starts there.
pub fn sample(kind: &str) -> &'static Sample {
    SAMPLES.iter().find(|sample| sample.kind == kind).expect("a sample of the kind")
}

/// A kind under test: its extractor, the cookies of a genuine session, and what is in it.
struct Subject {
    extractor: Arc<dyn SessionExtractor>,
    cookies: Vec<(String, String)>,
    attributes: Value,
}

impl Subject {
    fn of(kind: &str) -> Self {
        let (extractor, cookies) = (sample(kind).extractor(), sample(kind).cookies());
        let mut request = contract::request(&[]);
        for (name, value) in &cookies {
            let pair = HeaderValue::try_from(format!("{name}={value}")).expect("a cookie");
            request.headers.append(header::COOKIE, pair);
        }
        let session = extractor.extract(&request).now_or_never().expect("no waiting");
        let attributes = session.expect("a genuine session").expect("a session").attributes;
        Self { extractor, cookies, attributes }
    }
}

/// Gives an extractor of `kind` the bytes as its cookie. Whatever they are, it must answer, and a session
/// that it finds in them must be the genuine one.
pub fn cookie(kind: &'static str, bytes: &[u8]) {
    static SUBJECT: OnceLock<Subject> = OnceLock::new();
    let subject = SUBJECT.get_or_init(|| Subject::of(kind));
    let mut request = contract::request(&[]);
    // The first cookie is the fuzzer's; a second one, such as a signature, stays genuine.
    for (number, (name, value)) in subject.cookies.iter().enumerate() {
        let value = if number == 0 { bytes } else { value.as_bytes() };
        let pair = [name.as_bytes(), b"=", value].concat();
        let Ok(pair) = HeaderValue::from_bytes(&pair) else { return };
        request.headers.append(header::COOKIE, pair);
    }
    match subject.extractor.extract(&request).now_or_never().expect("no waiting") {
        Ok(None) | Err(ExtractError::Rejected(_)) => {}
        Ok(Some(session)) => assert_eq!(session.attributes, subject.attributes, "taken for a session"),
        Err(ExtractError::Unavailable(cause)) => panic!("nothing can be unavailable: {cause:?}"),
    }
}

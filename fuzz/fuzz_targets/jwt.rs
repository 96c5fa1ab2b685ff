//! Fuzzes a correctly signed JWT with arbitrary bytes as header and payload. The extractor must accept only tokens that
//! are valid according to RFC 7519.
#![no_main]

use std::sync::{Arc, LazyLock};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt;
use rollout_token::session::contract;
use rollout_token::session::types::{ExtractError, SessionExtractor};
use rollout_token_fuzz::{JWT_SECRET, NOW};
use serde_json::Value;

static EXTRACTOR: LazyLock<Arc<dyn SessionExtractor>> =
    LazyLock::new(|| rollout_token_fuzz::jwt("issuers = [\"https://idp.example\"]\n"));
static KEY: LazyLock<hmac::Key> =
    LazyLock::new(|| hmac::Key::new(hmac::HMAC_SHA256, JWT_SECRET.as_bytes()));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some(line) = bytes.iter().position(|&byte| byte == b'\n') else {
        return;
    };
    let (header, payload) = (&bytes[..line], &bytes[line + 1..]);
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(payload)
    );
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&KEY, signed.as_bytes()));
    let request = contract::request(&[("authorization", &format!("Bearer {signed}.{signature}"))]);
    match EXTRACTOR
        .extract(&request)
        .now_or_never()
        .expect("no waiting")
    {
        Ok(Some(_)) => {
            let header: Value = serde_json::from_slice(header).expect("a header is JSON");
            assert_eq!(header["alg"], "HS256");
            // These parameters change what is verified. Parameters that contain or locate a key, such as `jwk` and
            // `jku`, are ignored, so they may occur.
            for name in ["crit", "zip"] {
                assert!(header.get(name).is_none(), "{name} in {header}");
            }
            assert!(matches!(header.get("b64"), None | Some(Value::Bool(true))), "b64 in {header}");
            let claims: Value = serde_json::from_slice(payload).expect("claims are JSON");
            assert_eq!(claims["iss"], "https://idp.example");
            assert!(
                claims["exp"].as_f64().expect("an end") > NOW as f64 - 31.0,
                "expired: {claims}"
            );
            for name in ["nbf", "iat"] {
                let time = &claims[name];
                assert!(
                    time.is_null() || time.as_f64().expect("a time") < NOW as f64 + 31.0,
                    "{claims}"
                );
            }
        }
        Err(ExtractError::NotMine(..) | ExtractError::Rejected(_)) => {}
        other => panic!("{other:?}"),
    }
});

//! `count hmac|mint|router TIMES`: repeats the operation so that `count.py` can count its instructions. It measures no
//! time.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark that cannot be set up has nothing to measure"
)]

mod setup;

use std::hint::black_box;

use aws_lc_rs::hmac::{self, HMAC_SHA512};
use axum::http::StatusCode;
use mimalloc::MiMalloc;
use rollout_token::session::subject::Subject;
use rollout_token::session::types::Session;
use tower::ServiceExt;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().expect("what to do");
    let times: u32 = arguments
        .next()
        .and_then(|times| times.parse().ok())
        .expect("how often");
    match what.as_str() {
        "hmac" => hmac(times),
        "mint" => mint(times),
        "router" => router(times),
        other => panic!("{other} is not hmac, mint or router"),
    }
}

/// Computes only the signature, which is the part of minting that cannot be avoided.
fn hmac(times: u32) {
    let key = hmac::Key::new(HMAC_SHA512, setup::CLIENT_SECRET.as_bytes());
    // SHA-512 processes as many blocks for these bytes as for the signed part of a token.
    let signed = [b'x'; 160];
    for _ in 0..times {
        black_box(hmac::sign(&key, black_box(&signed)));
    }
}

fn mint(times: u32) {
    let minter = setup::minter();
    let subject = Subject::new("user-1").expect("a subject");
    let session = Session::of_subject("user-1");
    for _ in 0..times {
        black_box(
            minter
                .mint(&subject, &session, black_box(1_800_000_000))
                .expect("a token"),
        );
    }
}

fn router(times: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let service = setup::service(&setup::hs256());
    let authorization = format!("Bearer {}", setup::session());
    runtime.block_on(async {
        for _ in 0..times {
            let answered = service
                .clone()
                .oneshot(setup::request(Some(&authorization)))
                .await;
            assert_eq!(answered.expect("an answer").status(), StatusCode::OK);
        }
    });
}

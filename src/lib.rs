//! `rollout-token` recognises the session that a user already has and answers with a short-lived
//! Rollout auth token.
//!
//! The way of one request, and where to read it:
//!
//! 1. [`server`] accepts the connection and keeps slow, silent and too many peers in bounds.
//! 2. [`wire`] refuses what is not well-formed, too large or ambiguous.
//! 3. [`app`] gives the request its id and settings, and leads it to its route in [`routes`].
//! 4. [`origin`] decides whether a page of that origin may ask at all.
//! 5. [`extractors`] find the session: the first that sees a credential of its kind decides.
//! 6. [`subject`] says who the session is, if it may say so.
//! 7. [`limiter`] keeps one subject from asking too often.
//! 8. [`token`] mints.
//! 9. [`error`] turns everything that went otherwise into one kind of answer.
//! 10. [`telemetry`], [`metrics`] and [`trace`] write down what happened, and no secret.
//!
//! To serve with a session extractor of your own, see `examples/custom_extractor.rs`.

pub mod cli;
pub mod clock;
pub mod config;
mod hardening;
mod headers;
pub mod http;
pub mod json;
pub mod secret;
pub mod session;
pub mod settings;
mod sync;
pub mod telemetry;
pub mod token;

pub use cli::Cli;
pub use session::Registry;

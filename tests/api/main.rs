//! The service as a black box, over real sockets. One file a subject; the harness is in `helpers.rs`.

mod browsers;
mod configuration;
mod errors;
mod helpers;
mod limits;
mod sessions;
mod subjects;
mod tokens;

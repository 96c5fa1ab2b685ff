//! The handlers, one file a subject.
//! Which path leads to which is in `app.rs`.

pub mod assets;
pub mod dev;
pub mod health;
pub mod openapi;
pub mod token;

//! The route handlers, one file per topic. The router is in `app.rs`.

pub mod assets;
pub mod dev;
pub mod health;
pub mod openapi;
pub mod token;

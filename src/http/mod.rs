//! The HTTP part of the service, from the socket to the response: connections, request checks, routes and errors.

pub mod app;
pub(crate) mod embed;
pub mod error;
pub(crate) mod explain;
pub mod origin;
pub mod pasted;
pub(crate) mod rate_limit;
pub(crate) mod readiness;
pub mod request_checks;
pub mod request_id;
pub(crate) mod routes;
pub mod server;

//! The HTTP part of the service, from the socket to the response: connections, request checks, routes and errors.

pub mod app;
pub mod embed;
pub mod error;
pub mod explain;
pub mod origin;
pub mod pasted;
pub mod rate_limit;
pub mod readiness;
pub mod request_checks;
pub mod request_id;
pub mod routes;
pub mod server;

//! The kinds of sessions that the service supports, one file per kind.

pub(crate) mod api_key;
pub(crate) mod authjs;
pub(crate) mod better_auth;
pub(crate) mod cookie_session;
pub(crate) mod django_signed;
pub(crate) mod flask;
pub(crate) mod introspection;
pub(crate) mod iron_session;
pub(crate) mod jwt;
pub(crate) mod laravel;
pub(crate) mod rails;
pub(crate) mod react_router;
pub(crate) mod redis_session;
pub(crate) mod session_endpoint;
pub(crate) mod sql_session;
pub(crate) mod starlette;
pub(crate) mod static_user;
pub(crate) mod trusted_header;

//! The table of all extractor kinds. To add a kind, add its file in `extractors/`, its row here, its keys in
//! `config/default.toml` and its page in `docs/`.

use std::collections::BTreeMap;

use crate::session::extractors::{
    api_key, authjs, better_auth, cookie_session, django_signed, flask, introspection,
    iron_session, jwt, laravel, rails, react_router, redis_session, session_endpoint, sql_session,
    starlette, static_user, trusted_header,
};
use crate::session::kind::Kind;

/// A kind, and the preset if the kind needs one.
type KindAndPreset = (&'static str, Option<&'static str>);

const EXPRESS_SESSION: &[KindAndPreset] = &[
    ("redis_session", Some("connect-redis")),
    ("sql_session", Some("connect-pg-simple")),
];
const EXPRESS: &[KindAndPreset] = &[
    ("redis_session", Some("connect-redis")),
    ("sql_session", Some("connect-pg-simple")),
    ("cookie_session", None),
];

/// Libraries and frameworks whose names are not kinds or presets, with the kinds that read their sessions. If an
/// operator writes such a name as the kind or preset, the error message suggests these kinds.
const LIBRARIES: [(&str, &[KindAndPreset]); 14] = [
    ("express-session", EXPRESS_SESSION),
    ("express", EXPRESS),
    ("passport", EXPRESS),
    ("cookie-session", &[("cookie_session", None)]),
    ("koa-session", &[("cookie_session", None)]),
    ("next-auth", &[("authjs", None)]),
    ("nextauth", &[("authjs", None)]),
    ("iron-session", &[("iron_session", None)]),
    ("nuxt", &[("iron_session", None)]),
    ("h3", &[("iron_session", None)]),
    ("remix", &[("react_router", None)]),
    ("fastapi", &[("starlette", None)]),
    ("devise", &[("rails", None)]),
    ("oidc", &[("jwt", None)]),
];

/// The kinds, with their presets, that read the sessions of a library; `None` if the name is not a known library.
pub(crate) fn sections_for(library: &str) -> Option<&'static [KindAndPreset]> {
    let spelled = library.to_ascii_lowercase().replace('_', "-");
    let (_, sections) = LIBRARIES.iter().find(|(name, _)| *name == spelled)?;
    Some(sections)
}

/// All extractor kinds, by name.
#[derive(Clone, Debug)]
pub struct Registry(BTreeMap<&'static str, Kind>);

impl Registry {
    /// The kinds that are built into the service.
    pub fn builtin() -> Self {
        Self(BTreeMap::from([
            ("api_key", api_key::KIND),
            ("authjs", authjs::KIND),
            ("better_auth", better_auth::KIND),
            ("cookie_session", cookie_session::KIND),
            ("django_signed", django_signed::KIND),
            ("flask", flask::KIND),
            ("introspection", introspection::KIND),
            ("iron_session", iron_session::KIND),
            ("jwt", jwt::KIND),
            ("laravel", laravel::KIND),
            ("rails", rails::KIND),
            ("react_router", react_router::KIND),
            ("redis_session", redis_session::KIND),
            ("session_endpoint", session_endpoint::KIND),
            ("sql_session", sql_session::KIND),
            ("starlette", starlette::KIND),
            ("static_user", static_user::KIND),
            ("trusted_header", trusted_header::KIND),
        ]))
    }

    /// Adds a kind, or replaces the kind with that name.
    #[must_use]
    pub fn with(mut self, name: &'static str, kind: Kind) -> Self {
        self.0.insert(name, kind);
        self
    }

    /// The kind called `name`, and its name with a static lifetime.
    pub fn entry(&self, name: &str) -> Option<(&'static str, &Kind)> {
        self.0.get_key_value(name).map(|(name, kind)| (*name, kind))
    }

    /// The names of all kinds, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }
}

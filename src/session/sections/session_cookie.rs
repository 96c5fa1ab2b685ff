//! The extractor for the kinds whose apps store the whole session in one cookie. Each kind defines the format of the
//! cookie's value.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use axum::http::request::Parts;
use futures_util::future::BoxFuture;

use crate::clock::{Clock, UnixSeconds};
use crate::config::Problems;
use crate::session::backends::Context;
use crate::session::sections::cookie::Cookie;
use crate::session::sections::session_end::SessionEnd;
use crate::session::types::{ExtractError, Extracted, Reach, SessionExtractor};

/// The format in which a framework writes a session into a cookie.
pub trait CookieFormat: fmt::Debug + Send + Sync + 'static {
    /// The cookie's value; `None` if the cookie is absent or empty.
    fn find<'a>(
        &self,
        cookie: &Cookie,
        request: &'a Parts,
    ) -> Result<Option<Cow<'a, str>>, ExtractError> {
        Ok(cookie.find(request)?.map(Cow::Borrowed))
    }

    /// The session in the cookie's value; `None` if the value means that no user is signed in. `request` contains the
    /// other cookies that belong to the session.
    fn read(&self, cookie: &Cookie, value: &str, request: &Parts, now: UnixSeconds) -> Extracted;
}

#[derive(Debug)]
pub struct SessionCookie<F> {
    cookie: Cookie,
    format: F,
    end: SessionEnd,
    clock: Clock,
}

impl<F: CookieFormat> SessionCookie<F> {
    /// Builds the extractor, unless there are problems. `cookie` is `None` if the cookie's name is missing or invalid;
    /// `problems` then contains the reason.
    pub fn build(
        context: &Context,
        cookie: Option<Cookie>,
        format: F,
        end: SessionEnd,
        problems: Problems,
    ) -> Result<Arc<dyn SessionExtractor>, Problems> {
        let Some(cookie) = cookie else {
            return Err(problems);
        };
        problems.or(Arc::new(Self {
            cookie,
            format,
            end,
            clock: context.clock.clone(),
        }))
    }

    fn session(&self, request: &Parts, now: UnixSeconds) -> Extracted {
        match self.format.find(&self.cookie, request)? {
            Some(value) => self.format.read(&self.cookie, &value, request, now),
            None => Ok(None),
        }
    }
}

impl<F: CookieFormat> SessionExtractor for SessionCookie<F> {
    fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted> {
        let now = self.clock.now();
        Box::pin(async move { self.end.apply(self.session(request, now), now) })
    }

    fn reach(&self) -> Reach {
        Reach::cookie(self.cookie.name())
    }
}

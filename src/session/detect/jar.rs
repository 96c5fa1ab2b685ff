//! Reads all cookies of a request, joins chunks and decodes values. Unlike the extractors, which look for a cookie with
//! an exact name and refuse ambiguous cookies, `detect` inspects every value.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, header};

use crate::session::formats::percent::decode_or_raw;
use crate::session::sections::cookie::without_quotes;

/// A cookie with its value decoded.
pub(super) struct CookiePair<'a> {
    /// The name, without the number of a chunk.
    pub(super) name: &'a str,
    /// The value, without quotes and percent-encoding.
    pub(super) value: String,
}

/// The unchunked cookies in the order of the request, followed by the cookies that are joined from chunks.
pub(super) struct Jar<'a>(Vec<CookiePair<'a>>);

impl<'a> Jar<'a> {
    pub(super) fn read(headers: &'a HeaderMap) -> Self {
        let mut cookies = Vec::new();
        let mut chunks: BTreeMap<&str, BTreeMap<u32, &str>> = BTreeMap::new();
        let lines = headers.get_all(header::COOKIE).iter();
        let pairs = lines
            .filter_map(|line| std::str::from_utf8(line.as_bytes()).ok())
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='));
        for (name, value) in pairs {
            let (name, value) = (name.trim(), without_quotes(value.trim()));
            if name.is_empty() || value.is_empty() {
                continue;
            }
            match chunk(name) {
                Some((base, number)) => {
                    chunks.entry(base).or_default().insert(number, value);
                }
                None => cookies.push(CookiePair {
                    name,
                    value: decode_or_raw(value).into_owned(),
                }),
            }
        }
        for (name, chunks) in chunks {
            let joined = |count| {
                let joined: String = chunks.into_values().take(count).collect();
                decode_or_raw(&joined).into_owned()
            };
            match cookies.iter_mut().find(|cookie| cookie.name == name) {
                None => cookies.push(CookiePair {
                    name,
                    value: joined(usize::MAX),
                }),
                // If an unchunked cookie and chunks are both present, h3 has written the number of chunks into the
                // unchunked cookie, or one of the two values is stale. A stale value has the same form as the current
                // one, so the unchunked value is kept.
                Some(whole) => {
                    if let Some(count) = count_of_h3(&whole.value) {
                        whole.value = joined(count);
                    }
                }
            }
        }
        Self(cookies)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &CookiePair<'a>> {
        self.0.iter()
    }

    pub(super) fn get(&self, name: &str) -> Option<&CookiePair<'a>> {
        self.0.iter().find(|cookie| cookie.name == name)
    }
}

/// The number of chunks, if h3 has written it into the unchunked cookie as `__chunked__NUMBER`.
fn count_of_h3(value: &str) -> Option<usize> {
    value.strip_prefix("__chunked__")?.parse().ok()
}

/// Splits a chunk's name into the cookie's name and the chunk's number: `NAME.0` (Auth.js, Supabase, Better Auth,
/// iron-session and h3) or `NAME_0` (oauth2-proxy). `None` if the name is not a chunk's.
fn chunk(name: &str) -> Option<(&str, u32)> {
    let separator = if name.starts_with("_oauth2_proxy") {
        '_'
    } else {
        '.'
    };
    let (base, number) = name.rsplit_once(separator)?;
    let is_number = !number.is_empty() && number.len() <= 2;
    let number = number.parse().ok().filter(|_| is_number)?;
    (!base.is_empty()).then_some((base, number))
}

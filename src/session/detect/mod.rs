//! Recognises the sessions in a pasted request by the names of cookies and headers and by the form of their values, and
//! drafts for each session a section that reads it. Nothing is verified and no backend is called: only the framework's
//! secret, or `explain`, shows whether a guess is right.
//!
//! The formats are those of the extractors. `headers.rs` contains the rules for headers, and `tokens.rs` those for
//! JWTs. `cookies.rs` applies the rules for cookies; each family of frameworks has its own file of rules.

mod cookies;
mod draft;
mod encoding;
mod headers;
mod ids;
mod jar;
mod node;
mod php;
mod providers;
mod python;
mod rails;
mod subjects;
mod templates;
mod tokens;

use std::borrow::Cow;

use axum::http::HeaderMap;
use serde::{Serialize, Serializer};
use url::Url;

use crate::session::registry::Registry;

pub use draft::{Draft, DraftKey, Role, variable};
pub use subjects::candidates;
pub use templates::template;

/// How certain a rule's result is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// No other framework writes such a credential.
    Certain,
    /// Other frameworks use the same name or form, or the credential does not show which store is used.
    Likely,
    /// Only part of the name or form matches.
    Guess,
}

impl Confidence {
    /// The name in the output of `detect`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Certain => "certain",
            Self::Likely => "likely",
            Self::Guess => "guess",
        }
    }
}

impl Serialize for Confidence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A credential, the product that it seems to belong to, and the sections that could read it. Its serialized form is an
/// entry of `credentials` in the output of `detect --json`.
#[derive(Clone, Debug, Serialize)]
pub struct Detected {
    /// The place, in the notation of a section's key `from`: `cookie:connect.sid`, `header:authorization`.
    pub place: String,
    /// The kinds that could read the credential, the likeliest first.
    pub kinds: Vec<&'static str>,
    /// The preset of the first kind.
    pub preset: Option<&'static str>,
    pub confidence: Confidence,
    /// The configuration keys for the app's secrets, in a section of the first kind.
    pub needs: Vec<Cow<'static, str>>,
    /// The documentation page about such credentials, as a path in the repository.
    pub page: &'static str,
    /// The product that creates such credentials, for display.
    #[serde(skip)]
    pub product: String,
    /// A section for each of `kinds`, in the same order.
    #[serde(skip)]
    pub drafts: Vec<Draft>,
    /// Templates for `subject`, the best first. Empty if the credential does not reveal its content.
    #[serde(skip)]
    pub subjects: Vec<String>,
}

/// The result of a rule, without the place, which is added later.
#[derive(Debug)]
struct Finding {
    product: String,
    confidence: Confidence,
    page: &'static str,
    drafts: Vec<Draft>,
    subjects: Vec<String>,
}

impl Finding {
    fn new(
        product: impl Into<String>,
        confidence: Confidence,
        page: &'static str,
        drafts: impl IntoIterator<Item = Draft>,
    ) -> Self {
        Self {
            product: product.into(),
            confidence,
            page,
            drafts: drafts.into_iter().collect(),
            subjects: Vec::new(),
        }
    }

    /// A product whose sessions only the app itself can read. `cookie` is `None` for a credential in `Authorization`.
    fn ask(
        product: impl Into<String>,
        confidence: Confidence,
        page: &'static str,
        cookie: Option<&str>,
    ) -> Self {
        Self::new(product, confidence, page, [Draft::ask_with(cookie)])
    }

    /// Sets the templates for `subject` that the content of the credential suggests.
    fn showing(mut self, subjects: Vec<String>) -> Self {
        self.subjects = subjects;
        self
    }

    /// Completes the finding with its place. Omits drafts whose kind or preset this build does not contain.
    fn at(mut self, place: String, registry: &Registry) -> Detected {
        self.drafts.retain(|draft| {
            let entry = registry.entry(draft.kind);
            entry.is_some_and(|(_, kind)| {
                draft
                    .preset
                    .is_none_or(|preset| kind.preset(preset).is_some())
            })
        });
        let first = self.drafts.first();
        Detected {
            kinds: self.drafts.iter().map(|draft| draft.kind).collect(),
            preset: first.and_then(|draft| draft.preset),
            needs: first.map(Draft::secrets).unwrap_or_default(),
            place,
            confidence: self.confidence,
            page: self.page,
            product: self.product,
            drafts: self.drafts,
            subjects: self.subjects,
        }
    }
}

/// Like [`detect`], but the example URLs of the drafts have the public origin of the request's URL and, if this URL
/// seems to be a "who am I" URL, its path.
pub fn detect_for(headers: &HeaderMap, url: Option<&Url>, registry: &Registry) -> Vec<Detected> {
    let mut found = detect(headers, registry);
    if let Some(url) = url {
        let drafts = found.iter_mut().flat_map(|detected| &mut detected.drafts);
        drafts.for_each(|draft| draft.address(url));
    }
    found
}

/// The credentials of a request, the most certain first, and at most one for each place. With the same confidence,
/// headers precede cookies.
pub fn detect(headers: &HeaderMap, registry: &Registry) -> Vec<Detected> {
    let mut found = headers::in_headers(headers, registry);
    found.extend(cookies::in_cookies(headers, registry));
    found.retain(|detected| !detected.drafts.is_empty());
    found.sort_by_key(|detected| detected.confidence);
    let mut kept: Vec<Detected> = Vec::new();
    for detected in found {
        if !kept.iter().any(|other| other.place == detected.place) {
            kept.push(detected);
        }
    }
    kept
}

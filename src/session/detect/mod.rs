//! Recognises the sessions in a pasted request by the names of cookies and headers and by the shapes of their values,
//! and drafts the section that reads each of them. Nothing is verified and no backend is asked: the framework's secret, or
//! `explain`, shows whether a guess is right.
//!
//! The formats are those of the extractors. `headers.rs` has the rules for headers, and `tokens.rs` those for JWTs.
//! `cookies.rs` applies the rules for cookies; each family of frameworks has a file of them.

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
use serde::Serialize;

use crate::session::registry::Registry;

pub use draft::{Draft, DraftKey, Role, variable};
pub use subjects::candidates;
pub use templates::template;

/// How sure a rule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// No other framework writes this.
    Certain,
    /// Other frameworks use the same name or shape, or the credential does not show which store is used.
    Likely,
    /// Only part of the name or of the shape fits.
    Guess,
}

/// A credential, what it seems to be, and the sections that could read it. Serialized as `detect --json` prints it.
#[derive(Clone, Debug, Serialize)]
pub struct Detected {
    /// The place, as in the key `from` of a section: `cookie:connect.sid`, `header:authorization`.
    pub place: String,
    /// The likeliest first.
    pub kinds: Vec<&'static str>,
    /// The preset of the first kind.
    pub preset: Option<&'static str>,
    pub confidence: Confidence,
    /// The keys of the first kind that take a secret of the app's.
    pub needs: Vec<Cow<'static, str>>,
    /// A page of the documentation.
    pub page: &'static str,
    /// The product that makes such credentials, for display.
    #[serde(skip)]
    pub product: String,
    /// A section for each of `kinds`, in the same order.
    #[serde(skip)]
    pub drafts: Vec<Draft>,
    /// Templates for `subject`, the best first. Empty if the credential does not show its content.
    #[serde(skip)]
    pub subjects: Vec<String>,
}

/// The result of a rule, before the place is known.
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

    /// Adds the templates for `subject` that the content of the credential suggests.
    fn showing(mut self, subjects: Vec<String>) -> Self {
        self.subjects = subjects;
        self
    }

    /// A draft whose kind or preset this build does not have is left out.
    fn at(mut self, place: String, registry: &Registry) -> Detected {
        self.drafts.retain(|draft| {
            registry.entry(draft.kind).is_some_and(|(_, kind)| {
                let has = |preset| kind.presets.iter().any(|(name, _)| *name == preset);
                draft.preset.is_none_or(has)
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

/// The credentials of a request, the surest first and headers before cookies.
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

//! Detects the provider of a JWT, and drafts a section with the issuer, audience and app from the token.

use toml::{Table, Value as Toml};
use url::Url;

use super::Confidence::{Certain, Likely};
use super::Finding;
use super::draft::{APP, Draft, public_origin};
use super::providers::{FIREBASE_SESSIONS, PROVIDERS};
use super::subjects::candidates;
use crate::json::{Object, Value};
use crate::session::formats::glob::matches_glob;
use crate::session::formats::jwt_form;
use crate::session::types::CredentialSource;

/// A JWT that has been decoded but not verified. It has no `Debug`, which could show the claims.
pub(super) struct Token {
    header: Object,
    claims: Object,
}

impl Token {
    /// Decodes a JWT with or without padding; `None` if the text is not a JWT.
    pub(super) fn read(text: &str) -> Option<Self> {
        let [header, payload, _] = jwt_form::parts(text)?;
        let object = |part| match jwt_form::decode(part)? {
            Value::Object(object) => Some(object),
            _ => None,
        };
        let header = object(header)?;
        header.contains("alg").then_some(())?;
        Some(Self {
            claims: object(payload)?,
            header,
        })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.claims.contains(name)
    }

    /// The value of a string claim; empty if the claim is absent or has another type.
    pub(super) fn claim(&self, name: &str) -> &str {
        self.claims.text(name).unwrap_or_default()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.header.text(name).unwrap_or_default()
    }

    fn audiences(&self) -> Vec<String> {
        match self.claims.get("aud") {
            Ok(Some(Value::String(audience))) => vec![audience.clone()],
            Ok(Some(Value::Array(items))) => items
                .iter()
                .filter_map(|item| item.as_str().map(str::to_owned))
                .collect(),
            _ => Vec::new(),
        }
    }

    pub(super) fn finding(&self, place: &CredentialSource) -> Finding {
        let iss = self.claim("iss");
        let issued = PROVIDERS.iter().find(|provider| provider.has_issued(iss));
        let provider = issued.or_else(|| PROVIDERS.iter().find(|provider| (provider.shaped)(self)));
        let preset = provider.map(|provider| provider.preset);
        let page = provider.map_or("docs/providers/jwt.md", |provider| provider.page);
        let product = match provider {
            Some(provider) => format!("a JWT of {}", provider.name),
            None if self.is_hmac() => "a JWT that the app signs itself".to_owned(),
            None => "a JWT".to_owned(),
        };
        // Without `sub`, a token of an unknown provider may identify an app or a service instead of a user, so the
        // finding is not `Certain`.
        let is_own = provider.is_none() && self.is_hmac() && self.has("sub");
        let confidence = if issued.is_some() || is_own {
            Certain
        } else {
            Likely
        };
        let mut subjects = candidates(&Value::Object(self.claims.clone()));
        // `uid` identifies the user in Okta's tokens. `oid` identifies the user only in Entra ID's tokens.
        if preset == Some("okta") && self.has("uid") {
            subjects.retain(|subject| subject != "{uid}");
            subjects.insert(0, "{uid}".to_owned());
        } else if preset != Some("entra") {
            subjects.retain(|subject| subject != "{oid}");
        }
        Finding::new(product, confidence, page, [self.draft(preset, place)]).showing(subjects)
    }

    fn is_hmac(&self) -> bool {
        jwt_form::is_hmac(self.header("alg")) == Some(true)
    }

    fn draft(&self, preset: Option<&'static str>, place: &CredentialSource) -> Draft {
        let mut draft = with_place(Draft::new("jwt").preset(preset), preset, place);
        let (issuer, audiences) = (self.claim("iss"), self.audiences());
        let algorithm = self.header("alg");
        if self.is_hmac() {
            draft = draft
                .key("algorithms", vec![algorithm])
                .secret("secret", "the secret that signs the JWTs");
            if !issuer.is_empty() {
                draft = draft.key("issuers", vec![issuer]);
            }
        } else if preset.is_none() {
            draft = if issuer.starts_with("https://") {
                draft.key("oidc_issuer", issuer)
            } else {
                // If the issuer is not an https URL, the app itself probably publishes the keys.
                let server = Url::parse(issuer).ok().filter(Url::has_host).map_or_else(
                    || APP.to_owned(),
                    |url| public_origin(&url) + url.path().trim_end_matches('/'),
                );
                let draft = draft.example(
                    "jwks_url",
                    format!("{server}/.well-known/jwks.json"),
                    "the URL of the public keys; or set public_key_file",
                );
                draft.key("issuers", vec![issuer])
            };
            draft = draft.key("algorithms", vec![algorithm]);
        } else if preset != Some("google-iap") {
            draft = draft.key("issuers", vec![issuer]);
        }
        self.rules(draft, preset, audiences)
    }

    /// Adds the keys whose values come from the token: `audiences` or `allow_any_audience`, the `claims` and
    /// `header_claims` that identify the app, and `jwks_url` for some presets.
    fn rules(&self, draft: Draft, preset: Option<&str>, audiences: Vec<String>) -> Draft {
        let rule =
            |name: &str, value: Toml| Toml::Table(Table::from_iter([(name.to_owned(), value)]));
        let list = |text: &str| Toml::from(vec![text]);
        match preset {
            Some("clerk") => match self.claim("azp") {
                "" => draft,
                azp => draft.key("claims", rule("azp", list(azp))),
            },
            Some("workos") if issuer_ends_in_client(self.claim("iss")) => draft,
            Some("workos") => {
                let client = match self.claim("client_id") {
                    "" => "client_CLIENT",
                    client => client,
                };
                let keys = format!("https://api.workos.com/sso/jwks/{client}");
                draft.example("jwks_url", keys, "with your client id")
            }
            // The audience is omitted, because it is the preset's default.
            Some("supabase") if audiences == ["authenticated"] => draft,
            Some("aws-alb") => {
                let signer = self.header("signer");
                let region = signer.split(':').nth(3).unwrap_or("eu-west-1");
                let keys = format!("https://public-keys.auth.elb.{region}.amazonaws.com/{{kid}}");
                draft
                    .key("jwks_url", keys)
                    .key("header_claims", rule("signer", Toml::from(signer)))
            }
            Some("cognito") if self.claim("token_use") == "id" => {
                let mut claims = Table::new();
                claims.insert("token_use".to_owned(), Toml::from("id"));
                claims.insert("username".to_owned(), rule("any", Toml::from(true)));
                draft
                    .key("audiences", audiences)
                    .key("claims", Toml::Table(claims))
            }
            Some("cognito") => {
                draft.key("claims", rule("client_id", list(self.claim("client_id"))))
            }
            Some("firebase") if matches_glob(FIREBASE_SESSIONS, self.claim("iss")) => {
                draft.key("audiences", audiences).key(
                    "jwks_url",
                    "https://www.googleapis.com/identitytoolkit/v3/relyingparty/publicKeys",
                )
            }
            _ if audiences.is_empty() => draft.key("allow_any_audience", true),
            _ => {
                // Auth0 may add its own userinfo endpoint to the audiences of an API's tokens.
                let mut own = audiences.clone();
                own.retain(|audience| !audience.ends_with("/userinfo"));
                let draft = draft.key("audiences", if own.is_empty() { audiences } else { own });
                match self.claim("azp") {
                    azp if preset == Some("keycloak") && !azp.is_empty() => {
                        draft.key("claims", rule("azp", list(azp)))
                    }
                    _ => draft,
                }
            }
        }
    }
}

/// Adds `from`, unless the preset or the kind reads this place by default.
fn with_place(draft: Draft, preset: Option<&str>, place: &CredentialSource) -> Draft {
    let usual = match preset {
        Some("clerk") => &["header:authorization", "cookie:__session"][..],
        Some("cloudflare-access") => &["header:cf-access-jwt-assertion", "cookie:CF_Authorization"],
        Some("google-iap") => &["header:x-goog-iap-jwt-assertion"],
        Some("aws-alb") => &["header:x-amzn-oidc-data"],
        _ => &["header:authorization"],
    };
    let place = place.to_string();
    if usual.contains(&place.as_str()) {
        draft
    } else {
        draft.key("from", vec![place])
    }
}

/// Whether the issuer ends in a client id. From such an issuer, the preset `workos` derives the URL of the keys.
fn issuer_ends_in_client(issuer: &str) -> bool {
    let last = issuer.rsplit('/').next();
    last.is_some_and(|last| last.starts_with("client_"))
}

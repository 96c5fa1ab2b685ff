//! Recognises the provider of a JWT by the issuer or, if the issuer is the app's own domain, by header parameters and
//! claims that are typical of the provider.

use super::tokens::Token;
use crate::session::formats::glob::matches_glob;

/// A provider, the rules that recognise its tokens, and its documentation page.
pub(super) struct Provider {
    pub(super) preset: &'static str,
    pub(super) name: &'static str,
    pub(super) page: &'static str,
    /// Globs that match the provider's issuers: the whole URL if the glob begins with `https://`, otherwise the host.
    issuers: &'static [&'static str],
    /// Whether the header and claims are typical of the provider, even if the issuer is the app's own domain.
    pub(super) shaped: fn(&Token) -> bool,
}

pub(super) const PROVIDERS: [Provider; 12] = [
    Provider {
        preset: "clerk",
        name: "Clerk",
        page: "docs/providers/clerk.md",
        issuers: &["*.clerk.accounts.dev"],
        shaped: |token| {
            token.header("kid").starts_with("ins_")
                || (token.claim("sid").starts_with("sess_")
                    && token.claim("sub").starts_with("user_"))
        },
    },
    Provider {
        preset: "supabase",
        name: "Supabase",
        page: "docs/providers/supabase.md",
        issuers: &["*.supabase.co", "*.supabase.in"],
        shaped: |token| {
            token.claim("iss").ends_with("/auth/v1")
                || (token.has("aal") && token.has("app_metadata") && token.has("user_metadata"))
        },
    },
    Provider {
        preset: "firebase",
        name: "Firebase",
        page: "docs/providers/firebase.md",
        issuers: &["https://securetoken.google.com/*", FIREBASE_SESSIONS],
        shaped: |token| token.has("firebase") && token.has("user_id"),
    },
    Provider {
        preset: "cognito",
        name: "Amazon Cognito",
        page: "docs/providers/cognito.md",
        issuers: &["cognito-idp.*.amazonaws.com*"],
        shaped: |token| token.has("token_use") && token.has("origin_jti"),
    },
    Provider {
        preset: "entra",
        name: "Microsoft Entra ID",
        page: "docs/providers/entra.md",
        issuers: &[
            "login.microsoftonline.com",
            "sts.windows.net",
            "login.microsoftonline.us",
            "*.ciamlogin.com",
            "*.b2clogin.com",
        ],
        shaped: |token| token.has("oid") && token.has("tid") && token.has("ver"),
    },
    Provider {
        preset: "google-iap",
        name: "Google Identity-Aware Proxy",
        page: "docs/providers/edge.md",
        issuers: &["https://cloud.google.com/iap"],
        shaped: |_| false,
    },
    Provider {
        preset: "cloudflare-access",
        name: "Cloudflare Access",
        page: "docs/providers/edge.md",
        issuers: &["*.cloudflareaccess.com"],
        shaped: |token| token.has("identity_nonce"),
    },
    Provider {
        preset: "aws-alb",
        name: "an AWS Application Load Balancer",
        page: "docs/providers/edge.md",
        issuers: &[],
        shaped: |token| token.header("signer").contains(":elasticloadbalancing:"),
    },
    Provider {
        preset: "workos",
        name: "WorkOS AuthKit",
        page: "docs/providers/workos.md",
        issuers: &["api.workos.com"],
        shaped: |token| {
            token.claim("sid").starts_with("session_") && token.claim("sub").starts_with("user_")
        },
    },
    Provider {
        preset: "auth0",
        name: "Auth0",
        page: "docs/providers/auth0.md",
        issuers: &["*.auth0.com"],
        // `sub` is `CONNECTION|ID`. The issuer ends in a slash, even for a custom domain.
        shaped: |token| {
            token.claim("iss").ends_with('/')
                && token.claim("sub").contains('|')
                && (token.has("azp") || token.has("client_id"))
        },
    },
    Provider {
        preset: "okta",
        name: "Okta",
        page: "docs/providers/okta.md",
        issuers: &["*.okta.com", "*.oktapreview.com", "*.okta-emea.com"],
        shaped: |token| token.has("cid") && token.has("uid") && token.has("scp"),
    },
    Provider {
        preset: "keycloak",
        name: "Keycloak",
        page: "docs/providers/keycloak.md",
        issuers: &[],
        shaped: |token| {
            let names_realm = token.claim("iss").contains("/realms/");
            names_realm && (token.has("typ") || token.has("realm_access") || token.has("azp"))
        },
    },
];

/// The issuer in session cookies of the Firebase Admin SDK, which ends in the project's id.
pub(super) const FIREBASE_SESSIONS: &str = "https://session.firebase.google.com/*";

impl Provider {
    pub(super) fn has_issued(&self, issuer: &str) -> bool {
        let host = host(issuer).unwrap_or_default();
        self.issuers.iter().any(|glob| {
            let text = if glob.starts_with("https://") {
                issuer
            } else {
                host
            };
            matches_glob(glob, text)
        })
    }
}

fn host(issuer: &str) -> Option<&str> {
    let rest = issuer.strip_prefix("https://")?;
    rest.split(['/', ':']).next()
}

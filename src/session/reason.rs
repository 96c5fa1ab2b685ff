//! The reasons why a request gets no token, for logs, metrics, traces and `explain`. Callers receive only codes, which
//! are defined in `http::error`. The table in `docs/errors.md` is generated from the table in this file.

use std::fmt;

/// One row for each reason: its variant, its name, and what it means.
macro_rules! reasons {
    ($($variant:ident $name:literal $meaning:literal,)+) => {
        /// Why a request gets no token.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Reason {
            $(#[doc = $meaning] $variant,)+
            /// A reason of an extractor outside this crate: a stable name in snake case.
            Custom(&'static str),
        }

        impl Reason {
            /// All built-in reasons, each with its meaning.
            pub const ALL: &[(Self, &str)] = &[$((Self::$variant, $meaning),)+];

            /// The stable name.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                    Self::Custom(name) => name,
                }
            }
        }
    };
}

reasons! {
    NoCredential "no_credential" "No extractor found a credential.",
    NoSubject "no_subject" "The session's value at the path in `subject` is missing, null or 0, for example because the visitor is a guest.",

    Expired "expired" "The session has expired.",
    SessionOver "session_over" "`token.cap_to_session` is true, and the session has already ended, so a token would have no lifetime.",
    NotYetValid "not_yet_valid" "The session is not valid yet. Check that the issuer's clock and this machine's clock agree.",
    FromTheFuture "from_the_future" "The session's issue time is in the future, or, with `laravel`, its expiry time is later than `lifetime` allows. Check that the issuer's clock and this machine's clock agree, and that `lifetime` has the app's value.",
    Exp "exp" "The claim `exp` is missing, repeated, not a number, or out of range.",
    Nbf "nbf" "The claim `nbf` is repeated, not a number, or out of range.",
    Iat "iat" "The claim `iat` is repeated, not a number, or out of range.",

    BadSignature "bad_signature" "The signature does not match the configured keys. The app's secret was changed, another secret is configured here, or the credential was changed.",
    BadSeal "bad_seal" "The configured keys do not decrypt the cookie. The app's secret was changed, another secret is configured here, or the cookie was changed.",
    UnknownKey "unknown_key" "The token names a key that is not in the key set, or the API key is not one of `keys`.",
    Malformed "malformed" "The credential, or the backend's answer, does not have the expected form.",
    PayloadNotJson "payload_not_json" "The session is not in the expected format (JSON, unless the section sets another one); it may be in the format of Python's pickle or Ruby's Marshal.",
    PayloadNotPlain "payload_not_plain" "The session is not an array, in PHP's serialization format or in JSON.",
    Header "header" "The token's header has a parameter that is refused: `crit`, `zip`, or `b64` other than true.",
    DuplicateMember "duplicate_member" "A JSON member that the subject needs occurs twice.",

    NotAJwt "not_a_jwt" "The credential is not a JWT, and no other section accepts it.",
    SignedJwt "signed_jwt" "The credential is a JWT, but the section expects another kind of credential, and no other section accepts it.",
    AlgNotAllowed "alg_not_allowed" "The token's `alg` is not in `algorithms`.",
    TokenType "token_type" "The token's type is not in `token_types`.",
    SenderConstrained "sender_constrained" "The token is bound to a key that its sender holds (`cnf`); presenting it as a bearer token does not prove possession of that key. With the kind `jwt`, set `allow_sender_constrained = true` to accept it.",
    Issuer "issuer" "The token's `iss` is not in `issuers`.",
    Tenant "tenant" "The token's `tid` is not in `tenants`, or is not the tenant in its `iss`.",
    Audience "audience" "The token's `aud` is not in `audiences`.",
    ClientId "client_id" "The token was issued to an app that is not in `client_ids`.",
    Claim "claim" "A claim or header parameter does not satisfy its rule in `claims`, `header_claims` or the preset.",
    Scope "scope" "The token lacks a scope that `required_scopes` lists.",

    Inactive "inactive" "The issuer's introspection response does not contain `active: true`.",
    SignedOut "signed_out" "The app answered that the caller is not signed in.",
    SessionNotFound "session_not_found" "The store has no session with this id.",
    SessionCorrupt "session_corrupt" "The value in the store is not a session, or is longer than 1 MiB.",
    PasswordChanged "password_changed" "The user's password was changed after the session was created.",
    UserNotFound "user_not_found" "The session's user does not exist, or `user_query` excludes the user.",

    Unsigned "unsigned" "The signature, or the cookie that contains it, is missing.",
    MissingPart "missing_part" "A chunk of the cookie is missing.",
    TooManyParts "too_many_parts" "The cookie has too many chunks.",
    TooLarge "too_large" "The credential, or the backend's answer, is longer than the limit.",
    AmbiguousIdentity "ambiguous_identity" "Two cookies or headers name different identities, or the request has a second header whose name differs from the identity header's name only in `-`, `_` and `.`, or the identity header is empty, repeated, not UTF-8 or a list.",
    DuplicateHeader "duplicate_header" "The header that contains the credential occurs more than once.",
    CookieName "cookie_name" "The value was encrypted for a cookie with another name.",
    Purpose "purpose" "The value was signed or encrypted for another purpose, or names no purpose.",
    SessionId "session_id" "The session id is malformed.",
    NoSessionCookie "no_session_cookie" "The cookie that contains the session data is missing.",

    UntrustedPeer "untrusted_peer" "The identity header did not come from a trusted proxy.",
    SharedSecret "shared_secret" "The proxy's shared secret is wrong, missing or repeated, or `Connection` lists its header.",
    HopByHop "hop_by_hop" "The header `Connection` lists the identity header, so proxies remove that header.",
    SubjectNotAllowed "subject_not_allowed" "The requested subject matches no entry in `allowed_subjects`.",
    SubjectBlank "subject_blank" "The subject is empty or blank.",
    SubjectType "subject_type" "The value for the subject is neither a string nor an integer.",
    SubjectTooLong "subject_too_long" "The subject is longer than 256 bytes.",
    SubjectCharacters "subject_characters" "The subject has control, bidirectional or zero-width characters.",
    SubjectAmbiguous "subject_ambiguous" "Another user's values could produce the same subject: see [Choose the subject](choosing.md#choose-the-subject).",
    EmailUnverified "email_unverified" "The subject is an `email` that the provider does not mark as verified: see [Choose the subject](choosing.md#choose-the-subject).",
    ClaimDuplicateMember "claim_duplicate_member" "The session value for a claim of `[token.claims]` has two members with the same name.",
    ClaimUnwritable "claim_unwritable" "A claim of `[token.claims]` cannot be written as JSON.",
    ClaimsTooLarge "claims_too_large" "The claims make the token longer than 4 KiB.",

    OriginNotListed "origin_not_listed" "The page's origin is neither in `origins.allowed` nor the service's own.",
    OriginIsNotHost "origin_is_not_host" "The page's origin is not in `origins.allowed`, and its host and port are not those of `Host`. The browser sent no `Sec-Fetch-Site`, which browsers omit over plain http: see [403 although the origin is right](#403-although-the-origin-is-right).",
    NullOrigin "null_origin" "The page's origin is `null`, as in a sandboxed frame, in a local file, or after a redirect across origins.",
    TwoOrigins "two_origins" "There are two `Origin` headers.",
    CrossSite "cross_site" "A page of another site caused the request, and the browser sent no `Origin`, as for a link, an image or a GET without CORS.",
    SameSite "same_site" "A page of another origin on the same site caused the request, and the browser sent no `Origin`.",
    SecFetchSite "sec_fetch_site" "`Sec-Fetch-Site` is repeated or has an unknown value.",
    GetWithoutOrigin "get_without_origin" "A GET under `server.docs_alias` has neither a browser's same-origin `Sec-Fetch-Site`, nor a listed `Origin`, nor a bearer token. Over plain http, browsers send neither header with a same-origin GET: use POST or https.",
    PreflightHeader "preflight_header" "A preflight from a listed origin requested a header that is not allowed: add it to `origins.allowed_headers`.",
    PreflightMethod "preflight_method" "A preflight from a listed origin requested a method that the path does not accept.",
    Navigation "navigation" "A browser navigated to the path, also in a frame, or submitted a form to it.",
    Embedded "embedded" "A browser loaded the path as an image, a script or similar.",

    DocsAliasOff "docs_alias_off" "The path `/rollout-token` is served only if `server.docs_alias` is true.",
    OtherListener "other_listener" "The path is served on the other listener: `/metrics` on `server.admin_listen`, and the paths for apps on `server.listen`.",
    TrailingSlash "trailing_slash" "The path is one of the service's paths followed by `/`. A framework or proxy, such as Next.js with `trailingSlash`, adds the slash.",
    PathPrefix "path_prefix" "The path ends with one of the service's paths, but the part before it is not `server.base_path`.",

    Host "host" "The `Host` header is malformed.",
    NoHost "no_host" "There is no `Host` header.",
    TwoHosts "two_hosts" "There are two `Host` headers.",
    AbsoluteTarget "absolute_target" "The request target is an absolute URL.",
    Fragment "fragment" "The request target contains a `#`.",
    TransferEncoding "transfer_encoding" "The request has a `Transfer-Encoding` other than exactly `chunked`, both `Transfer-Encoding` and `Content-Length`, or a `TE` that contains `chunked`.",
    ContentLength "content_length" "The `Content-Length` is not a single number.",
    BrokenBody "broken_body" "The request's body is incomplete, or its chunks are malformed.",
    RequestTimeout "request_timeout" "The request's body did not arrive within `server.body_timeout`.",
    BodyTooLarge "body_too_large" "The body is longer than `server.max_body_bytes`.",
    UriTooLong "uri_too_long" "The path and the query together are longer than `server.max_uri_bytes`.",
    HeadersTooLarge "headers_too_large" "The request has more headers than `server.max_headers`, or more bytes of headers than `server.max_header_bytes`.",
    HostNotAllowed "host_not_allowed" "The `Host` of a request to `dev` is not a loopback host.",
    NotFound "not_found" "There is no route at this path.",
    MethodNotAllowed "method_not_allowed" "The path does not accept the request's method.",

    RateLimited "rate_limited" "More tokens were requested with the credential, or for the subject, than `[rate_limit]` allows.",
    Overloaded "overloaded" "`server.max_in_flight` requests are in flight.",
    DeadlineExceeded "deadline_exceeded" "The request was not handled within `server.request_timeout`.",
    ClockNotSet "clock_not_set" "The machine's clock is set to a time before 2020, so a token's times would be wrong.",
    Internal "internal" "A bug: an unexpected failure, or a panic that was caught.",
    Draining "draining" "Only for `/readyz`, whose failures are not logged: the instance is shutting down.",
    Waiting "waiting" "Only for `/readyz`, whose failures are not logged: an extractor lacks data that it needs.",

    JwksUnavailable "jwks_unavailable" "The provider's keys could not be fetched.",
    JwksBusy "jwks_busy" "`max_waiting` requests wait for the provider's keys, or, with `{kid}` in `jwks_url`, more than 50 keys were looked up in one second.",
    NoUsableKey "no_usable_key" "Only for calls to a provider: none of the provider's keys can be used. The reason for the request is `jwks_unavailable`.",
    Discovery "discovery" "Only for calls to a provider: its discovery document is not JSON, is for another issuer, or has no acceptable `jwks_uri`. The reason for the request is `jwks_unavailable`.",
    Status "status" "The backend answered with an unexpected status: for a session, one that means neither \"signed in\" nor \"not signed in\".",
    Timeout "timeout" "The backend did not answer in time.",
    Unreachable "unreachable" "The service could not connect to the backend, or the connection failed.",
    Interrupted "interrupted" "The call to the backend, or the derivation of keys (`iron_session`), was aborted before it ended.",
    BackendBusy "backend_busy" "`max_waiting` requests wait for the backend (with `iron_session`: for the derivation of keys), or too many calls to the backend are in flight.",
    WrongUrl "wrong_url" "The app's endpoint answered 301, 308, 404 or 405, redirected to the same path over https or with the trailing slash added or removed, or answered 302, 303 or 307 although the section's `signed_out` does not list this status. The log line contains the status and the `Location`. Fix `url` or `method`, configure the app to trust `X-Forwarded-Proto`, or, if this status means that the caller is not signed in, add it to `signed_out`.",
    IntrospectionClientRejected "introspection_client_rejected" "The issuer refuses the section's `client_id` and `client_secret`.",
    StoreUnreachable "store_unreachable" "The service cannot connect to the store.",
    StoreTimeout "store_timeout" "The store did not answer in time.",
    StoreBusy "store_busy" "No connection to the store became free in time, or `max_waiting` requests wait for the store.",
    StoreRefused "store_refused" "The store refused the login or the query. The log has the error's code, and its message if the message cannot contain a secret or a value of a row.",
    StoreAmbiguous "store_ambiguous" "The query returns several rows.",
    StoreMisfit "store_misfit" "The query's columns differ from what the section expects.",
}

impl Reason {
    /// Whether the session was valid and has expired, so that the page has to renew it or the user has to sign in.
    pub const fn is_expired(self) -> bool {
        matches!(self, Self::Expired | Self::SessionOver)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl PartialEq<&str> for Reason {
    fn eq(&self, name: &&str) -> bool {
        self.as_str() == *name
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Reason;

    #[test]
    fn reason_names_are_unique_and_in_snake_case() {
        let names: BTreeSet<&str> = Reason::ALL
            .iter()
            .map(|(reason, _)| reason.as_str())
            .collect();
        assert_eq!(names.len(), Reason::ALL.len());
        for name in names {
            let is_snake = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            assert!(name.bytes().all(is_snake), "{name}");
        }
    }
}

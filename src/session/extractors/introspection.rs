//! `introspection`: an opaque bearer token, about which its issuer is asked (RFC 7662).
//! Calls are made and shared in `shared/`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use reqwest::{Body, Method, Request};
use serde::{Deserialize, Serialize};
use url::form_urlencoded;

use crate::clock::{Clock, UnixSeconds};
use crate::config::{HumanDuration, List, Problems, Section};
use crate::json::{Object, Value};
use crate::secret::Secret;
use crate::session::backends::Context;
use crate::session::backends::endpoint::{self, Endpoint};
use crate::session::backends::http::Answer;
use crate::session::backends::lookup::{Lookups, MAX_CREDENTIAL, Outcome, Question, Verdict};
use crate::session::backends::waiting::Waiting;
use crate::session::credential_source;
use crate::session::formats::jwt_form;
use crate::session::kind::Kind;
use crate::session::sections::claims::{ClaimRules, check_required_scopes, check_scopes};
use crate::session::types::{
    Authority, CredentialSource, ExtractError, Extracted, Reach, Readiness, Session,
    SessionExtractor,
};
use crate::telemetry::spans;

pub const KIND: Kind = Kind {
    build,
    subject: "{sub}",
    presets: PRESETS,
};

/// What is known about issuers, as keys that a section need not write.
const PRESETS: &[(&str, &str)] = &[(
    // A service account has a user name of this form, and the address that it came from.
    "keycloak",
    r#"
        [claims]
        username = { unlike = "service-account-*" }
        preferred_username = { unlike = "service-account-*" }
        clientHost = { absent = true }
        clientAddress = { absent = true }
    "#,
)];

/// The longest time for which "not active" is kept: such a token may become active.
const INACTIVE_TTL: Duration = Duration::from_secs(5);

/// How far the issuer's clock may be ahead of ours. A token's end knows no grace.
const LEEWAY: UnixSeconds = 30;

/// `[extractors.NAME]` with `kind = "introspection"`
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct IntrospectionConfig {
    url: Option<String>,
    client_id: Option<String>,
    client_secret: Option<Secret>,
    client_secret_file: Option<PathBuf>,
    from: List<String>,
    required_scopes: List<String>,
    issuers: List<String>,
    audiences: List<String>,
    client_ids: List<String>,
    allow_any_client: bool,
    token_types: List<String>,
    claims: ClaimRules,
    timeout: HumanDuration,
    connect_timeout: HumanDuration,
    cache_ttl: HumanDuration,
    max_waiting: Option<usize>,
    allow_http: bool,
}

impl Default for IntrospectionConfig {
    fn default() -> Self {
        Self {
            url: None,
            client_id: None,
            client_secret: None,
            client_secret_file: None,
            from: List::of(&["header:authorization"]),
            required_scopes: List::default(),
            issuers: List::default(),
            audiences: List::default(),
            client_ids: List::default(),
            allow_any_client: false,
            token_types: List::of(&["Bearer", "access_token", "access", "at+jwt", "JWT"]),
            claims: ClaimRules::default(),
            timeout: HumanDuration::secs(2),
            connect_timeout: HumanDuration::millis(300),
            cache_ttl: HumanDuration::secs(0),
            max_waiting: None,
            allow_http: false,
        }
    }
}

#[derive(Debug)]
struct Introspection {
    places: Vec<CredentialSource>,
    issuer: Arc<Issuer>,
    lookups: Lookups,
}

/// Whom we ask, as whom, and what a token must have to be good.
#[derive(Debug)]
struct Issuer {
    extractor: Arc<str>,
    endpoint: Endpoint,
    /// `Basic …`, marked as sensitive.
    authorization: HeaderValue,
    required_scopes: Vec<String>,
    /// Allowed values; an empty list allows all, also none.
    issuers: Vec<String>,
    audiences: Vec<String>,
    client_ids: Vec<String>,
    token_types: Vec<String>,
    claims: ClaimRules,
    clock: Clock,
}

fn build(section: &Section<'_>, context: &Context) -> Result<Arc<dyn SessionExtractor>, Problems> {
    let mut problems = Problems::default();
    let config: IntrospectionConfig = section.read(&mut problems);
    let keys = endpoint::Keys {
        url: config.url.as_deref(),
        timeout: config.timeout,
        connect_timeout: config.connect_timeout,
        cache_ttl: config.cache_ttl,
        longest_cache_ttl: HumanDuration::secs(60),
        is_repeatable: true,
        allow_http: config.allow_http,
    };
    let endpoint = Endpoint::new(section, context, keys, &mut problems);
    let waiting = Waiting::read(section, context, config.max_waiting, &mut problems);
    problems.require(
        !config.from.is_empty(),
        section.key("from"),
        "names no place to look for a token",
    );
    let places = config.from.iter().map(|text| text.parse());
    let places = places
        .filter_map(|place| problems.accept(section.key("from"), place))
        .collect();
    check_clients(section, &config, &mut problems);
    let id = config.client_id.unwrap_or_default();
    problems.require(
        !id.is_empty(),
        section.key("client_id"),
        "is missing: the issuer answers only clients that it knows (RFC 7662, section 2.1)",
    );
    let file = config.client_secret_file.as_ref();
    let is_given = config.client_secret.is_some() || file.is_some();
    problems.require(
        is_given,
        section.key("client_secret"),
        "is missing: give it, or client_secret_file",
    );
    let secret = section.secret("client_secret", config.client_secret, file, &mut problems);
    let authorization = secret.and_then(|secret| basic(&id, &secret));
    let (Some(endpoint), Some(authorization), true) =
        (endpoint, authorization, problems.is_empty())
    else {
        return Err(problems);
    };
    let issuer = Issuer {
        extractor: Arc::from(section.name()),
        endpoint,
        authorization,
        required_scopes: config.required_scopes.0,
        issuers: config.issuers.0,
        audiences: config.audiences.0,
        client_ids: config.client_ids.0,
        token_types: config.token_types.0,
        claims: config.claims,
        clock: context.clock.clone(),
    };
    let lookups = Lookups::new(section.name(), context, waiting);
    Ok(Arc::new(Introspection {
        places,
        issuer: Arc::new(issuer),
        lookups,
    }))
}

/// An issuer knows tokens of all its apps, so a section says which of them count.
fn check_clients(section: &Section<'_>, config: &IntrospectionConfig, problems: &mut Problems) {
    let lists = [
        ("audiences", &config.audiences),
        ("client_ids", &config.client_ids),
        ("required_scopes", &config.required_scopes),
        ("issuers", &config.issuers),
        ("token_types", &config.token_types),
    ];
    for (key, list) in lists {
        problems.require(
            list.iter().all(|item| !item.is_empty()),
            section.key(key),
            "must not hold empty text",
        );
    }
    problems.accept(
        section.key("required_scopes"),
        check_required_scopes(&config.required_scopes),
    );
    let is_limited = lists[..3].iter().any(|(_, list)| !list.is_empty());
    problems.require(
        is_limited || config.allow_any_client,
        section.key("client_ids"),
        "must name your apps, so that tokens given to other apps of the issuer are refused (or audiences, or \
         required_scopes, or allow_any_client = true)",
    );
    problems.require(
        !(is_limited && config.allow_any_client),
        section.key("allow_any_client"),
        "contradicts audiences, client_ids and required_scopes: keep one side",
    );
}

/// Client authentication by Basic; both halves are form-encoded first (RFC 6749, section 2.3.1).
fn basic(id: &str, secret: &Secret) -> Option<HeaderValue> {
    let encode = |bytes| form_urlencoded::byte_serialize(bytes).collect::<String>();
    let pair = format!("{}:{}", encode(id.as_bytes()), encode(secret.expose()));
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl SessionExtractor for Introspection {
    fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted> {
        let found = match credential_source::find(&self.places, request) {
            Ok(Some(found)) => found,
            Ok(None) => return ready(Ok(None)).boxed(),
            Err(error) => return ready(Err(error)).boxed(),
        };
        if let Err(error) = self.issuer.check_form(&found) {
            return ready(Err(error)).boxed();
        }
        let token = found.text;
        if token.len() > MAX_CREDENTIAL {
            return ready(Err(ExtractError::rejected("too_large"))).boxed();
        }
        async move {
            let call = || {
                let (issuer, mut call) = (self.issuer.clone(), self.issuer.request(&token));
                spans::pass_on(&request.headers, &mut call);
                async move { issuer.ask(call).await }
            };
            let whom = [
                self.issuer.extractor.as_bytes(),
                self.issuer.endpoint.url.as_str().as_bytes(),
            ];
            let question = Question::new(whom.into_iter().chain([token.as_bytes()]));
            self.lookups.ask(question, call).await.map(Some)
        }
        .boxed()
    }

    fn reach(&self) -> Reach {
        let issuers = &self.issuer.issuers;
        let authority = if issuers.is_empty() {
            vec![self.issuer.endpoint.url.as_str().to_owned()]
        } else {
            issuers.clone()
        };
        Reach {
            places: self.places.clone().into(),
            opaque: true,
            jwts_of: Some(issuers.clone()),
            hmac: None,
            authority: Some(Authority::Issuers(authority)),
        }
    }

    fn readiness(&self) -> Readiness {
        self.lookups.readiness()
    }
}

impl Issuer {
    /// A JWT of an issuer that is not in `issuers` is another's; without `issuers` any may be ours.
    fn check_form(&self, found: &credential_source::Found<'_>) -> Result<(), ExtractError> {
        if self.issuers.is_empty() {
            return Ok(());
        }
        let issuer = jwt_form::read(&found.text)?.and_then(|form| form.issuer);
        match issuer {
            Some(issuer) if !self.issuers.contains(&issuer) => {
                Err(ExtractError::not_mine("issuer", found.place)
                    .because(format!("iss is {issuer}")))
            }
            _ => Ok(()),
        }
    }

    /// RFC 7662, section 2.1.
    fn request(&self, token: &str) -> Request {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("token", token)
            .append_pair("token_type_hint", "access_token");
        let mut request = Request::new(Method::POST, self.endpoint.url.clone());
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::AUTHORIZATION, self.authorization.clone());
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        *request.body_mut() = Some(Body::from(form.finish()));
        request
    }

    async fn ask(&self, request: Request) -> Verdict {
        let mut verdict = self.endpoint.ask(request, |answer| self.read(answer)).await;
        if matches!(&verdict.outcome, Err(error) if *error == inactive()) {
            verdict.keep_for = INACTIVE_TTL.min(self.endpoint.cache_ttl());
        }
        verdict
    }

    fn read(&self, answer: &Answer) -> Outcome {
        match answer.status {
            StatusCode::OK => {}
            // It is our own client that the issuer refuses, which says nothing about the caller.
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                return Err(
                    ExtractError::unavailable("introspection_client_rejected").because(format!(
                        "the endpoint answered {}: check client_id and client_secret",
                        status.as_u16()
                    )),
                );
            }
            _ => return Err(endpoint::undecided(answer)),
        }
        let attributes = endpoint::json(answer)?;
        let Value::Object(claims) = &attributes else {
            return Err(
                ExtractError::unavailable("malformed").because("the answer is no JSON object")
            );
        };
        let expires_at = self.check(claims)?;
        Ok(Session {
            attributes,
            expires_at,
        })
    }

    /// Checks what the issuer says about the token (RFC 7662, section 2.2); gives its end.
    fn check(&self, claims: &Object) -> Result<Option<UnixSeconds>, ExtractError> {
        if member(claims, "active")? != Some(&Value::Bool(true)) {
            return Err(inactive());
        }
        self.check_type(claims)?;
        let now = self.clock.now();
        let end = time(claims, "exp")?;
        if end.is_some_and(|end| end <= now) {
            return Err(ExtractError::expired());
        }
        if time(claims, "nbf")?.is_some_and(|begin| begin > now.saturating_add(LEEWAY)) {
            return Err(ExtractError::rejected("not_yet_valid"));
        }
        check_any(&self.issuers, &texts(member(claims, "iss")?), "issuer")?;
        check_any(&self.audiences, &texts(member(claims, "aud")?), "audience")?;
        check_any(
            &self.client_ids,
            &texts(member(claims, "client_id")?),
            "client_id",
        )?;
        check_scopes(&self.required_scopes, claims)?;
        self.claims.check(claims)?;
        Ok(end)
    }

    /// Refresh and ID tokens are active too. Sender-constrained tokens (RFC 8705, RFC 9449) are refused: there is
    /// no proof of possession.
    fn check_type(&self, claims: &Object) -> Result<(), ExtractError> {
        let is_known = |text: &str| {
            self.token_types
                .iter()
                .any(|known| known.eq_ignore_ascii_case(text))
        };
        for name in ["token_type", "token_use", "typ"] {
            match member(claims, name)? {
                None | Some(Value::Null) => {}
                Some(Value::String(text)) if is_known(text) => {}
                Some(_) => {
                    return Err(ExtractError::rejected("token_type").because(format!("see {name}")));
                }
            }
        }
        match member(claims, "cnf")? {
            None | Some(Value::Null) => Ok(()),
            Some(_) => {
                Err(ExtractError::rejected("token_type").because("the token is bound to a key"))
            }
        }
    }
}

fn inactive() -> ExtractError {
    ExtractError::rejected("inactive").because("the issuer does not say that the token is active")
}

/// Whether one of `given` is allowed, if anything is asked of it.
fn check_any(allowed: &[String], given: &[&str], word: &'static str) -> Result<(), ExtractError> {
    if allowed.is_empty()
        || given
            .iter()
            .any(|given| allowed.iter().any(|allowed| allowed == given))
    {
        return Ok(());
    }
    Err(ExtractError::rejected(word).because(format!("the answer says {given:?}")))
}

/// One text or a list of texts; anything else is none.
fn texts(value: Option<&Value>) -> Vec<&str> {
    match value {
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
        Some(one) => one.as_str().into_iter().collect(),
        None => Vec::new(),
    }
}

/// A time in whole seconds, rounded down. One that is no number cannot be checked.
fn time(claims: &Object, name: &str) -> Result<Option<UnixSeconds>, ExtractError> {
    let malformed = || ExtractError::rejected("malformed").because(format!("{name} is no number"));
    match member(claims, name)? {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a cast from a float stops at the bounds"
            )]
            let rounded = number
                .as_f64()
                .map(|seconds| seconds.floor() as UnixSeconds);
            number.as_i64().or(rounded).map(Some).ok_or_else(malformed)
        }
        Some(_) => Err(malformed()),
    }
}

fn member<'a>(object: &'a Object, name: &str) -> Result<Option<&'a Value>, ExtractError> {
    let twice = |_| ExtractError::rejected("malformed").because(format!("{name} stands twice"));
    object.get(name).map_err(twice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::backends::Context;
    use crate::session::contract;
    use crate::session::registry::Registry;

    const SECRET: &str = "the-secret-of-our-client";
    const GOOD: &str =
        "url = \"http://127.0.0.1:9/introspect\"\nclient_id = \"us\"\nclient_ids = [\"app\"]\n";

    fn extractor(keys: &str) -> Result<Arc<dyn SessionExtractor>, Problems> {
        contract::build(
            &Registry::builtin(),
            "introspection",
            keys,
            &Context::for_tests(),
        )
    }

    #[tokio::test]
    async fn keeps_the_contract() {
        let extractor = extractor(&format!("{GOOD}client_secret = \"{SECRET}\"")).unwrap();
        contract::check(
            &*extractor,
            &[SECRET, &STANDARD.encode(format!("us:{SECRET}"))],
        )
        .await;
        let twice =
            contract::request(&[("authorization", "Bearer a"), ("authorization", "Bearer b")]);
        assert!(matches!(
            extractor.extract(&twice).await,
            Err(ExtractError::Rejected(_))
        ));
    }

    #[test]
    fn client_id_and_secret_are_form_encoded() {
        let value = basic("my client", &Secret::new("p:ss wörd+")).unwrap();
        let text = STANDARD
            .decode(value.to_str().unwrap().strip_prefix("Basic ").unwrap())
            .unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "my+client:p%3Ass+w%C3%B6rd%2B"
        );
        assert!(value.is_sensitive());
    }

    #[test]
    fn section_with_any_client_restriction_builds() {
        let without =
            format!("{GOOD}client_secret = \"{SECRET}\"\n").replace("client_ids", "# client_ids");
        for key in [
            "audiences = [\"us\"]",
            "client_ids = [\"app\"]",
            "required_scopes = [\"rollout\"]",
            "allow_any_client = true",
        ] {
            assert!(extractor(&format!("{without}{key}")).is_ok(), "{key}");
        }
    }

    #[test]
    fn invalid_section_is_refused_with_its_key() {
        let good = format!("{GOOD}client_secret = \"{SECRET}\"\n");
        for (case, keys, key) in [
            ("no URL", good.replace("url", "# url"), "url"),
            ("http", good.replace("127.0.0.1", "id.example"), "url"),
            (
                "no client",
                good.replace("client_id =", "# client_id ="),
                "client_id",
            ),
            ("no secret", GOOD.to_owned(), "client_secret"),
            (
                "empty secret",
                format!("{GOOD}client_secret = \"\""),
                "client_secret",
            ),
            (
                "two secrets",
                format!("{good}client_secret_file = \"/nowhere\""),
                "client_secret",
            ),
            (
                "long cache",
                format!("{good}cache_ttl = \"61s\""),
                "cache_ttl",
            ),
            ("nowhere", format!("{good}from = []"), "from"),
            (
                "any client by default",
                good.replace("client_ids", "# client_ids"),
                "client_ids",
            ),
            (
                "an empty list",
                good.replace("[\"app\"]", "[]"),
                "client_ids",
            ),
            (
                "an empty name",
                good.replace("\"app\"", "\"\""),
                "client_ids",
            ),
            (
                "any client and some",
                format!("{good}allow_any_client = true"),
                "allow_any_client",
            ),
            (
                "two scopes in one",
                format!("{good}required_scopes = [\"a b\"]"),
                "required_scopes",
            ),
            (
                "a rule that nothing passes",
                format!("{good}claims.sub = {{ present = false }}"),
                "claims",
            ),
        ] {
            let problems = extractor(&keys).map(|_| ()).expect_err(case).to_string();
            assert!(
                problems.contains(&format!("extractors.introspection.{key}:")),
                "{case}: {problems}"
            );
            assert!(!problems.contains(SECRET), "{case}: {problems}");
        }
    }
}

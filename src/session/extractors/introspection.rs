//! `introspection`: a bearer token, usually opaque, that is validated by a call to its issuer (RFC 7662).
//! `backends/endpoint.rs` makes the calls; identical look-ups share one call (`backends/lookup.rs`).

use std::sync::Arc;
use std::time::Duration;

use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use reqwest::{Body, Method, Request};
use serde::{Deserialize, Serialize};
use url::form_urlencoded;

use crate::clock::{Clock, UnixSeconds};
use crate::config::{HumanDuration, List, Problems, PublicText, Section};
use crate::json::{Object, Value};
use crate::secret::Secret;
use crate::session::backends::Context;
use crate::session::backends::endpoint::{self, Endpoint};
use crate::session::backends::http::Answer;
use crate::session::backends::lookup::{LookupOutcome, Lookups, MAX_CREDENTIAL, Question, Verdict};
use crate::session::backends::waiting::Waiting;
use crate::session::credential_source;
use crate::session::formats::jwt_form;
use crate::session::formats::jwt_times::numeric_date;
use crate::session::formats::shown::differs;
use crate::session::kind::{BuildResult, Kind};
use crate::session::reason::Reason;
use crate::session::sections::claims::{ClaimRules, check_required_scopes, check_scopes};
use crate::session::types::{
    Authority, BackendCall, BackendReport, CredentialSource, ExtractError, Extracted, Reach,
    Readiness, Session, SessionExtractor,
};
use crate::telemetry::spans;

pub const KIND: Kind = Kind::new(build).with_presets(PRESETS);

/// Presets for issuers, which set defaults for the section's keys.
const PRESETS: &[(&str, &str)] = &[(
    // The token of a service account has a user name that begins with `service-account-`, and the claims `clientHost`
    // and `clientAddress`. Without the scopes `profile` and `service_account` these claims are missing, but such a
    // token has no user session (`sid`) either.
    "keycloak",
    r#"
        [claims]
        sid = { present = true }
        username = { unlike = "service-account-*" }
        preferred_username = { unlike = "service-account-*" }
        clientHost = { absent = true }
        clientAddress = { absent = true }
    "#,
)];

/// The maximum time for which the answer "not active" is cached. It is short, because the token may become active.
const INACTIVE_TTL: Duration = Duration::from_secs(5);

/// The tolerated clock skew of the issuer, in seconds. It applies to `nbf` only, not to `exp`.
const LEEWAY: UnixSeconds = 30;

/// The claims that name the type of a token.
const TYPE_CLAIMS: [&str; 3] = ["token_type", "token_use", "typ"];

/// `[extractors.NAME]` with `kind = "introspection"`
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct IntrospectionConfig {
    url: Option<String>,
    client_id: Option<String>,
    client_secret: Option<Secret>,
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
    proxy: Option<Secret>,
    no_proxy: Option<List<String>>,
    ca: Option<PublicText>,
    max_waiting: Option<usize>,
    allow_http: bool,
}

impl Default for IntrospectionConfig {
    fn default() -> Self {
        Self {
            url: None,
            client_id: None,
            client_secret: None,
            from: List::of(&["header:authorization"]),
            required_scopes: List::default(),
            issuers: List::default(),
            audiences: List::default(),
            client_ids: List::default(),
            allow_any_client: false,
            token_types: List::of(&["Bearer", "access_token", "access", "at+jwt", "JWT"]),
            claims: ClaimRules::default(),
            timeout: HumanDuration::secs(2),
            connect_timeout: endpoint::CONNECT_TIMEOUT,
            cache_ttl: HumanDuration::secs(0),
            proxy: None,
            no_proxy: None,
            ca: None,
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

/// The issuer's endpoint, the service's credentials there, and the requirements that a token must meet.
#[derive(Debug)]
struct Issuer {
    extractor: Arc<str>,
    endpoint: Endpoint,
    /// The value `Basic …` of the header `Authorization`, marked as sensitive.
    authorization: HeaderValue,
    required_scopes: Vec<String>,
    /// Accepted values of `iss`. If the list is empty, any value is accepted, and so is a missing claim. The same holds
    /// for `audiences` and `client_ids`.
    issuers: Vec<String>,
    audiences: Vec<String>,
    client_ids: Vec<String>,
    token_types: Vec<String>,
    claims: ClaimRules,
    clock: Clock,
}

fn build(section: &Section<'_>, context: &Context) -> BuildResult {
    let mut problems = Problems::default();
    let mut config: IntrospectionConfig = section.read(&mut problems);
    let context = &context.through(
        section,
        config.proxy.take(),
        config.no_proxy.take(),
        config.ca.take(),
        &mut problems,
    );
    let keys = endpoint::EndpointConfig {
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
    let places = credential_source::read_from(section, &config.from, &mut problems);
    check_clients(section, &config, &mut problems);
    check_rules(section, &config, &mut problems);
    let id = config.client_id.unwrap_or_default();
    problems.require(
        !id.is_empty(),
        section.key("client_id"),
        "is missing: set it to the client id under which this service is registered at the issuer",
    );
    let key = section.key("client_secret");
    problems.require(
        config.client_secret.is_some() || problems.are_about(&key),
        key,
        "is missing: set it, or client_secret_file",
    );
    let secret = section.secret("client_secret", config.client_secret, &mut problems);
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
    Ok(Arc::new(Introspection {
        places,
        issuer: Arc::new(issuer),
        lookups: Lookups::new(section.name(), context, waiting),
    }))
}

/// Requires the section to restrict the clients, because an issuer validates the tokens of all its apps.
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
            "must not contain an empty string",
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
        "is empty: name the clients of your apps, so that tokens of other apps are refused; or set audiences, or \
         required_scopes, or allow_any_client = true",
    );
    problems.require(
        !(is_limited && config.allow_any_client),
        section.key("allow_any_client"),
        "contradicts audiences, client_ids and required_scopes: remove either this key or those keys",
    );
}

/// Reports claim rules that no answer can satisfy, because another check refuses every answer that would satisfy them.
fn check_rules(section: &Section<'_>, config: &IntrospectionConfig, problems: &mut Problems) {
    let mut refuse = |is_impossible: bool, claim: &str| {
        problems.require(
            !is_impossible,
            section.key("claims"),
            format!("has a rule for {claim} that no answer can satisfy, because another check refuses every answer \
                 that would satisfy it: correct the rule or that check's key"),
        );
    };
    let rules = &config.claims;
    refuse(
        rules.contradict("active", false, |value| value == "true"),
        "active",
    );
    for (claim, list) in [("iss", &config.issuers), ("client_id", &config.client_ids)] {
        let is_listed = |value: &str| list.is_empty() || list.iter().any(|known| known == value);
        refuse(rules.contradict(claim, list.is_empty(), is_listed), claim);
    }
    refuse(
        rules.contradict("aud", config.audiences.is_empty(), |_| true),
        "aud",
    );
    for claim in TYPE_CLAIMS {
        let is_type = |value: &str| is_one_of(&config.token_types, value);
        refuse(rules.contradict(claim, true, is_type), claim);
    }
    refuse(rules.demand("cnf"), "cnf");
}

/// Whether the token type is listed, regardless of letter case.
fn is_one_of(token_types: &[String], value: &str) -> bool {
    token_types
        .iter()
        .any(|known| known.eq_ignore_ascii_case(value))
}

/// The `Basic` client authentication. The client id and the secret are form-encoded first (RFC 6749, section 2.3.1).
fn basic(id: &str, secret: &Secret) -> Option<HeaderValue> {
    let encode = |bytes| form_urlencoded::byte_serialize(bytes).collect::<String>();
    let pair = format!("{}:{}", encode(id.as_bytes()), encode(secret.expose()));
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl SessionExtractor for Introspection {
    fn extract<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Extracted> {
        Box::pin(async move {
            let Some(found) = credential_source::find(&self.places, request)? else {
                return Ok(None);
            };
            self.issuer.check_form(&found)?;
            let token = found.text;
            let length = token.len();
            if length > MAX_CREDENTIAL {
                let detail =
                    format!("the token has {length} bytes, and the limit is {MAX_CREDENTIAL}");
                return Err(ExtractError::rejected(Reason::TooLarge).because(detail));
            }
            let call = || {
                let (issuer, mut call) = (self.issuer.clone(), self.issuer.request(&token));
                spans::pass_on(&request.headers, &mut call);
                async move { issuer.ask(call).await }
            };
            let question = Question::new([
                self.issuer.extractor.as_bytes(),
                self.issuer.endpoint.url.as_str().as_bytes(),
                token.as_bytes(),
            ]);
            self.lookups.ask(question, call).await.map(Some)
        })
    }

    fn reach(&self) -> Reach {
        let issuers = &self.issuer.issuers;
        let authority = match issuers.as_slice() {
            [] => vec![self.issuer.endpoint.url.to_string()],
            issuers => issuers.to_vec(),
        };
        Reach {
            places: self.places.clone().into(),
            opaque: true,
            jwts_of: Some(issuers.clone()),
            authority: Some(Authority::Issuers(authority)),
            ..Reach::default()
        }
    }

    fn readiness(&self) -> Readiness {
        self.lookups.readiness()
    }

    fn backend(&self) -> Option<BackendCall> {
        Some(self.issuer.endpoint.call("introspection"))
    }

    fn probe(&self) -> BoxFuture<'_, Vec<BackendReport>> {
        Box::pin(async move {
            let asking = async {
                let request = self.issuer.request("rollout-token-doctor");
                match self.issuer.ask(request).await.outcome {
                    Err(ExtractError::Unavailable(cause)) => Err(cause.to_string()),
                    Err(error) => Ok(format!(
                        "{}, as expected for a made-up token",
                        error.reason()
                    )),
                    Ok(_) => Err("the issuer says that a made-up token is active".to_owned()),
                }
            };
            let backend = self.issuer.endpoint.call("introspection").backend;
            vec![BackendReport::of(backend, asking).await]
        })
    }
}

impl Issuer {
    /// Returns `NotMine` for a JWT whose issuer is not in `issuers`. If `issuers` is empty, every token is sent to the
    /// issuer.
    fn check_form(&self, found: &credential_source::Found<'_>) -> Result<(), ExtractError> {
        if self.issuers.is_empty() {
            return Ok(());
        }
        let issuer = jwt_form::read(&found.text)?.and_then(|form| form.issuer);
        match issuer {
            Some(issuer) if !self.issuers.contains(&issuer) => {
                let detail = differs("iss", [issuer], "issuers", &self.issuers);
                Err(ExtractError::not_mine(Reason::Issuer, found.place).because(detail))
            }
            _ => Ok(()),
        }
    }

    /// The introspection request (RFC 7662, section 2.1).
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
            verdict.keep_for = INACTIVE_TTL.min(self.endpoint.cache_ttl);
        }
        verdict
    }

    fn read(&self, answer: &Answer) -> LookupOutcome {
        match answer.status {
            StatusCode::OK => {}
            // The issuer rejects the service's own client credentials, which says nothing about the caller's token.
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                let status = status.as_u16();
                let detail =
                    format!("the endpoint answered {status}: check client_id and client_secret");
                let error = ExtractError::unavailable(Reason::IntrospectionClientRejected);
                return Err(error.because(detail));
            }
            _ => return Err(endpoint::undecided(answer)),
        }
        let attributes = endpoint::json(answer)?;
        let Value::Object(claims) = &attributes else {
            let error = ExtractError::unavailable(Reason::Malformed);
            return Err(error.because("the answer is not a JSON object"));
        };
        let expires_at = self.check(claims)?;
        Ok(Session {
            attributes,
            expires_at,
        })
    }

    /// Checks the issuer's answer about the token (RFC 7662, section 2.2), and returns the token's expiry.
    fn check(&self, claims: &Object) -> Result<Option<UnixSeconds>, ExtractError> {
        if member(claims, "active")? != Some(&Value::Bool(true)) {
            return Err(inactive());
        }
        self.check_type(claims)?;
        let now = self.clock.now();
        let expires_at = time(claims, "exp")?;
        if let Some(end) = expires_at.filter(|end| *end <= now) {
            return Err(ExtractError::expired_at(end, now));
        }
        let limit = now.saturating_add(LEEWAY);
        if let Some(start) = time(claims, "nbf")?.filter(|start| *start > limit) {
            let reason = Reason::NotYetValid;
            return Err(ExtractError::ahead(reason, "nbf", start, now, LEEWAY));
        }
        for (key, allowed, name, reason) in [
            ("issuers", &self.issuers, "iss", Reason::Issuer),
            ("audiences", &self.audiences, "aud", Reason::Audience),
            (
                "client_ids",
                &self.client_ids,
                "client_id",
                Reason::ClientId,
            ),
        ] {
            let given = texts(member(claims, name)?);
            let is_allowed = allowed.iter().any(|known| given.contains(&known.as_str()));
            if !allowed.is_empty() && !is_allowed {
                let found = differs(name, given, key, allowed);
                return Err(ExtractError::rejected(reason).because(found));
            }
        }
        check_scopes(&self.required_scopes, claims)?;
        self.claims.check(claims)?;
        Ok(expires_at)
    }

    /// Refuses a token that states a type outside `token_types`, because refresh and ID tokens can be active too. A
    /// token that states no type is accepted. Sender-constrained tokens (RFC 8705, RFC 9449) are refused, because there
    /// is no proof of possession.
    fn check_type(&self, claims: &Object) -> Result<(), ExtractError> {
        for name in TYPE_CLAIMS {
            match member(claims, name)? {
                None | Some(Value::Null) => {}
                Some(Value::String(text)) if is_one_of(&self.token_types, text) => {}
                Some(found) => {
                    let found = differs(name, found.as_str(), "token_types", &self.token_types);
                    return Err(ExtractError::rejected(Reason::TokenType).because(found));
                }
            }
        }
        match member(claims, "cnf")? {
            None | Some(Value::Null) => Ok(()),
            Some(_) => Err(ExtractError::rejected(Reason::SenderConstrained)
                .because("the token is bound to a key that its sender holds (cnf)")),
        }
    }
}

fn inactive() -> ExtractError {
    ExtractError::rejected(Reason::Inactive).because("the answer does not contain active = true")
}

/// The strings of a claim that is a string or a list. Values of other types are skipped.
fn texts(value: Option<&Value>) -> Vec<&str> {
    match value {
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
        Some(one) => one.as_str().into_iter().collect(),
        None => Vec::new(),
    }
}

/// A `NumericDate`, rounded down to whole seconds; `None` if it is absent or null.
fn time(claims: &Object, name: &str) -> Result<Option<UnixSeconds>, ExtractError> {
    match member(claims, name)? {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match numeric_date(value) {
            Some((seconds, _)) => Ok(Some(seconds)),
            None => Err(ExtractError::malformed().because(format!("{name} is not a number"))),
        },
    }
}

fn member<'a>(object: &'a Object, name: &str) -> Result<Option<&'a Value>, ExtractError> {
    object
        .get(name)
        .map_err(|_| ExtractError::malformed().because(format!("{name} is repeated")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::contract;
    use crate::session::sections::testing::build;

    const SECRET: &str = "the-secret-of-our-client";
    const GOOD: &str =
        "url = \"http://127.0.0.1:9/introspect\"\nclient_id = \"us\"\nclient_ids = [\"app\"]\n";

    fn extractor(keys: &str) -> Result<Arc<dyn SessionExtractor>, Problems> {
        build("introspection", keys)
    }

    #[tokio::test]
    async fn extractor_passes_the_contract_checks() {
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
    fn section_with_one_client_restriction_or_allow_any_client_is_accepted() {
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
    fn invalid_section_is_refused_and_the_problem_names_the_key() {
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
            ("no place", format!("{good}from = []"), "from"),
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
                "a rule against another key",
                format!("{good}claims.client_id = \"another\""),
                "claims",
            ),
            (
                "a rule for an inactive token",
                format!("{good}claims.active = false"),
                "claims",
            ),
            (
                "a rule for a sender-constrained token",
                format!("{good}claims.cnf = {{ present = true }}"),
                "claims",
            ),
            (
                "a rule that no claim can match",
                format!("{good}claims.sub = {{ present = false }}"),
                "claims.sub.present",
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

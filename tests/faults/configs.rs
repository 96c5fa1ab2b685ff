//! The configurations that most attacks start from.

use crate::settings::ConfigBuilder;

/// A configuration without a rate limit. Its log level is `trace`, so that the tests search all log lines for secrets.
fn base() -> ConfigBuilder {
    ConfigBuilder::new("rate_limit.per_minute = 0\nlog.level = 'trace'")
}

/// A configuration with one extractor called `name`, of this kind and with these keys.
pub fn one_extractor(name: &str, kind: &str, keys: &str) -> ConfigBuilder {
    base().with(format!(
        "session.extractors = ['{name}']\n[extractors.{name}]\nkind = '{kind}'\n{keys}"
    ))
}

/// A configuration that accepts an HS256 session token as a bearer token or in the cookie `session`.
pub fn by_jwt() -> ConfigBuilder {
    let keys = "
        from = ['header:authorization', 'cookie:session']
        secret = 'session+secret/sentinel:Kd81Qw-0123456789-0123456789'
        algorithms = ['HS256']
        issuers = ['https://issuer.example']
        audiences = ['our-app']";
    one_extractor("web", "jwt", keys)
}

/// A configuration that accepts tokens signed with one of the keys in the JWKS at this URL.
pub fn by_jwks_url(url: &str) -> ConfigBuilder {
    by_jwt()
        .without("extractors.web.secret")
        .without("extractors.web.algorithms")
        .with(format!("extractors.web.jwks_url = '{url}'"))
}

/// A configuration that forwards the cookie `sid` to `http://127.0.0.1:PORT/me`.
pub fn by_endpoint(port: u16) -> ConfigBuilder {
    by_endpoint_url(&format!("http://127.0.0.1:{port}/me"))
}

pub fn by_endpoint_url(url: &str) -> ConfigBuilder {
    one_extractor(
        "app",
        "session_endpoint",
        &format!("url = '{url}'\ncookies = ['sid']"),
    )
}

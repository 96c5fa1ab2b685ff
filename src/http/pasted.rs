//! Parses a request that an operator pastes: a request that a browser copied "as cURL", a raw HTTP request, header
//! lines, or only cookies or a token. The body is not read.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args as _, FromArgMatches};
use url::Url;

use crate::bytes::before;

/// The maximum length of a pasted request, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;

/// The common flags of curl. Flags that do not affect who is signed in are accepted and ignored.
#[derive(Default, clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each field is a flag of curl"
)]
pub struct CurlArgs {
    /// The word `curl` and the URL of a request copied "as cURL" in a browser. `explain` uses only the host and port of
    /// the URL.
    #[arg(value_name = "URL", num_args = 0..)]
    pub words: Vec<String>,
    /// A header of the request, as in curl: -H 'Authorization: Bearer …'.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub headers: Vec<String>,
    /// Cookies of the request, as in curl: -b 'session=…'.
    #[arg(short = 'b', long = "cookie", value_name = "NAME=VALUE")]
    pub cookies: Vec<String>,
    #[arg(short = 'u', long = "user", hide = true)]
    user: Option<String>,
    #[arg(short = 'X', long = "request", hide = true)]
    method: Option<String>,
    #[arg(short = 'd', long = "data", aliases = ["data-raw", "data-binary", "data-urlencode"], hide = true)]
    body: Vec<String>,
    #[arg(short = 'F', long = "form", hide = true)]
    form: Vec<String>,
    #[arg(short = 'A', long = "user-agent", hide = true)]
    user_agent: Option<String>,
    #[arg(short = 'e', long = "referer", hide = true)]
    referer: Option<String>,
    #[arg(long = "url", hide = true)]
    url: Option<String>,
    #[arg(short = 'o', long = "output", hide = true)]
    output: Option<String>,
    #[arg(short = 'm', long = "max-time", hide = true)]
    max_time: Option<String>,
    #[arg(short = 'x', long = "proxy", hide = true)]
    proxy: Option<String>,
    #[arg(long = "compressed", hide = true)]
    compressed: bool,
    #[arg(short = 'k', long = "insecure", hide = true)]
    insecure: bool,
    #[arg(short = 's', long = "silent", hide = true)]
    silent: bool,
    #[arg(short = 'S', long = "show-error", hide = true)]
    show_error: bool,
    #[arg(short = 'L', long = "location", hide = true)]
    location: bool,
    #[arg(short = 'i', long = "include", hide = true)]
    include: bool,
    #[arg(short = 'v', long = "verbose", hide = true)]
    verbose: bool,
    #[arg(short = 'g', long = "globoff", hide = true)]
    globoff: bool,
    #[arg(short = 'G', long = "get", hide = true)]
    get: bool,
    #[arg(short = 'I', long = "head", hide = true)]
    head: bool,
    #[arg(long = "http1.1", hide = true)]
    http1: bool,
    #[arg(long = "http2", hide = true)]
    http2: bool,
}

impl fmt::Debug for CurlArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CurlArgs").finish_non_exhaustive()
    }
}

impl CurlArgs {
    /// Whether the arguments contain no part of a curl command: no header, no URL and not the word `curl`. A word such
    /// as a token is not a URL, although curl would use it as a host name.
    pub fn is_empty(&self) -> bool {
        let is_url = |word: &String| word == "curl" || word.contains("://");
        self.headers.is_empty()
            && self.cookies.is_empty()
            && self.user.is_none()
            && self.url.is_none()
            && !self.words.iter().any(is_url)
    }

    /// The headers of `-H`, and the headers that curl derives from `-b` and `-u`.
    ///
    /// # Errors
    /// If a header is malformed. The message names the header, but never contains its value.
    pub fn headers(&self) -> Result<HeaderMap, String> {
        let cookies = self
            .cookies
            .iter()
            .map(|cookie| format!("Cookie: {cookie}"));
        let user = self
            .user
            .iter()
            .map(|user| format!("Authorization: Basic {}", STANDARD.encode(user)));
        let lines: Vec<String> = self
            .headers
            .iter()
            .cloned()
            .chain(cookies)
            .chain(user)
            .collect();
        headers_of(lines.iter().map(String::as_bytes))
    }

    /// Like [`Self::headers`], with the `Host` that curl derives from the URL.
    ///
    /// # Errors
    /// The errors of [`Self::headers`].
    pub fn headers_with_host(&self) -> Result<HeaderMap, String> {
        Ok(with_host(self.headers()?, self.target().as_ref()))
    }

    /// The URL of the request. Like curl, accepts a URL without a scheme.
    pub fn target(&self) -> Option<Url> {
        let urls = self.words.iter().filter(|word| *word != "curl");
        self.url.iter().chain(urls).find_map(|url| {
            let url = if url.contains("://") {
                Url::parse(url)
            } else {
                Url::parse(&format!("http://{url}"))
            };
            url.ok().filter(Url::has_host)
        })
    }
}

/// Adds the `Host` header for the URL, unless there is one.
fn with_host(mut headers: HeaderMap, url: Option<&Url>) -> HeaderMap {
    if let Some(host) = url.and_then(host_of) {
        headers.entry(header::HOST).or_insert(host);
    }
    headers
}

fn host_of(url: &Url) -> Option<HeaderValue> {
    let port = url.port().map(|port| format!(":{port}"));
    let host = format!("{}{}", url.host_str()?, port.unwrap_or_default());
    HeaderValue::try_from(host).ok()
}

/// The head of a request with these headers from this peer.
pub fn request_head(headers: HeaderMap, peer: IpAddr) -> Parts {
    let (mut head, ()) = Request::new(()).into_parts();
    head.headers = headers;
    let peer = SocketAddr::new(peer, 0);
    head.extensions.insert(ConnectInfo(peer));
    head
}

/// The URL of a pasted request, if the request names its host. The scheme of a raw request is unknown, so it is set to
/// `http`.
pub fn target(text: &[u8]) -> Option<Url> {
    if is_curl(text) {
        return curl(text).ok()?.target();
    }
    let (line, lines) = head_lines(text);
    let value = |name| value(&lines, name);
    let host = value("host").or_else(|| value(":authority"))?;
    let line = line.map(String::from_utf8_lossy);
    let path = line
        .and_then(|line| Some(line.split(' ').nth(1)?.to_owned()))
        .or_else(|| value(":path"))
        .filter(|path| path.starts_with('/'))
        .unwrap_or_else(|| "/".to_owned());
    Url::parse(&format!("http://{host}{path}")).ok()
}

/// The headers of a pasted request: a curl command, a raw HTTP request, or header lines. If there is no
/// `Host`, it is derived from the URL of the command or from the pseudo-header `:authority`.
///
/// # Errors
/// If the request is malformed, is too long, has no header, or has another form (see [`check_form`]). The message says
/// what is wrong, but never contains a value.
pub fn headers(text: &[u8]) -> Result<HeaderMap, String> {
    if text.len() > MAX_BYTES {
        return Err(format!(
            "the request is longer than {} KiB",
            MAX_BYTES / 1024
        ));
    }
    let headers = if is_curl(text) {
        curl(text)?.headers()?
    } else {
        check_form(text)?;
        let (_, lines) = head_lines(text);
        headers_of(headers_only(&lines))?
    };
    Ok(with_host(some(headers)?, target(text).as_ref()))
}

/// Whether the pasted text is a curl command line.
pub fn is_curl(text: &[u8]) -> bool {
    let text = text.trim_ascii_start();
    text.starts_with(b"curl ") || text.starts_with(b"curl.exe ")
}

/// Refuses the other forms in which browsers copy a request.
///
/// # Errors
/// If the text is a call to JavaScript's `fetch` or a PowerShell command.
pub fn check_form(text: &[u8]) -> Result<(), String> {
    let text = text.trim_ascii_start();
    let forms: [(&[u8], &str); 4] = [
        (b"fetch(", "fetch"),
        (b"await fetch(", "Node.js fetch"),
        (b"$session", "PowerShell"),
        (b"Invoke-WebRequest", "PowerShell"),
    ];
    match forms.iter().find(|(start, _)| text.starts_with(start)) {
        Some((_, form)) => Err(format!(
            "this is a request copied as {form}: choose \"Copy as cURL\" in the browser instead"
        )),
        None => Ok(()),
    }
}

/// The request line, if there is one, and one line for each header. Headers without a request line may have the form in
/// which browsers display them: with HTTP/2 pseudo-headers, and with names and values on separate lines.
pub fn head_lines(text: &[u8]) -> (Option<&[u8]>, Vec<Vec<u8>>) {
    let mut lines = text
        .trim_ascii_start()
        .split(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .take_while(|line| !line.is_empty())
        .peekable();
    if let Some(line) = lines.next_if(|line| is_request_line(line)) {
        return (Some(line), lines.map(<[u8]>::to_vec).collect());
    }
    let mut headers: Vec<Vec<u8>> = Vec::new();
    let mut waits_for_value = false;
    for line in lines.map(<[u8]>::trim_ascii) {
        match headers.last_mut() {
            Some(header) if waits_for_value => {
                header.extend_from_slice(line);
                waits_for_value = false;
            }
            _ => {
                headers.push(named(line));
                waits_for_value = line.ends_with(b":");
            }
        }
    }
    (None, headers)
}

/// The lines except pseudo-headers, such as `:authority: app.example` (RFC 9113, section 8.3.1).
pub fn headers_only(lines: &[Vec<u8>]) -> impl Iterator<Item = &[u8]> {
    let lines = lines.iter().map(Vec::as_slice);
    lines.filter(|line| !line.starts_with(b":"))
}

/// The value of the first header or pseudo-header with this name.
pub fn value(lines: &[Vec<u8>], name: &str) -> Option<String> {
    lines.iter().find_map(|line| {
        let (found, value) = line.split_at_checked(name.len())?;
        let value = String::from_utf8_lossy(value.strip_prefix(b":")?);
        let is_name = found.eq_ignore_ascii_case(name.as_bytes());
        is_name.then(|| value.trim().to_owned())
    })
}

/// Returns the headers, or an error if there are none.
pub fn some(headers: HeaderMap) -> Result<HeaderMap, String> {
    if headers.is_empty() {
        return Err(
            "the request has no header: paste it as cURL, or paste its Cookie or Authorization line"
                .to_owned(),
        );
    }
    Ok(headers)
}

/// Parses a curl command line.
///
/// # Errors
/// If the command is malformed. The message describes the malformed part, but never contains a value.
pub fn curl(text: &[u8]) -> Result<CurlArgs, String> {
    let text = std::str::from_utf8(text).map_err(|_| "the command is not UTF-8".to_owned())?;
    let is_for_cmd = text
        .split_whitespace()
        .nth(1)
        .is_some_and(|word| word.starts_with("^\""));
    let text = if is_for_cmd {
        Cow::Owned(without_carets(text))
    } else {
        Cow::Borrowed(text)
    };
    let words = words(&text)
        .ok_or("the command ends inside quotes or has an invalid escape: copy the whole command")?;
    let command = CurlArgs::augment_args(clap::Command::new("curl").no_binary_name(false))
        .disable_help_flag(true)
        .ignore_errors(true);
    let matches = command
        .try_get_matches_from(words)
        .map_err(|_| "the command cannot be parsed: copy it as cURL again".to_owned())?;
    CurlArgs::from_arg_matches(&matches)
        .map_err(|_| "a flag in the command has no value".to_owned())
}

/// Whether the line has the form `GET /path HTTP/1.1`.
fn is_request_line(line: &[u8]) -> bool {
    let method = before(line, b' ');
    let is_method = !method.is_empty() && method.iter().all(u8::is_ascii_alphabetic);
    is_method
        && line
            .split(|&byte| byte == b' ')
            .next_back()
            .is_some_and(|last| last.starts_with(b"HTTP/"))
}

/// Adds the missing header name to a line, because an operator may paste only cookies or only a token.
fn named(line: &[u8]) -> Vec<u8> {
    let end = line
        .iter()
        .position(|&byte| !(byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)));
    let is_scheme = |end: usize| {
        ["bearer", "basic", "token"]
            .iter()
            .any(|scheme| line[..end].eq_ignore_ascii_case(scheme.as_bytes()))
    };
    let prefix: &[u8] = match end.map(|end| (end, line[end])) {
        Some((_, b'=')) => b"Cookie: ",
        Some((end, b' ')) if is_scheme(end) => b"Authorization: ",
        None if line.split(|&byte| byte == b'.').count() == 3 => b"Authorization: Bearer ",
        _ => b"",
    };
    [prefix, line].concat()
}

/// Parses header lines.
///
/// # Errors
/// If a header is malformed. The message names the header, but never contains its value.
pub fn headers_of<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for line in lines {
        let colon = line
            .iter()
            .position(|&byte| byte == b':')
            .ok_or("a line is not a header: write it as NAME: VALUE")?;
        let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
        let name = HeaderName::from_bytes(name).map_err(|_| wrong(line, "is not a header name"))?;
        let value = HeaderValue::from_bytes(value)
            .map_err(|_| wrong(line, "has characters that are not allowed in a header"))?;
        headers
            .try_append(name, value)
            .map_err(|_| "there are too many headers".to_owned())?;
    }
    Ok(headers)
}

/// The error for a malformed line. Contains only the header's name, because the value may be a session.
fn wrong(line: &[u8], what: &str) -> String {
    let name = before(line, b':');
    let name = String::from_utf8_lossy(&name[..name.len().min(40)]).into_owned();
    format!("the header {name:?} {what}")
}

/// Decodes the escapes of Windows' `cmd`, as in Chrome's "Copy as cURL (cmd)": a caret before a character that would
/// otherwise be special, and a caret at the end of a continued line. The result can be split as a POSIX command.
fn without_carets(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text.chars().filter(|c| *c != '\r');
    while let Some(c) = rest.next() {
        match c {
            '^' => plain.extend(rest.next().filter(|c| *c != '\n')),
            c => plain.push(c),
        }
    }
    plain
}

/// Splits a command into words as a POSIX shell does, and decodes `$'…'`, which Chrome writes. Returns `None` if a
/// quote is not closed or a hexadecimal escape is invalid.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '$' if rest.peek() == Some(&'\'') => {
                rest.next();
                let word = word.get_or_insert_default();
                loop {
                    match rest.next()? {
                        '\'' => break,
                        '\\' => word.push(escaped(&mut rest)?),
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next()? {
                        '"' => break,
                        '\\' => match rest.next()? {
                            '\n' => {}
                            c if "\"\\$`".contains(c) => word.push(c),
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            '\\' => match rest.next() {
                Some('\n') | None => {}
                Some('\r') => {
                    rest.next_if_eq(&'\n');
                }
                Some(c) => word.get_or_insert_default().push(c),
            },
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

/// Decodes the escape after a backslash in `$'…'`; `None` if it is incomplete, or not hexadecimal after `u` or `x`.
fn escaped(rest: &mut impl Iterator<Item = char>) -> Option<char> {
    Some(match rest.next()? {
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => hexadecimal(rest, 4)?,
        'x' => hexadecimal(rest, 2)?,
        c => c,
    })
}

fn hexadecimal(rest: &mut impl Iterator<Item = char>, digits: usize) -> Option<char> {
    let mut code = 0;
    for _ in 0..digits {
        code = code * 16 + rest.next()?.to_digit(16)?;
    }
    char::from_u32(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_cookie(text: &str, want: &str) {
        let headers = headers(text.as_bytes()).expect("headers");
        let cookie = headers.get(header::COOKIE).expect("a cookie");
        assert_eq!(cookie, want, "{text}");
    }

    #[test]
    fn cookies_are_read_from_every_form_of_a_pasted_request() {
        for text in [
            "curl 'https://a.example/' -H 'cookie: sid=a%3A1; b=2' -H 'accept: */*' --compressed",
            "curl --location -s 'https://a.example/' \\\n  -b 'sid=a%3A1; b=2' \\\n  --data-raw '{\"x\":1}'",
            "curl -X POST https://a.example -H \"Cookie: sid=a%3A1; b=2\" --http2 -k -A 'x y' --unheard-of",
            "curl 'https://a.example/' -H $'cookie: sid=a%3A\\u0031; b=2'",
            "curl ^\"https://a.example/?x=1^&y=^\" ^\r\n  -H ^\"accept: */*^\" ^\r\n  -b ^\"sid=a^%^3A1; b=2^\" ^\r\n  --compressed",
            "curl ^\"https://a.example/^\" ^\n  -H ^\"sec-ch-ua: ^\\^\"x^\\^\"^\" ^\n  -H ^\"cookie: sid=a^%^3A1; b=2^\"",
            "curl 'https://a.example/' -H 'if-none-match: ^\"' -H 'cookie: sid=a%3A1; b=2'",
            "GET / HTTP/1.1\r\nHost: a.example\r\nCookie: sid=a%3A1; b=2\r\n\r\nCookie: no",
            "Cookie: sid=a%3A1; b=2",
            "cookie:\nsid=a%3A1; b=2\nuser-agent:\nx",
            ":authority: a.example\n:method: GET\ncookie: sid=a%3A1; b=2",
            ":authority:\nwww.a.example\n:method:\nGET\ncookie:\nsid=a%3A1; b=2",
            "GET / HTTP/1.1\nX-Empty:\nCookie: sid=a%3A1; b=2",
            "sid=a%3A1; b=2",
        ] {
            assert_cookie(text, "sid=a%3A1; b=2");
        }
    }

    #[test]
    fn pasted_token_without_a_header_name_is_read_as_a_bearer_token() {
        for text in ["Bearer a.b.c", "a.b.c", "Authorization: Bearer a.b.c"] {
            let headers = headers(text.as_bytes()).expect("headers");
            assert_eq!(headers[header::AUTHORIZATION], "Bearer a.b.c", "{text}");
        }
        let headers = headers(b"curl https://a.example -u ann:pw").expect("headers");
        assert_eq!(headers[header::AUTHORIZATION], "Basic YW5uOnB3");
    }

    #[test]
    fn request_copied_as_fetch_or_powershell_is_refused_with_a_hint_to_copy_as_curl() {
        for text in [
            "fetch(\"https://a.example/\", {\n  \"headers\": {\"cookie\": \"s3cr3t\"}});",
            "$session = New-Object Microsoft.PowerShell.Commands.WebRequestSession",
            "Invoke-WebRequest -UseBasicParsing -Uri \"https://a.example/\"",
        ] {
            let error = headers(text.as_bytes()).expect_err(text);
            assert!(error.contains("Copy as cURL"), "{error}");
        }
    }

    #[test]
    fn host_of_a_curl_command_comes_from_its_url_unless_a_host_header_is_given() {
        for (text, want) in [
            (
                "curl 'http://app.internal:8080/x' -X POST",
                "app.internal:8080",
            ),
            ("curl --compressed https://app.example:443/", "app.example"),
            ("curl -s --url localhost:3000/me", "localhost:3000"),
            ("curl https://u:p@app.example/", "app.example"),
            ("curl https://a.example -H 'Host: b.example'", "b.example"),
        ] {
            let headers = curl(text.as_bytes()).unwrap().headers_with_host().unwrap();
            assert_eq!(headers[header::HOST], want, "{text}");
        }
    }

    #[test]
    fn target_is_the_url_of_a_request_that_names_its_host() {
        for (text, want) in [
            (
                "curl 'https://a.example/me?x=1' -H 'accept: */*'",
                Some("https://a.example/me?x=1"),
            ),
            ("curl localhost:3000/me", Some("http://localhost:3000/me")),
            (
                "GET /me HTTP/1.1\r\nHost: a.example\r\nCookie: sid=1\r\n\r\n",
                Some("http://a.example/me"),
            ),
            (
                ":authority: a.example\n:path: /me\ncookie: sid=1",
                Some("http://a.example/me"),
            ),
            (
                ":authority:\na.example\n:path:\n/me\ncookie:\nsid=1",
                Some("http://a.example/me"),
            ),
            ("Cookie: sid=1", None),
            ("curl -H 'Cookie: sid=1'", None),
        ] {
            let url = target(text.as_bytes());
            assert_eq!(url.as_ref().map(Url::as_str), want, "{text}");
        }
    }

    #[test]
    fn debug_output_of_a_curl_command_does_not_contain_its_credentials() {
        let command = curl(b"curl s3cr3t -H 'Cookie: a=s3cr3t' -b s3cr3t -u ann:s3cr3t").unwrap();
        assert!(!format!("{command:?}").contains("s3cr3t"));
    }

    #[test]
    fn error_for_a_malformed_request_does_not_contain_the_pasted_values() {
        for text in [
            "",
            "curl 'https://a",
            "s3cr3t",
            "X Y: s3cr3t",
            "x: s3cr3t\u{7f}",
        ] {
            let error = headers(text.as_bytes()).expect_err(text);
            assert!(!error.contains("s3cr3t"), "{error}");
        }
    }
}

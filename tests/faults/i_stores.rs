//! Group I: the cookies of frameworks, and the stores behind them: a real Redis, a database that is made up.

use std::fmt::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::{aead, hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::Group;
use crate::proxy::{FAULTS, Fault, Proxy};
use crate::report::{COOKIE_VALUE, SESSION_SECRET, UPSTREAM_SECRET, count_faults, count_requests};
use crate::service::{Service, tail};
use crate::tokens::{encode, hs256, now};
use crate::wire::{post, post_raw};

const INVALID: &[&str] = &["401 session_invalid"];
const UNKNOWN: &[&str] = &["503 session_backend_unavailable"];

/// A Redis of our own. It ends with the group.
struct Redis {
    port: u16,
    server: Child,
    _directory: TempDir,
}

impl Redis {
    async fn start(port: u16) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--dir"])
            .arg(directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = command.spawn().expect("redis-server (make tools installs it)");
        let redis = Self { port, server, _directory: directory };
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return redis;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("redis-server does not start");
    }

    /// One command and the first line of its answer.
    async fn run(&self, words: &[&[u8]]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.expect("Redis");
        stream.write_all(&command(words)).await.expect("Redis");
        let mut answer = vec![0; 4096];
        let length = stream.read(&mut answer).await.expect("an answer");
        let text = String::from_utf8_lossy(&answer[..length]).into_owned();
        assert!(!text.starts_with('-'), "{text}");
        text
    }

    async fn set(&self, id: &str, value: impl AsRef<[u8]>) {
        self.run(&[b"SET", format!("sess:{id}").as_bytes(), value.as_ref()]).await;
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.server.kill().ok();
        self.server.wait().ok();
    }
}

fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address").port()
}

struct Stage {
    s: Arc<Service>,
    redis: Redis,
}

pub async fn group() -> Group {
    let redis = Redis::start(free_port().await).await;
    redis.set("good", "{\"user_id\":\"ann\"}").await;
    let s = Service::start(&by_redis(redis.port)).await;
    let stage = Arc::new(Stage { s: s.clone(), redis });
    let mut group = Group::new("I", Some(s));
    group.quick("I1 signed and encrypted cookies, one bit off", i1());
    group.quick("I2 a good cookie under another name", i2());
    group.quick("I3 old keys and removed ones", i3());
    group.quick("I4 too old by a second, or not yet written", i4());
    group.quick("I5 sessions that would run", i5(stage.clone()));
    group.quick("I6 two cookies of one name", i6(stage.clone()));
    group.quick("I21 odd cookies beside a good one", i21(stage.clone()));
    group.quick("I8 ids that are commands", i8(stage.clone()));
    group.quick("I9 a session that is revoked", i9(stage.clone()));
    group.quick("I12 keys that hold something else", i12(stage.clone()));
    group.quick("I19 cookies in parts", i19());
    group.waiting("I11 a store that is down, slow, or breaks off", 9, i11());
    group.waiting("I15 a thousand at once to a slow store", 5, i15());
    group.waiting("I17 a database that cannot answer", 9, i17());
    group.waiting("I11+ the store is killed and comes back", 5, killed());
    group
}

fn by_redis(port: u16) -> String {
    format!(
        "rate_limit.per_minute = 0\nlog.level = \"trace\"\n[session]\nextractors = [\"store\"]\n[extractors.store]\nkind = \"redis_session\"\n\
         url = \"redis://127.0.0.1:{port}\"\ncookie = \"sid\"\nkey_prefix = \"sess:\"\n"
    )
}

fn section(kind: &str, keys: &str) -> String {
    format!(
        "rate_limit.per_minute = 0\nlog.level = \"trace\"\n[session]\nextractors = [\"web\"]\n[extractors.web]\nkind = \"{kind}\"\n{keys}\n"
    )
}

fn cookies(header: &str) -> Vec<u8> {
    post(&format!("Cookie: {header}\r\n"))
}

fn sid(id: &str) -> Vec<u8> {
    cookies(&format!("sid={id}"))
}

fn sha1(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key), text.as_bytes()).as_ref().to_vec()
}

/// The two cookies of Express's cookie-session.
fn keygrip(name: &str, session: &Value, key: &str) -> (String, String) {
    let value = STANDARD.encode(session.to_string());
    let signature = encode(sha1(key.as_bytes(), &format!("{name}={value}")));
    (value, signature)
}

/// Flask's cookie, written at a time.
fn flask(session: &Value, secret: &str, salt: &str, at: i64) -> String {
    let stamp = u32::try_from(at).expect("a time").to_be_bytes();
    let signed = format!("{}.{}", encode(session.to_string()), encode(stamp));
    let key = sha1(secret.as_bytes(), salt);
    format!("{signed}.{}", encode(sha1(&key, &signed)))
}

/// The encrypted cookie of Rails 7.
fn rails(session: &Value, secret: &str, name: &str, ends: Option<&str>) -> String {
    let mut key = [0; 32];
    let rounds = std::num::NonZeroU32::new(1000).expect("rounds");
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        rounds,
        b"authenticated encrypted cookie",
        secret.as_bytes(),
        &mut key,
    );
    let message = STANDARD.encode(session.to_string());
    let mut text = json!({"_rails": {"message": message, "exp": ends, "pur": format!("cookie.{name}")}})
        .to_string()
        .into_bytes();
    let sealing = aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_256_GCM, &key).expect("a key"));
    let nonce = [7; 12];
    let tag = sealing
        .seal_in_place_separate_tag(aead::Nonce::assume_unique_for_key(nonce), aead::Aad::empty(), &mut text)
        .expect("sealed");
    let parts = [STANDARD.encode(&text), STANDARD.encode(nonce), STANDARD.encode(tag.as_ref())].join("--");
    let mut escaped = String::new();
    for byte in parts.bytes() {
        match byte {
            b'+' | b'/' | b'=' => write!(escaped, "%{byte:02X}").expect("memory"),
            byte => escaped.push(char::from(byte)),
        }
    }
    escaped
}

/// What may come of a cookie that is not quite the good one. A byte may become one that no header may hold, or that
/// ends the cookie.
const REFUSED: &[&str] = &["401 session_invalid", "401 no_session", "400 bad_request"];

async fn i1() {
    let express = Service::start(&section(
        "cookie_session",
        &format!("keys = [\"{SESSION_SECRET}\"]\nsubject = \"{{user}}\""),
    ))
    .await;
    let (value, signature) = keygrip("session", &json!({"user": "ann"}), SESSION_SECRET);
    let flasked = Service::start(&section("flask", &format!("secret_key = \"{SESSION_SECRET}\""))).await;
    let railed = Service::start(&section(
        "rails",
        &format!("cookie = \"_app\"\nsecret_key_base = \"{SESSION_SECRET}\"\nsubject = \"{{user}}\""),
    ))
    .await;
    for (label, s, cookie) in [
        ("express", &express, format!("session={value}; session.sig={signature}")),
        (
            "flask",
            &flasked,
            format!(
                "session={}",
                flask(&json!({"_user_id": "ann"}), SESSION_SECRET, "cookie-session", now())
            ),
        ),
        ("rails", &railed, format!("_app={}", rails(&json!({"user": "ann"}), SESSION_SECRET, "_app", None))),
    ] {
        assert_eq!(s.expect(label, &cookies(&cookie), &["200"]).await.subject(), "ann");
        let begin = cookie.find('=').expect("a value") + 1;
        let mut codes = std::collections::BTreeMap::new();
        for at in begin..cookie.len() {
            for bit in [0, 2, 5] {
                let mut bent = cookie.clone().into_bytes();
                bent[at] ^= 1 << bit;
                // Escapes may be written in small letters, too.
                let is_escape = cookie[..at].ends_with('%') || cookie[..at - 1].ends_with('%');
                // The names are not part of what is protected; neither is the space between the cookies.
                if is_escape || cookie[..at].ends_with("session.sig") || cookie.as_bytes()[at] == b' ' {
                    continue;
                }
                let answer = s.one(&post_raw("Cookie", &bent)).await;
                let outcome = answer.outcome();
                assert!(
                    REFUSED.contains(&&*outcome),
                    "{label}, byte {at}, bit {bit}: {outcome} {}",
                    bent.escape_ascii()
                );
                *codes.entry(outcome).or_insert(0) += 1;
            }
        }
        assert!(codes["401 session_invalid"] > 100, "{codes:?}");
        let (first, second) = cookie[begin..].split_at((cookie.len() - begin) / 2);
        for (what, bad) in [
            ("cut", first.to_owned()),
            ("the other half", second.to_owned()),
            ("swapped", format!("{second}{first}")),
            ("twice over", format!("{first}{first}")),
        ] {
            s.expect(what, &cookies(&format!("{}{bad}", &cookie[..begin])), REFUSED).await;
        }
        s.settles().await;
        s.stop().await;
    }
}

async fn i2() {
    let keys = format!("keys = [\"{SESSION_SECRET}\"]\nsubject = \"{{user}}\"");
    let s = Service::start(&section("cookie_session", &format!("cookie = \"other\"\n{keys}"))).await;
    let (value, signature) = keygrip("session", &json!({"user": "ann"}), SESSION_SECRET);
    s.expect("another name", &cookies(&format!("other={value}; other.sig={signature}")), INVALID).await;
    s.stop().await;
    let s = Service::start(&section("flask", &format!("secret_key = \"{SESSION_SECRET}\""))).await;
    let salted = flask(&json!({"_user_id": "ann"}), SESSION_SECRET, "another-salt", now());
    s.expect("another salt", &cookies(&format!("session={salted}")), INVALID).await;
    s.stop().await;
    let s = Service::start(&section(
        "rails",
        &format!("cookie = \"_app\"\nsecret_key_base = \"{SESSION_SECRET}\"\nsubject = \"{{user}}\""),
    ))
    .await;
    let other = rails(&json!({"user": "ann"}), SESSION_SECRET, "_other", None);
    s.expect("another purpose", &cookies(&format!("_app={other}")), INVALID).await;
    let over = rails(&json!({"user": "ann"}), SESSION_SECRET, "_app", Some("2020-01-01T00:00:00.000Z"));
    s.expect("over", &cookies(&format!("_app={over}")), &["401 session_expired"]).await;
    s.stop().await;
}

async fn i3() {
    let old = "an-older-key-of-some-length-0123456789";
    let cookie = |key: &str| {
        let (value, signature) = keygrip("session", &json!({"user": "ann"}), key);
        cookies(&format!("session={value}; session.sig={signature}"))
    };
    let both = Service::start(&section(
        "cookie_session",
        &format!("keys = [\"{SESSION_SECRET}\", \"{old}\"]\nsubject = \"{{user}}\""),
    ))
    .await;
    both.expect("new", &cookie(SESSION_SECRET), &["200"]).await;
    both.expect("old", &cookie(old), &["200"]).await;
    both.expect("unknown", &cookie("another-key-of-some-length-0123456789"), INVALID).await;
    both.stop().await;
    let one = Service::start(&section(
        "cookie_session",
        &format!("keys = [\"{SESSION_SECRET}\"]\nsubject = \"{{user}}\""),
    ))
    .await;
    one.expect("removed", &cookie(old), INVALID).await;
    one.holds().await;
    one.stop().await;
}

async fn i4() {
    let s =
        Service::start(&section("flask", &format!("secret_key = \"{SESSION_SECRET}\"\nmax_age = \"1h\"")))
            .await;
    for (label, at, want) in [
        ("fresh", now(), &["200"][..]),
        ("old", now() - 3500, &["200"]),
        ("too old by two seconds", now() - 3602, &["401 session_expired"]),
        ("of the future", now() + 3600, INVALID),
        ("of 1970", 0, &["401 session_expired"]),
    ] {
        let cookie = flask(&json!({"_user_id": "ann"}), SESSION_SECRET, "cookie-session", at);
        s.expect(label, &cookies(&format!("session={cookie}")), want).await;
    }
    s.holds().await;
    s.stop().await;
}

async fn i5(s: Arc<Stage>) {
    for (n, value) in [
        &b"\x80\x04\x95\x1c\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94."[..],
        b"cos\nsystem\n(S'id'\ntR.",
        b"O:8:\"stdClass\":1:{s:7:\"user_id\";s:5:\"admin\";}",
        b"a:1:{s:7:\"user_id\";s:5:\"admin\";}",
        b"user_id|s:5:\"admin\";",
        b"--- !ruby/object:Gem::Installer\nuser_id: admin\n",
        b"!!python/object/apply:os.system ['id']",
        b"user_id: admin",
        b"\x04\x08{\x06:\x0cuser_idI\"\x0aadmin\x06:\x06ET",
        b"<session user_id='admin'/>",
        b"{\"user_id\":{\"$gt\":\"\"}}",
        b"{\"user_id\":[\"admin\"]}",
        b"{'user_id':'admin'}",
        b"{\"user_id\":\"admin\"}\0",
        b"\xef\xbb\xbf{\"user_id\":\"admin\"}",
    ]
    .into_iter()
    .enumerate()
    {
        s.redis.set(&format!("gadget-{n}"), value).await;
        s.s.expect(&value.escape_ascii().to_string(), &sid(&format!("gadget-{n}")), INVALID).await;
    }
    s.redis
        .set(
            "proto",
            "{\"__proto__\":{\"user_id\":\"admin\"},\"constructor\":{\"prototype\":{\"user_id\":\"admin\"}}}",
        )
        .await;
    s.s.expect("prototype", &sid("proto"), &["401 no_session"]).await;
    s.redis.set("twice", "{\"user_id\":\"ann\",\"user_id\":\"admin\"}").await;
    s.s.expect("twice", &sid("twice"), INVALID).await;
    s.redis.set("deep", format!("{{\"user_id\":\"ann\",\"x\":{}", "[".repeat(100_000))).await;
    s.s.expect("deep", &sid("deep"), INVALID).await;
    s.redis.set("vast", format!("{{\"user_id\":\"ann\",\"x\":\"{}\"}}", "x".repeat(2 * 1024 * 1024))).await;
    s.s.expect("vast", &sid("vast"), INVALID).await;
}

async fn i6(s: Arc<Stage>) {
    assert_eq!(s.s.expect("good", &sid("good"), &["200"]).await.subject(), "ann");
    for headers in ["sid=good; sid=bad", "sid=bad; sid=good", "sid=; sid=good", "sid=good;sid="] {
        s.s.expect(headers, &cookies(headers), INVALID).await;
    }
    for headers in ["sid=good; sid=good", "sid=good; a=b; sid=good", "sid=good; sid"] {
        assert_eq!(s.s.expect(headers, &cookies(headers), &["200"]).await.subject(), "ann");
    }
    for headers in ["Cookie: sid=good\r\nCookie: sid=bad\r\n", "Cookie: sid=bad\r\nCookie: sid=good\r\n"] {
        s.s.expect(headers, &post(headers), INVALID).await;
    }
    let twice = "Cookie: sid=good\r\nCookie: sid=good\r\n";
    assert_eq!(s.s.expect(twice, &post(twice), &["200"]).await.subject(), "ann");
}

async fn i21(s: Arc<Stage>) {
    for odd in [
        &b"caf\xc3\xa9=1"[..],
        b"x=\xff\xfe",
        b"foo",
        b"=x",
        b"a=\"b",
        b"a=\"b\"",
        b"",
        b" ",
        b"a=b=c",
        b"\xc2\xa0sid=evil",
        b"a=\\\"",
        b"{\"json\":\"x; y\"}",
        b"SID=evil",
        b"sid.sig=x",
        b"a b=c",
        b"a,b=c",
        b"$Version=1",
    ] {
        for around in [[b"sid=good; ".as_slice(), odd].concat(), [odd, b"; sid=good".as_slice()].concat()] {
            let answer =
                s.s.expect(&odd.escape_ascii().to_string(), &post_raw("Cookie", &around), &["200"]).await;
            assert_eq!(answer.subject(), "ann");
        }
    }
}

async fn i8(s: Arc<Stage>) {
    let mut monitor = TcpStream::connect(("127.0.0.1", s.redis.port)).await.expect("Redis");
    monitor.write_all(&command(&[b"MONITOR"])).await.expect("Redis");
    let mut seen = vec![0; 1024];
    assert!(monitor.read(&mut seen).await.expect("OK") > 0);
    let long = "x".repeat(20_000);
    let ids = [
        "*",
        "sess:*",
        "?",
        "[a-z]*",
        "a%0d%0aFLUSHALL",
        "' OR 1",
        "'OR'1'='1",
        "../",
        "../../etc/passwd",
        &long,
        "good\tx",
        "$3",
        "*1",
        "\"good\"",
        "good%00",
        "GET",
        "{good}",
        "sess:good",
        "good*",
    ];
    for id in ids {
        s.s.expect(&id[..id.len().min(40)], &sid(id), &["401 session_invalid", "401 no_session", "200"])
            .await;
    }
    for id in [&b"a\r\nFLUSHALL"[..], b"a\nFLUSHALL\r\n", b"a\0b", b"\xff", b"a\xffb", b"\x01"] {
        s.s.expect(
            &id.escape_ascii().to_string(),
            &post_raw("Cookie", &[b"sid=".as_slice(), id].concat()),
            &["400 bad_request", "401 session_invalid"],
        )
        .await;
    }
    s.s.expect("1 MiB", &sid(&"x".repeat(1024 * 1024)), &["431 headers_too_large"]).await;
    s.redis.run(&[b"PING"]).await;
    let mut text = String::new();
    while !text.contains("\"PING\"") {
        let mut bytes = vec![0; 65_536];
        let length =
            timeout(Duration::from_secs(5), monitor.read(&mut bytes)).await.expect("lines").expect("lines");
        text.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
    for line in text
        .lines()
        .filter(|line| !line.contains("\"PING\"") && !line.contains("CLIENT") && !line.contains("HELLO"))
    {
        let words = line.split_once("] ").map_or(line, |(_, words)| words);
        assert!(words.starts_with("\"GET\" \"sess:") && words.matches("\" \"").count() == 1, "{line}");
    }
    assert!(!text.contains("\"FLUSHALL\"") && !text.contains("\"KEYS\""));
    s.s.expect("still there", &sid("good"), &["200"]).await;
}

async fn i9(s: Arc<Stage>) {
    s.redis.set("short", "{\"user_id\":\"bob\"}").await;
    s.s.expect("there", &sid("short"), &["200"]).await;
    s.redis.run(&[b"DEL", b"sess:short"]).await;
    s.s.expect("revoked", &sid("short"), INVALID).await;
    s.redis.run(&[b"SET", b"sess:brief", b"{\"user_id\":\"bob\"}", b"PX", b"50"]).await;
    sleep(Duration::from_millis(100)).await;
    s.s.expect("over", &sid("brief"), INVALID).await;
}

async fn i12(s: Arc<Stage>) {
    s.redis.run(&[b"RPUSH", b"sess:list", b"x"]).await;
    s.redis.run(&[b"HSET", b"sess:hash", b"user_id", b"ann"]).await;
    for (id, value) in [
        ("empty", ""),
        ("garbage", "\u{1}\u{2}"),
        ("array", "[1]"),
        ("text", "\"ann\""),
        ("null", "null"),
        ("number", "5"),
    ] {
        s.redis.set(id, value).await;
        s.s.expect(id, &sid(id), INVALID).await;
    }
    for id in ["list", "hash", "absent"] {
        s.s.expect(id, &sid(id), INVALID).await;
    }
    for (id, value) in [("nobody", "{}"), ("nulled", "{\"user_id\":null}")] {
        s.redis.set(id, value).await;
        s.s.expect(id, &sid(id), &["401 no_session"]).await;
    }
    s.s.logs("session_corrupt", 1).await;
}

async fn i19() {
    let token = hs256(&json!({}));
    let toml = crate::a_framing::BY_JWT
        .replace("\"header:authorization\", \"cookie:session\"", "\"supabase:sb-x-auth-token\"");
    let s = Service::start(&toml).await;
    let whole = format!("base64-{}", encode(json!({"access_token": token}).to_string()));
    let parts = |count: usize| -> Vec<String> {
        let size = whole.len().div_ceil(count);
        whole.as_bytes().chunks(size).map(|part| String::from_utf8(part.to_vec()).expect("text")).collect()
    };
    let header = |parts: &[(usize, &str)]| {
        cookies(
            &parts
                .iter()
                .map(|(n, part)| format!("sb-x-auth-token.{n}={part}"))
                .collect::<Vec<_>>()
                .join("; "),
        )
    };
    let numbered = |parts: &[String]| -> Vec<(usize, String)> { parts.iter().cloned().enumerate().collect() };
    let borrowed = |parts: &[(usize, String)]| {
        header(&parts.iter().map(|(n, part)| (*n, part.as_str())).collect::<Vec<_>>())
    };
    s.expect("whole", &cookies(&format!("sb-x-auth-token={whole}")), &["200"]).await;
    for count in [1, 2, 5, 10] {
        let mut all = numbered(&parts(count));
        s.expect("in parts", &borrowed(&all), &["200"]).await;
        all.reverse();
        s.expect("in another order", &borrowed(&all), &["200", "401 session_invalid"]).await;
        for missing in 0..count {
            let mut some = numbered(&parts(count));
            some.remove(missing);
            s.expect("one missing", &borrowed(&some), &["401 session_invalid", "401 no_session"]).await;
        }
        let mut more = numbered(&parts(count));
        more.push((count, "x".to_owned()));
        s.expect("one too many", &borrowed(&more), &["401 session_invalid"]).await;
        let mut doubled = numbered(&parts(count));
        doubled.push((0, parts(count)[0].clone()));
        s.expect("one twice", &borrowed(&doubled), &["401 session_invalid"]).await;
    }
    s.expect("a hundred", &borrowed(&numbered(&parts(100))), &["401 session_invalid"]).await;
    for name in ["sb-x-auth-token.00", "sb-x-auth-token.-1", "sb-x-auth-token.a", "sb-x-auth-token."] {
        s.expect(name, &cookies(&format!("{name}={whole}")), &["401 no_session", "401 session_invalid"])
            .await;
    }
    s.finish().await;
}

async fn i11() {
    let redis = Redis::start(free_port().await).await;
    redis.set("good", "{\"user_id\":\"ann\"}").await;
    let proxy = Proxy::start(redis.port).await;
    let s = Service::start(&by_redis(proxy.port)).await;
    for fault in FAULTS {
        proxy.set(Fault::None);
        s.expect("before", &sid("good"), &["200"]).await;
        proxy.set(fault);
        for _ in 0..3 {
            let started = Instant::now();
            s.expect(&format!("{fault:?}"), &sid("good"), UNKNOWN).await;
            count_faults(1);
            assert!(started.elapsed() < Duration::from_millis(1500), "{fault:?}: {:?}", started.elapsed());
        }
    }
    proxy.set(Fault::None);
    s.expect("after", &sid("good"), &["200"]).await;
    s.holds().await;
    s.stop().await;
    let nobody = Service::start(&by_redis(1)).await;
    let started = Instant::now();
    nobody.expect("refused", &sid("good"), UNKNOWN).await;
    assert!(started.elapsed() < Duration::from_secs(1));
    nobody.holds().await;
    nobody.stop().await;
    // Something listens there that is no Redis.
    for words in [
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "-ERR no\r\n",
        "+OK\r\n",
        "$-1\r\n",
        ":5\r\n",
        "*1000000000\r\n",
        "$999999999999\r\n",
        "\0\0\0",
        "",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let server = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count_faults(1);
                tokio::spawn(async move {
                    let mut bytes = [0; 1024];
                    while stream.read(&mut bytes).await.is_ok_and(|length| length > 0) {
                        stream.write_all(words.as_bytes()).await.ok();
                    }
                });
            }
        });
        let s = Service::start(&by_redis(port)).await;
        // `$-1` is the answer of a Redis that knows no such key.
        s.expect(words, &sid("good"), &["503 session_backend_unavailable", "401 session_invalid"]).await;
        assert!(s.usage().resident_kib < s.baseline().resident_kib + 8192, "{words}");
        s.holds().await;
        s.stop().await;
        server.abort();
    }
}

async fn i15() {
    let redis = Redis::start(free_port().await).await;
    for n in 0..10 {
        redis.set(&format!("s{n}"), format!("{{\"user_id\":\"user-{n}\"}}")).await;
    }
    let proxy = Proxy::start(redis.port).await;
    let s = Service::start(&format!("server.max_in_flight = 2000\n{}", by_redis(proxy.port))).await;
    s.expect("before", &sid("s0"), &["200"]).await;
    proxy.set(Fault::Delay(Duration::from_millis(200)));
    let mut crowd = JoinSet::new();
    for n in 0..1000 {
        let s = s.clone();
        crowd.spawn(async move { (n % 10, s.one(&sid(&format!("s{}", n % 10))).await) });
    }
    count_requests(1000);
    let mut served = 0;
    for (n, answer) in crowd.join_all().await {
        match &*answer.outcome() {
            "200" => {
                assert_eq!(answer.subject(), format!("user-{n}"));
                served += 1;
            }
            other => assert_eq!(other, "503 session_backend_unavailable"),
        }
    }
    assert!(served >= 1 && proxy.most() <= 16, "{served} served over {} connections", proxy.most());
    proxy.set(Fault::None);
    s.expect("after", &sid("s3"), &["200"]).await;
    s.holds().await;
    s.stop().await;
}

/// A `PostgreSQL` that lets everybody in and then says `answer` to each question.
async fn postgres(answer: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            count_faults(1);
            tokio::spawn(async move {
                let mut bytes = vec![0; 4096];
                let _ = stream.read(&mut bytes).await;
                // AuthenticationOk, ReadyForQuery.
                stream.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await.ok();
                while stream.read(&mut bytes).await.is_ok_and(|length| length > 0) {
                    if answer.is_empty() {
                        continue;
                    }
                    stream.write_all(&answer).await.ok();
                }
            });
        }
    });
    port
}

fn database_error(code: &str, text: &str) -> Vec<u8> {
    let fields = format!("SERROR\0VERROR\0C{code}\0M{text}\0\0");
    let length = u32::try_from(fields.len() + 4).expect("short").to_be_bytes();
    [b"E".as_slice(), &length, fields.as_bytes(), b"Z\0\0\0\x05I"].concat()
}

async fn i17() {
    for (label, answer) in [
        ("schema missing", database_error("42P01", "relation does not exist")),
        ("read-only", database_error("25006", "cannot execute in a read-only transaction")),
        ("statement time-out", database_error("57014", "canceling statement due to statement timeout")),
        ("too many connections", database_error("53300", "sorry, too many clients already")),
        ("shutting down", database_error("57P01", "terminating connection")),
        ("silence", Vec::new()),
        ("garbage", b"\xff\xff\xff\xff\xff\xff".to_vec()),
        ("a vast message", b"D\x7f\xff\xff\xff\0\x01".to_vec()),
    ] {
        let port = postgres(answer).await;
        let s = Service::start(&section(
            "sql_session",
            &format!(
                "url = \"postgres://app:{UPSTREAM_SECRET}@127.0.0.1:{port}/app?sslmode=disable\"\ncookie = \"sid\"\nquery = \"SELECT user_id FROM sessions WHERE id = $1\""
            ),
        ))
        .await;
        for _ in 0..2 {
            let started = Instant::now();
            s.expect(label, &cookies(&format!("sid={COOKIE_VALUE}")), UNKNOWN).await;
            assert!(started.elapsed() < Duration::from_millis(2500), "{label}: {:?}", started.elapsed());
        }
        assert!(s.usage().resident_kib < s.baseline().resident_kib + 8192, "{label}");
        s.holds().await;
        s.stop().await;
    }
}

async fn killed() {
    let port = free_port().await;
    let redis = Redis::start(port).await;
    redis.set("good", "{\"user_id\":\"ann\"}").await;
    let s = Service::start(&by_redis(port)).await;
    s.expect("before", &sid("good"), &["200"]).await;
    drop(redis);
    for _ in 0..20 {
        s.expect("killed", &sid("good"), UNKNOWN).await;
    }
    let redis = Redis::start(port).await;
    redis.set("good", "{\"user_id\":\"ann\"}").await;
    for _ in 0..100 {
        if s.one(&sid("good")).await.status == 200 {
            s.holds().await;
            s.stop().await;
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("not back: {}", tail(&s.log()));
}

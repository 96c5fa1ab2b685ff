//! Session stores: a real Redis server, and fake Redis and `PostgreSQL` servers that reply with errors or malformed
//! data, or not at all.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::configs::one_extractor;
use crate::proxy::{FAULTS, Fault, Proxy};
use crate::sentinels::{COOKIE_VALUE, UPSTREAM_SECRET};
use crate::service::{Service, tail};
use crate::settings::ConfigBuilder;
use crate::wire::{post, post_raw};

const INVALID: &[&str] = &["401 session_invalid"];
const UNKNOWN: &[&str] = &["503 session_backend_unavailable"];

/// A Redis server, which is stopped when this value is dropped.
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
            .args([
                "--bind",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--save",
                "",
                "--dir",
            ])
            .arg(directory.path());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let server = command
            .spawn()
            .expect("redis-server is missing: run `make tools`");
        let redis = Self {
            port,
            server,
            _directory: directory,
        };
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return redis;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("redis-server does not start");
    }

    /// Sends one command, and returns the reply.
    async fn run(&self, words: &[&[u8]]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))
            .await
            .expect("Redis");
        stream.write_all(&command(words)).await.expect("Redis");
        let mut answer = vec![0; 4096];
        let length = stream.read(&mut answer).await.expect("an answer");
        let text = String::from_utf8_lossy(&answer[..length]).into_owned();
        assert!(!text.starts_with('-'), "{text}");
        text
    }

    async fn set(&self, id: &str, value: impl AsRef<[u8]>) {
        self.run(&[b"SET", format!("sess:{id}").as_bytes(), value.as_ref()])
            .await;
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
    TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port")
        .local_addr()
        .expect("an address")
        .port()
}

struct Stage {
    s: Arc<Service>,
    redis: Redis,
}

impl Stage {
    async fn start() -> Self {
        let redis = Redis::start(free_port().await).await;
        redis.set("good", "{\"user_id\":\"ann\"}").await;
        Self {
            s: Service::start(by_redis(redis.port)).await,
            redis,
        }
    }

    async fn finish(self) {
        drop(self.redis);
        self.s.finish().await;
    }
}

fn by_redis(port: u16) -> ConfigBuilder {
    let keys = format!("url = 'redis://127.0.0.1:{port}'\ncookie = 'sid'\nkey_prefix = 'sess:'");
    one_extractor("store", "redis_session", &keys)
}

pub fn cookies(header: &str) -> Vec<u8> {
    post(&format!("Cookie: {header}\r\n"))
}

fn sid(id: &str) -> Vec<u8> {
    cookies(&format!("sid={id}"))
}

#[tokio::test]
async fn serialized_object_in_a_session_is_401() {
    let s = Stage::start().await;
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
    s.s.expect("prototype", &sid("proto"), &["401 no_session"])
        .await;
    s.redis
        .set("twice", "{\"user_id\":\"ann\",\"user_id\":\"admin\"}")
        .await;
    s.s.expect("twice", &sid("twice"), INVALID).await;
    s.redis
        .set(
            "deep",
            format!("{{\"user_id\":\"ann\",\"x\":{}", "[".repeat(100_000)),
        )
        .await;
    s.s.expect("deep", &sid("deep"), INVALID).await;
    s.redis
        .set(
            "vast",
            format!(
                "{{\"user_id\":\"ann\",\"x\":\"{}\"}}",
                "x".repeat(2 * 1024 * 1024)
            ),
        )
        .await;
    s.s.expect("vast", &sid("vast"), INVALID).await;
    s.finish().await;
}

#[tokio::test]
async fn two_session_cookies_with_different_values_are_401() {
    let s = Stage::start().await;
    assert_eq!(
        s.s.expect("good", &sid("good"), &["200"]).await.subject(),
        "ann"
    );
    for headers in [
        "sid=good; sid=bad",
        "sid=bad; sid=good",
        "sid=; sid=good",
        "sid=good;sid=",
    ] {
        s.s.expect(headers, &cookies(headers), INVALID).await;
    }
    for headers in [
        "Cookie: sid=good\r\nCookie: sid=bad\r\n",
        "Cookie: sid=bad\r\nCookie: sid=good\r\n",
    ] {
        s.s.expect(headers, &post(headers), INVALID).await;
    }
    for headers in [
        "sid=good; sid=good",
        "sid=good; a=b; sid=good",
        "sid=good; sid",
    ] {
        assert_eq!(
            s.s.expect(headers, &cookies(headers), &["200"])
                .await
                .subject(),
            "ann"
        );
    }
    let twice = "Cookie: sid=good\r\nCookie: sid=good\r\n";
    assert_eq!(
        s.s.expect(twice, &post(twice), &["200"]).await.subject(),
        "ann"
    );
    s.finish().await;
}

#[tokio::test]
async fn malformed_or_unrelated_cookie_beside_a_valid_session_cookie_is_ignored() {
    let s = Stage::start().await;
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
        for around in [
            [b"sid=good; ".as_slice(), odd].concat(),
            [odd, b"; sid=good".as_slice()].concat(),
        ] {
            let answer =
                s.s.expect(
                    &odd.escape_ascii().to_string(),
                    &post_raw("Cookie", &around),
                    &["200"],
                )
                .await;
            assert_eq!(answer.subject(), "ann");
        }
    }
    s.finish().await;
}

#[tokio::test]
async fn session_id_with_redis_commands_is_looked_up_as_one_key() {
    let s = Stage::start().await;
    let mut monitor = TcpStream::connect(("127.0.0.1", s.redis.port))
        .await
        .expect("Redis");
    monitor
        .write_all(&command(&[b"MONITOR"]))
        .await
        .expect("Redis");
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
        s.s.expect(
            &id[..id.len().min(40)],
            &sid(id),
            &["401 session_invalid", "401 no_session", "200"],
        )
        .await;
    }
    for id in [
        &b"a\r\nFLUSHALL"[..],
        b"a\nFLUSHALL\r\n",
        b"a\0b",
        b"\xff",
        b"a\xffb",
        b"\x01",
    ] {
        s.s.expect(
            &id.escape_ascii().to_string(),
            &post_raw("Cookie", &[b"sid=".as_slice(), id].concat()),
            &["400 bad_request", "401 session_invalid"],
        )
        .await;
    }
    s.s.expect(
        "1 MiB",
        &sid(&"x".repeat(1024 * 1024)),
        &["431 headers_too_large"],
    )
    .await;
    s.redis.run(&[b"PING"]).await;
    let mut text = String::new();
    while !text.contains("\"PING\"") {
        let mut bytes = vec![0; 65_536];
        let length = timeout(Duration::from_secs(5), monitor.read(&mut bytes))
            .await
            .expect("lines")
            .expect("lines");
        text.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
    for line in text.lines().filter(|line| {
        !line.contains("\"PING\"") && !line.contains("CLIENT") && !line.contains("HELLO")
    }) {
        let words = line.split_once("] ").map_or(line, |(_, words)| words);
        assert!(
            words.starts_with("\"GETRANGE\" \"sess:")
                && words.ends_with("\" \"0\" \"1048576\"")
                && words.matches("\" \"").count() == 3,
            "{line}"
        );
    }
    assert!(!text.contains("\"FLUSHALL\"") && !text.contains("\"KEYS\""));
    s.s.expect("still there", &sid("good"), &["200"]).await;
    s.finish().await;
}

#[tokio::test]
async fn deleted_or_expired_session_is_401() {
    let s = Stage::start().await;
    s.redis.set("short", "{\"user_id\":\"bob\"}").await;
    s.s.expect("there", &sid("short"), &["200"]).await;
    s.redis.run(&[b"DEL", b"sess:short"]).await;
    s.s.expect("revoked", &sid("short"), INVALID).await;
    s.redis
        .run(&[
            b"SET",
            b"sess:brief",
            b"{\"user_id\":\"bob\"}",
            b"PX",
            b"50",
        ])
        .await;
    sleep(Duration::from_millis(100)).await;
    s.s.expect("over", &sid("brief"), INVALID).await;
    s.finish().await;
}

#[tokio::test]
async fn stored_value_of_another_type_or_without_a_user_is_401() {
    let s = Stage::start().await;
    s.redis.run(&[b"RPUSH", b"sess:list", b"x"]).await;
    s.redis
        .run(&[b"HSET", b"sess:hash", b"user_id", b"ann"])
        .await;
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
    for (id, value) in [("no-user", "{}"), ("nulled", "{\"user_id\":null}")] {
        s.redis.set(id, value).await;
        s.s.expect(id, &sid(id), &["401 no_session"]).await;
    }
    s.s.logs("session_corrupt", 1).await;
    s.finish().await;
}

#[tokio::test]
async fn failing_redis_is_503() {
    let redis = Redis::start(free_port().await).await;
    redis.set("good", "{\"user_id\":\"ann\"}").await;
    let proxy = Proxy::start(redis.port).await;
    let s = Service::start(by_redis(proxy.port)).await;
    for fault in FAULTS {
        proxy.set(Fault::None);
        s.expect("before", &sid("good"), &["200"]).await;
        proxy.set(fault);
        for _ in 0..3 {
            let started = Instant::now();
            s.expect(&format!("{fault:?}"), &sid("good"), UNKNOWN).await;
            assert!(
                started.elapsed() < Duration::from_millis(1500),
                "{fault:?}: {:?}",
                started.elapsed()
            );
        }
    }
    proxy.set(Fault::None);
    s.expect("after", &sid("good"), &["200"]).await;
    s.finish().await;
    let refused = Service::start(by_redis(1)).await;
    let started = Instant::now();
    refused.expect("refused", &sid("good"), UNKNOWN).await;
    assert!(started.elapsed() < Duration::from_secs(1));
    refused.finish().await;
    // The server at this port sends malformed replies, or replies of the wrong type.
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
                tokio::spawn(async move {
                    let mut bytes = [0; 1024];
                    while stream.read(&mut bytes).await.is_ok_and(|length| length > 0) {
                        stream.write_all(words.as_bytes()).await.ok();
                    }
                });
            }
        });
        let s = Service::start(by_redis(port)).await;
        // `$-1` means that the key does not exist, so 401 is allowed too.
        s.expect(
            words,
            &sid("good"),
            &["503 session_backend_unavailable", "401 session_invalid"],
        )
        .await;
        assert!(
            s.usage().resident_kib < s.baseline().resident_kib + 8192,
            "{words}"
        );
        s.finish().await;
        server.abort();
    }
}

#[tokio::test]
async fn thousand_requests_to_a_slow_store_use_at_most_16_connections() {
    let redis = Redis::start(free_port().await).await;
    for n in 0..10 {
        redis
            .set(&format!("s{n}"), format!("{{\"user_id\":\"user-{n}\"}}"))
            .await;
    }
    let proxy = Proxy::start(redis.port).await;
    // The proxy runs in this process, which is slow while it opens 1,000 connections, so the timeout is longer.
    let limits = "server.max_in_flight = 2000\nextractors.store.timeout = '2s'";
    let s = Service::start(by_redis(proxy.port).with(limits)).await;
    s.expect("before", &sid("s0"), &["200"]).await;
    proxy.set(Fault::Delay(Duration::from_millis(200)));
    let mut tasks = JoinSet::new();
    for n in 0..1000 {
        let s = s.clone();
        tasks.spawn(async move { (n % 10, s.one(&sid(&format!("s{}", n % 10))).await) });
    }
    let mut served = 0;
    for (n, answer) in tasks.join_all().await {
        match &*answer.outcome() {
            "200" => {
                assert_eq!(answer.subject(), format!("user-{n}"));
                served += 1;
            }
            other => assert_eq!(other, "503 session_backend_unavailable"),
        }
    }
    assert!(
        served >= 1 && proxy.most() <= 16,
        "{served} served over {} connections",
        proxy.most()
    );
    proxy.set(Fault::None);
    s.expect("after", &sid("s3"), &["200"]).await;
    drop(redis);
    s.finish().await;
}

/// Starts a fake `PostgreSQL` server that accepts every login, and responds to each later message with `answer`, or not
/// at all if `answer` is empty. Returns its port.
async fn postgres(answer: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut bytes = vec![0; 4096];
                let _ = stream.read(&mut bytes).await;
                // Send the messages AuthenticationOk and ReadyForQuery.
                stream
                    .write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I")
                    .await
                    .ok();
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
    let length = u32::try_from(fields.len() + 4)
        .expect("short")
        .to_be_bytes();
    [b"E".as_slice(), &length, fields.as_bytes(), b"Z\0\0\0\x05I"].concat()
}

#[tokio::test]
async fn failing_database_is_503() {
    for (label, answer) in [
        (
            "schema missing",
            database_error("42P01", "relation does not exist"),
        ),
        (
            "read-only",
            database_error("25006", "cannot execute in a read-only transaction"),
        ),
        (
            "statement timeout",
            database_error("57014", "canceling statement due to statement timeout"),
        ),
        (
            "too many connections",
            database_error("53300", "sorry, too many clients already"),
        ),
        (
            "shutting down",
            database_error("57P01", "terminating connection"),
        ),
        ("no response", Vec::new()),
        ("garbage", b"\xff\xff\xff\xff\xff\xff".to_vec()),
        ("a vast message", b"D\x7f\xff\xff\xff\0\x01".to_vec()),
    ] {
        let port = postgres(answer).await;
        let s = Service::start(one_extractor("web", 
            "sql_session",
            &format!(
                "url = \"postgres://app:{UPSTREAM_SECRET}@127.0.0.1:{port}/app?sslmode=disable\"\ncookie = \"sid\"\nquery = \"SELECT user_id FROM sessions WHERE id = $1\""
            ),
        ))
        .await;
        for _ in 0..2 {
            let started = Instant::now();
            s.expect(label, &cookies(&format!("sid={COOKIE_VALUE}")), UNKNOWN)
                .await;
            assert!(
                started.elapsed() < Duration::from_millis(2500),
                "{label}: {:?}",
                started.elapsed()
            );
        }
        assert!(
            s.usage().resident_kib < s.baseline().resident_kib + 8192,
            "{label}"
        );
        s.finish().await;
    }
}

#[tokio::test]
async fn killed_redis_is_503_until_it_restarts() {
    let port = free_port().await;
    let redis = Redis::start(port).await;
    redis.set("good", "{\"user_id\":\"ann\"}").await;
    let s = Service::start(by_redis(port)).await;
    s.expect("before", &sid("good"), &["200"]).await;
    drop(redis);
    for _ in 0..20 {
        s.expect("killed", &sid("good"), UNKNOWN).await;
    }
    let redis = Redis::start(port).await;
    redis.set("good", "{\"user_id\":\"ann\"}").await;
    for _ in 0..100 {
        if s.one(&sid("good")).await.status == 200 {
            s.finish().await;
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("not back: {}", tail(&s.log()));
}

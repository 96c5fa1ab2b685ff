//! Tests of secrets and configurations that change while the service runs. A changed file or SIGHUP starts a reload: a
//! valid change is loaded as a whole, an invalid one changes nothing, and no request fails.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::request::Parts;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use rollout_token::Secret;
use rollout_token::clock::{Clock, ManualClock};
use rollout_token::config::{Problems, Section, Sources};
use rollout_token::http::app::App;
use rollout_token::http::server::Drain;
use rollout_token::session::backends::Context;
use rollout_token::session::contract;
use rollout_token::session::kind::Kind;
use rollout_token::session::registry::Registry;
use rollout_token::session::types::{Extracted, Readiness, SessionExtractor};
use rollout_token::settings;
use rollout_token::settings::reload::Reloader;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::backend::Backend;
use crate::binary::{FAR, Process, binary, good_session};
use crate::helpers::{BY_HEADER, CLIENT_SECRET, NOW, SESSION_SECRET, client, client_variables};
use crate::idp::Idp;

const OTHER_SECRET: &str = "rotated-secret-rotated-secret-rotated-secret-rotated-secret-rotated";
const OTHER_SESSION_SECRET: &str = "rotated-session-secret-rotated-session-secret";

/// A service that polls the file of its client secret every 50 ms.
fn start_with(file: &Path) -> Process {
    Process::start(
        binary(&["serve"])
            .env_remove("ROLLOUT_CLIENT_SECRET")
            .env("ROLLOUT_CLIENT_SECRET_FILE", file)
            .env("ROLLOUT__RELOAD__POLL_INTERVAL", "50ms")
            .env("ROLLOUT__RATE_LIMIT__PER_MINUTE", "0"),
    )
}

fn session_signed_with(secret: &str) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    let claims = json!({"sub": "user-1", "exp": FAR});
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}

fn is_signed_with(token: &str, secret: &str) -> bool {
    let validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS512);
    let key = jsonwebtoken::DecodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::decode::<Value>(token, &key, &validation).is_ok()
}

/// The outcome of one request: a token, or the status and code of a refusal.
async fn ask(url: &str, session: &str, origin: Option<&str>) -> Result<String, (u16, String)> {
    let mut request = client().post(url).bearer_auth(session);
    if let Some(origin) = origin {
        request = request.header("origin", origin);
    }
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    let body: Value = response.json().await.expect("JSON");
    match body["token"].as_str() {
        Some(token) => Ok(token.to_owned()),
        None => Err((status, body["code"].as_str().expect("a code").to_owned())),
    }
}

async fn token(process: &Process) -> String {
    ask(&process.url(), &good_session(), None)
        .await
        .expect("a token")
}

#[tokio::test]
async fn unusable_new_secret_does_not_replace_the_old_one() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    fs::write(&file, CLIENT_SECRET).unwrap();
    let mut process = start_with(&file);
    let path = file.as_path();
    let breaks: [(&str, &dyn Fn()); 4] = [
        ("half written", &|| fs::write(path, "half").unwrap()),
        ("empty", &|| fs::write(path, "").unwrap()),
        ("a newline alone", &|| fs::write(path, "\n").unwrap()),
        ("deleted", &|| fs::remove_file(path).unwrap()),
    ];
    for (case, break_it) in breaks {
        break_it();
        let failed = process.line_with("config_reload_failed");
        assert!(
            failed.contains("client_secret") && !failed.contains("half\""),
            "{case}: {failed}"
        );
        assert!(
            is_signed_with(&token(&process).await, CLIENT_SECRET),
            "{case}: the old secret stays in use"
        );
        // The reload is retried without a signal.
        process.line_with("config_reload_failed");
    }
    fs::write(&file, OTHER_SECRET).unwrap();
    process.line_with("config_reloaded");
    assert!(is_signed_with(&token(&process).await, OTHER_SECRET));
}

/// A directory of secrets laid out as Kubernetes mounts it: the files are symlinks through `..data`, which every update
/// replaces.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new(files: [(&str, &str); 2]) -> Self {
        let mount = Self(tempfile::tempdir().unwrap());
        mount.swap("..first", files);
        for (name, _) in files {
            symlink(Path::new("..data").join(name), mount.path(name)).unwrap();
        }
        mount
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    /// Replaces both files atomically.
    fn swap(&self, version: &str, files: [(&str, &str); 2]) {
        fs::create_dir(self.path(version)).unwrap();
        for (name, content) in files {
            fs::write(self.path(version).join(name), content).unwrap();
        }
        symlink(version, self.path("..data_tmp")).unwrap();
        fs::rename(self.path("..data_tmp"), self.path("..data")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn secrets_swapped_together_are_reloaded_together_under_load() {
    let mount = Mount::new([("client", CLIENT_SECRET), ("session", SESSION_SECRET)]);
    let mut process = Process::start(
        binary(&["serve"])
            .env_remove("ROLLOUT_CLIENT_SECRET")
            .env_remove("ROLLOUT__EXTRACTORS__BEARER__SECRET")
            .env("ROLLOUT_CLIENT_SECRET_FILE", mount.path("client"))
            .env(
                "ROLLOUT__EXTRACTORS__BEARER__SECRET_FILE",
                mount.path("session"),
            )
            .env("ROLLOUT__RELOAD__POLL_INTERVAL", "20ms")
            .env("ROLLOUT__RATE_LIMIT__PER_MINUTE", "0"),
    );
    let secrets = [
        (SESSION_SECRET, CLIENT_SECRET),
        (OTHER_SESSION_SECRET, OTHER_SECRET),
    ];
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let load = secrets.map(|(session_secret, client_secret)| {
        let (url, stopped) = (process.url(), stopped.clone());
        tokio::spawn(async move {
            let session = session_signed_with(session_secret);
            let (mut good, mut refused) = (0, 0);
            while !*stopped.borrow() {
                match ask(&url, &session, None).await {
                    Ok(token) => {
                        assert!(
                            is_signed_with(&token, client_secret),
                            "the session secret and the client secret belong to different versions"
                        );
                        good += 1;
                    }
                    Err(refusal) => {
                        assert_eq!(refusal, (401, "session_invalid".to_owned()));
                        refused += 1;
                    }
                }
            }
            (good, refused)
        })
    });
    for (round, (session, client)) in secrets.into_iter().cycle().skip(1).take(4).enumerate() {
        mount.swap(
            &format!("..{round}"),
            [("client", client), ("session", session)],
        );
        process.line_with("config_reloaded");
    }
    stop.send_replace(true);
    for load in load {
        let (good, refused) = load.await.expect("the task that sends requests failed");
        assert!(good > 0 && refused > 0, "{good} and {refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn request_during_a_reload_uses_only_one_version_of_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rollout.toml");
    let write = |origin: &str, secret: &str| {
        let text = format!("client_secret = \"{secret}\"\n[origins]\nallowed = [\"{origin}\"]\n");
        // A new file is written and then replaces the configuration file, as editors and deployments do.
        fs::write(directory.path().join("new"), text).unwrap();
        fs::rename(directory.path().join("new"), &file).unwrap();
    };
    let versions = [
        ("https://old.example", CLIENT_SECRET),
        ("https://new.example", OTHER_SECRET),
    ];
    write(versions[0].0, versions[0].1);
    let mut process = Process::start(
        binary(&["--config", file.to_str().unwrap(), "serve"])
            .env_remove("ROLLOUT_CLIENT_SECRET")
            .env("ROLLOUT__RATE_LIMIT__PER_MINUTE", "0"),
    );
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let load = versions.map(|(origin, secret)| {
        let (url, stopped) = (process.url(), stopped.clone());
        tokio::spawn(async move {
            while !*stopped.borrow() {
                match ask(&url, &good_session(), Some(origin)).await {
                    Ok(token) => {
                        assert!(
                            is_signed_with(&token, secret),
                            "the allowed origin and the client secret belong to different versions"
                        );
                    }
                    Err(refusal) => assert_eq!(refusal, (403, "origin_not_allowed".to_owned())),
                }
            }
        })
    });
    for (origin, secret) in versions.into_iter().cycle().skip(1).take(4) {
        write(origin, secret);
        process.signal(Signal::HUP);
        process.line_with("config_reloaded");
        let token = ask(&process.url(), &good_session(), Some(origin))
            .await
            .expect("a token");
        assert!(is_signed_with(&token, secret));
    }
    stop.send_replace(true);
    for load in load {
        load.await.expect("the task that sends requests failed");
    }
}

#[tokio::test]
async fn last_change_applies_after_100_sighups() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    fs::write(&file, CLIENT_SECRET).unwrap();
    let mut process = start_with(&file);
    for n in 0..100 {
        if n == 99 {
            fs::write(directory.path().join("new"), OTHER_SECRET).unwrap();
            fs::rename(directory.path().join("new"), &file).unwrap();
        }
        process.signal(Signal::HUP);
        assert!(!token(&process).await.is_empty());
    }
    let mut reloads = 0;
    while !is_signed_with(&token(&process).await, OTHER_SECRET) {
        process.line_with("config_reloaded");
        reloads += 1;
        assert!(reloads <= 101, "more reloads than signals");
    }
}

#[tokio::test]
async fn reload_during_the_drain_applies_and_the_process_exits_with_0() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    fs::write(&file, CLIENT_SECRET).unwrap();
    let mut process = start_with(&file);
    process.signal(Signal::TERM);
    process.line_with("stop signal received");
    fs::write(&file, "half").unwrap();
    process.line_with("config_reload_failed");
    assert!(is_signed_with(&token(&process).await, CLIENT_SECRET));
    fs::write(&file, OTHER_SECRET).unwrap();
    process.signal(Signal::HUP);
    process.line_with("config_reloaded");
    assert!(
        is_signed_with(&token(&process).await, OTHER_SECRET),
        "a request during the drain uses the new secret"
    );
    let (code, log) = process.end();
    assert_eq!(code, Some(0), "{log}");
}

/// The provider responds with 503 after the first token, so only cached keys can verify the session.
#[tokio::test]
async fn rotated_client_secret_is_used_while_the_provider_is_down_and_cached_keys_are_kept() {
    let idp = Idp::start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    fs::write(&file, CLIENT_SECRET).unwrap();
    let mut process = Process::start(
        binary(&["serve"])
            .env_remove("ROLLOUT_CLIENT_SECRET")
            .env("ROLLOUT_CLIENT_SECRET_FILE", &file)
            .env("ROLLOUT__SESSION__EXTRACTORS", "jwt,cookie,bearer")
            .env("ROLLOUT__EXTRACTORS__JWT__JWKS_URL", idp.jwks_url())
            .env("ROLLOUT__EXTRACTORS__JWT__ISSUERS", "https://idp.example")
            .env("ROLLOUT__EXTRACTORS__JWT__AUDIENCES", "my-app")
            .env("ROLLOUT__EXTRACTORS__JWT__FROM", "cookie:idp")
            .env("ROLLOUT__RELOAD__POLL_INTERVAL", "50ms"),
    );
    let session = idp.token(
        &json!({"iss": "https://idp.example", "aud": "my-app", "sub": "user-1", "exp": FAR}),
    );
    let ask = |url: String| {
        let request = client()
            .post(url)
            .header("cookie", format!("idp={session}"));
        async { request.send().await.unwrap().json::<Value>().await.unwrap() }
    };
    let before = ask(process.url()).await;
    assert!(is_signed_with(
        before["token"].as_str().expect("a token"),
        CLIENT_SECRET
    ));
    idp.down.store(true, Ordering::SeqCst);
    fs::write(&file, OTHER_SECRET).unwrap();
    process.line_with("config_reloaded");
    let after = ask(process.url()).await;
    assert!(is_signed_with(
        after["token"].as_str().expect("a token"),
        OTHER_SECRET
    ));
    assert_eq!(
        idp.visits.load(Ordering::SeqCst),
        1,
        "the keys were not fetched again"
    );
}

/// A service in this process, without sockets. Its reloads use Tokio's clock, which a test can pause.
struct Reloading {
    directory: tempfile::TempDir,
    app: Arc<App>,
    ask: tokio::sync::mpsc::Sender<()>,
    ok: usize,
    failed: usize,
}

impl Reloading {
    /// Starts the service with this configuration in `rollout.toml`, and the client secret in `secret`.
    fn start(registry: Registry, toml: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (toml_file, secret) = (
            directory.path().join("rollout.toml"),
            directory.path().join("secret"),
        );
        fs::write(&toml_file, toml).unwrap();
        fs::write(&secret, CLIENT_SECRET).unwrap();
        let mut environment = client_variables();
        environment.remove("ROLLOUT_CLIENT_SECRET");
        environment.insert(
            "ROLLOUT_CLIENT_SECRET_FILE".to_owned(),
            secret.to_str().unwrap().to_owned(),
        );
        let sources = Sources {
            files: vec![toml_file],
            environment,
            ..Sources::default()
        };
        let context = Context::new(Clock::new(ManualClock::at(NOW)), Arc::default());
        let settings = settings::load(&sources, &registry, &context).expect("a good configuration");
        let app = App::new(settings, &registry, context.clone(), Drain::default());
        app.live().settings.chain.start();
        let ask = Reloader::new(app.clone(), sources, registry, context).spawn();
        Self {
            directory,
            app,
            ask,
            ok: 0,
            failed: 0,
        }
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.directory.path().join(name), content).unwrap();
    }

    fn secret(&self) -> Vec<u8> {
        self.app.live().settings.client.secret.expose().to_vec()
    }

    fn count(&self, result: &str) -> usize {
        let metrics = self.app.metrics.render();
        let line = format!("rollout_token_config_reloads_total{{result=\"{result}\"}} ");
        metrics
            .lines()
            .find_map(|found| found.strip_prefix(&line))
            .map_or(0, |count| count.parse().unwrap())
    }

    /// Requests a reload. Returns whether it succeeded.
    async fn reload(&mut self) -> bool {
        self.ask.send(()).await.expect("it listens");
        loop {
            let (ok, failed) = (self.count("ok"), self.count("error"));
            if (ok, failed) != (self.ok, self.failed) {
                let succeeded = ok > self.ok;
                (self.ok, self.failed) = (ok, failed);
                return succeeded;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Tokio's clock is paused: a second takes no real time, and passes only while no file is being read.
#[tokio::test(start_paused = true)]
async fn half_written_secret_is_never_loaded() {
    let service = Reloading::start(Registry::builtin(), BY_HEADER);
    // A prefix of the secret, but longer than the minimum length.
    service.write("secret", &OTHER_SECRET[..20]);
    service.ask.send(()).await.expect("it listens");
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(service.secret(), CLIENT_SECRET.as_bytes());
    service.write("secret", OTHER_SECRET);
    let began = tokio::time::Instant::now();
    while service.secret() != OTHER_SECRET.as_bytes() {
        assert_eq!(service.secret(), CLIENT_SECRET.as_bytes(), "half a secret");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(
        began.elapsed() >= Duration::from_secs(1),
        "the new secret was loaded before two reads one second apart agreed"
    );
    assert_eq!((service.count("ok"), service.count("error")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn configuration_half_written_at_sighup_is_loaded_once_complete() {
    let service = Reloading::start(Registry::builtin(), BY_HEADER);
    service.write("rollout.toml", "[session]\nextractors = [\"pro");
    service.ask.send(()).await.expect("it listens");
    tokio::time::sleep(Duration::from_millis(500)).await;
    service.write(
        "rollout.toml",
        format!("{BY_HEADER}[origins]\nallowed = [\"https://app.example\"]"),
    );
    while service.count("ok") == 0 {
        assert_eq!(
            service.count("error"),
            0,
            "{}",
            service.app.metrics.render()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(
        service
            .app
            .live()
            .settings
            .effective()
            .to_string()
            .contains("https://app.example")
    );
}

/// The test runs on one thread, so that a blocking read would hang it.
#[tokio::test]
async fn file_that_blocks_on_read_delays_only_the_reload() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let service = Reloading::start(Registry::builtin(), BY_HEADER);
    let file = service.directory.path().join("secret");
    fs::remove_file(&file).unwrap();
    mknodat(CWD, &file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a named pipe");
    service.ask.send(()).await.expect("it listens");
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(service.secret(), CLIENT_SECRET.as_bytes());
    // Opening the pipe for writing blocks until it has a reader.
    tokio::task::spawn_blocking(move || fs::write(file, OTHER_SECRET))
        .await
        .unwrap()
        .unwrap();
    while service.secret() != OTHER_SECRET.as_bytes() {
        tokio::task::yield_now().await;
    }
}

/// An extractor that must not be started twice. With `waits = true` in its section, it never becomes ready.
#[derive(Debug)]
struct Counted {
    waits: bool,
    starts: AtomicUsize,
}

#[derive(Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CountedConfig {
    waits: bool,
    secret: Option<Secret>,
}

impl Counted {
    fn build(section: &Section<'_>, _: &Context) -> Result<Arc<dyn SessionExtractor>, Problems> {
        let mut problems = Problems::default();
        let config: CountedConfig = section.read(&mut problems);
        section.secret("secret", config.secret, &mut problems);
        problems.or(Arc::new(Self {
            waits: config.waits,
            starts: AtomicUsize::new(0),
        }))
    }

    fn registry() -> Registry {
        Registry::builtin().with("counted", Kind::new(Self::build))
    }
}

impl SessionExtractor for Counted {
    fn extract<'a>(&'a self, _: &'a Parts) -> BoxFuture<'a, Extracted> {
        ready(Ok(None)).boxed()
    }

    fn start(&self) {
        assert_eq!(
            self.starts.fetch_add(1, Ordering::SeqCst),
            0,
            "started twice"
        );
    }

    fn readiness(&self) -> Readiness {
        if self.waits {
            Readiness::Waiting("nothing")
        } else {
            Readiness::Ready
        }
    }
}

const COUNTED: &str = "session.extractors = [\"counted\"]\n[extractors.counted]\n";

impl Reloading {
    /// The extractor that is currently in use.
    fn extractor(&self) -> Arc<dyn SessionExtractor> {
        self.app.live().settings.chain.extractors()[0]
            .extractor
            .clone()
    }
}

#[tokio::test(start_paused = true)]
async fn extractor_is_replaced_at_reload_only_if_its_section_files_or_settings_changed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("session-secret");
    fs::write(&file, SESSION_SECRET).unwrap();
    let toml = format!("{COUNTED}secret_file = {file:?}\n");
    let mut service = Reloading::start(Counted::registry(), &toml);
    let first = service.extractor();
    let is = |one: &Arc<dyn SessionExtractor>, other: &Arc<dyn SessionExtractor>| {
        std::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
    };

    service.write("secret", OTHER_SECRET);
    assert!(service.reload().await);
    assert_eq!(service.secret(), OTHER_SECRET.as_bytes());
    service.write("rollout.toml", format!("{toml}[token]\nttl = \"5m\"\n"));
    assert!(service.reload().await);
    assert!(
        is(&first, &service.extractor()),
        "a change of client_secret or token.ttl must not replace the extractor"
    );

    fs::write(&file, OTHER_SESSION_SECRET).unwrap();
    assert!(service.reload().await);
    let second = service.extractor();
    assert!(!is(&first, &second), "its file changed");

    service.write("rollout.toml", format!("{toml}subject = \"{{id}}\"\n"));
    assert!(service.reload().await);
    let third = service.extractor();
    assert!(!is(&second, &third), "its section changed");

    service.write(
        "rollout.toml",
        format!("{toml}subject = \"{{id}}\"\n[token]\ncap_to_session = true\n"),
    );
    assert!(service.reload().await);
    assert!(
        !is(&third, &service.extractor()),
        "the extractor depends on token.cap_to_session"
    );
}

#[tokio::test]
async fn max_waiting_of_a_kept_extractor_is_recomputed_at_reload() {
    let (hung, mut calls) = Backend::hung().await;
    let config = |names: &[&str], max_in_flight: usize| {
        let url = hung.url("/me");
        let sections = names.iter().map(|name| {
            format!(
                "[extractors.{name}]\nkind = 'session_endpoint'\nurl = '{url}'\ncookies = ['{name}']\n\
                 subject = '{name}:{{sub}}'\ntimeout = '5s'\n"
            )
        });
        format!(
            "session.extractors = {names:?}\nserver.max_in_flight = {max_in_flight}\n{}",
            sections.collect::<String>()
        )
    };
    let mut service = Reloading::start(Registry::builtin(), &config(&["a"], 8));
    let kept = service.extractor();
    let mut waiting = tokio::task::JoinSet::new();
    let mut expected = 0;
    // `max_waiting` is `max_in_flight` divided by (backends + 1).
    for (names, max_in_flight, places) in [
        (&["a"][..], 8, 4),
        (&["a", "b", "c"], 8, 2),
        (&["a", "b", "c"], 16, 4),
        (&["a"], 16, 8),
    ] {
        service.write("rollout.toml", config(names, max_in_flight));
        assert!(service.reload().await);
        assert!(
            std::ptr::addr_eq(Arc::as_ptr(&kept), Arc::as_ptr(&service.extractor())),
            "the section of the extractor a did not change"
        );
        for n in 0..max_in_flight {
            let extractor = kept.clone();
            waiting.spawn(async move {
                let request = contract::request(&[("cookie", &format!("a={expected}-{n}"))]);
                extractor.extract(&request).await
            });
        }
        for _ in places..max_in_flight {
            let refused = waiting.join_next().await.unwrap().unwrap();
            let reason = refused.expect_err("the backend sends no response").reason();
            assert_eq!(reason, "backend_busy", "{names:?} of {max_in_flight}");
        }
        expected += places;
        calls.wait_for(|count| *count >= expected).await.unwrap();
        assert_eq!(hung.visits(), expected, "{names:?} of {max_in_flight}");
        waiting.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn new_client_secret_equal_to_a_session_secret_is_refused_at_reload() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("session-secret");
    fs::write(&file, SESSION_SECRET).unwrap();
    let mut service = Reloading::start(
        Counted::registry(),
        &format!("{COUNTED}secret_file = {file:?}\n"),
    );
    service.write("secret", SESSION_SECRET);
    assert!(!service.reload().await);
    assert_eq!(service.secret(), CLIENT_SECRET.as_bytes());
}

#[tokio::test(start_paused = true)]
async fn unready_section_is_refused_at_reload_unless_the_client_secret_changed() {
    let mut service = Reloading::start(Counted::registry(), COUNTED);
    service.write("rollout.toml", format!("{COUNTED}waits = true\n"));
    assert!(
        !service.reload().await,
        "an extractor that is not ready must not replace a ready one"
    );
    service.write("secret", OTHER_SECRET);
    assert!(service.reload().await);
    assert_eq!(service.secret(), OTHER_SECRET.as_bytes());
}

/// A custom extractor may panic while it is built.
#[tokio::test(start_paused = true)]
async fn reload_after_a_panic_during_a_reload_succeeds() {
    static PANICS: AtomicBool = AtomicBool::new(false);
    static BUILT: AtomicUsize = AtomicUsize::new(0);
    fn build(_: &Section<'_>, _: &Context) -> Result<Arc<dyn SessionExtractor>, Problems> {
        BUILT.fetch_add(1, Ordering::SeqCst);
        assert!(!PANICS.load(Ordering::SeqCst), "a bug");
        Ok(Arc::new(NotPresent))
    }
    let registry = Registry::builtin().with("mine", Kind::new(build));
    let toml = "[session]\nextractors = [\"mine\"]\n[extractors.mine]\n";
    let mut service = Reloading::start(registry, toml);
    for panics in [true, false] {
        PANICS.store(panics, Ordering::SeqCst);
        assert_eq!(service.reload().await, !panics);
    }
    assert_eq!(BUILT.load(Ordering::SeqCst), 3);
}

#[derive(Debug)]
struct NotPresent;

impl SessionExtractor for NotPresent {
    fn extract<'a>(&'a self, _: &'a Parts) -> BoxFuture<'a, Extracted> {
        ready(Ok(None)).boxed()
    }
}

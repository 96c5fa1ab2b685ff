//! Everything that the service must survive: each row of the catalogue is a named case here, run from
//! outside against the release binary. The rows are in one file a group; `--help` says how to run them.

// This is a test without libtest's harness, so clippy does not see that it is one.
#![allow(missing_debug_implementations, reason = "nothing of this is printed")]
#![allow(
    clippy::cast_precision_loss,
    clippy::similar_names,
    reason = "figures are small, and there are many names"
)]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a case fails by panicking")]

mod a_framing;
mod b_slow;
mod c_tokens;
mod clock;
mod d_claims;
mod e_keys;
mod f_whoami;
mod g_callers;
mod i_stores;
mod j_introspection;
mod p_lifecycle;
mod panicking;
#[allow(dead_code, reason = "the tests of the stores ask it for more")]
#[path = "../stores/proxy.rs"]
mod proxy;
mod q_configuration;
mod report;
mod rows;
mod service;
mod soak;
mod tokens;
mod upstream;
mod wire;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use rows::check_rows;
use service::Service;

const HELP: &str = "\
Attacks the release binary and checks that it survives.

  faults [--smoke] [--list] [--soak REQUESTS] [--binary PATH] [NAME…]

  --smoke        only the cases that are done within a minute together
  --list         prints the cases instead of running them
  --soak REQUESTS  no cases, but so many requests, and a table of the memory
  --binary PATH  the program under test (target/release/rollout-token)
  NAME           runs only the cases whose names begin with, or contain, one of these
";

#[expect(clippy::disallowed_methods, reason = "the driver asks itself which of its two programs it is")]
fn is_service() -> bool {
    std::env::var_os(SERVE).is_some()
}

/// The longest that any case takes.
const PATIENCE: Duration = Duration::from_secs(300);

/// How a case is run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// In turn with the others of its group, against the group's service.
    Quick,
    /// Beside all others, against a service of its own: mostly waiting.
    Waiting(u64),
    /// Alone, after all others: it takes the whole machine.
    Heavy(u64),
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Case {
    name: &'static str,
    manner: Manner,
    work: Work,
}

/// The cases of one file.
pub struct Group {
    name: &'static str,
    service: Option<Arc<Service>>,
    cases: Vec<Case>,
}

impl Group {
    /// `service` is looked at after each quick case.
    pub fn new(name: &'static str, service: Option<Arc<Service>>) -> Self {
        Self { name, service, cases: Vec::new() }
    }

    fn add(&mut self, name: &'static str, manner: Manner, work: impl Future<Output = ()> + Send + 'static) {
        self.cases.push(Case { name, manner, work: Box::pin(work) });
    }

    pub fn quick(&mut self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.add(name, Manner::Quick, work);
    }

    /// `seconds` is about how long it takes; the smoke test has those of up to ten.
    pub fn waiting(
        &mut self,
        name: &'static str,
        seconds: u64,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        self.add(name, Manner::Waiting(seconds), work);
    }

    /// `seconds` as above; the smoke test has those of up to three.
    pub fn heavy(
        &mut self,
        name: &'static str,
        seconds: u64,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        self.add(name, Manner::Heavy(seconds), work);
    }
}

impl Manner {
    fn is_in_smoke(self) -> bool {
        match self {
            Self::Quick => true,
            Self::Waiting(seconds) => seconds <= 10,
            Self::Heavy(seconds) => seconds <= 3,
        }
    }
}

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
}

impl Tally {
    fn note(&mut self, name: &str, took: Duration, outcome: &Result<(), String>) {
        let seconds = took.as_secs_f64();
        match outcome {
            Ok(()) => {
                self.passed += 1;
                println!("ok    {seconds:7.2} s  {name}");
            }
            Err(why) => {
                self.failed += 1;
                println!("FAIL  {seconds:7.2} s  {name}\n      {why}");
            }
        }
    }
}

struct Options {
    smoke: bool,
    list: bool,
    soak: Option<u64>,
    binary: PathBuf,
    names: Vec<String>,
}

impl Options {
    fn of(arguments: impl Iterator<Item = String>) -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let binary = root.join("target/release/rollout-token");
        let mut options = Self { smoke: false, list: false, soak: None, binary, names: Vec::new() };
        let mut arguments = arguments.skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--smoke" => options.smoke = true,
                "--list" => options.list = true,
                "--soak" => {
                    options.soak = arguments.next().and_then(|count| count.parse().ok());
                    assert!(options.soak.is_some(), "--soak REQUESTS");
                }
                "--binary" => options.binary = arguments.next().expect("--binary PATH").into(),
                "--help" | "-h" => {
                    print!("{HELP}");
                    std::process::exit(0);
                }
                name => options.names.push(name.to_owned()),
            }
        }
        options
    }

    fn wants(&self, case: &Case) -> bool {
        (self.names.is_empty() || self.names.iter().any(|name| is_named(case.name, name)))
            && (!self.smoke || case.manner.is_in_smoke())
    }
}

/// `A1` is the row and its neighbours but not `A13`; a longer word stands anywhere.
fn is_named(case: &str, name: &str) -> bool {
    let row = case.split([' ', '+']).next().unwrap_or_default();
    row == name || (name.len() > 3 && case.contains(name)) || (name.len() == 1 && row.starts_with(name))
}

/// If this is set, the driver is a service itself, with an extractor that panics.
pub const SERVE: &str = "ROLLOUT_FAULTS_SERVE";

fn main() {
    if is_service() {
        panicking::serve();
        return;
    }
    let options = Options::of(std::env::args());
    service::use_binary(&options.binary);
    report::open_files();
    // What went wrong is printed with its case; where it did is all that is missing there.
    std::panic::set_hook(Box::new(|panic| {
        if std::thread::current().name() == Some("main") {
            return println!("{panic}");
        }
        println!("      at {}", panic.location().map(ToString::to_string).unwrap_or_default());
    }));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    if let Some(requests) = options.soak {
        std::process::exit(i32::from(!runtime.block_on(soak::run(requests))));
    }
    let tally = runtime.block_on(run(&options));
    if !options.list {
        println!("{}", report::figures());
        println!("{} passed, {} failed", tally.passed, tally.failed);
    }
    std::process::exit(i32::from(tally.failed > 0));
}

async fn run(options: &Options) -> Tally {
    let mut groups = groups().await;
    let names: Vec<&str> = groups.iter().flat_map(|group| group.cases.iter().map(|case| case.name)).collect();
    if options.names.is_empty() {
        check_rows(&names);
    }
    if options.list {
        for name in names {
            println!("{name}");
        }
        return Tally::default();
    }
    let mut tally = Tally::default();
    let (mut waiting, mut heavy) = (JoinSet::new(), Vec::new());
    for group in &mut groups {
        group.cases.retain(|case| options.wants(case));
        let (own, quick): (Vec<Case>, Vec<Case>) =
            std::mem::take(&mut group.cases).into_iter().partition(|case| case.manner != Manner::Quick);
        group.cases = quick;
        for case in own {
            match case.manner {
                Manner::Heavy(_) => heavy.push(case),
                _ => {
                    waiting.spawn(timed(case.name, case.work));
                }
            }
        }
    }
    for group in groups {
        run_quick(group, &mut tally).await;
    }
    while let Some(done) = waiting.join_next().await {
        let (name, took, outcome) = done.expect("a case's frame");
        tally.note(name, took, &outcome);
    }
    for case in heavy {
        let (name, took, outcome) = timed(case.name, case.work).await;
        tally.note(name, took, &outcome);
    }
    tally
}

async fn run_quick(group: Group, tally: &mut Tally) {
    if group.cases.is_empty() {
        return;
    }
    for case in group.cases {
        let service = group.service.clone();
        let work = async move {
            case.work.await;
            if let Some(service) = service {
                service.holds().await;
            }
        };
        let (name, took, outcome) = timed(case.name, Box::pin(work)).await;
        tally.note(name, took, &outcome);
        if let (Some(service), Err(_)) = (&group.service, outcome) {
            service.forget();
        }
    }
    if let Some(service) = group.service {
        let work = async move { service.finish().await };
        let (_, took, outcome) = timed("", Box::pin(work)).await;
        tally.note(&format!("{} leaves nothing behind", group.name), took, &outcome);
    }
}

/// Runs a case to its end or its panic.
async fn timed(name: &'static str, work: Work) -> (&'static str, Duration, Result<(), String>) {
    let started = Instant::now();
    let task = tokio::spawn(tokio::time::timeout(PATIENCE, work));
    let outcome = match task.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(format!("not done within {} s", PATIENCE.as_secs())),
        Err(error) => Err(match error.into_panic().downcast::<String>() {
            Ok(text) => *text,
            Err(other) => other.downcast::<&str>().map_or("a panic".to_owned(), |text| (*text).to_owned()),
        }),
    };
    (name, started.elapsed(), outcome)
}

async fn groups() -> Vec<Group> {
    vec![
        a_framing::group().await,
        b_slow::group().await,
        c_tokens::group().await,
        d_claims::group().await,
        e_keys::group(),
        f_whoami::group().await,
        g_callers::group().await,
        i_stores::group().await,
        j_introspection::group().await,
        p_lifecycle::group().await,
        q_configuration::group().await,
    ]
}

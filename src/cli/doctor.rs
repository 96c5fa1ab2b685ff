//! `doctor`: checks that Rollout accepts the client id and secret, and that every configured backend answers. The calls
//! to Rollout are in `rollout.rs`; each extractor checks its own backends.

use serde_json::json;

use super::rollout::{ApiArgs, ClockDifference, get_credentials};
use super::waiting::WaitNotice;
use super::{Failure, block_on, context, say, tell};
use crate::config::Sources;
use crate::session::registry::Registry;
use crate::session::subject::Subject;
use crate::session::types::BackendReport;
use crate::settings;
use crate::token::RolloutClient;

/// The subject of the token that `doctor` sends to Rollout's API. No user has this subject, so Rollout stores no
/// credentials for it.
const SUBJECT: &str = "rollout-token-doctor";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    api: ApiArgs,
    /// Prints the results as one JSON document.
    #[arg(long)]
    json: bool,
}

/// The results so far. Without `--json`, each result is printed at once: a success to standard output, a failure to
/// standard error.
struct DoctorReport {
    json: bool,
    checks: Vec<serde_json::Value>,
    failed: usize,
}

impl DoctorReport {
    fn add(&mut self, extractor: Option<&str>, report: &BackendReport) -> Result<(), Failure> {
        let BackendReport {
            backend,
            took,
            result,
        } = report;
        let (ok, detail) = match result {
            Ok(text) => (true, text),
            Err(text) => (false, text),
        };
        self.failed += usize::from(!ok);
        let milliseconds = (took.as_secs_f64() * 1e4).round() / 10.0;
        self.checks.push(json!({
            "extractor": extractor, "backend": backend, "ok": ok, "detail": detail, "duration_ms": milliseconds,
        }));
        if self.json {
            return Ok(());
        }
        let name = extractor.map_or_else(String::new, |name| format!("{name}: "));
        if ok {
            say(format_args!(
                "ok      {name}{backend}: {detail} ({milliseconds} ms)"
            ))
        } else {
            tell(&format!(
                "FAILED  {name}{backend}: {detail} ({milliseconds} ms)"
            ));
            Ok(())
        }
    }

    fn end(self, clock: ClockDifference) -> Result<(), Failure> {
        let count = self.checks.len();
        if self.json {
            say(format_args!(
                "{:#}",
                json!({
                    "ok": self.failed == 0,
                    "clock_ahead_seconds": clock.0,
                    "checks": self.checks,
                })
            ))?;
        }
        match self.failed {
            0 => Ok(()),
            failed => Err(Failure::Runtime(format!(
                "{failed} of {count} checks failed"
            ))),
        }
    }
}

pub fn run(args: &Args, sources: &Sources, registry: &Registry) -> Result<(), Failure> {
    let settings = settings::load_even_without_extractors(sources, registry, &context())?;
    let client = &settings.client;
    let url = args.api.credentials()?;
    let subject = Subject::new(SUBJECT)
        .map_err(|_| Failure::Runtime("cannot create the subject of the token".to_owned()))?;
    let mut results = DoctorReport {
        json: args.json,
        checks: Vec::new(),
        failed: 0,
    };
    block_on(async {
        let mut clock = ClockDifference(0);
        let asking = async {
            let answered = get_credentials(&url, client, &subject, &settings.http).await;
            let answered = answered.map_err(|failure| failure.to_string())?;
            clock = answered.clock;
            answered
                .credentials
                .map(|_| accepted(client, answered.clock))
        };
        let report = BackendReport::of(format!("Rollout at {url}"), asking).await;
        results.add(None, &report)?;
        for configured in settings.chain.extractors() {
            let waiting = WaitNotice::for_extractor(configured);
            let reports = configured.extractor.probe().await;
            drop(waiting);
            for report in reports {
                results.add(Some(&configured.name), &report)?;
            }
        }
        results.end(clock)
    })?
}

fn accepted(client: &RolloutClient, clock: ClockDifference) -> String {
    let accepts = format!("accepts the client id {:?} and its secret", client.id);
    match clock.describe() {
        Some(text) => format!("{accepts}, but {text}: other verifiers may refuse the tokens"),
        None => accepts,
    }
}

//! The number of lost log lines, and its metric.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use tracing_appender::non_blocking::ErrorCounter;

/// Counts lines that did not fit into the queue, and lines that could not be written.
#[derive(Clone, Debug, Default)]
pub(super) struct LostLines(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    dropped: OnceLock<ErrorCounter>,
    failed: AtomicU64,
    /// The count that was last logged.
    reported: AtomicU64,
}

impl LostLines {
    /// Also counts the lines that `queue` drops. Only the first call has an effect.
    pub(super) fn watch(&self, queue: ErrorCounter) {
        let _ = self.0.dropped.set(queue);
    }

    pub(super) fn add_failed(&self, lines: u64) {
        self.0.failed.fetch_add(lines, Ordering::Relaxed);
    }

    fn total(&self) -> u64 {
        let dropped = self.0.dropped.get().map_or(0, ErrorCounter::dropped_lines);
        self.0.failed.load(Ordering::Relaxed) + dropped as u64
    }

    /// Logs the count if it has changed since the last report. If that line is lost as well, the next report logs
    /// again.
    pub(super) fn report(&self) {
        let lines = self.total();
        if self.0.reported.swap(lines, Ordering::Relaxed) != lines {
            tracing::warn!(
                lines,
                "log lines were lost since the start: standard output is read too slowly, is closed, or its disk \
                 is full"
            );
        }
    }
}

impl Collector for LostLines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counter = ConstCounter::new(self.total());
        let help = "Log lines that could not be written.";
        let metric =
            encoder.encode_descriptor("log_lines_lost", help, None, counter.metric_type())?;
        counter.encode(metric)
    }
}

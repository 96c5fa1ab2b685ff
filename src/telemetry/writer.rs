//! How log lines get to where they are read: by a thread of their own, so that no request waits for
//! a reader. What a line says is in `telemetry.rs`.
//!
//! Not `tracing-appender`: it does the same with an allocation and a write for every line, is bounded
//! by their number rather than their bytes, and does not count the lines that could not be written.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tracing_subscriber::fmt::MakeWriter;

use crate::sync::{Condvar, Mutex, MutexGuard, thread};

/// How many bytes of lines wait for a slow reader. What does not fit is lost, and counted.
const MAX_QUEUED: usize = 1024 * 1024;

/// How long lines gather after a write: under load, one write takes hundreds of them.
const GATHER: Duration = Duration::from_millis(10);

/// How long the end of the process waits for a reader to take the last lines.
const PATIENCE: Duration = Duration::from_millis(500);

/// Takes lines, whole and at once, and never waits.
#[derive(Clone)]
pub struct LogWriter(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    queued: Condvar,
    ended: Condvar,
    lost: Counter,
}

#[derive(Default)]
struct Queue {
    lines: Vec<u8>,
    /// The thread waits for lines; otherwise it looks by itself.
    idle: bool,
    closing: bool,
    ended: bool,
}

impl LogWriter {
    /// Starts the thread that writes to `out`. It ends when what is returned beside the writer is dropped.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(out: impl Write + Send + 'static, lost: Counter) -> io::Result<(Self, LastLines)> {
        let (queued, ended) = (Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { queue: Mutex::default(), queued, ended, lost });
        let thread = shared.clone();
        thread::Builder::new().name("log".to_owned()).spawn(move || thread.write_all_to(out))?;
        Ok((Self(shared.clone()), LastLines(shared)))
    }
}

impl fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogWriter")
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

impl Write for &LogWriter {
    /// One call is one line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut queue = self.0.queue();
        if queue.lines.len() + line.len() > MAX_QUEUED {
            self.0.lost.inc();
        } else {
            queue.lines.extend_from_slice(line);
            if std::mem::take(&mut queue.idle) {
                self.0.queued.notify_one();
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    /// Nothing panics while it holds the lock; if something did, the lines would still be whole.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: lines from the queue to `out`, until there are no more to come.
    fn write_all_to(&self, mut out: impl Write) {
        let (mut lines, mut told, mut torn) = (Vec::new(), 0, false);
        while self.take(&mut lines) {
            if torn {
                lines.insert(0, b'\n');
            }
            let written = write(&mut out, &lines);
            let rest = &lines[written..];
            // What ends a torn line is no line.
            let lost = rest.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
            self.lost.inc_by(lost.count() as u64);
            torn = written.checked_sub(1).map_or(torn, |last| lines[last] != b'\n');
            if rest.is_empty() && self.lost.get() != told {
                told = self.lost.get();
                // It takes the same way as every line, and is told again if it is lost itself.
                tracing::warn!(lines = told, "log lines were lost since the start: their reader is too slow");
            }
            pause();
        }
    }

    /// Swaps the queue's lines for the empty `lines`, waiting for some; `false` if none will come.
    fn take(&self, lines: &mut Vec<u8>) -> bool {
        lines.clear();
        let mut queue = self.queue();
        while queue.lines.is_empty() {
            if queue.closing {
                queue.ended = true;
                self.ended.notify_all();
                return false;
            }
            queue.idle = true;
            queue = self.queued.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut queue.lines, lines);
        true
    }
}

/// Writes as much as can be written, and tells how much that was.
fn write(out: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Whoever shares the pipe with us has made it non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => pause(),
            Err(_) => break,
        }
    }
    written
}

#[expect(clippy::disallowed_methods, reason = "the log's own thread; nobody waits for it")]
fn pause() {
    thread::sleep(GATHER);
}

/// Dropping it ends the log: it waits until the last lines are written, but not for ever.
pub struct LastLines(Arc<Shared>);

impl Drop for LastLines {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.closing = true;
        self.0.queued.notify_one();
        // Whether they were written or given up, the process ends now.
        drop(self.0.ended.wait_timeout_while(queue, PATIENCE, |queue| !queue.ended));
    }
}

impl fmt::Debug for LastLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LastLines")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Each write waits for its permission: how many bytes it may take, or the error to fail with.
    struct Reader {
        permissions: Receiver<io::Result<usize>>,
        seen: Sender<Vec<u8>>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = self.permissions.recv().expect("a permission")?.min(bytes.len());
            self.seen.send(bytes[..count].to_vec()).expect("a reader");
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Log {
        writer: LogWriter,
        last_lines: LastLines,
        lost: Counter,
        permit: Sender<io::Result<usize>>,
        seen: Receiver<Vec<u8>>,
    }

    fn log() -> Log {
        let (permit, permissions) = channel();
        let (sender, seen) = channel();
        let lost = Counter::default();
        let reader = Reader { permissions, seen: sender };
        let (writer, last_lines) = LogWriter::start(reader, lost.clone()).unwrap();
        Log { writer, last_lines, lost, permit, seen }
    }

    impl Log {
        fn say(&self, line: &str) {
            (&self.writer).write_all(line.as_bytes()).unwrap();
        }

        fn permit(&self, count: usize) {
            self.permit.send(Ok(count)).unwrap();
        }

        /// What the reader sees next.
        fn read(&self) -> String {
            String::from_utf8(self.seen.recv().unwrap()).unwrap()
        }

        fn read_all(self, permissions: usize) -> String {
            for _ in 0..permissions {
                self.permit(usize::MAX);
            }
            drop(self.last_lines);
            self.seen.try_iter().map(|bytes| String::from_utf8(bytes).unwrap()).collect()
        }
    }

    #[test]
    fn lines_arrive_whole_and_in_order_the_last_too() {
        let log = log();
        let lines: Vec<String> = (0..1000).map(|n| format!("line {n}\n")).collect();
        for line in &lines {
            log.say(line);
        }
        assert_eq!(log.read_all(1000), lines.concat());
    }

    #[test]
    fn a_reader_that_stopped_reading_holds_nobody_up_and_what_it_misses_is_counted() {
        let log = log();
        let line = format!("{}\n", "x".repeat(1023));
        // The thread may have taken some already, and waits with them.
        let fit = MAX_QUEUED / line.len();
        for _ in 0..10 * fit {
            log.say(&line);
        }
        let lost = log.lost.get();
        assert!((8 * fit as u64..=9 * fit as u64).contains(&lost), "{lost}");
        let lost = usize::try_from(lost).unwrap();
        assert_eq!(log.read_all(10).len(), (10 * fit - lost) * line.len(), "the others arrive");
    }

    #[test]
    fn a_reader_that_has_gone_is_counted_by_the_line_and_may_come_back() {
        let log = log();
        log.permit.send(Err(ErrorKind::BrokenPipe.into())).unwrap();
        log.say("one\ntwo\n");
        // One write at a time: the second is asked for when the first has failed.
        log.permit(3);
        log.permit.send(Err(ErrorKind::StorageFull.into())).unwrap();
        while log.lost.get() < 2 {
            thread::yield_now();
        }
        log.say("three\n");
        assert_eq!(log.read(), "thr");
        while log.lost.get() < 3 {
            thread::yield_now();
        }
        log.permit.send(Err(ErrorKind::StorageFull.into())).unwrap();
        log.say("four\n");
        while log.lost.get() < 4 {
            thread::yield_now();
        }
        assert_eq!(log.lost.get(), 4, "and is no line of its own");
        log.say("five\n");
        assert_eq!(log.read_all(3), "\nfive\n", "a torn line does not tear the next");
    }

    #[test]
    fn an_interrupted_or_busy_reader_misses_nothing() {
        let log = log();
        for kind in [ErrorKind::Interrupted, ErrorKind::WouldBlock] {
            log.permit.send(Err(kind.into())).unwrap();
        }
        log.say("one\n");
        log.permit(2);
        assert_eq!(log.read(), "on");
        let lost = log.lost.clone();
        assert_eq!(log.read_all(1), "e\n");
        assert_eq!(lost.get(), 0);
    }
}

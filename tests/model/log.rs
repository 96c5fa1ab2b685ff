//! The log's queue: whoever writes a line never waits, and every line arrives or is counted.

use std::io::{self, Write};
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use shuttle::sync::{Condvar, Mutex};
use shuttle::thread;

use crate::Model;
use crate::Schedule;
use crate::files::writer::LogWriter;

pub const MODELS: [Model; 1] = [("log_every_line_arrives_in_order", lines, Schedule::Any)];

/// Takes what it is given, a few bytes at a time.
#[derive(Clone, Default)]
struct Reader(Arc<(Mutex<Vec<u8>>, Condvar)>);

impl Write for Reader {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(5);
        self.0.0.lock().unwrap().extend(&bytes[..count]);
        self.0.1.notify_one();
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lines() {
    let (reader, lost) = (Reader::default(), Counter::default());
    let (writer, last_lines) = LogWriter::start(reader.clone(), lost.clone()).unwrap();
    let other = writer.clone();
    let task = thread::spawn(move || {
        for line in ["a1\n", "a2\n"] {
            (&other).write_all(line.as_bytes()).unwrap();
        }
    });
    for line in ["b1\n", "b2\n"] {
        (&writer).write_all(line.as_bytes()).unwrap();
    }
    task.join().unwrap();
    // They come without being asked for; the end of the log waits for nothing more.
    let text = reader.0.1.wait_while(reader.0.0.lock().unwrap(), |text| text.len() < 12).unwrap();
    let text = String::from_utf8(text.clone()).unwrap();
    drop(last_lines);
    for who in ["a", "b"] {
        let own: Vec<&str> = text.lines().filter(|line| line.starts_with(who)).collect();
        assert_eq!(own, [format!("{who}1"), format!("{who}2")], "{text:?}");
    }
    assert_eq!(lost.get(), 0);
}

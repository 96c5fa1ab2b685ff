//! Models of reloading: no change is missed, with or without a signal, and the settings in use never mix the files of
//! two changes.

use std::sync::Arc;

use shuttle::future::{block_on, spawn, yield_now};
use shuttle::rand::{Rng, thread_rng};

use crate::Model;
use crate::Schedule;
use crate::clock::{Clock, ManualClock};
use crate::config::Sources;
use crate::files::reload::{Reloadable, Reloader};
use crate::session::backends::Context;
use crate::session::registry::Registry;
use crate::settings;
use crate::sync::{self, mpsc};
use crate::world::app::App;

pub const MODELS: [Model; 3] = [
    (
        "reload_change_before_a_signal_is_loaded",
        signalled,
        Schedule::Any,
    ),
    (
        "reload_changed_file_is_loaded_without_a_signal",
        polled,
        Schedule::Fair,
    ),
    (
        "reload_half_written_file_changes_nothing",
        half_written,
        Schedule::Fair,
    ),
];

struct World {
    app: Arc<App>,
    files: Sources,
    ask: mpsc::Sender<()>,
}

fn world(time_passes: bool) -> World {
    sync::let_time_pass(time_passes);
    let files = Sources::default();
    files.replace(1);
    let context = Context::new(Clock::new(ManualClock::at(0)), Arc::default());
    let app = App::new(settings::load(&files, &Registry, &context).expect("good files"));
    let ask = Reloader::new(app.clone(), files.clone(), Registry, context).spawn();
    World { app, files, ask }
}

impl World {
    /// Waits until files with the content `wanted` are in use. Until then, both files in use must have equal contents.
    async fn until(&self, wanted: u32) {
        loop {
            let [one, other] = self.app.settings().files;
            assert_eq!(one, other, "files of different changes");
            if one == wanted {
                return;
            }
            yield_now().await;
        }
    }

    /// Sends the same message as the SIGHUP handler.
    fn signal(&self) {
        let _ = self.ask.try_send(());
    }
}

fn signalled() {
    let world = world(false);
    block_on(async {
        for content in 2..5 {
            world.files.replace(content);
            // There may be several signals per change, or none.
            if content == 4 || thread_rng().gen_bool(0.5) {
                world.signal();
                world.signal();
            }
        }
        world.until(4).await;
    });
}

fn polled() {
    let world = world(true);
    block_on(async {
        world.files.replace(2);
        world.files.replace(3);
        world.until(3).await;
    });
}

fn half_written() {
    let world = world(true);
    block_on(async {
        world.files.replace(0);
        world.signal();
        yield_now().await;
        assert_eq!(world.app.settings().files, [1, 1]);
        world.files.replace(2);
        world.until(2).await;
    });
}

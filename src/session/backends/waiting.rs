//! Limits the requests that wait for one backend, whether their call is running or queued, so that a hanging backend
//! cannot block all in-flight requests of the service.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::{Problems, Section};
use crate::session::backends::Context;

/// The default of `server.max_in_flight`.
const DEFAULT_MAX_IN_FLIGHT: usize = 512;

/// The backends of one configuration. By default, each backend may block an equal share of `server.max_in_flight`, and
/// one share is left for requests that need no backend.
#[derive(Debug, Default)]
pub struct Backends {
    in_force: Arc<Totals>,
    /// The number of backends, counted while the sections are read.
    count: AtomicUsize,
}

/// The numbers from which limits and shares are computed, for the configuration that is in force. All configurations of
/// a service share one `Totals`, because a reload keeps unchanged extractors.
#[derive(Debug)]
struct Totals {
    max_in_flight: AtomicUsize,
    backends: AtomicUsize,
}

impl Backends {
    /// The backends of the configuration that a reload of the same service loads.
    #[must_use]
    pub fn of_reload(&self) -> Self {
        Self {
            in_force: self.in_force.clone(),
            count: AtomicUsize::new(0),
        }
    }

    /// Divides `server.max_in_flight` among these backends. Called when their configuration takes effect.
    pub fn share(&self, max_in_flight: usize) {
        let count = self.count.load(Ordering::Relaxed);
        self.in_force.backends.store(count, Ordering::Relaxed);
        self.in_force
            .max_in_flight
            .store(max_in_flight, Ordering::Relaxed);
    }
}

impl Totals {
    fn backends(&self) -> usize {
        self.backends.load(Ordering::Relaxed).max(1)
    }
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            max_in_flight: AtomicUsize::new(DEFAULT_MAX_IN_FLIGHT),
            backends: AtomicUsize::new(1),
        }
    }
}

/// Counts and limits the requests that wait for one backend.
#[derive(Debug)]
pub struct Waiting {
    /// The section's `max_waiting`, if set.
    max: Option<usize>,
    totals: Arc<Totals>,
    requests: AtomicUsize,
}

impl Waiting {
    /// Adds the backend of `section` to the backends of `context`, and returns its limiter. `max` is the value of the
    /// section's key `max_waiting`; 0 is reported as a problem.
    pub fn read(
        section: &Section<'_>,
        context: &Context,
        max: Option<usize>,
        problems: &mut Problems,
    ) -> Arc<Self> {
        problems.require(
            max != Some(0),
            section.key("max_waiting"),
            "must be at least 1",
        );
        Self::new(max, &context.backends)
    }

    /// Adds one more backend to `backends`, and returns its limiter.
    pub fn new(max: Option<usize>, backends: &Backends) -> Arc<Self> {
        backends.count.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            max,
            totals: backends.in_force.clone(),
            requests: AtomicUsize::new(0),
        })
    }

    /// Reserves a place for one request. Returns `None` if the limit is reached.
    pub fn enter(self: &Arc<Self>) -> Option<WaitingPlace> {
        // Count before comparing, so that concurrent requests cannot exceed the limit together.
        let before = self.requests.fetch_add(1, Ordering::Relaxed);
        let place = WaitingPlace(self.clone());
        (before < self.max()).then_some(place)
    }

    /// This backend's share of `total`, which is divided equally among all backends.
    pub fn share_of(&self, total: usize) -> usize {
        total / self.totals.backends()
    }

    /// The limit. It is computed at each use, because a reload changes the totals.
    fn max(&self) -> usize {
        self.max.unwrap_or_else(|| {
            let in_flight = self.totals.max_in_flight.load(Ordering::Relaxed);
            (in_flight / (self.totals.backends() + 1)).max(1)
        })
    }
}

/// The place of one request that waits for a backend. Dropping it frees the place.
#[derive(Debug)]
pub struct WaitingPlace(Arc<Waiting>);

impl Drop for WaitingPlace {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(waiting: &Arc<Waiting>) -> Vec<WaitingPlace> {
        std::iter::from_fn(|| waiting.enter()).take(1000).collect()
    }

    #[test]
    fn default_limit_is_an_equal_share_and_leaves_one_share_for_requests_without_a_backend() {
        let one = Backends::default();
        let first = Waiting::new(None, &one);
        one.share(16);
        assert_eq!((places(&first).len(), first.share_of(9)), (8, 9));
        let three = one.of_reload();
        Waiting::new(None, &three);
        let second = Waiting::new(None, &three);
        let given = Waiting::new(Some(3), &three);
        assert_eq!(places(&first).len(), 8, "not in force yet");
        three.share(16);
        assert_eq!(
            (
                places(&first).len(),
                places(&second).len(),
                places(&given).len()
            ),
            (4, 4, 3)
        );
        assert_eq!((first.share_of(9), given.share_of(9)), (3, 3));
    }

    #[test]
    fn waiting_place_is_free_again_after_it_is_dropped() {
        let waiting = Waiting::new(Some(1), &Arc::default());
        let place = waiting.enter();
        assert!(place.is_some() && waiting.enter().is_none() && waiting.enter().is_none());
        drop(place);
        assert!(waiting.enter().is_some());
    }

    #[test]
    fn backend_has_one_waiting_place_if_its_share_is_less_than_one() {
        let backends = Backends::default();
        let waiting = Waiting::new(None, &backends);
        backends.share(1);
        assert_eq!(places(&waiting).len(), 1);
    }
}

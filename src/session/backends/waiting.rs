//! Limits the requests that wait for one backend, in a call or queued, so that a hanging backend cannot block all
//! in-flight requests of the service.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::{Problems, Section};
use crate::session::backends::Context;

/// The default of `server.max_in_flight`.
const DEFAULT_MAX_IN_FLIGHT: usize = 512;

/// The totals that all backends share. By default, each backend may block an equal share of `server.max_in_flight`, and
/// one share is left for requests that need no backend.
///
/// A reload keeps unchanged extractors, so the configurations before and after it use the same `Backends`.
#[derive(Debug)]
pub struct Backends {
    max_in_flight: AtomicUsize,
    count: AtomicUsize,
}

impl Backends {
    /// Applies `server.max_in_flight` and the number of backends of the configuration that takes effect.
    pub fn set(&self, max_in_flight: usize, count: usize) {
        self.max_in_flight.store(max_in_flight, Ordering::Relaxed);
        self.count.store(count, Ordering::Relaxed);
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed).max(1)
    }
}

impl Default for Backends {
    fn default() -> Self {
        Self {
            max_in_flight: AtomicUsize::new(DEFAULT_MAX_IN_FLIGHT),
            count: AtomicUsize::new(1),
        }
    }
}

/// Counts the requests that wait for one backend.
pub struct Waiting {
    /// The section's `max_waiting`, if set.
    max: Option<usize>,
    backends: Arc<Backends>,
    requests: AtomicUsize,
}

impl Waiting {
    /// For the backend of `section`, whose key `max_waiting` has the value `max`.
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

    pub fn new(max: Option<usize>, backends: &Arc<Backends>) -> Arc<Self> {
        Arc::new(Self {
            max,
            backends: backends.clone(),
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
        total / self.backends.count()
    }

    /// The limit. It is computed at each use, because a reload changes the totals.
    fn max(&self) -> usize {
        self.max.unwrap_or_else(|| {
            let in_flight = self.backends.max_in_flight.load(Ordering::Relaxed);
            (in_flight / (self.backends.count() + 1)).max(1)
        })
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting")
            .field("max", &self.max())
            .finish_non_exhaustive()
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
        let backends = Arc::<Backends>::default();
        let first = Waiting::new(None, &backends);
        let second = Waiting::new(None, &backends);
        let given = Waiting::new(Some(3), &backends);
        backends.set(16, 1);
        assert_eq!((places(&first).len(), first.share_of(9)), (8, 9));
        backends.set(16, 3);
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
    fn dropped_place_is_free_again() {
        let waiting = Waiting::new(Some(1), &Arc::default());
        let place = waiting.enter();
        assert!(place.is_some() && waiting.enter().is_none() && waiting.enter().is_none());
        drop(place);
        assert!(waiting.enter().is_some());
    }

    #[test]
    fn backend_has_one_place_if_its_share_is_less_than_one() {
        let backends = Arc::<Backends>::default();
        backends.set(1, 1);
        assert_eq!(places(&Waiting::new(None, &backends)).len(), 1);
    }
}

//! Back-pressure from the readers of a log to its writers.
//!
//! A reader that has caught up is *near*: it is served from memory. While a near reader is more than `NEAR_ROWS`
//! behind, writers of the log wait. Otherwise a writer that is faster than its readers would take their share of the
//! machine too; rows would be archived before they are read, then be read from the archive, which is slower, and the
//! lag would grow for as long as the writer continues.
//!
//! Writers wait for a query as long as it makes any progress, because its results are as late as it is. They wait for
//! the reader of a client only while it reads at the speed of memory: a slower one is waiting for its client, and a
//! slow client must not slow a writer. A reader for which writers no longer wait becomes near again when it has caught
//! up.
//!
//! Invariants: a writer's wait ends even if no reader makes progress; readers never wait here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use windrow_core::Clock;

/// Rows that a near reader may be behind before writers wait for it. A reader becomes near when it is at most half of
/// that behind.
const NEAR_ROWS: u64 = 128 << 10;
/// How often a waiting writer checks whether the readers make progress.
const LOOKED_AFTER: Duration = Duration::from_millis(250);

/// The kind of reader, which determines how long writers wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadBy {
    /// A query whose results stay in this process, such as a view.
    Query,
    /// A client, or a query that waits for one.
    Client,
}

impl ReadBy {
    /// The rows that a reader must read per time of waiting, for writers to continue to wait for it.
    fn least(self) -> (u64, Duration) {
        match self {
            Self::Query => (1, 8 * LOOKED_AFTER),
            Self::Client => (NEAR_ROWS, LOOKED_AFTER),
        }
    }
}

/// The readers that follow a log.
#[derive(Debug, Default)]
pub struct Followers {
    state: Mutex<State>,
    moved: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    places: BTreeMap<u64, Standing>,
}

/// The progress of a reader.
#[derive(Debug)]
struct Standing {
    read_by: ReadBy,
    position: u64,
    near: bool,
    /// How long a writer has waited for it, and how many rows it has read meanwhile.
    waited: Duration,
    read: u64,
}

/// A registered reader of a log, until it is dropped.
#[derive(Debug)]
pub(crate) struct Follower {
    all: Arc<Followers>,
    number: u64,
}

impl Followers {
    /// Registers a reader that begins at the offset `position`.
    pub(crate) fn join(self: &Arc<Self>, position: u64, read_by: ReadBy) -> Follower {
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        let place = Standing { read_by, position, near: false, waited: Duration::ZERO, read: 0 };
        state.places.insert(number, place);
        Follower { all: Arc::clone(self), number }
    }

    /// The lowest offset that a near reader has yet to read; `None`: there is no near reader.
    pub(crate) fn first_wanted(&self) -> Option<u64> {
        let state = self.state.lock();
        state.places.values().filter(|place| place.near).map(|place| place.position).min()
    }

    /// Waits until no near reader is too far behind the end of the log, which `end` returns.
    pub(crate) async fn wait(&self, end: impl Fn() -> u64, clock: &dyn Clock) {
        let mut moved = self.moved.subscribe();
        loop {
            let far = self.far(end());
            if far.is_empty() {
                return;
            }
            let began = clock.now_micros();
            let judged = clock.sleep(LOOKED_AFTER);
            tokio::pin!(judged);
            let mut is_far = true;
            while is_far {
                tokio::select! {
                    () = &mut judged => break,
                    // The sender lives as long as this.
                    _ = moved.changed() => is_far = !self.far(end()).is_empty(),
                }
            }
            let waited = clock.now_micros().saturating_sub(began);
            self.judge(&far, Duration::from_micros(u64::try_from(waited).unwrap_or(0)));
        }
    }

    /// The near readers that are too far behind, with their positions.
    fn far(&self, end: u64) -> Vec<(u64, u64)> {
        let state = self.state.lock();
        let far = state
            .places
            .iter()
            .filter(|(_, place)| place.near && end.saturating_sub(place.position) > NEAR_ROWS);
        far.map(|(number, place)| (*number, place.position)).collect()
    }

    /// Records that a writer has waited for these readers, given with their positions before; those that have read too
    /// little are not near any more.
    fn judge(&self, far: &[(u64, u64)], waited: Duration) {
        let mut state = self.state.lock();
        for (number, from) in far {
            let Some(place) = state.places.get_mut(number) else { continue };
            place.waited += waited;
            place.read += place.position.saturating_sub(*from);
            let (rows_min, after) = place.read_by.least();
            if place.waited >= after {
                place.near = place.read >= rows_min;
                (place.waited, place.read) = (Duration::ZERO, 0);
            }
        }
    }
}

impl Follower {
    /// Records that it is at the offset `position` of a log that ends at `end` now.
    pub(crate) fn stands(&self, position: u64, end: u64) {
        let mut state = self.all.state.lock();
        let Some(place) = state.places.get_mut(&self.number) else { return };
        place.position = position;
        place.near |= end.saturating_sub(position) <= NEAR_ROWS / 2;
        let near = place.near;
        drop(state);
        if near {
            self.all.moved.send_replace(());
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.all.state.lock().places.remove(&self.number);
        self.all.moved.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt;
    use windrow_core::ManualClock;

    use super::*;

    fn is_waiting(followers: &Followers, end: u64, clock: &ManualClock) -> bool {
        pin!(followers.wait(|| end, clock)).now_or_never().is_none()
    }

    #[test]
    fn writers_wait_for_near_readers_alone() {
        let (followers, clock) = (Arc::new(Followers::default()), ManualClock::at(0));
        let (near, old) = (followers.join(0, ReadBy::Query), followers.join(0, ReadBy::Query));
        assert!(!is_waiting(&followers, 10 * NEAR_ROWS, &clock), "nobody has caught up");
        near.stands(10, 20);
        assert_eq!(followers.first_wanted(), Some(10));
        assert!(!is_waiting(&followers, NEAR_ROWS + 10, &clock));
        assert!(is_waiting(&followers, NEAR_ROWS + 11, &clock));
        near.stands(11, NEAR_ROWS + 11);
        assert!(!is_waiting(&followers, NEAR_ROWS + 11, &clock));
        old.stands(5, 6);
        assert!(is_waiting(&followers, NEAR_ROWS + 11, &clock));
        drop(old);
        assert!(!is_waiting(&followers, NEAR_ROWS + 11, &clock));
    }

    #[test]
    fn a_slow_client_is_waited_for_once_and_a_slow_query_for_ever() {
        let (followers, clock) = (Arc::new(Followers::default()), ManualClock::at(0));
        let end = 100 * NEAR_ROWS;
        let (client, query) = (followers.join(0, ReadBy::Client), followers.join(0, ReadBy::Query));
        client.stands(0, 0);
        query.stands(0, 0);
        for step in 1..5 {
            let mut waiting = pin!(followers.wait(|| end, &clock));
            assert!((&mut waiting).now_or_never().is_none());
            client.stands(step * 100, end);
            query.stands(step * 10, end);
            clock.advance(LOOKED_AFTER);
            assert!((&mut waiting).now_or_never().is_none(), "the query moves");
            let far: Vec<u64> = followers.far(end).iter().map(|(number, _)| *number).collect();
            assert_eq!(far, [1], "the client is slow");
        }
        // Writers stop waiting for a query without progress too.
        let mut waiting = pin!(followers.wait(|| end, &clock));
        let given_up = (0..16).any(|_| {
            clock.advance(LOOKED_AFTER);
            (&mut waiting).now_or_never().is_some()
        });
        assert!(given_up);
        assert_eq!(followers.first_wanted(), None);
        query.stands(end, end);
        client.stands(end, end);
        assert_eq!(followers.first_wanted(), Some(end));
    }

    #[test]
    fn a_client_that_reads_fast_is_waited_for() {
        let (followers, clock) = (Arc::new(Followers::default()), ManualClock::at(0));
        let client = followers.join(0, ReadBy::Client);
        client.stands(0, 0);
        for step in 1..20 {
            let end = (step + 2) * NEAR_ROWS;
            let mut waiting = pin!(followers.wait(|| end, &clock));
            assert!((&mut waiting).now_or_never().is_none());
            client.stands(step * NEAR_ROWS, end);
            clock.advance(LOOKED_AFTER);
            assert!((&mut waiting).now_or_never().is_none());
            client.stands((step + 1) * NEAR_ROWS, end);
            assert!((&mut waiting).now_or_never().is_some());
        }
    }
}

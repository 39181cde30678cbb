//! The state of a connection that may be lost, and the pauses between attempts to have it back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use windrow_core::SourceHealth;

/// The first pause and the longest one.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Pauses that double from 100 ms to 5 s.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Backoff {
    /// Returns the pause before the next attempt.
    pub(crate) fn next_pause(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST);
        pause
    }
}

/// What is known of the readings of a stream.
#[derive(Debug, Default)]
pub(crate) struct Health {
    readings: Mutex<BTreeMap<u64, (Arc<str>, Reading)>>,
    last_error: Mutex<Option<String>>,
    next: std::sync::atomic::AtomicU64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Reading {
    connected: Option<bool>,
    lag: Option<u64>,
}

impl Health {
    /// Records an error for users to see.
    pub(crate) fn note(&self, error: &str) {
        tracing::debug!("broker: {error}");
        *self.last_error.lock() = Some(error.to_owned());
    }

    /// Begins to report of the reading of a partition, until what it returns is dropped.
    pub(crate) fn begin(self: &Arc<Self>, partition: &Arc<str>) -> Report {
        let number = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let begun = (Arc::clone(partition), Reading::default());
        self.readings.lock().insert(number, begun);
        Report { health: Arc::clone(self), number }
    }

    /// The state as users see it.
    pub(crate) fn shown(&self) -> SourceHealth {
        let readings = self.readings.lock();
        let mut lags: BTreeMap<&Arc<str>, u64> = BTreeMap::new();
        for (partition, reading) in readings.values() {
            if let Some(lag) = reading.lag {
                let most = lags.entry(partition).or_default();
                *most = (*most).max(lag);
            }
        }
        SourceHealth {
            connected: readings.values().filter_map(|(_, reading)| reading.connected).min(),
            lag_rows: (!lags.is_empty()).then(|| lags.values().sum()),
            last_error: self.last_error.lock().clone(),
        }
    }
}

/// Reports of one reading.
#[derive(Debug)]
pub(crate) struct Report {
    health: Arc<Health>,
    number: u64,
}

impl Report {
    /// Notes that the broker has answered. `lag`: the number of messages that are still to be read, where it is known.
    pub(crate) fn answered(&self, lag: Option<u64>) {
        self.set(|reading| {
            reading.connected = Some(true);
            reading.lag = lag.or(reading.lag);
        });
    }

    /// The broker is away.
    pub(crate) fn away(&self, error: &str) {
        self.health.note(error);
        self.set(|reading| reading.connected = Some(false));
    }

    fn set(&self, change: impl FnOnce(&mut Reading)) {
        if let Some((_, reading)) = self.health.readings.lock().get_mut(&self.number) {
            change(reading);
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.health.readings.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_all_readings_is_shown() {
        let health = Arc::new(Health::default());
        assert_eq!(health.shown(), SourceHealth::default());
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let (first, again, other) = (health.begin(&a), health.begin(&a), health.begin(&b));
        first.answered(Some(3));
        again.answered(Some(5));
        other.answered(Some(1));
        assert_eq!((health.shown().connected, health.shown().lag_rows), (Some(true), Some(6)));
        other.away("gone");
        assert_eq!(health.shown().connected, Some(false));
        drop((again, other));
        let shown = health.shown();
        assert_eq!((shown.connected, shown.lag_rows), (Some(true), Some(3)));
        assert_eq!(shown.last_error.as_deref(), Some("gone"));
    }

    #[test]
    fn pauses_grow_to_five_seconds() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..8).map(|_| backoff.next_pause().as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }
}

//! The progress of each producer: the last batch of its sequence that is in the log.
//!
//! A producer numbers its batches 1, 2, 3, … and uses the same number for the same rows when it sends them again. So a
//! batch that is in the log already is recognised, however its acknowledgement was lost: also after a crash, because
//! the numbers are written in the record of the rows.
//!
//! Invariants: a number is accepted once, and only directly after the one before it; a producer is forgotten only when
//! it has been silent for `KEPT_MICROS`, and a new producer is refused rather than a number counted twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use windrow_core::{Error, ErrorKind, OffsetRange, Result};

/// Producers that one log remembers at most.
const PRODUCERS_MAX: usize = 10_000;
/// A producer that has been silent for this long (a day), in µs, may be forgotten for a new one.
const KEPT_MICROS: i64 = 24 * 3_600 * 1_000_000;
/// The last activity of a producer that is never forgotten.
const FOR_EVER: i64 = i64::MAX;
/// The prefix of the names of Windrow's own producers.
const OURS: &str = "windrow/";
/// Bytes of a producer's name at most.
const NAME_BYTES_MAX: usize = 256;

/// The position of a batch in its producer's sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    producer: Arc<str>,
    /// Its first number.
    first: u64,
    /// One past its last number.
    next: u64,
    /// When it was sent, in µs since the Unix epoch.
    at_micros: i64,
}

impl Stamp {
    /// Returns the stamp of batch `sequence` of a producer.
    ///
    /// # Errors
    /// When the name is empty, too long or reserved, or the number is 0.
    pub fn of_batch(producer: &str, sequence: u64, at_micros: i64) -> Result<Self> {
        if producer.is_empty() || producer.len() > NAME_BYTES_MAX {
            return Err(Error::data(format!(
                "the name of a producer has 1 to {NAME_BYTES_MAX} bytes, not {}",
                producer.len()
            )));
        }
        if producer.starts_with(OURS) {
            return Err(Error::data(format!("the name \"{producer}\" is reserved for Windrow"))
                .with_hint(format!("Choose one that does not begin with \"{OURS}\".")));
        }
        match sequence.checked_add(1) {
            Some(next) if sequence > 0 => {
                Ok(Self { producer: producer.into(), first: sequence, next, at_micros })
            }
            _ => Err(Error::data(format!("producer \"{producer}\" has no batch {sequence}"))
                .with_hint("A producer numbers its batches 1, 2, 3, ….")),
        }
    }
}

impl Stamp {
    /// Returns the producer of a continuous INSERT of the data directory.
    pub fn insert(id: u64) -> Arc<str> {
        format!("{OURS}insert/{id}").into()
    }

    /// Returns the stamp of the rows of a source's partition, or of an INSERT, at these offsets; it is never forgotten.
    pub fn of_rows(partition: &Arc<str>, offsets: OffsetRange) -> Self {
        Self {
            producer: Arc::clone(partition),
            first: offsets.start() + 1,
            next: offsets.end() + 1,
            at_micros: FOR_EVER,
        }
    }
}

/// The decision of a log about a stamped batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next one.
    New,
    /// It is in the log already.
    Repeated,
}

/// The progress of the producers of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Producers {
    known: BTreeMap<Arc<str>, Known>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// The next number.
    next: u64,
    at_micros: i64,
}

impl Producers {
    /// Judges a batch that would be written after the `staged` ones.
    ///
    /// # Errors
    /// When a number is missing, or the producer is new and there are too many.
    pub fn judge(&mut self, stamp: &Stamp, staged: &[Stamp]) -> Result<Verdict> {
        let before = staged.iter().rev().find(|s| s.producer == stamp.producer).map(|s| s.next);
        let known = before.or_else(|| self.known.get(&stamp.producer).map(|k| k.next));
        if known.is_none() {
            self.make_room(stamp, staged)?;
        }
        let next = known.unwrap_or(1);
        if stamp.next <= next {
            return Ok(Verdict::Repeated);
        }
        if stamp.first == next {
            return Ok(Verdict::New);
        }
        let (name, first) = (&stamp.producer, stamp.first);
        let message = match known {
            Some(_) => format!("producer \"{name}\" sent batch {first}, but batch {next} is next"),
            None => format!(
                "producer \"{name}\" is not known here, so its first batch is 1 and not {first}"
            ),
        };
        Err(Error::data(message)
            .with_hint("Send the batches from that one on, in their order; none was lost here."))
    }

    /// Forgets silent producers when there are too many.
    fn make_room(&mut self, stamp: &Stamp, staged: &[Stamp]) -> Result<()> {
        if self.known.len() + staged.len() < PRODUCERS_MAX || stamp.at_micros == FOR_EVER {
            return Ok(());
        }
        let limit = stamp.at_micros.saturating_sub(KEPT_MICROS);
        self.known.retain(|_, known| known.at_micros > limit);
        if self.known.len() + staged.len() < PRODUCERS_MAX {
            return Ok(());
        }
        let message = format!("{PRODUCERS_MAX} producers have written here within a day");
        Err(Error::new(ErrorKind::Limit, message).with_hint(
            "Use the name of an existing producer, or none: without a name, a batch that is sent again is \
             stored again.",
        ))
    }

    /// Records that a batch judged new has been written.
    pub fn take(&mut self, stamp: &Stamp) {
        let known = Known { next: stamp.next, at_micros: stamp.at_micros };
        self.known.insert(Arc::clone(&stamp.producer), known);
    }

    /// The number of batches of a producer's sequence that have been written.
    pub fn taken(&self, producer: &str) -> u64 {
        self.known.get(producer).map_or(0, |known| known.next.saturating_sub(1))
    }

    /// The names of all producers.
    pub fn names(&self) -> Vec<Arc<str>> {
        self.known.keys().cloned().collect()
    }

    /// Whether a batch has been written.
    pub fn has(&self, stamp: &Stamp) -> bool {
        self.known.get(&stamp.producer).is_some_and(|known| stamp.next <= known.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(producer: &str, sequence: u64) -> Stamp {
        Stamp::of_batch(producer, sequence, 0).unwrap()
    }

    #[test]
    fn each_number_is_taken_once_and_in_order() {
        let mut producers = Producers::default();
        let error = producers.judge(&stamp("p", 2), &[]).unwrap_err();
        assert!(error.message().contains("first batch is 1 and not 2"), "{error}");
        assert_eq!(producers.judge(&stamp("p", 1), &[]).unwrap(), Verdict::New);
        let staged = [stamp("p", 1), stamp("q", 1)];
        assert_eq!(producers.judge(&stamp("p", 1), &staged).unwrap(), Verdict::Repeated);
        assert_eq!(producers.judge(&stamp("p", 2), &staged).unwrap(), Verdict::New);
        // What was staged and not written does not count.
        assert!(!producers.has(&stamp("p", 1)));
        producers.take(&stamp("p", 1));
        producers.take(&stamp("p", 2));
        assert!(producers.has(&stamp("p", 2)) && !producers.has(&stamp("p", 3)));
        let error = producers.judge(&stamp("p", 4), &[]).unwrap_err();
        assert!(error.message().contains("sent batch 4, but batch 3 is next"), "{error}");
        assert_eq!(producers.judge(&stamp("p", 1), &[]).unwrap(), Verdict::Repeated);
    }

    #[test]
    fn names_and_numbers_have_bounds() {
        for (name, sequence) in
            [("", 1), ("windrow/insert/1", 1), ("p", 0), ("p", u64::MAX), (&"x".repeat(257), 1)]
        {
            assert!(Stamp::of_batch(name, sequence, 0).is_err(), "{name} {sequence}");
        }
    }

    #[test]
    fn rather_a_new_producer_is_refused_than_a_busy_one_forgotten() {
        let mut producers = Producers::default();
        for n in 0..PRODUCERS_MAX {
            let at = if n == 0 { 0 } else { 10 };
            let stamp = Stamp::of_batch(&format!("p{n}"), 1, at).unwrap();
            assert_eq!(producers.judge(&stamp, &[]).unwrap(), Verdict::New);
            producers.take(&stamp);
        }
        let late = |name: &str, at| Stamp::of_batch(name, 1, at).unwrap();
        let error = producers.judge(&late("new", KEPT_MICROS - 1), &[]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit);
        assert_eq!(producers.judge(&late("p0", KEPT_MICROS), &[]).unwrap(), Verdict::Repeated);
        // The first one has been silent for a day.
        assert_eq!(producers.judge(&late("new", KEPT_MICROS), &[]).unwrap(), Verdict::New);
        assert!(!producers.has(&stamp("p0", 1)) && producers.has(&stamp("p1", 1)));
    }
}

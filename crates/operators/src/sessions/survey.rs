//! The open sessions, key by key: their pieces are merged as in the chain.

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use windrow_core::Result;

use super::SessionMerger;
use crate::extents;
use crate::port::CoordinatorPart;
use crate::segments::Body;
use crate::survey::{OpenState, Survey};
use crate::table::{Frozen, Interner};

/// A session, or a piece of one, with the number of its key.
#[derive(Debug, Clone, Copy)]
struct Session {
    key: usize,
    first: i64,
    last: i64,
    rows: i64,
}

impl SessionMerger {
    /// Returns the open sessions that end first. Sessions on disk are not read; they are shown together, slice by
    /// slice.
    pub(super) fn survey_sessions(&mut self, sessions_max: usize) -> Result<Survey> {
        let bytes = self.size_bytes() as u64;
        let mut pieces = self.chain.outline()?;
        let mut on_disk: Vec<OpenState> = vec![];
        for ((slice, _), kept) in &self.waiting {
            for kept in kept {
                match &kept.body {
                    Some(Body::Frozen(frozen)) => pieces.push(frozen.outline()),
                    Some(Body::Spilled(_)) => {
                        let last = self.last_tick(*slice);
                        let bounds =
                            Some((*slice, last.saturating_add(self.gap).saturating_add(1)));
                        let (rows, times) = (kept.rows, kept.times);
                        on_disk.push(OpenState { bounds, rows, times, ..OpenState::default() });
                    }
                    Some(Body::Live(_) | Body::Rows(_)) | None => {}
                }
            }
        }
        let mut keys = Interner::new(&self.columns, 0)?;
        let mut sessions = self.together(&mut keys, &pieces)?;
        // A checkpoint also has sessions of its last slice that had ended.
        sessions.retain(|session| session.last.saturating_add(self.gap) > self.frontier);
        let share = bytes / (sessions.len() as u64).max(1);
        sessions.sort_unstable_by_key(|session| (session.last, session.first, session.key));
        let truncated = sessions.len() + on_disk.len() > sessions_max;
        on_disk.truncate(sessions_max);
        sessions.truncate(sessions_max - on_disk.len());
        // An interner without keys cannot return any.
        let texts = match sessions.is_empty() {
            true => vec![],
            false => texts(&keys.take_keys()?, &sessions)?,
        };
        let mut states = on_disk;
        states.extend(sessions.iter().zip(texts).map(|(session, key)| OpenState {
            key,
            bounds: Some((session.first, session.last.saturating_add(self.gap))),
            rows: session.rows.unsigned_abs(),
            bytes: share,
            times: Some((session.first, session.last)),
            ..OpenState::default()
        }));
        Ok(Survey { states, truncated })
    }

    /// Merges pieces of the same key that are at most one gap apart.
    fn together(&self, keys: &mut Interner, pieces: &[Frozen]) -> Result<Vec<Session>> {
        let mut all: Vec<Session> = vec![];
        let mut numbers = vec![];
        for piece in pieces {
            keys.intern(&piece.keys, piece.groups, &mut numbers)?;
            let (first, last) = extents::of_state(piece.extents())?;
            let rows = extents::rows_of_state(piece.extents())?;
            let sessions = numbers.iter().zip(first).zip(last).zip(rows);
            all.extend(sessions.map(|(((key, first), last), rows)| Session {
                key: *key,
                first: *first,
                last: *last,
                rows: *rows,
            }));
        }
        all.sort_unstable_by_key(|piece| (piece.key, piece.first));
        let mut sessions: Vec<Session> = vec![];
        for piece in all {
            match sessions.last_mut() {
                Some(session)
                    if session.key == piece.key
                        && piece.first <= session.last.saturating_add(self.gap) =>
                {
                    session.last = session.last.max(piece.last);
                    session.rows = session.rows.saturating_add(piece.rows);
                }
                _ => sessions.push(piece),
            }
        }
        Ok(sessions)
    }
}

/// The keys of sessions as text, with commas between the values of several columns; `None` without columns.
fn texts(keys: &[ArrayRef], sessions: &[Session]) -> Result<Vec<Option<String>>> {
    if keys.is_empty() {
        return Ok(vec![None; sessions.len()]);
    }
    let places = sessions.iter().filter_map(|session| u32::try_from(session.key).ok());
    let places: UInt32Array = places.collect();
    let keys: Vec<ArrayRef> =
        keys.iter().map(|key| take(key, &places, None)).collect::<Result<_, _>>()?;
    let options = FormatOptions::default().with_null("NULL");
    let formatters = keys.iter().map(|key| ArrayFormatter::try_new(key.as_ref(), &options));
    let formatters: Vec<_> = formatters.collect::<Result<_, _>>()?;
    let rows = keys.first().map_or(0, Array::len);
    let text = |row: usize| {
        let values: Vec<String> = formatters.iter().map(|f| f.value(row).to_string()).collect();
        Some(values.join(", "))
    };
    Ok((0..rows).map(text).collect())
}

//! The coordinator of one continuous query: woken by every micro-batch, it advances the query's watermark, closes
//! windows and sends finished rows to the output. While it waits for a slow output it admits no micro-batches, so the
//! sources wait too.

use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use windrow_core::{Error, ErrorKind, Result, Watermark};
use windrow_sql::plan::Pace;
use windrow_storage::checkpoint::{Counts, CutTime, QueryCut};
use windrow_stream::caught::caught;
use windrow_stream::repeated::repeated;

use crate::checkpointer::Checkpointer;
use crate::idle::{QueryOutlook, close_up_to, hold_for_cut};
use crate::output::Output;
use crate::reference::ReferenceTables;
use crate::root::Root;
use crate::shared::{Shared, Status, of_query};
use crate::tap_state::{TapState, cut_taps};

/// Prompt flushes may take one part in this many of the time.
const PROMPT_PART: i64 = 16;

/// The coordinator's own state.
#[derive(Debug)]
pub(crate) struct Coordinator {
    pub(crate) shared: Arc<Shared>,
    pub(crate) root: Root,
    pub(crate) output: Output,
    /// The positions of the query's leaves in their streams.
    pub(crate) taps: Vec<Arc<TapState>>,
    /// Makes its checkpoints, where it has them.
    pub(crate) checkpointer: Option<Checkpointer>,
    /// The reference tables, whose memory counts while the query runs.
    #[expect(dead_code, reason = "is held")]
    pub(crate) tables: ReferenceTables,
    /// When a checkpoint was last requested in order to advance past idle inputs, in µs since the Unix epoch.
    pub(crate) moved_micros: i64,
    pub(crate) promptness: Promptness,
}

/// The longest time between two emissions of an updating result, in µs, while rows keep arriving.
const EMIT_MICROS: i64 = 500_000;

/// When workers are flushed although more rows may come for the same result (*prompt*): whenever no rows are on their
/// way, or at the pace of an updating result, but limited to a small part of the time.
#[derive(Debug)]
pub(crate) struct Promptness {
    pace: Pace,
    last_micros: i64,
    due_micros: i64,
}

impl Promptness {
    /// Of a query that begins at `now`, in µs.
    pub(crate) fn new(pace: Pace, now: i64) -> Self {
        let last_micros = match pace {
            Pace::Prompt => 0,
            Pace::AtMost(batch) => now.saturating_sub(micros(batch)),
            Pace::Every(_) => now,
        };
        Self { pace, last_micros, due_micros: 0 }
    }

    fn is_due(&self, now: i64) -> bool {
        // A clock may have been set back.
        now >= self.next_micros() || now < self.last_micros
    }

    /// When the next flush may be.
    fn next_micros(&self) -> i64 {
        let next = match self.pace {
            Pace::Prompt => i64::MIN,
            Pace::AtMost(batch) => self.last_micros.saturating_add(micros(batch)),
            Pace::Every(interval) => {
                let interval = micros(interval);
                let past = self.last_micros.div_euclid(interval).saturating_mul(interval);
                past.saturating_add(interval)
            }
        };
        next.max(self.due_micros)
    }

    /// Whether an emission of an updating result is due although rows are in flight.
    fn is_overdue(&self, now: i64) -> bool {
        let waits = match self.pace {
            Pace::Prompt => now.saturating_sub(self.last_micros) < EMIT_MICROS,
            Pace::AtMost(_) | Pace::Every(_) => false,
        };
        !waits && self.is_due(now)
    }

    /// Notes that a flush began at `began`, ended at `now` and took `took` of that, in µs.
    fn note(&mut self, began: i64, now: i64, took: i64) {
        self.last_micros = began;
        self.due_micros = now.saturating_add(took.max(0).saturating_mul(PROMPT_PART));
    }
}

/// An interval in µs: at least one.
fn micros(interval: Duration) -> i64 {
    i64::try_from(interval.as_micros()).unwrap_or(i64::MAX).max(1)
}

/// The consequences of idle inputs for the next pass.
#[derive(Debug, Clone, Copy, Default)]
struct Idleness {
    /// Whether all inputs are idle, and the watermark has advanced as far as it may without them.
    rests: bool,
    /// When to check again, in µs since the Unix epoch.
    next_micros: Option<i64>,
}

impl Coordinator {
    /// Runs until all inputs have ended and all windows have been returned, or the query is stopped.
    pub(crate) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        shared.asked.begin();
        let result = tokio::select! {
            result = caught(|| of(&shared.name), self.steps()) => result,
            () = shared.stopped() => Ok(()),
        };
        match result {
            Err(error) if error.kind() == ErrorKind::Cancelled => shared.cancel(),
            Err(error) => shared.fail_by_rows(Arc::new(of_query(error, &shared.name))),
            Ok(()) => {}
        }
        // Readers must not treat a query that has stopped as idle.
        self.output.rest(false);
        if let Status::Failed(error) = shared.status() {
            if let Output::Stream { stream, .. } = &self.output {
                // No client waits for a continuous INSERT.
                let into = &stream.name;
                tracing::error!(query = shared.name, into, %error, "a continuous INSERT has failed");
            }
            self.output.fail(repeated(&error)).await;
        }
    }

    async fn steps(&mut self) -> Result<()> {
        let mut next_micros = None;
        loop {
            let batches = self.wait(next_micros).await?;
            let idleness = self.leave_idle_behind().await;
            next_micros = idleness.next_micros;
            let low = self.low();
            if !idleness.rests {
                // Before its rows: until now its readers have advanced without it.
                self.output.rest(false);
            }
            let due = self.step().await?;
            next_micros = next_micros.into_iter().chain(due).min();
            self.output.advance(self.watermark(low));
            if idleness.rests {
                self.output.rest(true);
            }
            self.note(batches, low);
            if low != Watermark::END {
                self.wait_for_room(self.watermark(low)).await?;
            }
            self.shared.give_room(batches);
            self.shared.passed();
            if low == Watermark::END {
                self.last_checkpoint(self.watermark(low)).await?;
                self.shared.finish(Status::Finished);
                self.output.end();
                return Ok(());
            }
        }
    }

    /// Waits for micro-batches, or until `next_micros`; returns the number of micro-batches.
    async fn wait(&mut self, next_micros: Option<i64>) -> Result<usize> {
        loop {
            let left = next_micros.map(|next| {
                let left = next.saturating_sub(self.shared.clock.now_micros());
                Duration::from_micros(u64::try_from(left).unwrap_or(0))
            });
            let due = async {
                match left {
                    Some(left) => self.shared.clock.sleep(left).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                batches = self.shared.wait_for_batches() => return Ok(batches),
                () = due => return Ok(0),
                () = self.shared.asked.asked() => {}
            }
            self.answer()?;
        }
    }

    /// Answers requests for what the query keeps.
    fn answer(&mut self) -> Result<()> {
        let root = &mut self.root;
        self.shared.asked.answer(|entries_max| root.survey(entries_max))
    }

    /// Advances the watermark past idle inputs: at once, or, where the query has checkpoints, by requesting one.
    async fn leave_idle_behind(&mut self) -> Idleness {
        let now = self.shared.clock.now_micros();
        let still = self.taps.iter().any(|tap| tap.is_still());
        let outlook = QueryOutlook::of_idle(&self.taps, now);
        let Some(mut outlook) = outlook.filter(|_| !self.shared.is_over()) else {
            return Idleness::default();
        };
        let mut idleness = Idleness { rests: false, next_micros: outlook.next_micros };
        if still || outlook.is_ahead(&self.taps) {
            if self.checkpointer.is_some() {
                let pause = outlook.pause_micros(&self.taps, self.root.next_close());
                let due = self.moved_micros.saturating_add(pause);
                if due <= now {
                    self.moved_micros = now;
                    self.shared.ask_checkpoint();
                }
                let due = self.moved_micros.saturating_add(pause);
                idleness.next_micros = idleness.next_micros.into_iter().chain([due]).min();
                return idleness;
            }
            let _nobody_inside = self.shared.gate.write().await;
            // An input may have resumed meanwhile.
            let now = self.shared.clock.now_micros();
            close_up_to(&hold_for_cut(&self.taps, now));
            outlook = QueryOutlook::of(&self.taps, now);
        }
        idleness.rests = outlook.all_idle();
        idleness
    }

    /// Waits until few enough returned rows are not archived, and makes requested checkpoints meanwhile, which
    /// archiving may need.
    async fn wait_for_room(&mut self, watermark: Watermark) -> Result<()> {
        let mut woken = false;
        let (output, clock) = (self.output.clone(), Arc::clone(&self.shared.clock));
        let room = output.wait_for_room(clock.as_ref());
        tokio::pin!(room);
        loop {
            self.serve_checkpoint(watermark).await?;
            tokio::select! {
                biased;
                () = &mut room => break,
                () = self.shared.woken() => woken = true,
                () = self.shared.asked.asked() => self.answer()?,
            }
        }
        if woken {
            // The wake-up may have been for micro-batches.
            self.shared.wake();
        }
        Ok(())
    }

    /// Makes a checkpoint, if one is requested.
    async fn serve_checkpoint(&mut self, watermark: Watermark) -> Result<()> {
        let Some(checkpointer) = &mut self.checkpointer else { return Ok(()) };
        let (taps, output) = (&self.taps[..], &self.output);
        checkpointer.serve(&self.shared, &mut self.root, (taps, output), watermark).await
    }

    /// Makes a last checkpoint when all rows of a view without windows have been returned, so that it records which of
    /// them arrived behind the watermark. If it cannot be written, that has been logged; the rows themselves are
    /// archived nevertheless.
    ///
    /// # Errors
    /// When it cannot be written and the view has an updating result, whose current rows are in checkpoints only.
    async fn last_checkpoint(&mut self, watermark: Watermark) -> Result<()> {
        if self.checkpointer.is_none() || self.output.given().is_none() {
            return Ok(());
        }
        if self.output.has_current_rows() {
            let shared = Arc::clone(&self.shared);
            let written = shared.checkpoint();
            tokio::pin!(written);
            loop {
                self.serve_checkpoint(watermark).await?;
                tokio::select! {
                    biased;
                    written = &mut written => return written,
                    () = self.shared.woken() => {}
                }
            }
        }
        let ticket = self.shared.ask_checkpoint();
        loop {
            self.serve_checkpoint(watermark).await?;
            if self.shared.checkpoint_wanted().is_none_or(|wanted| wanted < ticket) {
                break;
            }
            // This checkpoint or an earlier one is being written.
            self.shared.woken().await;
        }
        Ok(())
    }

    /// The minimum of the watermarks of the leaves.
    fn low(&self) -> Watermark {
        self.taps.iter().map(|tap| tap.watermark()).min().unwrap_or(Watermark::END)
    }

    /// The watermark of the query: the returned rows are complete up to it.
    fn watermark(&self, low: Watermark) -> Watermark {
        match &self.root {
            Root::Stage(stage) => stage.watermark(),
            Root::Rows { nested, .. } => {
                nested.iter().map(|(_, s)| s.watermark()).min().unwrap_or(Watermark::END).min(low)
            }
        }
    }

    /// Gathers and sends finished rows; returns when results that are held back are due.
    async fn step(&mut self) -> Result<Option<i64>> {
        let clock = Arc::clone(&self.shared.clock);
        let now = clock.now_micros();
        let idle = self.shared.is_idle();
        let at_once = self.root.comes_at_once();
        let asked = self.shared.take_asked_emission();
        let prompt = (idle && self.promptness.is_due(now))
            || (at_once && (asked || self.promptness.is_overdue(now)));
        let mut held_back = false;
        let mut at = 0;
        // What several taps read of a stream is flushed as of the same row.
        let flushes = prompt || self.low() == Watermark::END;
        let is_shared = at_once && flushes && self.taps.len() > 1;
        while let Some(stage) = self.root.stage_mut(at) {
            let nobody_inside = match is_shared {
                true => Some(self.shared.gate.write().await),
                false => None,
            };
            stage.gather(prompt).await?;
            drop(nobody_inside);
            held_back |= stage.holds_back;
            let mut took = clock.now_micros().saturating_sub(now);
            loop {
                let began = clock.now_micros();
                let Some((rows, in_order)) = self.next_rows(at).await? else { break };
                if at_once {
                    // Computing changes is most of the work; waiting for a slow reader does not count.
                    took = took.saturating_add(clock.now_micros().saturating_sub(began));
                }
                self.send(rows, in_order).await?;
            }
            if prompt && matches!(self.root, Root::Stage(_)) {
                self.promptness.note(now, clock.now_micros(), took);
            }
            at += 1;
        }
        if at_once {
            self.output.commit()?;
        }
        // Rows that are on their way wake the coordinator.
        Ok((held_back && idle && !prompt).then_some(self.promptness.next_micros()))
    }

    /// The next finished rows of a stage, and whether they are in one order already.
    async fn next_rows(&mut self, at: usize) -> Result<Option<(Vec<RecordBatch>, bool)>> {
        match &mut self.root {
            Root::Stage(stage) => Ok(stage.pop().await?.map(|rows| (rows, stage.in_order))),
            Root::Rows { nested, prepare } => {
                let Some((leaf, stage)) = nested.get_mut(at) else { return Ok(None) };
                // Rows that are put in order are needed together.
                let whole = self.output.is_ordered();
                let rows = if whole { stage.pop_whole().await? } else { stage.pop().await? };
                match rows {
                    Some(rows) => Ok(Some((prepare.run(vec![(*leaf, rows)]).await?, false))),
                    None => Ok(None),
                }
            }
        }
    }

    /// Sends rows. However long the output takes, requests for what the query keeps are answered meanwhile.
    async fn send(&mut self, rows: Vec<RecordBatch>, in_order: bool) -> Result<()> {
        let (shared, output) = (Arc::clone(&self.shared), self.output.clone());
        let sent = send(&shared, &output, rows, in_order);
        tokio::pin!(sent);
        loop {
            tokio::select! {
                biased;
                sent = &mut sent => return sent,
                () = shared.asked.asked() => self.answer()?,
            }
        }
    }

    fn note(&self, batches: usize, low: Watermark) {
        let closed = match &self.root {
            Root::Stage(stage) => stage.closed,
            Root::Rows { .. } => 0,
        };
        let operators = self.root.sizes();
        let mut state = self.shared.state.lock();
        state.watermark = self.watermark(low);
        state.windows_closed = closed;
        state.windows_open = operators.iter().map(|operator| operator.open).sum();
        state.state_bytes = operators.iter().map(|operator| operator.bytes).sum();
        state.operators = operators;
        state.batches += batches as u64;
    }
}

/// A query whose coordinator is dropped before its end fails: it will return no more rows.
impl Drop for Coordinator {
    fn drop(&mut self) {
        if !self.shared.is_over() {
            let error = Error::internal(format!("{} has stopped", of(&self.shared.name)));
            self.shared.fail(Arc::new(error));
        }
    }
}

/// The name of a query in errors.
fn of(query: &str) -> String {
    format!("query \"{query}\"")
}

/// Sends finished rows to the output; `in_order`: their order does not depend on timing already.
async fn send(
    shared: &Shared,
    output: &Output,
    rows: Vec<RecordBatch>,
    in_order: bool,
) -> Result<()> {
    shared.ledger.add_rows_out(rows.iter().map(RecordBatch::num_rows).sum());
    output.send_closed(rows, in_order).await
}

impl Coordinator {
    /// Returns the state before the first micro-batch.
    ///
    /// # Errors
    /// When the state cannot be cut.
    pub(crate) fn first_cut(&mut self) -> Result<QueryCut> {
        let parts = self.root.take_parts();
        let mut operators = self.root.cut(parts)?;
        operators.extend(self.output.cut()?);
        let at = CutTime { taken_micros: self.shared.clock.now_micros(), paused_micros: 0 };
        let (counts, unused) = (Counts::default(), vec![]);
        let rows_given = self.output.given().map(|given| given.rows);
        Ok(QueryCut { at, operators, taps: cut_taps(&self.taps), counts, unused, rows_given })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    #[test]
    fn an_interval_is_kept_by_the_clock() {
        let mut every = Promptness::new(Pace::Every(Duration::from_secs(5)), 12 * SECOND);
        assert_eq!(every.next_micros(), 15 * SECOND);
        assert!(!every.is_due(15 * SECOND - 1) && every.is_overdue(15 * SECOND));
        every.note(16 * SECOND, 16 * SECOND, 0);
        assert_eq!(every.next_micros(), 20 * SECOND);
        // Four seconds of work allow the next emission 64 seconds later.
        every.note(20 * SECOND, 24 * SECOND, 4 * SECOND);
        assert_eq!(every.next_micros(), 88 * SECOND);
        assert!(every.is_due(19 * SECOND), "the clock was set back");
    }

    #[test]
    fn a_batch_begins_with_its_first_change() {
        let mut batch = Promptness::new(Pace::AtMost(Duration::from_secs(5)), 12 * SECOND);
        assert!(batch.is_due(12 * SECOND));
        batch.note(13 * SECOND, 13 * SECOND, 0);
        assert!(!batch.is_due(18 * SECOND - 1) && batch.is_due(18 * SECOND));
    }

    #[test]
    fn changes_are_emitted_within_half_a_second() {
        let mut prompt = Promptness::new(Pace::Prompt, 12 * SECOND);
        prompt.note(12 * SECOND, 12 * SECOND, 0);
        assert!(prompt.is_due(12 * SECOND) && !prompt.is_overdue(12 * SECOND));
        assert!(prompt.is_overdue(12 * SECOND + EMIT_MICROS));
    }
}

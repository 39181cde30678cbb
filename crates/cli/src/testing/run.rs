//! Runs a test once, on a separate engine whose clock only the test advances.
//!
//! A shaken run uses random batch sizes and thread counts, and a data directory from which the engine is reopened between
//! statements.
//!
//! Invariant: no query returns other rows in a shaken run.

use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use arrow::util::display::ArrayFormatter;
use futures::TryStreamExt;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use windrow_core::{Clock, Error, ErrorKind, Limits, ManualClock, Result};
use windrow_engine::{Engine, EngineConfig, Outcome, Session, SessionOptions};
use windrow_sql::parse::{Parsed, Statement as Sql};

use super::case::{Case, Expected, Statement, Step, normalized};
use super::report::{Mismatch, Verdict};
use super::substitute::substituted;
use crate::output::format_options;

/// The real time that a statement may take: the clock of the test stands still, so a statement that waits for it would never
/// end.
const STATEMENT_MAX: Duration = Duration::from_secs(60);
/// How often a query is repeated after the clock has advanced, since its rows may still be under way, and the pause between.
const REPEATS: u32 = 40;
/// The steps in which the clock advances.
const STEPS: u32 = 8;
const PAUSE: Duration = Duration::from_millis(50);

/// The random numbers of a shaken run, from a seed.
#[derive(Debug)]
pub(super) struct Shaken(u64);

impl Shaken {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end` (SplitMix64).
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let z = z ^ (z >> 31);
        usize::try_from(z % end.max(1) as u64).unwrap_or_default()
    }

    fn limits(&mut self) -> Limits {
        let rows = [1, 2, 3, 7, 100, 8_192];
        let batch_rows_max = rows.get(self.below(rows.len())).copied().unwrap_or(1);
        Limits { batch_rows_max, threads: 1 + self.below(4), ..Limits::default() }
    }
}

/// The engine of a test.
struct Bench<'a> {
    clock: ManualClock,
    limits: Limits,
    /// Where sinks write, and the data directory of a shaken run.
    folder: TempDir,
    is_durable: bool,
    /// The settings that the session has been given.
    settings: Vec<Parsed>,
    /// `None`: it is being opened again.
    open: Option<(Engine, Session)>,
    waiting: &'a Runtime,
    /// Whether the clock has moved since the last query.
    moved: bool,
}

/// Runs a test.
pub(super) fn run(case: &Case, shaken: Option<Shaken>, waiting: &Runtime) -> Verdict {
    let mut shaken = shaken;
    let limits = shaken.as_mut().map_or_else(Limits::default, Shaken::limits);
    let mut bench = match Bench::open(case, limits, shaken.is_some(), waiting) {
        Ok(bench) => bench,
        Err(error) => return Verdict::broken(error.into()),
    };
    let mut verdict = Verdict::default();
    for step in &case.steps {
        if let Some(shaken) = &mut shaken
            && shaken.below(3) == 0
            && let Err(error) = bench.restart()
        {
            return Verdict::broken(error.into());
        }
        match step {
            Step::At(micros) => bench.move_to(*micros),
            Step::Run(statement) => match bench.statement(statement) {
                Ok(None) => {}
                Ok(Some(mismatch)) => verdict.mismatches.push(mismatch),
                Err(error) => {
                    verdict.failure =
                        Some(statement.script.failure(error, statement.parsed.first_line));
                    break;
                }
            },
        }
    }
    match bench.ended() {
        Err(error) if verdict.is_ok() => Verdict::broken(error.into()),
        _ => verdict,
    }
}

impl<'a> Bench<'a> {
    fn open(case: &Case, limits: Limits, is_durable: bool, waiting: &'a Runtime) -> Result<Self> {
        let folder = tempfile::tempdir().map_err(|e| {
            Error::new(ErrorKind::Unavailable, format!("cannot create a folder: {e}"))
                .with_source(e)
        })?;
        let clock = ManualClock::at(case.start_micros);
        let open = Some(opened(&clock, &limits, is_durable.then_some(&folder))?);
        let settings = vec![];
        Ok(Self { clock, limits, folder, is_durable, settings, open, waiting, moved: false })
    }

    /// Closes the engine and opens it again.
    fn restart(&mut self) -> Result<()> {
        self.within(self.engine()?.close())?;
        // Only one engine can use the data directory at a time.
        self.open = None;
        self.open = Some(opened(&self.clock, &self.limits, Some(&self.folder))?);
        for setting in &self.settings {
            self.within(self.session()?.execute(setting))?;
        }
        Ok(())
    }

    /// Ends the engine.
    fn ended(&self) -> Result<()> {
        let engine = self.engine()?;
        match self.is_durable {
            // Its checkpoints would fail, and say so.
            true => self.within(engine.close()),
            false => {
                engine.shutdown();
                Ok(())
            }
        }
    }

    fn engine(&self) -> Result<&Engine> {
        self.open.as_ref().map(|(engine, _)| engine).ok_or_else(closed)
    }

    fn session(&self) -> Result<&Session> {
        self.open.as_ref().map(|(_, session)| session).ok_or_else(closed)
    }

    /// Waits until all that was inserted has been read.
    fn settle(&self) -> Result<()> {
        self.within(self.engine()?.settle())
    }

    /// Waits for a result, as long as a statement may take.
    fn within<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let clock = crate::clock::clock();
        self.waiting.block_on(async {
            tokio::select! {
                done = work => done,
                () = clock.sleep(STATEMENT_MAX) => Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("the statement has not ended within {} seconds", STATEMENT_MAX.as_secs()),
                )
                .with_hint("It may wait for the clock of the test, which only \"-- at\" moves, or for rows that nothing inserts.")),
            }
        })
    }

    fn move_to(&mut self, micros: i64) {
        let by = micros.saturating_sub(self.clock.now_micros());
        let by = Duration::from_micros(u64::try_from(by).unwrap_or_default());
        // In steps, like real time: a task that waits for a time may then wait for a later one.
        for _ in 0..STEPS {
            // What was inserted before is read before.
            if let Err(error) = self.settle() {
                tracing::debug!(%error, "a later query reports it");
            }
            self.clock.advance(by / STEPS);
        }
        let left = micros.saturating_sub(self.clock.now_micros());
        self.clock.advance(Duration::from_micros(u64::try_from(left).unwrap_or_default()));
        self.moved = true;
    }

    /// Runs a statement. Returns the difference to what is expected.
    fn statement(&mut self, statement: &Statement) -> Result<Option<Mismatch>> {
        let parsed = substituted(&statement.parsed, self.folder.path())?;
        let is_query = matches!(parsed.statement, Sql::Query(_));
        if is_query {
            self.settle()?;
        }
        let mut found = self.rows(&parsed);
        let Some(expected) = &statement.expected else {
            if let (Ok(_), Sql::Set(_)) = (&found, &parsed.statement) {
                self.settings.push(parsed);
            }
            return found.map(|_| None);
        };
        let is_ordered = ordered(&parsed);
        // The clock has advanced, and other threads may still be reacting to it.
        let mut repeats = if self.moved && is_query { REPEATS } else { 0 };
        while repeats > 0 && Mismatch::of(statement, &found, expected, is_ordered).is_some() {
            repeats -= 1;
            self.waiting.block_on(async { crate::clock::clock().sleep(PAUSE).await });
            self.settle()?;
            found = self.rows(&parsed);
        }
        match (found, expected) {
            (Err(error), Expected::Rows(_)) => Err(error),
            (found, expected) => Ok(Mismatch::of(statement, &found, expected, is_ordered)),
        }
    }

    /// Executes a statement and returns its rows as text.
    fn rows(&self, parsed: &Parsed) -> Result<Vec<String>> {
        let session = self.session()?;
        self.within(async {
            let rows = match session.execute(parsed).await? {
                Outcome::Rows(rows) => rows,
                Outcome::Done(_) => return Ok(vec![]),
            };
            let batches: Vec<RecordBatch> = rows.try_collect().await?;
            let mut lines = vec![];
            for batch in &batches {
                lines.extend(lines_of(batch)?);
            }
            Ok(lines)
        })
    }
}

fn opened(
    clock: &ManualClock,
    limits: &Limits,
    data: Option<&TempDir>,
) -> Result<(Engine, Session)> {
    let clock: Arc<dyn Clock> = Arc::new(clock.clone());
    let engine = Engine::open(EngineConfig {
        limits: limits.clone(),
        clock: Some(clock),
        data_dir: data.map(|folder| folder.path().join("data")),
        ..EngineConfig::default()
    })?;
    let session = engine.session(SessionOptions { push_ends: true })?;
    Ok((engine, session))
}

fn closed() -> Error {
    Error::internal("the engine of the test is closed")
}

/// Whether the order of the rows of a statement matters.
fn ordered(parsed: &Parsed) -> bool {
    match &parsed.statement {
        Sql::Query(query) => query.query.order_by.is_some(),
        _ => true,
    }
}

/// The rows of a batch as text, values between `|`.
fn lines_of(batch: &RecordBatch) -> Result<Vec<String>> {
    let options = format_options();
    let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let line = |row: usize| {
        let values = columns.iter().map(|column| column.value(row).try_to_string());
        Ok(normalized(&values.collect::<Result<Vec<_>, _>>()?.join(" | ")))
    };
    (0..batch.num_rows()).map(line).collect()
}

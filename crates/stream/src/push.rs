//! Push streams: rows enter by INSERT and Flight and are stored in a log. With a data directory they pass a write-ahead
//! log first, and are acknowledged when they are durable there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use parking_lot::Mutex;
use tokio::sync::{RwLock, RwLockWriteGuard};
use windrow_core::offset::Consecutive;
use windrow_core::{
    BadRow, Clock, Error, ErrorKind, Layout, Limits, OffsetRange, PartitionId, Result, RowOffsets,
    SourceBatch,
};
use windrow_sql::plan::DELETED_COLUMN;
use windrow_storage::wal::producers::{Producers, Stamp, Verdict};
use windrow_storage::wal::{Appended, Offered, Wal};

use crate::checks::Checks;
use crate::generated::Columns;
use crate::intake::{Intake, TakenIn, lie_in_1970};
use crate::kept::BadRows;
use crate::log::{Room, StreamLog};
use crate::spill::Spiller;
use crate::texts::Texts;

/// A stream without a connector.
#[derive(Debug)]
pub struct PushStream {
    /// The name of the stream.
    pub name: String,
    /// Its rows.
    pub log: Arc<StreamLog>,
    /// The checks that they pass.
    pub(crate) intake: Intake,
    /// The store for rows that fail them.
    pub(crate) bad_rows: Arc<BadRows>,
    /// The wall clock, with which event times in the future are detected.
    pub(crate) clock: Arc<dyn Clock>,
    /// The columns of rows that enter.
    form: Mutex<Arc<Form>>,
    /// The checks that rows must satisfy.
    checks: Mutex<Arc<Checks>>,
    /// The write-ahead log, which appends durable rows to `log`; `None`: the stream is in memory only.
    pub wal: Option<Arc<Wal>>,
    /// The progress of the producers, where there is no write-ahead log.
    producers: Mutex<Producers>,
    /// Archives the log, where there is a data directory.
    pub spiller: Option<Arc<Spiller>>,
    /// How many rows may wait for the archive.
    room: Room,
    /// How long an append waits for an archive that fails.
    archive_wait: Duration,
    /// The number of rows ever offered, good and bad: the offset of a bad row is its number among them.
    offered: AtomicU64,
    /// Whether event times in 1970 have been logged.
    warned_1970: AtomicBool,
    /// Lets a writer that changes rows work alone, where rows have a primary key: other writers wait until it is done.
    changing: Option<RwLock<()>>,
}

/// The columns of rows that enter a push stream.
#[derive(Debug)]
pub(crate) struct Form {
    /// The generated columns, if any; they are computed when rows enter.
    columns: Option<Arc<Columns>>,
    /// All columns but the generated ones.
    physical: Layout,
    /// What the texts of columns must be.
    pub(crate) texts: Texts,
}

impl Form {
    /// The columns of rows that enter.
    pub(crate) fn physical(&self) -> &Layout {
        &self.physical
    }

    /// Returns rows with the columns that were added since they were made, and the generated ones.
    fn whole(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let rows = match rows.num_columns() < self.physical.schema().fields().len() {
            true => &self.physical.widened(rows)?,
            false => rows,
        };
        match &self.columns {
            Some(columns) => columns.compute_all(rows),
            None => Ok(rows.clone()),
        }
    }
}

/// The outcome of pushed rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// Rows that are in the stream now.
    pub rows: u64,
    /// Rows that could not be used; see `windrow.bad_rows`.
    pub bad: u64,
    /// The batch was sent before and is in the stream already. Then both counts are 0.
    pub repeated: bool,
    /// There are rows, and all their event times lie in 1970: nearly always their numbers have another unit than the
    /// column.
    pub in_1970: bool,
}

/// The records that rows were decoded from.
#[derive(Debug)]
pub struct Records {
    /// Which of the records each row is, from 0, ascending; `None`: all, in order.
    pub numbers: Option<Vec<u64>>,
    /// The bad ones; the offset of each is its number among the records.
    pub bad: Vec<BadRow>,
    /// Records in all.
    pub count: u64,
}

impl Records {
    /// Returns the records of rows that are one each.
    fn of(rows: &RecordBatch) -> Self {
        Self { numbers: None, bad: vec![], count: rows.num_rows() as u64 }
    }
}

/// Rows that have been offered to a stream; [`PushStream::settled`] returns the outcome.
#[derive(Debug)]
pub struct Pushing {
    pushed: Pushed,
    bad: Vec<BadRow>,
    /// The offset of the first record.
    first: u64,
    waits: Waits,
}

#[derive(Debug)]
enum Waits {
    /// Until the write-ahead log has written them.
    Log(Offered),
    /// Not at all.
    Done(Verdict),
}

impl Pushing {
    /// The bad rows, each with the number of its record as its offset.
    pub fn bad(&self) -> Vec<BadRow> {
        let numbered =
            |bad: &BadRow| BadRow { offset: bad.offset.saturating_sub(self.first), ..bad.clone() };
        self.bad.iter().map(numbered).collect()
    }
}

impl Pushed {
    /// What people are told where [`in_1970`](Self::in_1970) is set.
    pub const NOTICE_1970: &'static str =
        "all event times lie in 1970; numbers are read in the unit of the column";
}

/// The only writer of a stream with a primary key, for as long as it exists.
#[derive(Debug)]
pub struct Changing<'a> {
    push: &'a PushStream,
    _alone: RwLockWriteGuard<'a, ()>,
}

impl Changing<'_> {
    /// Replaces the rows with the keys of these rows, which have the [physical](PushStream::physical) columns and satisfy
    /// the checks, or deletes them. On return that is as durable as the stream is. A caller that stops waiting may not know
    /// whether it happens; it never happens to only some of the rows.
    ///
    /// # Errors
    /// As [`PushStream::append`].
    pub async fn put(self, rows: &RecordBatch, deletes: bool) -> Result<()> {
        let push = self.push;
        let mut whole = push.form().whole(rows)?;
        if deletes {
            let (schema, mut columns) = (whole.schema(), whole.columns().to_vec());
            let at = schema.index_of(DELETED_COLUMN)?;
            if let Some(column) = columns.get_mut(at) {
                *column = Arc::new(BooleanArray::from(vec![true; rows.num_rows()]));
            }
            whole = RecordBatch::try_new(schema, columns)?;
        }
        push.offered.fetch_add(whole.num_rows() as u64, Ordering::Relaxed);
        push.wait_for_room().await?;
        match &push.wal {
            Some(wal) => wal.append(whole).await.map(drop),
            None => push.log.append(whole).map(drop),
        }
    }
}

impl PushStream {
    /// Returns a stream over a log in memory. `columns`: all columns, where some are generated.
    pub fn new(
        name: String,
        log: Arc<StreamLog>,
        intake: Intake,
        bad_rows: Arc<BadRows>,
        clock: Arc<dyn Clock>,
        columns: Option<Arc<Columns>>,
    ) -> Self {
        let offered = log.state().rows.into();
        let physical = match &columns {
            Some(columns) => Arc::clone(&columns.physical),
            None => log.schema(),
        };
        let physical = Layout::new(physical, vec![]);
        let form = Form { columns, physical, texts: Texts::default() };
        Self {
            name,
            log,
            intake,
            bad_rows,
            clock,
            form: Mutex::new(Arc::new(form)),
            checks: Mutex::default(),
            wal: None,
            producers: Mutex::default(),
            spiller: None,
            room: Room { rows: u64::MAX, bytes: usize::MAX },
            archive_wait: Duration::ZERO,
            offered,
            warned_1970: AtomicBool::new(false),
            changing: None,
        }
    }

    /// Sets what the texts of columns must be, and the values of the last columns, one each, in rows without them.
    pub fn with(self, texts: Texts, added: Vec<ArrayRef>) -> Self {
        let form = self.form();
        let physical = Layout::new(Arc::clone(form.physical.schema()), added);
        let form = Form { columns: form.columns.clone(), physical, texts };
        Self { form: Mutex::new(Arc::new(form)), ..self }
    }

    /// Adds columns at the end, to all rows. `columns`: all columns; `added`: the values of all columns that were ever added, one
    /// each, in rows without them.
    ///
    /// # Errors
    /// When a column cannot be archived, or the columns before them are others (a bug). Then nothing has changed.
    pub fn widen(&self, columns: Columns, added: Vec<ArrayRef>) -> Result<()> {
        let layout = Layout::new(Arc::clone(&columns.schema), added.clone());
        // Each part accepts rows without the new columns, and none passes rows with them to a part that lacks them.
        if let Some(spiller) = &self.spiller {
            spiller.widen(&layout)?;
        }
        self.log.widen(&layout)?;
        if let Some(wal) = &self.wal {
            wal.widen(Arc::clone(&columns.schema), added.clone());
        }
        let physical = Layout::new(Arc::clone(&columns.physical), added);
        let (texts, any) = (columns.texts.clone(), columns.any_generated());
        let columns = any.then(|| Arc::new(columns));
        *self.form.lock() = Arc::new(Form { columns, physical, texts });
        Ok(())
    }

    /// Checks that the stream could have these columns.
    ///
    /// # Errors
    /// When a column has a type that cannot be archived.
    pub fn accepts(&self, schema: &Schema) -> Result<()> {
        self.spiller.as_ref().map_or(Ok(()), |_| windrow_archive::check_columns(schema))
    }

    /// The columns of rows that enter now.
    pub(crate) fn form(&self) -> Arc<Form> {
        Arc::clone(&self.form.lock())
    }

    /// The generated columns, if there are any.
    pub fn generated(&self) -> Option<Arc<Columns>> {
        self.form().columns.clone()
    }

    /// Makes it a log of changes: [`changed_by`](Self::changed_by) changes its rows.
    pub fn with_changes(self) -> Self {
        Self { changing: Some(RwLock::new(())), ..self }
    }

    /// Replaces the checks that further rows must satisfy.
    pub fn check_by(&self, checks: Checks) {
        *self.checks.lock() = Arc::new(checks);
    }

    /// The checks that rows must satisfy now.
    pub fn checks(&self) -> Arc<Checks> {
        Arc::clone(&self.checks.lock())
    }

    /// Checks that rows with the [physical](Self::physical) columns satisfy the checks of the stream, for writers that
    /// insert all of their rows or none. For other writers, violating rows become bad rows.
    ///
    /// # Errors
    /// The first row that violates a check.
    pub fn check(&self, rows: &RecordBatch) -> Result<()> {
        let checks = self.checks();
        if checks.is_empty() {
            return Ok(());
        }
        match checks.refused(&self.form().whole(rows)?)? {
            None => Ok(()),
            Some(why) => Err(Error::data(format!("a row of stream \"{}\" {why}", self.name))),
        }
    }

    /// Adds a write-ahead log and an archive. Appends then wait while too many rows are not archived.
    pub fn with_wal(self, wal: Arc<Wal>, spiller: Arc<Spiller>, limits: &Limits) -> Self {
        let (wal, spiller) = (Some(wal), Some(spiller));
        Self { wal, spiller, room: Room::of(limits), archive_wait: limits.archive_wait, ..self }
    }

    /// The columns of pushed rows: all except the generated ones.
    pub fn physical(&self) -> SchemaRef {
        Arc::clone(self.form().physical.schema())
    }

    /// Appends rows that have the [physical](Self::physical) columns, or those that there were before some were added. On return they are as durable as the stream is.
    ///
    /// # Errors
    /// When a generated column cannot be computed; when the rows cannot be written;
    /// [`ErrorKind::Unavailable`] when too many rows wait in memory for an archive that fails.
    pub async fn append(&self, rows: &RecordBatch) -> Result<Pushed> {
        let pushing = self.offer(rows, None).await?;
        self.settled(pushing).await
    }

    /// Queues rows behind those offered before; [`settled`](Self::settled) returns the outcome. Rows with a stamp that
    /// are in the stream already are skipped.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub async fn offer(&self, rows: &RecordBatch, stamp: Option<Stamp>) -> Result<Pushing> {
        self.offer_decoded(rows, Records::of(rows), stamp).await
    }

    /// Queues rows that were decoded from records, some of which may be bad rows.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub async fn offer_decoded(
        &self,
        rows: &RecordBatch,
        records: Records,
        stamp: Option<Stamp>,
    ) -> Result<Pushing> {
        if stamp.as_ref().is_some_and(|stamp| self.has(stamp)) {
            let pushed = Pushed { rows: 0, bad: 0, repeated: true, in_1970: false };
            let waits = Waits::Done(Verdict::Repeated);
            return Ok(Pushing { pushed, bad: vec![], first: 0, waits });
        }
        let rows = self.form().whole(rows)?;
        // Until the rows are queued. A change that begins then sees them.
        let _queued_before_changes = match &self.changing {
            Some(changing) => Some(changing.read().await),
            None => None,
        };
        let first = self.offered.fetch_add(records.count, Ordering::Relaxed);
        let TakenIn { rows, bad, times, .. } = self.take_in(first, rows, records)?;
        let pushed = self.pushed(&rows, &bad, times);
        let waits = match &self.wal {
            Some(wal) if rows.num_rows() > 0 || stamp.is_some() => {
                self.wait_for_room().await?;
                Waits::Log(wal.offer(rows, stamp).await?)
            }
            Some(_) => Waits::Done(Verdict::New),
            None => {
                self.wait_for_room().await?;
                Waits::Done(self.append_to_memory(rows, stamp.as_ref())?)
            }
        };
        Ok(Pushing { pushed, bad, first, waits })
    }

    /// Returns the outcome of offered rows, once they are as durable as the stream is.
    ///
    /// # Errors
    /// When they could not be written; when their stamp does not follow the one before.
    pub async fn settled(&self, pushing: Pushing) -> Result<Pushed> {
        let Pushing { pushed, bad, waits, .. } = pushing;
        let repeated = match waits {
            Waits::Log(offered) => offered.answer().await? == Appended::Repeated,
            Waits::Done(verdict) => verdict == Verdict::Repeated,
        };
        if repeated {
            return Ok(Pushed { rows: 0, bad: 0, repeated, in_1970: false });
        }
        self.keep_bad(&bad);
        Ok(pushed)
    }

    /// Lets the caller change rows that it reads, alone: until the result is dropped, nothing else is appended, and the
    /// log has all rows that were appended before.
    ///
    /// # Errors
    /// As [`append`](Self::append); Internal when the stream has no primary key.
    pub async fn changed_by(&self) -> Result<Changing<'_>> {
        let changing = self.changing.as_ref();
        let changing = changing.ok_or_else(|| Error::internal("a change of append-only rows"))?;
        let alone = changing.write().await;
        if let Some(wal) = &self.wal {
            // It comes after all rows that are queued.
            wal.append(RecordBatch::new_empty(self.log.schema())).await?;
        }
        Ok(Changing { push: self, _alone: alone })
    }

    /// Appends rows that were read from a source and have all columns, none of which is bad.
    ///
    /// # Errors
    /// As [`append`](Self::append), and when the stamp does not follow the one before.
    pub(crate) async fn append_read(&self, rows: RecordBatch, stamp: Stamp) -> Result<()> {
        match &self.wal {
            Some(wal) => {
                self.wait_for_room().await?;
                wal.offer(rows, Some(stamp)).await?.answer().await?;
            }
            None => {
                self.wait_for_room().await?;
                self.append_to_memory(rows, Some(&stamp))?;
            }
        }
        Ok(())
    }

    /// The number of batches (or rows, of a source's partition) of a producer's sequence that are in the stream.
    pub fn taken(&self, producer: &str) -> u64 {
        self.known_producers().lock().taken(producer)
    }

    /// The producers that have written with stamps.
    pub(crate) fn producers(&self) -> Vec<Arc<str>> {
        self.known_producers().lock().names()
    }

    fn known_producers(&self) -> &Mutex<Producers> {
        self.wal.as_ref().map_or(&self.producers, |wal| wal.producers())
    }

    /// Whether a stamped batch is in the stream already.
    fn has(&self, stamp: &Stamp) -> bool {
        match &self.wal {
            Some(wal) => wal.has(stamp),
            None => self.producers.lock().has(stamp),
        }
    }

    fn append_to_memory(&self, rows: RecordBatch, stamp: Option<&Stamp>) -> Result<Verdict> {
        let Some(stamp) = stamp else { return self.log.append(rows).map(|_| Verdict::New) };
        let mut producers = self.producers.lock();
        let verdict = producers.judge(stamp, &[])?;
        if verdict == Verdict::New {
            self.log.append(rows)?;
            producers.take(stamp);
        }
        Ok(verdict)
    }

    /// Waits until few enough rows are not archived, and until near followers have caught up: the back-pressure on
    /// writers.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the archive fails for longer than `archive_wait`.
    async fn wait_for_room(&self) -> Result<()> {
        loop {
            tokio::select! {
                () = self.log.wait_for_room(self.room) => break,
                () = self.clock.sleep(self.archive_wait) => {}
            }
            let Some(error) = self.spiller.as_ref().and_then(|s| s.error()) else { continue };
            let message = format!(
                "stream \"{}\" accepts no rows: {} wait in memory, and its archive fails: {error}",
                self.name,
                self.log.tail_size().0
            );
            return Err(Error::new(ErrorKind::Unavailable, message).with_hint(
                "Nothing that was acknowledged is lost. It accepts rows again when the archive does.",
            ));
        }
        self.log.wait_for_followers(self.clock.as_ref()).await;
        Ok(())
    }

    /// As [`append`](Self::append), for callers that cannot await; it does not wait for the archive.
    pub fn append_blocking(&self, rows: &RecordBatch) -> Result<Pushed> {
        let alone = |changing| futures::executor::block_on(tokio::task::unconstrained(changing));
        let _before_changes = self.changing.as_ref().map(|changing| alone(changing.read()));
        self.append_whole(self.form().whole(rows)?)
    }

    /// Appends rows that have all columns, for callers that cannot await.
    pub fn append_whole(&self, rows: RecordBatch) -> Result<Pushed> {
        let records = Records::of(&rows);
        let first = self.offered.fetch_add(records.count, Ordering::Relaxed);
        let TakenIn { rows, bad, times, .. } = self.take_in(first, rows, records)?;
        let pushed = self.pushed(&rows, &bad, times);
        match &self.wal {
            Some(wal) if rows.num_rows() > 0 => wal.append_blocking(rows)?,
            _ => self.log.append(rows)?,
        };
        self.keep_bad(&bad);
        Ok(pushed)
    }

    /// Returns the outcome to report for rows. Times in 1970 are also logged, once, because not every client shows
    /// notices.
    fn pushed(&self, rows: &RecordBatch, bad: &[BadRow], times: Option<(i64, i64)>) -> Pushed {
        let column = self.intake.time.and_then(|time| rows.columns().get(time));
        let in_1970 = column.zip(times).is_some_and(|(c, times)| lie_in_1970(c.data_type(), times));
        if in_1970 && !self.warned_1970.swap(true, Ordering::Relaxed) {
            tracing::warn!(stream = self.name, "all event times of a batch lie in 1970");
        }
        let (rows, bad) = (rows.num_rows() as u64, bad.len() as u64);
        Pushed { rows, bad, repeated: false, in_1970 }
    }

    /// Checks rows that have all columns; returns the good and the bad ones, with the records that are bad already.
    /// `first`: the offset of the first record.
    fn take_in(&self, first: u64, rows: RecordBatch, records: Records) -> Result<TakenIn> {
        let Records { numbers, bad, count } = records;
        let row_offsets: Arc<dyn RowOffsets> = match numbers {
            None => Arc::new(Consecutive(first)),
            Some(numbers) => {
                let offsets: Vec<u64> = numbers.into_iter().map(|number| first + number).collect();
                Arc::new(offsets)
            }
        };
        let bad = bad.into_iter().map(|bad| BadRow { offset: first + bad.offset, ..bad }).collect();
        let batch = SourceBatch {
            rows,
            offsets: OffsetRange::try_new(first, first + count)?,
            row_offsets,
            bad,
            skipped: 0,
            watermark: None,
            idle: None,
            behind: vec![],
            place: None,
        };
        let batch = self.checks().applied(batch)?;
        self.intake.take(batch, self.clock.now_micros())
    }

    fn keep_bad(&self, bad: &[BadRow]) {
        self.bad_rows.keep(&self.name, (PartitionId(0), "log"), bad);
    }
}

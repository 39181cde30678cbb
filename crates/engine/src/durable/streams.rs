//! The logs of push streams in the data directory, and what happens when they have lost rows.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use windrow_archive::{ArchiveTable, Provenance};
use windrow_core::{Error, Layout, Result};
use windrow_storage::checkpoint::Checkpoints;
use windrow_storage::files::io_error;
use windrow_storage::wal::{Durability, Known, Recovered, Wal, WalOptions, extent};
use windrow_stream::log::{Completion, StreamLog};

use crate::durable::definitions::{Definition, Kind, LostRows, Part};
use crate::durable::store::{DELTA_LOG, DurableLog, Store, missing};

/// How far a view had read a stream before the start.
#[derive(Debug)]
pub(super) struct HadRead {
    view: Definition,
    stream: String,
    rows: u64,
}

impl Store {
    /// Opens the log of a push stream: its archived rows, then those of the write-ahead log.
    ///
    /// # Errors
    /// When it is damaged, has lost rows, belongs to another stream, or its columns differ.
    pub(crate) async fn open_stream(
        &self,
        definition: &Definition,
        layout: &Layout,
        event_time: Option<usize>,
        durability: Durability,
    ) -> Result<(DurableLog, Arc<Wal>)> {
        let mut definition = definition.clone();
        let schema = layout.schema();
        let archived = || (schema, layout.added().to_vec());
        let dir = self.stream_dir(&definition).join("log");
        let mut known = Known {
            owner: Some(self.owner(&definition, Part::Stream)),
            gaps: definition.gaps(),
            added: layout.added().to_vec(),
            ..Known::default()
        };
        if self.log_is_there(&definition, schema)? {
            self.known_of(&definition, &dir, &mut known)?;
        }
        let mut archive = self.archive(Part::Stream, &definition, archived(), event_time).await?;
        let mut accepted = false;
        if self.accepts_lost_rows {
            let from = archive.state().rows;
            let end = Wal::end_of(&**self.files(), &dir, schema, (from, &known))?;
            if let Some(lost) = self.accept(&definition, end, &known)? {
                accepted = true;
                definition.lost.push(lost);
                known.gaps = definition.gaps();
                archive = self.archive(Part::Stream, &definition, archived(), event_time).await?;
            }
        }
        let (snapshot, memory) = (archive.snapshot(), self.memory.as_ref());
        let log = StreamLog::restored(Arc::clone(schema), snapshot, Completion::Append, memory);
        let from = log.state().rows;
        let sink = Arc::clone(&log);
        let applied = Box::new(move |_first: u64, rows| {
            if let Err(error) = sink.append(rows) {
                tracing::error!(%error, "durable rows did not reach their stream");
            }
        });
        let options = WalOptions { durability, ..WalOptions::default() };
        let (wal, recovered) = Wal::open(
            Arc::clone(self.files()),
            &dir,
            schema,
            (archive.state().rows, &known),
            (options, applied),
        )?;
        let Recovered { first, end, batches, cut } = recovered;
        if let Some(cut) = cut {
            let stream = &definition.name;
            if accepted {
                tracing::warn!(stream, ?cut, "truncated the remains of lost rows");
            } else {
                tracing::warn!(
                    stream,
                    ?cut,
                    "truncated an incomplete write; no row of it was ever read"
                );
            }
        }
        for (first, rows) in batches {
            step_over(first, &log, &archive).await?;
            log.append(rows)?;
        }
        step_over(end, &log, &archive).await?;
        if first != from || wal.end() != log.state().rows {
            return Err(Error::internal("a log does not continue where its archive ends"));
        }
        self.note_opened(&definition, Part::Stream);
        Ok((DurableLog { log, archive }, Arc::new(wal)))
    }

    /// Creates the log of a new stream. Returns whether there was one already. The log is created before the archive, so where
    /// there is an archive and no log, the log has been lost.
    fn log_is_there(&self, definition: &Definition, schema: &SchemaRef) -> Result<bool> {
        let dir = self.stream_dir(definition);
        let (files, log) = (&**self.files(), dir.join("log"));
        let names = files.list(&dir).map_err(|e| io_error("list", &dir, e))?;
        let owner = self.owner(definition, Part::Stream);
        if names.is_empty() && owner.is_created {
            return Err(missing("the directory", &dir));
        }
        let is_created = owner.is_created || names.iter().any(|name| name == DELTA_LOG);
        let is_there = Wal::is_there(files, &log)?;
        if is_created && !is_there && !self.accepts_lost_rows {
            return Err(missing("the log", &log));
        }
        if !is_created {
            Wal::begin(files, &log, schema, &owner.id)?;
        }
        Ok(is_created || is_there)
    }

    /// Adds what is known about the extent of a log: from the file beside it, and from the checkpoints of views.
    fn known_of(&self, definition: &Definition, log: &Path, known: &mut Known) -> Result<()> {
        extent::read(&**self.files(), log, known)?;
        for HadRead { view, rows, .. } in self.had_read(definition)? {
            known.end = known.end.max(*rows);
            known.from.push(format!("View \"{}\" has read it up to row {rows}.", view.name));
        }
        Ok(())
    }

    /// Returns how far views had read a stream.
    fn had_read(&self, of: &Definition) -> Result<impl Iterator<Item = &HadRead>> {
        if self.had_read.get().is_none() {
            let mut all = vec![];
            for view in self.definitions.list() {
                if !matches!(
                    view.kind,
                    Kind::MaterializedView | Kind::Insert | Kind::Sink | Kind::Stream
                ) {
                    continue;
                }
                let owner = self.owner(&view, Part::Checkpoints);
                let dir = self.checkpoints_dir(&view);
                for (stream, rows) in Checkpoints::positions(&**self.files(), &dir, &owner)? {
                    all.push(HadRead { view: view.clone(), stream, rows });
                }
            }
            // Another thread may have set the same.
            drop(self.had_read.set(all));
        }
        let all = self.had_read.get().map(Vec::as_slice).unwrap_or_default();
        // A stream that is newer than the view is not the one that the view has read.
        let (name, id) = (of.name.clone(), of.id);
        Ok(all.iter().filter(move |had| had.stream == name && had.view.id > id))
    }

    /// Records that the rows of a stream from `end` to the known end are lost, if there are any.
    fn accept(&self, definition: &Definition, end: u64, known: &Known) -> Result<Option<LostRows>> {
        if end >= known.end {
            return Ok(None);
        }
        let had = self.had_read(definition)?.filter(|had| had.rows > end);
        let had: Vec<_> = had.map(|had| (had.view.name.clone(), had.rows)).collect();
        let lost = LostRows { start: end, end: known.end, at_micros: self.clock.now_micros(), had };
        self.definitions.record_lost(definition.id, &lost)?;
        tracing::warn!(
            stream = definition.name,
            from = lost.start,
            to = lost.end,
            "the loss of rows is accepted, see windrow.lost_rows"
        );
        Ok(Some(lost))
    }
}

/// Moves the end of a log to the row `next`. If rows before it are lost, the rows before those are archived, so that the tail in
/// memory has no gap.
async fn step_over(next: u64, log: &StreamLog, archive: &ArchiveTable) -> Result<()> {
    let end = log.state().rows;
    if end == next {
        return Ok(());
    }
    if let Some(rows) = log.unarchived() {
        let version = rows.frontier.version();
        let batches = rows.rows.into_iter().map(|piece| piece.load());
        archive.append_from(batches, rows.first, version, &Provenance::default()).await?;
    }
    log.archived(archive.snapshot());
    Ok(())
}

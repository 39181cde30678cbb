//! Maintenance: deleting files that are not in the log, dropping the oldest rows.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use deltalake_core::ObjectStoreError;
use deltalake_core::kernel::Action;
use deltalake_core::protocol::DeltaOperation;
use object_store::ObjectStoreExt;
use windrow_core::{Error, Result};

use crate::failure;
use crate::file_entry::{self, FileEntry};
use crate::file_stats::ticks;
use crate::log::Commit;
use crate::table::{ArchiveTable, Writer};

impl ArchiveTable {
    /// Deletes Parquet files that have not been in the log for `older_than`: leftovers of a crash, and files that were
    /// merged or dropped. Files held by a snapshot of this process stay. Returns how many were deleted.
    ///
    /// # Errors
    /// When the store cannot list or delete.
    pub async fn vacuum(&self, older_than: Duration) -> Result<usize> {
        let mut writer = self.writer.lock().await;
        self.freshen(&mut writer).await?;
        let age = i64::try_from(older_than.as_micros()).unwrap_or(i64::MAX);
        let limit = self.clock.now_micros().saturating_sub(age);
        let kept = self.kept(&writer, limit);
        let what = format!("vacuum \"{}\" in \"{}\"", self.spec().name, self.storage.shown());
        let here = self.storage.here();
        // Not the log, which may have many entries.
        let files = here.list_with_delimiter(None).await.map_err(|e| failure::store(&what, e))?;
        let files = files.objects.into_iter().filter(|meta| {
            let name = meta.location.as_ref();
            let ours = file_entry::rows_of(name).is_some();
            let old = meta.last_modified.timestamp_micros() <= limit;
            ours && old && !kept.contains(name)
        });
        let mut deleted = HashSet::new();
        for meta in files {
            match here.delete(&meta.location).await {
                Ok(()) | Err(ObjectStoreError::NotFound { .. }) => {
                    deleted.insert(meta.location.as_ref().to_owned());
                }
                Err(e) => return Err(failure::store(&what, e)),
            }
        }
        writer.retired.retain(|(f, _)| !deleted.contains(&f.name));
        let staged = self.delete_staged(limit).await?;
        Ok(deleted.len() + staged)
    }

    /// The files that must stay: live ones, those held by readers, those removed recently.
    fn kept(&self, writer: &Writer, limit: i64) -> HashSet<String> {
        let live = self.live();
        let retired =
            writer.retired.iter().filter(|(f, at)| Arc::strong_count(f) > 1 || *at > limit);
        live.files.iter().chain(retired.map(|(f, _)| f)).map(|f| f.name.clone()).collect()
    }

    /// Deletes staged files that a crash left behind. Object stores have no such files.
    async fn delete_staged(&self, limit: i64) -> Result<usize> {
        let Some(dir) = self.storage.local_path().map(ToOwned::to_owned) else { return Ok(0) };
        let shown = dir.display().to_string();
        let delete = move || -> std::io::Result<usize> {
            let mut deleted = 0;
            for entry in std::fs::read_dir(dir)? {
                let entry = entry?;
                let modified = entry.metadata()?.modified()?;
                let micros = modified
                    .duration_since(std::time::UNIX_EPOCH)
                    .map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX));
                if entry.file_name().to_string_lossy().contains(".parquet#") && micros <= limit {
                    std::fs::remove_file(entry.path())?;
                    deleted += 1;
                }
            }
            Ok(deleted)
        };
        tokio::task::spawn_blocking(delete).await.map_err(failure::task)?.map_err(|e| {
            Error::new(
                windrow_core::ErrorKind::Unavailable,
                format!("cannot vacuum \"{shown}\": {e}"),
            )
            .with_source(e)
        })
    }

    /// Drops whole files from the front whose event times are all below `event_time_ticks` (in ticks of the event-time
    /// column; `i64::MAX`: whatever they are) and that end at row `end_max` or before. The last file always stays. Returns how
    /// many rows were dropped.
    ///
    /// # Errors
    /// When event times are to be compared and the table has none, or the commit fails.
    pub async fn drop_before(&self, event_time_ticks: i64, end_max: u64) -> Result<u64> {
        let any_time = event_time_ticks == i64::MAX;
        if self.spec().event_time.is_none() && !any_time {
            return Err(Error::internal(format!("\"{}\" has no event time", self.spec().name)));
        }
        let is_old = |file: &FileEntry| {
            let times = self.spec().event_time.and_then(|time| file.stats.columns.get(time));
            let max = times.and_then(|c| ticks(c.max.as_ref()?));
            file.end <= end_max && (any_time || max.is_some_and(|max| max < event_time_ticks))
        };
        let why = match any_time {
            true => format!("row < {end_max}"),
            false => format!("event time < {event_time_ticks}"),
        };
        self.drop_front(is_old, why).await
    }

    /// Drops whole files from the front of a table without event time that end at row `end_max` or before; nothing of other
    /// tables. The last file always stays. Returns how many rows were dropped.
    ///
    /// # Errors
    /// When the commit fails.
    pub async fn drop_rows(&self, end_max: u64) -> Result<u64> {
        if self.spec().event_time.is_some() {
            return Ok(0);
        }
        self.drop_before(i64::MAX, end_max).await
    }

    /// Drops files from the front that are old, except the last file.
    async fn drop_front(&self, is_old: impl Fn(&FileEntry) -> bool, why: String) -> Result<u64> {
        let mut writer = self.writer.lock().await;
        self.freshen(&mut writer).await?;
        let live = self.live();
        let removed: Vec<_> = live
            .files
            .iter()
            .take(live.files.len().saturating_sub(1))
            .take_while(|file| is_old(file))
            .cloned()
            .collect();
        if removed.is_empty() {
            return Ok(0);
        }
        let now_ms = self.clock.now_micros().div_euclid(1_000);
        let commit = Commit {
            actions: removed.iter().map(|f| Action::Remove(f.remove(now_ms, true))).collect(),
            txn_version: None,
            operation: DeltaOperation::Delete { predicate: Some(why) },
            notes: None,
        };
        if let Err(e) = self.commit(&mut writer, commit, &[], &removed).await {
            self.freshen_after(&mut writer).await;
            return Err(e);
        }
        Ok(removed.iter().map(|f| f.end - f.start).sum())
    }
}

//! Compaction: merging small files, so that commits and opening stay fast and scans read few files.
//!
//! Neighbours are merged while the left one is at most twice the size of everything to its right: sizes then fall
//! quickly towards the end, the number of live files stays logarithmic, and a row is rewritten about that often.

use std::ops::Range;
use std::sync::Arc;

use deltalake_core::kernel::Action;
use deltalake_core::protocol::DeltaOperation;
use futures::TryStreamExt;
use windrow_core::Result;

use crate::failure;
use crate::file_entry::FileEntry;
use crate::file_writer::FileWriter;
use crate::log::Commit;
use crate::snapshot::{Part, open_file};
use crate::spec::Provenance;
use crate::table::ArchiveTable;

/// Rows per batch while merging.
const BATCH_ROWS: usize = 8 << 10;

/// Returns the runs of neighbours that are worth merging, of about one file's size in total: the writer of the table
/// waits meanwhile, and rows that wait with it must fit in memory.
fn runs(sizes: &[u64], target: u64) -> Vec<Range<usize>> {
    let small = |i: usize| sizes.get(i).is_some_and(|s| *s < target / 4 * 3);
    let at = |i: usize| sizes.get(i).copied().unwrap_or(0);
    let (mut found, mut total, mut end) = (vec![], 0_u64, sizes.len());
    while end > 0 && total < target {
        if !small(end - 1) {
            end -= 1;
            continue;
        }
        let mut start = end - 1;
        let mut sum = at(start);
        while start > 0
            && small(start - 1)
            && at(start - 1) <= sum.saturating_mul(2)
            && total.saturating_add(sum) < target
        {
            start -= 1;
            sum = sum.saturating_add(at(start));
        }
        if end - start >= 2 {
            total = total.saturating_add(sum);
            found.push(start..end);
        }
        end = start;
    }
    found
}

impl ArchiveTable {
    /// Merges small neighbouring files in one commit that changes no row. Returns whether there was anything to merge;
    /// there may be more.
    ///
    /// # Errors
    /// When files cannot be read or written. The table is then unchanged, or merged.
    pub async fn compact(&self) -> Result<bool> {
        let mut writer = self.writer.lock().await;
        self.freshen(&mut writer).await?;
        let live = self.live();
        let sizes: Vec<u64> = live.files.iter().map(|f| f.bytes).collect();
        let runs = runs(&sizes, self.options.target_file_bytes);
        let (mut added, mut removed) = (vec![], vec![]);
        for run in runs {
            // A file has no gap in it, so files are not merged across a gap.
            let files = live.files.get(run).unwrap_or_default();
            for files in files.chunk_by(|a, b| a.end == b.start).filter(|run| run.len() > 1) {
                added.extend(self.merge(files, live.state.txn_version.unwrap_or(0)).await?);
                removed.extend(files.iter().cloned());
            }
        }
        if removed.is_empty() {
            return Ok(false);
        }
        let now_ms = self.clock.now_micros().div_euclid(1_000);
        let mut actions = self.adds(&added, false);
        actions.extend(removed.iter().map(|f| Action::Remove(f.remove(now_ms, false))));
        let commit = Commit {
            actions,
            txn_version: None,
            operation: DeltaOperation::Optimize {
                predicate: None,
                target_size: i64::try_from(self.options.target_file_bytes).unwrap_or(i64::MAX),
            },
            notes: None,
        };
        if let Err(e) = self.commit(&mut writer, commit, &added, &removed).await {
            self.freshen_after(&mut writer).await;
            return Err(e);
        }
        Ok(true)
    }

    /// Rewrites the rows of neighbours as few files.
    async fn merge(
        &self,
        files: &[Arc<FileEntry>],
        txn_version: i64,
    ) -> Result<Vec<Arc<FileEntry>>> {
        let (start, spec) = (files.first().map_or(0, |f| f.start), self.spec());
        let mut merged =
            FileWriter::new(Arc::clone(&spec), self.options.clone(), start, Provenance::default());
        let mut entries = vec![];
        for file in files {
            let part = Part {
                projection: (0..spec.schema.fields().len()).collect(),
                schema: Arc::clone(&spec.schema),
                from_row: file.start,
                batch_rows: BATCH_ROWS,
            };
            let mut opened = open_file(&self.storage, &spec, file, part).await?;
            if let Some(provenance) = opened.provenance {
                merged.provenance = std::mem::take(&mut merged.provenance).merged(provenance);
            }
            while let Some(batch) = opened.rows.try_next().await? {
                merged = tokio::task::spawn_blocking(move || {
                    merged.push(&batch)?;
                    Result::<_>::Ok(merged)
                })
                .await
                .map_err(failure::task)??;
                entries.extend(self.store(merged.take_done(), txn_version).await?);
            }
        }
        let last =
            tokio::task::spawn_blocking(move || merged.finish()).await.map_err(failure::task)??;
        entries.extend(self.store(last, txn_version).await?);
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_fall_quickly_stay() {
        assert_eq!(runs(&[100, 10, 1], 1000), Vec::<Range<usize>>::new());
        assert_eq!(runs(&[100, 1, 1, 1, 1], 1000), vec![1..5]);
        assert_eq!(runs(&[8, 4, 2, 1], 1000), vec![0..4]);
        assert_eq!(runs(&[1, 1, 900, 1, 1], 1000), vec![3..5, 0..2]);
        assert_eq!(runs(&[900, 800, 1], 1000), Vec::<Range<usize>>::new());
    }
}

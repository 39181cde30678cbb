//! The extent of a log: a note beside it that records where it ended, so that a log whose end is lost is not mistaken
//! for a shorter one.
//!
//! ```text
//! log     ├ records ────────────────────────┤
//! EXTENT  {"owner":"91…/3","end":160,…}  ◄─ note: before views archive or checkpoint results derived from its rows,
//!                                            before its own rows are archived, at intervals, and at a clean end
//! ```
//! Invariants: what a note covers is durable in the log before the note is written; a note never moves back.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use windrow_core::{Error, ErrorKind, Result};

use super::producers::Producers;
use super::{Durability, Known, Wal};
use crate::files::{Files, corrupt, io_error};

/// The file, beside the directory of the log.
const EXTENT: &str = "EXTENT";

/// The contents of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Extent {
    owner: Option<String>,
    end: u64,
    /// The progress of the producers at that time.
    producers: Producers,
}

fn path_of(dir: &Path) -> PathBuf {
    dir.with_file_name(EXTENT)
}

/// Adds the note of the log in `dir` to `known`.
///
/// # Errors
/// When the note cannot be read or is damaged.
pub fn read(files: &dyn Files, dir: &Path, known: &mut Known) -> Result<()> {
    let path = path_of(dir);
    let bytes = match files.read(&path) {
        Ok(bytes) => bytes,
        // Older logs have none; without a note the other sources determine where the log ended.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io_error("read", &path, e)),
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| corrupt(&path, 0, "it is not text"))?;
    let (crc, text) = text.split_once('\n').ok_or_else(|| corrupt(&path, 0, "it is cut off"))?;
    let text = text.trim_end_matches('\n');
    if crc != format!("{:08x}", crc32fast::hash(text.as_bytes())) {
        return Err(corrupt(&path, 0, "the checksum is wrong"));
    }
    let extent: Extent = serde_json::from_str(text)
        .map_err(|e| corrupt(&path, 0, &format!("a field is wrong ({e})")))?;
    if known.owner.as_ref().map(|owner| &owner.id) != extent.owner.as_ref() {
        // A note of another log says nothing about this one; this one's owner is in its segments.
        return Ok(());
    }
    if extent.end > known.end {
        known.end = extent.end;
    }
    known.from.push(format!(
        "\"{}\" records that the log ended at row {}.",
        path.display(),
        extent.end
    ));
    known.producers = Some(extent.producers);
    known.noted = extent.end;
    Ok(())
}

/// Returns the error for a log that ends at row `end`, and is known to have been longer.
pub(super) fn lost_rows(dir: &Path, end: u64, known: &Known) -> Error {
    let message = format!(
        "the log \"{}\" has lost its end: {} rows are missing, from row {end} up to row {}",
        dir.display(),
        known.end.saturating_sub(end),
        known.end
    );
    Error::new(ErrorKind::Corrupt, message).with_detail(known.from.join(" ")).with_hint(
        "Restore its files from a backup; nothing has been overwritten. Or start once with \
         --accept-lost-rows: the log then continues after the missing rows, and windrow.lost_rows lists them.",
    )
}

impl Wal {
    /// Records where the log ends now, if it has grown since the last note. Blocks.
    ///
    /// # Errors
    /// When that cannot be written; the note is then unchanged.
    pub fn note_extent(&self) -> Result<()> {
        let mut noted = self.noted.lock();
        // Before the end is read: more may be durable, not less.
        let end = self.end();
        if end <= *noted {
            return Ok(());
        }
        if self.durability == Durability::Os && !self.files.writes_whole() {
            self.sync()?;
        }
        let producers = self.shared.producers.lock().clone();
        let extent = Extent { owner: self.owner.clone(), end, producers };
        let text = serde_json::to_string(&extent)
            .map_err(|e| Error::internal("an extent cannot be encoded").with_source(e))?;
        let path = path_of(&self.dir);
        let bytes = format!("{:08x}\n{text}\n", crc32fast::hash(text.as_bytes()));
        self.files.replace(&path, bytes.as_bytes()).map_err(|e| io_error("write", &path, e))?;
        *noted = end;
        Ok(())
    }

    /// Makes the last segment durable: the earlier ones already are.
    fn sync(&self) -> Result<()> {
        let last = self.shared.segments.lock().last().map(|segment| segment.path.clone());
        let Some(path) = last else { return Ok(()) };
        self.files
            .append(&path)
            .and_then(|mut file| file.sync())
            .map_err(|e| io_error("sync", &path, e))
    }
}

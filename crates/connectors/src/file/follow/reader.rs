//! A reader of the files of a chain, one after the other, without end.
//!
//! Invariants: offsets ascend and tile, whatever happens to the files; a renamed file is read to its end before the
//! next one is begun, and is watched for a while after that; text is returned only when the file is still the same
//! after it was read.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use windrow_core::{BadRow, OffsetRange, Reader, Result, ScanRequest, SourceBatch};

use super::chains::{Arrived, Chains, Copied, Followed, Inbox, copied, same_file};
use super::handle::Look;
use super::place::{FilePlace, Place};
use super::trail::{Relation, SavedTrail, Trail};
use crate::file::feed::Feed;
use crate::file::sample::records_of;
use crate::file::text::{TextFile, TextFormat, TextReader, TextSettings, TextSplit};
use crate::formats::decode::{Decoded, Origin, refuse};

/// Marks of all files of a stream that are stored with an offset, and at least of one file.
const KEPT_MARKS: usize = 1 << 16;
const KEPT_MARKS_MIN: usize = 64;
/// A file that keeps growing delays the next one by this multiple of the wait for a quiet one.
const PATIENCE: i64 = 3;
/// Bytes at the end of what was read that are compared.
const REST_BYTES: usize = 64;

/// What is followed, and how.
#[derive(Debug)]
pub(in crate::file) struct Following {
    pub(in crate::file) settings: TextSettings,
    pub(in crate::file) format: TextFormat,
    pub(in crate::file) chains: Arc<Chains>,
    /// The name of the chain.
    pub(in crate::file) chain: String,
    /// Time between two polls.
    pub(in crate::file) poll: Duration,
    /// How long a renamed file is waited for and watched.
    pub(in crate::file) rotate_wait: Duration,
}

/// A reader of one chain.
pub(in crate::file) struct FollowReader {
    following: Following,
    scan: ScanRequest,
    cursors: Vec<Cursor>,
    inbox: Inbox,
    /// The next offset.
    next: u64,
    /// The lowest offset for what follows missing text.
    past: u64,
    /// The cursor being read.
    active: Option<usize>,
    /// A batch that was read, until the file is confirmed to be unchanged.
    fresh: Option<SourceBatch>,
    /// Reports about missing text that are still to be returned.
    missing: VecDeque<String>,
    /// Whether the files have changed since a place was returned.
    moved: bool,
    /// The last file, where it was deleted and released.
    deleted: Option<(FilePlace, Trail)>,
    /// Whether what comes next may differ from what other readers had at these offsets.
    broken: bool,
}

/// The reading position in one file.
struct Cursor {
    file: Arc<Followed>,
    reader: TextReader,
    /// Its text when it was last found unchanged.
    before: Before,
    look: Option<Look>,
    /// Bytes seen in it.
    seen: u64,
    grown_micros: i64,
    place: FilePlace,
}

/// The result of checking a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Same,
    Grown,
    Truncated,
}

/// What is compared with the file.
#[derive(Debug, Clone, Default)]
struct Before {
    trail: Trail,
    /// Position up to which it was read, and the last bytes before that.
    whole: u64,
    rest: Vec<u8>,
}

impl Cursor {
    fn note(&mut self) {
        let unfinished = self.reader.unfinished();
        let rest = unfinished.get(unfinished.len().saturating_sub(REST_BYTES)..);
        self.before = Before {
            trail: self.reader.trail().cloned().unwrap_or_default(),
            whole: self.reader.read_to(),
            rest: rest.unwrap_or_default().to_vec(),
        };
    }

    /// Updates the reading position that is stored with the offset.
    fn keep_place(&mut self, marks_max: usize) {
        let at = self.reader.given_to();
        let trail = self.reader.trail().map(|trail| trail.saved(at, marks_max));
        self.place = FilePlace {
            name: self.file.name(),
            id: self.file.handle.id,
            at,
            seen: self.seen.max(at),
            trail: trail.unwrap_or_default(),
        };
        self.file.is_read(&self.place);
    }
}

impl Before {
    /// Whether a file is still what it was.
    async fn relation(&self, file: &Followed, look: &Look) -> Result<Relation> {
        let Self { trail, whole, rest } = self;
        if *whole == 0 {
            return Ok(Relation::Same);
        }
        trail.relation(&file.handle, look.size, (*whole, rest)).await
    }
}

impl FollowReader {
    /// Starts to read a chain, or resumes.
    ///
    /// # Errors
    /// When a file cannot be read, or the place cannot be parsed.
    pub(in crate::file) async fn open(following: Following, scan: &ScanRequest) -> Result<Self> {
        let (files, inbox) = following.chains.subscribe(&following.chain);
        let mut reader = Self {
            following,
            scan: scan.clone(),
            cursors: vec![],
            inbox,
            next: scan.from.unwrap_or(0),
            past: scan.past,
            active: None,
            fresh: None,
            missing: VecDeque::new(),
            moved: false,
            deleted: None,
            broken: false,
        };
        let all = files.clone();
        let mut left = files;
        match &scan.place {
            Some(place) => reader.go_on(Place::parse(place)?, &mut left).await?,
            None => reader.go_on_at(reader.next, &mut left).await?,
        }
        // Files that followed those of the place during the downtime may have another name by now.
        let later = reader.cursors.last().and_then(|last| {
            let at = all.iter().position(|file| Arc::ptr_eq(file, &last.file))?;
            all.get(at + 1..).filter(|_| scan.place.is_some())
        });
        let is_later = |file: &Arc<Followed>| {
            later.is_some_and(|later| later.iter().any(|other| Arc::ptr_eq(file, other)))
        };
        left.retain(|file| file.is_listed() || is_later(file));
        let mut inbox = reader.inbox.lock();
        for file in left.into_iter().rev() {
            inbox.push_front(Arrived { file, at_micros: i64::MIN });
        }
        drop(inbox);
        Ok(reader)
    }

    /// Resumes from the files of a place.
    async fn go_on(&mut self, place: Place, left: &mut Vec<Arc<Followed>>) -> Result<()> {
        let count = place.files.len();
        for (index, place) in place.files.into_iter().enumerate() {
            let Some(file) = same_file(left, &place).await? else {
                let (name, at) = (&place.name, place.at);
                if index + 1 < count && place.seen <= at {
                    continue;
                }
                let known = match place.seen.saturating_sub(at) {
                    0 => "what was written to it after that, if anything, is missing".to_owned(),
                    bytes => format!("at least {bytes} bytes after that are missing"),
                };
                self.missing.push_back(format!(
                    "file \"{name}\", which was read up to byte {at}, is gone: {known}"
                ));
                continue;
            };
            left.retain(|other| !Arc::ptr_eq(other, &file));
            let trail = place.trail.of_file(&file.handle).await?.unwrap_or_default();
            let mut cursor = self.cursor(file, place.at, trail).await?;
            cursor.seen = place.seen.max(place.at);
            cursor.place = FilePlace { name: cursor.file.name(), ..place };
            self.cursors.push(cursor);
        }
        Ok(())
    }

    /// Resumes where only an offset is known, of the single file that existed then.
    async fn go_on_at(&mut self, at: u64, left: &mut Vec<Arc<Followed>>) -> Result<()> {
        let Some(first) = left.first().filter(|_| at > 0).cloned() else { return Ok(()) };
        let size = first.handle.look().await?.map_or(0, |look| look.size);
        if size < at {
            self.missing.push_back(format!(
                "file \"{}\" has {size} bytes, {at} of it were read before the restart: it is read \
                 from its start, and what it had after that is missing",
                first.name()
            ));
            return Ok(());
        }
        left.remove(0);
        let saved = SavedTrail::default();
        let mut trail = saved.of_file(&first.handle).await?.unwrap_or_default();
        let head = first.handle.read(0..at.min(super::trail::HEAD_BYTES as u64)).await?;
        trail.begins(0, &head);
        let cursor = self.cursor(first, at, trail).await?;
        self.cursors.push(cursor);
        Ok(())
    }

    /// Opens a cursor on a file at a position where a record starts.
    async fn cursor(&mut self, file: Arc<Followed>, at: u64, trail: Trail) -> Result<Cursor> {
        let name = file.name();
        let format = self.following.format.clone();
        let first = match &format {
            TextFormat::Csv(_) if at > 0 => {
                let feed = Feed::over(&file.handle, 0..at);
                Some(records_of(feed, &format, 1).await?.into_iter().next().unwrap_or_default())
            }
            TextFormat::Csv(_) | TextFormat::Json => None,
        };
        let split = Arc::new(TextSplit {
            file: Arc::new(TextFile::followed(&name, format)),
            start: 0,
            end: None,
            goes_on_at: (at > 0).then_some(at),
        });
        let settings = self.following.settings.clone();
        let begin = (first.as_deref(), file.handle.clone(), trail.clone());
        let reader = TextReader::follow(settings, split, &self.scan, begin)?;
        let (saved, id) = (trail.saved(at, KEPT_MARKS_MIN), file.handle.id);
        Ok(Cursor {
            place: FilePlace { name, id, at, seen: at, trail: saved },
            file,
            reader,
            before: Before { trail, whole: at, rest: vec![] },
            look: None,
            seen: at,
            grown_micros: i64::MIN,
        })
    }

    fn now(&self) -> i64 {
        self.following.settings.clock.now_micros()
    }

    fn wait_micros(&self) -> i64 {
        i64::try_from(self.following.rotate_wait.as_micros()).unwrap_or(i64::MAX)
    }

    /// Returns the cursor that has something to read; `None`: none for now.
    async fn look(&mut self) -> Result<Option<usize>> {
        let mut index = 0;
        while index < self.cursors.len() {
            match self.look_at(index).await? {
                Seen::Grown => return Ok(Some(index)),
                // That is reported before anything else is read.
                Seen::Truncated if self.moved || !self.missing.is_empty() => return Ok(None),
                // Another one has taken its place.
                Seen::Truncated => {}
                Seen::Same => index += 1,
            }
        }
        if let Some(last) = self.begin_next().await? {
            return Ok(Some(last));
        }
        self.let_go()
    }

    /// Whether a file has grown.
    async fn look_at(&mut self, index: usize) -> Result<Seen> {
        let now = self.now();
        let Some(cursor) = self.cursors.get_mut(index) else { return Ok(Seen::Same) };
        let Some(look) = cursor.file.handle.look().await? else { return Ok(Seen::Same) };
        let whole = cursor.before.whole;
        if look.size <= whole && cursor.look.as_ref() == Some(&look) {
            return Ok(Seen::Same);
        }
        let relation = cursor.before.relation(&cursor.file, &look).await?;
        if relation != Relation::Same {
            self.truncated(index, relation).await?;
            return Ok(Seen::Truncated);
        }
        let grown = look.size > whole;
        cursor.seen = cursor.seen.max(look.size);
        if grown {
            cursor.grown_micros = now;
            cursor.reader.grow(look.size);
            cursor.reader.count_from(self.next)?;
        }
        cursor.look = Some(look);
        Ok(if grown { Seen::Grown } else { Seen::Same })
    }

    /// Begins the next file of the chain when the previous one is at its end, or ends that one.
    async fn begin_next(&mut self) -> Result<Option<usize>> {
        let Some(arrived) = self.inbox.lock().front().cloned() else { return Ok(None) };
        let (now, wait) = (self.now(), self.wait_micros());
        if let Some(last) = self.cursors.last_mut() {
            let since = |at: i64| now.saturating_sub(at);
            let quiet = since(arrived.at_micros) >= wait && since(last.grown_micros) >= wait;
            let long = since(arrived.at_micros) >= wait.saturating_mul(PATIENCE);
            if !(quiet || long || self.scan.until_now) {
                return Ok(None);
            }
        }
        if let Some(ended) = self.end(self.cursors.len().checked_sub(1))? {
            return Ok(Some(ended));
        }
        self.inbox.lock().pop_front();
        let mut begin = (0, Trail::default());
        if self.cursors.last().is_some_and(|last| last.file.handle.is_deleted()) {
            self.deleted = self.cursors.pop().map(|last| (last.place, last.before.trail));
        }
        if let Some((place, trail)) = self.deleted.take()
            && copied(&arrived.file.handle, &place).await? == Copied::Yes
        {
            // It was rewritten with more at its end.
            begin = (place.at, trail);
        }
        let name = arrived.file.name();
        tracing::info!(file = name, from = begin.0, "reading the next file of a chain");
        let cursor = self.cursor(arrived.file, begin.0, begin.1).await?;
        self.cursors.push(cursor);
        self.moved = true;
        let last = self.cursors.len() - 1;
        Ok((self.look_at(last).await? == Seen::Grown).then_some(last))
    }

    /// Ends a file, which grows no more: what is left of it is its last record, if any.
    fn end(&mut self, index: Option<usize>) -> Result<Option<usize>> {
        let cursor = index.and_then(|index| self.cursors.get_mut(index));
        let Some(cursor) = cursor.filter(|cursor| !cursor.reader.unfinished().is_empty()) else {
            return Ok(None);
        };
        cursor.reader.end();
        cursor.reader.count_from(self.next)?;
        Ok(index)
    }

    /// Releases files that are gone and quiet; one of them may have a last record.
    fn let_go(&mut self) -> Result<Option<usize>> {
        let (now, wait) = (self.now(), self.wait_micros());
        let count = self.cursors.len();
        let gone = self.cursors.iter().enumerate().find(|(index, cursor)| {
            let is_next = || self.inbox.lock().is_empty() && cursor.file.handle.is_deleted();
            let is_over = index + 1 < count || is_next();
            let quiet = now.saturating_sub(cursor.grown_micros) >= wait;
            is_over && quiet && !cursor.file.is_listed()
        });
        let Some(gone) = gone.map(|(index, _)| index) else { return Ok(None) };
        if let Some(ended) = self.end(Some(gone))? {
            return Ok(Some(ended));
        }
        let cursor = self.cursors.remove(gone);
        tracing::debug!(file = cursor.file.name(), "a deleted file is released");
        if self.cursors.is_empty() {
            self.deleted = Some((cursor.place, cursor.before.trail));
        }
        self.moved = true;
        Ok(None)
    }

    /// Handles a file that was truncated, and perhaps written to again.
    async fn truncated(&mut self, index: usize, relation: Relation) -> Result<()> {
        let Some(cursor) = self.cursors.get(index) else { return Ok(()) };
        let (name, place, seen) = (cursor.file.name(), cursor.place.clone(), cursor.seen);
        let (trail, old) = (cursor.before.trail.clone(), cursor.place.at);
        let (file, was_read) = (Arc::clone(&cursor.file), cursor.before.whole);
        let at = match relation {
            Relation::Cut(at) => at,
            Relation::Same | Relation::Other => 0,
        };
        let copy = self.following.chains.copy_of(&place).await?;
        let unread = seen.max(was_read).saturating_sub(old);
        match &copy {
            None if unread > 0 => self.missing.push_back(format!(
                "file \"{name}\" was truncated before it was read: at least {unread} bytes from \
                 byte {old} on are missing"
            )),
            Some(_) | None => {
                tracing::info!(file = name, from = at, "a file was truncated, reading continues");
            }
        }
        let mut kept = trail.clone();
        kept.cut(at);
        if let Some(doubt) = trail.next_mark(at).filter(|_| at > 0 && !trail.is_exact()) {
            tracing::warn!(file = name, "up to {} bytes of it are read again", doubt - at);
        }
        let mut again = self.cursor(file, at, kept).await?;
        again.seen = at;
        // Its current text was not read from where the file was left.
        again.keep_place(0);
        self.broken = true;
        self.moved |= self.next < self.past;
        if let Some(slot) = self.cursors.get_mut(index) {
            *slot = again;
        }
        if let Some(copy) = copy {
            let trail = place.trail.of_file(&copy.handle).await?.unwrap_or_default();
            let cursor = self.cursor(copy, old, trail).await?;
            self.cursors.insert(index, cursor);
        }
        Ok(())
    }

    /// Returns what was read, when the file is still the same.
    async fn checked(&mut self, index: usize) -> Result<Option<SourceBatch>> {
        let Some(cursor) = self.cursors.get_mut(index) else { return Ok(None) };
        let look = cursor.file.handle.look().await?;
        let look = look.unwrap_or_else(|| Look { size: 0, version: String::new() });
        if cursor.look.as_ref() != Some(&look) {
            let relation = cursor.before.relation(&cursor.file, &look).await?;
            // A file that is now shorter than what was read of it was read before it shrank.
            if relation != Relation::Same && look.size >= cursor.reader.read_to() {
                self.fresh = None;
                self.active = None;
                self.truncated(index, relation).await?;
                return Ok(None);
            }
        }
        let Some(mut batch) = self.fresh.take() else { return Ok(None) };
        self.next = batch.offsets.end();
        cursor.note();
        let marks = (KEPT_MARKS / self.following.chains.count().max(1)).max(KEPT_MARKS_MIN);
        cursor.keep_place(marks);
        batch.place = Some(self.place()?);
        Ok(Some(batch))
    }

    fn place(&mut self) -> Result<Arc<str>> {
        self.moved = false;
        let files = self.cursors.iter().map(|cursor| cursor.place.clone()).collect();
        Ok(Place { files }.text()?.into())
    }

    /// Returns a batch without rows that reports what is missing, or only the reader's place.
    fn news(&mut self) -> Result<Option<SourceBatch>> {
        let mut bad: Vec<BadRow> = vec![];
        let start = self.next;
        if let Some(reason) = self.missing.pop_front() {
            tracing::warn!(chain = self.following.chain, "{reason}");
            let mut into = Decoded::default();
            let row = BadRow { offset: self.next, reason, raw: String::new() };
            let settings = &self.following.settings;
            refuse(row, settings.on_bad, Origin::text_of(&self.following.chain), &mut into)?;
            bad = into.bad;
            self.next += 1;
            self.broken = true;
        } else if !self.moved {
            return Ok(None);
        }
        if std::mem::take(&mut self.broken) {
            self.next = self.next.max(self.past);
        }
        let wanted = self.following.settings.declared.project(&self.scan.projection)?;
        let (rows, _, _): (RecordBatch, _, _) = Decoded::default().into_batch(&Arc::new(wanted))?;
        Ok(Some(SourceBatch {
            rows,
            offsets: OffsetRange::try_new(start, self.next)?,
            row_offsets: Arc::new(Vec::<u64>::new()),
            bad,
            skipped: 0,
            watermark: None,
            idle: None,
            behind: vec![],
            place: Some(self.place()?),
        }))
    }
}

#[async_trait]
impl Reader for FollowReader {
    async fn next(&mut self) -> Result<Option<SourceBatch>> {
        loop {
            if let Some(index) = self.active {
                if self.fresh.is_none() {
                    let Some(cursor) = self.cursors.get_mut(index) else {
                        self.active = None;
                        continue;
                    };
                    self.fresh = cursor.reader.next().await?;
                    if self.fresh.is_none() {
                        cursor.note();
                        self.active = None;
                        continue;
                    }
                }
                if let Some(batch) = self.checked(index).await? {
                    return Ok(Some(batch));
                }
                continue;
            }
            if let Some(news) = self.news()? {
                return Ok(Some(news));
            }
            self.active = self.look().await?;
            if self.active.is_some() || !self.missing.is_empty() || self.moved {
                continue;
            }
            if self.scan.until_now {
                return Ok(None);
            }
            self.following.settings.clock.sleep(self.following.poll).await;
        }
    }
}

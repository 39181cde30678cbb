//! Checkpoints: the durable cuts of one query.
//!
//! ```text
//! DIR/checkpoints/<view>/000000000012.checkpoint    manifest, written last and whole
//!                        000000000012-0.arrow       segments that are new in it, operator 0
//!                        000000000012.unused        late and bad rows that are new in it
//! ```
//! A manifest refers to segments in older files as long as their windows are open, so a checkpoint writes only what is
//! new, and its cost depends on what changed since the one before.
//!
//! Invariants: a file is written once; a manifest exists only when all files that it names are durable, and the archive
//! has the windows that had closed (of a view without windows: the rows of the checkpoint before); the last `KEPT`
//! are retained with all their files; a number is never reused, not even that of a damaged checkpoint.

mod cut;
mod manifest;
mod positions;
mod segments;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use windrow_core::Owner;
use windrow_core::{Error, Result, Watermark};
use windrow_operators::{Cut, SavedSegment};

pub use self::cut::{
    Counts, CutTime, Entry, OperatorCut, OperatorState, QueryCut, Resume, SavedBad, SavedBehind,
    SavedLate, TapCut, Unused,
};
pub use self::manifest::Stamp;
use self::manifest::{FORMAT, FileEntry, Manifest, OperatorEntry, SegmentEntry};
pub use self::positions::{Positions, SplitPosition};
pub use self::segments::StoredSegments;
use self::segments::{read_unused, verify, write_segments, write_unused};
use crate::files::{Files, corrupt, io_error};

/// Checkpoints retained: the newest may turn out to be damaged.
const KEPT: usize = 3;
/// From this many files of late and bad rows on, they are rewritten as one.
const UNUSED_FILES_MANY: usize = 16;

/// The checkpoints of one query.
#[derive(Debug)]
pub struct Checkpoints {
    files: Arc<dyn Files>,
    dir: PathBuf,
    stamp: Stamp,
    owner: Owner,
    state: Mutex<State>,
    /// Separate, because its readers must not wait for a disk.
    shown: Mutex<VecDeque<Shown>>,
    /// Per stream with a log: the first offset that is needed to resume from a retained checkpoint.
    needs: Mutex<BTreeMap<String, u64>>,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the next one.
    next_id: u64,
    /// Oldest first.
    kept: VecDeque<Manifest>,
    /// The locations of the written segments of each operator.
    places: HashMap<(usize, u64), SegmentEntry>,
    /// Segments that could not be written when they were new.
    owed: Vec<(usize, SavedSegment)>,
    owed_unused: Vec<Unused>,
    /// Intact checkpoints that do not match the other stored data. They might seem to later.
    unfit: BTreeSet<u64>,
    /// Whether nothing is written any more: the view is dropped.
    stopped: bool,
}

/// A checkpoint as `windrow.checkpoints` shows it.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Its number.
    pub id: u64,
    /// When it was begun, in µs since the Unix epoch.
    pub taken_micros: i64,
    /// Bytes that it wrote.
    pub new_bytes: u64,
    /// Bytes that it needs in total.
    pub bytes: u64,
    /// Segments that it needs.
    pub segments: u64,
    /// Time from the cut until it was durable, in µs.
    pub micros: i64,
    /// How long the workers of the query were stopped for it, in µs; `None` after a restart.
    pub paused_micros: Option<i64>,
    /// `kept`, or `restored`: the query resumed from it when the engine was opened.
    pub state: &'static str,
}

/// Checks whether a checkpoint matches the other stored data, and returns why not: given the watermark up to which the
/// archive had the view's windows, and the contents of the checkpoint.
pub type Fits<'a> = dyn Fn(Option<Watermark>, &Resume) -> Result<(), String> + 'a;

/// The checkpoint from which a query can resume.
#[derive(Debug, Default)]
pub struct Newest {
    /// `None`: there is no usable checkpoint.
    pub resume: Option<Resume>,
    /// Why newer ones cannot be used, as messages.
    pub skipped: Vec<String>,
}

impl Checkpoints {
    /// Opens the checkpoints in a directory, which need not exist yet. Blocks.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn open(files: Arc<dyn Files>, dir: PathBuf, stamp: Stamp, owner: Owner) -> Result<Self> {
        let names = files.list(&dir).map_err(|e| io_error("list", &dir, e))?;
        let newest = names.iter().filter_map(|name| number(name)).max();
        let next_id = newest.map_or(1, |id| id + 1);
        let state = State { next_id, ..State::default() };
        Ok(Self {
            files,
            dir,
            stamp,
            owner,
            state: Mutex::new(state),
            shown: Mutex::default(),
            needs: Mutex::default(),
        })
    }

    /// Returns the newest checkpoint that is intact, is of this plan, and that `fits` accepts (it returns the reason if
    /// not). Blocks.
    ///
    /// # Errors
    /// When the directory cannot be read at all.
    pub fn newest(&self, fits: &Fits<'_>) -> Result<Newest> {
        let names = self.files.list(&self.dir).map_err(|e| io_error("list", &self.dir, e))?;
        let ids: BTreeSet<u64> = names.iter().filter_map(|n| Manifest::id_of(n)).collect();
        let mut newest = Newest::default();
        if ids.is_empty() && self.owner.is_created {
            let dir = self.dir.display();
            newest.skipped.push(format!("there is no checkpoint in \"{dir}\" any more"));
        }
        let mut usable: VecDeque<Manifest> = VecDeque::new();
        let mut unfit = BTreeSet::new();
        for id in ids.into_iter().rev() {
            let read = self.manifest(id).and_then(|manifest| {
                if newest.resume.is_some() {
                    return Ok((manifest, None));
                }
                if manifest.stamp != self.stamp {
                    return Err(self.another(&manifest));
                }
                let resume = self.load(&manifest)?;
                fits(manifest.archived.map(Watermark::at), &resume).map_err(|why| {
                    unfit.insert(id);
                    Error::data(why)
                })?;
                Ok((manifest, Some(resume)))
            });
            match read {
                Ok((manifest, resume)) => {
                    newest.resume = newest.resume.or(resume);
                    usable.push_front(manifest);
                }
                Err(error) => {
                    let message = error.message();
                    newest.skipped.push(format!("checkpoint {id} is not used: {message}"));
                }
            }
        }
        self.continue_from(usable);
        self.state.lock().unfit = unfit;
        Ok(newest)
    }

    /// Returns how far the newest intact checkpoint in a directory had read the streams with a log, by their names.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn positions(
        files: &dyn Files,
        dir: &Path,
        owner: &Owner,
    ) -> Result<BTreeMap<String, u64>> {
        let names = files.list(dir).map_err(|e| io_error("list", dir, e))?;
        let ids: BTreeSet<u64> = names.iter().filter_map(|n| Manifest::id_of(n)).collect();
        let whole = |id: u64| {
            let path = dir.join(Manifest::file_name(id));
            let manifest = Manifest::parse(&path, &files.read(&path).ok()?).ok()?;
            is_owner(owner, &manifest).then_some(manifest)
        };
        let mut positions = BTreeMap::new();
        for tap in ids.into_iter().rev().find_map(whole).into_iter().flat_map(|m| m.taps) {
            let read = tap.positions.of_log();
            positions.entry(tap.stream).and_modify(|o: &mut u64| *o = read.max(*o)).or_insert(read);
        }
        Ok(positions)
    }

    fn another(&self, manifest: &Manifest) -> Error {
        let what = if manifest.stamp.plan == self.stamp.plan {
            format!("it was written by {}", manifest.stamp.engine)
        } else {
            "it is of another query".to_owned()
        };
        Error::data(what)
    }

    /// Bases new checkpoints on these, the last of which was loaded.
    fn continue_from(&self, usable: VecDeque<Manifest>) {
        let mut state = self.state.lock();
        state.places.clear();
        if let Some(newest) = usable.back() {
            for (number, operator) in newest.operators.iter().enumerate() {
                let entries = operator.segments.iter().map(|s| ((number, s.id), s.clone()));
                state.places.extend(entries);
            }
            self.shown.lock().push_back(Shown { state: "restored", ..shown(newest, 0) });
        }
        state.kept = usable;
        self.note_needs(&state);
    }

    fn note_needs(&self, state: &State) {
        let mut needs = BTreeMap::new();
        for tap in state.kept.iter().flat_map(|manifest| &manifest.taps) {
            let offset = tap.positions.of_log();
            needs
                .entry(tap.stream.clone())
                .and_modify(|o: &mut u64| *o = offset.min(*o))
                .or_insert(offset);
        }
        *self.needs.lock() = needs;
    }

    /// Returns the first offset of a stream's log that is needed to resume from a retained checkpoint; 0 while there is
    /// none.
    pub fn needs(&self, stream: &str) -> u64 {
        self.needs.lock().get(stream).copied().unwrap_or(0)
    }

    fn manifest(&self, id: u64) -> Result<Manifest> {
        let path = self.dir.join(Manifest::file_name(id));
        let bytes = self.files.read(&path).map_err(|e| io_error("read", &path, e))?;
        let manifest = Manifest::parse(&path, &bytes)?;
        if !is_owner(&self.owner, &manifest) {
            Err(corrupt(&path, 0, "it is of another view"))
        } else if manifest.id == id {
            Ok(manifest)
        } else {
            Err(corrupt(&path, 0, &format!("its manifest has the id {}", manifest.id)))
        }
    }

    /// Loads a checkpoint; its files are verified, and segments are read lazily.
    fn load(&self, manifest: &Manifest) -> Result<Resume> {
        for file in &manifest.files {
            verify(&*self.files, &self.dir.join(&file.name), file)?;
        }
        let mut operators = Vec::with_capacity(manifest.operators.len());
        for operator in &manifest.operators {
            let place = (Arc::clone(&self.files), self.dir.clone());
            let segments = StoredSegments::new(place, &operator.segments, &manifest.files)?;
            operators.push(OperatorState {
                watermark: Watermark::at(operator.watermark),
                frontier: operator.frontier,
                next_id: operator.next_id,
                segments,
            });
        }
        let (taps, counts) = (manifest.taps.clone(), manifest.counts);
        let rows_given = manifest.rows_given;
        Ok(Resume { operators, taps, counts, unused: self.unused(&manifest.unused)?, rows_given })
    }

    fn unused(&self, entries: &[FileEntry]) -> Result<Vec<Unused>> {
        let mut unused = vec![];
        for file in entries {
            unused.extend(read_unused(&*self.files, &self.dir.join(&file.name), file)?);
        }
        Ok(unused)
    }

    /// Writes a cut; `archived`: the watermark up to which the archive has the view's windows. Durable on return; older
    /// ones that are not retained are deleted. `now` returns the current time in µs. Blocks.
    ///
    /// # Errors
    /// When a file cannot be written. The earlier checkpoints then remain, and the next one writes what this one could
    /// not.
    pub fn write(
        &self,
        cut: QueryCut,
        archived: Option<Watermark>,
        now: &dyn Fn() -> i64,
    ) -> Result<()> {
        let mut state = self.state.lock();
        if state.stopped {
            return Ok(());
        }
        let id = state.next_id;
        state.next_id += 1;
        let mut fresh = std::mem::take(&mut state.owed);
        let mut unused = std::mem::take(&mut state.owed_unused);
        let QueryCut { at, operators, taps, counts, unused: new_unused, rows_given } = cut;
        unused.extend(new_unused);
        let mut needed = vec![];
        for (number, OperatorCut { watermark, mut state }) in operators.into_iter().enumerate() {
            fresh.extend(state.new.drain(..).map(|segment| (number, segment)));
            needed.push((watermark, state));
        }
        // An owed segment may not be needed any more.
        fresh.retain(|(number, s)| {
            needed.get(*number).is_some_and(|(_, cut)| cut.needed.contains(&s.id))
        });
        match self.write_files(&state, id, (&fresh, &unused)) {
            Ok(written) => {
                let manifest = Manifest {
                    format: FORMAT,
                    id,
                    taken_micros: at.taken_micros,
                    stamp: self.stamp.clone(),
                    owner: Some(self.owner.id.clone()),
                    archived: archived.map(Watermark::ticks),
                    rows_given,
                    operators: vec![],
                    taps,
                    counts,
                    unused: written.unused,
                    files: vec![],
                };
                let paused = Some(at.paused_micros);
                let done =
                    self.finish(&mut state, (manifest, paused), (needed, written.segments), now);
                if done.is_err() {
                    (state.owed, state.owed_unused) = (fresh, unused);
                }
                done
            }
            Err(error) => {
                (state.owed, state.owed_unused) = (fresh, unused);
                Err(error)
            }
        }
    }

    /// Records a cut that is not to be written: what is new in it is written with the next one.
    pub fn owe(&self, cut: QueryCut) {
        let mut state = self.state.lock();
        for (number, operator) in cut.operators.into_iter().enumerate() {
            state.owed.extend(operator.state.new.into_iter().map(|segment| (number, segment)));
        }
        state.owed_unused.extend(cut.unused);
    }

    /// Writes segments and late and bad rows.
    fn write_files(
        &self,
        state: &State,
        id: u64,
        (fresh, unused): (&[(usize, SavedSegment)], &[Unused]),
    ) -> Result<Written> {
        let files = &*self.files;
        files.create_dir(&self.dir).map_err(|e| io_error("create", &self.dir, e))?;
        // A file has one schema, and so segments of one input of an operator.
        let mut by_input: BTreeMap<(usize, usize), Vec<SavedSegment>> = BTreeMap::new();
        for (number, segment) in fresh {
            by_input.entry((*number, segment.input)).or_default().push(segment.clone());
        }
        let mut written = Written::default();
        for ((number, input), segments) in by_input {
            let path = self.dir.join(match input {
                0 => format!("{id:012}-{number}.arrow"),
                _ => format!("{id:012}-{number}-{input}.arrow"),
            });
            let (file, entries) = write_segments(files, &path, &segments)?;
            written.segments.extend(entries.into_iter().map(|e| (number, e, file.clone())));
        }
        written.unused = state.kept.back().map(|m| m.unused.clone()).unwrap_or_default();
        if !unused.is_empty() {
            let path = self.dir.join(format!("{id:012}.unused"));
            if written.unused.len() < UNUSED_FILES_MANY {
                written.unused.push(write_unused(files, &path, unused)?);
            } else {
                let mut all = self.unused(&written.unused)?;
                all.extend(unused.iter().cloned());
                written.unused = vec![write_unused(files, &path, &all)?];
            }
        }
        Ok(written)
    }

    /// Writes the manifest, then releases what no retained one needs.
    fn finish(
        &self,
        state: &mut State,
        (mut manifest, paused_micros): (Manifest, Option<i64>),
        (needed, written): (Vec<(Watermark, Cut)>, Vec<NewSegment>),
        now: &dyn Fn() -> i64,
    ) -> Result<()> {
        let mut places = HashMap::new();
        let mut known: HashMap<String, FileEntry> = HashMap::new();
        for old in state.kept.back().into_iter().flat_map(|m| &m.files) {
            known.insert(old.name.clone(), old.clone());
        }
        let mut new: HashMap<(usize, u64), SegmentEntry> = HashMap::new();
        for (number, entry, file) in written {
            known.insert(file.name.clone(), file);
            new.insert((number, entry.id), entry);
        }
        let mut named = BTreeSet::new();
        for (number, (watermark, cut)) in needed.into_iter().enumerate() {
            let mut segments = Vec::with_capacity(cut.needed.len());
            for id in &cut.needed {
                let key = (number, id.0);
                let place = new.get(&key).or_else(|| state.places.get(&key)).ok_or_else(|| {
                    Error::internal(format!("segment {} of a checkpoint was never written", id.0))
                })?;
                named.insert(place.file.clone());
                places.insert(key, place.clone());
                segments.push(place.clone());
            }
            manifest.operators.push(OperatorEntry {
                watermark: watermark.ticks(),
                frontier: cut.frontier,
                next_id: cut.next_id,
                segments,
            });
        }
        manifest.files = named.iter().filter_map(|name| known.get(name).cloned()).collect();
        let path = self.dir.join(Manifest::file_name(manifest.id));
        let bytes = manifest.to_bytes()?;
        // The files' names become durable before the manifest that names them.
        self.files.sync_dir(&self.dir).map_err(|e| io_error("sync", &self.dir, e))?;
        self.files.replace(&path, &bytes).map_err(|e| io_error("write", &path, e))?;
        let micros = now().saturating_sub(manifest.taken_micros);
        let own = format!("{:012}", manifest.id);
        let fresh = manifest.files.iter().chain(&manifest.unused);
        let new_bytes: u64 = fresh.filter(|f| f.name.starts_with(&own)).map(|f| f.bytes).sum();
        let new_bytes = new_bytes + bytes.len() as u64;
        let mut all = self.shown.lock();
        all.push_back(Shown { new_bytes, paused_micros, ..shown(&manifest, micros) });
        while all.len() > KEPT {
            all.pop_front();
        }
        drop(all);
        state.places = places;
        state.kept.push_back(manifest);
        self.let_go(state);
        self.note_needs(state);
        Ok(())
    }

    /// Deletes what the retained checkpoints do not need.
    fn let_go(&self, state: &mut State) {
        while state.kept.len() > KEPT {
            state.kept.pop_front();
        }
        let needed: BTreeSet<String> = state
            .kept
            .iter()
            .flat_map(|m| {
                let files = m.files.iter().chain(&m.unused).map(|f| f.name.clone());
                files.chain([Manifest::file_name(m.id)])
            })
            .collect();
        let oldest = state.kept.front().map_or(0, |m| m.id);
        let names = match self.files.list(&self.dir) {
            Ok(names) => names,
            Err(error) => {
                tracing::warn!(dir = %self.dir.display(), %error, "old checkpoints are not deleted");
                return;
            }
        };
        // Manifests first: a checkpoint without its files would look damaged.
        let (manifests, others): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|n| Manifest::id_of(n).is_some());
        for name in manifests.into_iter().chain(others) {
            // A damaged checkpoint stays for inspection until it would have been deleted anyway.
            let damaged =
                number(&name).is_some_and(|id| id >= oldest && !state.unfit.contains(&id));
            let stays = needed.contains(&name) || damaged && Manifest::id_of(&name).is_some();
            if !stays {
                self.delete(&self.dir.join(name));
            }
        }
    }

    fn delete(&self, path: &Path) {
        if let Err(error) = self.files.remove(path) {
            tracing::warn!(path = %path.display(), %error, "cannot delete a file, the next checkpoint tries again");
        }
    }

    /// Stops writing, and waits for a write in progress. Blocks.
    pub fn stop(&self) {
        self.state.lock().stopped = true;
    }

    /// The retained checkpoints, oldest first.
    pub fn shown(&self) -> Vec<Shown> {
        self.shown.lock().iter().cloned().collect()
    }
}

/// A written segment: its operator and its location.
type NewSegment = (usize, SegmentEntry, FileEntry);

/// What a checkpoint has written so far.
#[derive(Debug, Default)]
struct Written {
    segments: Vec<NewSegment>,
    unused: Vec<FileEntry>,
}

/// Whether a checkpoint belongs to `owner`.
fn is_owner(owner: &Owner, manifest: &Manifest) -> bool {
    match &manifest.owner {
        Some(said) => *said == owner.id,
        None => owner.may_be_unrecorded,
    }
}

/// Returns the number at the beginning of a file name.
fn number(name: &str) -> Option<u64> {
    name.get(..12)?.parse().ok()
}

fn shown(manifest: &Manifest, micros: i64) -> Shown {
    Shown {
        id: manifest.id,
        taken_micros: manifest.taken_micros,
        new_bytes: 0,
        bytes: manifest.files.iter().chain(&manifest.unused).map(|f| f.bytes).sum(),
        segments: manifest.operators.iter().map(|i| i.segments.len() as u64).sum(),
        micros,
        paused_micros: None,
        state: "kept",
    }
}

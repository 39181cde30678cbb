//! Which files exist, and to which chain each of them belongs.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::runtime::Handle as Runtime;
use windrow_core::{ErrorKind, Result};

use super::handle::Held;
use super::place::{FilePlace, Place};
use super::trail::Relation;
use crate::file::format::{Packing, packing_of_name};
use crate::file::location::{Blob, FileId, Found};

/// How long, in µs, a file that no path leads to any more is retained for readers that have not reached it yet.
const KEPT_MICROS: i64 = 60_000_000;
/// Files in a directory that are searched for one that was renamed.
const SIBLINGS_MAX: usize = 10_000;

/// A file of a chain, held open.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) handle: Held,
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    name: String,
    /// The time since which the stream's path does not lead to it.
    gone_micros: Option<i64>,
    /// How far it was read last.
    place: Option<FilePlace>,
}

impl Followed {
    /// Its current name, as far as known.
    pub(super) fn name(&self) -> String {
        self.now.lock().name.clone()
    }

    /// Whether the stream's path leads to it.
    pub(super) fn is_listed(&self) -> bool {
        self.now.lock().gone_micros.is_none()
    }

    /// Records that it was read up to `place`.
    pub(super) fn is_read(&self, place: &FilePlace) {
        self.now.lock().place = Some(place.clone());
    }
}

/// A file added to a chain while the chain is read, with the time.
#[derive(Debug, Clone)]
pub(super) struct Arrived {
    pub(super) file: Arc<Followed>,
    pub(super) at_micros: i64,
}

/// The queue through which a reader receives further files of its chain.
pub(super) type Inbox = Arc<Mutex<VecDeque<Arrived>>>;

/// All chains of one stream.
#[derive(Debug, Default)]
pub(in crate::file) struct Chains {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    chains: BTreeMap<String, Chain>,
    /// Every file that is still held.
    held: BTreeMap<FileId, Weak<Followed>>,
    /// Copies of files that are or will be truncated. They are read from where those stopped.
    copies: Vec<Arc<Followed>>,
    /// Places from before a restart, of chains that have not been found again yet.
    recalled: BTreeMap<String, Vec<FilePlace>>,
}

#[derive(Debug, Default)]
struct Chain {
    files: Vec<Arc<Followed>>,
    inboxes: Vec<Weak<Mutex<VecDeque<Arrived>>>>,
}

impl State {
    fn held(&self, id: Option<FileId>) -> Option<Arc<Followed>> {
        self.held.get(&id?)?.upgrade()
    }

    /// Keeps a file open.
    fn hold(&mut self, name: &str, handle: Held) -> Arc<Followed> {
        let id = handle.id;
        let now = Now { name: name.to_owned(), gone_micros: None, place: None };
        let file = Arc::new(Followed { handle, now: Mutex::new(now) });
        if let Some(id) = id {
            self.held.retain(|_, file| file.strong_count() > 0);
            self.held.insert(id, Arc::downgrade(&file));
        }
        file
    }

    /// Adds a file to a chain, and sends it to the chain's readers.
    fn add(&mut self, chain: &str, name: &str, handle: Held, at_micros: i64) -> Arc<Followed> {
        let file = self.hold(name, handle);
        let chain = self.chains.entry(chain.to_owned()).or_default();
        chain.files.push(Arc::clone(&file));
        chain.inboxes.retain(|inbox| inbox.strong_count() > 0);
        for inbox in chain.inboxes.iter().filter_map(Weak::upgrade) {
            inbox.lock().push_back(Arrived { file: Arc::clone(&file), at_micros });
        }
        file
    }
}

impl Chains {
    /// Records where a chain was read to before a restart.
    ///
    /// # Errors
    /// When the place cannot be parsed.
    pub(in crate::file) fn recall(&self, chain: &str, place: &str) -> Result<()> {
        let mut state = self.state.lock();
        let recalled = state.recalled.entry(chain.to_owned()).or_default();
        for file in Place::parse(place)?.files {
            if !recalled.contains(&file) {
                recalled.push(file);
            }
        }
        Ok(())
    }

    /// Registers the files that exist now; returns the names of all chains.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(in crate::file) async fn found(
        &self,
        found: &[Found],
        now_micros: i64,
        io: &Runtime,
    ) -> Result<Vec<String>> {
        self.find_again(found, now_micros).await?;
        for one in found {
            if let Some(file) = self.state.lock().held(one.id) {
                file.now.lock().name.clone_from(&one.name);
                continue;
            }
            let is_known = |file: &Arc<Followed>| file.handle.name() == one.name;
            if one.id.is_none() && self.files(&one.name).iter().any(is_known) {
                continue;
            }
            match Held::open(&one.name, &one.blob, io) {
                Ok(handle) => {
                    let copy = self.is_copy_of_known(&one.name, &handle).await?;
                    let mut state = self.state.lock();
                    if copy == Copied::Perhaps {
                        continue;
                    }
                    // A concurrent call may have been quicker.
                    if state.held(handle.id).is_some() {
                        continue;
                    }
                    if copy == Copied::Yes {
                        let file = state.hold(&one.name, handle);
                        state.copies.push(file);
                    } else {
                        state.add(&one.name, &one.name, handle, now_micros);
                    }
                }
                // It was just renamed or deleted.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(self.forget_gone(found, now_micros))
    }

    /// Removes files that the path no longer leads to; their readers keep them.
    fn forget_gone(&self, found: &[Found], now_micros: i64) -> Vec<String> {
        let is_kept = |file: &Arc<Followed>| {
            let is_listed = match file.handle.id {
                Some(id) => found.iter().any(|one| one.id == Some(id)),
                None => found.iter().any(|one| one.name == file.handle.name()),
            };
            let mut now = file.now.lock();
            now.gone_micros = match (is_listed, now.gone_micros) {
                (true, _) => None,
                (false, since) => since.or(Some(now_micros)),
            };
            now.gone_micros.is_none_or(|since| now_micros.saturating_sub(since) < KEPT_MICROS)
        };
        let mut state = self.state.lock();
        for chain in state.chains.values_mut() {
            chain.files.retain(is_kept);
        }
        state.copies.retain(is_kept);
        state.chains.keys().cloned().collect()
    }

    /// Whether a newly found file is a copy of one that is being read: then it is not new, and truncating the other one
    /// now loses nothing.
    async fn is_copy_of_known(&self, name: &str, handle: &Held) -> Result<Copied> {
        let known: Vec<FilePlace> = {
            let state = self.state.lock();
            let held = state.held.values().filter_map(Weak::upgrade);
            held.filter_map(|file| file.now.lock().place.clone()).collect()
        };
        // A file that appears under the file's own name is new.
        let near = |place: &&FilePlace| place.name != name && name.starts_with(stem(&place.name));
        for place in known.iter().filter(near) {
            match copied(handle, place).await? {
                Copied::No => {}
                copied => return Ok(copied),
            }
        }
        Ok(Copied::No)
    }

    /// Finds the files that were being read before a restart, under their current names.
    async fn find_again(&self, found: &[Found], now_micros: i64) -> Result<()> {
        let recalled = std::mem::take(&mut self.state.lock().recalled);
        for (chain, places) in recalled {
            self.state.lock().chains.entry(chain.clone()).or_default();
            for place in places {
                let known = self.files(&chain);
                if same_file(&known, &place).await?.is_some() {
                    continue;
                }
                if let Some((name, handle)) = self.search(&chain, &place, found).await? {
                    tracing::debug!(
                        file = name,
                        was = place.name,
                        "a file was recognised after a restart"
                    );
                    let since = handle.modified();
                    let file = self.state.lock().add(&chain, &name, handle, now_micros);
                    file.is_read(&place);
                    if name != chain {
                        self.find_between(&chain, since, found, now_micros)?;
                    }
                }
            }
            // Readers that had reached different files were recalled in no order.
            if let Some(chain) = self.state.lock().chains.get_mut(&chain) {
                chain.files.sort_by_key(|file| file.handle.modified());
            }
        }
        Ok(())
    }

    /// Finds files that had the chain's name for a while during the downtime: rotated like the one that was last
    /// written to at `since`, and after it.
    fn find_between(
        &self,
        chain: &str,
        since: Option<SystemTime>,
        found: &[Found],
        now_micros: i64,
    ) -> Result<()> {
        let mut later = vec![];
        for name in siblings(chain) {
            let rotated = name != chain && name.starts_with(chain);
            if !rotated
                || packing_of_name(&name) != Packing::Plain
                || found.iter().any(|one| one.name == name)
            {
                continue;
            }
            let Some(handle) = self.free(&name)? else { continue };
            let modified = handle.modified();
            if modified.is_some() && modified > since {
                later.push((modified, name, handle));
            }
        }
        later.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        for (_, name, handle) in later {
            tracing::info!(file = name, chain, "a file was rotated away before it was seen");
            self.state.lock().add(chain, &name, handle, now_micros);
        }
        Ok(())
    }

    /// Finds the file of a place: one with its inode and its beginning, or else one with its text.
    async fn search(
        &self,
        chain: &str,
        place: &FilePlace,
        found: &[Found],
    ) -> Result<Option<(String, Held)>> {
        let mut candidates: Vec<String> = vec![];
        let listed = found.iter().filter(|one| matches!(one.blob, Blob::Local(_)));
        let siblings = [chain, place.name.as_str()].into_iter().flat_map(siblings);
        for name in listed.map(|one| one.name.clone()).chain(siblings) {
            if !candidates.contains(&name) {
                candidates.push(name);
            }
        }
        let mut best: Option<(Likeness, String, Held)> = None;
        for name in candidates {
            let Some(handle) = self.free(&name)? else { continue };
            let likeness = likeness(&handle, &name, place).await?;
            if likeness > best.as_ref().map_or(Likeness::None, |best| best.0) {
                best = Some((likeness, name, handle));
            }
        }
        Ok(best.map(|(_, name, handle)| (name, handle)))
    }

    /// Opens a file that belongs to no chain yet.
    fn free(&self, name: &str) -> Result<Option<Held>> {
        let path = Path::new(name);
        if !std::fs::metadata(path).is_ok_and(|meta| meta.is_file()) {
            return Ok(None);
        }
        match Held::open_local(name, path) {
            Ok(handle) if self.state.lock().held(handle.id).is_some() => Ok(None),
            Ok(handle) => Ok(Some(handle)),
            // The stream may not read it, or it was just removed.
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Unavailable) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Returns a copy of what a file had held before it was truncated.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(super) async fn copy_of(&self, place: &FilePlace) -> Result<Option<Arc<Followed>>> {
        let copies = self.state.lock().copies.clone();
        for copy in copies {
            if copied(&copy.handle, place).await? == Copied::Yes {
                return Ok(Some(copy));
            }
        }
        for name in siblings(&place.name) {
            let Some(handle) = self.free(&name)? else { continue };
            if copied(&handle, place).await? == Copied::Yes {
                let mut state = self.state.lock();
                let copy = state.hold(&name, handle);
                state.copies.push(Arc::clone(&copy));
                return Ok(Some(copy));
            }
        }
        Ok(None)
    }

    /// The number of chains.
    pub(super) fn count(&self) -> usize {
        self.state.lock().chains.len()
    }

    /// The current files of a chain.
    pub(super) fn files(&self, chain: &str) -> Vec<Arc<Followed>> {
        self.state.lock().chains.get(chain).map(|chain| chain.files.clone()).unwrap_or_default()
    }

    /// Returns why reading a chain again does not reproduce what was read of it up to an offset: a file that is gone,
    /// or was truncated, cannot be read again.
    ///
    /// # Errors
    /// When the place cannot be parsed.
    pub(in crate::file) fn lost(
        &self,
        chain: &str,
        offset: u64,
        place: &str,
    ) -> Result<Option<String>> {
        let files = self.files(chain);
        let is_there = |place: &&FilePlace| {
            let is_it = |file: &&Arc<Followed>| place.is_of(&file.handle, &file.name());
            files.iter().find(is_it).is_some_and(|file| file.is_listed())
        };
        let there: u64 = Place::parse(place)?.files.iter().filter(is_there).map(|f| f.at).sum();
        Ok((there < offset).then(|| {
            format!(
                "file \"{chain}\" has been rotated, truncated or replaced since it was read: of {offset} bytes {there} can be read again"
            )
        }))
    }

    /// Returns the initial place of a reader that begins a chain.
    ///
    /// # Errors
    /// See [`Place::text`].
    pub(in crate::file) fn start(&self, chain: &str) -> Result<String> {
        let files = self.files(chain);
        let listed = files.iter().filter(|file| file.is_listed());
        Place { files: listed.map(|file| FilePlace::start(file.name(), &file.handle)).collect() }
            .text()
    }

    /// Returns the files of a chain, and the inbox that receives further ones.
    pub(super) fn subscribe(&self, chain: &str) -> (Vec<Arc<Followed>>, Inbox) {
        let inbox = Inbox::default();
        let mut state = self.state.lock();
        let chain = state.chains.entry(chain.to_owned()).or_default();
        chain.inboxes.push(Arc::downgrade(&inbox));
        (chain.files.clone(), inbox)
    }
}

/// Finds which of these files is the one of a place.
///
/// # Errors
/// When one cannot be read.
pub(super) async fn same_file(
    files: &[Arc<Followed>],
    place: &FilePlace,
) -> Result<Option<Arc<Followed>>> {
    let mut best = (Likeness::None, None);
    for file in files {
        let likeness = likeness(&file.handle, &file.name(), place).await?;
        if likeness > best.0 {
            best = (likeness, Some(Arc::clone(file)));
        }
    }
    Ok(best.1)
}

/// How certain it is that a file is the one of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Likeness {
    None,
    /// Same inode and same beginning: it was truncated.
    Beginning,
    /// All that was read is present, in another inode.
    Text,
    Whole,
}

async fn likeness(handle: &Held, name: &str, place: &FilePlace) -> Result<Likeness> {
    if !place.is_of(handle, name) {
        let copy = copied(handle, place).await? == Copied::Yes;
        return Ok(if copy { Likeness::Text } else { Likeness::None });
    }
    let size = handle.look().await?.map_or(0, |look| look.size);
    let Some(trail) = place.trail.of_file(handle).await? else { return Ok(Likeness::None) };
    Ok(match trail.relation(handle, size, (place.at, &[])).await? {
        Relation::Same => Likeness::Whole,
        Relation::Cut(_) => Likeness::Beginning,
        // Nothing of it had been read.
        Relation::Other if place.at == 0 => Likeness::Whole,
        Relation::Other => Likeness::None,
    })
}

/// Whether a file is a copy of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copied {
    /// It begins with all that was read of the other.
    Yes,
    /// All that it has so far is the beginning of the other.
    Perhaps,
    No,
}

/// Whether a file is a copy of the one of a place.
///
/// # Errors
/// When it cannot be read.
pub(super) async fn copied(handle: &Held, place: &FilePlace) -> Result<Copied> {
    if !place.trail.tells() || place.id == handle.id {
        return Ok(Copied::No);
    }
    let Some(look) = handle.look().await? else { return Ok(Copied::No) };
    if look.size < place.at {
        let same = place.trail.begins_with(handle, look.size).await?;
        return Ok(if same || look.size == 0 { Copied::Perhaps } else { Copied::No });
    }
    let Some(trail) = place.trail.of_file(handle).await? else { return Ok(Copied::No) };
    let relation = trail.relation(handle, look.size, (place.at, &[])).await?;
    Ok(if relation == Relation::Same { Copied::Yes } else { Copied::No })
}

/// The common beginning of the names of files that are rotated into one another: `app` of `app.log.1`.
fn stem(name: &str) -> &str {
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = name.get(base..).and_then(|base| base.find('.'));
    dot.and_then(|dot| name.get(..base + dot)).unwrap_or(name)
}

/// Returns the files beside a file whose names begin as its own does, including itself.
fn siblings(name: &str) -> Vec<String> {
    let path = Path::new(name);
    let (Some(directory), Some(base)) = (path.parent(), path.file_name()) else { return vec![] };
    let base = base.to_string_lossy().into_owned();
    let stem = stem(&base);
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    // A directory that cannot be read yields nothing.
    let Ok(entries) = std::fs::read_dir(directory) else { return vec![] };
    let mut names: Vec<String> = entries
        .flatten()
        .take(SIBLINGS_MAX)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(stem))
        // A link may lead anywhere.
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .map(|entry| match path.parent().filter(|p| !p.as_os_str().is_empty()) {
            Some(parent) => parent.join(entry.file_name()).to_string_lossy().into_owned(),
            None => entry.file_name().to_string_lossy().into_owned(),
        })
        .collect();
    names.sort();
    names
}

//! A file system for tests: in memory, with full disks, failing syncs and crashes.
//!
//! ```text
//! file    ├ durable ┤ written, not synced ┤
//! crash ─►├ durable ┤ any prefix, pages of it zero ┤      (name not synced: perhaps no file)
//! ```
//! Invariants: what was synced survives a crash; the same seed produces the same faults.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::files::{Files, Lock, LogFile};
use crate::trial::Chance;

#[derive(Debug, Default, Clone)]
struct Content {
    durable: Vec<u8>,
    now: Vec<u8>,
    /// Whether the name survives a crash.
    named: bool,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<PathBuf, Content>,
    /// Removed, but the directory was not synced since: may reappear.
    removed: BTreeMap<PathBuf, Content>,
    /// Bytes that still fit; `None`: unlimited.
    room: Option<usize>,
    /// Operations until the machine stops: all later ones fail.
    stop_after: Option<u64>,
    /// Whether it has stopped.
    stopped: bool,
    fail_remove: bool,
    fail_sync: bool,
    fail_truncate: bool,
    writes: u64,
    syncs: u64,
}

/// A file system in memory; clones share it.
#[derive(Debug, Default, Clone)]
pub(crate) struct FaultyFiles(Arc<Mutex<State>>);

impl FaultyFiles {
    /// Limits the free space of the disk in bytes.
    pub(crate) fn set_room(&self, room: Option<usize>) {
        self.0.lock().room = room;
    }

    pub(crate) fn fail_sync(&self, fail: bool) {
        self.0.lock().fail_sync = fail;
    }

    pub(crate) fn fail_remove(&self, fail: bool) {
        self.0.lock().fail_remove = fail;
    }

    pub(crate) fn fail_truncate(&self, fail: bool) {
        self.0.lock().fail_truncate = fail;
    }

    /// Makes the power fail after this many modifying operations.
    pub(crate) fn stop_after(&self, operations: u64) {
        self.0.lock().stop_after = Some(operations);
    }

    /// The numbers of writes and syncs so far.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let state = self.0.lock();
        (state.writes, state.syncs)
    }

    /// Returns the file system that a new machine finds after this one stopped.
    pub(crate) fn crash(&self, chance: &mut Chance) -> Self {
        let state = self.0.lock();
        let mut files = BTreeMap::new();
        for (path, content) in &state.files {
            if content.named || chance.below(2) == 0 {
                files.insert(path.clone(), content.torn(chance));
            }
        }
        for (path, content) in &state.removed {
            if chance.below(2) == 0 {
                files.entry(path.clone()).or_insert_with(|| content.torn(chance));
            }
        }
        Self(Arc::new(Mutex::new(State { files, ..State::default() })))
    }
}

impl Content {
    fn torn(&self, chance: &mut Chance) -> Self {
        let common = self.durable.iter().zip(&self.now).take_while(|(a, b)| a == b).count();
        let mut bytes = if common < self.durable.len() && chance.below(2) == 0 {
            self.durable.clone()
        } else {
            let len = common + chance.below((self.now.len() - common) as u64 + 1) as usize;
            self.now[..len].to_vec()
        };
        // The length reached the disk, the content did not.
        if bytes.len() > self.durable.len() && chance.below(3) == 0 {
            let from = self.durable.len()
                + chance.below((bytes.len() - self.durable.len()) as u64) as usize;
            let to = from + 1 + chance.below((bytes.len() - from) as u64) as usize;
            let to = to.min(bytes.len());
            bytes[from..to].fill(0);
        }
        Self { durable: bytes.clone(), now: bytes, named: true }
    }
}

impl State {
    fn step(&mut self) -> io::Result<()> {
        match &mut self.stop_after {
            Some(0) => {
                self.stopped = true;
                Err(io::Error::other("the power failed"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn file(&mut self, path: &Path) -> io::Result<&mut Content> {
        self.files.get_mut(path).ok_or_else(|| ErrorKind::NotFound.into())
    }
}

impl Files for FaultyFiles {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.0.lock();
        let inside = state.files.keys().filter(|p| p.parent() == Some(dir));
        Ok(inside.map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        Ok(self.0.lock().file(path)?.now.clone())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        let mut state = self.0.lock();
        state.step()?;
        if state.files.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        state.files.insert(path.into(), Content::default());
        drop(state);
        self.append(path)
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        self.0.lock().file(path)?;
        Ok(Box::new(FaultyFile { files: self.clone(), path: path.into() }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        if state.fail_remove {
            return Err(io::Error::other("input/output error"));
        }
        let content = state.files.remove(path).ok_or(ErrorKind::NotFound)?;
        if content.named {
            state.removed.insert(path.into(), content);
        }
        Ok(())
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        if state.room.is_some_and(|room| room < bytes.len()) {
            return Err(ErrorKind::StorageFull.into());
        }
        let content = Content { durable: bytes.into(), now: bytes.into(), named: true };
        state.files.insert(path.into(), content);
        Ok(())
    }

    fn remove_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        state.files.retain(|file, _| !file.starts_with(path));
        Ok(())
    }

    fn lock(&self, _: &Path) -> windrow_core::Result<Box<dyn Lock>> {
        Ok(Box::new(Unlocked))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        state.removed.retain(|path, _| path.parent() != Some(dir));
        for (path, content) in &mut state.files {
            content.named |= path.parent() == Some(dir);
        }
        Ok(())
    }
}

/// Tests themselves ensure that there is one user.
#[derive(Debug)]
struct Unlocked;

impl Lock for Unlocked {}

struct FaultyFile {
    files: FaultyFiles,
    path: PathBuf,
}

impl LogFile for FaultyFile {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.files.0.lock();
        // The power may fail in the middle of a write; once it has, nothing is written.
        let out = state.stopped;
        let stopped = state.step();
        if out {
            return stopped;
        }
        state.writes += 1;
        let fits = state.room.unwrap_or(usize::MAX).min(bytes.len());
        if let Some(room) = &mut state.room {
            *room -= fits;
        }
        state.file(&self.path)?.now.extend(&bytes[..fits]);
        stopped?;
        if fits < bytes.len() { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.files.0.lock();
        state.step()?;
        state.syncs += 1;
        if state.fail_sync {
            return Err(io::Error::other("input/output error"));
        }
        let content = state.file(&self.path)?;
        content.durable = content.now.clone();
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let mut state = self.files.0.lock();
        state.step()?;
        if state.fail_truncate {
            return Err(io::Error::other("input/output error"));
        }
        let file = state.file(&self.path)?;
        let gone = file.now.len() - len as usize;
        file.now.truncate(len as usize);
        if let Some(room) = &mut state.room {
            *room += gone;
        }
        Ok(())
    }
}

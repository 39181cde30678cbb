//! The names of files, which hold the sequence.
//!
//! ```text
//! k-000000000000-000000000100.parquet              rows 0 to 100 of the view
//! day=2026-01-01/k-000000000100-000000000250-1of2.parquet    some of the rows 100 to 250; the others are in file 2of2
//! ```
//! Rows of one commit that go to several directories are committed with the last of their files. What is missing after a crash
//! follows from the names alone.
//!
//! Invariant: a name of one sink is never one of another, whatever their names.

use std::collections::{BTreeMap, BTreeSet};

/// What a file is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Piece {
    /// The number of its first row.
    pub(super) from: u64,
    /// One past the number of its last row.
    pub(super) to: u64,
    /// Its number among the files of the commit, from 1, and how many these are.
    pub(super) part: (usize, usize),
}

/// The names of the files of a sink.
#[derive(Debug, Clone)]
pub(super) struct Naming {
    prefix: String,
    ending: String,
}

/// What the files at the destination say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The sequence that is committed.
    pub(super) committed: u64,
    /// The files of a commit that was not completed.
    pub(super) leftover: Vec<String>,
}

impl Naming {
    /// Returns the names of the files of the sink `sink`, which end with `ending`.
    pub(super) fn new(sink: &str, ending: String) -> Self {
        Self { prefix: format!("{}-", encoded(sink)), ending }
    }

    /// Returns the name of a file.
    pub(super) fn name(&self, piece: Piece) -> String {
        let Piece { from, to, part: (number, of) } = piece;
        let part = if of == 1 { String::new() } else { format!("-{number}of{of}") };
        format!("{}{from:012}-{to:012}{part}{}", self.prefix, self.ending)
    }

    /// Returns what a file is by its name; `None`: it is not one of this sink.
    pub(super) fn parse(&self, name: &str) -> Option<Piece> {
        let numbers = name.strip_prefix(&self.prefix)?;
        // In whatever format an earlier definition of the sink has written.
        let numbers = numbers.split_once('.')?.0;
        let mut parts = numbers.split('-');
        let (from, to) = (number(parts.next()?)?, number(parts.next()?)?);
        let part = match parts.next() {
            None => (1, 1),
            Some(part) => {
                let (number, of) = part.split_once("of")?;
                let part = (number.parse().ok()?, of.parse().ok()?);
                (1 < part.1 && 1 <= part.0 && part.0 <= part.1).then_some(part)?
            }
        };
        (from < to && parts.next().is_none()).then_some(Piece { from, to, part })
    }

    /// Returns what the files of these paths say. `known`: the sequence that was committed as far as is known; what lies before
    /// it may have been taken away by others and is left alone.
    pub(super) fn found(&self, paths: &[String], known: u64) -> Found {
        let mut commits: BTreeMap<(u64, u64, usize), BTreeSet<usize>> = BTreeMap::new();
        let mut pieces = vec![];
        for path in paths {
            let name = path.rsplit('/').next().unwrap_or(path);
            let Some(piece) = self.parse(name) else { continue };
            commits.entry((piece.from, piece.to, piece.part.1)).or_default().insert(piece.part.0);
            pieces.push((path, piece));
        }
        let complete = commits.iter().filter(|((_, _, of), parts)| parts.len() == *of);
        let committed = complete.map(|((_, to, _), _)| *to).max().unwrap_or(0).max(known);
        let leftover = pieces.iter().filter(|(_, piece)| piece.to > committed);
        Found { committed, leftover: leftover.map(|(path, _)| (*path).clone()).collect() }
    }
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Returns a name without characters that have a meaning in paths, patterns or the names of this module.
pub(super) fn encoded(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || byte == b'_' && at > 0;
        if plain {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naming(sink: &str) -> Naming {
        Naming::new(sink, ".parquet".to_owned())
    }

    #[test]
    fn a_name_is_read_as_it_was_written() {
        for sink in ["k", "k-0", "a.b", "_k", "ö/..", "k%2D0"] {
            for part in [(1, 1), (2, 3)] {
                let piece = Piece { from: 7, to: 1_000_000_000_007, part };
                let name = naming(sink).name(piece);
                assert_eq!(naming(sink).parse(&name), Some(piece), "{name}");
                assert!(!name.contains('/') && !name.starts_with(['.', '_']), "{name}");
                let others = ["k", "k-0", "a.b", "_k", "k-0-1", "7", ""].iter();
                let others = others.filter(|other| **other != sink);
                assert!(
                    others.into_iter().all(|other| naming(other).parse(&name).is_none()),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn other_files_are_not_ours() {
        for name in [
            "k.parquet",
            "k-1-2",
            "k-2-1.parquet",
            "k-1-1.parquet",
            "k-1-2-1of1.parquet",
            "k-1-2-3of2.parquet",
            "k-1-2-0of2.parquet",
            "k-1-2-1of2-3.parquet",
            "k-+1-2.parquet",
            "kk-1-2.parquet",
            ".k-1-2.parquet.tmp",
        ] {
            assert_eq!(naming("k").parse(name), None, "{name}");
        }
    }

    #[test]
    fn the_files_say_what_is_committed() {
        let naming = naming("k");
        let paths =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let all = paths(&[
            "k-0-10.parquet",
            "a=1/k-10-30-1of2.parquet",
            "a=2/k-10-30-2of2.parquet",
            "x.parquet",
        ]);
        assert_eq!(naming.found(&all, 0), Found { committed: 30, leftover: vec![] });
        let torn = naming.found(&all[..2], 0);
        assert_eq!(torn, Found { committed: 10, leftover: vec![all[1].clone()] });
        // What others have taken away is not written again.
        assert_eq!(naming.found(&all[1..2], 30), Found { committed: 30, leftover: vec![] });
        assert_eq!(naming.found(&[], 30).committed, 30);
    }
}

//! The modules of a crate and their references: the paths in `use` lines and in expressions, followed through
//! re-exports to the file that has the item.
//!
//! Macros, traits and globs of other crates are not followed: Cargo and the compiler know these better.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use super::tokens::{Token, tokens, without_tests};

/// A path of names, from the root of a crate.
pub(super) type Name = Vec<String>;

/// The files of one crate.
#[derive(Debug, Default)]
pub(super) struct Modules {
    files: BTreeMap<Name, File>,
}

/// What one file says.
#[derive(Debug, Default)]
struct File {
    tokens: Vec<Token>,
    /// What its imports call what: the name, and the path as it stands there.
    imports: BTreeMap<String, Name>,
    /// Paths that it names.
    paths: Vec<Name>,
}

impl Modules {
    /// Reads `src`, but for what only tests have.
    pub(super) fn read(src: &Path) -> io::Result<Self> {
        let mut modules = Self::default();
        modules.read_dir(src, &vec![])?;
        let mut only_tests: Vec<Name> = vec![];
        for (name, file) in &mut modules.files {
            let (tokens, files) = without_tests(&file.tokens);
            file.tokens = tokens;
            only_tests.extend(files.into_iter().map(|test| child(name, &test)));
        }
        modules.files.retain(|name, _| !only_tests.iter().any(|test| name.starts_with(test)));
        for file in modules.files.values_mut() {
            let mut reading = Reading { tokens: &file.tokens, at: 0 };
            let (mut imports, mut paths) = (vec![], vec![]);
            reading.all(&mut imports, &mut paths);
            for (name, path) in imports {
                paths.push(path.clone());
                file.imports.insert(name, path);
            }
            file.paths = paths;
        }
        Ok(modules)
    }

    fn read_dir(&mut self, dir: &Path, name: &Name) -> io::Result<()> {
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                self.read_dir(&path, &child(name, &stem))?;
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let own = match stem.as_str() {
                    "lib" | "main" | "mod" => name.clone(),
                    _ => child(name, &stem),
                };
                let tokens = tokens(&std::fs::read_to_string(&path)?);
                self.files.insert(own, File { tokens, ..File::default() });
            }
        }
        Ok(())
    }

    /// The crates of the workspace that it names.
    pub(super) fn crates(&self) -> BTreeSet<String> {
        let firsts =
            self.files.values().flat_map(|file| &file.paths).filter_map(|path| path.first());
        firsts.filter_map(|first| first.strip_prefix("windrow_")).map(str::to_owned).collect()
    }

    /// Which file names which others.
    pub(super) fn edges(&self) -> BTreeMap<Name, BTreeSet<Name>> {
        let mut edges = BTreeMap::new();
        for (from, file) in &self.files {
            let found = file.paths.iter().filter_map(|path| self.target(from, path, 0));
            let found: BTreeSet<Name> = found.filter(|to| to != from).collect();
            edges.insert(from.clone(), found);
        }
        edges
    }

    /// The file that has what the module `from` calls `path`; `None`: it is of another crate, or a local name.
    fn target(&self, from: &Name, path: &Name, depth: usize) -> Option<Name> {
        if depth > 16 {
            return None;
        }
        let (first, mut rest) = path.split_first()?;
        let mut module = match first.as_str() {
            "crate" => vec![],
            "self" => from.clone(),
            "super" => from.split_last()?.1.to_vec(),
            name if self.files.contains_key(&child(from, name)) => child(from, name),
            _ => return None,
        };
        while let Some((next, later)) = rest.split_first() {
            if next == "super" {
                module.pop();
            } else if self.files.contains_key(&child(&module, next)) {
                module.push(next.clone());
            } else {
                let imported = self.files.get(&module)?.imports.get(next);
                return match imported.filter(|import| *import != path) {
                    Some(import) => {
                        let path = [import.as_slice(), later].concat();
                        // What it imports from another crate is not its own.
                        self.target(&module, &path, depth + 1)
                    }
                    None => Some(module),
                };
            }
            rest = later;
        }
        Some(module)
    }
}

/// The module `name` in `parent`.
fn child(parent: &[String], name: &str) -> Name {
    parent.iter().cloned().chain([name.to_owned()]).collect()
}

/// A file that is being read.
struct Reading<'a> {
    tokens: &'a [Token],
    at: usize,
}

impl Reading<'_> {
    fn next(&mut self) -> Option<&Token> {
        self.at += 1;
        self.tokens.get(self.at - 1)
    }

    fn sees(&self, sign: char) -> bool {
        self.tokens.get(self.at).is_some_and(|token| token.is(sign))
    }

    /// All imports, and all paths of two names and more.
    fn all(&mut self, imports: &mut Vec<(String, Name)>, paths: &mut Vec<Name>) {
        // A module inside of a file is a part of that: its `super` is the file.
        let (mut depth, mut inside) = (0_usize, vec![]);
        while let Some(token) = self.next().cloned() {
            match &token {
                Token::Sign('{') => depth += 1,
                Token::Sign('}') => {
                    depth = depth.saturating_sub(1);
                    inside.retain(|within: &usize| *within <= depth);
                }
                Token::Word(word) if word == "mod" => {
                    self.next();
                    if self.sees('{') {
                        inside.push(depth + 1);
                    }
                }
                // Who may see it, not what it uses.
                Token::Word(word) if word == "pub" && self.sees('(') => {
                    while self.next().is_some_and(|token| !token.is(')')) {}
                }
                Token::Word(word) if word == "use" => {
                    let mut found = vec![];
                    self.import(&vec![], &mut found);
                    for (name, path) in found {
                        imports.push((name, lifted(path, inside.len())));
                    }
                }
                Token::Word(word) => {
                    let mut path = vec![word.clone()];
                    while self.tokens.get(self.at) == Some(&Token::Path)
                        && let Some(next) = self.tokens.get(self.at + 1).and_then(Token::word)
                    {
                        path.push(next.to_owned());
                        self.at += 2;
                    }
                    if path.len() > 1 {
                        paths.push(lifted(path, inside.len()));
                    }
                }
                Token::Path | Token::Sign(_) => {}
            }
        }
    }

    /// One tree of an import, below `prefix`.
    fn import(&mut self, prefix: &Name, found: &mut Vec<(String, Name)>) {
        let mut path = prefix.clone();
        while let Some(token) = self.next().cloned() {
            match token {
                Token::Word(word) if word == "as" => {
                    let name = self.next().and_then(Token::word).unwrap_or("_").to_owned();
                    return found.push((name, path));
                }
                Token::Word(word) if word == "self" && path.len() > prefix.len() => {}
                Token::Word(word) => path.push(word),
                Token::Sign('{') => {
                    while !self.sees('}') && self.at < self.tokens.len() {
                        self.import(&path, found);
                        if self.sees(',') {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    return;
                }
                // All that is there: the module itself is named.
                Token::Sign('*') => return found.push((format!("*{}", found.len()), path)),
                Token::Path => {}
                Token::Sign(_) => break,
            }
            if self.sees(',') || self.sees('}') || self.sees(';') {
                break;
            }
        }
        // `a::{self}` is `a`.
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        if let Some(name) = path.last().cloned() {
            found.push((name, path));
        }
    }
}

/// A path as it is from the file, when it stands in `inside` modules of that.
fn lifted(mut path: Name, inside: usize) -> Name {
    let supers = path.iter().take_while(|name| *name == "super").count().min(inside);
    if supers > 0 {
        path.splice(..supers, ["self".to_owned()]);
    }
    path
}

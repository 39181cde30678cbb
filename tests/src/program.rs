//! The `windrow` program as a child process on a data directory of its own: its input, its output, and its end, by
//! itself or by force.
//!
//! A line on stderr counts only with its line end: a line that the end of the program has truncated is ignored. Nothing
//! waits longer than [`PATIENCE`], and no child outlives its [`Running`].

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use libtest_mimic::Failed;
use tempfile::TempDir;

use crate::s3;

/// A program that says nothing for so long hangs. It is many times what any test needs, also on a slow machine with other things to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// Whether the long rounds are asked for too (`WINDROW_LONG_TESTS`): more kills and more seeds of the same kinds.
pub(crate) fn long() -> bool {
    std::env::var_os("WINDROW_LONG_TESTS").is_some_and(|value| !value.is_empty() && value != "0")
}

/// How many rounds a test does: all of them, or a quarter when the long rounds are not asked for.
pub(crate) fn rounds(all: usize) -> usize {
    if long() { all } else { all.div_ceil(4) }
}

/// A statement that never ends: windows up to that time do not come. Keeps the program in the middle of its work.
pub(crate) fn for_ever(view: &str) -> String {
    format!("WAIT FOR {view} UNTIL TIMESTAMP '2200-01-01 00:00:00';\n")
}

/// Stands between the results of two queries in CSV.
const BETWEEN: &str = "=====";

/// Where the program is; it is built first (`cargo test` alone builds no programs of other packages, and one that lies there
/// may be old).
/// `WINDROW_PROGRAM` names another one.
/// With `--workspace`, because the features of a single package differ and DataFusion would be compiled anew.
pub(crate) fn program() -> Result<PathBuf, Failed> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        if let Some(program) = std::env::var_os("WINDROW_PROGRAM") {
            return Ok(PathBuf::from(program));
        }
        let program = target_profile()?.join(format!("windrow{}", std::env::consts::EXE_SUFFIX));
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--workspace", "--bins"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        // What cargo tells a test about its own package must not reach another cargo: build scripts that look at it (ring's)
        // would run again, and all that stands on them would be compiled anew.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                build.env_remove(name);
            }
        }
        let done = build.output().map_err(|e| e.to_string())?;
        if done.status.success() {
            Ok(program)
        } else {
            Err(String::from_utf8_lossy(&done.stderr).into_owned())
        }
    });
    built.clone().map_err(Failed::from)
}

/// Where the tests and the program are built: `target/debug`.
pub(crate) fn target_profile() -> Result<PathBuf, String> {
    let me = std::env::current_exe().map_err(|e| e.to_string())?;
    me.ancestors().nth(2).map(Path::to_owned).ok_or("the test is in no target directory".to_owned())
}

/// What the program said, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: ExitStatus,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// What it wrote to stdout.
    ///
    /// # Errors
    /// When it did not end well.
    pub(crate) fn ok(self) -> Result<String, Failed> {
        self.check(self.status.success(), "the program fails")?;
        Ok(self.out)
    }

    /// Expects it to have ended with `code` after saying all of `words` on stderr, none of them an internal matter.
    pub(crate) fn refused(&self, code: i32, words: &[&str]) -> Result<(), Failed> {
        self.check(self.status.code() == Some(code), &format!("not refused with {code}"))?;
        for word in words {
            self.check(self.err.contains(word), &format!("{word:?} is not said"))?;
        }
        self.no_bug()
    }

    /// Expects no word of a panic.
    pub(crate) fn no_bug(&self) -> Result<(), Failed> {
        let bug = ["panicked", "bug in DataFusion", "Internal error"];
        self.check(!bug.iter().any(|word| self.err.contains(word)), "an internal message")
    }

    /// Fails with all that was said unless something `holds`.
    pub(crate) fn check(&self, holds: bool, what: &str) -> Result<(), Failed> {
        if holds {
            return Ok(());
        }
        let Self { status, out, err } = self;
        let cut = |text: &str| text.chars().take(4_000).collect::<String>();
        Err(format!("{what}\n{status}\nstdout:\n{}\nstderr:\n{}", cut(out), cut(err)).into())
    }
}

/// A data directory, which may not be there yet, beside the files that the test needs.
pub(crate) struct Home {
    temp: TempDir,
    /// Where the data directory is when it is in a bucket.
    bucket: Option<s3::Place>,
    /// Whether the program is told of the directory; otherwise everything is in memory.
    pub(crate) durable: bool,
    /// Whether the program logs each change of its files, so that a test can wait for one ([`Running::steps_more`]).
    pub(crate) traced: bool,
    /// What every start is told besides.
    pub(crate) flags: Vec<String>,
}

impl Home {
    /// A new one, on disk or in a bucket as the test wants it.
    pub(crate) fn new() -> Result<Self, Failed> {
        let (temp, bucket) = (tempfile::tempdir()?, s3::new_place()?);
        Ok(Self { temp, bucket, durable: true, traced: false, flags: vec![] })
    }

    /// The data directory.
    pub(crate) fn data(&self) -> PathBuf {
        match &self.bucket {
            Some(place) => PathBuf::from(place.url()),
            None => self.temp.path().join("data"),
        }
    }

    /// The bucket that it is in.
    pub(crate) fn bucket(&self) -> Option<&s3::Place> {
        self.bucket.as_ref()
    }

    /// Runs the program so that it finds the data directory.
    pub(crate) fn command(&self) -> Result<Command, Failed> {
        let mut command = Command::new(program()?);
        command.envs(self.bucket.iter().flat_map(s3::Place::environment));
        if self.traced {
            command.env("WINDROW_LOG", "warn,storage=trace");
        }
        Ok(command)
    }

    /// The bytes of a file of the data directory.
    pub(crate) fn read(&self, path: &Path) -> Result<Vec<u8>, Failed> {
        self.contents()?.remove(path).ok_or_else(|| format!("no {}", path.display()).into())
    }

    /// Writes a file of the data directory.
    pub(crate) fn write(&self, path: &Path, bytes: Vec<u8>) -> Result<(), Failed> {
        if let Some(place) = &self.bucket {
            return place.write(path, bytes);
        }
        let to = self.data().join(path);
        std::fs::create_dir_all(to.parent().ok_or("no parent")?)?;
        Ok(std::fs::write(to, bytes)?)
    }

    /// Removes a file of the data directory.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), Failed> {
        match &self.bucket {
            Some(place) => place.remove(path),
            None => Ok(std::fs::remove_file(self.data().join(path))?),
        }
    }

    /// A file that is not in the data directory.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// A copy of all of it, for trials that damage it.
    pub(crate) fn copy(&self) -> Result<Self, Failed> {
        let copy = Self { flags: self.flags.clone(), ..Self::new()? };
        for (path, bytes) in self.contents()? {
            copy.write(&path, bytes)?;
        }
        Ok(copy)
    }

    /// Leaves the directory where it is, to be looked at; where that is.
    pub(crate) fn keep(self) -> PathBuf {
        self.temp.keep()
    }

    /// Starts the program with these statements.
    pub(crate) fn start(&self, sql: &str) -> Result<Running, Failed> {
        let script = self.beside("statements.sql");
        std::fs::write(&script, sql)?;
        let mut command = self.command()?;
        if self.durable {
            command.arg(self.data());
        }
        command.args(["--format", "csv"]).args(&self.flags).arg("-f").arg(script);
        Running::start(command)
    }

    /// Runs these statements to their end.
    pub(crate) fn run(&self, sql: &str) -> Result<Said, Failed> {
        self.start(sql)?.finish()
    }

    /// Runs these statements to their good end.
    pub(crate) fn ok(&self, sql: &str) -> Result<String, Failed> {
        self.run(sql)?.ok()
    }

    /// The rows of each query as lines of CSV, sorted, without the header; `before` is run first.
    pub(crate) fn tables(
        &self,
        before: &str,
        queries: &[&str],
    ) -> Result<Vec<Vec<String>>, Failed> {
        let out = self.ok(&between(before, queries))?;
        apart(&out, queries.len())
    }

    /// As [`tables`](Self::tables), but the program is killed when it has answered; `view` is one that is there.
    pub(crate) fn tables_then_kill(
        &self,
        before: &str,
        queries: &[&str],
        view: &str,
    ) -> Result<Vec<Vec<String>>, Failed> {
        let mut sql = between(before, queries);
        sql.push_str(&format!("CREATE VIEW {MARK} AS SELECT 1 AS x;\nDROP VIEW {MARK};\n"));
        sql.push_str(&for_ever(view));
        let mut running = self.start(&sql)?;
        if !running.until(1, "DROP VIEW")? {
            return Err(failed(&running.finish()?, "the program ends before its last statement"));
        }
        apart(&running.kill()?.out, queries.len())
    }

    /// The directory of the view or stream (`kind` is "views" or "streams") with `name` in its directory's name.
    pub(crate) fn directory_of(&self, kind: &str, name: &str) -> Result<PathBuf, Failed> {
        let mut found: Vec<PathBuf> = vec![];
        for path in self.contents()?.keys() {
            let Ok(below) = path.strip_prefix(kind) else { continue };
            let Some(directory) = below.iter().next() else { continue };
            let wanted = directory.to_string_lossy().contains(name);
            let directory = Path::new(kind).join(directory);
            if wanted && !found.contains(&directory) {
                found.push(directory);
            }
        }
        match &found[..] {
            [one] => Ok(self.data().join(one)),
            _ => Err(format!("{kind} of {name:?}: {found:?}").into()),
        }
    }

    /// Every file of the data directory, by its path there.
    pub(crate) fn contents(&self) -> Result<BTreeMap<PathBuf, Vec<u8>>, Failed> {
        match &self.bucket {
            Some(place) => place.contents(),
            None => contents(&self.data()),
        }
    }
}

/// A view that is dropped when all before it has been answered.
const MARK: &str = "all_has_been_answered";

/// Fails with all that was said.
pub(crate) fn failed(said: &Said, what: &str) -> Failed {
    said.check(false, what).err().unwrap_or_else(|| what.into())
}

/// Statements that run `queries` after `before` so that their results can be told apart.
fn between(before: &str, queries: &[&str]) -> String {
    let mut sql = before.to_owned();
    for query in queries {
        sql.push_str(&format!("\n;SELECT 1 AS \"{BETWEEN}\";\n{query};\n"));
    }
    sql
}

/// The results of `count` queries.
fn apart(out: &str, count: usize) -> Result<Vec<Vec<String>>, Failed> {
    let separator = format!("{BETWEEN}\n1\n");
    let tables = out.split(&separator).skip(1);
    let rows = |table: &str| {
        let mut rows: Vec<String> = table.lines().skip(1).map(str::to_owned).collect();
        rows.sort_unstable();
        rows
    };
    let tables: Vec<_> = tables.map(rows).collect();
    if tables.len() == count {
        return Ok(tables);
    }
    Err(format!("{count} queries, {} results in:\n{out}", tables.len()).into())
}

/// Every file below `root`, by its path there.
pub(crate) fn contents(root: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>, Failed> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() {
                todo.push(path);
            } else {
                found.insert(path.strip_prefix(root)?.to_owned(), std::fs::read(&path)?);
            }
        }
    }
    Ok(found)
}

/// The program while it runs.
pub(crate) struct Running {
    child: Child,
    /// What comes on its outputs, line by line, with the line ends.
    lines: Receiver<(From, Vec<u8>)>,
    err: String,
    out: Vec<u8>,
    /// How many changes of its files it has logged ([`STEP`]).
    steps: usize,
}

/// Where a line comes from.
#[derive(Debug, Clone, Copy)]
enum From {
    Out,
    Err,
}

/// What a line of the log has that tells of a change of a file which comes next.
const STEP: &str = " TRACE ";

/// Sends every line of `output` until there are no more, or until nobody reads them.
fn listen(from: From, output: impl Read + Send + 'static, lines: SyncSender<(From, Vec<u8>)>) {
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        loop {
            let mut line = vec![];
            // The child's status tells the rest.
            if !matches!(output.read_until(b'\n', &mut line), Ok(1..)) {
                break;
            }
            if lines.send((from, line)).is_err() {
                break;
            }
        }
    });
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Result<Self, Failed> {
        let pipes = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn()?;
        let (sender, lines) = sync_channel(1 << 16);
        listen(From::Out, child.stdout.take().ok_or("no stdout")?, sender.clone());
        listen(From::Err, child.stderr.take().ok_or("no stderr")?, sender);
        Ok(Self { child, lines, err: String::new(), out: vec![], steps: 0 })
    }

    /// Takes in a line.
    fn hear(&mut self, (from, line): (From, Vec<u8>)) {
        match from {
            From::Out => self.out.extend(line),
            From::Err => {
                let line = String::from_utf8_lossy(&line);
                if line.contains(STEP) {
                    self.steps += 1;
                } else {
                    self.err.push_str(&line);
                }
            }
        }
    }

    /// Hears line after line until `holds`; `false` when the program ended before.
    ///
    /// # Errors
    /// When it says nothing for long.
    fn hear_until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<bool, Failed> {
        while !holds(self) {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.hear(line),
                Err(RecvTimeoutError::Disconnected) => return Ok(false),
                Err(RecvTimeoutError::Timeout) => return Err(self.hangs(what)),
            }
        }
        Ok(true)
    }

    /// Waits until it has said `times` lines that begin with `words`; `false` when it ended before.
    ///
    /// # Errors
    /// When it says nothing for long.
    pub(crate) fn until(&mut self, times: usize, words: &str) -> Result<bool, Failed> {
        let what = format!("no {times} times {words:?}");
        self.hear_until(&what, |said| count(&said.err, words) >= times)
    }

    /// Waits until it has written `lines` lines to stdout; `false` when it ended before.
    ///
    /// # Errors
    /// When it says nothing for long.
    pub(crate) fn until_lines(&mut self, lines: usize) -> Result<bool, Failed> {
        let what = format!("no {lines} lines");
        self.hear_until(&what, |said| said.out.iter().filter(|b| **b == b'\n').count() >= lines)
    }

    /// What it has written to stdout so far.
    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// How many changes of files it has begun, as far as was heard. Only a [`Home`] that is
    /// [traced](Home::traced) tells.
    pub(crate) fn steps(&self) -> usize {
        self.steps
    }

    /// Waits until it has begun `more` changes of files; `false` when it ended before.
    ///
    /// # Errors
    /// When it begins none for long.
    pub(crate) fn steps_more(&mut self, more: usize) -> Result<bool, Failed> {
        let steps = self.steps + more;
        self.hear_until(&format!("no {steps} changes of files"), |said| said.steps >= steps)
    }

    /// Waits until `holds`, or until it has ended.
    ///
    /// # Errors
    /// When it takes too long.
    pub(crate) fn wait_until(
        &mut self,
        what: &str,
        holds: impl Fn() -> Result<bool, Failed>,
    ) -> Result<(), Failed> {
        let pause = Duration::from_millis(1);
        let mut pauses = 0;
        while !holds()? {
            match self.lines.recv_timeout(pause) {
                Ok(line) => self.hear(line),
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => pauses += 1,
            }
            if pauses > PATIENCE.as_millis() {
                return Err(self.hangs(what));
            }
        }
        Ok(())
    }

    /// Bytes of memory that it had at most so far.
    pub(crate) fn peak(&self) -> Result<u64, Failed> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("no VmHWM")?;
        Ok(kib.parse::<u64>()? << 10)
    }

    /// Sends it `signal` ("TERM").
    pub(crate) fn signal(&self, signal: &str) -> Result<(), Failed> {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &id]).status()?;
        if sent.success() { Ok(()) } else { Err(format!("cannot send SIG{signal}").into()) }
    }

    /// Kills it (SIGKILL); what it had said until then.
    pub(crate) fn kill(mut self) -> Result<Said, Failed> {
        // Fails only when it has ended already, which `finish` sees.
        drop(self.child.kill());
        self.finish()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it says nothing for long.
    pub(crate) fn finish(mut self) -> Result<Said, Failed> {
        self.hear_until("no end", |_| false)?;
        let status = self.child.wait()?;
        let out = String::from_utf8(std::mem::take(&mut self.out))?;
        Ok(Said { status, out, err: std::mem::take(&mut self.err) })
    }

    fn hangs(&self, what: &str) -> Failed {
        format!("the program hangs ({what}); so far on stderr:\n{}", self.err).into()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// How many whole lines of `text` begin with `words`.
pub(crate) fn count(text: &str, words: &str) -> usize {
    text.split_inclusive('\n').filter(|l| l.ends_with('\n') && l.starts_with(words)).count()
}

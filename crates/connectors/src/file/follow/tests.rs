//! Followed files: whatever is done to them, each row is read once, or missing text is reported.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use tempfile::TempDir;
use windrow_core::{BadRow, Clock, Limits, ManualClock, Reader, ScanRequest, Source};

use crate::file::{FileSource, Files, Tuning};
use crate::{ConnectorEnv, Declared};

const POLL: Duration = Duration::from_millis(200);

/// The readers' positions, by partition.
type Stands = BTreeMap<String, (u64, Option<Arc<str>>)>;

/// A directory, and the source that follows it.
struct Case {
    dir: TempDir,
    path: &'static str,
    options: Vec<(String, String)>,
    clock: ManualClock,
    /// Writes so far.
    writes: Cell<u64>,
    source: Option<FileSource>,
    readers: BTreeMap<String, Box<dyn Reader>>,
    seen: Vec<i64>,
    bad: Vec<BadRow>,
    stands: Stands,
    /// The state that a kill returns to.
    checkpoint: (usize, usize, Stands),
}

impl Case {
    fn new(path: &'static str) -> Self {
        let options = [("format", if path.contains("csv") { "csv" } else { "json" })];
        Self {
            dir: tempfile::tempdir().unwrap(),
            path,
            options: options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            clock: ManualClock::at(0),
            writes: Cell::new(0),
            source: None,
            readers: BTreeMap::new(),
            seen: vec![],
            bad: vec![],
            stands: Stands::new(),
            checkpoint: (0, 0, Stands::new()),
        }
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn append(&self, name: &str, rows: std::ops::Range<i64>) {
        let text: String = match self.path.contains("csv") {
            true => rows.map(|n| format!("{n}\n")).collect(),
            false => rows.map(|n| format!("{{\"a\":{n}}}\n")).collect(),
        };
        self.append_text(name, &text);
    }

    fn append_text(&self, name: &str, text: &str) {
        let path = self.at(name);
        let is_new =
            !std::fs::exists(&path).unwrap() || std::fs::metadata(&path).unwrap().len() == 0;
        let mut file = File::options().append(true).create(true).open(path).unwrap();
        if is_new && self.path.contains("csv") {
            file.write_all(b"a\n").unwrap();
        }
        file.write_all(text.as_bytes()).unwrap();
        self.is_written(&file);
    }

    /// Sets the time of each write a second after the other; a file system's own clock may not distinguish them.
    fn is_written(&self, file: &File) {
        self.writes.set(self.writes.get() + 1);
        file.set_modified(UNIX_EPOCH + Duration::from_secs(self.writes.get())).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        std::fs::rename(self.at(from), self.at(to)).unwrap();
    }

    fn truncate(&self, name: &str, to: u64) {
        let file = File::options().write(true).open(self.at(name)).unwrap();
        file.set_len(to).unwrap();
        self.is_written(&file);
    }

    fn copy(&self, from: &str, to: &str) {
        std::fs::copy(self.at(from), self.at(to)).unwrap();
        self.is_written(&File::options().append(true).open(self.at(to)).unwrap());
    }

    /// The end of a row in a file of one-line rows.
    fn end_of(&self, name: &str, row: usize) -> u64 {
        let text = std::fs::read_to_string(self.at(name)).unwrap();
        text.split_inclusive('\n').take(row).map(str::len).sum::<usize>() as u64
    }

    /// Looks for files, and reads what is available.
    async fn step(&mut self) {
        if self.source.is_none() {
            let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
            let env = ConnectorEnv {
                limits: Limits::default(),
                clock,
                io: tokio::runtime::Handle::current(),
                files: Files::anywhere(),
            };
            let mut options = self.options.clone();
            options.push(("path".to_owned(), self.at(self.path).to_string_lossy().into_owned()));
            options.push(("follow".to_owned(), "true".to_owned()));
            let schema = Schema::new(vec![Field::new("a", DataType::Int64, true)]);
            let declared = Declared { schema: Some(Arc::new(schema)), ..Declared::default() };
            let source = FileSource::open(&options, declared, &env, Tuning::default()).await;
            let source = source.unwrap();
            for (name, (_, place)) in &self.stands {
                if let Some(place) = place {
                    source.recall(name, place).unwrap();
                }
            }
            self.source = Some(source);
        }
        let source = self.source.as_ref().unwrap();
        for partition in source.discover().await.unwrap() {
            if self.readers.contains_key(&partition.name) {
                continue;
            }
            // A checkpoint is made when a partition is found.
            let start = (0, partition.splits[0].place.clone());
            self.checkpoint.2.entry(partition.name.clone()).or_insert_with(|| start.clone());
            let stand = Some(self.stands.entry(partition.name.clone()).or_insert(start).clone());
            let scan = ScanRequest {
                projection: vec![0],
                predicates: vec![],
                event_time: None,
                from: stand.as_ref().map(|s| s.0),
                place: stand.as_ref().and_then(|s| s.1.clone()),
                past: stand.as_ref().map_or(0, |s| s.0),
                until_now: false,
                batch_rows_max: 7,
            };
            let reader = source.open(&partition.splits[0], &scan).await.unwrap();
            self.readers.insert(partition.name, reader);
        }
        for (name, reader) in &mut self.readers {
            while let Some(batch) = super::super::tests::soon(reader.next()).await {
                let batch = batch.unwrap().unwrap();
                let stand = self.stands.entry(name.clone()).or_default();
                assert_eq!(batch.offsets.start(), stand.0, "{name}: offsets tile");
                *stand = (batch.offsets.end(), batch.place.or(stand.1.take()));
                self.seen.extend(batch.rows.column(0).as_primitive::<Int64Type>().values().iter());
                self.bad.extend(batch.bad);
            }
        }
        self.clock.advance(POLL);
    }

    async fn steps(&mut self, count: usize) {
        for _ in 0..count {
            self.step().await;
        }
    }

    fn checkpoint(&mut self) {
        self.checkpoint = (self.seen.len(), self.bad.len(), self.stands.clone());
    }

    /// Loses what was read after the last checkpoint.
    fn kill(&mut self) {
        self.readers.clear();
        self.source = None;
        let (seen, bad, stands) = self.checkpoint.clone();
        self.seen.truncate(seen);
        self.bad.truncate(bad);
        self.stands = stands;
    }

    /// Asserts that each row of `0..rows` was read once.
    fn each_once(&self, rows: i64, context: &str) {
        let mut seen = self.seen.clone();
        seen.sort_unstable();
        let twice: Vec<i64> = seen.windows(2).filter(|w| w[0] == w[1]).map(|w| w[0]).collect();
        let missing: Vec<i64> = (0..rows).filter(|n| seen.binary_search(n).is_err()).collect();
        assert!(
            twice.is_empty() && missing.is_empty(),
            "{context}: {twice:?} twice, {missing:?} missing, {:?}",
            self.bad
        );
        assert_eq!(seen.len() as i64, rows, "{context}");
    }

    fn reasons(&self) -> Vec<&str> {
        self.bad.iter().map(|bad| bad.reason.as_str()).collect()
    }
}

const PATHS: [&str; 4] = ["a.json", "a.json*", "a.csv", "a.csv*"];

fn file_of(path: &str) -> &'static str {
    if path.contains("csv") { "a.csv" } else { "a.json" }
}

/// Whether there is a kill, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kill {
    Never,
    /// The change happens while the program is not running.
    Before,
    /// The program had noticed it, but had made no checkpoint since.
    After,
}

/// Reads, changes something, and continues to read, for each path and kill.
async fn through(
    before: impl Fn(&Case, &str),
    change: impl Fn(&Case, &str),
    after: impl Fn(&Case, &str, Kill),
) {
    for path in PATHS {
        for kill in [Kill::Never, Kill::Before, Kill::After] {
            let mut case = Case::new(path);
            let file = file_of(path);
            before(&case, file);
            case.steps(2).await;
            case.checkpoint();
            if kill == Kill::Before {
                case.kill();
            }
            change(&case, file);
            case.steps(20).await;
            if kill == Kill::After {
                case.kill();
                case.steps(20).await;
            }
            after(&case, &format!("{path}, {kill:?}"), kill);
        }
    }
}

#[tokio::test]
async fn a_renamed_file_is_finished_and_the_new_one_begins_at_its_start() {
    for new in [5, 100, 400] {
        through(
            |case, file| case.append(file, 0..100),
            |case, file| {
                case.append(file, 100..110);
                case.rename(file, &format!("{file}.1"));
                case.append(&format!("{file}.1"), 110..120);
                case.append(file, 120..120 + new);
            },
            |case, context, _| {
                case.each_once(120 + new, context);
                assert_eq!(case.reasons(), [""; 0], "{context}");
            },
        )
        .await;
    }
}

#[tokio::test]
async fn rows_that_come_to_a_renamed_file_later_are_read() {
    for path in PATHS {
        let mut case = Case::new(path);
        let file = file_of(path);
        let old = format!("{file}.1");
        case.append(file, 0..10);
        case.steps(2).await;
        case.rename(file, &old);
        case.steps(2).await;
        case.append(&old, 10..20);
        case.append(file, 30..40);
        case.steps(3).await;
        assert!(!case.seen.contains(&30), "{path}: the old one is waited for");
        case.append(&old, 20..30);
        case.steps(3).await;
        case.each_once(30, path);
        case.steps(20).await;
        case.each_once(40, path);
    }
}

#[tokio::test]
async fn several_rotations_pass() {
    through(
        |case, file| {
            case.append(&format!("{file}.1"), 0..10);
            case.append(file, 10..100);
        },
        |case, file| {
            case.rename(&format!("{file}.1"), &format!("{file}.2"));
            case.rename(file, &format!("{file}.1"));
            case.append(file, 100..150);
        },
        |case, context, _| {
            // The file that was there before is the stream's only where the path matches it.
            let mut rows = case.seen.clone();
            rows.retain(|n| *n >= 10);
            assert_eq!(rows.len(), 140, "{context}");
            if context.contains('*') {
                case.each_once(150, context);
            }
            assert_eq!(case.reasons(), [""; 0], "{context}");
        },
    )
    .await;
}

#[tokio::test]
async fn a_file_that_is_replaced_begins_anew() {
    through(
        |case, file| case.append(file, 0..100),
        |case, file| {
            case.append("new", 100..300);
            case.rename("new", file);
        },
        |case, context, kill| {
            case.each_once(300, context);
            // What the old one had received in between is unknown.
            let said = usize::from(kill != Kill::Never);
            assert_eq!(case.bad.len(), said, "{context}: {:?}", case.bad);
            if let [reason] = &*case.reasons() {
                assert!(reason.contains("is gone: "), "{reason}");
            }
        },
    )
    .await;
}

#[tokio::test]
async fn a_file_that_is_written_anew_with_more_goes_on() {
    through(
        |case, file| case.append(file, 0..100),
        |case, file| {
            case.append("new", 0..130);
            case.rename("new", file);
        },
        |case, context, _| {
            case.each_once(130, context);
            assert_eq!(case.reasons(), [""; 0], "{context}");
        },
    )
    .await;
}

#[tokio::test]
async fn a_file_that_is_copied_and_truncated_is_read_on() {
    // To less, to as many bytes, and to more than had been read.
    for new in [50, 100, 400] {
        through(
            |case, file| case.append(file, 100..200),
            |case, file| {
                case.append(file, 200..220);
                case.copy(file, &format!("{file}.1"));
                case.truncate(file, 0);
                case.append(file, 220..220 + new);
            },
            |case, context, _| {
                let all: Vec<i64> = (0..100).chain(case.seen.iter().copied()).collect();
                let mut sorted = all.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, (0..220 + new).collect::<Vec<_>>(), "{context} {:?}", case.bad);
                assert_eq!(case.reasons(), [""; 0], "{context}");
            },
        )
        .await;
    }
}

#[tokio::test]
async fn a_file_that_is_truncated_in_the_middle_is_not_read_again() {
    through(
        |case, file| case.append(file, 0..300),
        |case, file| {
            case.truncate(file, case.end_of(file, 121));
            case.append(file, 300..350);
        },
        |case, context, _| {
            case.each_once(350, context);
            assert_eq!(case.reasons(), [""; 0], "{context}");
        },
    )
    .await;
    // In the middle of a row: its start joined with the next row is a bad row.
    through(
        |case, file| case.append(file, 1000..1300),
        |case, file| {
            case.truncate(file, case.end_of(file, 121) + 2);
            case.append_text(file, "x\n");
            case.append(file, 1300..1350);
        },
        |case, context, _| {
            assert_eq!((case.seen.len(), case.bad.len()), (350, 1), "{context} {:?}", case.bad);
            assert!(case.bad[0].raw.ends_with('x'), "{:?}", case.bad);
        },
    )
    .await;
}

#[tokio::test]
async fn a_row_that_is_cut_off_by_truncation_is_told() {
    let mut case = Case::new("a.json");
    case.append("a.json", 0..10);
    case.append_text("a.json", "{\"a\":10");
    case.steps(2).await;
    case.checkpoint();
    case.truncate("a.json", 0);
    case.append("a.json", 10..15);
    case.steps(3).await;
    case.each_once(15, "truncated");
    let reasons = case.reasons();
    assert!(reasons[0].contains("at least 7 bytes from byte 80 on are missing"), "{reasons:?}");
    assert_eq!(reasons.len(), 1);
}

#[tokio::test]
async fn the_last_row_of_a_renamed_file_needs_no_line_end() {
    through(
        |case, file| case.append(file, 0..10),
        |case, file| {
            case.append_text(file, if file.contains("csv") { "10" } else { "{\"a\":10}" });
            case.rename(file, &format!("{file}.1"));
            case.append(file, 11..20);
        },
        |case, context, _| {
            case.each_once(20, context);
            assert_eq!(case.reasons(), [""; 0], "{context}");
        },
    )
    .await;
}

#[tokio::test]
async fn a_deleted_file_is_no_end() {
    through(
        |case, file| case.append(file, 0..10),
        |case, file| std::fs::remove_file(case.at(file)).unwrap(),
        |case, context, _| case.each_once(10, context),
    )
    .await;
    for path in PATHS {
        let mut case = Case::new(path);
        let file = file_of(path);
        case.append(file, 0..10);
        case.steps(2).await;
        std::fs::remove_file(case.at(file)).unwrap();
        case.steps(400).await;
        case.checkpoint();
        case.kill();
        case.steps(2).await;
        case.append(file, 10..30);
        case.steps(20).await;
        case.each_once(30, path);
        assert_eq!(case.reasons(), [""; 0], "{path}: all of it had been read");
    }
}

#[tokio::test]
async fn files_that_are_alike_are_not_taken_for_one_another() {
    let mut case = Case::new("*.json");
    for name in ["a.json", "b.json"] {
        case.append(name, 0..10);
    }
    case.steps(2).await;
    case.append("c.json", 0..10);
    case.steps(2).await;
    assert_eq!(case.seen.len(), 30);
    // A copy of a file that is rotated like it is none of its own, but is continued when it differs.
    case.copy("c.json", "c.1.json");
    case.steps(2).await;
    assert_eq!(case.seen.len(), 30);
}

/// Rows are written, files are rotated and truncated, the program is killed: each row is read once.
#[tokio::test]
async fn whatever_is_done_each_row_is_read_once() {
    for seed in 0..25 {
        let mut random = super::super::tests::Random(seed);
        let path = PATHS[random.below(4) as usize];
        let file = file_of(path);
        let mut case = Case::new(path);
        let (mut rows, mut rotated) = (0_i64, 0);
        let mut log = vec![];
        for _ in 0..40 {
            match random.below(8) {
                0 if std::fs::exists(case.at(file)).unwrap() => {
                    rotated += 1;
                    // Where the path matches one file only, what appears and disappears between two looks is not seen.
                    case.steps(1).await;
                    case.rename(file, &format!("{file}.{rotated}"));
                    log.push("rename");
                }
                // A copy of a file that has not been read could not be distinguished from a new one.
                1 if std::fs::read(case.at(file)).is_ok_and(|text| text.len() > 2) => {
                    rotated += 1;
                    case.steps(20).await;
                    case.checkpoint();
                    let more = random.below(2) as i64;
                    case.append(file, rows..rows + more);
                    rows += more;
                    case.copy(file, &format!("{file}.{rotated}"));
                    case.truncate(file, 0);
                    log.push("copytruncate");
                }
                2 => {
                    case.kill();
                    log.push("kill");
                }
                3 => {
                    case.checkpoint();
                    log.push("checkpoint");
                }
                _ => {
                    let more = random.below(40) as i64;
                    case.append(file, rows..rows + more);
                    rows += more;
                    log.push("append");
                }
            }
            if random.below(2) == 0 || log.last() == Some(&"rename") {
                case.steps(1 + random.below(14) as usize).await;
            }
        }
        case.steps(60).await;
        case.each_once(rows, &format!("seed {seed}, {path}, {log:?}"));
    }
}

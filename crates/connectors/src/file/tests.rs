//! File sources, end to end, on real files in a temporary directory.

use std::io::Write;
use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, TimeUnit, TimestampMicrosecondType};
pub(super) use proptest_free::Random;
use tempfile::TempDir;
use windrow_core::{BadRow, Clock, CmpOp, Limits, ManualClock, Predicate, SourceBatch};

use super::*;

mod parquet_tests;

/// A small random number generator, so that each failure can be repeated.
mod proptest_free {
    pub(in crate::file) struct Random(pub u64);

    impl Random {
        pub(in crate::file) fn below(&mut self, n: u64) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % n
        }
    }
}

fn env() -> ConnectorEnv {
    ConnectorEnv {
        limits: Limits::default(),
        clock: Arc::new(ManualClock::at(0)),
        io: tokio::runtime::Handle::current(),
        files: Files::anywhere(),
    }
}

fn pairs(given: &[(&str, &str)]) -> Vec<(String, String)> {
    given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn declared(fields: Vec<Field>) -> Declared {
    Declared {
        schema: Some(Arc::new(Schema::new(fields))),
        event_time: None,
        ..Declared::default()
    }
}

fn ab() -> Declared {
    declared(vec![
        Field::new("a", DataType::Int64, true),
        Field::new("b", DataType::Utf8View, true),
    ])
}

fn all(source: &dyn Source) -> ScanRequest {
    ScanRequest {
        projection: (0..source.schema().fields().len()).collect(),
        predicates: vec![],
        event_time: None,
        from: None,
        place: None,
        past: 0,
        until_now: false,
        batch_rows_max: 65_536,
    }
}

/// Everything that a source returns.
#[derive(Debug, Default)]
struct Everything {
    rows: Vec<RecordBatch>,
    offsets: Vec<(u32, u64)>,
    bad: Vec<BadRow>,
    skipped: u64,
}

impl Everything {
    fn count(&self) -> usize {
        self.rows.iter().map(RecordBatch::num_rows).sum()
    }

    /// Returns the values of an integer column.
    fn ints(&self, column: usize) -> Vec<Option<i64>> {
        let column = |b: &RecordBatch| b.column(column).as_primitive::<Int64Type>().clone();
        self.rows.iter().flat_map(|b| column(b).iter().collect::<Vec<_>>()).collect()
    }

    fn texts(&self, column: usize) -> Vec<Option<String>> {
        let column = |b: &RecordBatch| b.column(column).as_string_view().clone();
        self.rows
            .iter()
            .flat_map(|b| column(b).iter().map(|s| s.map(str::to_owned)).collect::<Vec<_>>())
            .collect()
    }

    fn add(&mut self, partition: u32, batch: SourceBatch) {
        let offset = |row| (partition, batch.row_offsets.offset(row));
        self.offsets.extend((0..batch.rows.num_rows()).map(offset));
        self.skipped += batch.skipped;
        self.bad.extend(batch.bad);
        self.rows.push(batch.rows);
    }
}

/// Reads a source to its end, and checks that offsets are in order and that ranges tile.
async fn read(source: &dyn Source, scan: &ScanRequest) -> Result<Everything> {
    let mut everything = Everything::default();
    for partition in source.discover().await? {
        let mut at = None;
        for split in &partition.splits {
            let mut reader = source.open(split, scan).await?;
            while let Some(batch) = reader.next().await? {
                let range = batch.offsets;
                assert_eq!(at.unwrap_or(range.start()), range.start(), "ranges tile");
                at = Some(range.end());
                let mut last = None;
                for row in 0..batch.rows.num_rows() {
                    let offset = batch.row_offsets.offset(row);
                    assert!(range.start() <= offset && offset < range.end(), "{offset} {range:?}");
                    assert!(last < Some(offset));
                    last = Some(offset);
                }
                everything.add(partition.id.0, batch);
            }
        }
    }
    Ok(everything)
}

/// Writes `bytes` to `name` in a new directory and opens it.
struct Case {
    dir: TempDir,
}

impl Case {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_string_lossy().into_owned()
    }

    async fn open(&self, name: &str, given: &[(&str, &str)], d: Declared) -> Result<FileSource> {
        self.open_tuned(name, given, d, Tuning::default()).await
    }

    async fn open_tuned(
        &self,
        name: &str,
        given: &[(&str, &str)],
        d: Declared,
        tuning: Tuning,
    ) -> Result<FileSource> {
        let mut options = pairs(given);
        options.push(("path".to_owned(), self.path(name)));
        FileSource::open(&options, d, &env(), tuning).await
    }

    async fn read(&self, name: &str, given: &[(&str, &str)], d: Declared) -> Everything {
        let source = self.open(name, given, d).await.unwrap();
        read(&source, &all(&source)).await.unwrap()
    }
}

fn reasons(everything: &Everything) -> Vec<(u64, &str)> {
    everything.bad.iter().map(|bad| (bad.offset, bad.reason.as_str())).collect()
}

#[tokio::test]
async fn bad_json_lines_are_named_and_no_good_one_is_lost() {
    let text: Vec<u8> = [
        b"\xEF\xBB\xBF{\"a\":1,\"b\":\"x\"}\r\n".as_slice(), // 0: byte order mark, CR LF
        b"\n   \n",                                          // blank lines
        b"{\"a\":2,\"b\":\"cut of\n",                        // truncated
        b"{\"a\":\"three\",\"b\":\"y\"}\n",                  // wrong type
        b"{\"a\":4,\"b\":\"\xFF\xFE\"}\n",                   // not UTF-8
        b"{\"a\":9223372036854775808}\n",                    // does not fit
        b"{\"a\":1.5}\n",                                    // not whole
        b"[1,2]\n",                                          // not an object
        b"{\"a\":5}{\"a\":6}\n",                             // two objects
        b"{\"a\":7,\n",                                      // an object over
        b"\"b\":\"z\"}\n",                                   // two lines
        b"{\"a\":8,\"a\":8,\"more\":{\"x\":[1]},\"b\":9}\n", // extra and repeated keys
        b"{\"b\":\"\\u00fc \\ud83d\\ude00\"}\n",             // missing field
        b"{\"a\":1e3,\"b\":null}",                           // no line end
    ]
    .concat();
    let case = Case::new(&[("x.json", &text)]);
    let got = case.read("x.json", &[], ab()).await;
    assert_eq!(got.ints(0), [Some(1), Some(8), None, Some(1000)]);
    assert_eq!(got.texts(1), [Some("x".into()), Some("9".into()), Some("ü 😀".into()), None]);
    let reasons: Vec<&str> = got.bad.iter().map(|b| b.reason.as_str()).collect();
    assert_eq!(reasons.len(), 9, "{reasons:#?}");
    assert!(reasons[0].starts_with("the JSON object is cut off"), "{reasons:#?}");
    assert!(reasons[1].starts_with("column \"a\": "), "{reasons:#?}");
    assert!(reasons[2].contains("UTF-8"), "{reasons:#?}");
    assert!(reasons[3].starts_with("column \"a\": "), "{reasons:#?}");
    assert_eq!(reasons[4], "column \"a\": '1.5' is not BIGINT");
    assert_eq!(reasons[5], "the line is not a JSON object");
    for bad in &got.bad {
        let at = usize::try_from(bad.offset).unwrap();
        assert_eq!(text[at - 1], b'\n', "an offset is where a line starts");
    }
}

#[tokio::test]
async fn a_bad_column_is_bad_whatever_is_asked_for() {
    let case = Case::new(&[("x.json", b"{\"a\":1}\n{\"a\":\"no\"}\n{\"a\":2,\"b\":\"b\"}\n")]);
    let source = case.open("x.json", &[], ab()).await.unwrap();
    for projection in [vec![], vec![1], vec![0, 1]] {
        let scan = ScanRequest { projection, ..all(&source) };
        let got = read(&source, &scan).await.unwrap();
        assert_eq!((got.count(), got.bad.len()), (2, 1));
        assert_eq!(got.bad[0].offset, 8);
        assert!(got.bad[0].reason.contains("column \"a\""), "{:?}", got.bad);
    }
}

#[tokio::test]
async fn on_bad_row_null_keeps_the_good_fields() {
    let text = b"{\"a\":\"no\",\"b\":\"kept\"}\n{\"a\":2}\n{broken\n";
    let case = Case::new(&[("x.json", text), ("x.csv", b"a,b\nno,kept\n2,\n1,2,3\n")]);
    for name in ["x.json", "x.csv"] {
        let got = case.read(name, &[("on_bad_row", "null")], ab()).await;
        assert_eq!(got.ints(0), [None, Some(2)], "{name}");
        assert_eq!(got.texts(1), [Some("kept".into()), None]);
        assert_eq!(got.bad.len(), 1);
    }
}

#[tokio::test]
async fn on_bad_row_fail_names_file_and_place() {
    let case = Case::new(&[("x.json", b"{\"a\":1}\n{\"a\":\"no\"}\n")]);
    let source = case.open("x.json", &[("on_bad_row", "fail")], ab()).await.unwrap();
    let e = read(&source, &all(&source)).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Data);
    assert!(e.message().contains("x.json\" has a bad row at byte 8: column \"a\""), "{e}");
}

#[tokio::test]
async fn not_null_is_checked() {
    let fields = vec![Field::new("a", DataType::Int64, false)];
    let case = Case::new(&[("x.json", b"{\"a\":1}\n{\"b\":2}\n"), ("x.csv", b"a,b\n1,\n,2\n")]);
    for name in ["x.json", "x.csv"] {
        let got = case.read(name, &[], declared(fields.clone())).await;
        assert_eq!(got.ints(0), [Some(1)]);
        assert_eq!(got.bad.len(), 1, "{name}");
        assert!(got.bad[0].reason.contains("NOT NULL"), "{:?}", got.bad);
    }
}

#[tokio::test]
async fn csv_columns_are_found_by_name_and_bad_records_are_named() {
    let text = "b,extra,A\r\nx,,1\r\n\"multi\nline, \"\"quoted\"\"\",e,2\r\ny,e,two\r\n\
                z,e\r\n\r\nü,e,3\r\nlast,e,4";
    let case = Case::new(&[("x.csv", text.as_bytes())]);
    let got = case.read("x.csv", &[], ab()).await;
    assert_eq!(got.ints(0), [Some(1), Some(2), Some(3), Some(4)]);
    let texts = got.texts(1);
    assert_eq!(texts[1].as_deref(), Some("multi\nline, \"quoted\""));
    assert_eq!(texts[3].as_deref(), Some("last"));
    let reasons: Vec<&str> = got.bad.iter().map(|b| b.reason.as_str()).collect();
    assert_eq!(reasons, ["column \"a\": 'two' is not BIGINT", "the record has 2 fields, not 3"]);
}

#[tokio::test]
async fn csv_styles() {
    let case = Case::new(&[
        ("semi.csv", b"1;'it;s';NA\n2;'a\\'b';x\n"),
        ("t.tsv", b"a\tb\n1\t\"x\ty\"\n"),
        ("x.csv", b"a,b\n1,NA\n"),
    ]);
    let fields = vec![
        Field::new("a", DataType::Int64, true),
        Field::new("b", DataType::Utf8View, true),
        Field::new("c", DataType::Utf8View, true),
    ];
    let options =
        [("delimiter", ";"), ("quote", "'"), ("escape", "\\"), ("header", "no"), ("null", "NA")];
    let got = case.read("semi.csv", &options, declared(fields)).await;
    assert_eq!(got.texts(1), [Some("it;s".into()), Some("a'b".into())]);
    assert_eq!(got.texts(2), [None, Some("x".into())]);
    assert_eq!(case.read("t.tsv", &[], ab()).await.texts(1), [Some("x\ty".into())]);
    assert_eq!(case.read("x.csv", &[], ab()).await.texts(1), [Some("NA".into())]);
}

#[tokio::test]
async fn a_stray_quote_costs_its_own_line_only() {
    let case = Case::new(&[
        ("open.csv", b"a,b\n1,x\n2,\"never closed\n3,y\n4,z\n"),
        ("two.csv", b"a,b\n1,\"x\n2,y\n3,z\n4,\"w\n5,v\n"),
    ]);
    let got = case.read("open.csv", &[], ab()).await;
    assert_eq!(got.ints(0), [Some(1), Some(3), Some(4)]);
    assert_eq!(reasons(&got), [(8, "a quoted field is not closed")]);
    let got = case.read("two.csv", &[], ab()).await;
    assert_eq!(got.ints(0), [Some(2), Some(3), Some(5)], "{:?}", got.bad);
    assert_eq!(got.bad.len(), 2);
}

#[tokio::test]
async fn a_missing_csv_column_is_told_when_the_stream_is_made() {
    let case = Case::new(&[("x.csv", b"b,c\n1,2\n")]);
    let e = case.open("x.csv", &[], ab()).await.unwrap_err();
    assert!(e.message().ends_with("x.csv\" has no column \"a\""), "{e}");
    assert_eq!(e.hints(), ["Its columns are: b, c."]);
}

#[tokio::test]
async fn packed_files_are_unpacked_and_damage_is_told() {
    let lines: String = (0..5000).map(|i| format!("{{\"a\":{i}}}\n")).collect();
    let mut gz = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    gz.write_all(lines.as_bytes()).unwrap();
    let gz = gz.finish().unwrap();
    let two = [gz.clone(), gz.clone()].concat();
    let zst = zstd::encode_all(lines.as_bytes(), 1).unwrap();
    let two_frames = [zst.clone(), zst.clone()].concat();
    let case = Case::new(&[
        ("a.json.gz", &gz),
        ("two.json.gz", &two),
        ("a.ndjson.zst", &zst),
        ("two.json.zst", &two_frames),
        ("cut.json.gz", &gz[..gz.len() / 2]),
        ("cut.json.zst", &zst[..zst.len() / 2]),
        ("plain.json.gz", lines.as_bytes()),
    ]);
    for (name, rows) in [
        ("a.json.gz", 5000),
        ("two.json.gz", 10_000),
        ("a.ndjson.zst", 5000),
        ("two.json.zst", 10_000),
    ] {
        assert_eq!(case.read(name, &[], ab()).await.count(), rows, "{name}");
    }
    for name in ["cut.json.gz", "cut.json.zst", "plain.json.gz"] {
        let source = case.open(name, &[], ab()).await.unwrap();
        let e = read(&source, &all(&source)).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Data, "{name}");
        assert!(e.message().contains("cannot be decompressed"), "{name}: {e}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_told() {
    let case = Case::new(&[("empty.json", b""), ("notes.txt", b"x")]);
    std::fs::create_dir(case.dir.path().join("dir")).unwrap();
    let kind = |e: Error| (e.kind(), e.message().to_owned());
    let (k, m) = kind(case.open("none.json", &[], ab()).await.unwrap_err());
    assert_eq!(k, ErrorKind::NotFound);
    assert!(m.contains("none.json\" does not exist"), "{m}");
    let (k, m) = kind(case.open("*.csv", &[], ab()).await.unwrap_err());
    assert_eq!(k, ErrorKind::NotFound);
    assert!(m.starts_with("no file matches"), "{m}");
    let (k, m) = kind(case.open("dir", &[], ab()).await.unwrap_err());
    assert_eq!(k, ErrorKind::NotFound);
    assert!(m.contains("has no JSON, CSV, Parquet or Avro files"), "{m}");
    let (k, m) = kind(case.open("notes.txt", &[], ab()).await.unwrap_err());
    assert_eq!(k, ErrorKind::Config);
    assert!(m.contains("format of file"), "{m}");
    assert_eq!(case.read("empty.json", &[], ab()).await.count(), 0);
    let e = case.open("empty.json", &[], Declared::default()).await.unwrap_err();
    assert!(e.message().contains("there are no rows"), "{e}");
    let e = case.open("empty.json", &[("format", "parquet")], ab()).await.unwrap_err();
    assert!(e.message().contains("cannot be read as Parquet"), "{e}");
    let e = case.open("empty.json", &[("formt", "json")], ab()).await.unwrap_err();
    assert!(e.hints()[0].contains("\"format\""), "{e}");
}

#[tokio::test]
async fn columns_are_found_out() {
    let case = Case::new(&[
        ("x.json", b"{\"t\":\"2020-01-01T00:00:00Z\",\"n\":1}\nbad\n{\"n\":2.5,\"s\":\"x\"}\n"),
        ("x.csv", b"t,n,s\n2020-01-01 00:00:00,1,x\n2020-01-02 00:00:00,,y\n"),
        ("array.json", b"[{\"a\":1},\n{\"a\":2}]\n"),
    ]);
    let types = |source: &FileSource| {
        source.schema.fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>()
    };
    let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
    let json = case.open("x.json", &[], Declared::default()).await.unwrap();
    assert_eq!(types(&json), [micros.clone(), DataType::Float64, DataType::Utf8View]);
    let csv = case.open("x.csv", &[], Declared::default()).await.unwrap();
    assert_eq!(types(&csv), [micros, DataType::Int64, DataType::Utf8View]);
    let got = read(&csv, &all(&csv)).await.unwrap();
    let times = got.rows[0].column(0).as_primitive::<TimestampMicrosecondType>().clone();
    assert_eq!(times.value(0), 1_577_836_800_000_000);
    let e = case.open("array.json", &[], Declared::default()).await.unwrap_err();
    assert!(e.message().contains("not newline-delimited JSON"), "{e}");
}

#[tokio::test]
async fn directories_globs_and_order() {
    let case = Case::new(&[
        ("b.json", b"{\"a\":2}\n"),
        ("a.json", b"{\"a\":1}\n"),
        ("c.json", b"{\"a\":3}"),
        ("x.csv", b"a\n9\n"),
        ("_SUCCESS", b""),
    ]);
    let got = case.read("", &[("format", "json")], ab()).await;
    assert_eq!(got.ints(0), [Some(1), Some(2), Some(3)]);
    assert_eq!(got.offsets, [(0, 0), (1, 0), (2, 0)]);
    let got = case.read("[ab].json", &[], ab()).await;
    assert_eq!(got.ints(0), [Some(1), Some(2)]);
    let got = case.read("*.json", &[("files", "in_order")], ab()).await;
    assert_eq!(got.offsets, [(0, 0), (0, 1 << 44), (0, 2 << 44)]);
    let url = format!("file://{}", case.path("a.json"));
    let options = pairs(&[("path", &url)]);
    let source = FileSource::open(&options, ab(), &env(), Tuning::default()).await.unwrap();
    assert_eq!(read(&source, &all(&source)).await.unwrap().count(), 1);
}

#[tokio::test]
async fn a_long_row_is_a_bad_row_and_costs_no_more_than_its_length() {
    let long = format!("{{\"a\":1,\"b\":\"{}\"}}\n", "x".repeat(300_000));
    let text = format!("{{\"a\":1}}\n{long}{{\"a\":3}}\n");
    let case = Case::new(&[("x.json", text.as_bytes())]);
    for (block, split) in [(1000, 10_000), (1 << 20, 1 << 20), (1000, 1 << 20)] {
        let tuning = Tuning { split_bytes: split, block_bytes: block };
        let mut source = case.open_tuned("x.json", &[], ab(), tuning).await.unwrap();
        let got = read(&source, &all(&source)).await.unwrap();
        assert_eq!(got.ints(0), [Some(1), Some(1), Some(3)]);
        source.env.limits.row_bytes_max = 100_000;
        let got = read(&source, &all(&source)).await.unwrap();
        assert_eq!(got.ints(0), [Some(1), Some(3)]);
        assert_eq!(got.bad.len(), 1);
        assert!(got.bad[0].reason.contains("row_bytes_max"));
        assert!(got.bad[0].raw.chars().count() < 1100);
    }
}

/// Random rows with quotes, line ends, unicode, blank lines and bad rows.
fn random_csv(random: &mut Random, quotes: bool) -> String {
    let mut text = String::from("a,b\n");
    for row in 0..200 {
        let b = match random.below(if quotes { 7 } else { 4 }) {
            0 => "ü😀 ß".to_owned(),
            1 => String::new(),
            2 => "x".repeat(random.below(40) as usize),
            3 => "plain".to_owned(),
            4 => "\"a\nb\"".to_owned(),
            5 => "\"say \"\"hi\"\"\r\n\"".to_owned(),
            _ => "\",\"".to_owned(),
        };
        let end = if random.below(3) == 0 { "\r\n" } else { "\n" };
        match random.below(12) {
            0 => text.push_str(&format!("bad,{b}{end}")),
            1 => text.push_str(&format!("{row},{b},more{end}")),
            2 => text.push_str(&format!("{end}{row},{b}{end}")),
            _ => text.push_str(&format!("{row},{b}{end}")),
        }
    }
    text
}

fn random_json(random: &mut Random) -> String {
    let mut text = String::new();
    for row in 0..200 {
        let line = match random.below(10) {
            0 => format!("{{\"a\":{row},\"b\":\"cut"),
            1 => format!("{{\"a\":\"x{row}\"}}"),
            2 => String::new(),
            3 => format!("{{\"a\":{row}.5}}"),
            4 => format!("{{\"b\":\"\\\"{{}} ü😀 {}\",\"a\":{row}}}", "y".repeat(row % 50)),
            _ => format!("{{\"a\":{row},\"b\":\"b{row}\"}}"),
        };
        text.push_str(&line);
        text.push_str(if random.below(4) == 0 { "\r\n" } else { "\n" });
    }
    text
}

#[tokio::test]
async fn no_cut_changes_what_is_read() {
    for seed in 0..12 {
        let mut random = Random(seed);
        let csv = random_csv(&mut random, true);
        let plain = random_csv(&mut random, false);
        let json = random_json(&mut random);
        let case = Case::new(&[
            ("q.csv", csv.as_bytes()),
            ("p.csv", plain.as_bytes()),
            ("j.json", json.as_bytes()),
        ]);
        for name in ["q.csv", "p.csv", "j.json"] {
            let whole = case.read(name, &[], ab()).await;
            assert!(whole.count() > 80, "{name}");
            for _ in 0..6 {
                let tuning = Tuning {
                    split_bytes: 1 + random.below(3000),
                    block_bytes: 1 + random.below(500) as usize,
                };
                let source = case.open_tuned(name, &[], ab(), tuning).await.unwrap();
                let batch_rows_max = 1 + random.below(50) as usize;
                let scan = ScanRequest { batch_rows_max, ..all(&source) };
                let got = read(&source, &scan).await.unwrap();
                let context = format!("{name}, seed {seed}, {tuning:?}, {batch_rows_max}");
                assert_eq!(got.ints(0), whole.ints(0), "{context}");
                assert_eq!(got.texts(1), whole.texts(1), "{context}");
                assert_eq!(got.offsets, whole.offsets, "{context}");
                assert_eq!(got.bad, whole.bad, "{context}");
            }
        }
    }
}

/// Resuming a split at any batch returns the same rows as the full read from there on.
#[tokio::test]
async fn reading_goes_on_at_any_batch() {
    let mut random = Random(7);
    let csv = random_csv(&mut random, true);
    let plain = random_csv(&mut random, false);
    let json = random_json(&mut random);
    let case = Case::new(&[
        ("q.csv", csv.as_bytes()),
        ("p.csv", plain.as_bytes()),
        ("j.json", json.as_bytes()),
    ]);
    for name in ["q.csv", "p.csv", "j.json"] {
        let tuning = Tuning { split_bytes: 700, block_bytes: 300 };
        let source = case.open_tuned(name, &[], ab(), tuning).await.unwrap();
        let scan = ScanRequest { batch_rows_max: 3, ..all(&source) };
        for split in &source.discover().await.unwrap()[0].splits {
            let mut rest: Vec<(u64, Vec<RecordBatch>)> = vec![];
            let mut reader = source.open(split, &scan).await.unwrap();
            while let Some(batch) = reader.next().await.unwrap() {
                rest.iter_mut().for_each(|(_, rows)| rows.push(batch.rows.clone()));
                rest.push((batch.offsets.end(), vec![]));
            }
            for (from, expected) in rest {
                let scan = ScanRequest { from: Some(from), ..scan.clone() };
                let mut reader = source.open(split, &scan).await.unwrap();
                let (mut got, mut at) = (vec![], from);
                while let Some(batch) = reader.next().await.unwrap() {
                    assert_eq!(batch.offsets.start(), at, "{name}");
                    at = batch.offsets.end();
                    got.push(batch.rows);
                }
                let all = |rows: &[RecordBatch]| {
                    arrow::compute::concat_batches(&source.schema(), rows).unwrap()
                };
                assert_eq!(all(&got), all(&expected), "{name} from {from}");
            }
        }
    }
    let source = case.open("j.json", &[], ab()).await.unwrap();
    let split = &source.discover().await.unwrap()[0].splits[0];
    let scan = ScanRequest { from: Some(1 << 40), ..all(&source) };
    let error = source.open(split, &scan).await.err().unwrap();
    assert!(error.message().contains("were read before the restart"), "{error}");
}

pub(super) async fn soon<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        value = future => Some(value),
        () = async { for _ in 0..200 { tokio::task::yield_now().await; } } => None,
    }
}

fn append(path: &str, bytes: &[u8]) {
    std::fs::OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

#[tokio::test]
async fn follow_reads_what_is_appended_and_new_files() {
    let case = Case::new(&[("a.json", b"{\"a\":1}\n{\"a\":")]);
    let clock = ManualClock::at(0);
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    let env = ConnectorEnv { clock: shared, ..env() };
    let options = pairs(&[("path", &case.path("*.json")), ("follow", "true")]);
    let source = FileSource::open(&options, ab(), &env, Tuning::default()).await.unwrap();
    assert!(!source.is_bounded());
    assert_eq!(source.rediscover_after(), Some(Duration::from_millis(200)));
    let first = source.discover().await.unwrap();
    let mut reader = source.open(&first[0].splits[0], &all(&source)).await.unwrap();
    let batch = reader.next().await.unwrap().unwrap();
    assert_eq!((batch.rows.num_rows(), batch.offsets.end()), (1, 8));
    assert!(soon(reader.next()).await.is_none(), "half a line is no row");
    let scan = ScanRequest { until_now: true, ..all(&source) };
    assert_eq!(read(&source, &scan).await.unwrap().count(), 1, "what is there now, and an end");

    let batch = {
        let mut next = std::pin::pin!(reader.next());
        assert!(soon(&mut next).await.is_none());
        append(&case.path("a.json"), b"2}\n");
        assert!(soon(&mut next).await.is_none(), "not before it looks again");
        clock.advance(Duration::from_millis(200));
        soon(&mut next).await.unwrap().unwrap().unwrap()
    };
    assert_eq!((batch.offsets.start(), batch.offsets.end()), (8, 16));
    assert_eq!(batch.rows.column(0).as_primitive::<Int64Type>().value(0), 2);

    std::fs::write(case.path("a.json"), b"{\"a\":9}\n").unwrap();
    clock.advance(Duration::from_millis(200));
    let batch = soon(reader.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((batch.offsets.start(), batch.offsets.end()), (16, 24), "offsets go on");

    std::fs::write(case.path("0.json"), b"{\"a\":5}\n").unwrap();
    let second = source.discover().await.unwrap();
    let ids: Vec<u32> = second.iter().map(|p| p.id.0).collect();
    assert_eq!(ids, [1, 0], "the new one comes first by name, and the old one keeps its number");
}

#[tokio::test]
async fn an_unreadable_file_is_told() {
    use std::os::unix::fs::PermissionsExt;
    let case = Case::new(&[("x.json", b"{\"a\":1}\n")]);
    let path = case.path("x.json");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::File::open(Path::new(&path)).is_ok() {
        // Root may read everything, and so cannot see this error.
        return;
    }
    let e = case.open("x.json", &[], Declared::default()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable);
}

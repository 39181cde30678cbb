//! Damaged and missing files are reported and never overwritten, and affect nothing else.

use std::path::{Path, PathBuf};

use libtest_mimic::Failed;

use super::{STREAM, VIEW, equal, rows, until, untouched};
use crate::program::{Home, failed, for_ever};

/// Turns one byte of a file of the data directory into another.
fn flip(home: &Home, path: &Path, at: impl Fn(usize) -> usize) -> Result<(), Failed> {
    let mut bytes = home.read(path)?;
    let at = at(bytes.len());
    let byte = bytes.get_mut(at).ok_or("the file is too short")?;
    *byte ^= 0x55;
    home.write(path, bytes)
}

/// Expects `sql` to fail because of the file at `path` in the data directory, and nothing below `below` to be changed.
fn told(home: &Home, sql: &str, path: &Path, below: &Path) -> Result<(), Failed> {
    let before = home.contents()?;
    // In a bucket a log is a directory of its parts.
    let file = path.parent().filter(|p| p.extension().is_some_and(|e| e == "wal")).unwrap_or(path);
    let name = file.file_name().ok_or("no name")?.to_string_lossy().into_owned();
    let what = |e: Failed| -> Failed {
        format!("{} is damaged: {}", path.display(), e.message().unwrap_or_default()).into()
    };
    home.run(sql)?.refused(3, &[&name]).map_err(what)?;
    untouched(home, &before, below)
}

pub(super) fn damaged_catalog() -> Result<(), Failed> {
    let whole = Home::new()?;
    whole.ok(&format!("{STREAM}CREATE MATERIALIZED VIEW v AS {VIEW};\n{}", rows(0..25)))?;
    let catalog = Path::new("catalog.json");
    for part in [2, 3, 5] {
        let home = whole.copy()?;
        flip(&home, catalog, |len| len / part)?;
        told(&home, "SELECT count(*) FROM s", catalog, Path::new(""))?;
    }
    for bytes in [&b""[..], b"{", b"{}", b"\xff\xfe\x00"] {
        let home = whole.copy()?;
        home.write(catalog, bytes.to_vec())?;
        told(&home, "SELECT count(*) FROM s", catalog, Path::new(""))?;
    }
    // Gone: an empty catalog would be a lie.
    let home = whole.copy()?;
    home.remove(catalog)?;
    told(&home, "SELECT 1", catalog, Path::new(""))
}

/// Two streams, `s` and `r`, with a view each: `v_s` and `v_r`. Enough rows that data is most of a file.
fn two_streams() -> (String, String) {
    let mut create = String::new();
    let mut rows = String::new();
    // Numbers without pattern, so that they take space.
    let mut x: u64 = 1;
    for name in ["s", "r"] {
        create.push_str(&format!(
            "CREATE STREAM {name} (id BIGINT, k INT, ts TIMESTAMP, WATERMARK FOR ts);\n\
             CREATE MATERIALIZED VIEW v_{name} AS SELECT window_end, k, max(id) AS top FROM TUMBLE({name}, ts, \
             INTERVAL '10 seconds') GROUP BY window_start, window_end, k;\n"
        ));
        for second in (0..60).step_by(2) {
            let values: Vec<String> = (0..100)
                .map(|k| {
                    x = x
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    format!("({}, {k}, TIMESTAMP '2026-01-01 00:00:{second:02}')", x >> 1)
                })
                .collect();
            rows.push_str(&format!("INSERT INTO {name} VALUES {};\n", values.join(", ")));
        }
    }
    (create, rows + "WAIT FOR v_s; WAIT FOR v_r;\n")
}

/// The files below `directory` of the data directory with this extension, in order of name.
pub(super) fn with_extension(
    home: &Home,
    directory: &Path,
    extension: &str,
) -> Result<Vec<PathBuf>, Failed> {
    let below = directory.strip_prefix(home.data())?;
    let files = home.contents()?.into_keys();
    let found: Vec<PathBuf> = files
        .filter(|path| {
            let file = path.parent().filter(|p| p.extension().is_some_and(|e| e == "wal"));
            path.starts_with(below)
                && file.unwrap_or(path).extension().is_some_and(|e| e == extension)
        })
        .collect();
    if found.is_empty() {
        return Err(format!("no .{extension} in {}", below.display()).into());
    }
    Ok(found)
}

pub(super) fn damaged_archive() -> Result<(), Failed> {
    let whole = Home::new()?;
    let (create, rows) = two_streams();
    let queries = ["SELECT * FROM v_r", "SELECT * FROM r"];
    whole.ok(&(create + &rows))?;
    let good = whole.tables("", &queries)?;
    equal("rows", &(good[0].len(), good[1].len()), &(500, 3_000))?;
    let view = whole.directory_of("views", "v_s")?;
    let below = view.strip_prefix(whole.data())?;
    let files = with_extension(&whole, &view, "parquet")?;
    // (Checkpoints of the Delta log are Parquet too.)
    let data =
        files.iter().find(|p| !p.to_string_lossy().contains("_delta_log")).ok_or("no data")?;
    let log = with_extension(&whole, &view.join("_delta_log"), "json")?;
    let log = log.last().ok_or("no log")?;
    type Harm<'a> = &'a dyn Fn(&Home, &Path) -> Result<(), Failed>;
    let harms: [(&Path, Harm<'_>); 6] = [
        (data, &|home, path| flip(home, path, |len| len / 3)),
        (data, &|home, path| flip(home, path, |len| len - 6)),
        (data, &|home, path| home.write(path, vec![])),
        (data, &|home, path| {
            let bytes = home.read(path)?;
            home.write(path, bytes.get(..bytes.len() / 2).unwrap_or_default().to_vec())
        }),
        (data, &|home, path| home.remove(path)),
        (log, &|home, path| flip(home, path, |_| 0)),
    ];
    for (path, harm) in harms {
        let home = whole.copy()?;
        harm(&home, path)?;
        told(&home, "SELECT sum(top), max(k), max(window_end) FROM v_s", path, below)?;
        // The others answer.
        let before = home.contents()?;
        equal("the other view", &home.tables("", &queries)?, &good)?;
        untouched(&home, &before, below)?;
    }
    Ok(())
}

/// Runs statements up to the last INSERT (`inserts` of them) and kills: nothing is spilled at the end.
fn run_and_kill(home: &Home, sql: &str, inserts: usize, view: &str) -> Result<(), Failed> {
    let mut running = home.start(&(sql.to_owned() + &for_ever(view)))?;
    if !running.until(inserts, "INSERT 0 ")? {
        return Err(failed(&running.finish()?, "it ends before its time"));
    }
    running.kill()?;
    Ok(())
}

pub(super) fn damaged_log() -> Result<(), Failed> {
    let whole = Home::new()?;
    let (create, rows) = two_streams();
    run_and_kill(&whole, &(create + &rows), 60, "v_s")?;
    let stream = whole.directory_of("streams", "s")?;
    let below = stream.strip_prefix(whole.data())?;
    let segments = with_extension(&whole, &stream, "wal")?;
    let segment = segments.first().ok_or("no segment")?;
    // In the schema, in the rows, in the rows further on.
    let places: [&dyn Fn(usize) -> usize; 3] = [&|_| 20, &|len| len / 3, &|len| len / 2];
    for place in places {
        let home = whole.copy()?;
        flip(&home, segment, place)?;
        told(&home, "SELECT sum(id), max(ts) FROM s", segment, below)?;
        let before = home.contents()?;
        let found = home.tables("WAIT FOR v_r;", &["SELECT * FROM r", "SELECT * FROM v_r"])?;
        equal("the other stream", &(found[0].len(), found[1].len()), &(3_000, 500))?;
        // Neither is a row accepted that could not be read behind the damage.
        let said = home.run("INSERT INTO s VALUES (1, 1, TIMESTAMP '2026-01-01 01:00:00')")?;
        said.check(!said.status.success(), "a row is accepted behind the damage")?;
        untouched(&home, &before, below)?;
    }
    Ok(())
}

/// Each file in turn, each kind of damage: what still answers answers as before, all else is an error without a bug.
pub(super) fn damaged_anything() -> Result<(), Failed> {
    let mut whole = Home::new()?;
    let queries = ["SELECT * FROM s", "SELECT * FROM v", "SELECT * FROM t", "SELECT * FROM other"];
    let create = format!(
        "{STREAM}CREATE MATERIALIZED VIEW v AS {VIEW};\nCREATE TABLE t AS SELECT 'a text' AS a, 12345 AS n;\n\
         CREATE STREAM other (x INT);\nINSERT INTO other VALUES (1);\n"
    );
    whole.flags = vec!["--tail-rows".into(), "4".into()];
    whole.ok(&(create + &rows(0..45) + "WAIT FOR v;"))?;
    whole.flags.clear();
    whole.ok(&rows(45..47))?;
    let good = whole.tables("", &queries)?;
    equal("rows", &[good[0].len(), good[2].len(), good[3].len()], &[47, 1, 1])?;
    let kinds = [
        "FORMAT",
        "catalog.json",
        "tables/t.arrow",
        "streams/s/EXTENT",
        "streams/s/log",
        "streams/s/_delta_log",
        "streams/s/part",
        "views/v/_delta_log",
        "views/v/part",
        "checkpoints/v",
    ];
    let contents = whole.contents()?;
    for kind in kinds {
        let files: Vec<&PathBuf> =
            contents.keys().filter(|path| path.to_string_lossy().starts_with(kind)).collect();
        // The first and the last of each kind.
        let mut some = vec![files.first(), files.last()];
        some.dedup();
        for path in some {
            let path = *path.ok_or_else(|| format!("no {kind}"))?;
            let len = contents.get(path).map_or(0, Vec::len);
            for harm in 0..4 {
                let home = whole.copy()?;
                match harm {
                    0 => home.remove(path)?,
                    _ if len < 8 => continue,
                    part => flip(&home, path, |len| len * part / 5)?,
                }
                let what = format!("{} (harm {harm})", path.display());
                still_right(&home, path, &queries, &good)
                    .map_err(|e| format!("{what}: {}", e.message().unwrap_or_default()))?;
            }
        }
    }
    Ok(())
}

/// Expects the results of the queries to be `good`, or errors that leave the file at `path` alone.
fn still_right(
    home: &Home,
    path: &Path,
    queries: &[&str],
    good: &[Vec<String>],
) -> Result<(), Failed> {
    let before = home.contents()?;
    // Windows whose commit is gone are worked out again, which takes a moment.
    if let Ok(found) = home.tables("WAIT FOR v;", queries) {
        return equal("all", found.as_slice(), good);
    }
    for (query, good) in queries.iter().zip(good) {
        let wait = if query.ends_with(" v") { "WAIT FOR v;" } else { "" };
        let said = home.run(&format!("{wait}{query}"))?;
        said.no_bug()?;
        if said.status.success() {
            let mut lines: Vec<&str> = said.out.lines().skip(1).collect();
            lines.sort_unstable();
            equal(query, &lines, &good.iter().map(String::as_str).collect())?;
        } else {
            said.check(matches!(said.status.code(), Some(2 | 3)), query)?;
            untouched(home, &before, path)?;
        }
    }
    Ok(())
}

pub(super) fn torn() -> Result<(), Failed> {
    let mut whole = Home::new()?;
    // No checkpoint has read the last row.
    whole.flags = vec!["--checkpoint-interval".into(), "3600".into()];
    let create = format!("{STREAM}CREATE MATERIALIZED VIEW v AS {VIEW};\n");
    run_and_kill(&whole, &(create + &rows(0..20)), 20, "v")?;
    // The last INSERT closes no window.
    let last = "INSERT INTO s VALUES (20, 0, TIMESTAMP '2026-01-01 00:00:20'), (21, 0, TIMESTAMP '2026-01-01 00:00:21');\n";
    run_and_kill(&whole, last, 1, "v")?;
    let stream = whole.directory_of("streams", "s")?;
    let segments = with_extension(&whole, &stream, "wal")?;
    let segment = segments.last().ok_or("no segment")?;
    // Nor is it noted, which it may be when the program took long.
    let note = Path::new("streams/s/EXTENT");
    if whole.contents()?.contains_key(note) {
        whole.remove(note)?;
    }
    let bytes = std::fs::read(whole.data().join(segment))?;
    for cut in [1, 7, 20, 100] {
        let home = whole.copy()?;
        let kept = bytes.get(..bytes.len().saturating_sub(cut)).unwrap_or_default();
        std::fs::write(home.data().join(segment), kept)?;
        let ids = ["SELECT id FROM s ORDER BY id"];
        let expected = |ids: std::ops::Range<u32>| {
            let mut texts: Vec<String> = ids.map(|id| id.to_string()).collect();
            texts.sort_unstable();
            texts
        };
        let what = format!("{cut} bytes of the end are gone");
        if cut % 2 == 0 {
            equal(&what, &home.tables("", &ids)?[0], &expected(0..20))?;
        }
        // What comes after it is not lost.
        run_and_kill(&home, &rows(20..24), 4, "v")?;
        equal(&what, &home.tables("", &ids)?[0], &expected(0..24))?;
        let views = home.tables("WAIT FOR v;", &["SELECT * FROM v", &until(VIEW, 20)])?;
        equal(&what, &views[0], &views[1])?;
        equal("windows", &views[0].len(), &4)?;
    }
    Ok(())
}

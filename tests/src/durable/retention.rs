//! Rows dropped by age, and what is recomputed: rebuilt views, replays.

use libtest_mimic::Failed;

use super::{STREAM, VIEW, equal, rows};
use crate::program::{Home, failed, for_ever};

pub(super) fn retention() -> Result<(), Failed> {
    let mut home = Home::new()?;
    home.flags = vec!["--tail-rows".into(), "10".into()];
    let create = STREAM.replace(");\n", ") WITH (retention = '30 seconds');\n")
        + &format!("CREATE MATERIALIZED VIEW v AS {VIEW};\n");
    let idle = "WAIT FOR v UNTIL TIMESTAMP '2200-01-01 00:00:00' TIMEOUT INTERVAL '3 seconds';";
    let truth = Home::new()?.tables(
        &(create.replace(" WITH (retention = '30 seconds')", "") + &rows(0..260) + "WAIT FOR v;"),
        &["SELECT * FROM v"],
    )?;
    let queries = [
        "SELECT * FROM v",
        "SELECT min(id), max(id), count(*) FROM s",
        "SELECT dropped_rows FROM windrow.streams",
    ];
    home.tables(&(create + &rows(0..40) + "WAIT FOR v;"), &queries)?;
    // A checkpoint at each end: what those that are kept need stays.
    for part in 1..5 {
        home.tables(&(rows(part * 40..part * 40 + 40) + "WAIT FOR v;"), &queries)?;
    }
    // Views are archived at the end at the latest; then their rows may go.
    home.run(idle)?.refused(4, &["timed out after"])?;
    let numbers = |table: &[String]| -> Result<Vec<u32>, Failed> {
        let line = table.first().ok_or("no row")?;
        Ok(line.split(',').map(str::parse).collect::<Result<_, _>>()?)
    };
    let found = home.tables("", &queries)?;
    let [first, last, count] = numbers(&found[1])?[..] else { return Err("three numbers".into()) };
    equal("the newest row, and rows", &(last, count), &(199, 200 - first))?;
    equal("dropped rows", &numbers(&found[2])?, &vec![first])?;
    if !(100..=169).contains(&first) {
        return Err(format!("the first row is {first}: rows from 169 on are kept").into());
    }
    let said = home.tables("", &["SELECT 1", "VERIFY VIEW v"])?;
    let [summary, note] = &said[1][..] else { return Err(format!("{said:?}").into()) };
    if !summary.contains("equal: ") || !note.contains("retention has dropped old rows") {
        return Err(format!("{said:?}").into());
    }
    // By force, in the midst of a window that has rows of before.
    let mut running = home.start(&(rows(200..237) + &for_ever("v")))?;
    if !running.until(37, "INSERT 0 1")? {
        return Err(failed(&running.finish()?, "it ends before its time"));
    }
    running.kill()?;
    let found = home.tables(&(rows(237..260) + "WAIT FOR v;"), &queries)?;
    equal("windows", &found[0], &truth[0])?;
    let [now, ..] = numbers(&found[1])?[..] else { return Err("three numbers".into()) };
    if now < first {
        return Err(format!("row {now} has come back, {first} was the first").into());
    }
    equal("after another start", &home.tables("", &queries)?[0], &truth[0])
}

/// Little data: the archive takes none of it by itself.
pub(super) fn little() -> Result<(), Failed> {
    let home = Home::new()?;
    let create = STREAM.replace(");\n", ") WITH (retention = '30 seconds');\n")
        + &format!("CREATE MATERIALIZED VIEW v AS {VIEW};\n");
    let idle = "WAIT FOR v UNTIL TIMESTAMP '2200-01-01 00:00:00' TIMEOUT INTERVAL '3 seconds';";
    let queries = ["SELECT min(id), max(id), count(*) FROM s", "SELECT count(*) FROM v"];
    home.tables(&(create + &rows(0..40) + "WAIT FOR v;"), &queries)?;
    // A checkpoint at each end: what those that are kept need stays.
    for part in 1..5 {
        home.tables(&(rows(part * 40..part * 40 + 40) + "WAIT FOR v;"), &queries)?;
    }
    home.run(idle)?.refused(4, &["timed out after"])?;
    let kept = home.tables("", &queries)?;
    let numbers = kept[0].first().ok_or("no row")?.split(',').map(str::parse);
    let numbers: Vec<u32> = numbers.collect::<Result<_, _>>()?;
    let [first, 199, count] = numbers[..] else { return Err(format!("{kept:?}").into()) };
    if (100..=169).contains(&first) && count == 200 - first {
        return equal("after another start", &home.tables("", &queries)?, &kept);
    }
    Err(format!("{kept:?}: rows from 169 on are kept").into())
}

pub(super) fn open_windows() -> Result<(), Failed> {
    let mut home = Home::new()?;
    home.flags = vec!["--tail-rows".into(), "10".into()];
    let create = STREAM.replace(");\n", ") WITH (retention = '30 seconds');\n")
        + "CREATE MATERIALIZED VIEW passing AS SELECT id, ts FROM s;\n\
           CREATE MATERIALIZED VIEW v AS SELECT window_start, count(*) AS n, min(id) AS first FROM TUMBLE(passing, ts, \
           INTERVAL '100 seconds') GROUP BY window_start, window_end;\n";
    home.tables(&(create + &rows(0..190) + "WAIT FOR v;"), &["SELECT * FROM v"])?;
    let idle = "WAIT FOR v UNTIL TIMESTAMP '2200-01-01 00:00:00' TIMEOUT INTERVAL '3 seconds';";
    home.run(idle)?.refused(4, &["timed out after"])?;
    // `passing` has an archive of its own, so the stream keeps for it what its checkpoints need.
    let found = home.tables(
        &(rows(190..210) + "WAIT FOR v;"),
        &["SELECT * FROM v", "SELECT min(id) FROM s", "SELECT count(*) FROM passing"],
    )?;
    equal(
        "windows",
        &found[0],
        &vec!["2026-01-01T00:00:00,100,0".to_owned(), "2026-01-01T00:01:40,100,100".to_owned()],
    )?;
    let first: u32 = found[1].first().ok_or("no row")?.parse()?;
    equal("rows that passed", &found[2], &vec!["210".to_owned()])?;
    if (1..=179).contains(&first) {
        Ok(())
    } else {
        Err(format!("the first row is {first}").into())
    }
}

pub(super) fn rebuild() -> Result<(), Failed> {
    let mut home = Home::new()?;
    home.traced = true;
    let view = format!("CREATE MATERIALIZED VIEW v AS {VIEW};\n");
    let queries = ["SELECT * FROM v", "SHOW CREATE v"];
    let first =
        home.tables(&(STREAM.to_owned() + &view + &rows(0..25) + "WAIT FOR v;"), &queries)?;
    let folders = || -> Result<Vec<String>, Failed> {
        let entries = std::fs::read_dir(home.data().join("views"))?;
        let mut names = vec![];
        for entry in entries {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    };
    equal("folders", &folders()?, &vec!["v".to_owned()])?;
    // The new one waits for a row that comes in seconds of real time, and never has its turn.
    let replace = |from: &str| {
        let query =
            VIEW.replace("TUMBLE(s,", &format!("TUMBLE({from},")).replace("count(*)", "max(id)");
        format!("CREATE OR REPLACE MATERIALIZED VIEW v AS {query};\n")
    };
    let slow = "CREATE STREAM slow WITH (connector = 'replay', of = 's', speed = '0.001x');\n";
    let mut running = home.start(&(slow.to_owned() + &replace("slow")))?;
    if !running.until(1, "CREATE STREAM")? {
        return Err(failed(&running.finish()?, "it ends before its time"));
    }
    // Nothing tells how far it is, and wherever it is must do.
    std::thread::sleep(std::time::Duration::from_millis(500));
    running.kill()?;
    equal("after a crash in the middle", &home.tables("", &queries)?, &first)?;
    equal("folders", &folders()?, &vec!["v".to_owned()])?;
    // It succeeds, and stays so.
    let second = home.tables(&replace("s"), &queries)?;
    equal("windows", &second[0].len(), &first[0].len())?;
    if second[0] == first[0] || !second[1][0].contains("max(id)") {
        return Err(format!("{second:?} is the old one").into());
    }
    equal("after a restart", &home.tables("", &queries)?, &second)?;
    let folders = folders()?;
    if folders.len() != 1 || folders[0] == "v" {
        return Err(format!("{folders:?}: the folder of the new one alone is there").into());
    }
    let found =
        home.tables(&(rows(25..53) + "WAIT FOR v;"), &["SELECT count(*) FROM v", "VERIFY VIEW v"])?;
    equal("windows", &found[0], &vec!["10".to_owned()])?;
    if found[1].len() == 1 && found[1][0].contains("equal: 5 windows, 10 rows") {
        return Ok(());
    }
    Err(format!("{found:?}").into())
}

pub(super) fn replay() -> Result<(), Failed> {
    let home = Home::new()?;
    let create =
        format!("{STREAM}CREATE STREAM r WITH (connector = 'replay', of = 's');\n{}", rows(0..25));
    let view = VIEW.replace("TUMBLE(s,", "TUMBLE(r,");
    let queries = ["SELECT * FROM v", "SELECT * FROM r", "SHOW CREATE r"];
    let view = format!("CREATE MATERIALIZED VIEW v AS {view};\nWAIT FOR v;\n");
    let first = home.tables(&(create + &view), &queries)?;
    equal("rows", &(first[0].len(), first[1].len()), &(6, 25))?;
    equal("after a restart", &home.tables("WAIT FOR v;", &queries)?, &first)?;
    home.run("DROP STREAM s;")?.refused(2, &["\"s\" is read by \"r\""])?;
    // The replay takes what is there when it begins, so it is done before more comes.
    let second = home.tables(&format!("WAIT FOR v;\n{}", rows(25..35)), &queries)?;
    equal("a replay has ended", &second[0], &first[0])?;
    equal("rows", &second[1].len(), &35)?;
    // Another start replays what is there then.
    equal("windows", &home.tables("WAIT FOR v;", &queries)?[0].len(), &8)
}

/// A stream over all JSON files of a directory, whose rows are kept.
fn kept(directory: &std::path::Path) -> String {
    format!(
        "CREATE STREAM h (id INT, ts TIMESTAMP, WATERMARK FOR ts) WITH (connector = 'file', format = 'json', \
         path = '{}/*.json', follow = 'true', poll_interval = '5 milliseconds', retention = '1 hour');\n",
        directory.display()
    )
}

/// Lines with these numbers, one a second.
fn lines(ids: std::ops::Range<u32>) -> String {
    let line = |id: u32| {
        let at = format!("2026-01-01T{:02}:{:02}:{:02}", id / 3600, id / 60 % 60, id % 60);
        format!("{{\"id\":{id},\"ts\":\"{at}\"}}\n")
    };
    ids.map(line).collect()
}

pub(super) fn outlives() -> Result<(), Failed> {
    let mut home = Home::new()?;
    let directory = home.beside("incoming");
    std::fs::create_dir(&directory)?;
    std::fs::write(directory.join("a.json"), lines(0..100))?;
    std::fs::write(
        directory.join("b.json"),
        "{\"id\":1000,\"ts\":\"2026-01-01T00:00:00\"}\nno row\n",
    )?;
    let count = ["SELECT count(*), count(DISTINCT id), min(id) FROM h"];
    let found = home.tables(&kept(&directory), &count)?;
    equal("rows", &found[0], &vec!["101,101,0".to_owned()])?;
    // One file grows, the other is taken away.
    std::fs::write(directory.join("a.json"), lines(0..150))?;
    std::fs::remove_file(directory.join("b.json"))?;
    let found = home.tables("", &count)?;
    equal("rows after a restart", &found[0], &vec!["151,151,0".to_owned()])?;
    // A replay reads it; a stream without history cannot be replayed.
    let replay = "CREATE STREAM again WITH (connector = 'replay', of = 'h');\n";
    let windows = "SELECT count(*) FROM TUMBLE(again, ts, INTERVAL '50 seconds') GROUP BY window_start, window_end EMIT FINAL";
    let found = home.tables(replay, &[windows])?;
    equal("replayed", &found[0], &vec!["50".to_owned(), "50".to_owned(), "51".to_owned()])?;
    // An hour is kept: what is older goes, in whole files.
    std::fs::write(directory.join("c.json"), lines(7_200..7_201))?;
    home.flags = vec!["--tail-rows".into(), "1".into()];
    // Long enough for it: a view that waits.
    let idle = "CREATE MATERIALIZED VIEW w AS SELECT window_end, count(*) AS n FROM TUMBLE(h, ts, INTERVAL '1 hour') \
                GROUP BY window_start, window_end;\n\
                WAIT FOR w UNTIL TIMESTAMP '2200-01-01 00:00:00' TIMEOUT INTERVAL '4 seconds';";
    home.run(idle)?.refused(4, &["timed out after"])?;
    let queries =
        ["SELECT count(*) FROM h", "SELECT dropped_rows FROM windrow.streams WHERE name = 'h'"];
    let found = home.tables("", &queries)?;
    equal("dropped", &found[1], &vec!["151".to_owned()])?;
    equal("kept", &found[0], &vec!["1".to_owned()])
}

pub(super) fn killed() -> Result<(), Failed> {
    let mut home = Home::new()?;
    let directory = home.beside("incoming");
    std::fs::create_dir(&directory)?;
    home.flags = vec!["--tail-rows".into(), "50".into()];
    home.ok(&kept(&directory))?;
    let mut written = [0, 2_000];
    for life in 0..8_u32 {
        let mut running = home.start(&"SELECT count(*) FROM h;\n".repeat(10_000))?;
        for (file, next) in written.iter_mut().enumerate() {
            let more = 40 + 13 * life;
            let mut text =
                std::fs::read_to_string(directory.join(format!("{file}.json"))).unwrap_or_default();
            text.push_str(&lines(*next..*next + more));
            std::fs::write(directory.join(format!("{file}.json")), text)?;
            *next += more;
        }
        if !running.until(1 + life as usize, "1 row in")? {
            return Err(failed(&running.finish()?, "it ends before its time"));
        }
        running.kill()?;
    }
    let all = written[0] + written[1] - 2_000;
    let found = home.tables("", &["SELECT count(*), count(DISTINCT id) FROM h"])?;
    equal("rows", &found[0], &vec![format!("{all},{all}")])
}

//! ALTER STREAM and TRUNCATE: what they have done is done after any end of the process, as a whole.

use libtest_mimic::Failed;

use super::{STREAM, VIEW, equal, rows};
use crate::program::{Home, failed, for_ever, rounds};

/// The first row of `s`, and how many rows it has.
const EXTENT: &str = "SELECT coalesce(min(id), -1), count(*) FROM s";

fn create() -> String {
    STREAM.to_owned() + &format!("CREATE MATERIALIZED VIEW v AS {VIEW};\n")
}

pub(super) fn truncated() -> Result<(), Failed> {
    let mut home = Home::new()?;
    home.flags = vec!["--tail-rows".into(), "10".into()];
    let truth =
        Home::new()?.tables(&(create() + &rows(0..120) + "WAIT FOR v;"), &["SELECT * FROM v"])?;
    let queries = ["SELECT * FROM v", EXTENT];
    home.tables(&(create() + &rows(0..45) + "WAIT FOR v;"), &queries)?;
    // By force, once it was acknowledged.
    let mut running = home.start(&("TRUNCATE s;\n".to_owned() + &for_ever("v")))?;
    if !running.until(1, "TRUNCATE (45 rows)")? {
        return Err(failed(&running.finish()?, "it ends before its time"));
    }
    running.kill()?;
    equal("rows after a kill", &home.tables("", &queries)?[1], &vec!["-1,0".to_owned()])?;
    let found = home.tables(&(rows(45..80) + "WAIT FOR v;"), &queries)?;
    equal("rows that came after", &found[1], &vec!["45,35".to_owned()])?;
    let found = home.tables("TRUNCATE TABLE s;", &queries)?;
    equal("rows after the second time", &found[1], &vec!["-1,0".to_owned()])?;
    let found = home.tables(&(rows(80..120) + "WAIT FOR v;"), &queries)?;
    equal("windows", &found[0], &truth[0])?;
    equal("the last rows", &found[1], &vec!["80,40".to_owned()])?;
    let found = home.tables(
        "CREATE TABLE users (id INT);\nINSERT INTO users VALUES (1), (2);\nTRUNCATE TABLE users;",
        &["SELECT count(*) FROM users"],
    )?;
    equal("a table", &found[0], &vec!["0".to_owned()])?;
    let found = home.tables("", &["SELECT count(*) FROM users"])?;
    equal("a table after a restart", &found[0], &vec!["0".to_owned()])
}

pub(super) fn killed() -> Result<(), Failed> {
    let mut home = Home::new()?;
    home.traced = true;
    home.flags = vec!["--tail-rows".into(), "10".into()];
    home.ok(&create())?;
    // The rows that there are: from `first` to before `next`.
    let (mut first, mut next) = (0, 0);
    for round in 0..rounds(8) {
        let cut = next + 6;
        let sql = rows(next..cut) + "TRUNCATE s;\n" + &rows(cut..cut + 6) + &for_ever("v");
        let mut running = home.start(&sql)?;
        if !running.until(6, "INSERT 0 1")? {
            return Err(failed(&running.finish()?, "it ends before its time"));
        }
        running.steps_more(round * 7 % 12)?;
        running.kill()?.no_bug()?;
        let found = home.tables("", &[EXTENT])?;
        let found = found[0].first().ok_or("no row")?.split(',').map(str::parse);
        let [min, count] = found.collect::<Result<Vec<i64>, _>>()?[..] else {
            return Err("two numbers".into());
        };
        let last = min + count;
        first = match min {
            // The TRUNCATE was the last that happened.
            -1 if count == 0 => cut,
            min if min == i64::from(first) && last == i64::from(cut) => first,
            min if min == i64::from(cut) => cut,
            _ => return Err(format!("{count} rows from {min} on, of {first}..{cut}").into()),
        };
        next = cut.max(u32::try_from(last).unwrap_or(cut));
    }
    let found = home.tables(&(rows(next..next + 10) + "WAIT FOR v;"), &["VERIFY VIEW v"])?;
    match found[0].iter().any(|line| line.contains("equal: ")) {
        true => Ok(()),
        false => Err(format!("{found:?}").into()),
    }
}

pub(super) fn altered() -> Result<(), Failed> {
    let home = Home::new()?;
    home.ok(&(create()
        + "ALTER STREAM s ADD CONSTRAINT known CHECK (k < 100); -- first\n\
           ALTER STREAM s ADD CHECK (id >= 0);\n\
           ALTER STREAM s DROP CONSTRAINT s_id_check;\n\
           ALTER STREAM s SET (retention = '30 seconds');\n\
           CREATE FUNCTION is_old(n INT) RETURNS BOOLEAN AS 'n < 0';\n\
           ALTER STREAM s ADD CONSTRAINT recent CHECK (NOT is_old(id));\n"))?;
    let bad = "INSERT INTO s VALUES (1, 100, TIMESTAMP '2026-01-01 00:00:00');\n";
    home.run(bad)?.refused(3, &["violates check \"known\""])?;
    // Old rows may be gone already.
    let found = home.tables(&rows(0..100), &["SELECT max(id) FROM s"])?;
    equal("rows", &found[0], &vec!["99".to_owned()])?;
    let idle = "WAIT FOR v UNTIL TIMESTAMP '2200-01-01 00:00:00' TIMEOUT INTERVAL '3 seconds';";
    home.run(idle)?.refused(4, &["timed out after"])?;
    let found = home.tables("", &["SELECT count(*) < 100 FROM s", "SHOW CREATE s"])?;
    equal("retention", &found[0], &vec!["true".to_owned()])?;
    let shown = found[1].join("\n");
    if !shown.contains("CREATE STREAM s") || !shown.contains("SET (retention = '30 seconds')") {
        return Err(shown.into());
    }
    home.ok("ALTER STREAM s DROP CONSTRAINT known;\nALTER STREAM s RESET (retention);")?;
    home.ok(bad)?;
    home.ok("DROP STREAM s CASCADE;")?;
    Ok(())
}

/// Objects that read `s` with all its columns.
const READERS: &str = "CREATE MATERIALIZED VIEW copied AS SELECT * FROM s;\n\
                       CREATE VIEW everything AS SELECT * FROM s;\n\
                       CREATE STREAM again WITH (connector = 'replay', of = 's');\n";

pub(super) fn widened() -> Result<(), Failed> {
    let mut home = Home::new()?;
    home.flags = vec!["--tail-rows".into(), "10".into()];
    let added = "ALTER STREAM s ADD COLUMN note VARCHAR;\n\
                 CREATE VIEW noted AS SELECT * FROM s;\n\
                 ALTER STREAM s ADD COLUMN c INT NOT NULL DEFAULT 3 + 4;\n\
                 ALTER STREAM s ADD CONSTRAINT small CHECK (c < 100);\n";
    let later = "INSERT INTO s VALUES (45, 1, TIMESTAMP '2026-01-01 00:00:45', 'gift', 1);\n\
                 CREATE MATERIALIZED VIEW later AS SELECT id, note, c FROM s;\n";
    let queries = [
        "SELECT count(*), count(note), sum(c), count(*) FILTER (WHERE c = 7) FROM s",
        "SELECT id, k, note, c FROM s WHERE id IN (3, 44, 45, 46) ORDER BY id",
        "SELECT * FROM everything WHERE id > 43 ORDER BY id",
        "SELECT * FROM noted WHERE id > 44 ORDER BY id",
        "SELECT * FROM again WHERE id > 44 ORDER BY id",
        "SELECT * FROM copied WHERE id > 44 ORDER BY id",
        "SELECT * FROM later WHERE id > 44 ORDER BY id",
        "SELECT * FROM v ORDER BY window_start, k",
    ];
    let sql = create() + READERS + &rows(0..45) + "WAIT FOR v;\n" + added + later;
    let waits = "WAIT FOR v;\nWAIT FOR copied;\nWAIT FOR later;\n";
    let now = home.tables(&(sql + &rows(46..60) + waits), &queries)?;
    equal("counts", &now[0], &vec!["60,1,414,59".to_owned()])?;
    let shown: Vec<String> =
        ["3,1,,7", "44,0,,7", "45,1,gift,1", "46,0,,7"].map(str::to_owned).to_vec();
    equal("rows", &now[1], &shown)?;
    equal("a view from before", &now[2][1], &"45,1,2026-01-01T00:00:45".to_owned())?;
    equal("a view from between", &now[3][0], &"45,1,2026-01-01T00:00:45,gift".to_owned())?;
    equal("a view from after", &now[6][0], &"45,gift,1".to_owned())?;
    equal("after a restart", &home.tables("", &queries)?, &now)?;
    let bad = "INSERT INTO s VALUES (1, 1, TIMESTAMP '2026-01-01 00:02:00', 'x', 100);\n";
    home.run(bad)?.refused(3, &["violates check \"small\""])?;
    // Rows that had no place for the columns are merged with others that had.
    let found = home.tables(&(rows(60..100) + waits), &queries)?;
    equal("further rows", &found[0], &vec!["100,1,694,99".to_owned()])?;
    equal("the last rows of the view from before", &found[5].len(), &55)?;
    let verified =
        home.tables("", &["VERIFY VIEW v", "VERIFY VIEW copied", "VERIFY VIEW later"])?;
    if !verified.iter().all(|lines| lines.iter().any(|line| line.contains("equal: "))) {
        return Err(format!("{verified:?}").into());
    }
    home.ok("DROP VIEW everything;\nDROP VIEW noted;\nDROP STREAM again;\nDROP STREAM s CASCADE;")?;
    Ok(())
}

pub(super) fn widened_and_killed() -> Result<(), Failed> {
    let mut home = Home::new()?;
    home.traced = true;
    home.flags = vec!["--tail-rows".into(), "10".into()];
    home.ok(&(create() + "CREATE MATERIALIZED VIEW copied AS SELECT * FROM s;\n"))?;
    let mut next = 0;
    let rounds = rounds(2);
    for round in 0..rounds {
        let add = |mode: &str| {
            format!("ALTER STREAM s ADD COLUMN {mode} c{round} INT DEFAULT {round};\n")
        };
        let sql = rows(next..next + 6) + &add("") + &rows(next + 6..next + 12) + &for_ever("v");
        let mut running = home.start(&sql)?;
        if !running.until(6, "INSERT 0 1")? {
            return Err(failed(&running.finish()?, "it ends before its time"));
        }
        running.steps_more(round * 7 % 12)?;
        running.kill()?.no_bug()?;
        let columns = "SELECT count(*) FROM information_schema.columns WHERE table_name = 's'";
        let found = home.tables("", &["SELECT count(*), max(id) + 1 FROM s", columns])?;
        let [count, end] = found[0][0].split(',').collect::<Vec<_>>()[..] else {
            return Err("two numbers".into());
        };
        equal("rows without gaps", count, end)?;
        let rows = count.parse::<u32>()?;
        if !(next + 6..=next + 12).contains(&rows) {
            return Err(format!("{rows} rows after {next}").into());
        }
        next = rows;
        let wide = found[1] == [(4 + round).to_string()];
        if !wide && (found[1] != [(3 + round).to_string()] || rows > next + 6) {
            return Err(format!("{:?} columns in round {round}", found[1]).into());
        }
        let whole = format!("SELECT count(*) FROM s WHERE c{round} = {round}");
        let found = home.tables(&add("IF NOT EXISTS"), &[&whole])?;
        equal("the default", &found[0], &vec![rows.to_string()])?;
    }
    let all: Vec<String> = (0..rounds).map(|round| format!("c{round} = {round}")).collect();
    let all = format!("SELECT count(*) FROM s WHERE {}", all.join(" AND "));
    let sql = rows(next..next + 10) + "WAIT FOR v;\nWAIT FOR copied;\n";
    let found = home.tables(&sql, &[&all, "VERIFY VIEW v", "VERIFY VIEW copied"])?;
    equal("all defaults", &found[0], &vec![(next + 10).to_string()])?;
    match found[1..].iter().all(|lines| lines.iter().any(|line| line.contains("equal: "))) {
        true => Ok(()),
        false => Err(format!("{found:?}").into()),
    }
}

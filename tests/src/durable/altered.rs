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

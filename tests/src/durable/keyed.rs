//! Streams with a primary key: after any end of the process, each INSERT, UPDATE and DELETE has happened as a whole or not at
//! all, in order, and views over the current rows go on.

use libtest_mimic::Failed;

use super::equal;
use crate::program::{Home, failed, for_ever, rounds};

const CREATE: &str = "CREATE STREAM u (id INT, n INT, PRIMARY KEY (id)) WITH (changes = 'upsert');\n\
                      CREATE MATERIALIZED VIEW w AS SELECT id, n FROM u WHERE n > 0 EMIT CHANGES;\n";

/// The statements of a round, and how many of its two keys are there after each with which sum.
fn statements(round: u32) -> (String, Vec<String>) {
    let (a, b) = (2 * round, 2 * round + 1);
    let sql = format!(
        "INSERT INTO u VALUES ({a}, 1), ({b}, 2);\n\
         UPDATE u SET n = n + 10 WHERE id IN ({a}, {b});\n\
         DELETE FROM u WHERE id = {a};\n\
         INSERT INTO u VALUES ({a}, 5);\n\
         UPDATE u SET n = 100 WHERE id >= {a};\n"
    );
    let after = ["0,0", "2,3", "2,23", "1,12", "2,17", "2,200"];
    (sql, after.map(str::to_owned).to_vec())
}

pub(super) fn killed() -> Result<(), Failed> {
    let mut home = Home::new()?;
    home.traced = true;
    home.flags = vec!["--tail-rows".into(), "4".into()];
    home.ok(CREATE)?;
    for round in 0..rounds(4) {
        let round = u32::try_from(round)?;
        let (sql, after) = statements(round);
        let mut running = home.start(&(sql + &for_ever("w")))?;
        if !running.until(1, "INSERT 0 2")? {
            return Err(failed(&running.finish()?, "it ends before its time"));
        }
        running.steps_more(round as usize * 3 % 8)?;
        running.kill()?.no_bug()?;
        let sum = format!("SELECT count(*), coalesce(sum(n), 0) FROM u WHERE id >= {}", 2 * round);
        let found = home.tables("WAIT FOR w;", &[&sum, "VERIFY VIEW w"])?;
        let state = found[0].first().cloned().unwrap_or_default();
        if !after[1..].contains(&state) {
            return Err(format!("round {round}: {state} is no state of {after:?}").into());
        }
        if !found[1].iter().any(|line| line.contains("equal: ")) {
            return Err(format!("round {round}: {found:?}").into());
        }
    }
    let found = home.tables(
        "DELETE FROM u;\nINSERT INTO u VALUES (1, 1);\nWAIT FOR w;",
        &["SELECT * FROM u", "SELECT * FROM w"],
    )?;
    equal("rows", &found[0], &vec!["1,1".to_owned()])?;
    equal("rows of the view", &found[1], &vec!["1,1".to_owned()])?;
    let found = home.tables("", &["SELECT * FROM u", "SELECT * FROM w"])?;
    equal("rows after a restart", &found[0], &vec!["1,1".to_owned()])?;
    equal("rows of the view after a restart", &found[1], &vec!["1,1".to_owned()])
}

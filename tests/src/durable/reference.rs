//! Views keep the reference tables that they read, so the version of a table that a row is joined with does not depend on
//! restarts.

use libtest_mimic::Failed;

use super::{STREAM, equal, row};
use crate::program::Home;

/// A table in memory and one in a file change; a view over both goes on with what it began with, is verified with that,
/// and uses the changed tables once it is replaced.
pub(super) fn stay() -> Result<(), Failed> {
    let home = Home::new()?;
    let file = home.beside("places.csv");
    std::fs::write(&file, "k,place\n0,here\n1,there\n")?;
    let view = "MATERIALIZED VIEW v AS SELECT id, name, place FROM s \
                JOIN names ON names.n = s.k JOIN places ON places.k = s.k WHERE place <> 'nowhere';\n";
    home.ok(&format!(
        "{STREAM}CREATE TABLE names AS SELECT * FROM (VALUES (0, 'zero'), (1, 'one')) AS t (n, name);\n\
         CREATE EXTERNAL TABLE places (k INT, place VARCHAR) STORED AS CSV LOCATION '{}' \
         OPTIONS ('format.has_header' 'true');\nCREATE {view}{}WAIT FOR v;",
        file.display(),
        row("s", 1, 1, 1)
    ))?;
    std::fs::write(&file, "k,place\n0,moved\n1,moved\n2,new\n")?;
    home.ok("INSERT INTO names VALUES (1, 'uno'), (2, 'dos');")?;
    let more = row("s", 2, 1, 2) + &row("s", 3, 2, 3) + &row("s", 4, 0, 4);
    let rows = "SELECT id, name, place FROM v ORDER BY id, name";
    let found = home.tables(&(more + "WAIT FOR v;"), &[rows, "VERIFY VIEW v"])?;
    let [of_view, verified] = <[_; 2]>::try_from(found).map_err(|_| "two results")?;
    let lines = |lines: &[&str]| lines.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
    equal("rows", &of_view, &lines(&["1,one,there", "2,one,there", "4,zero,here"]))?;
    equal("verified", &verified, &lines(&["equal: 3 rows,,,"]))?;
    let found = home.tables(&format!("CREATE OR REPLACE {view}WAIT FOR v;"), &[rows])?;
    let replaced = lines(&[
        "1,one,moved",
        "1,uno,moved",
        "2,one,moved",
        "2,uno,moved",
        "3,dos,new",
        "4,zero,moved",
    ]);
    equal("replaced", &found, &vec![replaced.clone()])?;
    equal("replaced, after a restart", &home.tables("", &[rows])?, &vec![replaced])?;
    let kept: Vec<_> =
        home.contents()?.into_keys().filter(|p| p.starts_with("reference")).collect();
    equal("files", &kept.len(), &2)?;
    home.ok("DROP MATERIALIZED VIEW v;")?;
    let kept = home.contents()?.into_keys().filter(|p| p.starts_with("reference")).count();
    equal("files of nothing", &kept, &0)
}

//! Kill -9 while rows are written to PostgreSQL: of Windrow, of the server, of connections; each row is there once.

use libtest_mimic::Failed;

use super::Server;
use crate::kept_insert::rows_of;
use crate::program::{Home, failed, for_ever, rounds};
use crate::sinks::{LAST, STREAM, VIEWS, same};

fn create(server: &Server) -> String {
    let small = ", batch_rows = '30', batch_interval = '10 ms', create_table = 'true'";
    format!(
        "{STREAM}{VIEWS}
CREATE SINK IF NOT EXISTS pv FROM v {};
CREATE SINK IF NOT EXISTS pr FROM r {};
CREATE SINK IF NOT EXISTS pk AS SELECT k, id FROM s {};
",
        server.options("pv", small),
        server.options("pr", ", batch_rows = '30', batch_interval = '10 ms', on_error = 'reject'"),
        server.options("pk", &format!("{small}, key = 'k'"))
    )
}

pub(super) fn killed() -> Result<(), Failed> {
    const STATEMENTS: u64 = 30;
    let mut server = Server::new()?;
    // A row that is refused is neither there twice nor set aside twice.
    server.sql("CREATE TABLE pr (id bigint CHECK (id % 11 <> 5), k int, ts timestamp)")?;
    let mut home = Home::new()?;
    home.traced = true;
    home.flags = ["--checkpoint-interval", "0.01", "--tail-rows", "40"].map(str::to_owned).into();
    let mut next = 0;
    let all = rounds(32) as u64;
    for kill in 0..all {
        let mut sql = create(&server);
        let statements = next..next + STATEMENTS;
        next = statements.end;
        for statement in statements {
            sql.push_str(&rows_of(statement));
            if statement % 5 == 0 {
                sql.push_str("WAIT FOR pv;\nWAIT FOR pr;\n");
            }
        }
        sql.push_str(&for_ever("v"));
        let mut running = home.start(&sql)?;
        let until = usize::try_from(kill * 11 % STATEMENTS)?;
        if kill % 3 == 1 {
            // The server first, once or by its connections.
            running.until(until / 2, "INSERT 0")?;
            if kill % 2 == 0 {
                server.kill()?;
                server.start()?;
            } else {
                server.cut()?;
            }
        }
        if !running.until(until, "INSERT 0")? {
            return Err(failed(&running.finish()?, "the program ends"));
        }
        running.steps_more(usize::try_from(kill * 17 % 29)?)?;
        running.kill()?.no_bug()?;
        for table in ["pv", "pr"] {
            let sql = format!("SELECT count(*) - count(DISTINCT t) FROM {table} AS t");
            // The first kills come before there is a table.
            if server.rows(&format!("SELECT to_regclass('{table}') IS NULL"))? == ["True"] {
                continue;
            }
            if server.rows(&sql)? != ["0"] {
                return Err(format!("rows of {table} are there twice after kill {kill}").into());
            }
        }
    }
    let last = create(&server) + LAST + "WAIT FOR pv;\nWAIT FOR pr;\nWAIT FOR pk;\n";
    let queries = [
        "SELECT k, n, low, high FROM v",
        "SELECT id, k FROM s WHERE k <> 3 AND id % 11 <> 5",
        "SELECT k, max(id) FROM s GROUP BY k",
        "SELECT id FROM s WHERE k <> 3 AND id % 11 = 5",
        "SELECT split_part(split_part(row, ',', 1), ':', 2) FROM windrow.rejected_rows WHERE sink = 'pr'",
    ];
    let tables = home.tables(&last, &queries)?;
    let found = [
        "SELECT k, n, low, high FROM pv",
        "SELECT id, k FROM pr",
        "SELECT k, id FROM pk WHERE id >= 0 UNION ALL SELECT k, -1 FROM pk WHERE id < 0",
    ];
    for (sql, expected) in found.iter().zip(&tables) {
        let mut rows: Vec<String> =
            server.rows(sql)?.iter().map(|row| row.replace('|', ",")).collect();
        rows.sort_unstable();
        if sql.contains("pk") {
            // The last row came last: it has the number −1.
            let expected: Vec<String> =
                expected.iter().filter(|r| !r.starts_with("0,")).cloned().collect();
            rows.retain(|row| !row.starts_with("0,"));
            same(sql, &rows, &expected)?;
            continue;
        }
        same(sql, &rows, expected)?;
    }
    same("set aside", &tables[4], &tables[3])
}

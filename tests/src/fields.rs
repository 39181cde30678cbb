//! The folders of `sql/` that show a field of use: every materialized view and every query of their `run.sql` has the rows that DuckDB
//! computes from the same streams (`check.duckdb.sql`), continuous, bounded, and after a kill and two restarts.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Failed, Trial};

use crate::program::{Home, Running, Said, program};
use crate::readers::python;
use crate::watch::trial;

const FOLDERS: [&str; 7] =
    ["analytics", "finance", "games", "iot", "recommendation", "risk", "service-assurance"];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![];
    for folder in FOLDERS {
        trials.push(trial(format!("fields/{folder} has the rows of DuckDB"), move || once(folder)));
        trials.push(trial(format!("fields/{folder} after a kill and restarts"), move || {
            again(folder)
        }));
    }
    trials
}

/// Files of these folders that do not run alone: they need the views of the `run.sql` beside them, or are DuckDB's.
const BESIDE: [&str; 3] = ["alerts.sql", "training.sql", "check.duckdb.sql"];

/// Whether a file is one that only these tests run.
pub(crate) fn is_beside(file: &Path) -> bool {
    file.file_name().is_some_and(|name| BESIDE.iter().any(|beside| name == *beside))
}

/// What a folder has, and where its answers are exported to.
struct Folder {
    path: PathBuf,
    exports: PathBuf,
    inputs: Vec<String>,
    views: Vec<String>,
    queries: Vec<String>,
}

impl Folder {
    fn read(name: &str, home: &Home) -> Result<Self, Failed> {
        let path = Path::new("sql").join(name);
        let mut folder = Self {
            exports: home.beside("exports"),
            path,
            inputs: vec![],
            views: vec![],
            queries: vec![],
        };
        for statement in statements(&folder.path.join("run.sql"))? {
            let words: Vec<&str> = statement.split_whitespace().collect();
            match words[..] {
                ["CREATE", "STREAM", name, ..] | ["CREATE", "EXTERNAL", "TABLE", name, ..] => {
                    folder.inputs.push(name.to_owned());
                }
                ["CREATE", "MATERIALIZED", "VIEW", name, ..] => folder.views.push(name.to_owned()),
                // Windrow's own tables are in no other database.
                ["SELECT", ..] if !statement.contains("windrow.") => folder.queries.push(statement),
                _ => {}
            }
        }
        for part in ["inputs", "views", "queries"] {
            std::fs::create_dir_all(folder.exports.join(part))?;
        }
        Ok(folder)
    }

    fn waits(&self) -> String {
        self.views.iter().map(|view| format!("WAIT FOR {view};\n")).collect()
    }

    /// The statements that write all answers to files.
    fn exporting(&self) -> Result<String, Failed> {
        let to = |part: &str, name: &str| {
            self.exports.join(part).join(format!("{name}.parquet")).display().to_string()
        };
        let mut sql = self.waits();
        for name in &self.inputs {
            writeln!(sql, "COPY {name} TO '{}';", to("inputs", name))?;
        }
        for name in &self.views {
            writeln!(sql, "COPY {name} TO '{}';", to("views", name))?;
        }
        for (number, query) in self.queries.iter().enumerate() {
            let name = format!("{number:02}");
            std::fs::write(self.exports.join("queries").join(format!("{name}.sql")), query)?;
            writeln!(sql, "COPY ({query}) TO '{}';", to("queries", &name))?;
        }
        Ok(sql)
    }

    /// Compares what was exported with what DuckDB makes of the inputs.
    fn check(&self) -> Result<(), Failed> {
        let mut check = Command::new(python()?);
        check.arg("tests/readers/check_field.py").arg(&self.path).arg(&self.exports);
        let output = check.output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let counts = format!("{} views, {} queries, ", self.views.len(), self.queries.len());
        if output.status.success() && said.starts_with(&counts) {
            return Ok(());
        }
        Err(format!("{said}{}", String::from_utf8_lossy(&output.stderr)).into())
    }
}

/// The statements of a file, without the comments before each.
fn statements(file: &Path) -> Result<Vec<String>, Failed> {
    let text = std::fs::read_to_string(file)?;
    let statements = windrow_sql::parse::parse(&text).map_err(|e| e.render(&text))?;
    let plain = |text: &str| {
        let lines = text.lines().skip_while(|line| line.is_empty() || line.starts_with("--"));
        lines.collect::<Vec<_>>().join("\n")
    };
    Ok(statements.iter().map(|statement| plain(&statement.text)).collect())
}

fn run(arguments: &[&Path]) -> Result<Said, Failed> {
    let mut command = Command::new(program()?);
    command.args(["--format", "ndjson", "run"]).args(arguments);
    Running::start(command)?.finish()
}

/// In memory: the program on run.sql and alerts.sql; VERIFY VIEW compares with the bounded form, DuckDB with its own answers.
fn once(name: &str) -> Result<(), Failed> {
    let home = Home::new()?;
    let folder = Folder::read(name, &home)?;
    let (alerts, export) = (home.beside("alerts.sql"), home.beside("export.sql"));
    let files = home.beside("files");
    let text = std::fs::read_to_string(folder.path.join("alerts.sql"))?;
    let ours = text.replace(
        &format!("path = '{name}-alerts"),
        &format!("path = '{}/{name}-alerts", files.display()),
    );
    if ours == text {
        return Err("alerts.sql writes somewhere else: this test rewrites its paths".into());
    }
    std::fs::write(&alerts, ours)?;
    let mut sql = folder.exporting()?;
    for view in &folder.views {
        writeln!(sql, "VERIFY VIEW {view};")?;
    }
    sql.push_str(
        "SELECT name, committed FROM windrow.sinks WHERE committed = 0 OR lag_rows > 0;\n",
    );
    std::fs::write(&export, sql)?;
    let said = run(&[&folder.path.join("run.sql"), &alerts, &export])?;
    said.no_bug()?;
    said.check(said.status.success(), "the program fails")?;
    // Rows that are late for some of their overlapping windows: the bounded form counts them in all, DuckDB knows which.
    let (equal, differ) = (
        said.out.matches("{\"status\":\"equal: ").count(),
        said.out.matches("{\"status\":\"differs: ").count(),
    );
    let in_part = said.out.matches("too late for some of their windows").count();
    said.check(
        equal + differ == folder.views.len(),
        &format!("{} views are verified", equal + differ),
    )?;
    said.check(
        differ == in_part,
        &format!("{differ} views differ, {in_part} by rows that are late in part"),
    )?;
    said.check(!said.out.contains("\"committed\":"), "a sink has not written")?;
    if !files.join(format!("{name}-alerts")).is_dir() {
        return Err("no alerts".into());
    }
    folder.check()
}

/// In a data directory: killed while the views read, ended well when they are done, and asked by a third process.
fn again(name: &str) -> Result<(), Failed> {
    let home = Home::new()?;
    let folder = Folder::read(name, &home)?;
    let mut script = String::new();
    for statement in statements(&folder.path.join("run.sql"))? {
        if statement.starts_with("CREATE ") {
            writeln!(script, "{statement};")?;
        }
    }
    let last = folder.views.last().ok_or("no view")?;
    let mut running = home.start(&(script + &format!("WAIT FOR {last};\n")))?;
    running.until(folder.views.len(), "CREATE MATERIALIZED VIEW")?;
    running.kill()?;
    home.ok(&folder.waits())?;
    home.ok(&folder.exporting()?)?;
    folder.check()
}

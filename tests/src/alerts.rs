//! The alerts of `sql/alerts`: one message for each incident, and one when it is over.

use libtest_mimic::{Failed, Trial};
use windrow_engine::EngineConfig;

use crate::hooks::Hooks;
use crate::talk::Talk;
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("alerts/threshold", || alert("threshold", &["overheated_alerts"], &hot(), &HOT)),
        trial("alerts/silence", || {
            alert("silence", &["silent_alerts", "heard_again_alerts"], &silent(), &SILENT)
        }),
        trial("alerts/anomaly", || alert("anomaly", &["slow_alerts"], &slow(), &SLOW)),
    ]
}

/// The address in the files, which those of a test replace.
const ADDRESS: &str = "http://127.0.0.1:8080/alerts";

/// Whether a file is one of these, which need a server.
pub(crate) fn needs_server(file: &std::path::Path) -> bool {
    file.starts_with("sql/alerts")
}

fn insert(stream: &str, rows: &[(&str, f64, u32)]) -> String {
    let rows: Vec<String> = rows
        .iter()
        .map(|(who, value, second)| {
            let (minute, second) = (second / 60, second % 60);
            let time = format!("TIMESTAMP '2026-01-01 00:{minute:02}:{second:02}'");
            match stream {
                "heartbeats" => format!("('{who}', {time})"),
                _ => format!("('{who}', {value}, {time})"),
            }
        })
        .collect();
    format!("INSERT INTO {stream} VALUES {}", rows.join(", "))
}

fn hot() -> Vec<String> {
    let rows = [
        ("a", 60.0, 0),
        ("a", 75.0, 1),
        ("b", 81.0, 1),
        ("a", 81.0, 2),
        ("a", 79.0, 3),
        ("a", 85.0, 4),
        ("a", 69.0, 5),
        ("a", 75.0, 6),
        ("a", 90.0, 7),
        ("b", 80.0, 8),
        ("c", 20.0, 60),
    ];
    rows.chunks(4).map(|rows| insert("readings", rows)).collect()
}

const HOT: [&str; 4] = [
    "b has 81.0 °C at 2026-01-01T00:00:01",
    "a has 81.0 °C at 2026-01-01T00:00:02",
    "a has 69.0 °C at 2026-01-01T00:00:05",
    "a has 90.0 °C at 2026-01-01T00:00:07",
];

fn silent() -> Vec<String> {
    let mut rows: Vec<(&str, f64, u32)> = (0..13).map(|minute| ("b", 0.0, minute * 60)).collect();
    rows.extend([("a", 0.0, 10), ("a", 0.0, 70), ("a", 0.0, 600), ("b", 0.0, 840)]);
    rows.sort_by_key(|row| row.2);
    rows.chunks(4).map(|rows| insert("heartbeats", rows)).collect()
}

const SILENT: [&str; 2] = [
    "nothing from a since 2026-01-01T00:01:10",
    "a is back at 2026-01-01T00:10:00, after 2026-01-01T00:01:10",
];

fn slow() -> Vec<String> {
    let mut rows: Vec<(&str, f64, u32)> = (0..20)
        .map(|minute| ("api", if minute % 2 == 0 { 99.0 } else { 101.0 }, minute * 60))
        .collect();
    rows.extend([
        ("api", 200.0, 1_200),
        ("api", 210.0, 1_260),
        ("api", 100.0, 1_320),
        ("api", 100.0, 1_500),
    ]);
    rows.chunks(5).map(|rows| insert("requests", rows)).collect()
}

const SLOW: [&str; 2] = ["api takes 200.0 ms, usually 100.0 ms", "api takes 100.0 ms, usually "];

/// Runs a file with these rows, in memory and in a data directory; exactly the messages that begin so must come.
fn alert(name: &str, sinks: &[&str], rows: &[String], expected: &[&str]) -> Result<(), Failed> {
    let text = std::fs::read_to_string(format!("sql/alerts/{name}.sql"))?;
    for durable in [false, true] {
        let hooks = Hooks::start()?;
        let temp = tempfile::tempdir()?;
        let data_dir = durable.then(|| temp.path().join("data"));
        let talk = Talk::following(EngineConfig { data_dir, ..EngineConfig::default() })?;
        let text = text.replace(ADDRESS, &hooks.url());
        for statement in windrow_sql::parse::parse(&text).map_err(|e| e.render(&text))? {
            talk.ask(&statement.text)?;
        }
        for rows in rows {
            talk.ask(rows)?;
        }
        for sink in sinks {
            talk.ask(&format!("WAIT FOR {sink}"))?;
        }
        let bodies: Vec<String> = hooks.posts().into_iter().map(|post| post.body).collect();
        let said = |message: &&str| {
            bodies.iter().any(|body| body.contains(&format!("\"text\": \"{message}")))
        };
        if bodies.len() != expected.len() || !expected.iter().all(said) {
            return Err(format!("expected {expected:?}, got {bodies:#?}").into());
        }
        let firing = bodies.iter().filter(|body| body.contains("\"state\": \"firing\"")).count();
        let resolved =
            bodies.iter().filter(|body| body.contains("\"state\": \"resolved\"")).count();
        if firing + resolved != bodies.len() || resolved == 0 {
            return Err(format!("{firing} firing, {resolved} resolved: {bodies:#?}").into());
        }
        talk.close()?;
    }
    Ok(())
}

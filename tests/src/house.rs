//! The structure of the code: crates import in one direction, and modules of a crate form no cycles.

mod circles;
mod modules;
mod tokens;

use std::collections::BTreeSet;
use std::path::Path;

use libtest_mimic::{Failed, Trial};

use self::modules::{Modules, Name};
use crate::watch::trial;

/// The crates, and which of the others each may import; all of these stand above it.
const ORDER: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("metered", &["core"]),
    ("models", &["core"]),
    ("operators", &["core"]),
    ("storage", &["core", "operators"]),
    ("archive", &["core"]),
    ("connectors", &["core"]),
    ("sql", &["core", "models", "operators"]),
    ("stream", &["core", "operators", "storage", "archive", "sql"]),
    ("query", &["core", "operators", "storage", "sql", "stream"]),
    ("engine", &["core", "models", "storage", "archive", "connectors", "sql", "stream", "query"]),
    ("server", &["core", "engine"]),
    ("flight", &["core", "sql", "engine", "server"]),
    ("http", &["core", "engine", "server"]),
    ("cli", &["core", "metered", "connectors", "sql", "engine", "server", "flight", "http"]),
];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("house/crates import in one direction", directions),
        trial("house/modules form no circles", no_circles),
        trial("house/paths are read as the compiler reads them", paths),
    ]
}

fn read(name: &str) -> Result<Modules, Failed> {
    Ok(Modules::read(&Path::new("crates").join(name).join("src"))?)
}

fn directions() -> Result<(), Failed> {
    let mut wrong = vec![];
    let mut above = BTreeSet::new();
    for (name, allowed) in ORDER {
        wrong.extend(allowed.iter().filter(|other| !above.contains(*other)).map(|other| {
            format!("ORDER has \"{other}\" not above \"{name}\", which may import it")
        }));
        above.insert(*name);
        wrong.extend(
            read(name)?
                .crates()
                .into_iter()
                .filter(|other| !allowed.contains(&other.as_str()))
                .map(|other| {
                    format!("\"{name}\" imports \"{other}\", which ORDER does not allow it")
                }),
        );
    }
    for entry in std::fs::read_dir("crates")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !above.contains(name.as_str()) {
            wrong.push(format!("\"{name}\" has no place in ORDER"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

fn no_circles() -> Result<(), Failed> {
    let mut wrong: Vec<String> = vec![];
    for (name, _) in ORDER {
        let edges = read(name)?.edges();
        for circle in circles::circles(&edges) {
            wrong.push(format!("\"{name}\" has a circle of {} files:", circle.len()));
            wrong.extend(circle.iter().map(|file| {
                let others = edges.get(file).into_iter().flatten();
                let others: Vec<_> =
                    others.filter(|other| circle.contains(*other)).map(shown).collect();
                format!("  {} imports {}", shown(file), others.join(", "))
            }));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

fn shown(name: &Name) -> String {
    if name.is_empty() { "the root".to_owned() } else { name.join("/") }
}

/// The reader of imports is right about a small crate with everything in it that could mislead it.
fn paths() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let src = dir.path();
    std::fs::create_dir_all(src.join("room/low"))?;
    let files = [
        (
            "lib.rs",
            "pub use room::Thing; mod room; mod other; mod texts;\n#[cfg(test)]\nmod tests;",
        ),
        ("tests.rs", "use crate::texts::A;"),
        ("room/mod.rs", "mod high; pub(in crate::other) mod low; pub use self::low::Thing;"),
        // By way of the root and of the room.
        (
            "other.rs",
            "use crate::Thing; fn f() { crate::room::low::g(); } #[cfg(test)] mod tests { use crate::texts::A; }",
        ),
        (
            "room/high.rs",
            "use super::low::{self, deep::{B as C, D}}; mod inner { use super::super::super::other; }",
        ),
        ("room/low/mod.rs", "pub mod deep;"),
        ("room/low/deep.rs", "use super::super::high::X;"),
        (
            "texts.rs",
            "// use crate::other;\nconst A: &str = r#\"\" crate::other::x\"#; fn f<'a>() { let c = '\"'; super::room::high::x(); }",
        ),
    ];
    for (file, text) in files {
        std::fs::write(src.join(file), text)?;
    }
    let modules = Modules::read(src)?;
    let found: Vec<String> = modules
        .edges()
        .iter()
        .filter(|(from, _)| !from.is_empty())
        .map(|(from, to)| {
            format!("{}: {}", shown(from), to.iter().map(shown).collect::<Vec<_>>().join(" "))
        })
        .collect();
    let expected = [
        "other: room/low",
        "room: room/low",
        "room/high: other room/low room/low/deep",
        "room/low: ",
        "room/low/deep: room/high",
        "texts: room/high",
    ];
    if found != expected {
        return Err(format!("{found:#?}").into());
    }
    let circles = circles::circles(&modules.edges());
    let expected: BTreeSet<Name> = [["room", "high"].as_slice(), &["room", "low", "deep"]]
        .iter()
        .map(|name| name.iter().map(|part| (*part).to_owned()).collect())
        .collect();
    if circles == [expected] { Ok(()) } else { Err(format!("{circles:?}").into()) }
}

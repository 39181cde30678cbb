//! `docs/tutorial.md` does what it says: its files are written and its commands run, from top to bottom, in an empty directory, and each prints
//! the text that follows it.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use libtest_mimic::{Failed, Trial};

use crate::program::{Running, program};
use crate::readers::python;
use crate::watch::trial;

const TUTORIAL: &str = "docs/tutorial.md";

/// Stands before the output of each command.
const BEFORE: &str = "===== output of command";

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("tutorial/prints what it says", follow)]
}

/// A block of code: its language, the file that it is, its lines.
struct Block<'a> {
    language: &'a str,
    file: Option<&'a str>,
    text: String,
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut found: Vec<Block<'_>> = vec![];
    let mut within = false;
    for line in page.lines() {
        match (line.strip_prefix("```"), within) {
            (Some(words), false) => {
                let mut words = words.split_whitespace();
                let (language, file) = (words.next().unwrap_or_default(), words.next());
                found.push(Block { language, file, text: String::new() });
                within = true;
            }
            (Some(_), true) => within = false,
            (None, true) => {
                if let Some(block) = found.last_mut() {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
            }
            (None, false) => {}
        }
    }
    found
}

/// The page as a script of bash, and what each of its commands is to print, where the page says so.
fn script(page: &str) -> Result<(String, Vec<Option<String>>), Failed> {
    let mut script = "set -eu\n".to_owned();
    let mut expected: Vec<Option<String>> = vec![];
    for Block { language, file, text } in blocks(page) {
        match (language, file) {
            ("sh", None) => {
                write!(script, "echo '{BEFORE} {}'\n{text}", expected.len())?;
                expected.push(None);
            }
            ("text", None) => match expected.last_mut() {
                Some(last @ None) => *last = Some(text),
                _ => return Err(format!("no command prints this:\n{text}").into()),
            },
            (_, Some(file)) => write!(script, "cat > {file} <<'END OF FILE'\n{text}END OF FILE\n")?,
            _ => return Err(format!("a block that is no file and no command:\n{text}").into()),
        }
    }
    Ok((script, expected))
}

fn free_port() -> Result<String, Failed> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

fn directory(program: &Path) -> Result<&Path, Failed> {
    Ok(program.parent().ok_or("a program without a directory")?)
}

fn follow() -> Result<(), Failed> {
    let page = std::fs::read_to_string(TUTORIAL)?;
    let (mut script, expected) = script(&page)?;
    for address in ["127.0.0.1:50051", "127.0.0.1:8080"] {
        script = script.replace(address, &free_port()?);
    }
    let (windrow, python) = (std::path::absolute(program()?)?, std::path::absolute(python()?)?);
    let mut path = std::ffi::OsString::new();
    for directory in [directory(&windrow)?, directory(&python)?] {
        path.push(directory);
        path.push(":");
    }
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let home = tempfile::tempdir()?;
    std::fs::write(home.path().join("script.sh"), script)?;
    let mut bash = Command::new("bash");
    bash.arg("script.sh").current_dir(home.path()).env("PATH", path).env("TZ", "UTC");
    let said = Running::start(bash)?.finish()?;
    said.check(said.status.success(), "a command of the tutorial fails")?;
    let before = format!("{BEFORE} ");
    let mut outputs = said.out.split(&before);
    said.check(outputs.next() == Some(""), "output before the first command")?;
    for (number, (expected, output)) in expected.iter().zip(outputs.by_ref()).enumerate() {
        let output = output.split_once('\n').map_or("", |(_, rest)| rest);
        let Some(expected) = expected else { continue };
        if output.trim_end() != expected.trim_end() {
            return Err(format!(
                "command {number} of {TUTORIAL} prints\n{output}\ninstead of\n{expected}"
            )
            .into());
        }
    }
    said.check(outputs.next().is_none(), "more outputs than commands")
}

//! Streams and sinks over real brokers, with clients that are not ours at the other end. Both come from a package index, into
//! the tests' Python environment. A test has a server of its own.

mod mqtt;
mod nats;
mod redis;
mod web;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use libtest_mimic::{Failed, Trial};

use crate::readers;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = mqtt::trials();
    trials.extend(nats::trials());
    trials.extend(redis::trials());
    trials.extend(web::trials());
    trials
}

/// A server and its other client: a script of `tests/clients` that takes commands.
struct Server {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// Where it listens.
    address: String,
}

impl Server {
    /// Returns one that is not running yet.
    fn new(script: &str) -> Result<Self, Failed> {
        let mut child = Command::new(readers::python()?)
            .arg(format!("tests/clients/{script}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdin = child.stdin.take().ok_or("no stdin")?;
        let mut stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let mut address = String::new();
        stdout.read_line(&mut address)?;
        Ok(Self { child, stdin, stdout, address: address.trim().to_owned() })
    }

    /// Gives a command, and returns what is answered to it.
    fn answers(&mut self, command: &serde_json::Value) -> Result<String, Failed> {
        writeln!(self.stdin, "{command}")?;
        let mut answer = String::new();
        self.stdout.read_line(&mut answer)?;
        match answer.trim().strip_prefix("ok") {
            Some(answer) => Ok(answer.trim().to_owned()),
            None => Err(format!("{command}: {answer}").into()),
        }
    }

    fn says(&mut self, command: &serde_json::Value) -> Result<(), Failed> {
        self.answers(command).map(drop)
    }

    fn start(&mut self) -> Result<(), Failed> {
        self.says(&serde_json::json!({"do": "start"}))
    }

    fn kill(&mut self) -> Result<(), Failed> {
        self.says(&serde_json::json!({"do": "kill"}))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It takes its server with it when its stdin ends.
        drop(writeln!(self.stdin, "{{\"do\": \"kill\"}}"));
        drop(self.stdout.read_line(&mut String::new()));
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

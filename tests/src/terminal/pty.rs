//! The program in a pseudo-terminal of 100 columns, and the screen that shows it.

use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};

use expectrl::Session;
use expectrl::process::unix::WaitStatus;
use expectrl::session::OsSession;
use libtest_mimic::Failed;
use tempfile::TempDir;

use crate::program::{PATIENCE, program};

const WIDTH: u16 = 100;
const HEIGHT: u16 = 60;
/// A status line moves four times in a second: who waits for more than this waits for nothing.
const OUTPUTS_MAX: usize = 400;

/// Somebody's terminal, with a home directory of its own.
pub(super) struct Terminal {
    session: OsSession,
    output: Receiver<Vec<u8>>,
    screen: vt100::Parser,
    raw: Vec<u8>,
    home: Arc<TempDir>,
}

impl Terminal {
    /// Starts the REPL, and waits for its prompt.
    pub(super) fn start(environment: &[(&str, &str)]) -> Result<Self, Failed> {
        Self::start_with(&[], environment)
    }

    /// The same with arguments.
    pub(super) fn start_with(
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self, Failed> {
        Self::start_in(Arc::new(tempfile::tempdir()?), arguments, environment)
    }

    /// Starts it again in the same home directory.
    pub(super) fn again(&self) -> Result<Self, Failed> {
        Self::start_in(Arc::clone(&self.home), &[], &[])
    }

    fn start_in(
        home: Arc<TempDir>,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self, Failed> {
        let mut command = Command::new(program()?);
        command
            .args(arguments)
            .env_clear()
            .env("HOME", home.path())
            .env("XDG_STATE_HOME", home.path().join("state"))
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("TERM", "xterm-256color")
            .envs(environment.iter().copied());
        let mut session = Session::spawn(command)?;
        session.get_process_mut().set_window_size(WIDTH, HEIGHT)?;
        let mut handle = session.get_process().get_raw_handle()?;
        let (sender, output) = sync_channel(1_024);
        // Ends when the program has closed its side, or nobody looks any more.
        std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(count @ 1..) = handle.read(&mut bytes) {
                let read = bytes.get(..count).unwrap_or_default().to_vec();
                if sender.send(read).is_err() {
                    return;
                }
            }
        });
        let screen = vt100::Parser::new(non_zero(HEIGHT), non_zero(WIDTH), 0);
        let mut terminal = Self { session, output, screen, raw: vec![], home };
        terminal.sees("windrow> ").or_else(|failed| match environment {
            // Without an able terminal there is a prompt all the same, but not always.
            [("TERM", _)] => Ok(()),
            _ => Err(failed),
        })?;
        Ok(terminal)
    }

    pub(super) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Types.
    pub(super) fn send(&mut self, keys: &str) -> Result<(), Failed> {
        let stream = self.session.get_stream_mut();
        stream.write_all(keys.as_bytes())?;
        Ok(stream.flush()?)
    }

    /// Makes the window so wide.
    pub(super) fn resize(&mut self, width: u16) -> Result<(), Failed> {
        self.session.get_process_mut().set_window_size(width, HEIGHT)?;
        self.screen.screen_mut().set_size(non_zero(HEIGHT), non_zero(width));
        Ok(())
    }

    /// What the screen shows now; lines without the spaces at their end.
    pub(super) fn screen(&self) -> String {
        let (_, width) = self.screen.screen().size();
        let lines = self.screen.screen().rows(0, width.get());
        let mut text: String = lines.map(|line| line.trim_end().to_owned() + "\n").collect();
        text.truncate(text.trim_end().len());
        text + "\n"
    }

    /// All that the program has written.
    pub(super) fn raw(&self) -> String {
        String::from_utf8_lossy(&self.raw).into_owned()
    }

    /// Waits until the screen shows `text`.
    pub(super) fn sees(&mut self, text: &str) -> Result<(), Failed> {
        self.until(text, |screen| screen.contains(text.trim_end_matches(' ')))
    }

    /// Waits until the last line is an empty prompt.
    pub(super) fn prompt(&mut self) -> Result<(), Failed> {
        self.until("a prompt", |screen| {
            screen.lines().last().is_some_and(|line| line.trim_end() == "windrow>")
        })
    }

    /// Types a line and waits until what it asks for is done.
    pub(super) fn enter(&mut self, line: &str) -> Result<(), Failed> {
        self.send(&format!("{line}\r"))?;
        let begins: String = format!("windrow> {line}").chars().take(60).collect();
        self.until(line, |screen| {
            screen.contains(&begins)
                && screen.lines().last().is_some_and(|last| last.trim_end() == "windrow>")
        })
    }

    /// Waits until the screen is as it should be.
    pub(super) fn until(&mut self, what: &str, holds: impl Fn(&str) -> bool) -> Result<(), Failed> {
        for _ in 0..OUTPUTS_MAX {
            if holds(&self.screen()) {
                return Ok(());
            }
            match self.output.recv_timeout(PATIENCE) {
                Ok(bytes) => {
                    self.raw.extend(&bytes);
                    self.screen.process(&bytes);
                }
                Err(e) => return self.check(false, &format!("{what:?} is not seen: {e}")),
            }
        }
        self.check(false, &format!("{what:?} is not seen"))
    }

    /// Fails with what the screen shows unless something `holds`.
    pub(super) fn check(&self, holds: bool, what: &str) -> Result<(), Failed> {
        if holds {
            return Ok(());
        }
        Err(format!("{what}\nthe screen:\n{}", self.screen()).into())
    }

    /// Waits for the end of the program.
    pub(super) fn ends(&mut self, code: i32) -> Result<(), Failed> {
        // The output ends with the program.
        loop {
            match self.output.recv_timeout(PATIENCE) {
                Ok(bytes) => {
                    self.raw.extend(&bytes);
                    self.screen.process(&bytes);
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => return self.check(false, "it does not end"),
            }
        }
        let status = self.session.get_process().wait()?;
        let ended = matches!(status, WaitStatus::Exited(_, c) if c == code);
        self.check(ended, &format!("it ends with {status:?}, not {code}"))
    }
}

fn non_zero(n: u16) -> NonZeroU16 {
    NonZeroU16::new(n).unwrap_or(NonZeroU16::MIN)
}

//! The destination of results: stdout, a file, or the user's pager once they are longer than the screen.

use std::fs::File;
use std::io::{self, Stdout, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::failure::Failure;

/// The pager of `\pset pager on` where `$PAGER` is not set.
const USUAL: &str = "less";
/// The options of `less` unless `$LESS` is set: colours, no wrapped lines, the screen is not cleared, short texts are
/// shown directly.
const LESS: &str = "FRSX";
/// Lines of a screen that are not part of the result: the summary and the prompt.
const REST: usize = 3;

/// When results go through a pager.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Paging {
    /// Where `$PAGER` names one.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

impl Paging {
    /// The command of the pager to use; `None`: no pager.
    pub(super) fn command(self) -> Option<String> {
        let set = std::env::var("PAGER").ok().filter(|command| !command.trim().is_empty());
        match self {
            Self::Off => None,
            Self::Auto => set,
            Self::On => Some(set.unwrap_or_else(|| USUAL.to_owned())),
        }
    }
}

/// The destination of results.
pub(super) enum Out {
    /// Stdout.
    Stdout(Stdout),
    /// A file.
    File(File),
    /// The terminal, or a pager.
    Paged(Pager),
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(out) => out.write(bytes),
            Self::File(file) => file.write(bytes),
            Self::Paged(pager) => pager.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(out) => out.flush(),
            Self::File(file) => file.flush(),
            Self::Paged(pager) => pager.flush(),
        }
    }
}

/// Holds a result back until it is known whether it fits the screen; a longer one goes to a pager.
pub(super) struct Pager {
    command: String,
    lines_max: usize,
    lines: usize,
    held: Vec<u8>,
    running: Option<(Child, ChildStdin)>,
}

impl Pager {
    /// Returns a pager for results that are too long for a screen of `height` lines.
    pub(super) fn new(command: String, height: usize) -> Self {
        let lines_max = height.saturating_sub(REST);
        Self { command, lines_max, lines: 0, held: vec![], running: None }
    }

    /// Whether the pager is running, and so has the terminal.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    fn start(&mut self) -> io::Result<()> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(&self.command).stdin(Stdio::piped());
        if std::env::var_os("LESS").is_none() {
            command.env("LESS", LESS);
        }
        let mut child = command.spawn()?;
        let mut input =
            child.stdin.take().ok_or_else(|| io::Error::other("the pager has no input"))?;
        let written = input.write_all(&std::mem::take(&mut self.held));
        self.running = Some((child, input));
        written
    }

    /// Ends the result: shows it if it is short, or waits until the user leaves the pager.
    ///
    /// # Errors
    /// When it cannot be shown.
    pub(super) fn finish(mut self) -> Result<(), Failure> {
        let Some((mut child, input)) = self.running.take() else {
            let mut out = io::stdout();
            out.write_all(&self.held)?;
            return Ok(out.flush()?);
        };
        drop(input);
        let status = child.wait()?;
        if status.success() || status.code().is_none() {
            return Ok(());
        }
        let what = format!("pager \"{}\" ended with {status}", self.command);
        Err(windrow_core::Error::new(windrow_core::ErrorKind::Unavailable, what)
            .with_hint("\\pset pager off shows results without it.")
            .into())
    }
}

impl Write for Pager {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some((_, input)) = &mut self.running {
            return input.write(bytes);
        }
        self.held.extend_from_slice(bytes);
        self.lines += bytes.iter().filter(|byte| **byte == b'\n').count();
        if self.lines > self.lines_max {
            self.start()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.running {
            Some((_, input)) => input.flush(),
            None => Ok(()),
        }
    }
}

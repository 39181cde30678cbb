//! `windrow user …`, `windrow token …`: the accounts of a server.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use windrow_core::{Error, ErrorKind, Result};
use windrow_engine::Role;
use windrow_server::auth::login::{
    GrantLine, Line, TokenLine, UserLine, grants, new_token, read, write,
};
use windrow_server::auth::password::hash;

use crate::failure::Failure;

/// A role on objects.
#[derive(Debug, Clone, Args)]
pub(crate) struct Granted {
    /// What the role permits: read, write (includes read) or admin (everything).
    #[arg(long, value_name = "read|write|admin")]
    role: Role,
    /// Objects the role applies to: a name or a pattern such as "sales_*". May be repeated.
    #[arg(long, value_name = "PATTERN", default_value = "*")]
    on: Vec<String>,
}

impl Granted {
    fn line(&self) -> GrantLine {
        GrantLine { role: self.role.as_str().to_owned(), on: self.on.clone() }
    }
}

/// The file of users.
#[derive(Debug, Clone, Args)]
pub(crate) struct Users {
    /// The file. It is created if it does not exist.
    #[arg(long, value_name = "FILE")]
    users: PathBuf,
}

/// The file of tokens.
#[derive(Debug, Clone, Args)]
pub(crate) struct Tokens {
    /// The file. It is created if it does not exist.
    #[arg(long, value_name = "FILE")]
    tokens: PathBuf,
}

/// `windrow user …`.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum UserCommand {
    /// Add a user, or change the password and role of an existing one. The password is read from the
    /// terminal, or from the first line of stdin.
    Add {
        /// The user.
        name: String,
        #[command(flatten)]
        granted: Granted,
        #[command(flatten)]
        file: Users,
    },
    /// Give a user another role.
    Grant {
        /// The user.
        name: String,
        #[command(flatten)]
        granted: Granted,
        #[command(flatten)]
        file: Users,
    },
    /// Remove a user and end the sessions of that user.
    Remove {
        /// The user.
        name: String,
        #[command(flatten)]
        file: Users,
    },
    /// List the users.
    List {
        #[command(flatten)]
        file: Users,
    },
}

/// `windrow token …`.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a token and print it. It cannot be shown again: the file holds only its hash.
    Add {
        /// A name for it.
        name: String,
        #[command(flatten)]
        granted: Granted,
        /// Time from which it is no longer valid, such as 2027-01-01T00:00:00Z.
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
        #[command(flatten)]
        file: Tokens,
    },
    /// Remove a token: it is no longer valid.
    Remove {
        /// Its name.
        name: String,
        #[command(flatten)]
        file: Tokens,
    },
    /// List the names of the tokens.
    List {
        #[command(flatten)]
        file: Tokens,
    },
}

impl UserCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// For a file that cannot be used, a user who does not exist, an empty password.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        match self {
            Self::Add { name, granted, file } => {
                let mut lines: Vec<UserLine> = read(&file.users)?;
                check_name(name)?;
                let line = UserLine {
                    name: name.clone(),
                    grants: vec![granted.line()],
                    password: String::new(),
                };
                grants(&line)?;
                let line = UserLine { password: hash(&ask_password(name)?)?, ..line };
                lines.retain(|l| l.name != *name);
                lines.push(line);
                write(&file.users, &lines)?;
            }
            Self::Grant { name, granted, file } => {
                let mut lines: Vec<UserLine> = read(&file.users)?;
                let line = lines.iter_mut().find(|l| l.name == *name);
                let line = line.ok_or_else(|| nobody("user", name))?;
                line.grants.push(granted.line());
                grants(line)?;
                write(&file.users, &lines)?;
            }
            Self::Remove { name, file } => remove::<UserLine>("user", name, &file.users)?,
            Self::List { file } => list::<UserLine>(&read(&file.users)?)?,
        }
        Ok(())
    }
}

impl TokenCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// For a file that cannot be used, a token that does not exist, or that already exists.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        match self {
            Self::Add { name, granted, expires, file } => {
                let mut lines: Vec<TokenLine> = read(&file.tokens)?;
                check_name(name)?;
                if lines.iter().any(|l| l.name == *name) {
                    let message = format!("token \"{name}\" exists already");
                    return Err(Error::new(ErrorKind::Exists, message)
                        .with_hint("Remove it first, or choose another name.")
                        .into());
                }
                let (token, hash) = new_token();
                let line = TokenLine {
                    name: name.clone(),
                    grants: vec![granted.line()],
                    token: hash,
                    expires: expires.clone(),
                };
                line.check()?;
                grants(&line)?;
                lines.push(line);
                write(&file.tokens, &lines)?;
                writeln!(io::stdout(), "{token}")?;
            }
            Self::Remove { name, file } => remove::<TokenLine>("token", name, &file.tokens)?,
            Self::List { file } => list::<TokenLine>(&read(&file.tokens)?)?,
        }
        Ok(())
    }
}

fn remove<L: Line>(kind: &str, name: &str, file: &std::path::Path) -> Result<()> {
    let mut lines: Vec<L> = read(file)?;
    let before = lines.len();
    lines.retain(|l| l.name() != name);
    if lines.len() == before {
        return Err(nobody(kind, name));
    }
    write(file, &lines)
}

fn list<L: Line>(lines: &[L]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in lines {
        let grants = line.grants().iter().map(|g| format!("{} on {}", g.role, g.on.join(", ")));
        writeln!(out, "{}: {}", line.name(), grants.collect::<Vec<_>>().join("; "))?;
    }
    Ok(())
}

fn nobody(kind: &str, name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("{kind} \"{name}\" does not exist"))
}

/// Checks a name: in Basic authentication a colon ends the name.
fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.contains(|c: char| c == ':' || c.is_control()) {
        return Err(Error::config(format!("\"{}\" is not a name for a user", name.escape_debug()))
            .with_hint("A name is not empty, and has no colon and no control characters."));
    }
    Ok(())
}

/// Reads the password, from the terminal (twice), or the first line of stdin.
fn ask_password(name: &str) -> Result<String> {
    let failed = |e: io::Error| {
        Error::new(ErrorKind::Unavailable, format!("no password can be read: {e}")).with_source(e)
    };
    if !io::stdin().is_terminal() {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).map_err(failed)?;
        return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
    }
    let prompt = format!("Password of {name}: ");
    let first = rpassword::prompt_password(prompt).map_err(failed)?;
    let second = rpassword::prompt_password("Once more: ").map_err(failed)?;
    if first != second {
        return Err(Error::config("the two passwords differ"));
    }
    Ok(first)
}

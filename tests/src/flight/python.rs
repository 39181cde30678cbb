//! Clients of Python: ADBC, pyarrow, polars, pandas.

use std::path::Path;
use std::process::Command;

use libtest_mimic::{Failed, Trial};

use crate::flight::Served;
use crate::readers::python;
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("flight/python clients query", || script("tests/clients/query.py"))]
}

/// Runs a script against a server of its own.
pub(crate) fn script(path: &str) -> Result<(), Failed> {
    let served = Served::start()?;
    let output = Command::new(python()?).arg(Path::new(path)).arg(served.url()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(format!("{path}: {}\n{out}{err}", output.status).into())
}

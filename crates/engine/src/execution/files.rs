//! Which files a statement may read and write.

use std::path::Path;

use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::dml::CopyTo;
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use windrow_connectors::Files;
use windrow_core::{Error, ErrorKind, Result};
use windrow_sql::diagnostics::from_datafusion;
use windrow_stream::stream::table::outside;

use crate::execution::context::StatementContext;

/// The option of COPY that writes all rows to one file, whatever its name.
const ONE_FILE: &str = "single_file_output";

impl StatementContext {
    /// Returns the files that the statement may use.
    pub(crate) fn files(&self) -> Files {
        let parts = &self.instance.parts;
        match &self.restoring {
            // Objects of remote users stay within their roots, if any are configured today.
            Some(definition) => match &definition.base {
                Some(base) if parts.files.base().is_some() => parts.files.clone().relative_to(base),
                Some(base) => Files::anywhere().relative_to(base),
                None => Files::anywhere(),
            },
            None if self.access.is_confined() => parts.files.clone(),
            None => Files::anywhere(),
        }
    }

    /// Reads a whole file of this machine.
    ///
    /// # Errors
    /// When the statement may not read it, it is no file, cannot be read, or has more than `bytes_max` bytes.
    pub(crate) fn read_file(&self, path: &str, bytes_max: usize) -> Result<Vec<u8>> {
        let files = self.files();
        let place = files.to_read(path)?;
        let place = place.strip_prefix("file://").unwrap_or(&place);
        if place.contains("://") {
            return Err(Error::config(format!("\"{path}\" is not a file of this machine"))
                .with_hint("Copy it to the machine that runs the engine, and name its path."));
        }
        let unreadable = |e: std::io::Error| {
            let kind = match e.kind() {
                std::io::ErrorKind::NotFound => ErrorKind::NotFound,
                _ => ErrorKind::Unavailable,
            };
            Error::new(kind, format!("cannot read \"{path}\": {e}")).with_hint(
                "Relative paths are relative to the directory that the program was started in.",
            )
        };
        let meta = std::fs::metadata(place).map_err(unreadable)?;
        if !meta.is_file() {
            return Err(Error::config(format!("\"{path}\" is not a file")));
        }
        if meta.len() > bytes_max as u64 {
            let message = format!("\"{path}\" has {} bytes, more than {bytes_max}", meta.len());
            return Err(Error::new(ErrorKind::Limit, message));
        }
        files.check_found(Path::new(place))?;
        std::fs::read(place).map_err(unreadable)
    }

    /// Resolves the files of a plan of DataFusion's.
    ///
    /// # Errors
    /// When the statement may not use them.
    pub(crate) fn resolve_files(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let files = self.files();
        let resolved = plan.transform_down_with_subqueries(|node| {
            Ok(match node {
                LogicalPlan::Copy(mut copy) => {
                    copy.output_url = files.to_write(&copy.output_url).map_err(outside)?;
                    Transformed::yes(LogicalPlan::Copy(without_directories(copy).map_err(outside)?))
                }
                LogicalPlan::Ddl(DdlStatement::CreateExternalTable(mut create)) => {
                    for location in &mut create.locations {
                        *location = files.to_read(location).map_err(outside)?;
                        files.check_below(location).map_err(outside)?;
                    }
                    Transformed::yes(LogicalPlan::Ddl(DdlStatement::CreateExternalTable(create)))
                }
                node => Transformed::no(node),
            })
        });
        resolved.map(|resolved| resolved.data).map_err(from_datafusion)
    }
}

/// Makes COPY create no directory: it writes one file unless a directory is named, and that directory must exist.
///
/// # Errors
/// When the directory does not exist.
fn without_directories(mut copy: CopyTo) -> Result<CopyTo> {
    let url = copy.output_url.clone();
    let is_directory = url.ends_with('/')
        || !copy.partition_by.is_empty()
        || copy.options.get(ONE_FILE).is_some_and(|said| said == "false");
    if !is_directory {
        copy.options.entry(ONE_FILE.to_owned()).or_insert_with(|| "true".to_owned());
    }
    let local = match url.split_once("://") {
        None => url.as_str(),
        Some(("file", path)) => path,
        Some(_) => return Ok(copy),
    };
    let path = Path::new(local);
    let directory = if is_directory { Some(path) } else { path.parent() };
    let Some(directory) = directory.filter(|directory| !directory.as_os_str().is_empty()) else {
        return Ok(copy);
    };
    if !is_directory && path.is_dir() {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("\"{local}\" is a directory, not a file"),
        )
        .with_hint(format!(
            "Name a file in it, or write '{local}/' for files with names of their own."
        )));
    }
    if !directory.is_dir() {
        let directory = directory.display();
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("there is no directory \"{directory}\""),
        )
        .with_hint("COPY creates no directories. Create it first, or copy to another place."));
    }
    Ok(copy)
}

//! Names of objects: where statements find them, and how a name in SQL is folded.

use datafusion::common::TableReference;
use sqlparser::ast::{Ident, ObjectName, ObjectNamePart};
use windrow_core::{Error, Result};

/// The one catalog.
pub(crate) const CATALOG: &str = "datafusion";
/// The schema of streams, views and reference tables, the only one that statements write to.
pub(crate) const SCHEMA: &str = "public";
/// The schema of the system tables.
pub(crate) const SYSTEM_SCHEMA: &str = "windrow";

/// Folds an identifier: to lower case unless it is quoted.
pub(crate) fn ident_name(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// Returns the plain name of an object in the schema `public`.
///
/// # Errors
/// When the name is qualified with any other schema.
pub(crate) fn plain_name(name: &ObjectName) -> Result<String> {
    let mut parts = Vec::with_capacity(name.0.len());
    for part in &name.0 {
        let ObjectNamePart::Identifier(ident) = part else {
            return Err(Error::sql(format!("\"{name}\" is not a plain name")));
        };
        parts.push(ident_name(ident));
    }
    match parts.as_slice() {
        [name] => Ok(name.clone()),
        [schema, name] if schema == SCHEMA => Ok(name.clone()),
        [catalog, schema, name] if catalog == CATALOG && schema == SCHEMA => Ok(name.clone()),
        _ => Err(Error::sql(format!("\"{name}\" is outside the schema \"{SCHEMA}\""))
            .with_hint("Streams and views have plain names; the schema \"windrow\" is read only.")),
    }
}

/// Returns the name of an object as the patterns of grants match it.
pub(crate) fn granted_name(name: &ObjectName) -> String {
    plain_name(name).unwrap_or_else(|_| {
        let idents = name.0.iter().filter_map(|part| part.as_ident());
        without_defaults(&idents.map(ident_name).collect::<Vec<_>>())
    })
}

/// As [`granted_name`], of a name in a plan.
pub(crate) fn granted_table(name: &TableReference) -> String {
    let name = name.clone().resolve(CATALOG, SCHEMA);
    without_defaults(&[name.catalog.to_string(), name.schema.to_string(), name.table.to_string()])
}

/// Joins the parts of a name without the catalog and the schema that apply by default.
fn without_defaults(parts: &[String]) -> String {
    let parts = match parts {
        [catalog, rest @ ..] if catalog == CATALOG && rest.len() == 2 => rest,
        parts => parts,
    };
    let parts = match parts {
        [schema, name] if schema == SCHEMA => std::slice::from_ref(name),
        parts => parts,
    };
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_match_names_without_the_default_schema() {
        let name = |parts: &[&str]| {
            without_defaults(&parts.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(name(&["datafusion", "public", "s"]), "s");
        assert_eq!(name(&["public", "s"]), "s");
        assert_eq!(name(&["windrow", "streams"]), "windrow.streams");
        assert_eq!(name(&["datafusion", "windrow", "streams"]), "windrow.streams");
        assert_eq!(name(&["other", "public", "s"]), "other.public.s");
    }
}

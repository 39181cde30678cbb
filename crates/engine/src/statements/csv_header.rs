//! `CREATE EXTERNAL TABLE` over CSV with a header. DataFusion takes declared columns by position, whatever the header says, so a
//! declaration in another order would put values into the wrong columns. It is refused.

use datafusion::execution::SessionState;
use datafusion::logical_expr::{CreateExternalTable, DdlStatement, LogicalPlan};
use windrow_core::{Error, Result};

/// Checks that the declared columns of an external table are those of the header, in its order.
///
/// # Errors
/// When they are not.
pub(super) async fn check_header(state: &SessionState, plan: &LogicalPlan) -> Result<()> {
    let LogicalPlan::Ddl(DdlStatement::CreateExternalTable(create)) = plan else {
        return Ok(());
    };
    let is_csv = ["csv", "tsv"].contains(&create.file_type.to_lowercase().as_str());
    if !is_csv || create.schema.fields().is_empty() {
        return Ok(());
    }
    let header = header(state, create).await;
    let is_partition = |name: &str| create.table_partition_cols.iter().any(|p| p == name);
    let names = create.schema.fields().iter().map(|field| field.name().as_str());
    let declared: Vec<&str> = names.filter(|name| !is_partition(name)).collect();
    let wrong = declared.iter().zip(&header).find(|(name, has)| !has.eq_ignore_ascii_case(name));
    let Some((name, has)) = wrong else { return Ok(()) };
    let table = create.name.table();
    Err(Error::sql(format!(
        "column \"{name}\" of table \"{table}\" is at the position of \"{has}\" in the header of its files"
    ))
    .with_hint(format!(
        "An external table takes the columns of CSV by their place: declare them in the order of the header ({}), \
         omit them, or create a stream, which matches columns by name.",
        header.join(", ")
    )))
}

/// Returns the names in the header of the files; none if there is no header or nothing can be read, which is reported when
/// the table is read.
async fn header(state: &SessionState, create: &CreateExternalTable) -> Vec<String> {
    let Some(factory) = state.table_factories().get(&create.file_type.to_uppercase()) else {
        return vec![];
    };
    let mut bare = create.clone();
    bare.schema = datafusion::common::DFSchema::empty().into();
    bare.order_exprs.clear();
    bare.column_defaults.clear();
    bare.constraints = datafusion::common::Constraints::default();
    let schema = match factory.create(state, &bare).await {
        Ok(table) => table.schema(),
        Err(error) => {
            tracing::debug!(%error, "the header of an external table cannot be read");
            return vec![];
        }
    };
    let partitions = &create.table_partition_cols;
    let names = schema.fields().iter().map(|field| field.name().clone());
    let names: Vec<String> = names.filter(|name| !partitions.contains(name)).collect();
    // The names that DataFusion gives to unnamed columns.
    let is_unnamed = |(number, name): (usize, &String)| *name == format!("column_{}", number + 1);
    if names.iter().enumerate().all(is_unnamed) { vec![] } else { names }
}

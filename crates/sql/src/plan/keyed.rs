//! Streams with a primary key: the current rows, as a plan over the log of their changes.
//!
//! ```text
//! rows that are not deleted ◄─ the last row of each key ◄─ log: columns, whether it deletes, its position
//! ```
//! The log is append-only, as that of any stream. Each of its rows replaces the row of its key, or deletes it. So the
//! current rows are an aggregate, which every form plans as one: a bounded query groups, and an updating query takes the
//! changes of the aggregate.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Column, DataFusionError, Result, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{
    Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, TableProviderFilterPushDown, TableType,
};
use datafusion::physical_plan::ExecutionPlan;
use windrow_core::Error;

use super::relation::StreamRelation;
use crate::diagnostics::from_datafusion;

/// The hidden column of a log of changes that says whether the row deletes the one of its key: BOOLEAN, never NULL.
pub const DELETED_COLUMN: &str = "__deleted";

/// The hidden column of a log of changes with the position of a row in it: of several rows of a key, the one with the
/// greatest is the current one. It is not stored, but follows from where a row is.
pub const SEQUENCE_COLUMN: &str = "__sequence";

/// The current rows of a stream with a primary key, for the planner.
#[derive(Debug)]
pub struct KeyedTable {
    schema: SchemaRef,
    current: LogicalPlan,
}

impl KeyedTable {
    /// The current rows of the log `changes`, whose last two columns are the hidden ones. `key`: the columns that identify
    /// a row.
    ///
    /// # Errors
    /// Internal when the columns are others.
    pub fn try_new(
        state: &SessionState,
        changes: StreamRelation,
        key: &[usize],
    ) -> Result<Self, Error> {
        let all = TableProvider::schema(&changes);
        let visible = all.fields().len().saturating_sub(2);
        let shown: Vec<_> = all.fields().iter().take(visible).cloned().collect();
        let schema = Arc::new(Schema::new(shown));
        let current = current_rows(state, changes, &schema, key).map_err(from_datafusion)?;
        Ok(Self { schema, current })
    }
}

fn current_rows(
    state: &SessionState,
    changes: StreamRelation,
    shown: &Schema,
    key: &[usize],
) -> Result<LogicalPlan> {
    let max_by = state.aggregate_functions().get("max_by");
    let missing = || DataFusionError::External(Box::new(Error::internal("there is no max_by")));
    let max_by = max_by.ok_or_else(missing)?;
    let table = TableReference::bare(changes.name().to_owned());
    let column = |name: &str| Expr::Column(Column::new(Some(table.clone()), name));
    let last = |name: &str| {
        max_by.call(vec![column(name), column(SEQUENCE_COLUMN)]).alias(name.to_owned())
    };
    let names: Vec<&str> = shown.fields().iter().map(|field| field.name().as_str()).collect();
    let of_key = |at: &usize| key.contains(at);
    let mut keys = vec![];
    let mut values = vec![];
    let mut columns = vec![];
    for (at, name) in names.iter().enumerate() {
        match of_key(&at) {
            true => {
                keys.push(column(name));
                // Without an alias: the optimizer mixes up a name with and without a qualifier.
                columns.push(column(name));
            }
            false => {
                values.push(last(name));
                columns.push(Expr::Column(Column::new_unqualified(*name)));
            }
        }
    }
    values.push(last(DELETED_COLUMN));
    let deleted = Expr::Column(Column::new_unqualified(DELETED_COLUMN));
    LogicalPlanBuilder::scan(table.clone(), provider_as_source(Arc::new(changes)), None)?
        .aggregate(keys, values)?
        .filter(Expr::Not(Box::new(deleted)))?
        .project(columns)?
        .build()
}

/// Whether an aggregate is that of the current rows of a stream with a primary key.
pub(super) fn is_current_rows(aggregate: &Aggregate) -> bool {
    let is_deleted =
        |expr: &Expr| matches!(expr, Expr::Alias(alias) if alias.name == DELETED_COLUMN);
    aggregate.aggr_expr.iter().any(is_deleted)
}

#[async_trait]
impl TableProvider for KeyedTable {
    fn get_logical_plan(&'_ self) -> Option<Cow<'_, LogicalPlan>> {
        Some(Cow::Borrowed(&self.current))
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Unsupported; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut plan = LogicalPlanBuilder::from(self.current.clone());
        if let Some(columns) = projection {
            plan = plan.select(columns.iter().copied())?;
        }
        if limit.is_some() {
            plan = plan.limit(0, limit)?;
        }
        state.create_physical_plan(&plan.build()?).await
    }
}

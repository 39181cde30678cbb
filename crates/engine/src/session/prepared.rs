//! Prepared statements: which columns they return and which parameters they take, before they are executed. Preparing a
//! statement changes nothing and reads no stream.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::ScalarValue;
use futures::future::BoxFuture;
use windrow_core::{Error, ErrorKind, Result, sql_type};
use windrow_sql::diagnostics::{arrow_says, from_datafusion};
use windrow_sql::parse::{Parsed, located};
use windrow_sql::plan::Parameters;

use super::Session;
use crate::execution::context::{StatementContext, Values};
use crate::execution::outcome::Outcome;
use crate::execution::task::AbortOnDrop;
use crate::statements::{self, Statement};

/// A prepared statement.
#[derive(Debug, Clone)]
pub struct Prepared {
    statement: Arc<dyn Statement>,
    text: Arc<str>,
    rows: Option<SchemaRef>,
    parameters: Arc<Vec<Option<DataType>>>,
}

impl Prepared {
    /// Returns the columns of its rows; `None`: it returns no rows. A column that is computed from a parameter of unknown type
    /// has the type Null.
    pub fn rows(&self) -> Option<&SchemaRef> {
        self.rows.as_ref()
    }

    /// Returns the parameters in order, named `$1` and so on. A parameter whose type the statement does not determine has the
    /// type Null.
    pub fn parameters(&self) -> SchemaRef {
        let field = |(i, t): (usize, &Option<DataType>)| {
            Field::new(format!("${}", i + 1), t.clone().unwrap_or(DataType::Null), true)
        };
        let fields: Vec<Field> = self.parameters.iter().enumerate().map(field).collect();
        Arc::new(Schema::new(fields))
    }

    /// Returns the text of the statement.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the values of each row of `batch`, whose columns are the parameters in order.
    ///
    /// # Errors
    /// When the number of columns is another, or a value does not fit its parameter.
    pub fn bind(&self, batch: &RecordBatch) -> Result<Vec<Values>> {
        let (wanted, given) = (self.parameters.len(), batch.num_columns());
        if wanted != given {
            return Err(Error::sql(format!(
                "the statement has {wanted} parameters, {given} values are given"
            )));
        }
        let columns = batch.columns().iter().zip(self.parameters.iter()).enumerate();
        let columns = columns.map(|(i, (column, wanted))| fit(i + 1, column, wanted.as_ref()));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let row = |row: usize| {
            let values = columns.iter().map(|c| ScalarValue::try_from_array(c, row));
            Ok(Values(values.collect::<Result<_, _>>().map_err(from_datafusion)?))
        };
        (0..batch.num_rows()).map(row).collect()
    }
}

/// Casts the values of one parameter to its type.
fn fit(number: usize, column: &ArrayRef, wanted: Option<&DataType>) -> Result<ArrayRef> {
    let Some(wanted) = wanted.filter(|wanted| *wanted != column.data_type()) else {
        return Ok(Arc::clone(column));
    };
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, wanted, &strict).map_err(|e| {
        let (wanted, given, why) = (sql_type(wanted), sql_type(column.data_type()), arrow_says(&e));
        Error::new(
            ErrorKind::Data,
            format!("parameter ${number} is {wanted}, the value is {given}: {why}"),
        )
        .with_source(e)
    })
}

impl Session {
    /// Prepares a statement without executing it.
    ///
    /// # Errors
    /// What is wrong with the statement, with its place.
    pub fn prepare<'a>(&'a self, statement: &'a Parsed) -> BoxFuture<'a, Result<Prepared>> {
        Box::pin(async move {
            self.check_size(&statement.text)?;
            let source = statement.source();
            let (cx, text) = (self.statement_context(), Arc::from(statement.text.as_str()));
            let statement: Arc<dyn Statement> = Arc::from(statements::of(statement.clone()));
            self.within_deadline(cx, async move |mut cx: StatementContext| {
                cx.instance.start_pending();
                // First: other errors would reveal objects that are hidden from the user.
                statement.authorize(&cx.access, cx.catalog())?;
                let parameters = parameters(&*statement, &text, &cx).await?;
                let last = parameters.keys().next_back().copied().unwrap_or_default();
                let types = (1..=last).map(|n| parameters.get(&n).cloned().flatten());
                let types: Vec<Option<DataType>> = types.collect();
                let nulls = types.iter().map(|t| null(t.as_ref()));
                cx.values = Values(nulls.collect::<Result<Vec<_>>>()?.into());
                let rows = statement.columns(&cx).await?;
                Ok(Prepared { statement, text, rows, parameters: Arc::new(types) })
            })
            .await
            .map_err(|error| located(error, &source))
        })
    }

    /// Returns the columns of a statement with these values; `None`: it returns no rows.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    pub fn columns_with<'a>(
        &'a self,
        prepared: &'a Prepared,
        values: &'a Values,
    ) -> BoxFuture<'a, Result<Option<SchemaRef>>> {
        Box::pin(async move {
            let cx = StatementContext { values: values.clone(), ..self.statement_context() };
            let statement = Arc::clone(&prepared.statement);
            self.within_deadline(cx, async move |cx: StatementContext| {
                statement.authorize(&cx.access, cx.catalog())?;
                statement.columns(&cx).await
            })
            .await
        })
    }

    /// Executes a prepared statement with values for its parameters.
    ///
    /// # Errors
    /// As [`execute`](Self::execute); when a parameter has no value.
    pub fn execute_with<'a>(
        &'a self,
        prepared: &'a Prepared,
        values: &'a Values,
    ) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async move {
            let cx = StatementContext { values: values.clone(), ..self.statement_context() };
            self.spawn(cx, Arc::clone(&prepared.statement)).await
        })
    }

    /// Executes an INSERT of one row of VALUES into a stream for all rows of `values`, as one INSERT: all rows are inserted or
    /// none. `None`: the statement is another one, to be executed for each row separately.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub fn insert_rows<'a>(
        &'a self,
        prepared: &'a Prepared,
        values: &'a [Values],
    ) -> BoxFuture<'a, Result<Option<Outcome>>> {
        Box::pin(async move {
            let cx = self.statement_context();
            let takes_all = prepared.statement.takes_value_rows(&cx).await;
            if !takes_all.map_err(|error| cx.suggest(error))? {
                return Ok(None);
            }
            let rows = Some(value_rows(&prepared.parameters(), values)?);
            let cx = StatementContext { value_rows: rows, ..self.statement_context() };
            self.spawn(cx, Arc::clone(&prepared.statement)).await.map(Some)
        })
    }

    /// Works on a statement that is not executed, on the threads of the engine and up to its deadline.
    async fn within_deadline<T, F>(
        &self,
        cx: StatementContext,
        work: impl FnOnce(StatementContext) -> F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let task = AbortOnDrop(self.instance.parts.cpu.spawn(work(cx.clone())));
        let done = tokio::select! {
            done = task => done,
            error = cx.deadline() => Err(error),
        };
        done.map_err(|error| cx.suggest(error))
    }
}

/// Returns the parameters of a statement. Most statements have none, and planning takes time.
async fn parameters(
    statement: &dyn Statement,
    text: &str,
    cx: &StatementContext,
) -> Result<Parameters> {
    match text.contains(['?', '$']) {
        true => statement.parameters(cx).await,
        false => Ok(Parameters::new()),
    }
}

/// Returns many rows of values of `parameters` as a batch.
fn value_rows(parameters: &Schema, values: &[Values]) -> Result<RecordBatch> {
    let column = |(at, field): (usize, &FieldRef)| {
        let column = values.iter().map(|v| v.0.get(at).cloned().unwrap_or(ScalarValue::Null));
        // Where the statement does not determine the type of a parameter, its values do.
        let column = ScalarValue::iter_to_array(column).map_err(from_datafusion)?;
        Ok((Field::new(field.name(), column.data_type().clone(), true), column))
    };
    let columns = parameters.fields().iter().enumerate().map(column);
    let (fields, columns): (Vec<_>, Vec<_>) =
        columns.collect::<Result<Vec<_>>>()?.into_iter().unzip();
    let options = RecordBatchOptions::new().with_row_count(Some(values.len()));
    let schema = Arc::new(Schema::new(fields));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

/// Returns the NULL of a type.
fn null(data_type: Option<&DataType>) -> Result<ScalarValue> {
    match data_type {
        Some(data_type) => ScalarValue::try_from(data_type).map_err(from_datafusion),
        None => Ok(ScalarValue::Null),
    }
}

//! Statements that are understood before they are executed: which columns they give, which
//! parameters they take. Nothing is changed and no stream is read by that.

use futures::future::BoxFuture;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::LogicalPlan;
use sqlparser::ast::{Expr, Ident, Query, SetExpr, Value};
use windrow_core::{Error, ErrorKind, Result, sql_type};
use windrow_sql::diagnostics::{arrow_says, from_datafusion};
use windrow_sql::parse::{ContinuousQuery, Explain, Explained, Insert, Parsed, Statement, located};
use windrow_sql::plan::{Parameters, bind, parameters, plan_query, unbound};
use windrow_stream::Feed;

use crate::catalog::{Object, plain_name};
use crate::session::{AbortOnDrop, Outcome, Session};

/// A statement that has been understood.
#[derive(Debug, Clone)]
pub struct Prepared {
    statement: Arc<Parsed>,
    rows: Option<SchemaRef>,
    parameters: Arc<Vec<Option<DataType>>>,
}

/// The values of the parameters of a statement, for one execution.
#[derive(Debug, Clone, Default)]
pub struct Values(Arc<[ScalarValue]>);

impl Prepared {
    /// The columns of its rows; `None`: it gives none, it changes something. Where nothing tells
    /// the type of a parameter, a column that is made of it has the type Null.
    pub fn rows(&self) -> Option<&SchemaRef> {
        self.rows.as_ref()
    }

    /// The parameters in their order, named `$1` and so on; of the type Null where nothing in the
    /// statement tells which it is.
    pub fn parameters(&self) -> SchemaRef {
        let field = |(i, t): (usize, &Option<DataType>)| {
            Field::new(format!("${}", i + 1), t.clone().unwrap_or(DataType::Null), true)
        };
        let fields: Vec<Field> = self.parameters.iter().enumerate().map(field).collect();
        Arc::new(Schema::new(fields))
    }

    /// The statement's text.
    pub fn text(&self) -> &str {
        &self.statement.text
    }

    /// The values of each row of `batch`, whose columns are the parameters in their order.
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

/// The values of one parameter in its type.
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
    /// Understands a statement without executing it.
    ///
    /// # Errors
    /// What is wrong with the statement, with its place.
    pub fn prepare<'a>(&'a self, statement: &'a Parsed) -> BoxFuture<'a, Result<Prepared>> {
        Box::pin(async move {
            self.check_size(&statement.text)?;
            let (session, text) = (self.for_statement(), statement);
            let statement = Arc::new(statement.clone());
            self.on_engine(async move {
                session.engine.start_pending();
                // First: mistakes in what is not for this user would tell about it.
                session.check_statement(&statement.statement)?;
                // Most statements have none, and planning takes its time.
                let parameters = match statement.text.contains(['?', '$']) {
                    true => session.parameters(&statement.statement).await?,
                    false => Parameters::new(),
                };
                let last = parameters.keys().next_back().copied().unwrap_or_default();
                let types = (1..=last).map(|n| parameters.get(&n).cloned().flatten());
                let types: Vec<Option<DataType>> = types.collect();
                let nulls = types.iter().map(|t| null(t.as_ref()));
                let nulls = nulls.collect::<Result<Vec<_>>>()?;
                let session = Self { values: Values(nulls.into()), ..session };
                let rows = session.columns_of(statement.statement.clone()).await?;
                Ok(Prepared { statement, rows, parameters: Arc::new(types) })
            })
            .await
            .map_err(|error| located(error, &text.source()))
        })
    }

    /// The columns that a statement gives with these values; `None`: it gives no rows.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    pub fn columns_with<'a>(
        &'a self,
        prepared: &'a Prepared,
        values: &'a Values,
    ) -> BoxFuture<'a, Result<Option<SchemaRef>>> {
        Box::pin(async move {
            let session = Self { values: values.clone(), ..self.for_statement() };
            let statement = Arc::clone(&prepared.statement);
            self.on_engine(async move { session.columns_of(statement.statement.clone()).await })
                .await
        })
    }

    /// Executes a statement with values for its parameters.
    ///
    /// # Errors
    /// As [`execute`](Self::execute); when a parameter has no value.
    pub fn execute_with<'a>(
        &'a self,
        prepared: &'a Prepared,
        values: &'a Values,
    ) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async move {
            let session = Self { values: values.clone(), ..self.clone() };
            session.execute(&prepared.statement).await
        })
    }

    /// Executes an INSERT of one row of VALUES into a stream for all rows of `values` together, as
    /// one INSERT: all rows are inserted or none. `None`: it is another statement, to be executed for
    /// each row by itself.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub fn insert_rows<'a>(
        &'a self,
        prepared: &'a Prepared,
        values: &'a [Values],
    ) -> BoxFuture<'a, Result<Option<Outcome>>> {
        Box::pin(async move {
            let Statement::Insert(insert) = &prepared.statement.statement else { return Ok(None) };
            let target = self.engine.catalog.get(&plain_name(&insert.target)?);
            let is_push =
                matches!(&target, Some(Object::Stream(s)) if matches!(s.feed, Feed::Push(_)));
            if !is_push || !insert.query.tail.is_empty() {
                return Ok(None);
            }
            // The plan tells, not the text: VALUES may stand below a LIMIT.
            let plan = self.unbound(&insert.query.query).await.map_err(|e| self.suggest(e))?;
            if !matches!(plan, LogicalPlan::Values(values) if values.values.len() == 1) {
                return Ok(None);
            }
            let fields = prepared.parameters();
            let column = |(at, field): (usize, &FieldRef)| {
                let column =
                    values.iter().map(|v| v.0.get(at).cloned().unwrap_or(ScalarValue::Null));
                // Where nothing tells the type of a parameter, its values do.
                let column = ScalarValue::iter_to_array(column).map_err(from_datafusion)?;
                Ok((Field::new(field.name(), column.data_type().clone(), true), column))
            };
            let columns = fields.fields().iter().enumerate().map(column);
            let (fields, columns): (Vec<_>, Vec<_>) =
                columns.collect::<Result<Vec<_>>>()?.into_iter().unzip();
            let options = RecordBatchOptions::new().with_row_count(Some(values.len()));
            let schema = Arc::new(Schema::new(fields));
            let rows = RecordBatch::try_new_with_options(schema, columns, &options)?;
            let session = Self { value_rows: Some(rows), ..self.clone() };
            session.execute(&prepared.statement).await.map(Some)
        })
    }

    /// Works on a statement that is not executed, no longer than it may take.
    async fn on_engine<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let task = AbortOnDrop(self.engine.parts.cpu.spawn(work));
        let done = tokio::select! {
            done = task => done,
            error = self.too_long() => Err(error),
        };
        done.map_err(|e| self.suggest(e))
    }

    /// Plans a query with the values of its parameters; `columns` renames its columns.
    pub(super) async fn plan(&self, query: &Query, columns: &[Ident]) -> Result<LogicalPlan> {
        let state = self.state();
        let (query, columns) = (query.clone(), columns.to_vec());
        let values = Arc::clone(&self.values.0);
        self.planning(async move { plan_query(&state, query, &columns, &values).await }).await
    }

    /// The same before its parameters have values.
    async fn unbound(&self, query: &Query) -> Result<LogicalPlan> {
        let (state, query) = (self.state(), query.clone());
        self.planning(async move { unbound(&state, query).await }).await
    }

    /// A plan of the engine underneath with the values of its parameters.
    pub(super) fn bound(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        match plan {
            // PREPARE keeps its parameters.
            LogicalPlan::Statement(_) => Ok(plan),
            plan => bind(plan, &self.values.0),
        }
    }

    /// The parameters of a statement.
    async fn parameters(&self, statement: &Statement) -> Result<Parameters> {
        match statement {
            Statement::Query(query) => parameters(&self.unbound(&query.query).await?),
            Statement::Insert(insert) => self.insert_parameters(insert).await,
            Statement::Explain(Explain { what: Explained::Statement(statement), .. }) => {
                Box::pin(self.parameters(statement)).await
            }
            Statement::DataFusion(statement) => {
                match self.standard_plan((**statement).clone()).await? {
                    LogicalPlan::Statement(_) => Ok(Parameters::new()),
                    plan => parameters(&plan),
                }
            }
            _ => Ok(Parameters::new()),
        }
    }

    async fn insert_parameters(&self, insert: &Insert) -> Result<Parameters> {
        let name = plain_name(&insert.target)?;
        let Some(Object::Stream(stream)) = self.engine.catalog.get(&name) else {
            return parameters(&self.standard_plan(insert.clone().into_datafusion()).await?);
        };
        let plan = self.unbound(&insert.query.query).await?;
        let mut found = parameters(&plan)?;
        // A parameter that is a value by itself has the type of its column.
        let (Feed::Push(push), SetExpr::Values(values)) = (&stream.feed, &*insert.query.query.body)
        else {
            return Ok(found);
        };
        let fields = push.physical().fields();
        let column = |at: usize| match insert.columns.get(at) {
            Some(ident) => {
                let folded = ident.quote_style.is_none();
                let name = if folded { ident.value.to_lowercase() } else { ident.value.clone() };
                fields.find(&name).map(|(_, field)| field)
            }
            None => fields.get(at),
        };
        for (at, value) in values.rows.iter().flat_map(|row| row.iter().enumerate()) {
            if let (Some(number), Some(field)) = (placeholder(value), column(at)) {
                found.insert(number, Some(field.data_type().clone()));
            }
        }
        Ok(found)
    }

    /// The columns that a statement gives.
    async fn columns_of(&self, statement: Statement) -> Result<Option<SchemaRef>> {
        // Columns are not for everybody either.
        self.check_statement(&statement)?;
        match statement {
            Statement::Query(query) => self.query_columns(&query).await.map(Some),
            Statement::Subscribe { view, .. } => {
                let view = self.engine.catalog.materialized(&plain_name(&view)?)?;
                Ok(Some(Arc::clone(view.log.schema())))
            }
            Statement::Verify(verify) => {
                self.engine.catalog.materialized(&plain_name(&verify.view)?)?;
                Ok(Some(super::verify::columns()))
            }
            Statement::Explain(Explain { analyze: true, verbose, what }) => {
                // The same columns as without executing it.
                let explain = Explain { analyze: false, verbose, what };
                shown(Box::pin(self.explain(explain)).await?)
            }
            statement @ (Statement::Explain(_)
            | Statement::Show(_)
            | Statement::ShowCreate(_)
            | Statement::Describe(_)) => {
                // They only look; what they see now is thrown away.
                let text = String::new();
                let parsed = Parsed { statement, text, first_line: 1, first_column: 1 };
                shown(Box::pin(self.dispatch_statement(parsed)).await?)
            }
            Statement::DataFusion(statement) => {
                let plan = self.standard_plan(*statement).await?;
                self.check_plan(&plan)?;
                match self.bound(plan)? {
                    LogicalPlan::Ddl(_)
                    | LogicalPlan::Dml(_)
                    | LogicalPlan::Copy(_)
                    | LogicalPlan::Statement(_) => Ok(None),
                    plan => self.physical_columns(plan).await.map(Some),
                }
            }
            Statement::Insert(insert) => {
                self.check_target(&insert)?;
                self.plan(&insert.query.query, &[]).await?;
                Ok(None)
            }
            Statement::CreateStream(_)
            | Statement::CreateView(_)
            | Statement::WaitFor { .. }
            | Statement::Drop(_)
            | Statement::Set(_) => Ok(None),
        }
    }

    /// Whether rows can be inserted at all.
    fn check_target(&self, insert: &Insert) -> Result<()> {
        let name = plain_name(&insert.target)?;
        match self.engine.catalog.exists(&name) {
            true => Ok(()),
            false => Err(self.engine.catalog.missing("stream", &name)),
        }
    }

    async fn query_columns(&self, query: &ContinuousQuery) -> Result<SchemaRef> {
        let plan = self.plan(&query.query, &[]).await?;
        if query.tail.is_empty() {
            return self.physical_columns(plan).await;
        }
        Ok(self.continuous(plan, &query.tail).await?.schema)
    }

    async fn physical_columns(&self, plan: LogicalPlan) -> Result<SchemaRef> {
        Ok(self.physical(self.state(), plan).await?.schema())
    }
}

/// The columns of rows that are there.
fn shown(outcome: Outcome) -> Result<Option<SchemaRef>> {
    match outcome {
        Outcome::Rows(rows) => Ok(Some(Arc::clone(rows.schema()))),
        Outcome::Done(_) => Ok(None),
    }
}

fn null(data_type: Option<&DataType>) -> Result<ScalarValue> {
    match data_type {
        Some(data_type) => ScalarValue::try_from(data_type).map_err(from_datafusion),
        None => Ok(ScalarValue::Null),
    }
}

/// The number of the parameter that an expression is.
fn placeholder(expr: &Expr) -> Option<usize> {
    let Expr::Value(value) = expr else { return None };
    let Value::Placeholder(text) = &value.value else { return None };
    text.strip_prefix('$')?.parse().ok()
}

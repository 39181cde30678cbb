//! The columns and the watermark that `CREATE STREAM` declares.

use std::sync::Arc;

use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{DdlStatement, Expr as PlanExpr, ExprSchemable, LogicalPlan};
use datafusion::sql::parser::Statement as EngineStatement;
use sqlparser::ast::helpers::stmt_create_table::CreateTableBuilder;
use sqlparser::ast::{
    ArrayElemTypeDef, BinaryOperator, ColumnDef, ColumnOption, DataType, Expr, ExprWithAlias,
    Ident, ObjectName,
};
use windrow_core::time::{nanos_to_ticks, ticks_per_second, time_unit};
use windrow_core::{Clock, Error, EventTimeColumn, Result, sql_type};
use windrow_sql::diagnostics::{from_datafusion, nearest};
use windrow_sql::parse::{CheckClause, WatermarkClause, characters_max, is_proctime};
use windrow_sql::plan::{depends_on_arguments, physical_expression};
use windrow_stream::checks::{Check, Checks};
use windrow_stream::generated::{Column, Columns, IntakeTime};
use windrow_stream::texts::Texts;

use crate::execution::options::interval_nanos;
use crate::names::ident_name;

/// Returns the declared columns as Arrow columns, generated ones with their expression. `clock` gives processing time.
///
/// # Errors
/// When a type is unknown, or an expression cannot be planned.
pub(super) async fn declared_columns(
    state: &SessionState,
    columns: &[ColumnDef],
    clock: &Arc<dyn Clock>,
) -> Result<Columns> {
    let mut plain = columns.to_vec();
    for column in &mut plain {
        column.options.retain(|o| matches!(o.option, ColumnOption::NotNull | ColumnOption::Null));
    }
    let name = ObjectName::from(vec![Ident::new("windrow_columns")]);
    let table = CreateTableBuilder::new(name).columns(plain).build();
    let statement = EngineStatement::Statement(Box::new(table.into()));
    let plan = windrow_sql::plan::statement(state, statement).await?;
    let LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(table)) = plan else {
        return Err(Error::internal("column definitions did not plan as a table"));
    };
    let schema: SchemaRef = Arc::clone(table.input.schema().inner());
    let generated = |column: &ColumnDef| {
        column.options.iter().find_map(|o| match &o.option {
            ColumnOption::Generated { generation_expr: Some(expr), .. } => Some(expr.clone()),
            _ => None,
        })
    };
    let physical: SchemaRef = Arc::new(Schema::new(
        schema
            .fields()
            .iter()
            .zip(columns)
            .filter(|(_, column)| generated(column).is_none())
            .map(|(field, _)| Arc::clone(field))
            .collect::<Vec<Arc<Field>>>(),
    ));
    let df_schema = DFSchema::try_from(Arc::clone(&physical)).map_err(from_datafusion)?;
    let with_length =
        |c: &&ColumnDef| generated(c).is_some() && characters_max(&c.data_type).is_some();
    if let Some(column) = columns.iter().find(with_length) {
        let name = ident_name(&column.name);
        return Err(Error::sql(format!("the generated column \"{name}\" has a length"))
            .with_hint("Declare it as VARCHAR, and cut the text with left(…, n)."));
    }
    let is_json = |c: &&ColumnDef| matches!(c.data_type, DataType::JSON | DataType::JSONB);
    if let Some(column) = columns.iter().find(|c| generated(c).is_some() && is_json(c)) {
        let name = ident_name(&column.name);
        return Err(Error::sql(format!("the generated column \"{name}\" is JSON"))
            .with_hint("Declare it as VARCHAR, and write json(…) in the expression."));
    }
    let mut kinds = Vec::with_capacity(columns.len());
    let mut next = 0;
    for column in columns {
        kinds.push(match generated(column) {
            None => {
                next += 1;
                Column::Physical(next - 1)
            }
            Some(expr) if is_proctime(&expr) => {
                Column::Intake(Arc::new(IntakeTime::new(Arc::clone(clock))))
            }
            Some(expr) => {
                let expr = ExprWithAlias { expr, alias: None };
                let expr = state
                    .create_logical_expr_from_sql_expr(expr, &df_schema)
                    .map_err(from_datafusion)?;
                Column::Generated(physical_expression(state, expr, &df_schema)?)
            }
        });
    }
    let texts = Texts::of(columns.iter().filter(|column| generated(column).is_none()));
    Ok(Columns { schema, physical, columns: kinds, texts })
}

/// Returns the checks of a stream with these columns. A check without a name is named after the stream and the column that it
/// reads, as in PostgreSQL, and unlike the names in `taken`.
///
/// # Errors
/// When a condition does not fit the columns, is not boolean, or is not immutable.
pub(super) fn checks(
    state: &SessionState,
    stream: &str,
    schema: &SchemaRef,
    clauses: &[CheckClause],
    mut taken: Vec<String>,
) -> Result<Checks> {
    let df_schema = DFSchema::try_from(Arc::clone(schema)).map_err(from_datafusion)?;
    taken.extend(clauses.iter().filter_map(|c| c.name.as_ref().map(ident_name)));
    let mut checks = Vec::with_capacity(clauses.len());
    for clause in clauses {
        let planned = || {
            let expr = ExprWithAlias { expr: clause.expr.clone(), alias: None };
            let expr = state
                .create_logical_expr_from_sql_expr(expr, &df_schema)
                .map_err(from_datafusion)?;
            depends_on_arguments(&expr, "a check")?;
            let data_type = expr.get_type(&df_schema).map_err(from_datafusion)?;
            if !matches!(data_type, ArrowType::Boolean | ArrowType::Null) {
                let found = sql_type(&data_type);
                return Err(Error::sql(format!("a check is a condition, and this is {found}"))
                    .with_hint("Write a comparison: CHECK (amount > 0)."));
            }
            let mut names: Vec<String> =
                expr.column_refs().into_iter().map(|c| c.name.clone()).collect();
            names.sort_unstable();
            let expr = expr.cast_to(&ArrowType::Boolean, &df_schema).map_err(from_datafusion)?;
            Ok((physical_expression(state, expr, &df_schema)?, names))
        };
        let placed = |e: Error| if e.place().is_none() { e.with_place(clause.place) } else { e };
        let (condition, columns) = planned().map_err(placed)?;
        let name = match &clause.name {
            Some(name) => ident_name(name),
            None => {
                let about = match columns.as_slice() {
                    [column] => format!("{stream}_{column}_check"),
                    _ => format!("{stream}_check"),
                };
                let mut numbered = (1..).map(|n| format!("{about}{n}"));
                let mut name = about.clone();
                while taken.contains(&name) {
                    name = numbered.next().unwrap_or_default();
                }
                taken.push(name.clone());
                name
            }
        };
        checks.push(Check { name, text: clause.text.clone(), condition });
    }
    Ok(Checks(checks))
}

/// Returns the event time that `WATERMARK FOR column AS column - INTERVAL …` declares.
///
/// # Errors
/// When there is no such column, or the expression is another one.
pub(super) fn event_time(
    state: &SessionState,
    schema: &SchemaRef,
    clause: &WatermarkClause,
) -> Result<EventTimeColumn> {
    let name = ident_name(&clause.column);
    let Some((index, field)) = schema.column_with_name(&name) else {
        let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        let error = Error::sql(format!("WATERMARK FOR names no column: \"{name}\""))
            .with_place(clause.place);
        return Err(match nearest(&name, names.iter().copied()) {
            Some(near) => error.with_hint(format!("Did you mean \"{near}\"?")),
            None => error.with_hint(format!("Known columns: {}.", names.join(", "))),
        });
    };
    let Some(unit) = time_unit(field.data_type()) else {
        return Ok(EventTimeColumn { index, delay_ticks: 0 });
    };
    let nanos = match &clause.expr {
        None => 0,
        Some(expr) => delay_nanos(state, expr, &clause.column).map_err(|e| match e.place() {
            Some(_) => e,
            None => e.with_place(clause.place),
        })?,
    };
    // A delay that is no whole number of ticks is rounded up: it may be longer, never shorter.
    let tick = 1_000_000_000 / i128::from(ticks_per_second(unit));
    let whole = nanos + (tick - nanos.rem_euclid(tick)) % tick;
    Ok(EventTimeColumn { index, delay_ticks: nanos_to_ticks(whole, unit)? })
}

/// Returns the delay of a watermark in nanoseconds.
fn delay_nanos(state: &SessionState, expr: &Expr, column: &Ident) -> Result<i128> {
    let wrong = || {
        Error::sql(format!("the watermark of \"{column}\" is not \"{column}\" less an interval"))
            .with_hint(format!("Write WATERMARK FOR {column} AS {column} - INTERVAL '5 seconds'."))
    };
    let is_column =
        |e: &Expr| matches!(e, Expr::Identifier(i) if ident_name(i) == ident_name(column));
    match expr {
        Expr::Nested(inner) => delay_nanos(state, inner, column),
        e if is_column(e) => Ok(0),
        Expr::BinaryOp { left, op: BinaryOperator::Minus, right } if is_column(left) => {
            let expr = ExprWithAlias { expr: right.as_ref().clone(), alias: None };
            let expr = state
                .create_logical_expr_from_sql_expr(expr, &DFSchema::empty())
                .map_err(from_datafusion)?;
            match expr {
                PlanExpr::Literal(value, _) => interval_nanos(&value).ok_or_else(wrong),
                _ => Err(wrong()),
            }
        }
        _ => Err(wrong()),
    }
}

/// Whether a type contains timestamps without a declared precision.
pub(super) fn has_unsaid_times(data_type: &DataType) -> bool {
    match data_type {
        DataType::Timestamp(None, _) | DataType::TimestampNtz(None) | DataType::Datetime(None) => {
            true
        }
        DataType::Array(
            ArrayElemTypeDef::AngleBracket(item)
            | ArrayElemTypeDef::SquareBracket(item, _)
            | ArrayElemTypeDef::Parenthesis(item),
        ) => has_unsaid_times(item),
        DataType::Struct(fields, _) => fields.iter().any(|f| has_unsaid_times(&f.field_type)),
        DataType::Map(key, value) => has_unsaid_times(key) || has_unsaid_times(value),
        _ => false,
    }
}

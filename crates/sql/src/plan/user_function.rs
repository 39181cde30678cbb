//! User-defined functions (`CREATE FUNCTION`): an SQL expression over parameters.
//!
//! For the planner it is a scalar function, so it can be called wherever an expression is allowed. Its body is planned
//! once, when the function is created, with the same rules as any plan, and evaluated per batch: each argument is
//! evaluated once per call, and the body cannot refer to columns of the caller.
//!
//! Invariant: functions are immutable: the body calls nothing that depends on the time, on randomness or on the session.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::catalog::default_table_source::provider_as_source;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::datasource::empty::EmptyTable;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{
    ColumnarValue, DdlStatement, DocSection, Documentation, Expr, ExprSchemable, LogicalPlan,
    LogicalPlanBuilder, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::sql::parser::Statement;
use sqlparser::ast::helpers::stmt_create_table::CreateTableBuilder;
use sqlparser::ast::{self, ColumnDef, ExprWithAlias, Ident};
use windrow_core::{Error, ErrorKind, Result, budget, sql_type};

use super::{analyzed, calls, check_plan, is_text, statement};
use crate::diagnostics::from_datafusion;
use crate::parse::{CreateFunction, characters_max};

/// The maximum number of functions that call one another in a chain: each takes its part of the stack.
const DEPTH_MAX: usize = 64;
/// The column of the return type, among those of the parameters.
const RETURNS: &str = "$returns";

/// A user-defined function.
pub struct UserFunction {
    name: String,
    parameters: SchemaRef,
    returns: DataType,
    /// The body as text.
    text: String,
    body: Arc<dyn PhysicalExpr>,
    /// 1, or one more than the functions that it calls have.
    depth: usize,
    signature: Signature,
    documentation: Documentation,
}

impl UserFunction {
    /// Plans the function that `create` defines, under a folded name.
    ///
    /// # Errors
    /// For an invalid type, an invalid body, or a body that calls a function that is not immutable.
    pub async fn define(
        state: &SessionState,
        name: &str,
        create: &CreateFunction,
    ) -> Result<Arc<Self>> {
        let (parameters, returns) = types(state, create).await?;
        let placed = |e: Error| if e.place().is_none() { e.with_place(create.place) } else { e };
        let planned = || {
            calls::check(state, &create.body)?;
            let (expr, plan) =
                planned(state, create.body.clone(), (&parameters, returns.as_ref()))?;
            let schema = plan.schema();
            let returns = expr.get_type(schema.as_ref()).map_err(from_datafusion)?;
            let depth = depth(&expr)?;
            let body = state.create_physical_expr(expr, schema).map_err(from_datafusion)?;
            Ok((body, returns, depth))
        };
        let (body, returns, depth) = planned().map_err(placed)?;
        let text = create.body.to_string();
        let signature = match parameters.fields().is_empty() {
            true => Signature::nullary(Volatility::Immutable),
            false => Signature::user_defined(Volatility::Immutable),
        };
        let syntax = format!("{name}({}) RETURNS {}", listed(&parameters), sql_type(&returns));
        let section = DocSection { include: false, label: "User functions", description: None };
        let documentation = Documentation::builder(section, &text, syntax).build();
        let name = name.to_owned();
        Ok(Arc::new(Self {
            name,
            parameters,
            returns,
            text,
            body,
            depth,
            signature,
            documentation,
        }))
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns it as a scalar function of the planner.
    pub fn to_udf(self: &Arc<Self>) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::new_from_impl(Callable(Arc::clone(self))))
    }

    /// Computes the values of a batch of arguments.
    fn values(&self, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
        // If each function calls the next one twice, the time doubles at each level.
        budget::check(0)?;
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let columns = args.args.iter().map(|arg| arg.to_array(rows));
        let columns = columns.collect::<Result<_, _>>().map_err(from_datafusion)?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch =
            RecordBatch::try_new_with_options(Arc::clone(&self.parameters), columns, &options)?;
        let value = self.body.evaluate(&batch).map_err(from_datafusion)?;
        match value {
            ColumnarValue::Array(values) if constant => ScalarValue::try_from_array(&values, 0)
                .map(ColumnarValue::Scalar)
                .map_err(from_datafusion),
            value => Ok(value),
        }
    }

    /// Adds the name of the function to an error of its body.
    fn failed(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::Data {
            return error;
        }
        let message = format!("function \"{}\": {}", self.name, error.message());
        let mut named = Error::new(error.kind(), message);
        if let Some(detail) = error.detail() {
            named = named.with_detail(detail);
        }
        named = error.hints().iter().cloned().fold(named, Error::with_hint);
        named.with_source(error)
    }
}

/// The parameters as they are written in SQL.
fn listed(parameters: &Schema) -> String {
    let each = |field: &Arc<arrow::datatypes::Field>| {
        format!("{} {}", field.name(), sql_type(field.data_type()))
    };
    parameters.fields().iter().map(each).collect::<Vec<_>>().join(", ")
}

/// Returns the parameters as columns, and the declared return type.
async fn types(
    state: &SessionState,
    create: &CreateFunction,
) -> Result<(SchemaRef, Option<DataType>)> {
    let column = |name: Ident, data_type: &ast::DataType| ColumnDef {
        name,
        data_type: data_type.clone(),
        options: vec![],
    };
    let mut columns: Vec<ColumnDef> =
        create.parameters.iter().map(|p| column(p.name.clone(), &p.data_type)).collect();
    if let Some(returns) = &create.returns {
        columns.push(column(Ident::with_quote('"', RETURNS), returns));
    }
    if let Some(column) = columns.iter().find(|c| characters_max(&c.data_type).is_some()) {
        return Err(Error::sql(format!(
            "{} has a length, which a function would not keep",
            column.data_type
        ))
        .with_hint("Write VARCHAR, and cut the text with left(…, n)."));
    }
    if columns.is_empty() {
        return Ok((Arc::new(Schema::empty()), None));
    }
    // Of this name, which the user may create: another one may be denied.
    let table = CreateTableBuilder::new(create.name.clone()).columns(columns).build();
    let table = Statement::Statement(Box::new(table.into()));
    let LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(table)) = statement(state, table).await?
    else {
        return Err(Error::internal("parameters did not plan as a table"));
    };
    let mut fields = table.input.schema().fields().to_vec();
    let returns = match create.returns {
        Some(_) => fields.pop().map(|field| field.data_type().clone()),
        None => None,
    };
    Ok((Arc::new(Schema::new(fields)), returns))
}

/// Plans the body over the parameters. Returns it with the plan of the parameters' relation.
fn planned(
    state: &SessionState,
    body: ast::Expr,
    (parameters, returns): (&SchemaRef, Option<&DataType>),
) -> Result<(Expr, LogicalPlan)> {
    let table = provider_as_source(Arc::new(EmptyTable::new(Arc::clone(parameters))));
    let scan = LogicalPlanBuilder::scan("parameters", table, None).map_err(from_datafusion)?;
    let schema = Arc::clone(scan.schema());
    let body = ExprWithAlias { expr: body, alias: None };
    let body = state.create_logical_expr_from_sql_expr(body, &schema).map_err(from_datafusion)?;
    depends_on_arguments(&body, "the body of a function")?;
    let body = match returns {
        Some(returns) => body.cast_to(returns, schema.as_ref()).map_err(from_datafusion)?,
        None => body,
    };
    let plan = scan.project([body.alias("value")]).and_then(LogicalPlanBuilder::build);
    let plan = plan.map_err(from_datafusion)?;
    check_plan(&plan)?;
    match analyzed(state, plan)? {
        LogicalPlan::Projection(mut projection) => match projection.expr.pop() {
            Some(body) => Ok((body.unalias(), Arc::unwrap_or_clone(projection.input))),
            None => Err(Error::internal("the body of a function was lost")),
        },
        _ => Err(Error::internal("the body of a function did not plan as a projection")),
    }
}

/// Returns the depth of a function with this body.
fn depth(body: &Expr) -> Result<usize> {
    let mut deepest = 0;
    let walked = body.apply(|part| {
        if let Expr::ScalarFunction(call) = part
            && let Some(Callable(function)) = call.func.inner().downcast_ref::<Callable>()
        {
            deepest = deepest.max(function.depth);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.map_err(from_datafusion)?;
    if deepest >= DEPTH_MAX {
        return Err(Error::new(
            ErrorKind::Limit,
            format!("the body calls a chain of {DEPTH_MAX} functions, and more are not supported"),
        )
        .with_hint("Write the body of one of them in place of its call."));
    }
    Ok(deepest + 1)
}

/// Checks that the value of an expression depends only on the columns of its row. `what` names the expression in messages.
///
/// # Errors
/// When it has an aggregate, a window function, a subquery, or a function that is not immutable.
pub fn depends_on_arguments(expr: &Expr, what: &str) -> Result<()> {
    let mut refused = None;
    let walked = expr.apply(|part| {
        refused = match part {
            Expr::AggregateFunction(call) => Some((call.func.name().to_owned(), false)),
            Expr::WindowFunction(call) => Some((call.fun.name().to_owned(), false)),
            Expr::ScalarFunction(call)
                if call.func.signature().volatility != Volatility::Immutable =>
            {
                Some((call.func.name().to_owned(), true))
            }
            Expr::ScalarSubquery(_)
            | Expr::Exists(_)
            | Expr::InSubquery(_)
            | Expr::SetComparison(_) => Some(("subquery".to_owned(), false)),
            _ => None,
        };
        Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    walked.map_err(from_datafusion)?;
    match refused {
        None => Ok(()),
        Some((name, true)) => Err(Error::sql(format!(
            "{what} cannot call \"{name}\", whose value changes from call to call"
        ))
        .with_hint("Its value must depend on its columns or arguments alone; give the value as one of them.")),
        Some((name, false)) => Err(Error::sql(format!("{what} cannot have \"{name}\""))
            .with_hint("It is computed for each row alone, from scalar functions and operators.")),
    }
}

impl fmt::Debug for UserFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({}) = {}", self.name, listed(&self.parameters), self.text)
    }
}

impl PartialEq for UserFunction {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.parameters, &self.returns, &self.text)
            == (&other.name, &other.parameters, &other.returns, &other.text)
    }
}

/// The function as the planner sees it.
#[derive(Debug)]
struct Callable(Arc<UserFunction>);

impl PartialEq for Callable {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Callable {}

impl Hash for Callable {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
        self.0.text.hash(state);
    }
}

/// Whether an argument is implicitly converted to the type of a parameter. Conversions that can lose information need a CAST.
fn accepts(parameter: &DataType, given: &DataType) -> bool {
    let is_fraction = |t: &DataType| t.is_floating() || t.is_decimal();
    match (parameter, given) {
        (parameter, given) if parameter == given || given.is_null() => true,
        (parameter, given) if parameter.is_numeric() && given.is_numeric() => {
            !parameter.is_integer() || !is_fraction(given)
        }
        (DataType::Timestamp(to, _), DataType::Timestamp(from, _)) => to >= from,
        (DataType::Timestamp(..), DataType::Date32 | DataType::Date64) => true,
        (DataType::Timestamp(..) | DataType::Date32 | DataType::Interval(_), given) => {
            is_text(given)
        }
        (parameter, given) => is_text(parameter) && is_text(given),
    }
}

impl ScalarUDFImpl for Callable {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn signature(&self) -> &Signature {
        &self.0.signature
    }

    fn return_type(&self, _: &[DataType]) -> datafusion::common::Result<DataType> {
        Ok(self.0.returns.clone())
    }

    fn coerce_types(&self, given: &[DataType]) -> datafusion::common::Result<Vec<DataType>> {
        let fields = self.0.parameters.fields();
        let wanted: Vec<DataType> = fields.iter().map(|f| f.data_type().clone()).collect();
        let fits = wanted.len() == given.len()
            && wanted.iter().zip(given).all(|(wanted, given)| accepts(wanted, given));
        if fits {
            return Ok(wanted);
        }
        let given: Vec<String> = given.iter().map(sql_type).collect();
        let (name, takes) = (&self.0.name, listed(&self.0.parameters));
        let message = format!(
            "function \"{name}\" takes ({takes}), and is called with ({})",
            given.join(", ")
        );
        let error = Error::sql(message).with_hint("Convert the arguments with CAST(… AS …).");
        Err(DataFusionError::External(Box::new(error)))
    }

    fn invoke_with_args(
        &self,
        args: ScalarFunctionArgs,
    ) -> datafusion::common::Result<ColumnarValue> {
        let values = self.0.values(&args).map_err(|error| self.0.failed(error));
        values.map_err(|error| DataFusionError::External(Box::new(error)))
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.0.documentation)
    }
}

//! Refuses an INSERT of a value that would lose something in a column of another type.
//!
//! As with connectors, an integer column accepts no fraction, and a number beyond the range of a smaller floating-point
//! type does not become infinite. A DECIMAL rounds to its digits after the point, and floating-point numbers to the
//! nearest value, which is what these types are for.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Field, FieldRef,
    Float32Type, Float64Type, i256,
};
use arrow::util::display::array_value_to_string;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{ExprSchema, Result as EngineResult, internal_err};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use windrow_core::{Error, Result};

/// The first value that `to` cannot hold, described for a message.
///
/// # Errors
/// When a value cannot be formatted.
pub fn loss(given: &ArrayRef, to: &DataType) -> Result<Option<String>> {
    let (row, what) = if to.is_integer() {
        (fraction(given)?, "has a fraction")
    } else if *to == DataType::Float32 {
        (infinite(given)?, "is too large")
    } else {
        return Ok(None);
    };
    row.map(|row| Ok(format!("{} {what}", array_value_to_string(given, row)?))).transpose()
}

/// The first row with a number that is not an integer.
fn fraction(given: &ArrayRef) -> Result<Option<usize>> {
    let broken = |row: Option<f64>| row.is_some_and(|v| v.fract() != 0.0 && v.is_finite());
    let unit = |scale: i8| u32::try_from(scale).ok().filter(|scale| *scale > 0);
    Ok(match given.data_type() {
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            let values = cast(given, &DataType::Float64)?;
            values.as_primitive::<Float64Type>().iter().position(broken)
        }
        DataType::Decimal32(_, scale) => unit(*scale).and_then(|scale| {
            let unit = 10_i32.checked_pow(scale)?;
            let mut values = given.as_primitive::<Decimal32Type>().iter();
            values.position(|v| v.is_some_and(|v| v % unit != 0))
        }),
        DataType::Decimal64(_, scale) => unit(*scale).and_then(|scale| {
            let unit = 10_i64.checked_pow(scale)?;
            let mut values = given.as_primitive::<Decimal64Type>().iter();
            values.position(|v| v.is_some_and(|v| v % unit != 0))
        }),
        DataType::Decimal128(_, scale) => unit(*scale).and_then(|scale| {
            let unit = 10_i128.checked_pow(scale)?;
            let mut values = given.as_primitive::<Decimal128Type>().iter();
            values.position(|v| v.is_some_and(|v| v % unit != 0))
        }),
        DataType::Decimal256(_, scale) => unit(*scale).and_then(|scale| {
            let unit = i256::from_i128(10).checked_pow(scale)?;
            let mut values = given.as_primitive::<Decimal256Type>().iter();
            values.position(|v| v.is_some_and(|v| v.wrapping_rem(unit) != i256::ZERO))
        }),
        _ => None,
    })
}

/// The first row with a number that becomes infinite as REAL.
fn infinite(given: &ArrayRef) -> Result<Option<usize>> {
    if !given.data_type().is_numeric() || *given.data_type() == DataType::Float32 {
        return Ok(None);
    }
    let wide = cast(given, &DataType::Float64)?;
    let small = cast(given, &DataType::Float32)?;
    let small = small.as_primitive::<Float32Type>().iter();
    let mut pairs = wide.as_primitive::<Float64Type>().iter().zip(small);
    Ok(pairs.position(|(wide, small)| match (wide, small) {
        (Some(wide), Some(small)) => wide.is_finite() && small.is_infinite(),
        _ => false,
    }))
}

/// Replaces the casts that an INSERT into a table puts above its query, and around the values of VALUES, by casts that
/// fail instead of truncating a fraction. (The planner has already cast the latter to the table's types; an explicit
/// CAST is a cast of a cast: `Insert::into_datafusion`.)
pub(super) fn whole_casts(query: LogicalPlan) -> EngineResult<Transformed<LogicalPlan>> {
    let above = match (&query, query.inputs().first()) {
        (LogicalPlan::Projection(_), Some(input)) => {
            let schema = Arc::clone(input.schema());
            query.map_expressions(|expr| whole_cast(expr, schema.as_ref()))?
        }
        _ => Transformed::no(query),
    };
    above.transform_data(|query| {
        query.transform_down(|node| match &node {
            LogicalPlan::Values(values) => {
                let schema = Arc::clone(&values.schema);
                node.map_expressions(|expr| whole_cast(expr, schema.as_ref()))
            }
            _ => Ok(Transformed::no(node)),
        })
    })
}

/// The cast of a value to an integer, unless the statement has it.
fn whole_cast(expr: Expr, schema: &dyn ExprSchema) -> EngineResult<Transformed<Expr>> {
    Ok(match expr {
        Expr::Alias(mut alias) => {
            let inner = whole_cast(*alias.expr, schema)?;
            alias.expr = Box::new(inner.data);
            Transformed::new_transformed(Expr::Alias(alias), inner.transformed)
        }
        Expr::Cast(mut cast) => {
            let implied = !matches!(*cast.expr, Expr::Cast(_) | Expr::TryCast(_));
            let changed = implied
                && cast.field.data_type().is_integer()
                && check_whole(&mut cast.expr, schema)?;
            Transformed::new_transformed(Expr::Cast(cast), changed)
        }
        other => Transformed::no(other),
    })
}

fn check_whole(expr: &mut Expr, schema: &dyn ExprSchema) -> EngineResult<bool> {
    let of = expr.get_type(schema)?;
    if !of.is_floating() && !of.is_decimal() {
        return Ok(false);
    }
    let signature = Signature::user_defined(Volatility::Immutable);
    let function = ScalarUDF::new_from_impl(Whole { signature });
    *expr = function.call(vec![std::mem::take(expr)]);
    Ok(true)
}

/// A number that has to be an integer.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Whole {
    signature: Signature,
}

impl ScalarUDFImpl for Whole {
    fn name(&self) -> &'static str {
        "whole"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> EngineResult<Vec<DataType>> {
        Ok(types.to_vec())
    }

    fn return_type(&self, types: &[DataType]) -> EngineResult<DataType> {
        match types {
            [of] => Ok(of.clone()),
            _ => internal_err!("whole of {} values", types.len()),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> EngineResult<FieldRef> {
        let types: Vec<_> = args.arg_fields.iter().map(|f| f.data_type().clone()).collect();
        let nullable = args.arg_fields.iter().any(|f| f.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> EngineResult<ColumnarValue> {
        let [value] = args.args.as_slice() else {
            return internal_err!("whole of {} values", args.args.len());
        };
        let outside = |error: Error| DataFusionError::External(Box::new(error));
        let values = value.to_array(args.number_rows)?;
        match loss(&values, &DataType::Int64).map_err(outside)? {
            Some(why) => Err(outside(
                Error::data(format!("{why}, and the column it is inserted into takes none"))
                    .with_hint("Round it, or CAST it to cut it off."),
            )),
            None => Ok(value.clone()),
        }
    }
}

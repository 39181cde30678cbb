//! One zero and one NaN for comparisons of floating-point numbers by their bits.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Float32Type, Float64Type};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{ExprSchema, Result, ScalarValue, internal_err};
use datafusion::logical_expr::expr::WindowFunctionParams;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};

/// Handles IN, CASE with an operand, nullif, aggregates with DISTINCT, PARTITION BY and ORDER BY of a window function.
pub(super) fn one_zero(mut expr: Expr, schema: &dyn ExprSchema) -> Result<Transformed<Expr>> {
    let mut changed = false;
    match &mut expr {
        Expr::InList(list) => {
            for operand in std::iter::once(list.expr.as_mut()).chain(&mut list.list) {
                changed |= canonical_in_place(operand, schema)?;
            }
        }
        Expr::Case(case) => {
            if let Some(operand) = &mut case.expr {
                changed |= canonical_in_place(operand, schema)?;
                for (when, _) in &mut case.when_then_expr {
                    changed |= canonical_in_place(when, schema)?;
                }
            }
        }
        Expr::ScalarFunction(function) if function.func.name() == "nullif" => {
            for operand in &mut function.args {
                changed |= canonical_in_place(operand, schema)?;
            }
        }
        Expr::AggregateFunction(function) if function.params.distinct => {
            // ORDER BY must have the expressions of DISTINCT.
            let keys = function.params.order_by.iter_mut().map(|sort| &mut sort.expr);
            for operand in function.params.args.iter_mut().chain(keys) {
                changed |= canonical_in_place(operand, schema)?;
            }
        }
        Expr::WindowFunction(function) => {
            let WindowFunctionParams { args, partition_by, order_by, distinct, .. } =
                &mut function.params;
            let args = args.iter_mut().filter(|_| *distinct);
            let keys = order_by.iter_mut().map(|sort| &mut sort.expr);
            for key in partition_by.iter_mut().chain(keys).chain(args) {
                changed |= canonical_in_place(key, schema)?;
            }
        }
        _ => {}
    }
    Ok(Transformed::new_transformed(expr, changed))
}

/// Makes all zeros and all NaN of a floating-point expression the same; returns whether there was anything to do. The
/// expression keeps its name, so that columns do.
pub(crate) fn canonical_in_place(expr: &mut Expr, schema: &dyn ExprSchema) -> Result<bool> {
    made_canonical(expr, schema, true)
}

/// Like [`canonical_in_place`], for an operand that may be beside the column that it is made of: it has a name of its
/// own.
pub(super) fn canonical_operand(expr: &mut Expr, schema: &dyn ExprSchema) -> Result<bool> {
    made_canonical(expr, schema, false)
}

fn made_canonical(expr: &mut Expr, schema: &dyn ExprSchema, keeps_name: bool) -> Result<bool> {
    if is_canonical(expr) {
        return Ok(false);
    }
    if !matches!(expr.get_type(schema)?, DataType::Float32 | DataType::Float64) {
        return Ok(false);
    }
    match expr {
        Expr::Literal(ScalarValue::Float64(Some(value)), _) => {
            *value = double(*value);
            return Ok(false);
        }
        Expr::Literal(ScalarValue::Float32(Some(value)), _) => {
            *value = float(*value);
            return Ok(false);
        }
        _ => {}
    }
    let signature = Signature::user_defined(Volatility::Immutable);
    let function = ScalarUDF::new_from_impl(Canonical { signature, keeps_name });
    *expr = function.call(vec![std::mem::take(expr)]);
    Ok(true)
}

/// Whether an expression was made by [`canonical_in_place`].
pub(super) fn is_canonical(expr: &Expr) -> bool {
    let inner = match expr {
        Expr::Alias(alias) => alias.expr.as_ref(),
        other => other,
    };
    matches!(inner, Expr::ScalarFunction(function)
        if function.func.inner().downcast_ref::<Canonical>().is_some())
}

/// Whether a value is NaN, with any sign.
pub(super) fn is_nan(value: &ScalarValue) -> bool {
    match value {
        ScalarValue::Float64(Some(value)) => value.is_nan(),
        ScalarValue::Float32(Some(value)) => value.is_nan(),
        _ => false,
    }
}

/// -0.0 + 0.0 is 0.0; all NaN become the same.
fn double(value: f64) -> f64 {
    if value.is_nan() { f64::NAN } else { value + 0.0 }
}

fn float(value: f32) -> f32 {
    if value.is_nan() { f32::NAN } else { value + 0.0 }
}

/// The number, with one zero and one NaN.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Canonical {
    signature: Signature,
    /// Whether it has the name of its operand.
    keeps_name: bool,
}

impl ScalarUDFImpl for Canonical {
    fn name(&self) -> &'static str {
        "one_zero"
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        match args {
            [value] if self.keeps_name => Ok(value.schema_name().to_string()),
            [value] => Ok(format!("one_zero({})", value.schema_name())),
            _ => internal_err!("one_zero of {} values", args.len()),
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(types.to_vec())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [of] => Ok(of.clone()),
            _ => internal_err!("one_zero of {} values", types.len()),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let types: Vec<_> = args.arg_fields.iter().map(|f| f.data_type().clone()).collect();
        let nullable = args.arg_fields.iter().any(|f| f.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, nullable)))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.as_slice() {
            [ColumnarValue::Array(values)] => Ok(ColumnarValue::Array(canonical(values))),
            [ColumnarValue::Scalar(value)] => {
                let value = canonical(&value.to_array()?);
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&value, 0)?))
            }
            _ => internal_err!("one_zero of {} values", args.args.len()),
        }
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        // NaN with a sign come first in the input's order and last in this one.
        Ok(match inputs {
            [ExprProperties { sort_properties: SortProperties::Singleton, .. }] => {
                SortProperties::Singleton
            }
            _ => SortProperties::Unordered,
        })
    }
}

fn canonical(values: &ArrayRef) -> ArrayRef {
    if let Some(values) = values.as_primitive_opt::<Float64Type>() {
        Arc::new(values.unary::<_, Float64Type>(double))
    } else if let Some(values) = values.as_primitive_opt::<Float32Type>() {
        Arc::new(values.unary::<_, Float32Type>(float))
    } else {
        Arc::clone(values)
    }
}

//! `+ - *` and unary minus that fail if the result does not fit its type.
//!
//! Cost: integers are added without a branch per row, with a single flag for all of them. Only if it is set, Arrow's
//! checked kernels repeat the work; they ignore values below NULL, and name the operands.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::compute::kernels::numeric::{add, div, mul, neg, sub};
use arrow::datatypes::{DataType, Field, FieldRef, Int16Type, Int32Type, Int64Type, IntervalUnit};
use arrow::error::ArrowError;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{ExprSchema, Result, internal_err};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr_common::datum::apply;
use windrow_core::Error;
use windrow_core::sql_type;
use windrow_operators::aggregates::fits_digits;

/// Replaces arithmetic that wraps in DataFusion by a function that fails instead.
pub(super) fn checked(expr: Expr, schema: &dyn ExprSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_arithmetic(op) => {
            let (l, r) = (left.get_type(schema)?, right.get_type(schema)?);
            let wraps = l.is_integer() && r.is_integer() && op != Operator::Divide;
            if !(wraps || l.is_decimal() && r.is_decimal()) {
                return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
            }
            Ok(Transformed::yes(call(Operation::Binary(op), vec![*left, *right])))
        }
        Expr::Negative(inner) => {
            let of = inner.get_type(schema)?;
            let wraps = of.is_signed_integer()
                || matches!(
                    of,
                    DataType::Duration(_)
                        | DataType::Interval(IntervalUnit::YearMonth | IntervalUnit::MonthDayNano)
                );
            if !wraps {
                return Ok(Transformed::no(Expr::Negative(inner)));
            }
            Ok(Transformed::yes(call(Operation::Negative, vec![*inner])))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn is_arithmetic(op: Operator) -> bool {
    matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide)
}

fn call(operation: Operation, arguments: Vec<Expr>) -> Expr {
    let signature = Signature::user_defined(Volatility::Immutable);
    ScalarUDF::new_from_impl(Checked { operation, signature }).call(arguments)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operation {
    Binary(Operator),
    Negative,
}

/// An operation that fails instead of wrapping.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    operation: Operation,
    signature: Signature,
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.operation {
            Operation::Binary(Operator::Plus) => "+",
            Operation::Binary(Operator::Multiply) => "*",
            Operation::Binary(Operator::Divide) => "/",
            Operation::Binary(_) | Operation::Negative => "-",
        }
    }

    /// The name of the operator, so that columns keep their names.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        match args {
            [left, right] => {
                Ok(format!("{} {} {}", left.schema_name(), self.name(), right.schema_name()))
            }
            [only] => Ok(format!("(- {})", only.schema_name())),
            _ => internal_err!("an operator with {} operands", args.len()),
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The operands have been coerced before.
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(types.to_vec())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match (self.operation, types) {
            (Operation::Binary(op), [left, right]) => {
                BinaryTypeCoercer::new(left, &op, right).get_result_type()
            }
            (Operation::Negative, [of]) => Ok(of.clone()),
            _ => internal_err!("an operator with {} operands", types.len()),
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
        let of = args.return_field.data_type();
        let found = match (self.operation, args.args.as_slice()) {
            (Operation::Binary(op), [left, right]) => {
                if let Some(quick) = quick(op, left, right) {
                    return Ok(ColumnarValue::Array(quick));
                }
                match op {
                    Operator::Plus => apply(left, right, add),
                    Operator::Minus => apply(left, right, sub),
                    Operator::Multiply => apply(left, right, mul),
                    _ => apply(left, right, div),
                }
            }
            (Operation::Negative, [ColumnarValue::Array(array)]) => {
                neg(array).map(ColumnarValue::Array).map_err(DataFusionError::from)
            }
            (Operation::Negative, [ColumnarValue::Scalar(value)]) => {
                let array = value.to_array()?;
                let negative = neg(&array).map_err(DataFusionError::from);
                negative.and_then(|array| {
                    datafusion::common::ScalarValue::try_from_array(&array, 0)
                        .map(ColumnarValue::Scalar)
                })
            }
            (_, operands) => internal_err!("an operator with {} operands", operands.len()),
        };
        let found = found.map_err(|error| beyond(error, of))?;
        if has_most_digits(of) && !fits(&found)? {
            return Err(ours(format!(
                "the result of \"{}\" has more digits than {} holds",
                self.name(),
                sql_type(of)
            )));
        }
        Ok(found)
    }
}

/// Whether a result may have more digits than its type, for lack of a wider one.
fn has_most_digits(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Decimal32(9, _)
            | DataType::Decimal64(18, _)
            | DataType::Decimal128(38, _)
            | DataType::Decimal256(76, _)
    )
}

fn fits(value: &ColumnarValue) -> Result<bool> {
    Ok(match value {
        ColumnarValue::Array(array) => fits_digits(array),
        ColumnarValue::Scalar(value) => fits_digits(&value.to_array()?),
    })
}

/// Adds a hint to an overflow; returns other errors unchanged.
fn beyond(error: DataFusionError, of: &DataType) -> DataFusionError {
    let overflow = match &error {
        DataFusionError::ArrowError(arrow, _) => match arrow.as_ref() {
            ArrowError::ArithmeticOverflow(what) => Some(what.clone()),
            _ => None,
        },
        _ => None,
    };
    match overflow {
        Some(what) => {
            let what = what.strip_prefix("Overflow happened on: ").unwrap_or(&what);
            ours(format!("{what} is out of range for {}", sql_type(of)))
        }
        None => error,
    }
}

fn ours(message: String) -> DataFusionError {
    let error = Error::data(message)
        .with_hint("Cast an operand to a wider type first, such as DECIMAL(38, 0) or DOUBLE.");
    DataFusionError::External(Box::new(error))
}

/// Signed integers in one pass; `None` if the checked kernels are needed.
fn quick(op: Operator, left: &ColumnarValue, right: &ColumnarValue) -> Option<ArrayRef> {
    // One branch for each operation, so that it is inlined into the loop.
    macro_rules! by_operator {
        ($arrow:ty, $native:ty) => {
            match op {
                Operator::Plus => one_pass::<$arrow>(left, right, <$native>::overflowing_add),
                Operator::Minus => one_pass::<$arrow>(left, right, <$native>::overflowing_sub),
                Operator::Multiply => one_pass::<$arrow>(left, right, <$native>::overflowing_mul),
                _ => None,
            }
        };
    }
    match left.data_type() {
        DataType::Int64 => by_operator!(Int64Type, i64),
        DataType::Int32 => by_operator!(Int32Type, i32),
        DataType::Int16 => by_operator!(Int16Type, i16),
        _ => None,
    }
}

fn one_pass<T: ArrowPrimitiveType>(
    left: &ColumnarValue,
    right: &ColumnarValue,
    operation: impl Fn(T::Native, T::Native) -> (T::Native, bool),
) -> Option<ArrayRef> {
    let mut round = false;
    let mut each = |a: &T::Native, b: &T::Native| {
        let (value, over) = operation(*a, *b);
        round |= over;
        value
    };
    let (values, nulls): (Vec<T::Native>, Option<NullBuffer>) = match (left, right) {
        (ColumnarValue::Array(left), ColumnarValue::Array(right)) => {
            let (left, right) = (left.as_primitive_opt::<T>()?, right.as_primitive_opt::<T>()?);
            let pairs = left.values().iter().zip(right.values());
            let values = pairs.map(|(a, b)| each(a, b)).collect();
            (values, NullBuffer::union(left.nulls(), right.nulls()))
        }
        (ColumnarValue::Array(left), ColumnarValue::Scalar(right)) if !right.is_null() => {
            let right = right.to_array().ok()?;
            let b = *right.as_primitive_opt::<T>()?.values().first()?;
            let left = left.as_primitive_opt::<T>()?;
            (left.values().iter().map(|a| each(a, &b)).collect(), left.nulls().cloned())
        }
        (ColumnarValue::Scalar(left), ColumnarValue::Array(right)) if !left.is_null() => {
            let left = left.to_array().ok()?;
            let a = *left.as_primitive_opt::<T>()?.values().first()?;
            let right = right.as_primitive_opt::<T>()?;
            (right.values().iter().map(|b| each(&a, b)).collect(), right.nulls().cloned())
        }
        _ => return None,
    };
    (!round).then(|| Arc::new(PrimitiveArray::<T>::new(values.into(), nulls)) as ArrayRef)
}

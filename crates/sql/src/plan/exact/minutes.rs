//! Texts without seconds that become timestamps, as in PostgreSQL and DuckDB: Arrow's casts do not accept them.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{ExprSchema, Result, ScalarValue, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use windrow_core::time::with_seconds;

use super::zones::is_text;

const NAME: &str = "with_seconds";

/// Adds the seconds in a cast of text to a timestamp.
pub(super) fn whole_minutes(mut expr: Expr, schema: &dyn ExprSchema) -> Result<Transformed<Expr>> {
    let (operand, to) = match &mut expr {
        Expr::Cast(cast) => (&mut cast.expr, cast.field.data_type().clone()),
        Expr::TryCast(cast) => (&mut cast.expr, cast.field.data_type().clone()),
        _ => return Ok(Transformed::no(expr)),
    };
    if !matches!(to, DataType::Timestamp(..)) || !is_text(&operand.get_type(schema)?) {
        return Ok(Transformed::no(expr));
    }
    match operand.as_mut() {
        Expr::ScalarFunction(call) if call.func.name() == NAME => Ok(Transformed::no(expr)),
        Expr::Literal(value, _) => {
            let text = value.try_as_str().flatten().and_then(with_seconds);
            let Some(text) = text else { return Ok(Transformed::no(expr)) };
            **operand = Expr::Literal(ScalarValue::Utf8(Some(text)), None);
            Ok(Transformed::yes(expr))
        }
        _ => {
            let signature = Signature::any(1, Volatility::Immutable);
            let function = ScalarUDF::new_from_impl(WithSeconds { signature });
            **operand = function.call(vec![std::mem::take(operand.as_mut())]);
            Ok(Transformed::yes(expr))
        }
    }
}

/// Adds `:00` to the times in a text that have no seconds.
#[derive(Debug, PartialEq, Eq, Hash)]
struct WithSeconds {
    signature: Signature,
}

impl ScalarUDFImpl for WithSeconds {
    fn name(&self) -> &'static str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [of] => Ok(of.clone()),
            _ => internal_err!("{NAME} of {} values", types.len()),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value] = args.args.as_slice() else {
            return internal_err!("{NAME} of {} values", args.args.len());
        };
        let values = value.to_array(args.number_rows)?;
        match whole(&values)? {
            None => Ok(value.clone()),
            Some(whole) => Ok(ColumnarValue::Array(cast(&whole, values.data_type())?)),
        }
    }
}

/// The texts with seconds; `None` if all of them have seconds already.
fn whole(values: &ArrayRef) -> Result<Option<ArrayRef>> {
    let texts = cast(values, &DataType::Utf8)?;
    let texts = texts.as_any().downcast_ref::<StringArray>();
    let Some(texts) = texts else { return internal_err!("text that is no text") };
    if !texts.iter().flatten().any(|text| with_seconds(text).is_some()) {
        return Ok(None);
    }
    let whole = texts
        .iter()
        .map(|text| text.map(|text| with_seconds(text).unwrap_or_else(|| text.to_owned())));
    Ok(Some(Arc::new(whole.collect::<StringArray>())))
}

//! Calls with which the parser marks an ASOF join in its condition; they are removed once the statement has been
//! planned. Their names cannot be written without quotes.

use arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility,
};
use windrow_core::Error;

/// Marks an ASOF join; its argument, if there is one, is the condition of MATCH_CONDITION.
pub(crate) const ASOF: &str = "$asof";
/// Marks a join with the versions of a stream; its argument is the time of FOR SYSTEM_TIME AS OF.
pub(crate) const AS_OF: &str = "$as_of";

/// The two functions.
pub(super) fn markers() -> [ScalarUDF; 2] {
    [ASOF, AS_OF].map(|name| {
        let signature = TypeSignature::OneOf(vec![TypeSignature::Nullary, TypeSignature::Any(1)]);
        // An immutable call without arguments would be evaluated beforehand.
        let signature = Signature::new(signature, Volatility::Volatile);
        ScalarUDF::from(Marker { name, signature })
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Marker {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Marker {
    fn name(&self) -> &'static str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let error = Error::sql(format!("\"{}\" is not a function", self.name));
        Err(DataFusionError::External(Box::new(error.with_hint("Write ASOF JOIN."))))
    }
}

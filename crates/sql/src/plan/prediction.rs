//! Calls of models: `predict(m, a, b)`, which the parser makes a call of the function of the model `m`.
//!
//! For the planner each version of a model is a scalar function with declared types, so plans that were made with one version
//! keep it, and the name of the function, which plans and checkpoints show, says which it is.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use windrow_core::{Error, ErrorKind, Result, budget};
use windrow_models::Model;

use super::is_text;
use crate::diagnostics::from_datafusion;
use crate::parse::function_of_model;

/// A version of a model, as a function.
struct Prediction {
    /// The name of the model.
    model: String,
    /// `predict[m version 1]`.
    name: String,
    /// What the parser calls.
    called: [String; 1],
    loaded: Arc<Model>,
    arguments: Vec<Field>,
    signature: Signature,
}

/// Returns the function that computes the results of a version of a model.
pub fn prediction(model: &str, version: u64, loaded: &Arc<Model>) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(Prediction {
        model: model.to_owned(),
        name: format!("predict[{model} version {version}]"),
        called: [function_of_model(model)],
        loaded: Arc::clone(loaded),
        arguments: loaded.arguments(),
        signature: Signature::user_defined(Volatility::Immutable),
    }))
}

impl Prediction {
    fn values(&self, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
        budget::check(0)?;
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let columns = args.args.iter().map(|arg| arg.to_array(rows));
        let columns: Vec<ArrayRef> = columns.collect::<Result<_, _>>().map_err(from_datafusion)?;
        let values = self.loaded.predict(&columns, rows)?;
        match constant {
            true => ScalarValue::try_from_array(&values, 0)
                .map(ColumnarValue::Scalar)
                .map_err(from_datafusion),
            false => Ok(ColumnarValue::Array(values)),
        }
    }

    /// Adds the name of the model to an error of its own.
    fn failed(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::Data {
            return error;
        }
        let named = Error::data(format!("model \"{}\": {}", self.model, error.message()));
        let named = error.detail().into_iter().fold(named, Error::with_detail);
        error.hints().iter().cloned().fold(named, Error::with_hint).with_source(error)
    }
}

/// Whether a value is converted to the type of an input. Features are often counts or flags.
fn accepts(input: &DataType, given: &DataType) -> bool {
    let is_fraction = |t: &DataType| t.is_floating() || t.is_decimal();
    match (input, given) {
        (input, given) if input == given || given.is_null() => true,
        (input, given) if input.is_floating() => given.is_numeric() || *given == DataType::Boolean,
        (input, given) if input.is_integer() => {
            (given.is_numeric() && !is_fraction(given)) || *given == DataType::Boolean
        }
        (input, given) => is_text(input) && is_text(given),
    }
}

impl fmt::Debug for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl PartialEq for Prediction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.loaded, &other.loaded)
    }
}

impl Eq for Prediction {}

impl Hash for Prediction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Prediction {
    fn name(&self) -> &str {
        &self.name
    }

    fn aliases(&self) -> &[String] {
        &self.called
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> datafusion::common::Result<DataType> {
        Ok(self.loaded.returns())
    }

    fn coerce_types(&self, given: &[DataType]) -> datafusion::common::Result<Vec<DataType>> {
        let fits = self.arguments.len() == given.len()
            && self
                .arguments
                .iter()
                .zip(given)
                .all(|(field, given)| accepts(field.data_type(), given));
        match fits {
            true => Ok(self.arguments.iter().map(|field| field.data_type().clone()).collect()),
            // The planner says which function it is and what it is given.
            false => Err(DataFusionError::Plan("other values are expected".to_owned())),
        }
    }

    fn invoke_with_args(
        &self,
        args: ScalarFunctionArgs,
    ) -> datafusion::common::Result<ColumnarValue> {
        let values = self.values(&args).map_err(|error| self.failed(error));
        values.map_err(|error| DataFusionError::External(Box::new(error)))
    }
}

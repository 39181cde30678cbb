//! `to_timestamp`, `to_date` and the like: times from text, by a [pattern](super::patterns).

use std::sync::Arc;

use arrow::array::{AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use super::patterns::{Family, Pattern};

/// DataFusion's function, which accepts chrono's patterns, extended by all the others.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Parse {
    inner: Arc<ScalarUDF>,
}

impl Parse {
    pub(super) fn new(inner: Arc<ScalarUDF>) -> Self {
        Self { inner }
    }
}

fn chrono(text: &str) -> Result<String> {
    let pattern = Pattern::read(text, Family::Postgres).and_then(|pattern| pattern.to_chrono());
    pattern.map_err(|e| DataFusionError::External(Box::new(e)))
}

/// A pattern as one of chrono's.
fn translated(pattern: ColumnarValue) -> Result<ColumnarValue> {
    match pattern {
        ColumnarValue::Scalar(
            ScalarValue::Utf8(Some(text))
            | ScalarValue::Utf8View(Some(text))
            | ScalarValue::LargeUtf8(Some(text)),
        ) => Ok(ColumnarValue::Scalar(ScalarValue::Utf8(Some(chrono(&text)?)))),
        ColumnarValue::Array(patterns)
            if matches!(
                patterns.data_type(),
                DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8
            ) =>
        {
            let patterns = cast(&patterns, &DataType::Utf8)?;
            let patterns = patterns.as_string::<i32>().iter();
            let patterns = patterns.map(|text| text.map(chrono).transpose());
            Ok(ColumnarValue::Array(Arc::new(patterns.collect::<Result<StringArray>>()?)))
        }
        other => Ok(other),
    }
}

impl ScalarUDFImpl for Parse {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let inner = self.inner.inner().with_updated_config(config)?;
        Some(ScalarUDF::from(Self { inner: Arc::new(inner) }))
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut given = std::mem::take(&mut args.args).into_iter();
        let text = given.next();
        let patterns = given.map(translated).collect::<Result<Vec<_>>>()?;
        args.args = text.into_iter().chain(patterns).collect();
        self.inner.invoke_with_args(args)
    }
}

//! `json(x)`, `try_json(x)` and `json_valid(x)`: text that is JSON. CAST to JSON is `json`, TRY_CAST is `try_json`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use serde::de::IgnoredAny;
use windrow_core::Error;

/// Characters of a text that a message shows at most.
const SHOWN_MAX: usize = 40;

/// Returns why a text is not JSON; `None`: it is.
pub fn not_json(text: &str) -> Option<String> {
    serde_json::from_str::<IgnoredAny>(text).err().map(|error| error.to_string())
}

/// What a function returns for a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Answer {
    /// The text; an error if it is not JSON.
    Text,
    /// The text; NULL if it is not JSON.
    TextOrNull,
    /// Whether it is JSON.
    Valid,
}

/// One of the functions.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Json {
    name: &'static str,
    answer: Answer,
    signature: Signature,
}

impl Json {
    /// Returns all of them.
    pub(super) fn all() -> [Self; 3] {
        let of = |name, answer| Self {
            name,
            answer,
            signature: Signature::string(1, Volatility::Immutable),
        };
        [
            of("json", Answer::Text),
            of("try_json", Answer::TextOrNull),
            of("json_valid", Answer::Valid),
        ]
    }

    fn answers(&self, texts: &StringViewArray) -> Result<ArrayRef> {
        if self.answer == Answer::Valid {
            let valid = texts.iter().map(|text| Some(not_json(text?).is_none()));
            return Ok(Arc::new(valid.collect::<BooleanArray>()));
        }
        let given = |text: &'_ str| match (not_json(text), self.answer) {
            (None, _) => Ok(true),
            (Some(_), Answer::TextOrNull) => Ok(false),
            (Some(why), _) => Err(refused(text, &why)),
        };
        let mut out = Vec::with_capacity(texts.len());
        for text in texts {
            out.push(match text {
                Some(text) => given(text)?.then_some(text),
                None => None,
            });
        }
        Ok(Arc::new(StringViewArray::from(out)))
    }
}

/// The error of a text that is not JSON.
fn refused(text: &str, why: &str) -> DataFusionError {
    let start: String = text.chars().take(SHOWN_MAX).collect();
    let more = if start.len() < text.len() { "…" } else { "" };
    let error = Error::data(format!("'{start}{more}' is not JSON: {why}"));
    DataFusionError::External(Box::new(
        error.with_hint("Use TRY_CAST(… AS JSON), which is NULL where the text is not JSON."),
    ))
}

impl ScalarUDFImpl for Json {
    fn name(&self) -> &'static str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(if self.answer == Answer::Valid { DataType::Boolean } else { DataType::Utf8View })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let Some(texts) = columns.first() else {
            return Err(DataFusionError::Internal(format!("{} without argument", self.name)));
        };
        let texts = cast(texts, &DataType::Utf8View)?;
        let answers = self.answers(texts.as_string_view())?;
        if args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_))) {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&answers, 0)?));
        }
        Ok(ColumnarValue::Array(answers))
    }
}

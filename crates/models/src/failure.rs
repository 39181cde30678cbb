//! Errors of the library that computes models.

use tract_onnx::tract_hir::internal::TractError;
use windrow_core::Error;

/// Characters of a message of the library that are shown.
const DETAIL_MAX: usize = 300;

/// The error of the library.
pub(crate) fn failed(error: &TractError) -> Error {
    let chain = format!("{error:#}").replace('\n', " ");
    let detail: String = chain.chars().take(DETAIL_MAX).collect();
    Error::data("the model cannot be computed").with_detail(detail)
}

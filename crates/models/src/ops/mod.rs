//! The operators of `ai.onnx.ml` that the library below lacks, or computes unlike other runtimes: tree ensembles, linear
//! models, `Scaler`, `Imputer`, `ArrayFeatureExtractor`.

mod classes;
mod features;
mod forest;
mod linear;
mod trees;

use tract_onnx::Onnx;

/// Returns all operators.
pub(crate) fn operators() -> Onnx {
    let mut onnx = tract_onnx::onnx();
    trees::register(&mut onnx.op_register);
    linear::register(&mut onnx.op_register);
    features::register(&mut onnx.op_register);
    onnx
}

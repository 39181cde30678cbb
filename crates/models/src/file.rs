//! ONNX files: decodes one, and refuses with a reason what cannot be computed.

use std::collections::BTreeSet;

use tract_onnx::Onnx;
use tract_onnx::pb::type_proto::Value;
use tract_onnx::pb::{GraphProto, ModelProto};
use tract_onnx::prelude::Framework;
use windrow_core::{Error, Result};

/// Operators that export options leave out, and the hint for each.
const AVOIDABLE: [(&str, &str); 3] = [
    (
        "ZipMap",
        "Export it without ZipMap: to_onnx(model, X, options={'zipmap': False}) of skl2onnx, zipmap=False of onnxmltools.",
    ),
    (
        "SVMClassifier",
        "Use a linear model, trees or a neural network, or approximate the kernel with Nystroem.",
    ),
    (
        "SVMRegressor",
        "Use a linear model, trees or a neural network, or approximate the kernel with Nystroem.",
    ),
];
/// An operator is named at most this often in a message.
const NAMED_MAX: usize = 8;

/// Decodes a file.
///
/// # Errors
/// When it is not an ONNX file, or has operators that are not supported or data outside of the file.
pub(crate) fn decoded(onnx: &Onnx, mut bytes: &[u8]) -> Result<ModelProto> {
    let not_onnx = || {
        Error::data("the file is not an ONNX model").with_hint(
            "Export the model as ONNX, for example with skl2onnx, onnxmltools or torch.onnx.",
        )
    };
    let file = onnx.proto_model_for_read(&mut bytes).map_err(|_| not_onnx())?;
    let Some(graph) = &file.graph else { return Err(not_onnx()) };
    if graph.node.is_empty() || graph.output.is_empty() {
        return Err(not_onnx());
    }
    known_operators(onnx, graph)?;
    if graph.initializer.iter().any(|tensor| !tensor.external_data.is_empty()) {
        return Err(Error::data("the model has its weights in other files").with_hint(
            "Save it as one file: onnx.save(model, 'm.onnx', save_as_external_data=False).",
        ));
    }
    let is_tensor = |value: &tract_onnx::pb::ValueInfoProto| {
        matches!(value.r#type.as_ref().and_then(|t| t.value.as_ref()), Some(Value::TensorType(_)))
    };
    if let Some(other) = graph.input.iter().chain(&graph.output).find(|value| !is_tensor(value)) {
        return Err(Error::data(format!("\"{}\" of the model is not a tensor", other.name))
            .with_hint("Inputs and outputs are tensors; export a classifier of skl2onnx with options={'zipmap': False}."));
    }
    Ok(file)
}

/// Refuses operators that are not supported. Those of subgraphs are refused by the library.
fn known_operators(onnx: &Onnx, graph: &GraphProto) -> Result<()> {
    let is_known = |name: &str| onnx.op_register.0.contains_key(name);
    let names = graph.node.iter().map(|node| node.op_type.as_str());
    let unknown: BTreeSet<&str> = names.filter(|name| !is_known(name)).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let quoted: Vec<String> =
        unknown.iter().take(NAMED_MAX).map(|name| format!("\"{name}\"")).collect();
    let (operators, are) =
        if unknown.len() == 1 { ("operator", "is") } else { ("operators", "are") };
    let message = format!("{operators} {} of the model {are} not supported", quoted.join(", "));
    let error = Error::data(message);
    match AVOIDABLE.iter().find(|(name, _)| unknown.contains(name)) {
        Some((_, hint)) => Err(error.with_hint(*hint)),
        None => Err(error.with_hint(
            "docs/sql.md lists the kinds of models that work; another kind of model, or a simpler pipeline, may have the same quality.",
        )),
    }
}

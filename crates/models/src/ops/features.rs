//! Operators on features: `Scaler`, `Imputer`, `ArrayFeatureExtractor`.

use tract_onnx::model::{OnnxOpRegister, ParsingContext};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::tract_core::ops::array::Gather;
use tract_onnx::tract_hir::tract_core::ops::cast::cast;
use tract_onnx::tract_hir::tract_core::ops::math;

pub(super) fn register(operators: &mut OnnxOpRegister) {
    operators.insert("Scaler", scaler);
    operators.insert("Imputer", imputer);
    operators.insert("ArrayFeatureExtractor", |_, _| Ok((expand(Extractor), vec![])));
}

type Parsed = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

fn scaler(_: &ParsingContext<'_>, node: &NodeProto) -> Parsed {
    let offset = node.get_attr_opt_vec::<f32>("offset")?.unwrap_or_else(|| vec![0.0]);
    let scale = node.get_attr_opt_vec::<f32>("scale")?.unwrap_or_else(|| vec![1.0]);
    Ok((expand(Scaler { offset: row(&offset)?, scale: row(&scale)? }), vec![]))
}

/// Values as one row, which is repeated for each row of a batch.
fn row(values: &[f32]) -> TractResult<Arc<Tensor>> {
    Ok(Tensor::from_shape(&[1, values.len()], values)?.into_arc_tensor())
}

/// `(x - offset) * scale`, per feature.
#[derive(Debug, Clone)]
struct Scaler {
    offset: Arc<Tensor>,
    scale: Arc<Tensor>,
}

impl Expansion for Scaler {
    fn name(&self) -> StaticName {
        "Scaler".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        same_shape(s, inputs, outputs)
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let x = features(prefix, model, inputs)?;
        let offset = model.add_const(format!("{prefix}.offset"), Arc::clone(&self.offset))?;
        let scale = model.add_const(format!("{prefix}.scale"), Arc::clone(&self.scale))?;
        let moved = model.wire_node(format!("{prefix}.moved"), math::sub(), &[x, offset])?;
        model.wire_node(format!("{prefix}.scaled"), math::mul(), &[moved[0], scale])
    }
}

/// One input of numbers, and an output of the same shape with floats.
fn same_shape<'r, 'p: 'r>(
    s: &mut Solver<'r>,
    inputs: &'p [TensorProxy],
    outputs: &'p [TensorProxy],
) -> InferenceResult {
    check_input_arity(inputs, 1)?;
    check_output_arity(outputs, 1)?;
    s.equals(&outputs[0].datum_type, f32::datum_type())?;
    s.equals(&inputs[0].shape, &outputs[0].shape)
}

/// Returns the input as floats with two dimensions.
pub(super) fn features(
    prefix: &str,
    model: &mut TypedModel,
    inputs: &[OutletId],
) -> TractResult<OutletId> {
    let [x] = *inputs else { bail!("one input is expected") };
    let fact = model.outlet_fact(x)?;
    ensure!(fact.rank() == 2, "rows of features are expected");
    if fact.datum_type == f32::datum_type() {
        return Ok(x);
    }
    Ok(model.wire_node(format!("{prefix}.floats"), cast(f32::datum_type()), &[x])?[0])
}

fn imputer(_: &ParsingContext<'_>, node: &NodeProto) -> Parsed {
    let Some(values) = node.get_attr_opt_vec::<f32>("imputed_value_floats")? else {
        bail!("an Imputer of whole numbers is not supported")
    };
    let replaced = node.get_attr_opt::<f32>("replaced_value_float")?.unwrap_or(0.0);
    ensure!(!values.is_empty(), "an Imputer has values");
    let op = Imputer {
        values: values.iter().map(|value| value.to_bits()).collect(),
        replaced: replaced.to_bits(),
    };
    Ok((expand(op), vec![]))
}

/// Replaces one value, often NaN, by another one per feature. Floats are kept as bits, which can be compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Imputer {
    values: Vec<u32>,
    replaced: u32,
}

impl Expansion for Imputer {
    fn name(&self) -> StaticName {
        "Imputer".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        same_shape(s, inputs, outputs)
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let x = features(prefix, model, inputs)?;
        let width = &model.outlet_fact(x)?.shape[1];
        ensure!(
            self.values.len() == 1 || *width == self.values.len().to_dim(),
            "an Imputer has {} values for {width} features",
            self.values.len()
        );
        model.wire_node(prefix, self.clone(), &[x])
    }
}

impl Op for Imputer {
    fn name(&self) -> StaticName {
        "Imputer".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Imputer {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let mut rows = args_1!(inputs).into_tensor().into_plain_array::<f32>()?;
        let replaced = f32::from_bits(self.replaced);
        let is_replaced = |x: f32| if replaced.is_nan() { x.is_nan() } else { x == replaced };
        for mut row in rows.rows_mut() {
            for (x, value) in row.iter_mut().zip(self.values.iter().cycle()) {
                if is_replaced(*x) {
                    *x = f32::from_bits(*value);
                }
            }
        }
        Ok(tvec!(rows.into_tvalue()))
    }
}

impl TypedOp for Imputer {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(f32::fact(inputs[0].shape.iter())))
    }

    as_op!();
}

/// Picks the features of these numbers, from each row.
#[derive(Debug, Clone)]
struct Extractor;

impl Expansion for Extractor {
    fn name(&self) -> StaticName {
        "ArrayFeatureExtractor".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 2)?;
        check_output_arity(outputs, 1)?;
        s.equals(&outputs[0].datum_type, &inputs[0].datum_type)?;
        s.given(&inputs[0].rank, move |s, rank| s.equals(&outputs[0].rank, rank.max(2)))
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let &[data, mut numbers] = inputs else { bail!("two inputs are expected") };
        // The numbers are one list, whatever their shape.
        let dims: TVec<TDim> = model.outlet_fact(numbers)?.shape.iter().cloned().collect();
        if dims.len() != 1 {
            let all = tvec!(dims.iter().product());
            let op = AxisOp::Reshape(0, dims, all);
            numbers = model.wire_node(format!("{prefix}.list"), op, &[numbers])?[0];
        }
        if model.outlet_fact(numbers)?.datum_type != i64::datum_type() {
            let name = format!("{prefix}.numbers");
            numbers = model.wire_node(name, cast(i64::datum_type()), &[numbers])?[0];
        }
        let rank = model.outlet_fact(data)?.rank();
        ensure!(rank > 0, "features are expected");
        let picked =
            model.wire_node(format!("{prefix}.picked"), Gather::new(rank - 1), &[data, numbers])?;
        match rank {
            1 => model.wire_node(format!("{prefix}.row"), AxisOp::Add(0), &picked),
            _ => Ok(picked),
        }
    }
}

//! `LinearClassifier` and `LinearRegressor`.

use std::hash::{Hash, Hasher};

use tract_onnx::model::{OnnxOpRegister, ParsingContext};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::classes::{Labels, Transform, greatest, transform};
use super::features::features;

pub(super) fn register(operators: &mut OnnxOpRegister) {
    operators.insert("LinearClassifier", classifier);
    operators.insert("LinearRegressor", regressor);
}

type Parsed = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

#[derive(Debug)]
struct Functions {
    /// The coefficients of one function after those of another.
    coefficients: Vec<f32>,
    /// How many features there are.
    width: usize,
    /// One for each function.
    intercepts: Vec<f32>,
    transform: Transform,
    /// The classes; `None`: a regressor. Two classes may have one function, the score of the second one.
    labels: Option<Labels>,
}

/// The operator. Each is equal to itself alone.
#[derive(Debug, Clone)]
struct Linear(Arc<Functions>);

impl PartialEq for Linear {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Linear {}

impl Hash for Linear {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

fn classifier(_: &ParsingContext<'_>, node: &NodeProto) -> Parsed {
    let labels = Labels::of(node, "classlabels_ints")?;
    let intercepts = node.get_attr_opt_slice::<f32>("intercepts")?;
    let functions = intercepts.map_or(labels.len(), <[f32]>::len);
    let single = functions == 1 && labels.len() == 2;
    ensure!(
        single || functions == labels.len(),
        "{functions} functions for {} classes",
        labels.len()
    );
    linear(node, functions, Some(labels))
}

fn regressor(_: &ParsingContext<'_>, node: &NodeProto) -> Parsed {
    let targets = node.get_attr_opt::<usize>("targets")?.unwrap_or(1);
    linear(node, targets, None)
}

fn linear(node: &NodeProto, functions: usize, labels: Option<Labels>) -> Parsed {
    let coefficients = node.get_attr_slice::<f32>("coefficients")?.to_vec();
    ensure!(
        functions > 0 && !coefficients.is_empty() && coefficients.len() % functions == 0,
        "{} coefficients for {functions} functions",
        coefficients.len()
    );
    let intercepts = node.get_attr_opt_vec::<f32>("intercepts")?;
    let intercepts = intercepts.unwrap_or_else(|| vec![0.0; functions]);
    ensure!(
        intercepts.len() == functions,
        "{} intercepts for {functions} functions",
        intercepts.len()
    );
    let (width, transform) = (coefficients.len() / functions, Transform::of(node)?);
    let functions = Functions { coefficients, width, intercepts, transform, labels };
    Ok((expand(Linear(Arc::new(functions))), vec![]))
}

impl Functions {
    /// How many scores a row has.
    fn scores(&self) -> usize {
        self.labels.as_ref().map_or(self.intercepts.len(), Labels::len)
    }

    /// Adds the scores of a row, and returns its class.
    fn add(&self, row: &[f32], scores: &mut Vec<f32>) -> usize {
        let start = scores.len();
        for (coefficients, intercept) in
            self.coefficients.chunks_exact(self.width).zip(&self.intercepts)
        {
            let product: f32 = coefficients.iter().zip(row).map(|(c, x)| c * x).sum();
            scores.push(product + intercept);
        }
        if self.labels.is_some() && self.intercepts.len() == 1 {
            let score = scores[start];
            scores[start] = -score;
            scores.push(score);
        }
        let own = &mut scores[start..];
        let class = greatest(own);
        transform(own, self.transform);
        class
    }
}

impl Expansion for Linear {
    fn name(&self) -> StaticName {
        "Linear".into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(if self.0.labels.is_some() { 2 } else { 1 })
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        let scores = match (&self.0.labels, outputs) {
            (Some(labels), [label, scores]) => {
                s.equals(&label.datum_type, labels.datum_type())?;
                s.equals(&label.rank, 1)?;
                s.equals(&label.shape[0], &inputs[0].shape[0])?;
                scores
            }
            (None, [scores]) => scores,
            _ => bail!("a linear model has other outputs"),
        };
        s.equals(&scores.datum_type, f32::datum_type())?;
        s.equals(&scores.rank, 2)?;
        s.equals(&scores.shape[0], &inputs[0].shape[0])?;
        s.equals(&scores.shape[1], self.0.scores().to_dim())
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let x = features(prefix, model, inputs)?;
        let (given, width) = (&model.outlet_fact(x)?.shape[1], self.0.width);
        ensure!(*given == width.to_dim(), "a linear model of {width} features is given {given}");
        model.wire_node(prefix, self.clone(), &[x])
    }
}

impl Op for Linear {
    fn name(&self) -> StaticName {
        "Linear".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Linear {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let &[rows, width] = input.shape() else { bail!("rows of features are expected") };
        let mut scores = Vec::with_capacity(rows * self.0.scores());
        let mut classes = Vec::with_capacity(rows);
        for row in input.try_as_plain_ram()?.as_slice::<f32>()?.chunks_exact(width) {
            classes.push(self.0.add(row, &mut scores));
        }
        let scores = Tensor::from_shape(&[rows, self.0.scores()], &scores)?.into_tvalue();
        Ok(match &self.0.labels {
            Some(labels) => tvec!(labels.picked(&classes).into_tvalue(), scores),
            None => tvec!(scores),
        })
    }
}

impl TypedOp for Linear {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let rows = inputs[0].shape[0].clone();
        let scores = f32::fact([rows.clone(), self.0.scores().to_dim()]);
        Ok(match &self.0.labels {
            Some(labels) => tvec!(labels.datum_type().fact([rows]), scores),
            None => tvec!(scores),
        })
    }

    as_op!();
}

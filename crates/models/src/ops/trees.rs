//! `TreeEnsembleClassifier` and `TreeEnsembleRegressor`: parsed as the ONNX operators, computed like onnxruntime.
//!
//! Where the specification is silent (a classifier of two classes whose leaves weigh one of them), onnxruntime decides: most
//! exporters are tested with it alone.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};

use tract_onnx::model::{OnnxOpRegister, ParsingContext};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::classes::{Labels, Transform, greatest, transform};
use super::features::features;
use super::forest::{Aggregate, Contribution, Forest, Node, Test};

pub(super) fn register(operators: &mut OnnxOpRegister) {
    operators.insert("TreeEnsembleClassifier", classifier);
    operators.insert("TreeEnsembleRegressor", regressor);
}

type Parsed = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

/// What the leaves of a classifier weigh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaves {
    /// All classes.
    Each,
    /// One of two classes, the target of this number, by probabilities.
    Probability(usize),
    /// The same by scores, which may be negative.
    Score(usize),
}

struct Ensemble {
    forest: Forest,
    base: Vec<f32>,
    transform: Transform,
    /// The classes; `None`: a regressor.
    classes: Option<(Labels, Leaves)>,
}

/// The operator. Each is equal to itself alone.
#[derive(Clone)]
struct Trees(Arc<Ensemble>);

impl fmt::Debug for Trees {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "trees for {} targets", self.0.forest.targets())
    }
}

impl PartialEq for Trees {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Trees {}

impl Hash for Trees {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

fn classifier(_: &ParsingContext<'_>, node: &NodeProto) -> Parsed {
    let labels = Labels::of(node, "classlabels_int64s")?;
    let (forest, contributions) = forest(node, "class", labels.len(), Aggregate::Sum)?;
    let mut targets: Vec<u32> = contributions.iter().map(|c| c.target).collect();
    targets.sort_unstable();
    targets.dedup();
    let leaves = match (labels.len(), targets.as_slice()) {
        (2, [only]) if contributions.iter().all(|c| c.weight >= 0.0) => {
            Leaves::Probability(*only as usize)
        }
        (2, [only]) => Leaves::Score(*only as usize),
        _ => Leaves::Each,
    };
    ensemble(node, forest, Some((labels, leaves)))
}

fn regressor(_: &ParsingContext<'_>, node: &NodeProto) -> Parsed {
    let aggregate = match node.get_attr_opt("aggregate_function")?.unwrap_or("SUM") {
        "SUM" => Aggregate::Sum,
        "AVERAGE" => Aggregate::Average,
        "MIN" => Aggregate::Min,
        "MAX" => Aggregate::Max,
        other => bail!("aggregate_function {other} is unknown"),
    };
    let targets = node.get_attr_opt::<usize>("n_targets")?.unwrap_or(1);
    ensure!(targets > 0, "a tree ensemble has no targets");
    let (forest, _) = forest(node, "target", targets, aggregate)?;
    ensemble(node, forest, None)
}

fn ensemble(node: &NodeProto, forest: Forest, classes: Option<(Labels, Leaves)>) -> Parsed {
    let base = node.get_attr_opt_vec::<f32>("base_values")?.unwrap_or_default();
    let allowed = [0, 1, forest.targets()];
    ensure!(allowed.contains(&base.len()), "a tree ensemble has {} base values", base.len());
    let transform = Transform::of(node)?;
    let op = Trees(Arc::new(Ensemble { forest, base, transform, classes }));
    Ok((expand(op), vec![]))
}

/// Parses the trees. `leaf`: the prefix of the attributes of leaves.
fn forest(
    node: &NodeProto,
    leaf: &str,
    targets: usize,
    aggregate: Aggregate,
) -> TractResult<(Forest, Vec<Contribution>)> {
    if let Some(double) = node.attribute.iter().find(|a| a.name.ends_with("_as_tensor")) {
        bail!("{} of a tree ensemble is not supported: export with floats", double.name);
    }
    let ints = |name: &str| node.get_attr_slice::<i64>(name);
    let (trees, ids) = (ints("nodes_treeids")?, ints("nodes_nodeids")?);
    let (features, yes, no) =
        (ints("nodes_featureids")?, ints("nodes_truenodeids")?, ints("nodes_falsenodeids")?);
    let thresholds = node.get_attr_slice::<f32>("nodes_values")?;
    let modes = node.get_attr_tvec::<&str>("nodes_modes")?;
    let nan = node.get_attr_opt_slice::<i64>("nodes_missing_value_tracks_true")?.unwrap_or(&[]);
    let count = ids.len();
    let lengths = [trees.len(), features.len(), yes.len(), no.len(), thresholds.len(), modes.len()];
    let is_odd = !nan.is_empty() && nan.len() != count;
    ensure!(count > 0 && lengths.iter().all(|l| *l == count) && !is_odd, "the nodes have gaps");

    let (contributions, ranges) = leaves(node, leaf)?;
    let mut numbers = BTreeMap::new();
    let mut roots = vec![];
    for at in 0..count {
        let number = u32::try_from(at)?;
        ensure!(numbers.insert((trees[at], ids[at]), number).is_none(), "a node is given twice");
        if at == 0 || trees[at] != trees[at - 1] {
            roots.push(number);
        }
    }
    let mut nodes = Vec::with_capacity(count);
    for at in 0..count {
        let test = test(modes[at])?;
        let child = |id: i64| {
            numbers.get(&(trees[at], id)).copied().with_context(|| format!("there is no node {id}"))
        };
        let (yes, no) = match test {
            Test::None => ranges.get(&(trees[at], ids[at])).copied().unwrap_or((0, 0)),
            _ => (child(yes[at])?, child(no[at])?),
        };
        nodes.push(Node {
            test,
            nan_passes: nan.get(at).is_some_and(|passes| *passes != 0),
            feature: u32::try_from(features[at])?,
            threshold: thresholds[at],
            yes,
            no,
        });
    }
    let forest = Forest::try_new(nodes, roots, contributions.clone(), targets, aggregate)?;
    Ok((forest, contributions))
}

/// The leaves of the trees: ranges of contributions, by tree and node.
type Ranges = BTreeMap<(i64, i64), (u32, u32)>;

fn leaves(node: &NodeProto, prefix: &str) -> TractResult<(Vec<Contribution>, Ranges)> {
    let ints = |name: &str| node.get_attr_slice::<i64>(&format!("{prefix}_{name}"));
    let (trees, ids, targets) = (ints("treeids")?, ints("nodeids")?, ints("ids")?);
    let weights = node.get_attr_slice::<f32>(&format!("{prefix}_weights"))?;
    let lengths = [trees.len(), targets.len(), weights.len()];
    ensure!(lengths.iter().all(|l| *l == ids.len()), "the leaves have gaps");
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_by_key(|at| (trees[*at], ids[*at]));
    let mut contributions = vec![];
    let mut ranges = Ranges::new();
    for at in order {
        let begin = u32::try_from(contributions.len())?;
        contributions
            .push(Contribution { target: u32::try_from(targets[at])?, weight: weights[at] });
        ranges.entry((trees[at], ids[at])).or_insert((begin, begin)).1 = begin + 1;
    }
    Ok((contributions, ranges))
}

fn test(mode: &str) -> TractResult<Test> {
    Ok(match mode {
        "BRANCH_LEQ" => Test::LessOrEqual,
        "BRANCH_LT" => Test::Less,
        "BRANCH_GTE" => Test::GreaterOrEqual,
        "BRANCH_GT" => Test::Greater,
        "BRANCH_EQ" => Test::Equal,
        "BRANCH_NEQ" => Test::NotEqual,
        "LEAF" => Test::None,
        other => bail!("nodes of the mode {other} are not supported"),
    })
}

impl Ensemble {
    /// The base value of a target.
    fn base(&self, target: usize) -> f64 {
        // With several targets, a single value is that of the first one.
        self.base.get(target).map_or(0.0, |base| f64::from(*base))
    }

    /// Scores of the classes per row, and the class of each row.
    fn classified(&self, sums: &[f64], leaves: Leaves) -> (Vec<f32>, Vec<usize>) {
        let targets = self.forest.targets();
        let mut scores = Vec::with_capacity(sums.len());
        let mut classes = Vec::with_capacity(sums.len() / targets);
        for sums in sums.chunks_exact(targets) {
            match leaves {
                Leaves::Each => {
                    let start = scores.len();
                    scores.extend(
                        sums.iter().enumerate().map(|(t, sum)| (sum + self.base(t)) as f32),
                    );
                    let own = &mut scores[start..];
                    classes.push(greatest(own));
                    transform(own, self.transform);
                }
                Leaves::Probability(target) => {
                    let score = (sums[target] + self.single_base()) as f32;
                    classes.push(usize::from(score > 0.5));
                    scores.extend([1.0 - score, score]);
                }
                Leaves::Score(target) => {
                    let score = (sums[target] + self.single_base()) as f32;
                    classes.push(usize::from(score > 0.0));
                    let mut both = [-score, score];
                    transform(&mut both, self.transform);
                    scores.extend(both);
                }
            }
        }
        (scores, classes)
    }

    /// The base value where leaves weigh one of two classes: the only one, or that of the second class.
    fn single_base(&self) -> f64 {
        self.base.last().map_or(0.0, |base| f64::from(*base))
    }
}

impl Expansion for Trees {
    fn name(&self) -> StaticName {
        "TreeEnsemble".into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(if self.0.classes.is_some() { 2 } else { 1 })
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        let scores = match (&self.0.classes, outputs) {
            (Some((labels, _)), [label, scores]) => {
                s.equals(&label.datum_type, labels.datum_type())?;
                s.equals(&label.rank, 1)?;
                s.equals(&label.shape[0], &inputs[0].shape[0])?;
                scores
            }
            (None, [scores]) => scores,
            _ => bail!("a tree ensemble has other outputs"),
        };
        s.equals(&scores.datum_type, f32::datum_type())?;
        s.equals(&scores.rank, 2)?;
        s.equals(&scores.shape[0], &inputs[0].shape[0])?;
        s.equals(&scores.shape[1], self.0.forest.targets().to_dim())
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let x = features(prefix, model, inputs)?;
        let width = model.outlet_fact(x)?.shape[1].clone();
        let needs = self.0.forest.width();
        let given = width.to_usize().ok().filter(|width| *width > 0);
        ensure!(
            given.is_some_and(|given| given >= needs),
            "trees over {needs} features are given {width}"
        );
        model.wire_node(prefix, self.clone(), &[x])
    }
}

impl Op for Trees {
    fn name(&self) -> StaticName {
        "TreeEnsemble".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Trees {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let &[rows, width] = input.shape() else { bail!("rows of features are expected") };
        let sums = self.0.forest.evaluate(input.try_as_plain_ram()?.as_slice::<f32>()?, width);
        let targets = self.0.forest.targets();
        let Some((labels, leaves)) = &self.0.classes else {
            let mut values: Vec<f32> = sums
                .iter()
                .enumerate()
                .map(|(at, sum)| (sum + self.0.base(at % targets)) as f32)
                .collect();
            values.chunks_exact_mut(targets).for_each(|row| transform(row, self.0.transform));
            return Ok(tvec!(Tensor::from_shape(&[rows, targets], &values)?.into_tvalue()));
        };
        let (scores, classes) = self.0.classified(&sums, *leaves);
        let scores = Tensor::from_shape(&[rows, targets], &scores)?;
        Ok(tvec!(labels.picked(&classes).into_tvalue(), scores.into_tvalue()))
    }
}

impl TypedOp for Trees {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let rows = inputs[0].shape[0].clone();
        let scores = f32::fact([rows.clone(), self.0.forest.targets().to_dim()]);
        Ok(match &self.0.classes {
            Some((labels, _)) => tvec!(labels.datum_type().fact([rows]), scores),
            None => tvec!(scores),
        })
    }

    as_op!();
}

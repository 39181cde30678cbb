//! What classifiers have in common: labels, and probabilities of scores.

use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// What is done with the sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transform {
    None,
    Softmax,
    Logistic,
    /// Softmax over the scores that are not 0.
    SoftmaxZero,
}

impl Transform {
    /// The transform of a node.
    pub(super) fn of(node: &NodeProto) -> TractResult<Self> {
        Ok(match node.get_attr_opt("post_transform")?.unwrap_or("NONE") {
            "NONE" => Self::None,
            "SOFTMAX" => Self::Softmax,
            "LOGISTIC" => Self::Logistic,
            "SOFTMAX_ZERO" => Self::SoftmaxZero,
            other => bail!("post_transform {other} is not supported"),
        })
    }
}

/// The labels of classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Labels {
    Numbers(Vec<i64>),
    Texts(Vec<String>),
}

impl Labels {
    /// The labels of a node. `numbers`: its attribute with labels that are numbers.
    pub(super) fn of(node: &NodeProto, numbers: &str) -> TractResult<Self> {
        let numbers = node.get_attr_opt_slice::<i64>(numbers)?;
        let texts = node.get_attr_opt_tvec::<String>("classlabels_strings")?;
        let labels = match (numbers, texts) {
            (Some(labels), None) => Self::Numbers(labels.to_vec()),
            (None, Some(labels)) => Self::Texts(labels.to_vec()),
            _ => bail!("a classifier has labels that are either numbers or texts"),
        };
        ensure!(labels.len() > 0, "a classifier has no labels");
        Ok(labels)
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Numbers(labels) => labels.len(),
            Self::Texts(labels) => labels.len(),
        }
    }

    pub(super) fn datum_type(&self) -> DatumType {
        match self {
            Self::Numbers(_) => i64::datum_type(),
            Self::Texts(_) => String::datum_type(),
        }
    }

    /// The labels of these classes.
    pub(super) fn picked(&self, classes: &[usize]) -> Tensor {
        match self {
            Self::Numbers(labels) => {
                tensor1(&classes.iter().map(|c| labels[*c]).collect::<Vec<_>>())
            }
            Self::Texts(labels) => {
                tensor1(&classes.iter().map(|c| labels[*c].clone()).collect::<Vec<_>>())
            }
        }
    }
}

/// The number of the first of the greatest values.
pub(super) fn greatest(values: &[f32]) -> usize {
    let mut best = 0;
    for (at, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = at;
        }
    }
    best
}

/// `1 / (1 + e^-x)`, without overflow.
fn logistic(x: f32) -> f32 {
    let positive = 1.0 / (1.0 + (-x.abs()).exp());
    if x < 0.0 { 1.0 - positive } else { positive }
}

/// Makes probabilities of scores.
pub(super) fn transform(scores: &mut [f32], how: Transform) {
    match how {
        Transform::None => {}
        Transform::Logistic => scores.iter_mut().for_each(|score| *score = logistic(*score)),
        Transform::Softmax | Transform::SoftmaxZero => {
            let counts = |score: f32| how == Transform::Softmax || score.abs() > 1e-7;
            let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0.0;
            for score in scores.iter_mut() {
                *score = if counts(*score) { (*score - most).exp() } else { 0.0 };
                sum += *score;
            }
            if sum > 0.0 {
                scores.iter_mut().for_each(|score| *score /= sum);
            }
        }
    }
}

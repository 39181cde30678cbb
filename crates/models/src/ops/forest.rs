//! Decision trees, as they are evaluated.
//!
//! Invariants: every child of a node is in the tree, and a node has one parent, so each walk ends in a leaf; leaves add to targets
//! that exist.

use tract_onnx::tract_hir::internal::{TractResult, bail, ensure};

/// A condition of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    LessOrEqual,
    Less,
    GreaterOrEqual,
    Greater,
    Equal,
    NotEqual,
    /// A leaf has none.
    None,
}

/// A node of a tree. The children of a leaf are the range of its contributions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    pub(super) test: Test,
    /// Whether NaN passes the condition.
    pub(super) nan_passes: bool,
    pub(super) feature: u32,
    pub(super) threshold: f32,
    /// The node after a condition that holds.
    pub(super) yes: u32,
    /// The node after one that does not.
    pub(super) no: u32,
}

/// What a leaf adds to a target.
#[derive(Debug, Clone, Copy)]
pub(super) struct Contribution {
    pub(super) target: u32,
    pub(super) weight: f32,
}

/// How the contributions of all trees to a target become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aggregate {
    Sum,
    Average,
    Min,
    Max,
}

/// Trees that contribute to the same targets.
pub(super) struct Forest {
    nodes: Vec<Node>,
    /// The first node of each tree.
    roots: Vec<u32>,
    contributions: Vec<Contribution>,
    targets: usize,
    /// One more than the greatest number of a feature.
    width: usize,
    aggregate: Aggregate,
}

impl Forest {
    /// Creates a forest.
    ///
    /// # Errors
    /// When a node leads nowhere or in a circle, or a leaf contributes to no target.
    pub(super) fn try_new(
        nodes: Vec<Node>,
        roots: Vec<u32>,
        contributions: Vec<Contribution>,
        targets: usize,
        aggregate: Aggregate,
    ) -> TractResult<Self> {
        let mut seen = vec![false; nodes.len()];
        let mut width = 0;
        let mut todo = roots.clone();
        while let Some(at) = todo.pop() {
            let (Some(node), Some(seen)) = (nodes.get(at as usize), seen.get_mut(at as usize))
            else {
                bail!("a node of a tree is missing")
            };
            ensure!(!std::mem::replace(seen, true), "a node of a tree has two parents");
            match node.test {
                Test::None => {
                    let range = node.yes as usize..node.no as usize;
                    ensure!(contributions.get(range).is_some(), "a leaf is missing");
                }
                _ => {
                    width = width.max(node.feature as usize + 1);
                    todo.extend([node.yes, node.no]);
                }
            }
        }
        let fits = contributions.iter().all(|c| (c.target as usize) < targets);
        ensure!(fits, "a leaf is of a class or target that does not exist");
        Ok(Self { nodes, roots, contributions, targets, width, aggregate })
    }

    /// Returns how many features it needs.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Returns how many targets it has.
    pub(super) fn targets(&self) -> usize {
        self.targets
    }

    /// Returns the targets of rows of `width` features, one row after the other. Sums are of double precision, so that they do not
    /// depend on the order of many trees.
    pub(super) fn evaluate(&self, rows: &[f32], width: usize) -> Vec<f64> {
        let empty = match self.aggregate {
            Aggregate::Sum | Aggregate::Average => 0.0,
            Aggregate::Min => f64::INFINITY,
            Aggregate::Max => f64::NEG_INFINITY,
        };
        let count = rows.len() / width.max(1);
        let mut results = vec![empty; count * self.targets];
        // Tree by tree: its nodes stay in the cache for all rows.
        for root in &self.roots {
            let each = rows.chunks_exact(width).zip(results.chunks_exact_mut(self.targets));
            for (row, results) in each {
                for part in self.leaf(*root, row) {
                    let (target, weight) =
                        (&mut results[part.target as usize], f64::from(part.weight));
                    match self.aggregate {
                        Aggregate::Sum | Aggregate::Average => *target += weight,
                        Aggregate::Min => *target = target.min(weight),
                        Aggregate::Max => *target = target.max(weight),
                    }
                }
            }
        }
        let trees = self.roots.len() as f64;
        for result in &mut results {
            match self.aggregate {
                Aggregate::Average => *result /= trees,
                Aggregate::Min | Aggregate::Max if result.is_infinite() => *result = 0.0,
                _ => {}
            }
        }
        results
    }

    /// Returns the contributions of the leaf that a row ends in.
    #[inline]
    fn leaf(&self, root: u32, row: &[f32]) -> &[Contribution] {
        let mut node = &self.nodes[root as usize];
        loop {
            if node.test == Test::None {
                return &self.contributions[node.yes as usize..node.no as usize];
            }
            let x = row[node.feature as usize];
            let passes = match node.test {
                Test::LessOrEqual => x <= node.threshold,
                Test::Less => x < node.threshold,
                Test::GreaterOrEqual => x >= node.threshold,
                Test::Greater => x > node.threshold,
                Test::Equal => x == node.threshold,
                Test::NotEqual => x != node.threshold,
                Test::None => false,
            };
            let passes = passes || (node.nan_passes && x.is_nan());
            node = &self.nodes[if passes { node.yes } else { node.no } as usize];
        }
    }
}

//! What a join returns: pairs, rows that match nothing, or rows of one side that match something.

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::physical_expr::PhysicalExpr;
use windrow_core::{Error, Result};

use super::{LEFT, RIGHT};
use crate::failure;

/// What a join returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinKind {
    /// Pairs.
    Inner,
    /// Pairs, and rows of the left input that match nothing.
    Left,
    /// Pairs, and rows of the right input that match nothing.
    Right,
    /// Pairs, and rows of both inputs that match nothing.
    Full,
    /// Rows of the left input that match something, once.
    LeftSemi,
    /// Rows of the right input that match something, once.
    RightSemi,
    /// Rows of the left input that match nothing.
    LeftAnti,
    /// Rows of the right input that match nothing.
    RightAnti,
}

impl JoinKind {
    /// Whether pairs are returned.
    pub(super) fn has_pairs(self) -> bool {
        matches!(self, Self::Inner | Self::Left | Self::Right | Self::Full)
    }

    /// Whether rows of `side` that match nothing are returned.
    pub(super) fn has_unmatched(self, side: usize) -> bool {
        match self {
            Self::Full => true,
            Self::Left | Self::LeftAnti => side == LEFT,
            Self::Right | Self::RightAnti => side == RIGHT,
            Self::Inner | Self::LeftSemi | Self::RightSemi => false,
        }
    }

    /// Whether rows of `side` that match something are returned, without what they match.
    pub(super) fn has_matched(self, side: usize) -> bool {
        match self {
            Self::LeftSemi => side == LEFT,
            Self::RightSemi => side == RIGHT,
            _ => false,
        }
    }

    /// Whether the columns of `side` are returned.
    pub(super) fn has_columns(self, side: usize) -> bool {
        self.has_pairs() || self.has_unmatched(side) || self.has_matched(side)
    }

    /// Its name in SQL.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Inner => "INNER",
            Self::Left => "LEFT",
            Self::Right => "RIGHT",
            Self::Full => "FULL",
            Self::LeftSemi => "LEFT SEMI",
            Self::RightSemi => "RIGHT SEMI",
            Self::LeftAnti => "LEFT ANTI",
            Self::RightAnti => "RIGHT ANTI",
        }
    }
}

/// Which rows, of those that a row of the left input could match, it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matching {
    /// All of them.
    All,
    /// The one that is closest in time (an ASOF join). Of several at that time, the one with the greatest values,
    /// column by column in the order of the input, where NULL is the smallest.
    Closest,
}

/// A condition on pairs besides keys and times.
#[derive(Debug, Clone)]
pub struct JoinFilter {
    /// The condition, over a batch of the columns of `schema`.
    pub expr: Arc<dyn PhysicalExpr>,
    /// The columns of each input that it reads; those of the left input come first.
    pub columns: [Vec<usize>; 2],
    /// The columns that it reads.
    pub schema: SchemaRef,
}

impl JoinFilter {
    /// Returns which pairs satisfy the condition.
    pub(crate) fn keeps(&self, pairs: &RecordBatch) -> Result<BooleanArray> {
        let value = self.expr.evaluate(pairs).map_err(failure::engine)?;
        let value = value.into_array(pairs.num_rows()).map_err(failure::engine)?;
        let value = value.as_boolean_opt();
        value.cloned().ok_or_else(|| Error::internal("the condition of a join is no condition"))
    }
}

//! A continuous plan as text, for EXPLAIN: prepare, operator, finish.

use std::fmt;

use datafusion::catalog::TableProvider;
use windrow_core::{CmpOp, with_sql_types};

use super::flow::{
    ContinuousPlan, Flow, Leaf, LeafSource, OperatorNode, RowChanges, RowsFlow, Stage,
};
use super::pace::Pace;

impl fmt::Display for ContinuousPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.root {
            Flow::Rows(flow) => {
                writeln!(f, "rows: each micro-batch gives its output at once")?;
                rows(f, flow, 1)
            }
            Flow::Stage(root) => {
                let joins = root.operators.iter().any(|node| node.operator.inputs().len() > 1);
                let what = match (&root.changes, has_windows(root), joins) {
                    (Some(changes), ..) => return changing(f, self, changes, root),
                    (None, true, _) => "windows: output comes when they close",
                    (None, false, true) => "joined rows: output comes as the watermark passes",
                    (None, false, false) => "rows: output comes as the watermark passes",
                };
                writeln!(f, "{what}")?;
                stage(f, root, 1)
            }
        }
    }
}

/// An updating result: the kind of its changelog, and why.
fn changing(
    f: &mut fmt::Formatter<'_>,
    plan: &ContinuousPlan,
    changes: &RowChanges,
    root: &Stage,
) -> fmt::Result {
    let is_aggregate = root.early_results().is_some()
        || root.operators.iter().all(|node| node.operator.name() == "aggregate");
    let row = match root.early_results() {
        None if is_aggregate => "a group is one row",
        None => "these columns identify a row",
        Some(_) => "a group of a window is one row",
    };
    match changes {
        RowChanges::AppendOnly if is_aggregate => {
            writeln!(f, "append-only: a distinct row comes once, and does not change")?;
        }
        RowChanges::AppendOnly => {
            writeln!(f, "append-only: each row comes once, and does not change")?;
        }
        RowChanges::Upsert { key } if key.is_empty() => {
            writeln!(f, "upsert: there is one row, and each change replaces it")?;
        }
        RowChanges::Upsert { key } => {
            // After the change column.
            let names = key.iter().filter_map(|at| plan.schema.fields().get(at + 1));
            let names: Vec<_> = names.map(|field| field.name().as_str()).collect();
            let names = names.join(", ");
            writeln!(f, "upsert by [{names}]: {row}, and each change replaces it")?;
        }
        RowChanges::Retracting if root.early_results().is_some_and(|early| early.whole) => {
            writeln!(
                f,
                "retracting: a window is computed again when it has changed, and rows are removed and added"
            )?;
        }
        RowChanges::Retracting => {
            let why = match is_aggregate {
                true => "the output lacks the key of the groups",
                false => "no columns of the output identify a row",
            };
            writeln!(f, "retracting: {why}, so each change removes and adds rows")?;
        }
    }
    if root.early_results().is_some() {
        writeln!(f, "early results: {}; final when a window closes", plan.pace)?;
    } else if plan.pace != Pace::Prompt {
        writeln!(f, "emitted {}", plan.pace)?;
    }
    stage(f, root, 1)
}

fn indent(f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
    write!(f, "{:1$}", "", depth * 2)
}

fn plan(
    f: &mut fmt::Formatter<'_>,
    plan: &datafusion::logical_expr::LogicalPlan,
    depth: usize,
) -> fmt::Result {
    for line in with_sql_types(&plan.display_indent().to_string()).lines() {
        indent(f, depth)?;
        writeln!(f, "{line}")?;
    }
    Ok(())
}

fn stage(f: &mut fmt::Formatter<'_>, stage: &Stage, depth: usize) -> fmt::Result {
    indent(f, depth)?;
    let what = match (&stage.changes, has_windows(stage)) {
        (Some(_), _) if stage.early_results().is_some_and(|early| early.whole) => {
            "finish, per window that has changed:"
        }
        (Some(_), _) => "finish, per change:",
        (None, true) => "finish, per closed window:",
        (None, false) => "finish, as the watermark passes:",
    };
    writeln!(f, "{what}")?;
    plan(f, &stage.finish, depth + 1)?;
    for node in &stage.operators {
        operator(f, node, depth)?;
    }
    Ok(())
}

/// Whether rows are finished window by window.
fn has_windows(stage: &Stage) -> bool {
    stage.operators.iter().any(|node| node.operator.name() == "window")
}

fn operator(f: &mut fmt::Formatter<'_>, node: &OperatorNode, depth: usize) -> fmt::Result {
    indent(f, depth)?;
    write!(f, "{} {}: ", node.operator.name(), node.leaf)?;
    node.operator.describe(f)?;
    let lateness = node.inputs.iter().map(|input| input.lateness_ticks).max().unwrap_or(0);
    if lateness > 0 {
        write!(f, ", takes rows {lateness} ticks longer")?;
    }
    writeln!(f)?;
    for part in node.operator.parts() {
        indent(f, depth + 1)?;
        writeln!(f, "{}", with_sql_types(&part))?;
    }
    for (number, input) in node.inputs.iter().enumerate() {
        indent(f, depth + 1)?;
        match node.inputs.len() {
            1 => writeln!(f, "prepare, per micro-batch:")?,
            _ => writeln!(f, "prepare input {number}, per micro-batch:")?,
        }
        rows(f, &input.flow, depth + 2)?;
    }
    Ok(())
}

fn rows(f: &mut fmt::Formatter<'_>, flow: &RowsFlow, depth: usize) -> fmt::Result {
    plan(f, &flow.plan, depth)?;
    for leaf in &flow.leaves {
        source(f, leaf, depth)?;
    }
    Ok(())
}

fn source(f: &mut fmt::Formatter<'_>, leaf: &Leaf, depth: usize) -> fmt::Result {
    indent(f, depth)?;
    match &leaf.from {
        LeafSource::Stream { relation, predicates, .. } => {
            let columns: Vec<_> = leaf.schema.fields().iter().map(|c| c.name().as_str()).collect();
            write!(f, "{} reads {} [{}]", leaf.id, relation.name(), columns.join(", "))?;
            let schema = relation.schema();
            for (i, predicate) in predicates.iter().enumerate() {
                let op = match predicate.op {
                    CmpOp::Eq => "=",
                    CmpOp::NotEq => "<>",
                    CmpOp::Lt => "<",
                    CmpOp::LtEq => "<=",
                    CmpOp::Gt => ">",
                    CmpOp::GtEq => ">=",
                };
                let column = schema.fields().get(predicate.column).map_or("?", |c| c.name());
                let value = arrow::util::display::array_value_to_string(&predicate.literal, 0)
                    .map_err(|_| fmt::Error)?;
                write!(f, "{}{column} {op} {value}", if i > 0 { " and " } else { " where " })?;
            }
            writeln!(f)
        }
        LeafSource::Stage(below) => {
            let what = if has_windows(below) { "windows" } else { "rows" };
            writeln!(f, "{} reads the {what} of:", leaf.id)?;
            stage(f, below, depth + 1)
        }
    }
}

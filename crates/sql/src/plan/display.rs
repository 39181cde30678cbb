//! A continuous plan as text, for EXPLAIN: prepare, window, finish.

use std::fmt;

use datafusion::catalog::TableProvider;
use windrow_core::CmpOp;
use windrow_operators::{Mode, WindowOperator};

use super::assign::describe;
use super::flow::{ContinuousPlan, Flow, Leaf, LeafSource, RowsFlow, Stage, WindowInput};

impl fmt::Display for ContinuousPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.root {
            Flow::Rows(flow) => {
                writeln!(f, "rows: each micro-batch gives its output at once")?;
                rows(f, flow, 1)
            }
            Flow::Windows(stage) => {
                writeln!(f, "windows: output comes when they close")?;
                windows(f, stage, 1)
            }
        }
    }
}

fn indent(f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
    write!(f, "{:1$}", "", depth * 2)
}

fn plan(
    f: &mut fmt::Formatter<'_>,
    plan: &datafusion::logical_expr::LogicalPlan,
    depth: usize,
) -> fmt::Result {
    for line in plan.display_indent().to_string().lines() {
        indent(f, depth)?;
        writeln!(f, "{line}")?;
    }
    Ok(())
}

fn windows(f: &mut fmt::Formatter<'_>, stage: &Stage, depth: usize) -> fmt::Result {
    indent(f, depth)?;
    writeln!(f, "finish, per closed window:")?;
    plan(f, &stage.finish, depth + 1)?;
    for input in &stage.inputs {
        window(f, input, depth)?;
    }
    Ok(())
}

fn window(f: &mut fmt::Formatter<'_>, input: &WindowInput, depth: usize) -> fmt::Result {
    let operator = &input.operator;
    let name = |index: &usize| {
        operator.input_schema().fields().get(*index).map_or("?", |field| field.name().as_str())
    };
    indent(f, depth)?;
    write!(f, "window {}: {}", input.leaf, describe(operator.windows(), operator.time_unit()))?;
    if let WindowOperator::Session(session) = operator
        && !session.keys().is_empty()
    {
        let keys: Vec<_> = session.keys().iter().map(name).collect();
        write!(f, " per [{}]", keys.join(", "))?;
    }
    match operator.mode() {
        Mode::Rows => write!(f, ", keeps rows")?,
        Mode::Aggregate { keys, grouping_sets, aggregates } => {
            let keys: Vec<_> = keys.iter().map(name).collect();
            write!(f, ", keys [{}]", keys.join(", "))?;
            if let Some(sets) = grouping_sets {
                write!(f, " in {} grouping sets", sets.masks().len())?;
            }
            write!(f, ", aggregates [")?;
            for (i, call) in aggregates.iter().enumerate() {
                let arguments: Vec<_> = call.arguments.iter().map(name).collect();
                let comma = if i > 0 { ", " } else { "" };
                let distinct = if call.function.is_distinct() { "distinct " } else { "" };
                write!(
                    f,
                    "{comma}{}({distinct}{})",
                    call.function.fun().name(),
                    arguments.join(", ")
                )?;
                if let Some(filter) = &call.filter {
                    write!(f, " filter {}", name(filter))?;
                }
            }
            write!(f, "]")?;
        }
    }
    if input.lateness_ticks > 0 {
        write!(f, ", takes rows {} ticks longer", input.lateness_ticks)?;
    }
    writeln!(f)?;
    indent(f, depth + 1)?;
    writeln!(f, "prepare, per micro-batch:")?;
    rows(f, &input.flow, depth + 2)
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
        LeafSource::Stage(stage) => {
            writeln!(f, "{} reads the windows of:", leaf.id)?;
            windows(f, stage, depth + 1)
        }
    }
}

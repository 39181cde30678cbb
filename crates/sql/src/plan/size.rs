//! Limits of the size of a plan.
//!
//! A short text can mean a plan that exceeds any memory: CTEs and views that each read the previous one twice, a CUBE
//! of many columns, a list of a million terms. To the planner a plan is a tree, so a relation that is read twice is in
//! it twice. The size is computed before anything else: from the syntax tree with the sizes of the views that it names,
//! and again, exactly, from the logical plan, in which such a relation is still shared.
//!
//! Invariants: both take time linear in the text and in the contents of views, however large the plan would be; rows of
//! VALUES are data and not counted (the bytes of a text are limited anyway).

use std::ops::ControlFlow;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, GroupingSet, LogicalPlan};
use datafusion::sql::parser::{CopyToSource, Statement};
use hashbrown::HashMap;
use sqlparser::ast::{self, GroupByExpr, GroupByWithModifier, Visit, Visitor};
use windrow_core::{Error, ErrorKind, Result};

use crate::diagnostics::from_datafusion;

/// The most nodes of a plan: scans, filters, joins, projections, ….
const NODES_MAX: u64 = 10_000;
/// The most expressions of a plan, including all their parts.
const EXPRESSIONS_MAX: u64 = 250_000;
/// The most grouping sets of a GROUP BY.
const SETS_MAX: u64 = 4_096;

/// The size of a plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Size {
    nodes: u64,
    expressions: u64,
}

impl Size {
    fn add(&mut self, other: Self) {
        self.nodes = self.nodes.saturating_add(other.nodes);
        self.expressions = self.expressions.saturating_add(other.expressions);
    }

    fn check(self) -> Result<()> {
        let over = |what: &str, found: u64, max: u64| {
            Error::new(
                ErrorKind::Limit,
                format!("the plan of the statement has {found} {what}, more than {max}"),
            )
            .with_hint(
                "What is named twice is planned twice, views and WITH too. Keep results in a \
                 materialized view or a table, and long lists of values in a table.",
            )
        };
        if self.nodes > NODES_MAX {
            return Err(over("nodes", self.nodes, NODES_MAX));
        }
        if self.expressions > EXPRESSIONS_MAX {
            return Err(over("expressions", self.expressions, EXPRESSIONS_MAX));
        }
        Ok(())
    }
}

/// Refuses a statement whose plan would be too large.
///
/// # Errors
/// When it would be; with its size.
pub(super) async fn check_statement(state: &SessionState, statement: &Statement) -> Result<()> {
    let views = views(state, statement).await;
    let mut walk = Walk { views, frames: vec![Frame::default()] };
    let walked = match statement {
        Statement::Statement(statement) => statement.visit(&mut walk),
        Statement::CopyTo(copy) => match &copy.source {
            CopyToSource::Query(query) => query.visit(&mut walk),
            CopyToSource::Relation(_) => ControlFlow::Continue(()),
        },
        Statement::Explain(explain) => match explain.statement.as_ref() {
            Statement::Statement(statement) => statement.visit(&mut walk),
            _ => ControlFlow::Continue(()),
        },
        Statement::CreateExternalTable(_) | Statement::Reset(_) => ControlFlow::Continue(()),
    };
    if let ControlFlow::Break(error) = walked {
        return Err(*error);
    }
    walk.frames.pop().unwrap_or_default().size.check()
}

/// Refuses a plan that is too large.
///
/// # Errors
/// When it is; with its size.
pub fn check_plan(plan: &LogicalPlan) -> Result<()> {
    let mut known = HashMap::new();
    size_of(plan, &mut known)?.check()
}

/// The sizes of the views that a statement names. The planner reports names that do not exist.
async fn views(state: &SessionState, statement: &Statement) -> HashMap<String, Size> {
    let mut sizes = HashMap::new();
    let Ok(references) = state.resolve_table_references(statement) else { return sizes };
    for reference in references {
        let Ok(schema) = state.schema_for_ref(reference.clone()) else { continue };
        let Ok(Some(table)) = schema.table(reference.table()).await else { continue };
        if let Some(plan) = table.get_logical_plan()
            && let Ok(size) = size_of(&plan, &mut HashMap::new())
        {
            sizes.insert(reference.table().to_owned(), size);
        }
    }
    sizes
}

/// The size of a plan as a tree. `known` has the sizes of the nodes seen so far, by address: they are all part of the
/// plan, and do not move.
#[recursive::recursive]
fn size_of(plan: &LogicalPlan, known: &mut HashMap<usize, Size>) -> Result<Size> {
    let address = std::ptr::from_ref(plan).addr();
    if let Some(size) = known.get(&address) {
        return Ok(*size);
    }
    let mut size = Size { nodes: 1, expressions: 0 };
    for input in plan.inputs() {
        size.add(size_of(input, known)?);
    }
    if !matches!(plan, LogicalPlan::Values(_)) {
        plan.apply_expressions(|expr| {
            size.add(of_expression(expr, known)?);
            Ok(TreeNodeRecursion::Continue)
        })
        .map_err(from_datafusion)?;
    }
    known.insert(address, size);
    Ok(size)
}

/// The size of an expression, including the queries in it.
fn of_expression(expr: &Expr, known: &mut HashMap<usize, Size>) -> datafusion::error::Result<Size> {
    let mut size = Size::default();
    expr.apply(|part| {
        size.expressions = size.expressions.saturating_add(1);
        let query = match part {
            Expr::ScalarSubquery(query) => Some(&query.subquery),
            Expr::InSubquery(inside) => Some(&inside.subquery.subquery),
            Expr::Exists(exists) => Some(&exists.subquery.subquery),
            Expr::SetComparison(compared) => Some(&compared.subquery.subquery),
            Expr::GroupingSet(GroupingSet::Cube(columns)) => {
                let each = columns.len() as u64;
                size.expressions = size.expressions.saturating_add(power(columns.len()) * each);
                None
            }
            _ => None,
        };
        if let Some(query) = query {
            let below = size_of(query, known);
            size.add(below.map_err(|e| datafusion::error::DataFusionError::External(Box::new(e)))?);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(size)
}

/// The walk over a syntax tree, with a frame for each query around the current one.
struct Walk {
    views: HashMap<String, Size>,
    frames: Vec<Frame>,
}

/// The state of a query.
#[derive(Default)]
struct Frame {
    size: Size,
    /// The definitions of its WITH: their addresses and their names.
    definitions: Vec<(usize, String)>,
    /// The sizes of those that the walk has passed.
    named: HashMap<String, Size>,
    /// The number of expressions that are data.
    data: u64,
}

impl Walk {
    fn frame(&mut self) -> ControlFlow<Box<Error>, &mut Frame> {
        match self.frames.last_mut() {
            Some(frame) => ControlFlow::Continue(frame),
            None => ControlFlow::Break(Box::new(Error::internal("a query ends twice"))),
        }
    }
}

impl Visitor for Walk {
    type Break = Box<Error>;

    fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<Self::Break> {
        let with = query.with.as_ref().map(|with| with.cte_tables.as_slice()).unwrap_or_default();
        let definition = |cte: &ast::Cte| {
            (std::ptr::from_ref(cte.query.as_ref()).addr(), folded(&cte.alias.name))
        };
        let data = match query.body.as_ref() {
            ast::SetExpr::Values(values) => {
                values.rows.iter().flat_map(|row| row.iter()).map(constants).sum()
            }
            _ => 0,
        };
        self.frames.push(Frame {
            size: Size { nodes: 1, expressions: 0 },
            definitions: with.iter().map(definition).collect(),
            named: HashMap::new(),
            data,
        });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &ast::Query) -> ControlFlow<Self::Break> {
        let Frame { mut size, data, .. } = self.frames.pop().unwrap_or_default();
        size.expressions = size.expressions.saturating_sub(data);
        let outer = self.frame()?;
        let address = std::ptr::from_ref(query).addr();
        match outer.definitions.iter().find(|(at, _)| *at == address) {
            Some((_, name)) => {
                // It is counted where it is named.
                outer.named.insert(name.clone(), size);
            }
            None => outer.size.add(size),
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &ast::Select) -> ControlFlow<Self::Break> {
        self.frame()?.size.nodes += 1;
        let sets = grouping_sets(&select.group_by);
        if sets > SETS_MAX {
            let message = format!("GROUP BY has {sets} grouping sets, more than {SETS_MAX}");
            return ControlFlow::Break(Box::new(
                Error::new(ErrorKind::Limit, message)
                    .with_hint("Name those that you need in GROUPING SETS (…)."),
            ));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, name: &ast::ObjectName) -> ControlFlow<Self::Break> {
        let last = name.0.last().and_then(|part| part.as_ident()).map(folded);
        let named = |last: &String| {
            let with = self.frames.iter().rev().find_map(|frame| frame.named.get(last));
            with.filter(|_| name.0.len() == 1).or_else(|| self.views.get(last)).copied()
        };
        let size = last.as_ref().and_then(named).unwrap_or_default();
        let frame = self.frame()?;
        frame.size.nodes += 1;
        frame.size.add(size);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, _: &ast::Expr) -> ControlFlow<Self::Break> {
        self.frame()?.size.expressions += 1;
        ControlFlow::Continue(())
    }
}

/// A name in the form in which DataFusion looks it up.
fn folded(name: &ast::Ident) -> String {
    match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_lowercase(),
    }
}

/// The number of parts of a constant; 0 for an expression that has to be computed.
fn constants(expr: &ast::Expr) -> u64 {
    match expr {
        ast::Expr::Value(_) | ast::Expr::TypedString(_) => 1,
        ast::Expr::UnaryOp { expr, .. } | ast::Expr::Cast { expr, .. } => match expr.as_ref() {
            ast::Expr::Value(_) => 2,
            _ => 0,
        },
        _ => 0,
    }
}

/// The number of grouping sets of a GROUP BY.
fn grouping_sets(group_by: &GroupByExpr) -> u64 {
    let (exprs, modifiers) = match group_by {
        GroupByExpr::All(modifiers) => (&[] as &[ast::Expr], modifiers),
        GroupByExpr::Expressions(exprs, modifiers) => (exprs.as_slice(), modifiers),
    };
    let sets = |expr: &ast::Expr| match expr {
        ast::Expr::Cube(columns) => power(columns.len()),
        ast::Expr::Rollup(columns) => columns.len() as u64 + 1,
        ast::Expr::GroupingSets(sets) => sets.len() as u64,
        _ => 1,
    };
    let modified = |modifier: &GroupByWithModifier| match modifier {
        GroupByWithModifier::Cube => power(exprs.len()),
        GroupByWithModifier::Rollup => exprs.len() as u64 + 1,
        _ => 1,
    };
    let all = exprs.iter().map(sets).chain(modifiers.iter().map(modified));
    all.fold(1, |all: u64, sets| all.saturating_mul(sets.max(1)))
}

/// 2 to the power of `n`, saturating.
fn power(n: usize) -> u64 {
    1_u64 << n.min(40)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::datasource::ViewTable;
    use datafusion::execution::runtime_env::RuntimeEnv;
    use datafusion::prelude::{SessionConfig, SessionContext};
    use futures::executor::block_on;

    use super::*;
    use crate::parse::{Statement as Ours, parse_one};
    use crate::plan::{session_state, unbound};

    fn context() -> SessionContext {
        let state = session_state(SessionConfig::new(), Arc::new(RuntimeEnv::default())).unwrap();
        SessionContext::new_with_state(state)
    }

    fn plan(context: &SessionContext, sql: &str) -> Result<LogicalPlan> {
        let Ours::Query(query) = parse_one(sql)?.statement else { panic!("no query") };
        block_on(unbound(&context.state(), *query.query))
    }

    fn refused(context: &SessionContext, sql: &str) -> String {
        let error = plan(context, sql).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
        error.message().to_owned()
    }

    #[test]
    fn what_is_named_twice_counts_twice() {
        let context = context();
        let doubling = |n: usize| {
            let each = |i: usize| format!(", a{i} AS (SELECT p.x FROM a{0} p, a{0} q)", i - 1);
            let all: String = (1..n).map(each).collect();
            format!("WITH a0 AS (SELECT 1 AS x){all} SELECT * FROM a{}", n - 1)
        };
        plan(&context, &doubling(8)).unwrap();
        for n in [16, 24, 60] {
            let message = refused(&context, &doubling(n));
            assert!(message.contains("nodes, more than 10000"), "{message}");
        }
    }

    #[test]
    fn views_count_with_what_they_hold() {
        let context = context();
        let mut name = "v0".to_owned();
        let view = |name: &str, plan| {
            context.register_table(name, Arc::new(ViewTable::new(plan, None))).unwrap();
        };
        view(&name, plan(&context, "SELECT 1 AS x").unwrap());
        for i in 1..30 {
            let sql = format!("SELECT p.x FROM {name} p, {name} q");
            name = format!("v{i}");
            match plan(&context, &sql) {
                Ok(plan) => view(&name, plan),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Limit);
                    assert!((10..20).contains(&i), "{i}");
                    return;
                }
            }
        }
        panic!("a plan of 2^30 nodes was made");
    }

    #[test]
    fn grouping_sets_are_counted() {
        let context = context();
        let columns = |n: usize| (0..n).map(|i| format!("c{i}")).collect::<Vec<_>>().join(", ");
        let from = |n: usize| {
            let all: Vec<_> = (0..n).map(|i| format!("1 AS c{i}")).collect();
            format!("(SELECT {}) t", all.join(", "))
        };
        let cube = |n| format!("SELECT count(*) FROM {} GROUP BY CUBE ({})", from(n), columns(n));
        plan(&context, &cube(10)).unwrap();
        let sets = refused(&context, &cube(20));
        assert_eq!(sets, "GROUP BY has 1048576 grouping sets, more than 4096");
        refused(&context, &cube(63));
        let both = format!("SELECT 1 FROM {} GROUP BY CUBE ({1}), CUBE ({1})", from(8), columns(8));
        refused(&context, &both);
    }

    #[test]
    fn long_lists_are_refused_and_rows_are_data() {
        let context = context();
        let numbers = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>();
        let list = |n| format!("SELECT 1 WHERE 1 IN ({})", numbers(n).join(", "));
        plan(&context, &list(1_000)).unwrap();
        let message = refused(&context, &list(300_000));
        assert!(message.contains("expressions, more than 250000"), "{message}");
        let rows: Vec<_> = numbers(90_000).iter().map(|n| format!("({n}, -1, 'a')")).collect();
        plan(&context, &format!("VALUES {}", rows.join(", "))).unwrap();
    }
}

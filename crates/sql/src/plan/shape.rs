//! Classifies a plan for continuous execution: rows, windows, or something that never ends.
//!
//! Everything above a window relation runs once per *end* of windows. That is correct only for plans whose result is
//! the union of their results per end, which is proven here node by node, by the columns that identify a row's window
//! (see [`super::lineage`]). Whatever cannot be proven is refused, with the clause named and a way out.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DataFusionError, JoinType, Result};
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Aggregate, Distinct, Expr, Join, LogicalPlan, Window};
use windrow_core::{Error, Windows};

use super::asof::AsofJoin;
use super::assign::WindowAssign;
use super::interval;
use super::lineage::{self, Known};
use super::pattern::RowPattern;
use super::relation::StreamRelation;
use super::{is_streaming, keyed, over, stream_of};
use crate::diagnostics::place_of;

/// The kind of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Reads no stream.
    Static,
    /// Row by row. `windowed`: each row has a window, so that the rows of a window can be kept until it closes.
    Rows {
        /// Whether all rows come through a window relation.
        windowed: bool,
    },
    /// Needs closed windows.
    Windows,
    /// A union of closed windows and of rows without windows.
    Mixed,
}

/// The kind of `plan`.
///
/// # Errors
/// When it cannot run continuously: an error of kind `Sql` that says why and what to do.
#[recursive::recursive]
pub(crate) fn kind(plan: &LogicalPlan) -> Result<Kind> {
    refuse_streaming_subqueries(plan)?;
    match plan {
        LogicalPlan::TableScan(scan) => Ok(match stream_of(scan) {
            Some(relation) => Kind::Rows { windowed: relation.window().is_some() },
            None => Kind::Static,
        }),
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::Unnest(_)
        | LogicalPlan::Repartition(_) => {
            plan.inputs().first().map_or(Ok(Kind::Static), |p| kind(p))
        }
        LogicalPlan::Join(join) => of_join(join),
        LogicalPlan::Union(union) => {
            let mut merged = None;
            for input in &union.inputs {
                let next = kind(input)?;
                merged = Some(match merged {
                    None => next,
                    Some(before) => united(before, next, plan)?,
                });
            }
            Ok(merged.unwrap_or(Kind::Static))
        }
        LogicalPlan::Aggregate(aggregate) => of_aggregate(aggregate),
        LogicalPlan::Window(window) => of_over(window),
        LogicalPlan::Distinct(distinct) => {
            let input = distinct.input();
            let known = lineage::columns(input)?;
            let told = match distinct {
                Distinct::All(_) => known.iter().any(|k| k.to_end.is_some()),
                Distinct::On(on) => tells(&known, input, on.on_expr.iter()),
            };
            whole("DISTINCT", "Add window_end to what is DISTINCT.", input, told)
        }
        LogicalPlan::Sort(sort) => whole("ORDER BY", "", &sort.input, true),
        LogicalPlan::Limit(limit) => whole("LIMIT", "", &limit.input, true),
        _ => of_other(plan),
    }
}

fn of_other(plan: &LogicalPlan) -> Result<Kind> {
    if let Some(assign) = WindowAssign::of(plan) {
        if kind(assign.input())? == Kind::Static {
            return Ok(Kind::Static);
        }
        require_event_time(assign)?;
        return Ok(match assign.windows() {
            Windows::Aligned(_) => Kind::Rows { windowed: true },
            // The session of a row is known only when the session has ended.
            Windows::Session(_) => Kind::Windows,
        });
    }
    if let Some(join) = AsofJoin::of(plan) {
        return of_asof(join);
    }
    if let Some(pattern) = RowPattern::of(plan) {
        if kind(&pattern.input)? == Kind::Static {
            return Ok(Kind::Static);
        }
        let time = relations(&pattern.input).first().and_then(event_time_name);
        let of = streams(&pattern.input);
        pattern.check_continuous(&lineage::columns(&pattern.input)?, (&of, time))?;
        return Ok(Kind::Rows { windowed: false });
    }
    if is_streaming(plan) {
        return Err(refused(
            Error::sql(format!("{} cannot run continuously", what(plan)))
                .with_hint("Leave EMIT out to run the query once over what is there now."),
        ));
    }
    Ok(Kind::Static)
}

fn of_asof(join: &AsofJoin) -> Result<Kind> {
    if (kind(&join.left)?, kind(&join.right)?) == (Kind::Static, Kind::Static) {
        return Ok(Kind::Static);
    }
    check_asof(join)?;
    Ok(Kind::Rows { windowed: false })
}

/// Refuses an ASOF join of streams that cannot run for ever.
///
/// # Errors
/// When something is missing; it says what.
fn check_asof(join: &AsofJoin) -> Result<()> {
    let sides = [(&join.left, join.times.first()), (&join.right, join.times.last())];
    for (plan, time) in sides {
        let Some(time) = time else { continue };
        if lineage::of_column(&lineage::columns(plan)?, plan, time).lag.is_none() {
            let e = Error::sql(format!("the ASOF join compares \"{time}\", which is not the event time of its stream"))
                .with_hint("Compare event times, unchanged; a table that does not change is joined with JOIN, or declared as a stream.");
            return Err(refused(at(e, time)));
        }
    }
    let [left, right] = &join.times;
    if !join.bounds.look_back() && join.bounds.lower.is_none() {
        let e = Error::sql(format!(
            "the ASOF join has no lower bound of \"{left}\", so it would wait for a later row for ever"
        ))
        .with_hint(format!(
            "Add how long to wait: … AND {left} >= {right} - INTERVAL '1 minute'. The interval is a fixed length of time: no months."
        ));
        return Err(refused(at(e, left)));
    }
    Ok(())
}

/// An error about a column, with its place if that is known.
fn at(error: Error, column: &Column) -> Error {
    match column.spans().first().and_then(place_of) {
        Some(place) => error.with_place(place),
        None => error,
    }
}

/// Whether `plan` is a join in time, OVER in event time or a pattern with only row-wise nodes above it, so that its
/// rows are returned as they are finished.
///
/// # Errors
/// Those of the plan.
#[recursive::recursive]
pub(crate) fn returns_pairs(plan: &LogicalPlan) -> Result<bool> {
    match plan {
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Unnest(_) => plan.inputs().first().map_or(Ok(false), |p| returns_pairs(p)),
        LogicalPlan::Window(window) => Ok(over::of(window)?.is_some()),
        LogicalPlan::Join(join) => match (is_streaming(&join.left), is_streaming(&join.right)) {
            (true, true) => Ok(lineage::interval(join)?.is_some()),
            (true, false) => returns_pairs(&join.left),
            (false, true) => returns_pairs(&join.right),
            (false, false) => Ok(false),
        },
        LogicalPlan::Extension(_) => {
            let is_ours = AsofJoin::of(plan).is_some() || RowPattern::of(plan).is_some();
            Ok(is_ours && is_streaming(plan))
        }
        _ => Ok(false),
    }
}

/// A node that needs all rows of a window. `told`: whether its keys identify the window.
fn whole(clause: &str, add: &str, input: &LogicalPlan, told: bool) -> Result<Kind> {
    match kind(input)? {
        Kind::Static => Ok(Kind::Static),
        Kind::Rows { windowed: true } | Kind::Windows if told => Ok(Kind::Windows),
        Kind::Rows { windowed: true } | Kind::Windows => Err(refused(
            Error::sql(format!(
                "{clause} over windows of {} goes across windows, so it never ends",
                streams(input)
            ))
            .with_hint(add),
        )),
        Kind::Rows { windowed: false } | Kind::Mixed => {
            let e =
                Error::sql(format!("{clause} on {} without a window never ends", streams(input)))
                    .with_hint(window_hint(input));
            let changes =
                matches!(clause, "GROUP BY" | "GROUP BY or DISTINCT" | "an aggregate" | "DISTINCT");
            Err(refused(match changes {
                true => {
                    e.with_hint("Use EMIT CHANGES for a result that is updated with every row.")
                }
                false => e,
            }))
        }
    }
}

fn of_aggregate(aggregate: &Aggregate) -> Result<Kind> {
    let input = &aggregate.input;
    if keyed::is_current_rows(aggregate) {
        let e = Error::sql(format!(
            "{} takes changes, so none of its rows is ever final",
            streams(input)
        ));
        return Err(refused(e.with_hint(
            "Use EMIT CHANGES, without windows, patterns and joins in time, or leave EMIT out for the current rows.",
        )));
    }
    let known = lineage::columns(input)?;
    let told = match lineage::grouping_sets(aggregate) {
        Some(sets) => sets.iter().all(|set| tells(&known, input, set.iter())),
        None => tells(&known, input, grouping_set_to_exprlist(&aggregate.group_expr)?.into_iter()),
    };
    let clause = if aggregate.group_expr.is_empty() {
        "an aggregate"
    } else if aggregate.aggr_expr.is_empty() {
        "GROUP BY or DISTINCT"
    } else {
        "GROUP BY"
    };
    whole(clause, "Add window_start, window_end to GROUP BY (to every grouping set).", input, told)
}

fn of_over(window: &Window) -> Result<Kind> {
    let input = &window.input;
    let known = lineage::columns(input)?;
    if over::keeps_windows_apart(window, &known) {
        return whole("OVER", "", input, true);
    }
    let below = kind(input)?;
    if below == Kind::Static {
        return Ok(Kind::Static);
    }
    match over::in_time(window, &known) {
        Ok(_) => Ok(Kind::Rows { windowed: false }),
        Err(over::Missing::Other(e)) => Err(refused(e)),
        Err(over::Missing::Order)
            if matches!(below, Kind::Rows { windowed: false } | Kind::Mixed) =>
        {
            Err(refused(unordered(input, &known)?))
        }
        Err(over::Missing::Order) => whole(
            "OVER",
            "Add window_end to PARTITION BY, or order it by the event time alone.",
            input,
            false,
        ),
    }
}

/// The error for window functions that are not ordered by an event time.
fn unordered(input: &LogicalPlan, known: &[Known]) -> Result<Error> {
    let of = streams(input);
    if input.exists(over::waits_for_rows)? {
        return Ok(Error::sql(format!(
            "OVER on {of} is above one that waits for further rows (LEAD, or ROWS … FOLLOWING), whose rows are not returned in \
             order of time"
        ))
        .with_hint("Use RANGE BETWEEN … AND INTERVAL '…' FOLLOWING there, or one OVER (…) for all that wait."));
    }
    let times = known.iter().zip(input.schema().fields()).filter(|(known, _)| known.lag.is_some());
    let time = times.map(|(_, field)| field.name().clone()).next();
    let time = time.or_else(|| relations(input).first().and_then(event_time_name));
    let hint = match time {
        Some(time) => format!(
            "Use OVER (PARTITION BY … ORDER BY {time}), or add a window's window_end to PARTITION BY."
        ),
        None => "Declare the event time of the stream: WATERMARK FOR ts.".to_owned(),
    };
    let e = format!("OVER on {of} is not ordered by its event time, ascending, so it never ends");
    Ok(Error::sql(e).with_hint(hint))
}

fn tells<'a>(
    known: &[Known],
    input: &LogicalPlan,
    mut exprs: impl Iterator<Item = &'a Expr>,
) -> bool {
    exprs.any(|expr| lineage::of_expr(known, input, expr).to_end.is_some())
}

fn united(a: Kind, b: Kind, plan: &LogicalPlan) -> Result<Kind> {
    Ok(match (a, b) {
        (Kind::Static, Kind::Static) => Kind::Static,
        (Kind::Static, _) | (_, Kind::Static) => {
            return Err(refused(
                Error::sql(format!(
                    "UNION of {} with a table that does not stream cannot run continuously",
                    streams(plan)
                ))
                .with_hint("Read the table in a query of its own."),
            ));
        }
        (Kind::Rows { windowed: a }, Kind::Rows { windowed: b }) => Kind::Rows { windowed: a && b },
        (Kind::Mixed, _) | (_, Kind::Mixed) => Kind::Mixed,
        (Kind::Windows, Kind::Rows { windowed: false })
        | (Kind::Rows { windowed: false }, Kind::Windows) => Kind::Mixed,
        (Kind::Windows, _) | (_, Kind::Windows) => Kind::Windows,
    })
}

fn of_join(join: &Join) -> Result<Kind> {
    let (left, right) = (kind(&join.left)?, kind(&join.right)?);
    let preserved = match (left, right) {
        (Kind::Static, Kind::Static) => return Ok(Kind::Static),
        (_, Kind::Static) => matches!(
            join.join_type,
            JoinType::Inner
                | JoinType::Left
                | JoinType::LeftSemi
                | JoinType::LeftAnti
                | JoinType::LeftMark
        ),
        (Kind::Static, _) => matches!(
            join.join_type,
            JoinType::Inner
                | JoinType::Right
                | JoinType::RightSemi
                | JoinType::RightAnti
                | JoinType::RightMark
        ),
        _ => return of_stream_join(join, left, right),
    };
    if preserved {
        return Ok(if left == Kind::Static { right } else { left });
    }
    let streaming = if left == Kind::Static { right } else { left };
    let e = Error::sql(format!(
        "{} JOIN of {} with a table keeps the table's unmatched rows, which are known only \
         when the stream ends",
        join.join_type,
        streams(if left == Kind::Static { &join.right } else { &join.left })
    ))
    .with_hint("Keep the stream's rows instead: FROM stream LEFT JOIN table, or use JOIN.");
    Err(refused(match streaming {
        Kind::Windows | Kind::Rows { windowed: true } => e.with_hint(
            "For the rows of the table that each window lacks: FROM (SELECT DISTINCT window_end FROM windows) AS d CROSS \
             JOIN table AS t LEFT JOIN windows AS w ON w.window_end = d.window_end AND w.key = t.key.",
        ),
        _ => e,
    }))
}

/// A join of two streams: both sides have windows, and the join is within them, or bounds of the event times determine
/// which rows can still match.
fn of_stream_join(join: &Join, left: Kind, right: Kind) -> Result<Kind> {
    let (l, r) = (lineage::columns(&join.left)?, lineage::columns(&join.right)?);
    if interval::same_window(join, &l, &r) {
        return Ok(Kind::Windows);
    }
    let windowed = |kind| matches!(kind, Kind::Rows { windowed: true } | Kind::Windows);
    match interval::bounded(join, &l, &r) {
        Ok(_) if interval::join_kind(join).is_some() => {
            return Ok(Kind::Rows { windowed: false });
        }
        Ok(_) => {
            let what = if join.null_aware { "NOT IN" } else { "EXISTS or IN under OR" };
            return Err(refused(
                Error::sql(format!(
                    "{what} cannot be decided row by row for {} and {}",
                    streams(&join.left),
                    streams(&join.right)
                ))
                .with_hint(match join.null_aware {
                    true => "A NULL on either side would leave out other rows: use NOT EXISTS (SELECT … WHERE b.k = a.k AND …).",
                    false => "Use it with AND, or join with LEFT JOIN and test for NULL.",
                }),
            ));
        }
        Err(missing) if !windowed(left) || !windowed(right) => {
            let sides = (streams(&join.left), streams(&join.right));
            let e = interval::missing_bound(&missing, (&sides.0, &sides.1));
            return Err(refused(e.with_hint(
                "Use EMIT CHANGES for a result that is updated with every row; it keeps both sides.",
            )));
        }
        Err(_) => {}
    }
    Err(refused(
        Error::sql(format!(
            "a join of windows of {} and {} goes across windows, so it never ends",
            streams(&join.left),
            streams(&join.right)
        ))
        .with_hint(
            "Add a.window_start = b.window_start AND a.window_end = b.window_end to ON; both need \
             windows of the same size and time columns of the same type.",
        ),
    ))
}

fn refuse_streaming_subqueries(plan: &LogicalPlan) -> Result<()> {
    let mut found = None;
    plan.apply_subqueries(|subquery| {
        if is_streaming(subquery) {
            found = Some(streams(subquery));
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    match found {
        None => Ok(()),
        Some(streams) => Err(refused(
            Error::sql(format!("a subquery as a value cannot read {streams} continuously"))
                .with_hint("Join it on window_start and window_end instead."),
        )),
    }
}

/// Windows of a continuous query need an event time, unchanged.
fn require_event_time(assign: &WindowAssign) -> Result<()> {
    let known = lineage::columns(assign.input())?;
    let column = assign.time();
    if lineage::of_column(&known, assign.input(), column).lag.is_some() {
        return Ok(());
    }
    let e = Error::sql(format!(
        "column \"{}\" is not the event time of {}",
        column.name,
        streams(assign.input())
    ));
    let found = relations(assign.input());
    let over_sessions = assign.input().exists(|below| {
        let below = WindowAssign::of(below).map(WindowAssign::windows);
        Ok(matches!(below, Some(Windows::Session(_))))
    })?;
    let over_patterns = assign.input().exists(|below| Ok(RowPattern::of(below).is_some()))?;
    let hint = match found.as_slice() {
        _ if over_patterns => "Add WITHIN INTERVAL '…' to MATCH_RECOGNIZE, so that a match comes at most that long after its rows, and use its \
             MATCH_ROWTIME()."
            .to_owned(),
        _ if over_sessions => "Use window_time of the sessions below: their rows come when they have ended, and not in \
             the order of their own times."
            .to_owned(),
        [one] => match event_time_name(one) {
            Some(time) => {
                format!("Use \"{time}\", the event time of \"{}\", unchanged.", one.name())
            }
            None => format!(
                "Declare it: CREATE STREAM {} (…, WATERMARK FOR {} AS {} - INTERVAL '5 seconds').",
                one.name(),
                column.name,
                column.name
            ),
        },
        _ => "Use a column that is event time on all sides, unchanged.".to_owned(),
    };
    Err(refused(e.with_hint(hint)))
}

fn event_time_name(relation: &StreamRelation) -> Option<String> {
    use datafusion::catalog::TableProvider;
    let time = relation.event_times().first()?;
    relation.schema().fields().get(time.column).map(|field| field.name().clone())
}

fn relations(plan: &LogicalPlan) -> Vec<StreamRelation> {
    let mut found: Vec<StreamRelation> = vec![];
    let walked = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(relation) = stream_of(scan)
            && !found.iter().any(|known| known.name() == relation.name())
        {
            found.push(relation.as_ref().clone());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    if walked.is_ok() { found } else { vec![] }
}

/// The names of the streams below, for messages.
fn streams(plan: &LogicalPlan) -> String {
    let names: Vec<_> = relations(plan).iter().map(|r| format!("\"{}\"", r.name())).collect();
    match names.as_slice() {
        [] => "a stream".to_owned(),
        [one] => format!("stream {one}"),
        several => format!("streams {}", several.join(", ")),
    }
}

fn window_hint(plan: &LogicalPlan) -> String {
    let found = relations(plan);
    let (name, time) = match found.as_slice() {
        [one, ..] => (one.name(), event_time_name(one).unwrap_or_else(|| "ts".to_owned())),
        [] => ("stream", "ts".to_owned()),
    };
    format!(
        "Use FROM TUMBLE({name}, {time}, INTERVAL '1 minute') with window_start, window_end in \
         GROUP BY, or leave EMIT out to read what is there now."
    )
}

fn what(plan: &LogicalPlan) -> &'static str {
    match plan {
        LogicalPlan::RecursiveQuery(_) => "a recursive query over a stream",
        LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) => "EXPLAIN",
        LogicalPlan::Dml(_) | LogicalPlan::Copy(_) => "a write",
        _ => "this clause over a stream",
    }
}

/// Our error inside of DataFusion's.
pub(crate) fn refused(e: Error) -> DataFusionError {
    DataFusionError::External(Box::new(e))
}

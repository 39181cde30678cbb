//! Window relations, spellings 1 and 2, brought into the canonical form
//! `name((SELECT * FROM input), [time column,] interval…)` as a [`TableFactor::Table`].
//!
//! The input is always a subquery, so that code that resolves the tables of a statement beforehand finds them. Session
//! keys follow as the named argument `partition_by`, a tuple.

use sqlparser::ast::helpers::attached_token::AttachedToken;
use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArgOperator, FunctionArguments, GroupByExpr, Ident,
    ObjectName, Query, Select, SelectFlavor, SelectItem, SetExpr, TableFactor, TableFunctionArgs,
    TableWithJoins, Value, WildcardAdditionalOptions,
};
use windrow_core::{Error, Place, Result};

use super::cursor::place_of;
use super::dialect::PARTITIONED;
use super::interval::without_quarters;
use crate::diagnostics::did_you_mean;

/// The named argument that carries the keys of a session.
pub const PARTITION_BY: &str = "partition_by";

/// The named argument of a session that was written in GROUP BY: its rows are those that reach the GROUP BY. `$` cannot
/// begin an identifier, so a statement cannot name it without quotes.
pub const GROUPED: &str = "$grouped";

/// The function that fills gaps between windows, and its named argument for the values.
pub const FILL: &str = "fill";

/// The named argument that carries the time zone of days and months.
pub const ZONE: &str = "zone";

/// The named argument of a window in the time zone of its time column's type. `$` as in [`GROUPED`].
pub const ZONE_OF_COLUMN: &str = "$zone_of_column";

/// The four window functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WindowFunction {
    Tumble,
    Hop,
    Cumulate,
    Session,
}

impl WindowFunction {
    pub(super) const ALL: [Self; 4] = [Self::Tumble, Self::Hop, Self::Cumulate, Self::Session];

    /// Its canonical name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tumble => "tumble",
            Self::Hop => "hop",
            Self::Cumulate => "cumulate",
            Self::Session => "session",
        }
    }

    /// In capitals, for messages.
    pub(super) fn title(self) -> String {
        self.name().to_uppercase()
    }

    /// The window function of that name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|w| w.name().eq_ignore_ascii_case(name))
    }

    /// The least and the greatest number of intervals, and the form of the call.
    fn usage(self) -> (usize, usize, &'static str) {
        match self {
            Self::Tumble => (1, 2, "TUMBLE(table, time column, size [, offset] [, time zone])"),
            Self::Hop => (2, 3, "HOP(table, time column, slide, size [, offset] [, time zone])"),
            Self::Cumulate => {
                (2, 3, "CUMULATE(table, time column, step, size [, offset] [, time zone])")
            }
            Self::Session => (1, 1, "SESSION(table [PARTITION BY key], time column, gap)"),
        }
    }

    /// The names that its intervals may have.
    fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Tumble => &["size", "offset"],
            Self::Hop => &["slide", "size", "offset"],
            Self::Cumulate => &["step", "size", "offset"],
            Self::Session => &["gap"],
        }
    }
}

/// The window function with this one-part, unquoted name.
pub(super) fn window_name(name: &ObjectName) -> Option<WindowFunction> {
    plain(name).and_then(|ident| WindowFunction::named(&ident.value))
}

/// The identifier of a one-part, unquoted name.
pub(super) fn plain(name: &ObjectName) -> Option<&Ident> {
    match name.0.as_slice() {
        [part] => part.as_ident().filter(|i| i.quote_style.is_none()),
        _ => None,
    }
}

/// The place of a name.
pub(super) fn name_place(name: &ObjectName) -> Option<Place> {
    let ident = name.0.first().and_then(|p| p.as_ident())?;
    (ident.span.start.line > 0).then(|| place_of(ident.span))
}

/// Adds a place, if it is known.
pub(super) fn placed(error: Error, place: Option<Place>) -> Error {
    match place {
        Some(place) => error.with_place(place),
        None => error,
    }
}

/// Brings a table factor that is a window into canonical form; leaves others alone.
pub(super) fn canonical(factor: &mut TableFactor) -> Result<()> {
    if let TableFactor::TableFunction { expr: Expr::Function(function), alias } = factor
        && (window_name(&function.name).is_some() || is_fill(&function.name))
        && let FunctionArguments::List(list) = &mut function.args
    {
        let name = function.name.clone();
        let args = std::mem::take(&mut list.args);
        let alias = alias.take();
        *factor = named_table(name);
        if let TableFactor::Table { args: slot, alias: alias_slot, .. } = factor {
            *slot = Some(TableFunctionArgs { args, settings: None });
            *alias_slot = alias;
        }
    }
    if let TableFactor::Table { name, args: Some(args), .. } = factor
        && let Some(window) = window_name(name)
    {
        let place = name_place(name);
        args.args = arguments(window, std::mem::take(&mut args.args), place)?;
        *name = ObjectName::from(vec![Ident { value: window.name().to_owned(), ..first(name) }]);
    }
    if let TableFactor::Table { name, args: Some(args), .. } = factor
        && is_fill(name)
    {
        let place = name_place(name);
        args.args = filled(std::mem::take(&mut args.args), place)?;
        *name = ObjectName::from(vec![Ident { value: FILL.to_owned(), ..first(name) }]);
    }
    Ok(())
}

fn is_fill(name: &ObjectName) -> bool {
    plain(name).is_some_and(|ident| ident.value.eq_ignore_ascii_case(FILL))
}

/// The arguments of FILL: the relation as a subquery, its keys by name, and the others unchanged.
fn filled(args: Vec<FunctionArg>, place: Option<Place>) -> Result<Vec<FunctionArg>> {
    let mut args = args.into_iter();
    let wrong = || {
        let e = Error::sql("the first argument of FILL is not a relation");
        placed(
            e.with_hint("Write FILL(windows [PARTITION BY key], window_time, size, ttl)."),
            place,
        )
    };
    let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(input))) = args.next() else {
        return Err(wrong());
    };
    let mut keys = vec![];
    // The errors of `subquery` would name a window function.
    let input = subquery(WindowFunction::Session, input, &mut keys, place).map_err(|_| wrong())?;
    let mut out = vec![unnamed(input)];
    for arg in args {
        out.push(match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => unnamed(without_descriptor(expr)),
            other => other,
        });
    }
    if !keys.is_empty() {
        out.push(FunctionArg::Named {
            name: Ident::new(PARTITION_BY),
            arg: FunctionArgExpr::Expr(Expr::Tuple(keys)),
            operator: FunctionArgOperator::RightArrow,
        });
    }
    Ok(out)
}

/// The only column of a `DESCRIPTOR`, or the expression itself.
fn without_descriptor(expr: Expr) -> Expr {
    match descriptor(&expr) {
        Some(mut columns) if columns.len() == 1 => columns.remove(0),
        _ => expr,
    }
}

fn first(name: &ObjectName) -> Ident {
    let ident = name.0.first().and_then(|p| p.as_ident());
    ident.cloned().unwrap_or_else(|| Ident::new(""))
}

/// The arguments of a window, whatever their order and names.
#[derive(Default)]
struct Arguments {
    input: Option<Expr>,
    time: Option<Expr>,
    keys: Vec<Expr>,
    intervals: Vec<FunctionArg>,
    positional: usize,
    zone: Option<Expr>,
    /// Arguments that only our own rewriting adds.
    marks: Vec<FunctionArg>,
}

fn arguments(
    window: WindowFunction,
    args: Vec<FunctionArg>,
    place: Option<Place>,
) -> Result<Vec<FunctionArg>> {
    let mut found = Arguments::default();
    for arg in args {
        match arg {
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(expr), operator } => {
                named(window, &mut found, &name, expr, operator)?;
            }
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => {
                positional(window, &mut found, expr, place)?;
            }
            other => {
                return Err(wrong(window, &format!("\"{other}\" is not an argument of it"), place));
            }
        }
    }
    let Arguments { input, time, mut keys, intervals, zone, marks, .. } = found;
    let Some(input) = input else {
        return Err(wrong(window, "the table is missing", place));
    };
    let input = subquery(window, input, &mut keys, place)?;
    let (least, most, _) = window.usage();
    if window == WindowFunction::Session && intervals.len() == 2 {
        return Err(no_offset(place));
    }
    if !(least..=most).contains(&intervals.len()) {
        let n = intervals.len();
        let wants = if least == most { format!("{least}") } else { format!("{least} or {most}") };
        return Err(wrong(window, &format!("it has {n} intervals, not {wants}"), place));
    }
    if !keys.is_empty() && window != WindowFunction::Session {
        return Err(placed(
            Error::sql(format!("{} takes no PARTITION BY", window.title()))
                .with_hint("Windows of fixed length do not depend on keys; use GROUP BY above."),
            place,
        ));
    }
    let mut out = vec![unnamed(input)];
    out.extend(time.map(unnamed));
    out.extend(intervals);
    if !keys.is_empty() {
        out.push(FunctionArg::Named {
            name: Ident::new(PARTITION_BY),
            arg: FunctionArgExpr::Expr(Expr::Tuple(keys)),
            operator: FunctionArgOperator::RightArrow,
        });
    }
    out.extend(zone.map(|zone| FunctionArg::Named {
        name: Ident::new(ZONE),
        arg: FunctionArgExpr::Expr(zone),
        operator: FunctionArgOperator::RightArrow,
    }));
    out.extend(marks);
    Ok(out)
}

/// The error for a session with an offset.
pub(super) fn no_offset(place: Option<Place>) -> Error {
    let hint =
        "A session begins with its first row, so there is nothing to shift: leave the offset out.";
    placed(Error::sql("SESSION takes a gap and no offset").with_hint(hint), place)
}

/// An argument without a name.
pub(super) fn unnamed(expr: Expr) -> FunctionArg {
    FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
}

fn named(
    window: WindowFunction,
    found: &mut Arguments,
    name: &Ident,
    expr: Expr,
    operator: FunctionArgOperator,
) -> Result<()> {
    let place = Some(place_of(name.span));
    let key = name.value.to_lowercase();
    match key.as_str() {
        "data" | "input" | "table" => set(&mut found.input, expr, window, &key, place),
        "timecol" | "time" | "time_col" | "time_column" => {
            let time = time_column(window, expr, place)?;
            set(&mut found.time, time, window, &key, place)
        }
        "key" | "keys" | PARTITION_BY if window == WindowFunction::Session => {
            found.keys.extend(keys(expr));
            Ok(())
        }
        GROUPED | ZONE_OF_COLUMN if name.quote_style.is_none() => {
            let arg = FunctionArgExpr::Expr(expr);
            found.marks.push(FunctionArg::Named { name: name.clone(), arg, operator });
            Ok(())
        }
        ZONE | "timezone" | "time_zone" if window != WindowFunction::Session => {
            set(&mut found.zone, expr, window, &key, place)
        }
        ZONE | "timezone" | "time_zone" => Err(no_zone(place)),
        "offset" if window == WindowFunction::Session => Err(no_offset(place)),
        known if window.parameters().contains(&known) => {
            let expr = without_quarters(expr);
            let twice = found
                .intervals
                .iter()
                .any(|a| matches!(a, FunctionArg::Named { name, .. } if name.value == known));
            if twice {
                return Err(wrong(window, &format!("\"{key}\" is given twice"), place));
            }
            let name = Ident { value: key, quote_style: None, span: name.span };
            let arg = FunctionArgExpr::Expr(expr);
            found.intervals.push(FunctionArg::Named { name, arg, operator });
            Ok(())
        }
        _ => {
            let zone = (window != WindowFunction::Session).then_some(ZONE);
            let known = window.parameters().iter().copied().chain(["data", "timecol"]).chain(zone);
            let hint = did_you_mean(&key, known, "arguments");
            let what = format!("{} has no argument \"{}\"", window.title(), name.value);
            Err(placed(Error::sql(what).with_hint(hint), place))
        }
    }
}

fn positional(
    window: WindowFunction,
    found: &mut Arguments,
    expr: Expr,
    place: Option<Place>,
) -> Result<()> {
    found.positional += 1;
    if found.positional == 1 && found.input.is_none() {
        found.input = Some(expr);
        return Ok(());
    }
    let descriptor = descriptor(&expr).is_some();
    match expr {
        expr if descriptor && found.time.is_some() => found.keys.extend(keys(expr)),
        expr if found.time.is_none() && found.intervals.is_empty() && !is_interval(&expr) => {
            found.time = Some(time_column(window, expr, place)?);
        }
        expr if !found.intervals.is_empty() && names_a_zone(&expr) => {
            if window == WindowFunction::Session {
                return Err(no_zone(place));
            }
            set(&mut found.zone, expr, window, "time zone", place)?;
        }
        expr => found.intervals.push(unnamed(without_quarters(expr))),
    }
    Ok(())
}

/// The error for a session with a time zone.
fn no_zone(place: Option<Place>) -> Error {
    let hint = "A session begins with its first row and not with a day: leave the time zone out.";
    placed(Error::sql("SESSION takes a gap and no time zone").with_hint(hint), place)
}

/// Whether an argument is a text that can only be the name of a time zone: intervals begin with a number.
fn names_a_zone(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => {
                text.trim_start().starts_with(|c: char| c.is_alphabetic())
            }
            _ => false,
        },
        _ => false,
    }
}

fn set(
    slot: &mut Option<Expr>,
    expr: Expr,
    window: WindowFunction,
    key: &str,
    place: Option<Place>,
) -> Result<()> {
    if slot.replace(expr).is_some() {
        return Err(wrong(window, &format!("\"{key}\" is given twice"), place));
    }
    Ok(())
}

/// Whether an argument can only be an interval, not a column.
pub(super) fn is_interval(expr: &Expr) -> bool {
    match expr {
        Expr::Interval(_) | Expr::Value(_) | Expr::Cast { .. } | Expr::TypedString { .. } => true,
        Expr::UnaryOp { expr, .. } | Expr::Nested(expr) => is_interval(expr),
        Expr::BinaryOp { left, right, .. } => is_interval(left) && is_interval(right),
        _ => false,
    }
}

/// The columns of `DESCRIPTOR(a, …)`.
fn descriptor(expr: &Expr) -> Option<Vec<Expr>> {
    let Expr::Function(function) = expr else { return None };
    if !plain(&function.name)?.value.eq_ignore_ascii_case("descriptor") {
        return None;
    }
    let FunctionArguments::List(list) = &function.args else { return None };
    let column = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    list.args.iter().map(column).collect()
}

fn keys(expr: Expr) -> Vec<Expr> {
    match (descriptor(&expr), expr) {
        (Some(columns), _) => columns,
        (None, Expr::Tuple(columns)) => columns,
        (None, Expr::Nested(column)) => vec![*column],
        (None, column) => vec![column],
    }
}

/// A column name, with or without `DESCRIPTOR`.
pub(super) fn time_column(
    window: WindowFunction,
    expr: Expr,
    place: Option<Place>,
) -> Result<Expr> {
    let expr = match descriptor(&expr) {
        Some(mut columns) if columns.len() == 1 => columns.remove(0),
        Some(_) => {
            return Err(wrong(window, "DESCRIPTOR takes one time column", place));
        }
        None => expr,
    };
    match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => Ok(expr),
        other => Err(placed(
            Error::sql(format!(
                "the time column of {} must be a column, not an expression",
                window.title()
            ))
            .with_detail(format!("It is \"{}\".", shortened(&other)))
            .with_hint(
                "Add a column to the stream: ts TIMESTAMP GENERATED ALWAYS AS (…), and declare \
                 WATERMARK FOR ts.",
            ),
            place,
        )),
    }
}

fn shortened(expr: &Expr) -> String {
    let text = expr.to_string();
    match text.char_indices().nth(80) {
        Some((cut, _)) => format!("{}…", text.get(..cut).unwrap_or_default()),
        None => text,
    }
}

fn subquery(
    window: WindowFunction,
    input: Expr,
    keys: &mut Vec<Expr>,
    place: Option<Place>,
) -> Result<Expr> {
    let factor = match input {
        Expr::Subquery(_) => return Ok(input),
        Expr::Nested(inner) => return subquery(window, *inner, keys, place),
        Expr::Identifier(name) => named_table(ObjectName::from(vec![name])),
        Expr::CompoundIdentifier(names) => named_table(ObjectName::from(names)),
        Expr::Function(function) => {
            let FunctionArguments::List(list) = function.args else {
                return Err(wrong(window, "its first argument is not a table", place));
            };
            if plain(&function.name).is_some_and(|n| n.value == PARTITIONED) {
                let mut args = list.args.into_iter().filter_map(|arg| match arg {
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
                    _ => None,
                });
                let inner = args.next();
                keys.extend(args);
                let missing = || wrong(window, "the table is missing", place);
                return subquery(window, inner.ok_or_else(missing)?, keys, place);
            }
            let mut factor = named_table(function.name);
            if let TableFactor::Table { args, .. } = &mut factor {
                *args = Some(TableFunctionArgs { args: list.args, settings: None });
            }
            factor
        }
        other => {
            let what = format!("its first argument is \"{}\", not a table", shortened(&other));
            return Err(wrong(window, &what, place));
        }
    };
    Ok(Expr::Subquery(Box::new(select_star(factor))))
}

/// The error for wrong arguments, with the usage of the function.
pub(super) fn wrong(window: WindowFunction, what: &str, place: Option<Place>) -> Error {
    let (.., usage) = window.usage();
    let error = Error::sql(format!("the arguments of {} are wrong: {what}", window.title()));
    placed(error.with_hint(format!("Write it as {usage}.")), place)
}

/// A table by name.
pub(super) fn named_table(name: ObjectName) -> TableFactor {
    TableFactor::Table {
        name,
        alias: None,
        args: None,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    }
}

/// `SELECT * FROM factor`.
pub(super) fn select_star(factor: TableFactor) -> Query {
    let select = Select {
        select_token: AttachedToken::empty(),
        optimizer_hints: vec![],
        distinct: None,
        select_modifiers: None,
        top: None,
        top_before_distinct: false,
        projection: vec![SelectItem::Wildcard(WildcardAdditionalOptions::default())],
        exclude: None,
        into: None,
        from: vec![TableWithJoins { relation: factor, joins: vec![] }],
        lateral_views: vec![],
        prewhere: None,
        selection: None,
        connect_by: vec![],
        group_by: GroupByExpr::Expressions(vec![], vec![]),
        cluster_by: vec![],
        distribute_by: vec![],
        sort_by: vec![],
        having: None,
        named_window: vec![],
        qualify: None,
        window_before_qualify: false,
        value_table_mode: None,
        flavor: SelectFlavor::Standard,
    };
    Query {
        with: None,
        body: Box::new(SetExpr::Select(Box::new(select))),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: vec![],
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: vec![],
    }
}

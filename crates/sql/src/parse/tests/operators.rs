//! The precedence of operators: each beside its neighbours.

use super::{fails, pointed, query_of};

/// How PostgreSQL and DuckDB read an expression, with all its parentheses.
///
/// OR < AND < NOT < IS < comparisons < LIKE, IN, BETWEEN < other operators < `+ -` < `* / %` <
/// AT TIME ZONE < unary minus < `::`
const PRECEDENCES: &[(&str, &str)] = &[
    ("a OR b AND c", "a OR (b AND c)"),
    ("a AND b OR c", "(a AND b) OR c"),
    ("a XOR b AND c", "a XOR (b AND c)"),
    ("a OR b XOR c", "a OR (b XOR c)"),
    ("NOT a AND b", "(NOT a) AND b"),
    ("NOT a = b", "NOT (a = b)"),
    ("NOT a IS NULL", "NOT (a IS NULL)"),
    ("NOT a LIKE b OR c", "(NOT (a LIKE b)) OR c"),
    ("NOT a IS DISTINCT FROM b AND c", "(NOT (a IS DISTINCT FROM b)) AND c"),
    ("a IS DISTINCT FROM b AND c", "(a IS DISTINCT FROM b) AND c"),
    ("a IS DISTINCT FROM b OR c", "(a IS DISTINCT FROM b) OR c"),
    ("a IS NOT DISTINCT FROM b AND c > d", "(a IS NOT DISTINCT FROM b) AND (c > d)"),
    (
        "a IS NOT DISTINCT FROM b OR c IS DISTINCT FROM d",
        "(a IS NOT DISTINCT FROM b) OR (c IS DISTINCT FROM d)",
    ),
    ("a = b IS DISTINCT FROM c = d", "(a = b) IS DISTINCT FROM (c = d)"),
    ("a + b IS DISTINCT FROM c + d", "(a + b) IS DISTINCT FROM (c + d)"),
    ("a IS DISTINCT FROM b LIKE c", "a IS DISTINCT FROM (b LIKE c)"),
    ("a = b IS NULL", "(a = b) IS NULL"),
    ("a < b IS NOT NULL AND c", "((a < b) IS NOT NULL) AND c"),
    ("a = b IS TRUE", "(a = b) IS TRUE"),
    ("a IS NULL AND b", "(a IS NULL) AND b"),
    ("a IS NULL = b", "(a IS NULL) = b"),
    ("a LIKE b IS NULL", "(a LIKE b) IS NULL"),
    ("a = b LIKE c", "a = (b LIKE c)"),
    ("a LIKE b = c", "(a LIKE b) = c"),
    ("a ILIKE b <> c", "(a ILIKE b) <> c"),
    ("a SIMILAR TO b = c", "(a SIMILAR TO b) = c"),
    ("a = b NOT LIKE c", "a = (b NOT LIKE c)"),
    ("a = b IN (c)", "a = (b IN (c))"),
    ("a IN (b) = c", "(a IN (b)) = c"),
    ("a NOT IN (b) AND c", "(a NOT IN (b)) AND c"),
    ("a = b BETWEEN c AND d", "a = (b BETWEEN c AND d)"),
    ("a BETWEEN b AND c = d", "(a BETWEEN b AND c) = d"),
    ("a BETWEEN b AND c AND d", "(a BETWEEN b AND c) AND d"),
    ("a BETWEEN b + c AND d || e OR f", "(a BETWEEN (b + c) AND (d || e)) OR f"),
    ("a NOT BETWEEN b AND c AND d", "(a NOT BETWEEN b AND c) AND d"),
    ("a LIKE b || c", "a LIKE (b || c)"),
    ("a LIKE b || c ESCAPE '!' AND d", "(a LIKE (b || c) ESCAPE '!') AND d"),
    ("a || b LIKE c", "(a || b) LIKE c"),
    ("a || b = c", "(a || b) = c"),
    ("a || b + c", "a || (b + c)"),
    ("a + b || c", "(a + b) || c"),
    ("a || b || c", "(a || b) || c"),
    ("a -> b = c", "(a -> b) = c"),
    ("a ->> b LIKE c", "(a ->> b) LIKE c"),
    ("a -> b || c", "(a -> b) || c"),
    ("a || b -> c", "(a || b) -> c"),
    ("a @> b AND c", "(a @> b) AND c"),
    ("a @> b || c", "(a @> b) || c"),
    ("a ~ b = c", "(a ~ b) = c"),
    ("a = b ~ c", "a = (b ~ c)"),
    ("a !~* b AND c", "(a !~* b) AND c"),
    ("a ~ b || c", "(a ~ b) || c"),
    ("a ~~ b = c", "(a ~~ b) = c"),
    ("a | b & c", "(a | b) & c"),
    ("a & b | c", "(a & b) | c"),
    ("a & b = c", "(a & b) = c"),
    ("a << b + c", "a << (b + c)"),
    ("a + b >> c", "(a + b) >> c"),
    ("a | b << c", "(a | b) << c"),
    ("a ^ b & c", "(a ^ b) & c"),
    ("a & b IN (c)", "(a & b) IN (c)"),
    ("a && b OR c", "(a && b) OR c"),
    ("a + b * c", "a + (b * c)"),
    ("a * b + c", "(a * b) + c"),
    ("a - b - c", "(a - b) - c"),
    ("a / b * c", "(a / b) * c"),
    ("a % b * c", "(a % b) * c"),
    ("a + b = c - d", "(a + b) = (c - d)"),
    ("a + b IS NULL", "(a + b) IS NULL"),
    ("a * b AT TIME ZONE c", "a * (b AT TIME ZONE c)"),
    ("a + b AT TIME ZONE c", "a + (b AT TIME ZONE c)"),
    ("a AT TIME ZONE b AT TIME ZONE c", "(a AT TIME ZONE b) AT TIME ZONE c"),
    ("a AT TIME ZONE b - c", "(a AT TIME ZONE b) - c"),
    ("a AT TIME ZONE b = c", "(a AT TIME ZONE b) = c"),
    ("- a + b", "(- a) + b"),
    ("- a * b", "(- a) * b"),
    ("a - - b", "a - (- b)"),
    ("- a IS NULL", "(- a) IS NULL"),
    ("- a::INT", "- (a::INT)"),
    ("a + b::INT", "a + (b::INT)"),
    ("a::INT * b", "(a::INT) * b"),
    ("a || b::VARCHAR", "a || (b::VARCHAR)"),
    ("a::VARCHAR LIKE b", "(a::VARCHAR) LIKE b"),
    ("a = ANY (b) AND c", "(a = ANY (b)) AND c"),
    ("a > b AND c <= d OR e <> f", "((a > b) AND (c <= d)) OR (e <> f)"),
    (
        "CASE WHEN a OR b THEN c + d ELSE e END = f",
        "(CASE WHEN (a OR b) THEN (c + d) ELSE e END) = f",
    ),
];

/// The tree of an expression without parentheses.
fn tree(text: &str) -> String {
    use sqlparser::ast::{Expr, VisitMut, VisitorMut};
    struct Bare;
    impl VisitorMut for Bare {
        type Break = ();
        fn post_visit_expr(&mut self, expr: &mut Expr) -> std::ops::ControlFlow<()> {
            while let Expr::Nested(inner) = expr {
                *expr = (**inner).clone();
            }
            std::ops::ControlFlow::Continue(())
        }
    }
    let mut query = query_of(&format!("SELECT {text}")).query;
    let _never_breaks = VisitMut::visit(&mut *query, &mut Bare);
    // Without parentheses, places differ.
    let tree = format!("{query:?}");
    let mut out = String::new();
    let mut rest = tree.as_str();
    while let Some((before, after)) = rest.split_once("Location(") {
        out.push_str(before);
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    out + rest
}

#[test]
fn operators_bind_as_in_postgresql_and_duckdb() {
    for (text, meant) in PRECEDENCES {
        assert_eq!(tree(text), tree(meant), "{text} is not read as {meant}");
    }
}

#[test]
fn comparisons_do_not_chain() {
    for (sql, at) in
        [("SELECT a < b < c", "<"), ("SELECT a = b = c", "="), ("SELECT a <> b + 1 > c", ">")]
    {
        let error = fails(sql);
        assert_eq!(pointed(sql, error.place()), at, "{sql}");
    }
    for sql in ["SELECT (a < b) = c", "SELECT a = (b = c)", "SELECT a = b IS NULL"] {
        query_of(sql);
    }
}

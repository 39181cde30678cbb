//! Statements about sinks.

use super::{fails, one, pointed};
use crate::parse::{Emit, SinkRows, Statement};

#[test]
fn a_sink_has_a_view_or_a_query() {
    let sql =
        "CREATE OR REPLACE SINK IF NOT EXISTS k FROM v WITH (connector = 'file', 'header.X' = 'a')";
    let Statement::CreateSink(sink) = one(sql) else { panic!("not a sink") };
    assert!(sink.or_replace && sink.if_not_exists && sink.options.len() == 2);
    assert!(matches!(sink.rows, SinkRows::View(view) if view.to_string() == "v"));
    for (sql, options) in [
        ("CREATE SINK k AS SELECT (a) FROM t WITH (x = '1', y = '(')", 2),
        ("CREATE SINK k WITH (x = '1') AS SELECT a FROM t", 1),
        ("CREATE SINK k AS WITH c AS (SELECT a FROM t) SELECT * FROM c", 0),
        ("CREATE SINK k AS SELECT a FROM t WHERE a IN (1, 2)", 0),
        ("CREATE SINK k AS SELECT a FROM t WHERE a IN (1, 2) WITH (x = '1')", 1),
    ] {
        let Statement::CreateSink(sink) = one(sql) else { panic!("{sql}") };
        assert_eq!(sink.options.len(), options, "{sql}");
        assert!(matches!(sink.rows, SinkRows::Query(_)), "{sql}");
    }
    let sql = "CREATE SINK k AS SELECT count(*) FROM TUMBLE(t, ts, INTERVAL '1 s') EMIT FINAL WITH (x = '1')";
    let Statement::CreateSink(sink) = one(sql) else { panic!("not a sink") };
    let SinkRows::Query(query) = sink.rows else { panic!("no query") };
    assert_eq!(query.tail.emit, Some(Emit::OnWindowClose));
    for (sql, resumes) in [("PAUSE SINK k", false), ("RESUME SINK k", true)] {
        assert!(
            matches!(one(sql), Statement::PauseSink { resume, .. } if resume == resumes),
            "{sql}"
        );
    }
    for (sql, resumes) in [("PAUSE STREAM s", false), ("RESUME STREAM s", true)] {
        let paused = one(sql);
        assert!(
            matches!(paused, Statement::PauseStream { resume, .. } if resume == resumes),
            "{sql}"
        );
    }
}

#[test]
fn wrong_sinks_point_at_the_mistake() {
    for (sql, message, at, hint) in [
        ("CREATE SINK k WITH (a = '1')", "expected FROM, AS or WITH", "", "CREATE SINK k FROM"),
        ("CREATE SINK k FROM", "the name of a materialized view", "", ""),
        ("CREATE SINK k FROM v WITH (a = '1') x", "expected the end", "x", ""),
        ("CREATE SINK k WITH (a = '1') FROM v WITH (a = '1')", "expected the end", "WITH", ""),
        (
            "CREATE SINK k AS SELECT 1 FROM v WITH (a = '1', a = '2')",
            "is given twice",
            "a = '2'",
            "",
        ),
        (
            "CREATE SINK k AS SELECT FROM WHERE WITH (a = '1')",
            "SELECT has no columns",
            "SELECT",
            "",
        ),
        ("CREATE SINK k AS", "expected", "", ""),
        ("CREATE SUBSCRIPTION k", "not part of this version", "SUBSCRIPTION", ""),
        ("PAUSE v", "not part of this version", "PAUSE", "PAUSE SINK"),
        ("ALTER SINK k", "ALTER SINK is not supported", "ALTER", "CREATE OR REPLACE SINK"),
    ] {
        let error = fails(sql);
        let report = error.render(sql);
        assert!(error.message().contains(message), "{sql}\n{report}");
        assert!(pointed(sql, error.place()).starts_with(at), "{sql}\n{report}");
        assert!(error.hints().concat().contains(hint), "{sql}\n{report}");
    }
}

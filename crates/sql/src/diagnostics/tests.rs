//! How the engine's errors are displayed to users.

use std::error::Error as StdError;
use std::sync::Arc;

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::prelude::{SessionConfig, SessionContext};
use windrow_core::{Error, ErrorKind};

use super::{did_you_mean, from_datafusion, nearest};

async fn failing(sql: &str) -> Error {
    let mut config = SessionConfig::new();
    config.options_mut().sql_parser.collect_spans = true;
    let context = SessionContext::new_with_config(config);
    let setup = "CREATE TABLE t (auction INT, price DOUBLE, \"Upper\" INT, s VARCHAR) AS VALUES (1, 2.0, 3, 'x')";
    context.sql(setup).await.unwrap().collect().await.unwrap();
    let error = match context.sql(sql).await {
        Ok(frame) => frame.collect().await.err(),
        Err(error) => Some(error),
    };
    from_datafusion(error.unwrap_or_else(|| panic!("{sql} succeeded")))
}

#[test]
fn user_errors_read_well() {
    let cases = [
        (
            "SELECT actor FROM t",
            ErrorKind::Sql,
            "unknown column \"actor\"",
            "Known columns: auction",
            Some((1, 8)),
        ),
        (
            "SELECT auctoin FROM t",
            ErrorKind::Sql,
            "unknown column \"auctoin\"",
            "Did you mean \"auction\"?",
            Some((1, 8)),
        ),
        (
            "SELECT upper FROM t",
            ErrorKind::Sql,
            "unknown column \"upper\"",
            "double quotes: \"Upper\"",
            Some((1, 8)),
        ),
        (
            "SELECT 1 FROM nowhere",
            ErrorKind::NotFound,
            "unknown table \"nowhere\"",
            "SHOW TABLES",
            None,
        ),
        (
            "SELECT summ(price) FROM t",
            ErrorKind::Sql,
            "unknown function \"summ\"",
            "Did you mean \"sum\"?",
            Some((1, 8)),
        ),
        (
            "SELECT auction FROM t a JOIN t b ON a.auction = b.auction",
            ErrorKind::Sql,
            "ambiguous",
            "",
            None,
        ),
        ("SELECT CAST(s AS INT) FROM t", ErrorKind::Data, "cannot cast", "TRY_CAST", None),
        ("SELECT auction / 0 FROM t", ErrorKind::Data, "ivide by zero", "", None),
        ("SELECT auction, sum(price) FROM t", ErrorKind::Sql, "GROUP BY", "", None),
        ("SELECT auction + s + INTERVAL '1 s' FROM t", ErrorKind::Sql, "", "", None),
    ];
    for (sql, kind, message, hint, place) in cases {
        let error = futures::executor::block_on(failing(sql));
        let shown = error.render(sql);
        assert_eq!(error.kind(), kind, "{sql}\n{shown}");
        assert!(error.message().to_lowercase().contains(&message.to_lowercase()), "{sql}\n{shown}");
        assert!(error.hints().concat().contains(hint), "{sql}\n{shown}");
        if let Some(place) = place {
            assert_eq!(error.place().map(|p| (p.line, p.column)), Some(place), "{sql}\n{shown}");
        }
        assert!(!shown.contains("bug in DataFusion"), "{shown}");
        assert!(!error.message().ends_with('.') && !error.message().contains('\n'), "{shown}");
    }
}

#[test]
fn our_errors_come_through() {
    let ours = || Error::new(ErrorKind::Limit, "too many keys").with_hint("Raise it.");
    let external = || DataFusionError::External(Box::new(ours()));
    let shared = Arc::new(external());
    let layers = [
        external(),
        DataFusionError::Context("x".into(), Box::new(external())),
        DataFusionError::Collection(vec![external(), DataFusionError::Plan("y".into())]),
        DataFusionError::Shared(Arc::new(external())),
        DataFusionError::Shared(Arc::clone(&shared)),
        DataFusionError::ArrowError(Box::new(ArrowError::ExternalError(Box::new(ours()))), None),
        DataFusionError::External(Box::new(external())),
    ];
    for layer in layers {
        let shown = layer.to_string();
        let error = from_datafusion(layer);
        assert_eq!((error.kind(), error.message()), (ErrorKind::Limit, "too many keys"), "{shown}");
        assert_eq!(error.hints(), ["Raise it."], "{shown}");
    }
    drop(shared);
}

/// The panic of a task is reported the same way, however its end is observed.
#[test]
fn panics_of_tasks_are_errors_of_ours() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let end = || {
        let task = runtime.spawn(async { panic!("thir\"teen\nand more") });
        runtime.block_on(task).unwrap_err()
    };
    let external = |end: Box<dyn StdError + Send + Sync>| DataFusionError::External(end);
    let shared = Arc::new(end());
    let again = Arc::new(external(Box::new(Arc::clone(&shared))));
    let ways = [
        DataFusionError::ExecutionJoin(Box::new(end())),
        external(Box::new(end())),
        external(Box::new(std::io::Error::other(end()))),
        external(end().to_string().into()),
        DataFusionError::Execution(end().to_string()),
        DataFusionError::Context("Join Error".into(), Box::new(external(Box::new(shared)))),
        DataFusionError::Shared(Arc::clone(&again)),
        DataFusionError::ArrowError(
            Box::new(ArrowError::ExternalError(Box::new(external(Box::new(end()))))),
            None,
        ),
    ];
    for way in ways {
        let shown = format!("{way:?}");
        let error = from_datafusion(way);
        let told = (error.kind(), error.message());
        let wanted = (ErrorKind::Internal, "the statement stopped at a panic: thir\"teen");
        assert_eq!(told, wanted, "{shown}");
    }
}

#[test]
fn kinds() {
    let cases = [
        (DataFusionError::ResourcesExhausted("memory".into()), ErrorKind::Limit),
        (DataFusionError::Internal("x".into()), ErrorKind::Internal),
        (DataFusionError::NotImplemented("x".into()), ErrorKind::Sql),
        (DataFusionError::Configuration("x".into()), ErrorKind::Config),
        (DataFusionError::Collection(vec![]), ErrorKind::Internal),
        (DataFusionError::ArrowError(Box::new(ArrowError::DivideByZero), None), ErrorKind::Data),
    ];
    for (error, kind) in cases {
        assert_eq!(from_datafusion(error).kind(), kind);
    }
}

#[test]
fn near_matches() {
    assert_eq!(nearest("auctoin", ["price", "auction"]), Some("auction"));
    assert_eq!(nearest("PRICE", ["price"]), Some("price"));
    assert_eq!(nearest("x", ["price", "auction"]), None);
    assert_eq!(nearest("", ["a"]), None);
    assert_eq!(
        did_you_mean("b", ["aa", "bb"], "streams"),
        "Did you mean \"bb\"? Known streams: aa, bb."
    );
    assert_eq!(did_you_mean("b", [], "streams"), "There are no streams.");
}

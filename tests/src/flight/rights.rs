//! Statements against roles: what a user may not do cannot be prepared either, and handles belong to the session that
//! prepared them.

use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    Any, Command, CommandPreparedStatementQuery, CommandStatementQuery, ProstMessageExt,
};
use arrow_flight::{
    Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightDescriptor,
    FlightEndpoint, FlightInfo, Ticket,
};
use futures::TryStreamExt;
use libtest_mimic::{Failed, Trial};
use prost::Message;
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Request};
use windrow_engine::EngineConfig;
use windrow_server::ServerConfig;

use crate::flight::{Served, fetch, lines, run, status, tokens, until};
use crate::flight_guard::any_port;
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("flight/who may only read prepares nothing else", readers),
        trial("flight/handles are for who prepared them", others),
        trial("flight/a handle outlives its table, with an error", dropped),
        trial("flight/nobody cancels what has no ticket", no_ticket),
    ]
}

type Client = FlightSqlServiceClient<Channel>;

/// A server with a user of each role.
struct Guarded {
    served: Served,
    tokens: Vec<String>,
    _tmp: TempDir,
}

impl Guarded {
    fn start() -> Result<Self, Failed> {
        let tmp = tempfile::tempdir()?;
        let users = ["read", "write", "admin"].map(|role| (format!("the {role} one"), role));
        let (login, tokens) = tokens(tmp.path(), users)?;
        let serving = ServerConfig { login, ..ServerConfig::new(any_port()) };
        let served = Served::with_both(EngineConfig::default(), serving)?;
        Ok(Self { served, tokens, _tmp: tmp })
    }

    /// All on one connection.
    async fn clients(&self) -> Result<[Client; 3], Failed> {
        let channel = self.served.channel().await?;
        Ok([0, 1, 2].map(|user| {
            let mut client = FlightSqlServiceClient::new(channel.clone());
            client.set_token(self.tokens[user].clone());
            client
        }))
    }
}

const OBJECTS: &[&str] =
    &["CREATE STREAM s (k INT, ts TIMESTAMP, WATERMARK FOR ts)", "CREATE TABLE t AS SELECT 1 AS k"];

fn readers() -> Result<(), Failed> {
    let guarded = Guarded::start()?;
    guarded.served.runtime.block_on(async {
        let [mut reader, mut writer, mut admin] = guarded.clients().await?;
        run(&mut admin, OBJECTS).await?;
        let names = guarded.served.engine.names();
        let insert = "INSERT INTO s VALUES (1, TIMESTAMP '2026-01-01 00:00:01')";
        let writes = [
            insert,
            "INSERT INTO s SELECT k, ts FROM s",
            "INSERT INTO s VALUES (?, ?)",
            "INSERT INTO t VALUES (7)",
            // What is wrong with them is not for those who may not write.
            "INSERT INTO t VALUES (1, 2, 3)",
            "INSERT INTO t (nothing) VALUES (1)",
            "INSERT INTO s (nothing) VALUES (?)",
            "COPY t TO 'x.csv'",
        ];
        let defines = [
            "CREATE STREAM n (k INT)",
            "CREATE OR REPLACE STREAM s (k INT)",
            "CREATE VIEW n AS SELECT 1 AS x",
            "CREATE MATERIALIZED VIEW n AS SELECT k FROM s",
            "CREATE TABLE n AS SELECT 1 AS x",
            "CREATE SCHEMA n",
            "DROP STREAM s",
            "DROP TABLE t",
        ];
        let denied = async |client: &mut Client, sql: &str| {
            let query = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
            let mut request =
                Request::new(FlightDescriptor::new_cmd(query.as_any().encode_to_vec()));
            let token = client.token().ok_or("no token")?;
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
            let prepared = client.prepare(sql.to_owned(), None).await.map(|_| "prepared");
            let executed = client.execute(sql.to_owned(), None).await.map(|_| "executed");
            let updated = client.execute_update(sql.to_owned(), None).await.map(|_| "updated");
            let columns = client.inner_mut().get_schema(request).await;
            let columns = columns.map(|_| "columns").map_err(FlightError::from);
            for done in [prepared, executed, updated, columns] {
                if let Ok(done) = &done {
                    return Err(format!("{sql}: {done}").into());
                }
                let refused = status(done)?;
                assert_eq!(refused.code(), Code::PermissionDenied, "{sql}: {refused:?}");
                assert!(refused.message().contains("needs the role"), "{sql}: {refused:?}");
            }
            Ok::<_, Failed>(())
        };
        for sql in writes.iter().chain(&defines) {
            denied(&mut reader, sql).await?;
        }
        for sql in &defines {
            denied(&mut writer, sql).await?;
        }
        // Those who may, can.
        let mut statement = writer.prepare(insert.to_owned(), None).await?;
        assert_eq!(statement.execute_update().await?, 1);
        let mut statement = reader.prepare("SELECT k FROM s".to_owned(), None).await?;
        let info = statement.execute().await?;
        assert_eq!(lines(&fetch(&mut reader, &info).await?)?, ["1"]);
        assert_eq!(guarded.served.engine.names(), names);
        Ok(())
    })
}

/// The handle of a prepared query.
fn handle(info: &FlightInfo) -> Result<CommandPreparedStatementQuery, Failed> {
    let ticket = info.endpoint[0].ticket.clone().ok_or("no ticket")?;
    match Command::try_from(Any::decode(ticket.ticket)?)? {
        Command::CommandPreparedStatementQuery(query) => Ok(query),
        other => Err(format!("not prepared: {other:?}").into()),
    }
}

fn others() -> Result<(), Failed> {
    let guarded = Guarded::start()?;
    guarded.served.runtime.block_on(async {
        let [mut reader, mut writer, mut admin] = guarded.clients().await?;
        run(&mut admin, OBJECTS).await?;
        let mut statement = writer.prepare("SELECT k FROM t".to_owned(), None).await?;
        let info = statement.execute().await?;
        let handle = handle(&info)?;
        let unknown = |refused: tonic::Status| {
            assert_eq!(refused.code(), Code::NotFound, "{refused:?}");
            assert!(refused.message().contains("no such prepared statement"), "{refused:?}");
        };
        // On the same connection, with what the other one knows.
        for (user, client) in [(0, &mut reader), (2, &mut admin)] {
            let ticket = info.endpoint[0].ticket.clone().ok_or("no ticket")?;
            unknown(status(client.do_get(ticket).await)?);
            let descriptor = FlightDescriptor::new_cmd(handle.as_any().encode_to_vec());
            let mut request = Request::new(descriptor);
            let token = format!("Bearer {}", guarded.tokens[user]);
            request.metadata_mut().insert("authorization", token.parse()?);
            let columns = client.inner_mut().get_flight_info(request).await;
            unknown(columns.err().ok_or("it has columns")?);
        }
        // Nor with the name of the session.
        let mut request =
            Request::new(Action { r#type: "GetSessionOptions".into(), body: vec![].into() });
        let token = format!("Bearer {}", guarded.tokens[1]);
        request.metadata_mut().insert("authorization", token.parse()?);
        let told = writer.inner_mut().do_action(request).await?;
        let cookie = told.metadata().get("set-cookie").ok_or("no cookie")?.to_str()?;
        let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
        reader.set_header("cookie", cookie);
        let stolen = status(reader.execute("SELECT 1".to_owned(), None).await)?;
        assert!(stolen.message().contains("the session has ended"), "{stolen:?}");
        assert_eq!(lines(&fetch(&mut writer, &info).await?)?, ["1"]);
        Ok(())
    })
}

fn dropped() -> Result<(), Failed> {
    let guarded = Guarded::start()?;
    guarded.served.runtime.block_on(async {
        let [mut reader, mut writer, mut admin] = guarded.clients().await?;
        run(&mut admin, OBJECTS).await?;
        let mut select = reader.prepare("SELECT * FROM s".to_owned(), None).await?;
        let told = select.execute().await?;
        let insert = "INSERT INTO s VALUES (1, TIMESTAMP '2026-01-01 00:00:01')";
        let mut insert = writer.prepare(insert.to_owned(), None).await?;
        run(&mut admin, &["DROP STREAM s"]).await?;
        let late = reader.do_get(told.endpoint[0].ticket.clone().ok_or("no ticket")?).await;
        for refused in
            [status(late)?, status(select.execute().await)?, status(insert.execute_update().await)?]
        {
            assert_eq!(refused.code(), Code::NotFound, "{refused:?}");
            // "does not exist", or "unknown table" where a query names it.
            assert!(refused.message().contains("\"s\""), "{refused:?}");
        }
        // Another one of that name is read as it is.
        run(&mut admin, &["CREATE STREAM s (other VARCHAR)", "INSERT INTO s VALUES ('x')"]).await?;
        let info = select.execute().await?;
        let rows = fetch(&mut reader, &info).await?;
        assert_eq!(info.try_decode_schema()?, *rows[0].schema());
        assert_eq!(lines(&rows)?, ["x"]);
        Ok(())
    })
}

fn no_ticket() -> Result<(), Failed> {
    let guarded = Guarded::start()?;
    guarded.served.runtime.block_on(async {
        let [mut reader, mut writer, mut admin] = guarded.clients().await?;
        run(&mut admin, OBJECTS).await?;
        let long = "INSERT INTO t SELECT CAST(count(*) AS BIGINT) FROM generate_series(1, 3000000) a, \
                    generate_series(1, 3000000) b";
        let working =
            tokio::spawn(async move { writer.execute_update(long.to_owned(), None).await });
        let running = "windrow_queries_running";
        until("the update runs", async || {
            Ok(guarded.served.metrics()?.get(running) == Some(&1.0))
        })
        .await?;
        // An update has no ticket, so its handle is empty; who guesses that has nothing.
        let nothing = CommandPreparedStatementQuery::default().as_any().encode_to_vec();
        let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(nothing));
        let info = Some(FlightInfo::new().with_endpoint(endpoint));
        let body = CancelFlightInfoRequest { info }.encode_to_vec();
        let mut request = Request::new(Action { r#type: "CancelFlightInfo".into(), body: body.into() });
        let token = format!("Bearer {}", guarded.tokens[0]);
        request.metadata_mut().insert("authorization", token.parse()?);
        let told = reader.inner_mut().do_action(request).await?.into_inner();
        let told: Vec<arrow_flight::Result> = told.try_collect().await?;
        let told = CancelFlightInfoResult::decode(told[0].body.clone())?;
        assert_eq!(told.status(), CancelStatus::NotCancellable);
        assert!(!working.is_finished(), "the update was stopped");
        working.abort();
        Ok(())
    })
}

//! Statements, prepared statements, sessions, continuous streams, and hostile messages.

use std::sync::Arc;

use arrow::array::{Int32Array, RecordBatch, StringArray};
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::sql::{
    CommandGetPrimaryKeys, CommandGetTables, CommandStatementQuery, ProstMessageExt,
};
use arrow_flight::{Action, Criteria, FlightData, FlightDescriptor, FlightInfo, Ticket};
use futures::{StreamExt, TryStreamExt};
use libtest_mimic::{Failed, Trial};
use prost::Message;
use tonic::Code;

use crate::flight::{Served, fetch, lines, refused, run};
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("flight/statements have columns before they are executed", statements),
        trial("flight/prepared statements take parameters", prepared),
        trial("flight/handles and sessions end", handles),
        trial("flight/a client that goes frees its query", gone),
        trial("flight/a subscription resumes behind its sequence", resumes),
        trial("flight/metadata has the columns of the specification", metadata),
        trial("flight/garbage is refused in words", garbage),
    ]
}

const STREAM: &str = "CREATE STREAM s (k INT, text VARCHAR, ts TIMESTAMP, WATERMARK FOR ts)";
const VIEW: &str = "CREATE MATERIALIZED VIEW v AS SELECT window_start, window_end, count(*) AS n \
                    FROM TUMBLE(s, ts, INTERVAL '1 minute') GROUP BY window_start, window_end";

fn statements() -> Result<(), Failed> {
    let served = Served::start()?;
    served.runtime.block_on(async {
        let mut client = served.client().await?;
        // Prepared and asked for its columns, but not executed: nothing happens.
        let prepared = client.prepare(STREAM.to_owned(), None).await?;
        assert!(prepared.dataset_schema()?.fields().is_empty());
        let query = CommandStatementQuery { query: STREAM.to_owned(), transaction_id: None };
        let query = FlightDescriptor::new_cmd(query.as_any().encode_to_vec());
        served.plain().await?.get_schema(query).await?;
        assert!(served.engine.names().is_empty());
        let info = client.execute(STREAM.to_owned(), None).await?;
        assert_eq!(served.engine.names(), ["s"]);
        // Fetching what was done does not do it again.
        fetch(&mut client, &info).await?;
        fetch(&mut client, &info).await?;
        let insert = "INSERT INTO s VALUES (1, 'a', TIMESTAMP '2026-01-01 00:00:01'), \
                      (2, NULL, TIMESTAMP '2026-01-01 00:01:01')";
        assert_eq!(client.execute_update(insert.to_owned(), None).await?, 2);
        assert_eq!(client.execute_update(VIEW.to_owned(), None).await?, 0);
        for sql in [
            "SELECT * FROM s",
            "SELECT count(*) AS n, max(text) AS t FROM s",
            "SELECT arrow_cast('a', 'Utf8View') AS t, arrow_cast('b', 'Dictionary(Int8, Utf8)') AS d",
            "EXPLAIN ANALYZE SELECT * FROM s",
            "EXPLAIN WHY NOT v",
            "DESCRIBE v",
            "SHOW STREAMS",
            "SHOW datafusion.execution.batch_size",
            "VERIFY VIEW v",
            "SELECT * FROM windrow.queries",
        ] {
            let info = client.execute(sql.to_owned(), None).await?;
            let told = info.clone().try_decode_schema()?;
            let rows = fetch(&mut client, &info).await?;
            assert!(!rows.is_empty(), "{sql}");
            for batch in rows {
                assert_eq!(*batch.schema(), told, "{sql}");
            }
        }
        let words = "Did you mean";
        refused(client.execute("SELECT tex FROM s".to_owned(), None).await, words)?;
        refused(client.execute("SELECT 1; SELECT 2".to_owned(), None).await, "more than one")?;
        // An error that only the rows show.
        let info = client.execute("SELECT 1 / (k - 1) FROM s".to_owned(), None).await?;
        refused(fetch(&mut client, &info).await.map_err(|e| format!("{e:?}")), "ivide by zero")
    })
}

fn row(k: i32, text: &str) -> Result<RecordBatch, Failed> {
    let (k, text) = (Int32Array::from(vec![k]), StringArray::from(vec![text]));
    Ok(RecordBatch::try_from_iter([("1", Arc::new(k) as _), ("2", Arc::new(text) as _)])?)
}

fn prepared() -> Result<(), Failed> {
    let served = Served::start()?;
    served.runtime.block_on(async {
        let mut client = served.client().await?;
        run(&mut client, &[STREAM]).await?;
        let insert = "INSERT INTO s (k, text, ts) VALUES (?, ?, TIMESTAMP '2026-01-01 00:00:01')";
        let mut insert = client.prepare(insert.to_owned(), None).await?;
        let types = insert.parameter_schema()?;
        let types: Vec<String> = types.fields().iter().map(|f| f.data_type().to_string()).collect();
        assert_eq!(types, ["Int32", "Utf8View"]);
        insert.set_parameters(row(7, "seven")?)?;
        assert_eq!(insert.execute_update().await?, 1);
        let (k, text) = (Int32Array::from(vec![8, 9]), StringArray::from(vec!["eight", "nine"]));
        let two = [("1", Arc::new(k) as _), ("2", Arc::new(text) as _)];
        insert.set_parameters(RecordBatch::try_from_iter(two)?)?;
        assert_eq!(insert.execute_update().await?, 2);
        insert.close().await?;
        for sql in [
            "SELECT k FROM s WHERE k >= ? AND text <> ? -- ?",
            "SELECT k FROM s WHERE k >= $1 AND text <> $2",
        ] {
            let mut select = client.prepare(sql.to_owned(), None).await?;
            assert_eq!(select.dataset_schema()?.field(0).name(), "k");
            select.set_parameters(row(8, "nine")?)?;
            let info = select.execute().await?;
            assert_eq!(lines(&fetch(&mut client, &info).await?)?, ["8"], "{sql}");
            let text = Arc::new(StringArray::from(vec!["many"]));
            let wrong =
                RecordBatch::try_from_iter([("1", Arc::clone(&text) as _), ("2", text as _)])?;
            select.set_parameters(wrong)?;
            refused(select.execute().await, "parameter $1 is INT")?;
        }
        let unbound = client.execute("SELECT k FROM s WHERE k = ?".to_owned(), None).await?;
        let fetched = fetch(&mut client, &unbound).await.map_err(|e| format!("{e:?}"));
        refused(fetched, "parameter $1 has no value")?;
        let both = client.prepare("SELECT ? + $1".to_owned(), None).await;
        refused(both.map(|_| ()), "the statement has both ? and $1")
    })
}

fn handles() -> Result<(), Failed> {
    let served = Served::start()?;
    served.runtime.block_on(async {
        let (mut client, mut other) = (served.client().await?, served.client().await?);
        let mut one = client.prepare("SELECT 1 AS one".to_owned(), None).await?;
        let info = one.execute().await?;
        assert_eq!(lines(&fetch(&mut client, &info).await?)?, ["1"]);
        let stolen = fetch(&mut other, &info).await.map_err(|e| format!("{e:?}"));
        refused(stolen, "no such prepared statement")?;
        one.close().await?;
        let closed = fetch(&mut client, &info).await.map_err(|e| format!("{e:?}"));
        refused(closed, "no such prepared statement")?;
        // Settings are the session's.
        let size = "SHOW datafusion.execution.batch_size";
        run(&mut client, &["SET datafusion.execution.batch_size = 100"]).await?;
        assert!(lines(&run(&mut client, &[size]).await?)?[0].ends_with(" 100"));
        assert!(lines(&run(&mut other, &[size]).await?)?[0].ends_with(" 8192"));
        // A session that has a name can be had by another connection.
        let mut plain = served.plain().await?;
        let get = Action { r#type: "GetSessionOptions".into(), body: vec![].into() };
        let told = plain.do_action(get.clone()).await?;
        let cookie = told.metadata().get("set-cookie").ok_or("no cookie")?.to_str()?.to_owned();
        let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
        other.set_header("cookie", cookie.clone());
        run(&mut other, &["SET datafusion.execution.batch_size = 77"]).await?;
        let body = plain
            .do_action(get.clone())
            .await?
            .into_inner()
            .try_next()
            .await?
            .ok_or("no options")?;
        assert!(String::from_utf8_lossy(&body.body).contains("77"));
        let close = Action { r#type: "CloseSession".into(), body: vec![].into() };
        plain.do_action(close).await?.into_inner().try_next().await?;
        refused(other.execute("SELECT 1".to_owned(), None).await, "the session has ended")
    })
}

async fn status_of(served: &Served, name: &str) -> Result<Vec<String>, Failed> {
    let mut client = served.client().await?;
    let sql = format!("SELECT status FROM windrow.queries WHERE name LIKE '{name}'");
    lines(&run(&mut client, &[&sql]).await?)
}

fn gone() -> Result<(), Failed> {
    let served = Served::start()?;
    served.runtime.block_on(async {
        let mut client = served.client().await?;
        let insert = "INSERT INTO s VALUES (1, 'a', TIMESTAMP '2026-01-01 00:00:01')";
        run(&mut client, &[STREAM, insert]).await?;
        let info = client.execute("SELECT k FROM s EMIT CHANGES".to_owned(), None).await?;
        let ticket = info.endpoint[0].ticket.clone().ok_or("no ticket")?;
        let mut leaving = served.client().await?;
        let mut rows = leaving.do_get(ticket).await?;
        assert_eq!(rows.try_next().await?.map(|b| b.num_rows()), Some(1));
        assert_eq!(status_of(&served, "%").await?, ["running"]);
        drop(rows);
        drop(leaving);
        // The reset of the stream is on its way; asking is a way to wait for it.
        for _ in 0..10_000 {
            if status_of(&served, "%").await? == ["cancelled"] {
                return Ok(());
            }
        }
        Err("the query still runs".into())
    })
}

/// What stands beside a batch.
fn beside(data: &FlightData) -> Result<(u64, String), Failed> {
    let text = String::from_utf8(data.app_metadata.to_vec())?;
    let sequence = text.split("\"sequence\":").nth(1).and_then(|t| t.split(',').next());
    Ok((sequence.ok_or_else(|| text.clone())?.parse()?, text))
}

fn resumes() -> Result<(), Failed> {
    let served = Served::start()?;
    served.runtime.block_on(async {
        let mut client = served.client().await?;
        run(&mut client, &[STREAM, VIEW]).await?;
        let (mut seen, mut last) = (vec![], 0);
        for minute in 0..5 {
            let insert = format!(
                "INSERT INTO s VALUES ({minute}, '', TIMESTAMP '2026-01-01 00:{minute:02}:30')"
            );
            run(&mut client, &[&insert]).await?;
            if minute == 0 {
                continue;
            }
            // Each time another connection, which leaves after one batch.
            let mut plain = served.plain().await?;
            let info = client.execute(format!("SUBSCRIBE TO v AFTER {last}"), None).await?;
            let ticket = info.endpoint[0].ticket.clone().ok_or("no ticket")?;
            let mut messages = plain.do_get(ticket).await?.into_inner();
            let (head, rows) = (messages.try_next().await?, messages.try_next().await?);
            let (head, rows) = (head.ok_or("no columns")?, rows.ok_or("no rows")?);
            let (sequence, text) = beside(&rows)?;
            assert_eq!(sequence, last + 1, "{text}");
            let window = format!("\"window_start\":\"2026-01-01T00:{:02}:00\"", minute - 1);
            assert!(text.contains(&window), "{text}");
            last = sequence;
            let both = futures::stream::iter([Ok(head), Ok(rows)]);
            let batches = FlightRecordBatchStream::new_from_flight_data(both);
            seen.extend(lines(&batches.try_collect::<Vec<_>>().await?)?);
        }
        let all = lines(&run(&mut client, &["SELECT * FROM v ORDER BY window_end"]).await?)?;
        assert_eq!(seen, all);
        Ok(())
    })
}

fn metadata() -> Result<(), Failed> {
    let served = Served::start()?;
    served.runtime.block_on(async {
        let mut client = served.client().await?;
        run(&mut client, &[STREAM, VIEW]).await?;
        let tables = CommandGetTables {
            catalog: None,
            db_schema_filter_pattern: Some("pub%".to_owned()),
            table_name_filter_pattern: Some("_".to_owned()),
            table_types: vec!["STREAM".to_owned(), "MATERIALIZED VIEW".to_owned()],
            include_schema: true,
        };
        let info = client.get_tables(tables).await?;
        let rows = fetch(&mut client, &info).await?;
        assert_eq!(*rows[0].schema(), info.try_decode_schema()?);
        let found: Vec<String> = lines(&rows)?
            .iter()
            .map(|l| l.split(' ').take(4).collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(found, ["datafusion public s STREAM", "datafusion public v MATERIALIZED"]);
        let keys = CommandGetPrimaryKeys { catalog: None, db_schema: None, table: "s".to_owned() };
        let info = client.get_primary_keys(keys).await?;
        assert_eq!(info.clone().try_decode_schema()?.fields().len(), 6);
        assert!(lines(&fetch(&mut client, &info).await?)?.is_empty());
        let info = client.get_xdbc_type_info(Default::default()).await?;
        assert!(lines(&fetch(&mut client, &info).await?)?.len() > 15);
        let mut plain = served.plain().await?;
        let flights = plain.list_flights(Criteria::default()).await?.into_inner();
        let flights: Vec<FlightInfo> = flights.try_collect().await?;
        assert_eq!(flights.len(), 2);
        let path = FlightDescriptor::new_path(vec!["s".to_owned()]);
        let schema = plain.get_schema(path.clone()).await?.into_inner();
        let polled = plain.poll_flight_info(path).await?.into_inner().info.ok_or("no info")?;
        assert_eq!(schema.schema, polled.schema);
        Ok(())
    })
}

fn garbage() -> Result<(), Failed> {
    let served = Served::start()?;
    served.runtime.block_on(async {
        let mut plain = served.plain().await?;
        let ours = |body: &[u8]| {
            let mut any = CommandGetTables::default().as_any();
            any.value = body.to_vec().into();
            any.encode_to_vec()
        };
        let mut bad = vec![vec![], vec![0xff; 40], b"garbage".to_vec(), ours(&[0xff; 9])];
        let mut any = CommandGetTables::default().as_any();
        any.type_url = "type.googleapis.com/arrow.flight.protocol.sql.CommandNonsense".into();
        bad.push(any.encode_to_vec());
        any.type_url = "type.googleapis.com/arrow.flight.protocol.sql.TicketStatementQuery".into();
        bad.push(any.encode_to_vec());
        for bytes in bad {
            let refusals = [
                plain.get_flight_info(FlightDescriptor::new_cmd(bytes.clone())).await.map(|_| ()),
                plain.get_schema(FlightDescriptor::new_cmd(bytes.clone())).await.map(|_| ()),
                plain.do_get(Ticket::new(bytes.clone())).await.map(|_| ()),
                plain
                    .do_action(Action {
                        r#type: "CancelFlightInfo".into(),
                        body: bytes.clone().into(),
                    })
                    .await
                    .map(|_| ()),
                plain
                    .do_action(Action {
                        r#type: "CreatePreparedStatement".into(),
                        body: bytes.clone().into(),
                    })
                    .await
                    .map(|_| ()),
                plain
                    .do_action(Action { r#type: "Nonsense".into(), body: bytes.clone().into() })
                    .await
                    .map(|_| ()),
                plain
                    .do_put(futures::stream::iter([FlightData {
                        flight_descriptor: Some(FlightDescriptor::new_cmd(bytes.clone())),
                        ..FlightData::default()
                    }]))
                    .await
                    .map(|_| ()),
            ];
            for (way, refusal) in refusals.into_iter().enumerate() {
                let status = match refusal {
                    Err(status) => status,
                    // A cancellation of nothing says so.
                    Ok(()) if way == 3 && bytes.is_empty() => continue,
                    Ok(()) => return Err(format!("way {way}: {bytes:?} is taken").into()),
                };
                let fine = [Code::InvalidArgument, Code::Unimplemented].contains(&status.code());
                assert!(fine && !status.message().is_empty(), "way {way}, {bytes:?}: {status:?}");
            }
        }
        let none = FlightDescriptor::new_path(vec!["none".to_owned()]);
        let status = plain.get_flight_info(none).await.err().ok_or("it is there")?;
        assert_eq!(status.code(), Code::NotFound, "{status:?}");
        assert!(
            plain
                .list_actions(arrow_flight::Empty {})
                .await?
                .into_inner()
                .collect::<Vec<_>>()
                .await
                .len()
                > 8
        );
        Ok(())
    })
}

//! The lifetime and the number of sessions and their prepared statements.

use std::sync::Arc;
use std::time::Duration;

use arrow_flight::Action;
use arrow_flight::flight_service_client::FlightServiceClient;
use futures::TryStreamExt;
use libtest_mimic::{Failed, Trial};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use windrow_core::ManualClock;
use windrow_engine::EngineConfig;
use windrow_server::ServerConfig;

use crate::flight::{Follower, Served, fetch, lines, run, status, tokens, until};
use crate::flight_guard::any_port;
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("flight/a session that is idle for an hour is over", idle),
        trial("flight/a session with a running result is not idle", in_use),
        trial("flight/of too many sessions the longest idle one goes", too_many),
        trial("flight/users on one connection have a session each", shared_connection),
        trial("flight/a session has so many prepared statements", prepared),
    ]
}

const HOUR: Duration = Duration::from_secs(3_600);
const MOMENT: Duration = Duration::from_micros(1);
const SIZE: &str = "SHOW datafusion.execution.batch_size";

fn clocked() -> Result<(Served, ManualClock), Failed> {
    let clock = ManualClock::at(1_769_904_000_000_000);
    let config = EngineConfig { clock: Some(Arc::new(clock.clone())), ..EngineConfig::default() };
    Ok((Served::with(config)?, clock))
}

/// A session action; the cookie that comes with its answer.
async fn act(
    channel: &Channel,
    kind: &str,
    headers: &[(&'static str, String)],
) -> Result<Option<String>, Status> {
    let mut request = Request::new(Action { r#type: kind.into(), body: vec![].into() });
    for (name, value) in headers {
        let value = value.parse().map_err(|_| Status::internal("a header that is none"))?;
        request.metadata_mut().insert(*name, value);
    }
    let answer = FlightServiceClient::new(channel.clone()).do_action(request).await?;
    let cookie = answer.metadata().get("set-cookie").and_then(|c| c.to_str().ok());
    let cookie = cookie.and_then(|c| c.split(';').next()).map(str::to_owned);
    answer.into_inner().try_collect::<Vec<_>>().await?;
    Ok(cookie)
}

fn is_over(done: Result<Option<String>, Status>) -> Result<(), Failed> {
    match done {
        Err(e) if e.code() == Code::NotFound && e.message().contains("the session has ended") => {
            Ok(())
        }
        other => Err(format!("the session is not over: {other:?}").into()),
    }
}

fn idle() -> Result<(), Failed> {
    let (served, clock) = clocked()?;
    served.runtime.block_on(async {
        let channel = served.channel().await?;
        let cookie = act(&channel, "GetSessionOptions", &[]).await?.ok_or("no cookie")?;
        let cookie = [("cookie", cookie)];
        let mut client = served.client().await?;
        run(&mut client, &["SET datafusion.execution.batch_size = 77"]).await?;
        let mut one = client.prepare("SELECT 1".to_owned(), None).await?;
        // Not later than an hour: each use is a new beginning.
        for _ in 0..2 {
            clock.advance(HOUR);
            act(&channel, "GetSessionOptions", &cookie).await?;
            one.execute().await?;
        }
        clock.advance(HOUR + MOMENT);
        is_over(act(&channel, "GetSessionOptions", &cookie).await)?;
        // A connection goes on with another one, which knows nothing.
        let gone = status(one.execute().await)?;
        assert_eq!(gone.code(), Code::NotFound, "{gone:?}");
        assert!(gone.message().contains("Prepare it again"), "{gone:?}");
        let size = lines(&run(&mut client, &[SIZE]).await?)?;
        assert!(size[0].ends_with(" 8192"), "{size:?}");
        Ok(())
    })
}

fn in_use() -> Result<(), Failed> {
    let (served, clock) = clocked()?;
    served.runtime.block_on(async {
        let mut client = served.client().await?;
        let view = "CREATE MATERIALIZED VIEW v AS SELECT k FROM s";
        run(&mut client, &["CREATE STREAM s (k INT)", view]).await?;
        let mut one = client.prepare("SELECT 1".to_owned(), None).await?;
        let result = Follower::of(&mut client, "SUBSCRIBE TO v").await?;
        clock.advance(HOUR * 3);
        one.execute().await?;
        clock.advance(HOUR * 3);
        drop(result);
        let open = "windrow_streams_open";
        until("the result is closed", async || Ok(served.metrics()?.get(open) == Some(&0.0)))
            .await?;
        // The hour begins when the result ends.
        clock.advance(HOUR);
        one.execute().await?;
        clock.advance(HOUR + MOMENT);
        let gone = status(one.execute().await)?;
        assert_eq!(gone.code(), Code::NotFound, "{gone:?}");
        Ok(())
    })
}

fn too_many() -> Result<(), Failed> {
    const SESSIONS: usize = 1_000;
    let tmp = tempfile::tempdir()?;
    let clock = ManualClock::at(1_769_904_000_000_000);
    let config = EngineConfig { clock: Some(Arc::new(clock.clone())), ..EngineConfig::default() };
    let users = (0..=SESSIONS).map(|user| (format!("user {user}"), "admin"));
    let (login, tokens) = tokens(tmp.path(), users)?;
    let served =
        Served::with_both(config, ServerConfig { login, ..ServerConfig::new(any_port()) })?;
    served.runtime.block_on(async {
        let channel = served.channel().await?;
        let who = |user: usize| ("authorization", format!("Bearer {}", tokens[user]));
        let mut cookies = vec![];
        for user in 0..SESSIONS {
            clock.advance(MOMENT);
            let cookie = act(&channel, "GetSessionOptions", &[who(user)]).await?;
            cookies.push(cookie.ok_or("no cookie")?);
        }
        let again = async |user: usize| {
            clock.advance(MOMENT);
            let headers = [who(user), ("cookie", cookies[user].clone())];
            act(&channel, "GetSessionOptions", &headers).await
        };
        // User 1 reads a result; then user 0 is the one who was here last, and user 2 the one who was not for longest.
        let mut client = arrow_flight::sql::client::FlightSqlServiceClient::new(channel.clone());
        client.set_token(tokens[1].clone());
        run(&mut client, &["CREATE STREAM s (k INT)"]).await?;
        run(&mut client, &["CREATE MATERIALIZED VIEW v AS SELECT k FROM s"]).await?;
        let result = Follower::of(&mut client, "SUBSCRIBE TO v").await?;
        for user in (3..SESSIONS).chain([2, 0]) {
            again(user).await?;
        }
        for user in 3..SESSIONS {
            again(user).await?;
        }
        // One more.
        act(&channel, "GetSessionOptions", &[who(SESSIONS)]).await?;
        is_over(again(2).await)?;
        for user in [0, 1, 3, SESSIONS - 1] {
            again(user).await.map_err(|e| format!("user {user}: {e}"))?;
        }
        drop(result);
        Ok(())
    })
}

fn shared_connection() -> Result<(), Failed> {
    let tmp = tempfile::tempdir()?;
    let users = ["ann", "bob"].map(|name| (name.to_owned(), "read"));
    let (login, tokens) = tokens(tmp.path(), users)?;
    let serving = ServerConfig { login, ..ServerConfig::new(any_port()) };
    let served = Served::with_both(EngineConfig::default(), serving)?;
    served.runtime.block_on(async {
        let channel = served.channel().await?;
        let mut statements = vec![];
        for token in tokens {
            let mut client =
                arrow_flight::sql::client::FlightSqlServiceClient::new(channel.clone());
            client.set_token(token);
            let text = format!("SELECT {}", statements.len());
            let statement = client.prepare(text, None).await?;
            statements.push((client, statement));
        }
        for _ in 0..2 {
            for (number, (client, statement)) in statements.iter_mut().enumerate() {
                let info = statement.execute().await?;
                assert_eq!(lines(&fetch(client, &info).await?)?, [number.to_string()]);
            }
        }
        Ok(())
    })
}

fn prepared() -> Result<(), Failed> {
    const STATEMENTS: usize = 1_000;
    let served = Served::start()?;
    served.runtime.block_on(async {
        let channel = served.channel().await?;
        let client = arrow_flight::sql::client::FlightSqlServiceClient::new(channel.clone());
        let prepare = || {
            let mut client = client.clone();
            async move { client.prepare("SHOW STREAMS".to_owned(), None).await }
        };
        let mut all = vec![];
        for _ in 0..STATEMENTS {
            all.push(prepare().await?);
        }
        let refused = status(prepare().await)?;
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
        let words = "the session has 1000 prepared statements already";
        assert!(refused.message().contains(words), "{refused:?}");
        // Other sessions have room, and this one has when one is closed.
        served.client().await?.prepare("SHOW STREAMS".to_owned(), None).await?;
        all.pop().ok_or("none")?.close().await?;
        all.push(prepare().await?);
        assert_eq!(status(prepare().await)?.code(), Code::ResourceExhausted);
        // With the session all of them go.
        act(&channel, "CloseSession", &[]).await?;
        let gone = status(all[0].execute().await)?;
        assert_eq!(gone.code(), Code::NotFound, "{gone:?}");
        prepare().await?.execute().await?;
        Ok(())
    })
}

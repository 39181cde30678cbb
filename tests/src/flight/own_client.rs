//! The client of the `windrow` command: how it logs in, and what it does when its server stops and returns.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};

use libtest_mimic::{Failed, Trial};
use tempfile::TempDir;
use windrow_core::ErrorKind;
use windrow_engine::EngineConfig;
use windrow_flight::client::{Client, ClientConfig, Reply, Target};
use windrow_server::ServerConfig;

use crate::flight::serving::Serving;
use crate::flight::{Served, lines, run, until};
use crate::flight_guard::{certificates, guarded, tls_config, written};
use crate::program::{PATIENCE, program};
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("flight/the own client logs in over TLS", logins),
        trial("flight/the own client learns how far a bounded statement is", learns),
        trial("flight/the own client comes back after a restart", comes_back),
        trial("flight/the program subscribes on after a restart", subscribes_on),
        trial("flight/the program says what to do when its query is lost", lost),
    ]
}

/// How to reach a server of [`secure`].
fn config(tmp: &TempDir, url: &str, token: Option<&str>, ca: &str) -> Result<ClientConfig, Failed> {
    Ok(ClientConfig {
        target: Target::parse(url)?,
        token: token.map(str::to_owned),
        tls_ca: (!ca.is_empty()).then(|| tmp.path().join(ca)),
        tls_identity: None,
    })
}

/// The rows of a statement as lines.
async fn ask(client: &Client, sql: &str) -> Result<Vec<String>, windrow_core::Error> {
    let mut found = vec![];
    if let Reply::Rows(mut rows) = client.execute(sql).await? {
        while let Some(batch) = rows.next().await {
            found.extend(lines(&[batch?]).unwrap_or_default());
        }
    }
    Ok(found)
}

/// A server with TLS, the user ann and a token; the authorities that signed for it and for another.
fn secure(tmp: &TempDir) -> Result<(Served, String), Failed> {
    let (good, other) = (certificates("localhost")?, certificates("localhost")?);
    written(tmp, "good-ca.pem", &good.ca)?;
    written(tmp, "other-ca.pem", &other.ca)?;
    let (serving, token) = guarded(tmp)?;
    let serving = ServerConfig { tls: Some(tls_config(tmp, &good, None)?), ..serving };
    Ok((Served::with_both(EngineConfig::default(), serving)?, token))
}

/// While its one row is not there.
fn learns() -> Result<(), Failed> {
    let (served, tmp) = (Served::start()?, tempfile::tempdir()?);
    served.runtime.block_on(async {
        let client = Client::connect(config(&tmp, &served.url(), None, "")?).await?;
        ask(
            &client,
            "CREATE STREAM bid WITH (connector = 'nexmark', \"table\" = 'bid', events = '2000000000')",
        )
        .await?;
        let Reply::Rows(mut rows) = client.execute("SELECT count(*) FROM bid").await? else {
            return Err("no rows".into());
        };
        loop {
            let batch = rows.next().await.ok_or("it has ended")??;
            assert_eq!(batch.num_rows(), 0);
            if rows.position().and_then(|position| position.rows_in).is_some_and(|rows| rows > 0) {
                return Ok(());
            }
        }
    })
}

fn logins() -> Result<(), Failed> {
    let tmp = tempfile::tempdir()?;
    let (served, token) = secure(&tmp)?;
    let port = served.address.port();
    let at = |scheme: &str, who: &str, host: &str| format!("{scheme}://{who}{host}:{port}");
    let tls = |who: &str| at("grpc+tls", who, "localhost");
    let enters = async |url: &str, token: Option<&str>, ca: &str| {
        let client = Client::connect(config(&tmp, url, token, ca)?).await;
        Ok::<_, Failed>(match client {
            Ok(client) => ask(&client, "SELECT 1 + 1").await,
            Err(error) => Err(error),
        })
    };
    served.runtime.block_on(async {
        for (url, token) in [(tls("ann:secret@"), None), (tls(""), Some(token.as_str()))] {
            let told = enters(&url, token, "good-ca.pem").await?;
            assert_eq!(told.map_err(|e| e.render(""))?, ["2"]);
        }
        let (stranger, unreachable) = (ErrorKind::Unauthenticated, ErrorKind::Unavailable);
        for (url, token, ca, kind, words) in [
            (tls("ann:wrong@"), None, "good-ca.pem", stranger, "user or password is wrong"),
            (tls("bob:secret@"), None, "good-ca.pem", stranger, "user or password is wrong"),
            (tls(""), Some("wr_guessed"), "good-ca.pem", stranger, "the token is not known"),
            (tls(""), None, "good-ca.pem", stranger, "nobody is logged in"),
            // It is not the server that is meant, and it does not hear the password.
            (tls("ann:secret@"), None, "other-ca.pem", unreachable, "certificate"),
            (tls("ann:secret@"), None, "", unreachable, "certificate"),
            (
                at("grpc+tls", "ann:secret@", "127.0.0.1"),
                None,
                "good-ca.pem",
                unreachable,
                "certificate",
            ),
            (at("grpc", "ann:secret@", "localhost"), None, "", unreachable, "does not answer"),
        ] {
            let refused = enters(&url, token, ca).await?.err().ok_or(format!("{url} enters"))?;
            let said = refused.render("");
            assert_eq!(refused.kind(), kind, "{url}: {said}");
            assert!(said.contains(words) && !said.contains("secret"), "{url}: {said}");
        }
        Ok::<_, Failed>(())
    })?;
    // The same of the program, with what it takes from files and the environment.
    let file = written(&tmp, "token", &format!("{token}\n"))?;
    let wrong = written(&tmp, "wrong-token", "wr_guessed\n")?;
    let ca = tmp.path().join("good-ca.pem");
    let url = tls("");
    for (arguments, password, entered) in [
        (vec!["--token-file".as_ref(), file.as_os_str()], "", true),
        (vec!["--token-file".as_ref(), wrong.as_os_str()], "", false),
        (vec!["--user".as_ref(), "ann".as_ref()], "secret", true),
        (vec!["--user".as_ref(), "ann".as_ref()], "wrong", false),
    ] {
        let said = Command::new(program()?)
            .args(["--connect", &url, "--format", "csv", "-c", "SELECT 1 + 1 AS two"])
            .args(["--tls-ca".as_ref(), ca.as_os_str()])
            .args(&arguments)
            .env("WINDROW_PASSWORD", password)
            .stdin(Stdio::null())
            .output()?;
        let as_told = match entered {
            true => said.status.success() && said.stdout == b"two\n2\n",
            false => said.status.code() == Some(2) && said.stdout.is_empty(),
        };
        assert!(as_told, "{arguments:?}: {said:?}");
    }
    Ok(())
}

fn comes_back() -> Result<(), Failed> {
    let tmp = tempfile::tempdir()?;
    let (serving, _) = guarded(&tmp)?;
    let served = Served::with_both(EngineConfig::default(), serving.clone())?;
    let address = served.address;
    let runtime = tokio::runtime::Runtime::new()?;
    let url = format!("grpc://ann:secret@{address}");
    let client = runtime.block_on(Client::connect(config(&tmp, &url, None, "")?))?;
    assert_eq!(runtime.block_on(ask(&client, "SELECT 1"))?, ["1"]);
    drop(served);
    let gone = runtime.block_on(ask(&client, "SELECT 2")).err().ok_or("who answers?")?;
    assert_eq!(gone.kind(), ErrorKind::Unavailable, "{}", gone.render(""));
    assert!(gone.render("").contains("Is it running (windrow serve)"), "{}", gone.render(""));
    // The new server knows nothing of the login.
    let serving = ServerConfig { address, ..serving };
    let served = Served::with_both(EngineConfig::default(), serving)?;
    assert_eq!(runtime.block_on(ask(&client, "SELECT 3"))?, ["3"]);
    drop(served);
    Ok(())
}

/// `windrow --connect` with one statement, as it prints.
struct Connected {
    child: Child,
    out: Receiver<String>,
    err: Receiver<String>,
}

/// The lines of a pipe as they come.
fn read(pipe: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = sync_channel(1 << 16);
    std::thread::spawn(move || {
        let lines = BufReader::new(pipe).lines().map_while(Result::ok);
        // Until nobody wants them any more.
        lines.map_while(|line| sender.send(line).ok()).for_each(drop);
    });
    lines
}

impl Connected {
    fn start(serving: &Serving, sql: &str) -> Result<Self, Failed> {
        let url = format!("grpc://{}", serving.address);
        let mut child = Command::new(program()?)
            .args(["--connect", &url, "--format", "csv", "-c", sql])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let out = read(child.stdout.take().ok_or("no stdout")?);
        let err = read(child.stderr.take().ok_or("no stderr")?);
        Ok(Self { child, out, err })
    }

    fn line(&self) -> Result<String, Failed> {
        Ok(self.out.recv_timeout(PATIENCE).map_err(|e| format!("no row: {e}"))?)
    }

    /// Waits until it says this on stderr.
    fn says(&self, words: &str) -> Result<(), Failed> {
        let mut said = String::new();
        while !said.contains(words) {
            said = self.err.recv_timeout(PATIENCE).map_err(|e| format!("no {words:?}: {e}"))?;
        }
        Ok(())
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

async fn open_streams(serving: &Serving, streams: f64) -> Result<(), Failed> {
    let what = format!("{streams} results are open");
    let open = "windrow_streams_open";
    until(&what, async || Ok(serving.metrics()?.get(open) == Some(&streams))).await
}

fn subscribes_on() -> Result<(), Failed> {
    let home = tempfile::tempdir()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let serving = Serving::start(home.path(), &[])?;
    let address = serving.address.to_string();
    let feed = |serving: &Serving, rows: std::ops::Range<i32>| {
        runtime.block_on(async {
            let mut client = serving.client().await?;
            for k in rows {
                run(&mut client, &[&format!("INSERT INTO s VALUES ({k})")]).await?;
            }
            run(&mut client, &["WAIT FOR v"]).await.map(drop)
        })
    };
    runtime.block_on(async {
        let mut client = serving.client().await?;
        let view = "CREATE MATERIALIZED VIEW v AS SELECT k FROM s";
        run(&mut client, &["CREATE STREAM s (k INT)", view]).await
    })?;
    // What is there when it subscribes is not for it.
    feed(&serving, 0..3)?;
    let connected = Connected::start(&serving, "SUBSCRIBE TO v")?;
    runtime.block_on(open_streams(&serving, 1.0))?;
    // Nothing has come when the server ends; what comes before it is back at work is for it.
    serving.signal("TERM")?;
    assert_eq!(serving.ends()?, Some(0));
    connected.says("the server is stopping; trying again")?;
    let serving = Serving::start_at(home.path(), &address, &[])?;
    feed(&serving, 3..6)?;
    connected.says("connected again, behind row 3")?;
    assert_eq!(connected.line()?, "k");
    for k in 3..6 {
        assert_eq!(connected.line()?, k.to_string());
    }
    // Rows have come, and the server is killed.
    serving.signal("KILL")?;
    serving.ends()?;
    let serving = Serving::start_at(home.path(), &address, &[])?;
    feed(&serving, 6..9)?;
    connected.says("connected again, behind row 6")?;
    feed(&serving, 9..10)?;
    for k in 6..10 {
        assert_eq!(connected.line()?, k.to_string());
    }
    Ok(())
}

fn lost() -> Result<(), Failed> {
    let home = tempfile::tempdir()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let serving = Serving::start(home.path(), &[])?;
    runtime.block_on(async {
        let mut client = serving.client().await?;
        run(&mut client, &["CREATE STREAM s (k INT)", "INSERT INTO s VALUES (7)"]).await
    })?;
    let mut connected = Connected::start(&serving, "SELECT k FROM s EMIT CHANGES")?;
    let mut line = String::new();
    while line != "7" {
        line = connected.line()?;
    }
    serving.signal("KILL")?;
    connected.says("the connection to the server was lost")?;
    connected.says("Run the statement again; SUBSCRIBE TO")?;
    assert_eq!(connected.child.wait()?.code(), Some(4));
    Ok(())
}

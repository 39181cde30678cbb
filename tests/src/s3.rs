//! The durable tests with the data directory in a bucket: an S3-compatible server (moto, a Python package) runs on a
//! port of the loopback while the tests do, and tests damage objects through the same protocol.
//!
//! moto answers conditional puts (`If-None-Match`, `If-Match`) as S3 does, but does not check and write in one step;
//! here only one process writes at a time. That one of two writers is refused is tested beside `ObjectFiles`.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use futures::TryStreamExt;
use libtest_mimic::{Failed, Trial};
use object_store::aws::AmazonS3Builder;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::runtime::Runtime;

use crate::program::Home;
use crate::watch::trial;
use crate::{crash, durable, readers};

const BUCKET: &str = "windrow";

pub(crate) fn trials() -> Vec<Trial> {
    let on_s3 = |name: String, test: Box<dyn Fn() -> Result<(), Failed> + Send>| {
        trial(name, move || {
            IN_BUCKET.set(true);
            test()
        })
    };
    let of_durable =
        durable::ANYWHERE.map(|(name, test)| on_s3(format!("s3/{name}"), Box::new(test)));
    let kills = crash::in_bucket()
        .into_iter()
        .map(|(name, scenario)| on_s3(format!("s3/{name}"), Box::new(move || scenario.run())));
    let mut trials: Vec<Trial> = of_durable.into_iter().chain(kills).collect();
    trials.push(on_s3("s3/deltalake reads a view from the bucket".into(), Box::new(read)));
    trials.push(on_s3("s3/who cannot be reached is named".into(), Box::new(unreachable)));
    trials
}

thread_local! {
    /// Whether the test of this thread has its data directories in the bucket.
    static IN_BUCKET: Cell<bool> = const { Cell::new(false) };
}

/// A prefix of the bucket that nobody has, if the test of this thread is to be there.
pub(crate) fn new_place() -> Result<Option<Place>, Failed> {
    static PLACES: AtomicU64 = AtomicU64::new(0);
    if !IN_BUCKET.get() {
        return Ok(None);
    }
    let server = server()?;
    let prefix = format!("tests/{}", PLACES.fetch_add(1, Ordering::Relaxed));
    Ok(Some(Place { server, prefix }))
}

/// A place in the bucket.
#[derive(Clone)]
pub(crate) struct Place {
    server: Arc<Server>,
    prefix: String,
}

impl Place {
    /// As the program is told.
    pub(crate) fn url(&self) -> String {
        format!("s3://{BUCKET}/{}", self.prefix)
    }

    /// How a program finds the server.
    pub(crate) fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT", format!("http://127.0.0.1:{}", self.server.port)),
            ("AWS_ALLOW_HTTP", "true".into()),
            ("AWS_ACCESS_KEY_ID", "test".into()),
            ("AWS_SECRET_ACCESS_KEY", "test".into()),
            ("AWS_REGION", "us-east-1".into()),
        ]
    }

    /// Every object, by its path in the place.
    pub(crate) fn contents(&self) -> Result<BTreeMap<PathBuf, Vec<u8>>, Failed> {
        let (store, prefix) = (&self.server.store, Key::parse(&self.prefix)?);
        let found = self.server.runtime.block_on(async {
            let mut found = BTreeMap::new();
            let all: Vec<_> = store.list(Some(&prefix)).try_collect().await?;
            for object in all {
                let bytes = store.get(&object.location).await?.bytes().await?;
                let path = object.location.to_string();
                let path = path.strip_prefix(&self.prefix).unwrap_or(&path);
                found.insert(PathBuf::from(path.trim_start_matches('/')), bytes.to_vec());
            }
            Ok::<_, object_store::Error>(found)
        });
        Ok(found?)
    }

    fn key(&self, path: &Path) -> Result<Key, Failed> {
        Ok(Key::parse(format!("{}/{}", self.prefix, path.display()))?)
    }

    pub(crate) fn write(&self, path: &Path, bytes: Vec<u8>) -> Result<(), Failed> {
        let key = self.key(path)?;
        self.server.runtime.block_on(self.server.store.put(&key, bytes.into()))?;
        Ok(())
    }

    pub(crate) fn remove(&self, path: &Path) -> Result<(), Failed> {
        let key = self.key(path)?;
        Ok(self.server.runtime.block_on(self.server.store.delete(&key))?)
    }
}

/// The server, while it runs.
struct Server {
    port: u16,
    store: Arc<dyn ObjectStore>,
    runtime: Runtime,
    child: Mutex<Child>,
}

static SERVER: OnceLock<Result<Arc<Server>, String>> = OnceLock::new();

fn server() -> Result<Arc<Server>, Failed> {
    let started = SERVER.get_or_init(|| {
        start().map(Arc::new).map_err(|e| e.message().unwrap_or("no server").to_owned())
    });
    started.clone().map_err(Failed::from)
}

/// Ends the server, if one was started.
pub(crate) fn stop() {
    if let Some(Ok(server)) = SERVER.get()
        && let Ok(mut child) = server.child.lock()
    {
        // It also ends by itself, when its stdin does.
        drop(child.kill());
        drop(child.wait());
    }
}

fn start() -> Result<Server, Failed> {
    let python = readers::python()?;
    let mut child = Command::new(python)
        .arg("tests/readers/s3_server.py")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("no stdout")?).read_line(&mut line)?;
    let port: u16 = line.trim().parse().map_err(|_| format!("the server said {line:?}"))?;
    // There is no call for it in object_store.
    let mut connection = TcpStream::connect(("127.0.0.1", port))?;
    write!(
        connection,
        "PUT /{BUCKET} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    if !answer.starts_with("HTTP/1.1 200") {
        return Err(format!("the server made no bucket: {answer}").into());
    }
    let store = AmazonS3Builder::new()
        .with_bucket_name(BUCKET)
        .with_endpoint(format!("http://127.0.0.1:{port}"))
        .with_allow_http(true)
        .with_access_key_id("test")
        .with_secret_access_key("test")
        .build()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    Ok(Server { port, store: Arc::new(store), runtime, child: Mutex::new(child) })
}

/// Another program finds the same rows where they are.
fn read() -> Result<(), Failed> {
    let home = Home::new()?;
    let place = home.bucket().ok_or("not in the bucket")?;
    let rows: String = (0..40)
        .map(|n| format!("INSERT INTO s VALUES ({n}, to_timestamp_seconds({n}));\n"))
        .collect();
    let sql = format!(
        "CREATE STREAM s (id INT, ts TIMESTAMP, WATERMARK FOR ts);\n\
         CREATE MATERIALIZED VIEW v AS SELECT window_end, count(*) AS n, sum(id) AS ids \
         FROM TUMBLE(s, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end;\n{rows}"
    );
    home.ok(&sql)?;
    let script = "import sys; from deltalake import DeltaTable\n\
                  t = DeltaTable(sys.argv[1]).to_pyarrow_table().to_pydict()\n\
                  print(sorted(zip(t['n'], t['ids'])))";
    let output = Command::new(readers::python()?)
        .args(["-c", script, &format!("{}/views/v", place.url())])
        .envs(place.environment())
        .output()?;
    let found = String::from_utf8(output.stdout)?;
    if found.trim() == "[(10, 45), (10, 145), (10, 245)]" {
        return Ok(());
    }
    Err(format!("{found}{}", String::from_utf8_lossy(&output.stderr)).into())
}

/// Wrong buckets, keys and kinds of stores are errors that say so; nothing hangs.
fn unreachable() -> Result<(), Failed> {
    let home = Home::new()?;
    let place = home.bucket().ok_or("not in the bucket")?;
    let run = |url: &str| {
        let mut command = Command::new(crate::program::program()?);
        command.args([url, "-c", "SELECT 1"]).envs(place.environment());
        crate::program::Running::start(command)?.finish()
    };
    run("s3://nobody/has")?.refused(4, &["s3://nobody/has", "bucket does not exist"])?;
    run("gs://windrow/x")?.refused(2, &["gs://windrow/x", "only local directories and S3"])?;
    run("s3://")?.refused(2, &["cannot keep data in \"s3://\""])?;
    // Objects of somebody else.
    place.write(Path::new("photos/a.jpg"), b"not ours".to_vec())?;
    run(&place.url())?.refused(2, &[&place.url(), "not a Windrow data directory"])?;
    let left: Vec<PathBuf> = place.contents()?.into_keys().collect();
    if left == [Path::new("photos/a.jpg")] { Ok(()) } else { Err(format!("{left:?}").into()) }
}

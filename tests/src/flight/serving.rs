//! The real program as a server: `windrow serve` on ports of its own, with its metrics and what the system reports of
//! it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use arrow_flight::sql::client::FlightSqlServiceClient;
use libtest_mimic::Failed;
use tonic::transport::{Channel, Endpoint};

use crate::flight_guard::{http, samples};
use crate::program::{PATIENCE, program};

/// A server that ends with this.
pub(crate) struct Serving {
    child: Child,
    pub(crate) address: SocketAddr,
    monitoring: SocketAddr,
}

impl Serving {
    /// On any port. Data and log are in `home`.
    pub(crate) fn start(home: &Path, flags: &[&str]) -> Result<Self, Failed> {
        Self::start_at(home, "127.0.0.1:0", flags)
    }

    /// On this address, where one was that has ended.
    pub(crate) fn start_at(home: &Path, flight: &str, flags: &[&str]) -> Result<Self, Failed> {
        Self::spawn(Command::new(program()?), home, flight, flags)
    }

    /// On any port, in an address space of so many bytes.
    pub(crate) fn start_within(home: &Path, bytes: u64, flags: &[&str]) -> Result<Self, Failed> {
        let mut command = Command::new("sh");
        let limit = format!("ulimit -v {} && exec \"$0\" \"$@\"", bytes >> 10);
        command.arg("-c").arg(limit).arg(program()?);
        Self::spawn(command, home, "127.0.0.1:0", flags)
    }

    fn spawn(
        mut program: Command,
        home: &Path,
        flight: &str,
        flags: &[&str],
    ) -> Result<Self, Failed> {
        let log = File::options().create(true).append(true).open(home.join("log"))?;
        let mut child = program
            .args(["serve", "--flight", flight, "--metrics", "127.0.0.1:0", "--data-dir"])
            .arg(home.join("data"))
            .args(flags)
            // What is freed goes back to the system at once, so that what is resident is what is held.
            .envs([("MIMALLOC_PURGE_DELAY", "0"), ("MIMALLOC_ARENA_PURGE_MULT", "1")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no stdout")?).read_line(&mut line)?;
        let address = |scheme: &str| -> Result<SocketAddr, Failed> {
            let rest = line.split_once(scheme).map(|(_, rest)| rest);
            let rest = rest.ok_or_else(|| {
                let log = std::fs::read_to_string(home.join("log")).unwrap_or_default();
                format!("the server says {line:?}, and in its log:\n{log}")
            })?;
            let end = rest.find([',', '/', '\n']).unwrap_or(rest.len());
            Ok(rest[..end].parse()?)
        };
        let (address, monitoring) = (address("grpc://")?, address("http://")?);
        Ok(Self { child, address, monitoring })
    }

    pub(crate) async fn channel(&self) -> Result<Channel, Failed> {
        Ok(Endpoint::new(format!("http://{}", self.address))?.connect().await?)
    }

    pub(crate) async fn client(&self) -> Result<FlightSqlServiceClient<Channel>, Failed> {
        Ok(FlightSqlServiceClient::new(self.channel().await?))
    }

    /// What monitoring sees.
    pub(crate) fn metrics(&self) -> Result<BTreeMap<String, f64>, Failed> {
        samples(&http(self.monitoring, "/metrics")?.1)
    }

    /// Whether the server takes statements.
    pub(crate) fn is_ready(&self) -> Result<bool, Failed> {
        Ok(http(self.monitoring, "/readyz")?.0 == 200)
    }

    /// Bytes of memory that it has now.
    pub(crate) fn resident(&self) -> Result<u64, Failed> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("no VmRSS")?;
        Ok(kib.parse::<u64>()? << 10)
    }

    /// Sends it `signal` ("TERM").
    pub(crate) fn signal(&self, signal: &str) -> Result<(), Failed> {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &id]).status()?;
        if sent.success() { Ok(()) } else { Err(format!("cannot send SIG{signal}").into()) }
    }

    /// Waits for its end; its exit status.
    pub(crate) fn ends(mut self) -> Result<Option<i32>, Failed> {
        for _ in 0..PATIENCE.as_millis() {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.code());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err("the server does not end".into())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

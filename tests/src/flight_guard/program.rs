//! The program `windrow serve`: its ready line, its log, its signals; and the files of users and tokens.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use arrow_flight::FlightDescriptor;
use arrow_flight::flight_service_client::FlightServiceClient;
use libtest_mimic::Failed;
use tonic::transport::Endpoint;
use tonic::{Code, Request};
use windrow_server::ServerConfig;
use windrow_server::auth::login::{LoginConfig, write};

use super::{Served, any_port, check, http, samples, user};
use crate::program::{Running, program};

/// The program serves; what it says when it is ready comes first on stdout.
struct Program {
    child: std::process::Child,
    out: std::io::BufReader<std::process::ChildStdout>,
}

impl Program {
    fn start(arguments: &[&str]) -> Result<(Self, String), Failed> {
        let mut child = Command::new(program()?)
            .arg("serve")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut out = std::io::BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let mut line = String::new();
        std::io::BufRead::read_line(&mut out, &mut line)?;
        Ok((Self { child, out }, line))
    }

    fn finish(mut self) -> Result<(Option<i32>, String, String), Failed> {
        let (mut out, mut err) = (String::new(), String::new());
        self.child.stderr.take().ok_or("no stderr")?.read_to_string(&mut err)?;
        self.out.read_to_string(&mut out)?;
        Ok((self.child.wait()?.code(), out, err))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn address_in(line: &str, scheme: &str) -> Result<SocketAddr, Failed> {
    let (_, rest) = line.split_once(scheme).ok_or(format!("no {scheme} in {line:?}"))?;
    let end = rest.find([',', '/', '\n']).unwrap_or(rest.len());
    Ok(rest[..end].parse()?)
}

pub(super) fn serve() -> Result<(), Failed> {
    let tmp = tempfile::tempdir()?;
    let at = |name: &str| tmp.path().join(name).to_string_lossy().into_owned();
    let (data, users) = (at("data"), at("users"));
    write(users.as_ref(), &[user("ann", "secret", "admin")?])?;
    let (running, line) = Program::start(&[
        "--data-dir",
        &data,
        "--flight",
        "127.0.0.1:0",
        "--metrics",
        "127.0.0.1:0",
        "--users",
        &users,
        "--log-format",
        "json",
        "--log-level",
        "info",
    ])?;
    check(line.starts_with("windrow: ready, Flight SQL on grpc://127.0.0.1:"), &line)?;
    let (flight, metrics) = (address_in(&line, "grpc://")?, address_in(&line, "http://")?);
    check(http(metrics, "/readyz")? == (200, "ready\n".into()), "readyz")?;
    samples(&http(metrics, "/metrics")?.1)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let channel = Endpoint::from_shared(format!("http://{flight}"))?.connect().await?;
        let mut client = FlightServiceClient::new(channel);
        let mut request = Request::new(FlightDescriptor::new_cmd(b"x".to_vec()));
        request.metadata_mut().insert("authorization", "Basic YW5uOndyb25n".parse()?);
        let refused = client.get_flight_info(request).await.err().ok_or("let in")?;
        check(refused.code() == Code::Unauthenticated, refused)
    })?;
    check(tmp.path().join("data/files").is_dir(), "files")?;
    let id = running.child.id().to_string();
    check(Command::new("kill").args(["-TERM", &id]).status()?.success(), "kill")?;
    let (code, out, err) = running.finish()?;
    check(code == Some(0) && out.is_empty(), (code, &out, &err))?;
    // Each line of the log is an object; the password is in none.
    for line in err.lines().filter(|l| !l.starts_with("notice:")) {
        check(line.starts_with('{') && line.ends_with('}'), line)?;
    }
    check(err.contains("a login was refused") && !err.contains("wrong"), &err)
}

pub(super) fn serve_refuses() -> Result<(), Failed> {
    let tmp = tempfile::tempdir()?;
    let data = tmp.path().join("data").to_string_lossy().into_owned();
    for (arguments, words) in [
        (
            vec!["--flight", "0.0.0.0:0"],
            "0.0.0.0:0 is open to the network, and nobody has to log in",
        ),
        (
            vec!["--flight", "127.0.0.1:0", "--users", "/nowhere/users"],
            "\"/nowhere/users\" does not exist",
        ),
        (
            vec!["--flight", "127.0.0.1:0", "--tls-cert", "/nowhere/c", "--tls-key", "/nowhere/k"],
            "/nowhere/c",
        ),
        (
            vec!["--flight", "127.0.0.1:0", "--allow-path", "/nowhere/dir"],
            "\"/nowhere/dir\" cannot be used",
        ),
    ] {
        let mut command = Command::new(program()?);
        command.args(["serve", "--data-dir", &data]).args(&arguments);
        let said = Running::start(command)?.finish()?;
        said.check(said.status.code().is_some_and(|c| c == 2 || c == 4), "not refused")?;
        said.check(said.err.contains(words), words)?;
        said.no_bug()?;
    }
    Ok(())
}

/// Runs the program with a line on stdin.
fn typed(arguments: &[&str], line: &str) -> Result<(bool, String, String), Failed> {
    let mut child = Command::new(program()?)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // It may want no line.
    drop(child.stdin.take().ok_or("no stdin")?.write_all(line.as_bytes()));
    let done = child.wait_with_output()?;
    Ok((done.status.success(), String::from_utf8(done.stdout)?, String::from_utf8(done.stderr)?))
}

pub(super) fn accounts() -> Result<(), Failed> {
    let tmp = tempfile::tempdir()?;
    let at = |name: &str| tmp.path().join(name).to_string_lossy().into_owned();
    let (users, tokens) = (at("users"), at("tokens"));
    let (done, _, err) =
        typed(&["user", "add", "ann", "--role", "read", "--users", &users], "geheim\n")?;
    check(done, err)?;
    let text = std::fs::read_to_string(&users)?;
    check(text.contains("$argon2id$") && !text.contains("geheim"), text)?;
    let further =
        ["user", "grant", "ann", "--role", "write", "--on", "a*", "--on", "b", "--users", &users];
    check(typed(&further, "")?.0, "grant")?;
    let (_, out, _) = typed(&["user", "list", "--users", &users], "")?;
    check(out == "ann: read on *; write on a*, b\n", out)?;
    for (arguments, line, words) in [
        (vec!["user", "add", "bob", "--role", "god", "--users", &users], "x\n", "not a role"),
        (
            vec!["user", "add", "bob", "--role", "read", "--users", &users],
            "\n",
            "the password is empty",
        ),
        (
            vec!["user", "add", "b:b", "--role", "read", "--users", &users],
            "x\n",
            "is not a name for a user",
        ),
        (
            vec!["user", "add", "bob", "--role", "read", "--on", "[", "--users", &users],
            "x\n",
            "not a pattern",
        ),
        (vec!["user", "remove", "bob", "--users", &users], "", "user \"bob\" does not exist"),
        (vec!["token", "remove", "ci", "--tokens", &tokens], "", "token \"ci\" does not exist"),
        (
            vec!["token", "add", "ci", "--role", "read", "--expires", "soon", "--tokens", &tokens],
            "",
            "is not a valid time",
        ),
    ] {
        let (done, _, err) = typed(&arguments, line)?;
        check(!done && err.contains(words), (arguments, err))?;
    }
    let (done, token, err) =
        typed(&["token", "add", "ci", "--role", "read", "--tokens", &tokens], "")?;
    check(done && token.starts_with("wr_"), err)?;
    check(!std::fs::read_to_string(&tokens)?.contains(token.trim()), "the token itself is kept")?;
    let login = LoginConfig {
        users: Some(users.into()),
        tokens: Some(tokens.into()),
        ..LoginConfig::default()
    };
    let served = Served::start(ServerConfig { login, ..ServerConfig::new(any_port()) })?;
    let channel = served.channel(None)?;
    let (code, said, _) = served.call(&channel, Some(&format!("Bearer {}", token.trim())))?;
    check(code != Code::Unauthenticated, said)?;
    // ann:geheim
    let (code, said, _) = served.call(&channel, Some("Basic YW5uOmdlaGVpbQ=="))?;
    check(code != Code::Unauthenticated, said)
}

//! The options of a sink with `connector = 'postgres'`.
//!
//! Invariant: neither `Debug` nor an error shows the password, also if it is part of the URL.

use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::{Host, Url};
use windrow_core::{Error, Result};

use crate::options::{OptionDoc, StreamOptions, bad_value, option};

/// The options.
pub(crate) const OPTIONS: &[OptionDoc] = &[
    option(
        "url",
        "postgresql://user@host:port/database",
        "",
        "The database, instead of host, port, user, password and database. It may end with ?sslmode=…&sslrootcert=….",
    ),
    option("host", "a name or address", "", "The server, or the directory of its Unix socket."),
    option("port", "a number", "5432", "The port of the server."),
    option("user", "a name", "", "The role that writes."),
    option("password", "a text", "", "Its password. It is masked."),
    option("database", "a name", "the user's name", "The database."),
    option(
        "schema",
        "a name",
        "public",
        "The schema of the table, and of the table windrow_sinks.",
    ),
    option("table", "a name", "", "The table that rows are written to."),
    option(
        "key",
        "columns",
        "",
        "Rows replace those that have the same values in these columns, which need a unique index: INSERT … ON CONFLICT.",
    ),
    option(
        "create_table",
        "true | false",
        "false",
        "Creates the table if there is none, with the columns of the sink and key as its primary key.",
    ),
    option(
        "sslmode",
        "'disable' | 'verify-full'",
        "disable on this machine, else verify-full",
        "Whether the connection is encrypted, and the server's certificate and name are checked.",
    ),
    option(
        "sslrootcert",
        "a file",
        "the certificates of the system",
        "Certificates in PEM that the server's is checked against.",
    ),
    option("batch_rows", "a number", "10000", "The rows of a transaction at most."),
    option(
        "batch_interval",
        "a length of time",
        "1 second",
        "How long a row waits for others of its transaction.",
    ),
    option(
        "timeout",
        "a length of time",
        "30 seconds",
        "How long connecting or a transaction may take until it is tried again.",
    ),
];

/// The largest `batch_rows`.
const BATCH_ROWS_MAX: usize = 1_000_000;
/// The longest `timeout`.
const TIMEOUT_MAX: Duration = Duration::from_secs(3_600);

/// The address of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Server {
    /// A name or address, and a port.
    Tcp(String, u16),
    /// The directory of a Unix socket, and the port in its name.
    Socket(PathBuf, u16),
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Socket(dir, port) => write!(f, "{}/.s.PGSQL.{port}", dir.display()),
        }
    }
}

/// The encryption of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Encryption {
    /// None.
    Off,
    /// TLS; the server's certificate is verified against those of a file or of the system.
    Verified(Option<PathBuf>),
}

/// The parsed options of one sink.
#[derive(Clone)]
pub(super) struct PostgresOptions {
    pub(super) server: Server,
    pub(super) user: String,
    pub(super) password: Option<String>,
    pub(super) database: String,
    pub(super) schema: String,
    pub(super) table: String,
    /// The key by which rows replace others; empty: rows are only added.
    pub(super) key: Vec<String>,
    pub(super) create_table: bool,
    pub(super) encryption: Encryption,
    pub(super) batch_rows: usize,
    pub(super) batch_interval: Duration,
    pub(super) timeout: Duration,
}

/// The password is not shown.
impl std::fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("server", &self.server)
            .field("database", &self.database)
            .field("schema", &self.schema)
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

/// Server and login, from the URL or from single options.
#[derive(Default)]
struct Login {
    host: Option<String>,
    port: Option<u16>,
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
    sslmode: Option<String>,
    sslrootcert: Option<String>,
}

impl PostgresOptions {
    /// Parses the options in `WITH (…)`.
    ///
    /// # Errors
    /// For an unknown option, an invalid value, and options that do not fit together.
    pub(super) fn read(entries: &[(String, String)]) -> Result<Self> {
        let options = StreamOptions::try_new("postgres", entries, OPTIONS)?;
        let login = Login::read(&options)?;
        let host = match login.host {
            Some(host) if !host.is_empty() => host,
            _ => options.required_by_sink("host")?.to_owned(),
        };
        let port = login.port.unwrap_or(5432);
        let server = match host.starts_with('/') {
            true => Server::Socket(PathBuf::from(&host), port),
            false => Server::Tcp(host, port),
        };
        let user = match login.user {
            Some(user) if !user.is_empty() => user,
            _ => options.required_by_sink("user")?.to_owned(),
        };
        let encryption = encryption(&server, login.sslmode.as_deref(), login.sslrootcert)?;
        let batch_rows = options.number::<usize>("batch_rows")?.unwrap_or(10_000);
        if !(1..=BATCH_ROWS_MAX).contains(&batch_rows) {
            let given = options.get("batch_rows").unwrap_or_default();
            return Err(bad_value("batch_rows", given, "a number up to 1000000"));
        }
        let timeout = options.duration("timeout")?.unwrap_or(Duration::from_secs(30));
        if timeout < Duration::from_millis(100) || timeout > TIMEOUT_MAX {
            let given = options.get("timeout").unwrap_or_default();
            return Err(bad_value("timeout", given, "a length of time up to '1 hour'"));
        }
        let read = Self {
            database: login
                .database
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| user.clone()),
            server,
            user,
            password: login.password,
            schema: name(&options, "schema")?.unwrap_or_else(|| "public".to_owned()),
            table: name(&options, "table")?
                .map_or_else(|| options.required_by_sink("table").map(str::to_owned), Ok)?,
            key: options.columns("key")?,
            create_table: options.flag("create_table", false)?,
            encryption,
            batch_rows,
            batch_interval: options.duration("batch_interval")?.unwrap_or(Duration::from_secs(1)),
            timeout,
        };
        // In a URL, by which administrators allow places, they would be no names.
        for (option, name) in
            [("database", &read.database), ("schema", &read.schema), ("table", &read.table)]
        {
            if [".", ".."].contains(&name.as_str()) {
                return Err(bad_value(option, name, "another name"));
            }
        }
        Ok(read)
    }

    /// The table as shown to users.
    pub(super) fn shown_table(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }

    /// The place that administrators allow by prefix: `postgresql://host:port/database/schema/table`; `None`: a socket of this machine.
    pub(super) fn place(&self) -> Option<String> {
        let Server::Tcp(..) = &self.server else { return None };
        let mut url = Url::parse(&format!("postgresql://{}", self.server)).ok()?;
        url.path_segments_mut().ok()?.extend([&self.database, &self.schema, &self.table]);
        Some(url.into())
    }
}

impl Login {
    fn read(options: &StreamOptions<'_>) -> Result<Self> {
        let single = |name: &str| options.get(name).map(str::to_owned);
        let Some(url) = options.get("url") else {
            return Ok(Self {
                host: single("host"),
                port: options.number("port")?,
                user: single("user"),
                password: single("password"),
                database: single("database"),
                sslmode: single("sslmode"),
                sslrootcert: single("sslrootcert"),
            });
        };
        let both =
            ["host", "port", "user", "database"].into_iter().find(|o| options.get(o).is_some());
        if let Some(option) = both {
            return Err(Error::config(format!("option \"{option}\" is given besides \"url\""))
                .with_hint("Write it into the URL: postgresql://user@host:port/database."));
        }
        let mut login = Self::of_url(url)?;
        for (name, part) in [
            ("password", &mut login.password),
            ("sslmode", &mut login.sslmode),
            ("sslrootcert", &mut login.sslrootcert),
        ] {
            let Some(value) = single(name) else { continue };
            if part.replace(value).is_some() {
                return Err(Error::config(format!("option \"{name}\" is also in \"url\""))
                    .with_hint("Give it once."));
            }
        }
        Ok(login)
    }

    /// Parses the URL. It may contain a password, so errors do not repeat it.
    fn of_url(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::config(format!("option \"url\" cannot be used: {why}"))
                .with_hint("Write url = 'postgresql://user@host:5432/database'.")
        };
        let url = Url::parse(text).map_err(|e| wrong(&e.to_string()))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(wrong("it does not begin with postgresql://"));
        }
        let decoded = |part: &str| {
            let part = percent_decode_str(part).decode_utf8();
            part.map(std::borrow::Cow::into_owned).map_err(|_| wrong("it is not UTF-8"))
        };
        let host = match url.host() {
            Some(Host::Ipv6(address)) => Some(address.to_string()),
            Some(host) => Some(decoded(&host.to_string())?),
            None => None,
        };
        let mut login = Self {
            host,
            port: url.port(),
            user: Some(decoded(url.username())?),
            password: url.password().map(decoded).transpose()?,
            database: Some(decoded(url.path().trim_start_matches('/'))?),
            ..Self::default()
        };
        for (key, value) in url.query_pairs() {
            match key.as_ref() {
                "sslmode" => login.sslmode = Some(value.into_owned()),
                "sslrootcert" => login.sslrootcert = Some(value.into_owned()),
                other => {
                    return Err(wrong(&format!("\"{other}\" is not known in it"))
                        .with_hint("Known are sslmode and sslrootcert."));
                }
            }
        }
        Ok(login)
    }
}

/// Decides on the encryption.
fn encryption(
    server: &Server,
    sslmode: Option<&str>,
    sslrootcert: Option<String>,
) -> Result<Encryption> {
    let is_here = match server {
        Server::Socket(..) => true,
        Server::Tcp(host, _) => {
            host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
        }
    };
    let mode = sslmode.map(|mode| mode.trim().to_ascii_lowercase());
    let verified = match mode.as_deref() {
        None => !is_here || sslrootcert.is_some(),
        Some("disable") => false,
        Some("verify-full") => true,
        Some(mode @ ("allow" | "prefer" | "require" | "verify-ca")) => {
            return Err(Error::config(format!("sslmode = '{mode}' does not check which server answers"))
                .with_hint(
                    "Use 'verify-full', with sslrootcert = '…' for certificates that the system does not know, or 'disable'.",
                ));
        }
        Some(other) => return Err(bad_value("sslmode", other, "one of 'disable', 'verify-full'")),
    };
    if !verified && sslrootcert.is_some() {
        return Err(Error::config("option \"sslrootcert\" is for sslmode = 'verify-full'"));
    }
    if verified && matches!(server, Server::Socket(..)) {
        return Err(Error::config("a Unix socket is not encrypted")
            .with_hint("Leave sslmode and sslrootcert out."));
    }
    Ok(match verified {
        true => Encryption::Verified(sslrootcert.map(PathBuf::from)),
        false => Encryption::Off,
    })
}

/// An identifier of PostgreSQL, at most 63 bytes long.
fn name(options: &StreamOptions<'_>, option: &str) -> Result<Option<String>> {
    let Some(name) = options.get(option) else { return Ok(None) };
    if name.is_empty() || name.len() > 63 || name.contains('\0') {
        return Err(bad_value(option, name, "a name of 1 to 63 bytes"));
    }
    Ok(Some(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &[(&str, &str)]) -> Result<PostgresOptions> {
        let table = [("table", "t")];
        let all: Vec<_> = options
            .iter()
            .chain(table.iter().filter(|(k, _)| options.iter().all(|(o, _)| o != k)))
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        PostgresOptions::read(&all)
    }

    #[test]
    fn a_url_and_single_options_are_the_same() {
        let url = read(&[("url", "postgresql://ann:p%40ss@db.test:5433/shop")]).unwrap();
        let single = read(&[
            ("host", "db.test"),
            ("port", "5433"),
            ("user", "ann"),
            ("password", "p@ss"),
            ("database", "shop"),
        ])
        .unwrap();
        for options in [url, single] {
            assert_eq!(options.server, Server::Tcp("db.test".into(), 5433));
            assert_eq!((options.user.as_str(), options.database.as_str()), ("ann", "shop"));
            assert_eq!(options.password.as_deref(), Some("p@ss"));
            assert_eq!(options.encryption, Encryption::Verified(None));
            assert_eq!(options.place().as_deref(), Some("postgresql://db.test:5433/shop/public/t"));
            assert!(!format!("{options:?}").contains("p@ss"));
        }
        let here = read(&[("url", "postgres://ann@[::1]/")]).unwrap();
        assert_eq!(
            (here.server.to_string().as_str(), here.encryption),
            ("[::1]:5432", Encryption::Off)
        );
        let socket = read(&[("host", "/run/postgresql"), ("user", "ann")]).unwrap();
        assert_eq!(socket.database, "ann");
        assert_eq!(socket.place(), None);
    }

    #[test]
    fn hostile_options_are_refused_and_hide_passwords() {
        let good = [("host", "db.test"), ("user", "ann"), ("password", "hunter2")];
        for wrong in [
            vec![("url", "mysql://ann:hunter2@x/y")],
            vec![("url", "hunter2")],
            vec![("url", "postgresql://ann:hunter2@x/y?options=-c")],
            vec![("url", "postgresql://ann:hunter2@x/y"), ("password", "hunter2")],
            vec![("url", "postgresql://ann:hunter2@x/y"), ("host", "z")],
            vec![("url", "postgresql:///y")],
            vec![("host", "x")],
            vec![("user", "x")],
            [good.to_vec(), vec![("sslmode", "require")]].concat(),
            [good.to_vec(), vec![("sslmode", "on")]].concat(),
            [good.to_vec(), vec![("sslmode", "disable"), ("sslrootcert", "x")]].concat(),
            [good.to_vec(), vec![("table", "")]].concat(),
            [good.to_vec(), vec![("key", "a,,b")]].concat(),
            [good.to_vec(), vec![("batch_rows", "0")]].concat(),
            [good.to_vec(), vec![("timeout", "0 s")]].concat(),
            [good.to_vec(), vec![("port", "70000")]].concat(),
        ] {
            let error = read(&wrong).err().unwrap_or_else(|| panic!("{wrong:?} is taken"));
            let shown = format!("{error} {:?}", error.hints());
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}

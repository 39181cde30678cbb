//! The address of a server and how to talk to it, parsed from a URL.

use std::fmt;

use url::Url;
use windrow_core::{Error, Result};

/// The default port of a server.
const PORT: u16 = 50_051;

/// A server's address, and the user.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// `host:port`.
    pub(super) authority: String,
    /// The name that its certificate must have.
    pub(super) host: String,
    /// Whether the connection is encrypted.
    pub(super) tls: bool,
    /// The user to log in as.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<String>,
}

impl Target {
    /// Parses `grpc://[user[:password]@]host[:port]`, or the same with `grpc+tls`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](windrow_core::ErrorKind::Config) when it is not such a URL.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |what: String| {
            Error::config(what).with_hint(
                "Write grpc://host:port, or grpc+tls://host:port for an encrypted connection.",
            )
        };
        // The text itself is not shown: it may contain a password.
        let url = Url::parse(text).map_err(|e| wrong(format!("the URL cannot be read: {e}")))?;
        let tls = match url.scheme() {
            "grpc" | "grpc+tcp" | "http" => false,
            "grpc+tls" | "https" => true,
            other => return Err(wrong(format!("unknown kind of connection \"{other}\""))),
        };
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| wrong("the URL names no host".to_owned()))?.to_owned();
        if !matches!(url.path(), "" | "/") || url.query().is_some() {
            return Err(wrong("the URL has more than host and port".to_owned()));
        }
        let decoded = |text: &str| {
            let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
            decoded
                .map(std::borrow::Cow::into_owned)
                .map_err(|_| wrong("the URL is not UTF-8".to_owned()))
        };
        let user = Some(url.username()).filter(|user| !user.is_empty());
        Ok(Self {
            authority: format!("{host}:{}", url.port().unwrap_or(PORT)),
            host: host.trim_matches(['[', ']']).to_owned(),
            tls,
            user: user.map(decoded).transpose()?,
            password: url.password().map(decoded).transpose()?,
        })
    }
}

/// Without the password.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "grpc+tls" } else { "grpc" }, self.authority)
    }
}

/// Without the password too.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("url", &self.to_string()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let target = Target::parse("grpc+tls://ada:s%3Acret@db.example:6000").unwrap();
        assert_eq!(target.to_string(), "grpc+tls://db.example:6000");
        assert_eq!(target.user.as_deref(), Some("ada"));
        assert_eq!(target.password.as_deref(), Some("s:cret"));
        assert_eq!(format!("{target:?}"), "Target { url: \"grpc+tls://db.example:6000\", .. }");
        assert_eq!(Target::parse("grpc://localhost").unwrap().authority, "localhost:50051");
        let six = Target::parse("grpc://[::1]:7").unwrap();
        assert_eq!((six.authority.as_str(), six.host.as_str()), ("[::1]:7", "::1"));
    }

    #[test]
    fn what_is_no_url_is_refused_without_its_text() {
        for wrong in [
            "localhost:1",
            "ftp://u:secret@h",
            "grpc://",
            "grpc://u:secret@h/db",
            "",
            "grpc://h?x=1",
        ] {
            let error = Target::parse(wrong).unwrap_err();
            assert_eq!(error.kind().exit_code(), 2, "{wrong}");
            assert!(!error.message().contains("secret"), "{error}");
        }
    }
}

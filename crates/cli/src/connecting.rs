//! The server to connect to, and the login.

use std::path::{Path, PathBuf};

use clap::Args;
use windrow_core::{Error, Result};
use windrow_flight::client::{Client, ClientConfig, Target};

/// The variable with the password, for use without a terminal.
const PASSWORD: &str = "WINDROW_PASSWORD";

/// The server to connect to, and the credentials for it.
#[derive(Debug, Clone, Args)]
pub(crate) struct Connecting {
    /// Connect to a server: grpc://host:port or grpc+tls://host:port.
    #[arg(long, value_name = "URL", conflicts_with = "data_dir")]
    connect: Option<String>,
    /// User to log in as. The password is taken from $WINDROW_PASSWORD, the URL or the terminal.
    #[arg(long, value_name = "NAME", requires = "connect")]
    user: Option<String>,
    /// File with a token to authenticate with, instead of a user and password.
    #[arg(long, value_name = "FILE", requires = "connect", conflicts_with = "user")]
    token_file: Option<PathBuf>,
    /// Certificate authority of the server, PEM (default: those the system trusts).
    #[arg(long, value_name = "FILE", requires = "connect")]
    tls_ca: Option<PathBuf>,
    /// Client certificate, PEM, for a server that requires one.
    #[arg(long, value_name = "FILE", requires_all = ["connect", "tls_key"])]
    tls_cert: Option<PathBuf>,
    /// Private key of the client certificate, PEM.
    #[arg(long, value_name = "FILE", requires_all = ["connect", "tls_cert"])]
    tls_key: Option<PathBuf>,
}

impl Connecting {
    /// Whether a server was given.
    pub(crate) fn is_remote(&self) -> bool {
        self.connect.is_some()
    }

    /// Connects to the server.
    ///
    /// # Errors
    /// When the URL or a file is invalid, the server does not respond or rejects the login.
    pub(crate) async fn connect(&self) -> Result<Client> {
        Client::connect(self.config()?).await
    }

    fn config(&self) -> Result<ClientConfig> {
        let mut target = Target::parse(self.connect.as_deref().unwrap_or_default())?;
        if let Some(user) = &self.user {
            // A password in the URL belongs to the user in the URL.
            if target.user.as_ref().is_some_and(|of_url| of_url != user) {
                target.password = None;
            }
            target.user = Some(user.clone());
        }
        let token = self.token_file.as_deref().map(read_token).transpose()?;
        if target.user.is_some() && target.password.is_none() && token.is_none() {
            target.password = Some(password(target.user.as_deref().unwrap_or_default())?);
        }
        Ok(ClientConfig {
            target,
            token,
            tls_ca: self.tls_ca.clone(),
            tls_identity: self.tls_cert.clone().zip(self.tls_key.clone()),
        })
    }
}

/// Returns the password of `user`: from the environment, or typed without echo.
fn password(user: &str) -> Result<String> {
    if let Ok(password) = std::env::var(PASSWORD) {
        return Ok(password);
    }
    rpassword::prompt_password(format!("Password of {user}: ")).map_err(|e| {
        Error::config(format!("cannot prompt for the password of \"{user}\": {e}"))
            .with_hint(format!("Set {PASSWORD} where there is no terminal."))
    })
}

fn read_token(path: &Path) -> Result<String> {
    let name = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|e| Error::config(format!("cannot read the token in \"{name}\": {e}")))?;
    match text.trim() {
        "" => Err(Error::config(format!("there is no token in \"{name}\""))),
        token => Ok(token.to_owned()),
    }
}

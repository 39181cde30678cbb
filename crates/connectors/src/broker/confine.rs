//! Which brokers remote users may use.

use windrow_core::{Error, ErrorKind, Result};

use crate::ConnectorEnv;

/// Checks that the user may use these servers: each is a place `scheme://host:port/name`. `names`: an empty name for any topic.
///
/// # Errors
/// [`ErrorKind::Denied`] when a remote user may not.
pub(crate) fn confine_servers(
    scheme: &str,
    servers: &[String],
    names: &[String],
    env: &ConnectorEnv,
) -> Result<()> {
    if !env.files.is_confined() {
        return Ok(());
    }
    for server in servers {
        for name in names {
            let place = format!("{scheme}://{server}/{name}");
            if env.files.to_write(&place).is_err() {
                let message = format!("\"{place}\" may not be used by remote users");
                return Err(Error::new(ErrorKind::Denied, message).with_hint(format!(
                    "An administrator allows each of the brokers (--allow-path {scheme}://host:port/)."
                )));
            }
        }
    }
    Ok(())
}

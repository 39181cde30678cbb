//! The configuration of librdkafka's clients: what the options of streams and of sinks have in common.
//!
//! Invariant: no value of a secret reaches an error.

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use windrow_core::{Error, Result};

use crate::ConnectorEnv;
use crate::broker::confine::confine_servers;
use crate::options::{OptionDoc, StreamOptions, is_secret};

/// Properties that run code of the machine, or read files by a list of names.
const REFUSED: &[&str] = &[
    "plugin.library.paths",
    "ssl.engine.location",
    "ssl.engine.id",
    "ssl.providers",
    "sasl.kerberos.kinit.cmd",
    "sasl.kerberos.keytab",
];

/// A property of librdkafka, which is passed through.
pub(super) const fn passed(name: &'static str, doc: &'static str) -> OptionDoc {
    OptionDoc { name, values: "as librdkafka has it", default: "librdkafka's", doc }
}

/// Sets the properties among the options: those that are not in `own`. Servers are verified with the certificates of the system
/// unless others are given.
///
/// # Errors
/// For a property that cannot be set.
pub(super) fn set_properties(
    config: &mut ClientConfig,
    options: &StreamOptions<'_>,
    own: &[&str],
) -> Result<()> {
    // The TLS that is built in knows no place for them.
    config.set("ssl.ca.location", "probe");
    for (key, value) in options.iter().filter(|(key, _)| !own.contains(key)) {
        if REFUSED.iter().any(|refused| key.eq_ignore_ascii_case(refused)) {
            return Err(Error::config(format!("option \"{key}\" cannot be set")).with_hint(
                "It would load code or read files of the machine that Windrow runs on.",
            ));
        }
        config.set(key, value);
    }
    let is_plain =
        |p: &str| p.eq_ignore_ascii_case("plaintext") || p.eq_ignore_ascii_case("sasl_plaintext");
    if config.get("security.protocol").is_none_or(is_plain)
        && options.get("ssl.ca.location").is_none()
    {
        config.remove("ssl.ca.location");
    }
    Ok(())
}

/// Checks that the client accepts the properties.
///
/// # Errors
/// For the first one that it does not.
pub(super) fn check(config: &ClientConfig) -> Result<()> {
    config.create_native_config().map(drop).map_err(|error| wrong(&error))
}

/// Returns the error for a configuration that the client refuses, without secrets.
pub(super) fn wrong(error: &KafkaError) -> Error {
    let KafkaError::ClientConfig(_, what, key, value) = error else {
        return Error::config(format!("the options of the Kafka client are wrong: {error}"));
    };
    let mut what = what.trim().trim_end_matches('.').to_owned();
    if is_secret(key) && !value.is_empty() {
        what = what.replace(value.as_str(), "***");
    }
    Error::config(format!("option \"{key}\" is refused by the Kafka client: {what}"))
        .with_hint("See the properties of librdkafka 2 for its names and values.")
}

/// Checks that the user may use the brokers, and the files that the properties name, which are resolved. `topics`: an empty
/// name for any topic.
///
/// # Errors
/// [`ErrorKind::Denied`](windrow_core::ErrorKind::Denied) when a remote user may not.
pub(super) fn confine(
    config: &mut ClientConfig,
    (servers, topics): (&str, &[String]),
    env: &ConnectorEnv,
) -> Result<()> {
    if !env.files.is_confined() {
        return Ok(());
    }
    let servers: Vec<String> = servers.split(',').map(|server| server.trim().to_owned()).collect();
    confine_servers("kafka", &servers, topics, env)?;
    let keys: Vec<String> = config.config_map().into_keys().map(str::to_owned).collect();
    for key in keys.iter().filter(|key| key.ends_with(".location")) {
        let Some(path) = config.get(key).filter(|path| *path != "probe") else { continue };
        let path = env.files.to_read(path)?;
        config.set(key, path);
    }
    Ok(())
}

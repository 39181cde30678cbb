//! Schema registries: a client of Confluent's HTTP API, which Apicurio, Karapace and Redpanda also implement.
//!
//! Invariants: the schema of an id never changes, so it is fetched once; a missing id is looked up again after a while; an
//! unavailable registry is an error, and never counts as a missing schema.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode, Url};
use serde_json::Value;
use windrow_core::{Clock, Error, ErrorKind, Result};

use crate::ConnectorEnv;
use crate::causes::with_causes;
use crate::formats::avro::messages::Schemas;
use crate::formats::avro::schema::WriterSchema;
use crate::options::{OptionDoc, StreamOptions};

/// `schema.registry.url`.
pub(crate) const URL: OptionDoc = OptionDoc {
    name: "schema.registry.url",
    values: "a URL",
    default: "",
    doc: "The schema registry that has the schemas of the messages (Confluent's API). Each message says which one it has.",
};
/// `schema.registry.basic.auth.user.info`.
pub(crate) const LOGIN: OptionDoc = OptionDoc {
    name: "schema.registry.basic.auth.user.info",
    values: "user:password",
    default: "",
    doc: "The login to the schema registry.",
};
/// `schema.registry.subject`.
pub(crate) const SUBJECT: OptionDoc = OptionDoc {
    name: "schema.registry.subject",
    values: "a name",
    default: "TOPIC-value",
    doc: "The subject whose latest schema has the columns of a stream that declares none.",
};

/// The timeout of a request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a missing schema is cached as missing, in µs.
const UNKNOWN_MICROS: i64 = 5_000_000;
/// The codes of a response that says that there is no such schema, subject or version.
const MISSING_CODES: [u64; 3] = [40401, 40402, 40403];
/// The maximum size of a response, in bytes.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// The options of a registry.
#[derive(Clone)]
pub(crate) struct RegistryOptions {
    url: Url,
    login: Option<(String, String)>,
    subject: Option<String>,
}

/// Hides the login.
impl std::fmt::Debug for RegistryOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryOptions").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

impl RegistryOptions {
    /// Parses the options; `None` if there is no registry.
    ///
    /// # Errors
    /// For an invalid URL or login, and for other options without a URL.
    pub(crate) fn read(options: &StreamOptions<'_>) -> Result<Option<Self>> {
        let subject = options.get(SUBJECT.name).map(str::to_owned);
        let Some(url) = options.get(URL.name) else {
            let other = [LOGIN.name, SUBJECT.name].into_iter().find(|o| options.get(o).is_some());
            return match other {
                Some(other) => {
                    Err(Error::config(format!("option \"{other}\" needs schema.registry.url"))
                        .with_hint("Add schema.registry.url = 'http://host:port' to WITH."))
                }
                None => Ok(None),
            };
        };
        let wrong = |why: &str| {
            Error::config(format!("option \"{}\" must be {why}", URL.name))
                .with_hint("Write it as 'http://host:8081' or 'https://host'.")
        };
        let url = Url::parse(url).map_err(|_| wrong("a URL"))?;
        if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() {
            return Err(wrong("a URL with http:// or https://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("a URL without a login")
                .with_hint(format!("The login is option {} = 'user:password'.", LOGIN.name)));
        }
        let login = match options.get(LOGIN.name).map(|info| info.split_once(':')) {
            None => None,
            Some(Some((user, password))) => Some((user.to_owned(), password.to_owned())),
            Some(None) => {
                let what = format!("option \"{}\" must be a user and a password", LOGIN.name);
                return Err(Error::config(what).with_hint("Write it as 'user:password'."));
            }
        };
        Ok(Some(Self { url, login, subject }))
    }
}

/// The schemas of a registry.
pub(crate) struct Registry {
    options: RegistryOptions,
    client: Client,
    clock: Arc<dyn Clock>,
    io: tokio::runtime::Handle,
    known: Mutex<BTreeMap<u32, Known>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("options", &self.options).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
struct Known {
    schema: Result<Arc<WriterSchema>, String>,
    /// When the entry expires, in µs since 1970; `None`: never.
    until: Option<i64>,
}

/// A response of the registry.
enum Answer {
    Found(Value),
    /// There is none.
    Missing,
}

impl Registry {
    /// Creates a client. No request is sent yet.
    ///
    /// # Errors
    /// When the user may not reach it.
    pub(crate) fn open(options: RegistryOptions, env: &ConnectorEnv) -> Result<Self> {
        if env.files.is_confined() {
            // Requests of the server reach what its users may not.
            env.files.to_read(options.url.as_str()).map_err(|error| {
                Error::new(error.kind(), "the schema registry may not be reached by remote users")
                    .with_hint("An administrator allows its URL (--allow-path).")
            })?;
        }
        let client = Client::builder()
            .redirect(Policy::none())
            .timeout(TIMEOUT)
            .user_agent(concat!("windrow/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| Error::internal("the HTTP client cannot be created").with_source(e))?;
        let (clock, io) = (Arc::clone(&env.clock), env.io.clone());
        Ok(Self { options, client, clock, io, known: Mutex::default() })
    }

    /// The subject that the options name.
    pub(crate) fn subject(&self) -> Option<&str> {
        self.options.subject.as_deref()
    }

    /// Whether a schema has to be fetched before its messages can be decoded.
    pub(crate) fn is_needed(&self, id: u32) -> bool {
        let now = self.clock.now_micros();
        let known = self.known.lock();
        known.get(&id).is_none_or(|known| known.until.is_some_and(|until| until <= now))
    }

    /// Fetches a schema.
    ///
    /// # Errors
    /// When the registry does not respond. A missing or unusable schema is not an error here.
    pub(crate) async fn fetch(&self, id: u32) -> Result<()> {
        let until = Some(self.clock.now_micros() + UNKNOWN_MICROS);
        let known = match self.ask(&["schemas", "ids", &id.to_string()]).await? {
            Answer::Found(answer) => Known {
                schema: parsed(&answer).map_err(|why| format!("schema {id} {why}")),
                until: None,
            },
            Answer::Missing => {
                Known { schema: Err(format!("the schema registry has no schema {id}")), until }
            }
        };
        let mut all = self.known.lock();
        // Ids that messages name without right must not add up. A batch may still need one that expired just now.
        let old = self.clock.now_micros().saturating_sub(UNKNOWN_MICROS);
        all.retain(|_, known| known.until.is_none_or(|until| until > old));
        all.insert(id, known);
        Ok(())
    }

    /// Returns the latest schema of a subject, with its id.
    ///
    /// # Errors
    /// When the registry does not respond, has no such subject, or its schema cannot be used.
    pub(crate) async fn latest(&self, subject: &str) -> Result<(u32, Arc<WriterSchema>)> {
        let answer = match self.ask(&["subjects", subject, "versions", "latest"]).await? {
            Answer::Found(answer) => answer,
            Answer::Missing => {
                let what = format!("the schema registry has no subject \"{subject}\"");
                return Err(Error::new(ErrorKind::NotFound, what).with_hint(
                    "Declare the columns, or name another subject with schema.registry.subject.",
                ));
            }
        };
        let id = answer.get("id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
        let id =
            id.ok_or_else(|| Error::data("the schema registry gave a schema without an id"))?;
        let schema = parsed(&answer).map_err(|why| {
            Error::data(format!("the latest schema of subject \"{subject}\" {why}"))
        })?;
        self.known.lock().insert(id, Known { schema: Ok(Arc::clone(&schema)), until: None });
        Ok((id, schema))
    }

    async fn ask(&self, path: &[&str]) -> Result<Answer> {
        let mut url = self.options.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let mut request =
            self.client.get(url).header("accept", "application/vnd.schemaregistry.v1+json");
        if let Some((user, password)) = &self.options.login {
            request = request.basic_auth(user, Some(password));
        }
        let shown = self.options.url.as_str().trim_end_matches('/').to_owned();
        let asked = self.io.spawn(async move {
            let away = |why: String| {
                Error::new(ErrorKind::Unavailable, format!("the schema registry \"{shown}\" {why}"))
                    .with_hint("Check schema.registry.url, and schema.registry.basic.auth.user.info if it needs a login.")
            };
            let unread = |e: reqwest::Error| away(format!("does not answer: {}", with_causes(&e.without_url())));
            let mut answer = request.send().await.map_err(unread)?;
            let status = answer.status();
            if !status.is_success() && status != StatusCode::NOT_FOUND {
                return Err(away(format!("answers with status {status}")));
            }
            let mut body = vec![];
            while let Some(piece) = answer.chunk().await.map_err(unread)? {
                body.extend_from_slice(&piece);
                if body.len() > ANSWER_BYTES_MAX {
                    return Err(away("returned a response that is too long".to_owned()));
                }
            }
            let answer: Result<Value, _> = serde_json::from_slice(&body);
            if status == StatusCode::NOT_FOUND {
                // Any server may lack a path; a registry says what it lacks.
                let code = answer.ok().and_then(|answer| answer.get("error_code")?.as_u64());
                return match code.is_some_and(|code| MISSING_CODES.contains(&code)) {
                    true => Ok(Answer::Missing),
                    false => Err(away(format!("answers with status {status}"))),
                };
            }
            Ok(Answer::Found(answer.map_err(|e| away(format!("returned invalid JSON: {e}")))?))
        });
        asked
            .await
            .map_err(|e| Error::internal(format!("a request to the schema registry ended: {e}")))?
    }
}

impl Schemas for Registry {
    fn known(&self, id: u32) -> Option<Result<Arc<WriterSchema>, String>> {
        self.known.lock().get(&id).map(|known| known.schema.clone())
    }
}

/// Parses the schema of a response; an error continues "schema 1 …".
fn parsed(answer: &Value) -> Result<Arc<WriterSchema>, String> {
    let kind = answer.get("schemaType").and_then(Value::as_str).unwrap_or("AVRO");
    if kind != "AVRO" {
        return Err(format!("is of the type {kind}, and the stream reads Avro"));
    }
    if answer.get("references").and_then(Value::as_array).is_some_and(|list| !list.is_empty()) {
        return Err("refers to other schemas, which is not supported".to_owned());
    }
    let text = answer.get("schema").and_then(Value::as_str).ok_or("has no text")?;
    WriterSchema::parse(text).map(Arc::new)
}

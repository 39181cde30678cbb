//! `format = 'avro'` of messages: its options, where the schemas of messages come from, and the columns of the stream.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use windrow_core::{Error, Result};

use crate::ConnectorEnv;
use crate::formats::avro::messages::Framing;
use crate::formats::avro::schema::WriterSchema;
use crate::formats::messages::MessageSettings;
use crate::formats::typed::Typed;
use crate::options::{OptionDoc, StreamOptions};
use crate::schema_registry::{self, Registry, RegistryOptions};

/// `avro.schema`.
pub(crate) const SCHEMA: OptionDoc = OptionDoc {
    name: "avro.schema",
    values: "a file, or JSON",
    default: "",
    doc: "The schema of all messages, where no schema registry has it.",
};
/// `avro.framing`.
pub(crate) const FRAMING: OptionDoc = OptionDoc {
    name: "avro.framing",
    values: "'none' | 'single_object'",
    default: "none",
    doc: "What is before the record in a message with avro.schema: nothing, or C3 01 and the fingerprint of the schema, which is \
          compared.",
};

/// The parsed options.
#[derive(Debug, Clone)]
pub(crate) enum AvroOptions {
    /// All messages have one schema.
    Given {
        /// A path, or JSON.
        schema: String,
        single_object: bool,
    },
    Registry(RegistryOptions),
}

/// How messages are read, and where their columns are.
#[derive(Debug)]
pub(crate) struct OpenedAvro {
    pub(crate) framing: Framing,
    pub(crate) registry: Option<Arc<Registry>>,
}

impl AvroOptions {
    /// Reads the options; `None`: the format is another one.
    ///
    /// # Errors
    /// For options that do not fit together.
    pub(crate) fn read(options: &StreamOptions<'_>) -> Result<Option<Self>> {
        let format = options.get("format").unwrap_or_default();
        if !format.trim().eq_ignore_ascii_case("avro") {
            let all = [
                SCHEMA,
                FRAMING,
                schema_registry::URL,
                schema_registry::LOGIN,
                schema_registry::SUBJECT,
            ];
            return match all.iter().find(|option| options.get(option.name).is_some()) {
                Some(option) => {
                    Err(Error::config(format!("option \"{}\" is for format = 'avro'", option.name))
                        .with_hint("Add format = 'avro' to WITH, or leave the option out."))
                }
                None => Ok(None),
            };
        }
        let framings = [("none", false), ("single_object", true)];
        let framing = options.choice(FRAMING.name, &framings)?;
        match (options.get(SCHEMA.name), RegistryOptions::read(options)?) {
            (Some(schema), None) => {
                let single_object = framing.unwrap_or(false);
                Ok(Some(Self::Given { schema: schema.to_owned(), single_object }))
            }
            (None, Some(registry)) if framing.is_none() => Ok(Some(Self::Registry(registry))),
            (None, Some(_)) => Err(Error::config("options \"avro.framing\" and \"schema.registry.url\" exclude each other")
                .with_hint("With a schema registry, messages begin with the id of their schema.")),
            (Some(_), Some(_)) => Err(Error::config("options \"avro.schema\" and \"schema.registry.url\" exclude each other")
                .with_hint("With a schema registry, each message says which schema it has.")),
            (None, None) => Err(Error::config("format 'avro' needs a schema")
                .with_hint("Add schema.registry.url = 'http://host:8081' or avro.schema = 'file.avsc' to WITH.")),
        }
    }

    /// Reads the schema that is given, or prepares the registry.
    ///
    /// # Errors
    /// When the schema cannot be read or used, or the registry may not be reached.
    pub(crate) async fn open(&self, env: &ConnectorEnv) -> Result<OpenedAvro> {
        match self {
            Self::Registry(options) => {
                let registry = Arc::new(Registry::open(options.clone(), env)?);
                let framing = Framing::Registry(Arc::clone(&registry) as _);
                Ok(OpenedAvro { framing, registry: Some(registry) })
            }
            Self::Given { schema, single_object } => {
                let text = match schema.trim_start().starts_with('{') {
                    true => schema.clone(),
                    false => read_schema(schema, env).await?,
                };
                let schema = WriterSchema::parse(&text).map_err(|why| {
                    Error::config(format!("the schema of option \"{}\" {why}", SCHEMA.name))
                })?;
                let schema = Arc::new(schema);
                let framing = match single_object {
                    true => Framing::SingleObject(schema),
                    false => Framing::None(schema),
                };
                Ok(OpenedAvro { framing, registry: None })
            }
        }
    }
}

impl OpenedAvro {
    /// The subject of a stream in the schema registry.
    fn subject(&self, topic: Option<&str>) -> Option<(Arc<Registry>, String)> {
        let registry = self.registry.as_ref()?;
        let subject = match registry.subject() {
            Some(subject) => subject.to_owned(),
            None => format!("{}-value", topic?),
        };
        Some((Arc::clone(registry), subject))
    }

    /// Returns the columns that the schema has.
    pub(crate) async fn columns(&self, topic: Option<&str>) -> Result<SchemaRef> {
        let (of, schema) = match (&self.framing, self.subject(topic)) {
            (Framing::None(schema) | Framing::SingleObject(schema), _) => {
                ("the schema".to_owned(), Arc::clone(schema))
            }
            (Framing::Registry(_), Some((registry, subject))) => {
                let (_, schema) = registry.latest(&subject).await?;
                (format!("the latest schema of subject \"{subject}\""), schema)
            }
            (Framing::Registry(_), None) => {
                return Err(Error::config("the columns of several topics are of no one subject")
                    .with_hint(
                        "Declare the columns, or add schema.registry.subject = '…' to WITH.",
                    ));
            }
        };
        schema.columns().map_err(|why| {
            Error::data(format!("{of} {why}"))
                .with_hint("Declare the other columns: CREATE STREAM s (column TYPE, …) WITH (…).")
        })
    }

    /// Compares declared columns with the schema, if it is known.
    ///
    /// # Errors
    /// When the only schema of the stream does not have the columns.
    pub(crate) async fn differs(
        &self,
        topic: Option<&str>,
        messages: &MessageSettings,
    ) -> Result<Option<String>> {
        let asked = (&messages.declared, vec![]);
        let rules = (&messages.rules, messages.on_bad);
        match (&self.framing, self.subject(topic)) {
            (Framing::None(schema) | Framing::SingleObject(schema), _) => {
                Typed::new(schema.fields(), asked, rules, "the schema")?;
                Ok(None)
            }
            (Framing::Registry(_), Some((registry, subject))) => {
                match registry.latest(&subject).await {
                    // Messages with other schemas may fit, and it may be another one later.
                    Ok((id, schema)) => {
                        let of = format!("schema {id}, the latest of subject \"{subject}\",");
                        let typed = Typed::new(schema.fields(), asked, rules, &of);
                        Ok(typed
                            .err()
                            .map(|e| format!("{}: its messages are bad rows", e.message())))
                    }
                    Err(error) => Ok(Some(format!(
                        "{}; what reads the stream waits for its schemas",
                        error.message()
                    ))),
                }
            }
            (Framing::Registry(_), None) => Ok(None),
        }
    }
}

async fn read_schema(path: &str, env: &ConnectorEnv) -> Result<String> {
    let place = env.files.to_read(path)?;
    let read = env.io.spawn_blocking(move || std::fs::read_to_string(place)).await;
    let read = read.map_err(|e| Error::internal(format!("reading a schema ended: {e}")))?;
    read.map_err(|e| {
        Error::config(format!("option \"{}\": file \"{path}\" cannot be read: {e}", SCHEMA.name))
            .with_hint("Name a file on this machine, or write the JSON of the schema.")
    })
}

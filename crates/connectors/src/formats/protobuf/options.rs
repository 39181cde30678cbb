//! The options of `format = 'protobuf'`: parses them, reads the schema and finds the message.

use std::path::{Path, PathBuf};

use prost_reflect::{DescriptorPool, MessageDescriptor};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use windrow_core::{Error, Result};

use super::Described;
use crate::options::{OptionDoc, StreamOptions};
use crate::{ConnectorEnv, Files};

/// `protobuf.schema`.
pub(crate) const SCHEMA: OptionDoc = OptionDoc {
    name: "protobuf.schema",
    values: "a file",
    default: "",
    doc: "A .proto file, whose imports are found from its directory, or a descriptor set (protoc --include_imports \
          --descriptor_set_out).",
};
/// `protobuf.message`.
pub(crate) const MESSAGE: OptionDoc = OptionDoc {
    name: "protobuf.message",
    values: "a name",
    default: "the only one",
    doc: "The full name of the message that values are: package.Message.",
};
/// `protobuf.framing`.
pub(crate) const FRAMING: OptionDoc = OptionDoc {
    name: "protobuf.framing",
    values: "'none' | 'confluent'",
    default: "none",
    doc: "What is before each message: nothing, or what serializers for a schema registry write. Its id is not looked up; the \
          place of the message in its schema is compared.",
};

/// The parsed options.
#[derive(Debug, Clone)]
pub(crate) struct ProtobufOptions {
    schema: String,
    message: Option<String>,
    is_framed: bool,
}

impl ProtobufOptions {
    /// Reads the options; `None`: the format is another one.
    ///
    /// # Errors
    /// When the schema is missing, and for options of another format.
    pub(crate) fn read(options: &StreamOptions<'_>) -> Result<Option<Self>> {
        let format = options.get("format").unwrap_or_default();
        if !format.trim().eq_ignore_ascii_case("protobuf") {
            let all = [SCHEMA, MESSAGE, FRAMING];
            return match all.iter().find(|option| options.get(option.name).is_some()) {
                Some(option) => {
                    let what = format!("option \"{}\" is for format = 'protobuf'", option.name);
                    Err(Error::config(what)
                        .with_hint("Add format = 'protobuf' to WITH, or leave the option out."))
                }
                None => Ok(None),
            };
        }
        let framings = [("none", false), ("confluent", true)];
        Ok(Some(Self {
            schema: options.required(SCHEMA.name)?.to_owned(),
            message: options.get(MESSAGE.name).map(|name| name.trim().to_owned()),
            is_framed: options.choice(FRAMING.name, &framings)?.unwrap_or(false),
        }))
    }

    /// Reads the schema, and finds the message.
    ///
    /// # Errors
    /// When the schema cannot be read, or does not have the message.
    pub(crate) async fn open(&self, env: &ConnectorEnv) -> Result<Described> {
        let (options, files) = (self.clone(), env.files.clone());
        let opened = env.io.spawn_blocking(move || options.described(&files)).await;
        opened.map_err(|e| Error::internal(format!("reading a schema ended: {e}")))?
    }

    fn described(&self, files: &Files) -> Result<Described> {
        let place = files.to_read(&self.schema)?;
        let wrong = |why: String| {
            Error::config(format!("option \"{}\": file \"{}\" {why}", SCHEMA.name, self.schema))
        };
        let pool = match Path::new(&place).extension() {
            Some(proto) if proto.eq_ignore_ascii_case("proto") => {
                compile(&place, files).map_err(wrong)?
            }
            _ => {
                let bytes =
                    std::fs::read(&place).map_err(|e| wrong(format!("cannot be read: {e}")))?;
                DescriptorPool::decode(bytes.as_slice()).map_err(|e| {
                    wrong(format!("is neither a .proto file nor a descriptor set: {e}"))
                })?
            }
        };
        let message = self.message(&pool)?;
        Described::new(message, self.is_framed)
            .map_err(|why| wrong(format!("cannot be used: {why}")))
    }

    fn message(&self, pool: &DescriptorPool) -> Result<MessageDescriptor> {
        let own = |message: &MessageDescriptor| {
            !message.is_map_entry() && !message.full_name().starts_with("google.protobuf.")
        };
        let all: Vec<MessageDescriptor> = pool.all_messages().filter(own).collect();
        let names: Vec<&str> = all.iter().map(MessageDescriptor::full_name).collect();
        let hint = format!("It has: {}.", names.join(", "));
        match (&self.message, all.as_slice()) {
            (Some(name), _) => pool.get_message_by_name(name).ok_or_else(|| {
                let what =
                    format!("option \"{}\": the schema has no message \"{name}\"", MESSAGE.name);
                Error::config(what).with_hint(hint)
            }),
            (None, [only]) => Ok(only.clone()),
            (None, _) => {
                let what = format!(
                    "option \"{}\" is needed: the schema has several messages, or none",
                    MESSAGE.name
                );
                Err(Error::config(what).with_hint(hint))
            }
        }
    }
}

/// Finds the files that a schema imports, below its directory.
struct Below {
    directory: PathBuf,
    files: Files,
}

impl FileResolver for Below {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let path = self.directory.join(name);
        let text = path.to_string_lossy();
        match self.files.to_read(&text) {
            Ok(place) => File::open(name, Path::new(&place)),
            Err(_) => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// Compiles a `.proto` file.
fn compile(place: &str, files: &Files) -> Result<DescriptorPool, String> {
    let path = Path::new(place);
    let name = path.file_name().and_then(|name| name.to_str()).ok_or("has no name")?;
    let directory = path.parent().unwrap_or(Path::new("")).to_owned();
    let mut found = ChainFileResolver::new();
    found.add(Below { directory, files: files.clone() });
    found.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(found);
    compiler.include_imports(true);
    compiler.open_file(name).map_err(|e| format!("cannot be compiled: {e}"))?;
    Ok(compiler.descriptor_pool())
}

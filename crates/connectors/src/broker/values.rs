//! The values of messages: their options, and how they are decoded into the columns of a stream.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use windrow_core::Result;

use super::avro::AvroOptions;
use super::columns::{Columns, Names};
use crate::formats::convert::NumberRules;
use crate::formats::decode::OnBadRow;
use crate::formats::messages::{MessageFormat, MessageSettings, Tombstones};
use crate::formats::protobuf::options::ProtobufOptions;
use crate::formats::settings;
use crate::options::{OptionDoc, StreamOptions, option};
use crate::schema_registry::Registry;
use crate::{ConnectorEnv, Declared};

/// `format` of a stream of messages.
pub(crate) const FORMAT: OptionDoc = option(
    "format",
    "'json' | 'csv' | 'avro' | 'protobuf' | 'raw' | 'bytes' | 'debezium-json'",
    "json",
    "How the values of messages are written, each one row: a JSON object, a record of CSV without header, a record of \
     Avro, a message of Protobuf, UTF-8 text in one VARCHAR column, bytes in one BYTEA column. 'debezium-json' are changes \
     of rows, for a stream with a primary key.",
);

/// The parsed options of values.
#[derive(Debug, Clone)]
pub(crate) struct ValueOptions {
    /// Of messages without a schema.
    format: MessageFormat,
    avro: Option<AvroOptions>,
    protobuf: Option<ProtobufOptions>,
    tombstones: Tombstones,
    on_bad: OnBadRow,
    epoch: Option<TimeUnit>,
}

impl ValueOptions {
    /// Reads `format`, its options, `tombstones`, `on_bad_row` and `epoch`, as far as the connector has them.
    ///
    /// # Errors
    /// For an invalid value, and for options that do not fit together.
    pub(crate) fn read(options: &StreamOptions<'_>) -> Result<Self> {
        let style = settings::csv_style(options, false)?;
        let formats = [
            ("json", MessageFormat::Json),
            ("csv", MessageFormat::Csv(style.of_file(false)?)),
            ("raw", MessageFormat::Text),
            ("text", MessageFormat::Text),
            ("bytes", MessageFormat::Bytes),
            // Their schemas are read below.
            ("avro", MessageFormat::Bytes),
            ("protobuf", MessageFormat::Bytes),
        ];
        let names: Vec<(&str, usize)> = formats.iter().map(|(name, _)| *name).zip(0..).collect();
        let format = options.choice("format", &names)?.unwrap_or(0);
        let format = formats.get(format).map_or(MessageFormat::Json, |(_, f)| f.clone());
        let tombstones =
            [("skip", Tombstones::Skip), ("null", Tombstones::Null), ("bad", Tombstones::Bad)];
        Ok(Self {
            format,
            avro: AvroOptions::read(options)?,
            protobuf: ProtobufOptions::read(options)?,
            tombstones: options.choice("tombstones", &tombstones)?.unwrap_or(Tombstones::Skip),
            on_bad: settings::on_bad_row(options)?,
            epoch: settings::epoch(options)?,
        })
    }

    /// Makes bad rows of messages without a value, where that is nothing that a producer means to say.
    pub(crate) fn with_bad_tombstones(mut self) -> Self {
        self.tombstones = Tombstones::Bad;
        self
    }

    /// Reads what schemas are needed, and finds the columns. `topic`: the only one, by which a schema registry knows the
    /// values.
    ///
    /// # Errors
    /// When a schema cannot be read, and for columns that values or metadata do not have.
    pub(crate) async fn open(
        &self,
        declared: &Declared,
        names: (&str, Names),
        topic: Option<&str>,
        env: &ConnectorEnv,
    ) -> Result<(Values, Vec<String>)> {
        let avro = match &self.avro {
            Some(avro) => Some(avro.open(env).await?),
            None => None,
        };
        let format = match (&avro, &self.protobuf) {
            (Some(avro), _) => MessageFormat::Avro(avro.framing.clone()),
            (None, Some(protobuf)) => MessageFormat::Protobuf(Arc::new(protobuf.open(env).await?)),
            (None, None) => self.format.clone(),
        };
        let of_schema = match (&avro, &format, &declared.schema) {
            (Some(avro), _, None) => Some(avro.columns(topic).await?),
            (_, MessageFormat::Protobuf(described), None) => Some(Arc::clone(described.schema())),
            _ => None,
        };
        let alone = match format {
            MessageFormat::Text => Some(DataType::Utf8View),
            MessageFormat::Bytes => Some(DataType::Binary),
            MessageFormat::Json
            | MessageFormat::Csv(_)
            | MessageFormat::Avro(_)
            | MessageFormat::Protobuf(_) => None,
        };
        let columns = Columns::new(declared, names, alone, of_schema.as_ref())?;
        let settings = MessageSettings {
            format,
            declared: Arc::clone(&columns.value),
            rules: NumberRules {
                inferred: false,
                epoch: self.epoch,
                unsaid: declared.unsaid.clone().into(),
            },
            on_bad: self.on_bad,
            tombstones: self.tombstones,
            row_bytes_max: env.limits.row_bytes_max,
        };
        settings.check()?;
        let mut notices = vec![];
        if let (Some(avro), Some(_)) = (&avro, &declared.schema) {
            notices.extend(avro.differs(topic, &settings).await?);
        }
        let registry = avro.and_then(|avro| avro.registry);
        Ok((Values { columns, settings, registry }, notices))
    }
}

/// How the messages of a stream become rows.
#[derive(Debug)]
pub(crate) struct Values {
    pub(crate) columns: Columns,
    pub(crate) settings: MessageSettings,
    /// Where the schemas of messages are found.
    pub(crate) registry: Option<Arc<Registry>>,
}

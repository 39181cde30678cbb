//! Catalogs, schemas and tables, as Flight SQL lists them.

pub(crate) mod keys;
pub(crate) mod sql_info;
pub(crate) mod types;

use arrow::datatypes::Schema;
use arrow::ipc::writer::IpcWriteOptions;
use arrow::record_batch::RecordBatch;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetTableTypes, CommandGetTables,
};
use arrow_flight::{FlightDescriptor, FlightInfo, IpcMessage, SchemaAsIpc};
use bytes::Bytes;
use tonic::Status;
use windrow_engine::{ObjectKind, Session};

use crate::rows::arrow_status;
use crate::statement;
use crate::status::to_status;
use crate::wire;

/// Encodes the columns as bytes.
///
/// # Errors
/// When they cannot be encoded (a bug in Windrow).
pub(crate) fn schema_bytes(columns: &Schema) -> Result<Bytes, Status> {
    let options = IpcWriteOptions::default();
    let message = IpcMessage::try_from(SchemaAsIpc::new(columns, &options));
    message.map(|message| message.0).map_err(|e| arrow_status(e, ""))
}

fn built(rows: Result<RecordBatch, FlightError>) -> Result<RecordBatch, Status> {
    rows.map_err(|e| Status::internal(e.to_string()))
}

/// Returns the statement that reads what a path names.
pub(crate) fn select(path: &[String]) -> String {
    let quoted = path.iter().map(|part| format!("\"{}\"", part.replace('"', "\"\"")));
    format!("SELECT * FROM {}", quoted.collect::<Vec<_>>().join("."))
}

pub(crate) fn catalogs(
    session: &Session,
    query: CommandGetCatalogs,
) -> Result<RecordBatch, Status> {
    let mut builder = query.into_builder();
    session.schemas().into_iter().for_each(|(catalog, _)| builder.append(catalog));
    built(builder.build())
}

pub(crate) fn schemas(
    session: &Session,
    query: CommandGetDbSchemas,
) -> Result<RecordBatch, Status> {
    let mut builder = query.into_builder();
    for (catalog, schemas) in session.schemas() {
        schemas.iter().for_each(|schema| builder.append(&catalog, schema));
    }
    built(builder.build())
}

pub(crate) async fn tables(
    session: &Session,
    query: CommandGetTables,
) -> Result<RecordBatch, Status> {
    let mut builder = query.into_builder();
    for object in session.objects().await.map_err(|e| to_status(&e, ""))? {
        let (catalog, schema, name) = (object.catalog, object.schema, object.name);
        let columns = wire::schema(&object.columns);
        let appended = builder.append(catalog, schema, name, object.kind.name(), &columns);
        appended.map_err(|e| Status::internal(e.to_string()))?;
    }
    built(builder.build())
}

pub(crate) fn table_types(query: CommandGetTableTypes) -> Result<RecordBatch, Status> {
    let mut builder = query.into_builder();
    ObjectKind::ALL.iter().for_each(|kind| builder.append(kind.name()));
    built(builder.build())
}

/// Returns the streams, views and tables whose name contains `wanted`, as flights.
pub(crate) async fn flights(session: &Session, wanted: &[u8]) -> Result<Vec<FlightInfo>, Status> {
    let wanted = std::str::from_utf8(wanted)
        .map_err(|_| Status::invalid_argument("the criteria are not text"))?;
    let objects = session.objects().await.map_err(|e| to_status(&e, ""))?;
    let mut flights = Vec::new();
    for object in objects.iter().filter(|o| o.kind != ObjectKind::SystemTable) {
        if object.name.contains(wanted) {
            let path = vec![object.name.clone()];
            let columns = wire::schema(&object.columns);
            let descriptor = FlightDescriptor::new_path(path.clone());
            flights.push(statement::info_for(&columns, select(&path), None, descriptor)?);
        }
    }
    Ok(flights)
}

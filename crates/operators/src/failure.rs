//! Conversion of DataFusion's errors to Windrow's, by what the caller can do about them.

use datafusion::error::DataFusionError;
use windrow_core::{Error, ErrorKind};

/// Converts the error of an aggregate.
pub(crate) fn engine(error: DataFusionError) -> Error {
    use DataFusionError as D;
    match error {
        D::ArrowError(e, _) => Error::from(*e),
        D::Context(_, e) | D::Diagnostic(_, e) => engine(*e),
        D::External(e) => match e.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(other) => Error::data(other.to_string()).with_source(other),
        },
        other => {
            let kind = match &other {
                D::ResourcesExhausted(_) => ErrorKind::Limit,
                D::Execution(_) => ErrorKind::Data,
                D::NotImplemented(_) | D::Plan(_) | D::SchemaError(..) => ErrorKind::Sql,
                _ => ErrorKind::Internal,
            };
            Error::new(kind, other.strip_backtrace()).with_source(other)
        }
    }
}

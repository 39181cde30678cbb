//! Transactions: there are none; these are the responses to clients that request them.

use tonic::Status;

/// The response that clients expect of a store without transactions: drivers then stay in autocommit, or report that
/// they cannot leave it.
pub(super) fn transactionless() -> Status {
    Status::unimplemented("there are no transactions: each statement takes effect by itself")
}

/// Refuses a statement that is to be part of a transaction.
pub(super) fn no_transaction(id: Option<&[u8]>) -> Result<(), Status> {
    match id {
        Some(id) if !id.is_empty() => {
            Err(Status::invalid_argument("there are no transactions: each statement is by itself"))
        }
        _ => Ok(()),
    }
}

//! Transactions, which there are none of: what clients that ask for them get.

use tonic::Status;

/// What clients expect of a store without transactions: drivers then stay in autocommit, or say that they cannot leave
/// it.
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

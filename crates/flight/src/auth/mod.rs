//! Authentication over gRPC: the layer in front of every call, and the handshake. Credentials are checked by the
//! [`Door`](windrow_server::auth::login::Door).

pub(crate) mod handshake;
pub(crate) mod layer;

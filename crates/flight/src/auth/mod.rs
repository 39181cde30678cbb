//! Who calls, over gRPC: the layer in front of every call, and the handshake. Who may come in is decided by the
//! [`Door`](windrow_server::auth::login::Door).

pub(crate) mod handshake;
pub(crate) mod layer;

//! Authentication over gRPC: the layer in front of every call, and the handshake. Credentials are checked by the
//! [`Authenticator`](windrow_server::auth::login::Authenticator).

pub(crate) mod handshake;
pub(crate) mod layer;

//! Sessions of clients over gRPC: identified by a cookie, which is set with the answers to the session actions.

pub(crate) mod options;

use std::sync::Arc;

use tonic::metadata::MetadataMap;
use tonic::{Request, Status};
use windrow_server::auth::Identity;
use windrow_server::connection::Peer;
use windrow_server::session::{ClientSession, Sessions};

use crate::connection::peer;
use crate::status::to_status;

/// The cookie that names a session, as Flight SQL defines it.
const COOKIE: &str = "arrow_flight_session_id";

/// Returns the session of a request; a new one where there is none.
///
/// # Errors
/// NOT_FOUND when the cookie names a session that has ended.
pub(crate) fn of<T>(
    sessions: &Sessions,
    request: &Request<T>,
) -> Result<Arc<ClientSession>, Status> {
    let identity = request.extensions().get::<Identity>();
    let identity = identity.ok_or_else(|| Status::internal("the request has no identity"))?;
    let peer = peer(request.extensions()).map(Peer::number);
    sessions.of(identity, cookie(request.metadata()), peer).map_err(|e| to_status(&e, ""))
}

/// Sets the cookie of the client's session.
pub(crate) fn tell(session: &ClientSession, metadata: &mut MetadataMap) {
    if let Ok(cookie) = format!("{COOKIE}={}; Path=/; HttpOnly", session.id).parse() {
        metadata.insert("set-cookie", cookie);
    }
}

/// Returns the session that the cookies name.
fn cookie(metadata: &MetadataMap) -> Option<&str> {
    let cookies = metadata.get_all("cookie").iter().filter_map(|c| c.to_str().ok());
    let mut pairs = cookies.flat_map(|c| c.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| name.trim() == COOKIE).map(|(_, id)| id.trim().trim_matches('"'))
}

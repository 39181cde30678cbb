//! `windrow serve`: the engine behind a Flight SQL port.

use std::net::SocketAddr;
use std::sync::Arc;

use clap::Args;
use windrow_core::{Error, Result};
use windrow_flight::{Server, ServerConfig};
use windrow_runtime::Engine;

use crate::failure::Failure;
use crate::interrupt::Interrupts;

/// How to serve.
#[derive(Debug, Clone, Args)]
pub(crate) struct Serving {
    /// Where Flight SQL listens; port 0 is any free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:50051")]
    flight: SocketAddr,
}

/// Serves until SIGTERM or Ctrl-C.
///
/// # Errors
/// When a port cannot be bound.
pub(crate) fn run(
    engine: &Engine,
    serving: &Serving,
    interrupts: &Arc<Interrupts>,
) -> Result<(), Failure> {
    let threads = tokio::runtime::Builder::new_multi_thread()
        .thread_name("flight")
        .enable_all()
        .build()
        .map_err(|e| Error::internal(format!("cannot start threads: {e}")).with_source(e))?;
    threads.block_on(async {
        let server = Server::bind(engine.clone(), ServerConfig::new(serving.flight)).await?;
        ready(&server)?;
        let interrupts = Arc::clone(interrupts);
        server.run(async move { drop(interrupts.cancelled().await) }).await
    })?;
    Ok(())
}

/// The one line that says that clients can come.
#[expect(clippy::print_stdout, reason = "scripts wait for this line")]
fn ready(server: &Server) -> Result<()> {
    println!("windrow: ready, Flight SQL on grpc://{}", server.address()?);
    Ok(())
}

//! Bodies of requests: read within limits of bytes and time, and decompressed.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::StatusCode;
use axum::http::header::CONTENT_ENCODING;
use axum::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use windrow_core::{Clock, Error, ErrorKind};

/// The time that a client may take to send a body.
const BODY_TIME_MAX: Duration = Duration::from_secs(60);
/// Bodies of the longest kind that may be in memory together; more wait.
const LONGEST_MAX: usize = 4;

/// The limits that bodies share.
#[derive(Debug)]
pub(crate) struct Bodies {
    bytes_max: usize,
    /// KiB that bodies may still take.
    free: Arc<Semaphore>,
    clock: Arc<dyn Clock>,
}

/// A body in memory; its bytes are counted while it exists.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

/// Why a body cannot be taken.
#[derive(Debug)]
pub(crate) struct Unread(pub(crate) StatusCode, pub(crate) Error);

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Gzip,
    Zstd,
}

impl Bodies {
    /// Allows bodies of up to `bytes_max` bytes, compressed or not.
    pub(crate) fn new(bytes_max: usize, clock: Arc<dyn Clock>) -> Self {
        let all = kibibytes(bytes_max).saturating_mul(LONGEST_MAX).min(Semaphore::MAX_PERMITS);
        Self { bytes_max, free: Arc::new(Semaphore::new(all)), clock }
    }

    /// Reads a body.
    ///
    /// # Errors
    /// When it is too long, does not arrive in time, or cannot be decompressed.
    pub(crate) async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Counted, Unread> {
        let compression = Compression::of(headers)?;
        let announced = body.size_hint().upper().map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        if announced.is_some_and(|n| n > self.bytes_max) {
            return Err(self.too_long());
        }
        // How much a compressed body will be is known afterwards.
        let most = announced.filter(|_| compression.is_none()).unwrap_or(self.bytes_max);
        let kibibytes = u32::try_from(kibibytes(most)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.free).acquire_many_owned(kibibytes).await;
        let permit = permit.map_err(|e| {
            let error = Error::internal("the limit of bodies is closed").with_source(e);
            Unread(StatusCode::INTERNAL_SERVER_ERROR, error)
        })?;
        let bytes = tokio::select! {
            read = self.collect(body) => read?,
            () = self.clock.sleep(BODY_TIME_MAX) => {
                let message = format!("the body did not arrive within {} s", BODY_TIME_MAX.as_secs());
                let error = Error::new(ErrorKind::Unavailable, message);
                return Err(Unread(StatusCode::REQUEST_TIMEOUT, error));
            }
        };
        let bytes = match compression {
            None => bytes,
            Some(compression) => self.decompress(compression, bytes).await?,
        };
        Ok(Counted { bytes, _permit: permit })
    }

    async fn collect(&self, body: Body) -> Result<Bytes, Unread> {
        let mut pieces = body.into_data_stream();
        let mut whole: Vec<u8> = vec![];
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|e| {
                let error = Error::data(format!("the body was cut off: {e}")).with_source(e);
                Unread(StatusCode::BAD_REQUEST, error)
            })?;
            if whole.len() + piece.len() > self.bytes_max {
                return Err(self.too_long());
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.into())
    }

    async fn decompress(&self, compression: Compression, bytes: Bytes) -> Result<Bytes, Unread> {
        let max = self.bytes_max;
        let work = move || {
            let mut whole = vec![];
            let limit = (max as u64).saturating_add(1);
            match compression {
                Compression::Gzip => flate2::read::MultiGzDecoder::new(&bytes[..])
                    .take(limit)
                    .read_to_end(&mut whole),
                Compression::Zstd => zstd::stream::read::Decoder::new(&bytes[..])
                    .and_then(|decoder| decoder.take(limit).read_to_end(&mut whole)),
            }
            .map(|_| whole)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(whole)) if whole.len() > self.bytes_max => Err(self.too_long()),
            Ok(Ok(whole)) => Ok(whole.into()),
            Ok(Err(e)) => {
                let error =
                    Error::data(format!("the body cannot be decompressed: {e}")).with_source(e);
                Err(Unread(StatusCode::BAD_REQUEST, error))
            }
            Err(e) => {
                let error = Error::internal("decompression ended early").with_source(e);
                Err(Unread(StatusCode::INTERNAL_SERVER_ERROR, error))
            }
        }
    }

    fn too_long(&self) -> Unread {
        let message = format!("the body is longer than {} bytes", self.bytes_max);
        let hint = "Send fewer records in a request, or raise --max-message.";
        let error = Error::new(ErrorKind::Limit, message).with_hint(hint);
        Unread(StatusCode::PAYLOAD_TOO_LARGE, error)
    }
}

impl Compression {
    /// `None`: the body is not compressed.
    fn of(headers: &HeaderMap) -> Result<Option<Self>, Unread> {
        let named = headers.get(CONTENT_ENCODING).map(HeaderValue::to_str);
        let named = match named {
            None => return Ok(None),
            Some(Ok(named)) => named.trim(),
            Some(Err(_)) => "…",
        };
        for (name, compression) in
            [("identity", None), ("gzip", Some(Self::Gzip)), ("zstd", Some(Self::Zstd))]
        {
            if named.eq_ignore_ascii_case(name) {
                return Ok(compression);
            }
        }
        let error = Error::config(format!("content-encoding \"{named}\" is not supported"))
            .with_hint("Known: gzip, zstd, identity.");
        Err(Unread(StatusCode::UNSUPPORTED_MEDIA_TYPE, error))
    }
}

/// Rounded up.
fn kibibytes(bytes: usize) -> usize {
    bytes.div_ceil(1024)
}

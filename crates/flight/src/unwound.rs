//! The layer around every call: a panic in the service, or in what it streams, becomes an error of that call. Without
//! it a client would see a broken connection, and take the rows received so far for the full result.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};
use windrow_core::Error;

use crate::status::to_status;

/// Wraps a service in [`Caught`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct CatchLayer;

impl<S> Layer<S> for CatchLayer {
    type Service = Caught<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Caught { inner }
    }
}

/// A service whose panics become errors of its calls.
#[derive(Debug, Clone)]
pub(crate) struct Caught<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for Caught<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        Box::pin(async move {
            match answer.await {
                Ok(answer) => Ok(answer?.map(|inner| Body::new(CaughtBody { inner, over: false }))),
                Err(panic) => Ok(panicked(&*panic).into_http()),
            }
        })
    }
}

/// A body whose panic becomes its final status.
struct CaughtBody {
    inner: Body,
    /// It has panicked: it is not polled again.
    over: bool,
}

impl HttpBody for CaughtBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let inner = &mut self.inner;
        match catch_unwind(AssertUnwindSafe(|| Pin::new(inner).poll_frame(context))) {
            Ok(frame) => frame,
            Err(panic) => {
                self.over = true;
                let status = panicked(&*panic);
                let mut trailers = HeaderMap::new();
                Poll::Ready(Some(match status.add_header(&mut trailers) {
                    Ok(()) => Ok(Frame::trailers(trailers)),
                    Err(status) => Err(status),
                }))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Status {
    let error = Error::panicked("the call", panic);
    tracing::error!("{error}");
    to_status(&error, "")
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tonic::Code;

    use super::*;
    use crate::status::from_status;

    /// One frame, and a panic.
    struct OneFrame(bool);

    impl HttpBody for OneFrame {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            assert!(!std::mem::replace(&mut self.0, true), "on purpose");
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"rows")))))
        }
    }

    async fn next(body: &mut Body) -> Option<Frame<Bytes>> {
        let next = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
        next.transpose().unwrap()
    }

    async fn answer(make: impl Fn() -> Body + Clone + Send + 'static) -> Response<Body> {
        let inner = tower::service_fn(move |_| {
            let make = make.clone();
            async move { Ok::<_, Infallible>(Response::new(make())) }
        });
        CatchLayer.layer(inner).call(Request::new(Body::empty())).await.unwrap()
    }

    fn is_told(status: &Status) {
        assert_eq!(status.code(), Code::Internal);
        let error = from_status(status);
        assert_eq!(error.message(), "the call stopped at a panic: on purpose");
    }

    #[tokio::test]
    async fn a_call_that_panics_is_answered() {
        let response = answer(|| panic!("on purpose")).await;
        is_told(&Status::from_header_map(response.headers()).unwrap());
    }

    #[tokio::test]
    async fn a_stream_that_panics_ends_with_an_error() {
        let mut body = answer(|| Body::new(OneFrame(false))).await.into_body();
        assert_eq!(next(&mut body).await.unwrap().data_ref().unwrap(), "rows");
        let last = next(&mut body).await.unwrap();
        is_told(&Status::from_header_map(last.trailers_ref().unwrap()).unwrap());
        assert!(next(&mut body).await.is_none());
    }
}

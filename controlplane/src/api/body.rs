//! The body of an answer while it is on its way: counted when it ends, ended when its reader loses the right to it, and
//! never broken off without a status.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tonic::{Code, Status, body::Body};

use super::metrics::Metrics;
use crate::error::ApiError;

/// Counts one call, at the latest when it is dropped.
pub(crate) struct Tally {
    metrics: Arc<Metrics>,
    method: &'static str,
    counted: bool,
}

impl Tally {
    pub(crate) fn new(metrics: Arc<Metrics>, method: &'static str) -> Self {
        Self {
            metrics,
            method,
            counted: false,
        }
    }

    fn count(&mut self, code: Code) {
        if !std::mem::replace(&mut self.counted, true) {
            self.metrics.call(self.method, code);
        }
    }

    /// Counts the status in headers or trailers, if there is one.
    fn count_status(&mut self, headers: &HeaderMap) {
        if let Some(code) = headers.get(Status::GRPC_STATUS) {
            self.count(Code::from_bytes(code.as_bytes()));
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.count(Code::Cancelled);
    }
}

/// Ends an answer early, with the reason.
pub(crate) type Guard = BoxFuture<'static, ApiError>;

/// See the module.
pub(crate) struct CallBody {
    inner: Body,
    guard: Option<Guard>,
    /// What a connection that breaks under the answer is told as.
    broken: fn() -> ApiError,
    tally: Tally,
    ended: bool,
}

impl CallBody {
    /// Wraps the answer of a call.
    pub(crate) fn wrap(
        response: http::Response<Body>,
        guard: Option<Guard>,
        broken: fn() -> ApiError,
        mut tally: Tally,
    ) -> http::Response<Self> {
        tally.count_status(response.headers());
        response.map(|inner| Self {
            inner,
            guard,
            broken,
            tally,
            ended: false,
        })
    }

    fn end(&mut self, error: ApiError) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.ended = true;
        let status = Status::from(error);
        self.tally.count(status.code());
        Poll::Ready(Some(Ok(Frame::trailers(trailers(status)))))
    }
}

/// A status as trailers.
fn trailers(status: Status) -> HeaderMap {
    let mut headers = status.into_http::<()>().into_parts().0.headers;
    headers.remove(http::header::CONTENT_TYPE);
    headers
}

impl http_body::Body for CallBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        if let Some(guard) = &mut this.guard
            && let Poll::Ready(error) = guard.as_mut().poll(cx)
        {
            this.guard = None;
            return this.end(error);
        }
        let inner = Pin::new(&mut this.inner);
        let Ok(polled) = catch_unwind(AssertUnwindSafe(|| inner.poll_frame(cx))) else {
            return this.end(super::panicked());
        };
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    this.tally.count_status(trailers);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            // Only an answer from another node can break off: our own services end theirs with a status.
            Poll::Ready(Some(Err(e))) => {
                let error = (this.broken)().why(e.message());
                this.end(error)
            }
            Poll::Ready(None) => {
                this.ended = true;
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.guard.is_some() {
            SizeHint::default()
        } else {
            self.inner.size_hint()
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    struct Panics;

    impl http_body::Body for Panics {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            panic!("a test asked for it")
        }
    }

    #[tokio::test]
    async fn an_answer_that_panics_or_breaks_ends_with_a_status() {
        let metrics = Arc::new(Metrics::new("n1", "prod"));
        let broken_off = http_body_util::StreamBody::new(tokio_stream::once(Err(Status::internal("reset"))));
        for (body, code) in [(Body::new(Panics), "13"), (Body::new(broken_off), "14")] {
            let tally = Tally::new(metrics.clone(), "/x");
            let response = CallBody::wrap(
                http::Response::new(body),
                None,
                super::super::proxy::broken(true),
                tally,
            );
            let whole = response.into_body().collect().await.unwrap();
            assert_eq!(whole.trailers().unwrap().get("grpc-status").unwrap(), code);
        }
    }
}

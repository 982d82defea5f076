//! A response body with what is to be dropped when the body has been sent, or will not be.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::{BoxError, ResponseBody};

/// A body that holds something.
pub(in crate::gateway) struct Held<T> {
    pub(in crate::gateway) body: ResponseBody,
    pub(in crate::gateway) _until_sent: T,
}

impl<T: Unpin> Body for Held<T> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

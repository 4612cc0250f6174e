//! Exchange of one request and the head of its response on one connection.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, ready};

use http::{Method, Request, Version};
use tokio::time::Instant;

use super::http2::Http2;
use super::pool::{self, Http1, Lease, UpstreamConnection};
use super::{Answered, Upload, Upstream, UpstreamRequest};
use crate::budget::Slot;
use crate::forward::failure::{SendFailure, is_unprocessed, refusal};
use crate::forward::timeout::ReusableTimer;
use crate::forward::upload_state::UploadProgress;
use crate::refusal::Refusal;

impl Upstream {
    /// Sends a request on `connection` and waits for the head of its response.
    pub(super) async fn exchange(
        &self,
        connection: UpstreamConnection,
        ask: &UpstreamRequest<'_, '_>,
        body: Upload,
        slot: &mut Slot,
        now: Instant,
    ) -> Result<Answered, SendFailure> {
        let progress = body.progress();
        let repeatable = body.is_empty() && matches!(ask.head.method, Method::GET | Method::HEAD);
        match connection {
            UpstreamConnection::Http1(mut http1) => {
                let before = http1.received();
                let request = self.request(ask, body, Version::HTTP_11)?;
                ask.note_sending(slot, true);
                let Http1 { sender, timer, .. } = &mut http1;
                let answer = pin!(sender.try_send_request(request));
                match self.with_timeout(answer, timer, now, &progress).await? {
                    // Upstream may never read the rest of the request body, so the connection is not used again.
                    Ok(response) => Ok((response, progress.is_over().then_some(Lease::Http1(http1)))),
                    Err(mut fault) => {
                        let unsent = fault.take_message().map(Request::into_body);
                        let is_unsent = unsent.is_some();
                        let silent = http1.received() == before;
                        if is_unsent {
                            ask.note_sending(slot, false);
                        } else if silent {
                            // The cause, such as a restart of upstream, may have ended the other idle connections too.
                            pool::close_idle(http1.upstream);
                        }
                        let again = unsent.or_else(|| (repeatable && silent).then(Upload::empty));
                        Err(SendFailure { refusal: refusal(fault.error(), &progress, !is_unsent), again })
                    }
                }
            }
            UpstreamConnection::Http2(Http2 { mut sender, stream, .. }) => {
                let spare = body.try_clone();
                let mut body = body;
                let lease = if body.is_empty() {
                    Lease::Stream(stream)
                } else {
                    let stream = Arc::new(stream);
                    body.hold(stream.clone());
                    Lease::Half(stream)
                };
                let request = self.request(ask, body, Version::HTTP_2)?;
                ask.note_sending(slot, true);
                let answer = pin!(sender.try_send_request(request));
                match self.with_timeout(answer, &mut ReusableTimer::default(), now, &progress).await? {
                    Ok(response) => Ok((response, Some(lease))),
                    Err(mut fault) => {
                        let unsent = fault.take_message().map(Request::into_body);
                        let is_unprocessed = unsent.is_some() || is_unprocessed(fault.error());
                        if is_unprocessed {
                            ask.note_sending(slot, false);
                        }
                        let again = unsent.or(spare.filter(|_| is_unprocessed || repeatable));
                        Err(SendFailure { refusal: refusal(fault.error(), &progress, !is_unprocessed), again })
                    }
                }
            }
        }
    }

    /// Waits for the head of a response: `[limits] upstream_headers` from `now`, and from the end of the request body. A body
    /// that is too slow fails by a deadline of its own.
    async fn with_timeout<T>(
        &self,
        mut answer: Pin<&mut impl Future<Output = T>>,
        timer: &mut ReusableTimer,
        now: Instant,
        body: &UploadProgress,
    ) -> Result<T, Refusal> {
        let mut deadline = now + self.headers_timeout;
        poll_fn(|cx| {
            if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                return Poll::Ready(Ok(answer));
            }
            loop {
                ready!(timer.poll_passed(deadline, cx));
                let later = body.deadline().map_or(deadline, |end| end + self.headers_timeout);
                if later <= deadline {
                    return Poll::Ready(Err(Refusal::UpstreamTimeout));
                }
                deadline = later;
            }
        })
        .await
    }
}

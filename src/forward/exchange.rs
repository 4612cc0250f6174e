//! One request and the head of its response, on one connection.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, ready};

use http::{Method, Request, Version};
use tokio::time::Instant;

use super::http2::Http2;
use super::pool::{self, Connection, Http1, Lease};
use super::{Answered, Ask, Upload, Upstream};
use crate::budget::Slot;
use crate::forward::failure::{Lost, refusal, was_left_alone};
use crate::forward::timeout::Alarm;
use crate::forward::upload_state::Progress;
use crate::refusal::Refusal;

impl Upstream {
    /// Sends a request on `connection` and waits for the head of its response.
    pub(super) async fn exchange(
        &self,
        connection: Connection,
        ask: &Ask<'_, '_>,
        body: Upload,
        slot: &mut Slot,
        now: Instant,
    ) -> Result<Answered, Lost> {
        let progress = body.progress();
        let repeatable = body.is_empty() && matches!(ask.head.method, Method::GET | Method::HEAD);
        match connection {
            Connection::Http1(mut http1) => {
                let before = http1.received();
                let request = self.request(ask, body, Version::HTTP_11)?;
                ask.note_sending(slot, true);
                let Http1 { sender, alarm, .. } = &mut http1;
                let answer = pin!(sender.try_send_request(request));
                match self.in_time(answer, alarm, now, &progress).await? {
                    // Upstream may never read the rest of a body that it has answered: no other request follows on there.
                    Ok(response) => Ok((response, progress.is_over().then_some(Lease::Http1(http1)))),
                    Err(mut fault) => {
                        let unsent = fault.take_message().map(Request::into_body);
                        let is_unsent = unsent.is_some();
                        let silent = http1.received() == before;
                        if is_unsent {
                            ask.note_sending(slot, false);
                        } else if silent {
                            // Whatever ended this connection without a byte, such as a restart, may have ended the others.
                            pool::close_idle(http1.upstream);
                        }
                        let again = unsent.or_else(|| (repeatable && silent).then(Upload::empty));
                        Err(Lost { refusal: refusal(fault.error(), &progress, !is_unsent), again })
                    }
                }
            }
            Connection::Http2(Http2 { mut sender, stream, .. }) => {
                let spare = body.again();
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
                match self.in_time(answer, &mut Alarm::default(), now, &progress).await? {
                    Ok(response) => Ok((response, Some(lease))),
                    Err(mut fault) => {
                        let unsent = fault.take_message().map(Request::into_body);
                        let left_alone = unsent.is_some() || was_left_alone(fault.error());
                        if left_alone {
                            ask.note_sending(slot, false);
                        }
                        let again = unsent.or(spare.filter(|_| left_alone || repeatable));
                        Err(Lost { refusal: refusal(fault.error(), &progress, !left_alone), again })
                    }
                }
            }
        }
    }

    /// Waits for the head of an answer, `[limits] upstream_headers` from `now`, and from the end of the request's body. A
    /// body that is too slow fails by a deadline of its own.
    async fn in_time<T>(
        &self,
        mut answer: Pin<&mut impl Future<Output = T>>,
        alarm: &mut Alarm,
        now: Instant,
        body: &Progress,
    ) -> Result<T, Refusal> {
        let mut deadline = now + self.headers_within;
        poll_fn(|cx| {
            if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                return Poll::Ready(Ok(answer));
            }
            loop {
                ready!(alarm.poll_passed(deadline, cx));
                let later = body.ends_by().map_or(deadline, |end| end + self.headers_within);
                if later <= deadline {
                    return Poll::Ready(Err(Refusal::UpstreamTimeout));
                }
                deadline = later;
            }
        })
        .await
    }
}

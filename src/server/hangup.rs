//! Tells a client that has left from one that only has nothing more to send.
//!
//! The end of the client's sending side (a FIN) is no disconnect: the client may still wait for its response (RFC 9112
//! §9.6). A reset is one. After a FIN the socket is readable for ever, so a reset is seen only by an event of its own.

use std::io::{ErrorKind, Result};
use std::os::fd::AsFd;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::{TcpStream, UnixStream};

/// Completes when neither side of a connection can send any more.
pub(super) type Reset = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A byte stream from a client.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Waits until the client has reset the connection. A TCP client that closes its socket with nothing unread sends only a
    /// FIN, which says no more than a half-close; the closing of a Unix-domain socket is seen.
    ///
    /// # Errors
    /// There are no more file descriptors.
    fn wait_for_reset(&self) -> Result<Reset>;
}

macro_rules! impl_stream {
    ($socket:ty) => {
        impl Stream for $socket {
            fn wait_for_reset(&self) -> Result<Reset> {
                // A copy of the descriptor has readiness of its own, and does not borrow the stream.
                let copy = Self::from_std(self.as_fd().try_clone_to_owned()?.into())?;
                Ok(Box::pin(async move {
                    while copy.ready(Interest::WRITABLE).await.is_ok_and(|ready| !ready.is_write_closed()) {
                        // Clears the readiness, so that the next event is waited for.
                        let _ = copy.try_io(Interest::WRITABLE, || Err::<(), _>(ErrorKind::WouldBlock.into()));
                    }
                }))
            }
        }
    };
}

impl_stream!(TcpStream);
impl_stream!(UnixStream);

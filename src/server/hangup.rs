//! Detection of clients that have left, as opposed to clients that have only finished sending.
//!
//! The end of the client's sending side (a FIN) is no disconnect: the client may still wait for its response (RFC 9112
//! §9.6). A reset is one. After a FIN the socket is readable for ever, so a reset is seen only by an event of its own.

use std::io::{ErrorKind, Result};
use std::os::fd::AsFd;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::{TcpStream, UnixStream};

/// Future that completes when neither side of a connection can send any more.
pub(super) type Reset = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A byte stream from a client.
pub(super) trait ClientIo: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Waits until the client has reset the connection, or has closed its Unix-domain socket. A TCP client that closes its socket
    /// without unread input sends only a FIN, like a half-close.
    ///
    /// # Errors
    /// No file descriptor is available.
    fn wait_for_reset(&self) -> Result<Reset>;
}

macro_rules! impl_stream {
    ($socket:ty) => {
        impl ClientIo for $socket {
            fn wait_for_reset(&self) -> Result<Reset> {
                // A duplicate of the descriptor has its own readiness and does not borrow the stream.
                let copy = Self::from_std(self.as_fd().try_clone_to_owned()?.into())?;
                Ok(Box::pin(async move {
                    while copy.ready(Interest::WRITABLE).await.is_ok_and(|ready| !ready.is_write_closed()) {
                        // Clears the readiness, so that the next call waits for an event.
                        let _ = copy.try_io(Interest::WRITABLE, || Err::<(), _>(ErrorKind::WouldBlock.into()));
                    }
                }))
            }
        }
    };
}

impl_stream!(TcpStream);
impl_stream!(UnixStream);

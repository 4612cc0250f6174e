//! Bound addresses, with one socket per worker, so that the kernel distributes connections over the workers.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::listen::Address;

/// Maximum connections that wait to be accepted, 4096.
const BACKLOG: i32 = 4096;

/// A bound listening socket.
#[derive(Debug)]
pub enum BoundSocket {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A Unix-domain socket.
    Unix(std::os::unix::net::UnixListener),
}

/// A bound address with one socket per worker.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<BoundSocket>,
    address: Address,
}

impl Listener {
    /// Binds `address`, the value of the configuration key `key`, with one socket for each of `workers`.
    ///
    /// # Errors
    /// Reason why the address cannot be bound, and the remedy.
    pub fn bind(key: &str, address: &Address, workers: usize) -> Result<Self, String> {
        let failed = |fault: std::io::Error| {
            let hint = match (fault.kind(), address) {
                (ErrorKind::AddrInUse, Address::Tcp(_)) => format!("; another program uses it: change {key}"),
                (ErrorKind::AddrInUse, Address::Unix(_)) => {
                    format!("; another program uses it, or it is not a socket: change {key} or remove the file")
                }
                (ErrorKind::PermissionDenied, _) => {
                    format!("; ports below 1024 and other users' folders need permission: change {key}")
                }
                _ => format!("; check {key}"),
            };
            format!("cannot listen on {address}: {fault}{hint}")
        };
        match address {
            Address::Tcp(wanted) => {
                // Without this check, a second gateway on the same port would silently receive a share of the connections.
                drop(bind_socket(*wanted, false).map_err(failed)?);
                let first = listen_tcp(*wanted).map_err(failed)?;
                let bound = first.local_addr().map_err(failed)?;
                let mut sockets = vec![BoundSocket::Tcp(first)];
                for _ in 1..workers {
                    sockets.push(BoundSocket::Tcp(listen_tcp(bound).map_err(failed)?));
                }
                Ok(Self { sockets, address: Address::Tcp(bound) })
            }
            Address::Unix(path) => {
                let first = listen_unix(path).map_err(failed)?;
                let mut sockets = Vec::new();
                for _ in 1..workers {
                    sockets.push(BoundSocket::Unix(first.try_clone().map_err(failed)?));
                }
                sockets.push(BoundSocket::Unix(first));
                Ok(Self { sockets, address: address.clone() })
            }
        }
    }

    /// Returns the address as text.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Returns the sockets, one for each worker.
    pub fn into_sockets(self) -> Vec<BoundSocket> {
        self.sockets
    }
}

/// Listens on a TCP port that the workers share.
fn listen_tcp(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = bind_socket(address, true)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn bind_socket(address: SocketAddr, shared: bool) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Listens on a Unix-domain socket. Removes a socket file that an earlier process left behind.
fn listen_unix(path: &PathBuf) -> std::io::Result<std::os::unix::net::UnixListener> {
    if is_stale(path) {
        std::fs::remove_file(path)?;
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn is_stale(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    is_socket && std::os::unix::net::UnixStream::connect(path).is_err()
}

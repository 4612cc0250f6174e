//! Binds addresses: one socket per worker, so that the kernel spreads connections over them.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::listen::Address;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// A bound listening socket.
#[derive(Debug)]
pub enum Bound {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A Unix-domain socket.
    Unix(std::os::unix::net::UnixListener),
}

/// An address with its sockets, one for each worker.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<Bound>,
    address: Address,
}

impl Listener {
    /// Binds `address`, which the configuration has under `key`, for so many workers.
    ///
    /// # Errors
    /// Why it cannot be bound, and what to do.
    pub fn bind(key: &str, address: &Address, workers: usize) -> Result<Self, String> {
        let failed = |fault: std::io::Error| {
            let hint = match (fault.kind(), address) {
                (ErrorKind::AddrInUse, Address::Tcp(_)) => format!("; another program listens there, change {key}"),
                (ErrorKind::AddrInUse, Address::Unix(_)) => {
                    format!("; it is another program's, or no socket: change {key} or remove it")
                }
                (ErrorKind::PermissionDenied, _) => {
                    format!("; ports below 1024 and foreign folders need permission, change {key}")
                }
                _ => format!("; see {key}"),
            };
            format!("cannot listen on {address}: {fault}{hint}")
        };
        match address {
            Address::Tcp(wanted) => {
                // A second gateway on the same port would silently get a share of the connections: the port has to be
                // free before the workers share it.
                drop(bound(*wanted, false).map_err(failed)?);
                let first = tcp(*wanted).map_err(failed)?;
                let bound = first.local_addr().map_err(failed)?;
                let mut sockets = vec![Bound::Tcp(first)];
                for _ in 1..workers {
                    sockets.push(Bound::Tcp(tcp(bound).map_err(failed)?));
                }
                Ok(Self { sockets, address: Address::Tcp(bound) })
            }
            Address::Unix(path) => {
                let first = unix(path).map_err(failed)?;
                let mut sockets = Vec::new();
                for _ in 1..workers {
                    sockets.push(Bound::Unix(first.try_clone().map_err(failed)?));
                }
                sockets.push(Bound::Unix(first));
                Ok(Self { sockets, address: address.clone() })
            }
        }
    }

    /// Where it listens, as a person would write it.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The sockets, one for each worker.
    pub fn into_sockets(self) -> Vec<Bound> {
        self.sockets
    }
}

/// A socket that may share its port with those of the other workers.
fn tcp(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = bound(address, true)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn bound(address: SocketAddr, shared: bool) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Binds a Unix-domain socket, in the place of one that a former process left behind.
fn unix(path: &PathBuf) -> std::io::Result<std::os::unix::net::UnixListener> {
    if is_abandoned(path) {
        std::fs::remove_file(path)?;
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn is_abandoned(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    is_socket && std::os::unix::net::UnixStream::connect(path).is_err()
}

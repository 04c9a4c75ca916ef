//! A socket that systemd opened and hands over: it goes on listening while this process is replaced by another.

use std::net::TcpListener;

use listenfd::ListenFd;

/// Why what was handed over is no use.
#[derive(Debug, thiserror::Error)]
#[error(
    "systemd handed over {0}; the gateway takes one listening TCP socket: leave one ListenStream= in waystation.socket"
)]
pub struct UnusableSocket(String);

/// The socket that was handed over, if one was.
pub fn passed() -> Result<Option<TcpListener>, UnusableSocket> {
    let mut sockets = ListenFd::from_env();
    match sockets.len() {
        0 => Ok(None),
        1 => {
            let socket = sockets
                .take_tcp_listener(0)
                .map_err(|error| UnusableSocket(format!("something else ({error})")))?;
            if let Some(socket) = &socket {
                socket
                    .set_nonblocking(true)
                    .map_err(|error| UnusableSocket(format!("a socket that cannot be used ({error})")))?;
            }
            Ok(socket)
        }
        many => Err(UnusableSocket(format!("{many} sockets"))),
    }
}

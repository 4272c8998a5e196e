//! Sends the data set to replicas without a file: a child writes the data set to a pipe or to
//! sockets while the parent serves clients.
//!
//! ```text
//!   through_pipe   child ─> pipe ─> parent ─> sockets of the replicas    the parent paces: the slowest one decides
//!   to_sockets     child ─> sockets                                      a replica's second connection
//! ```
//!
//! By the pipe or by its socket, a replica gets `$EOF:<mark>`, the RDB and the mark
//! (`save::write_stream`).
//!
//! A replica's socket that accepts no bytes for a time, or is closed, is given up; all other
//! sockets get the rest of the data set. [`child::Outcome::failed_sockets`] names the sockets that
//! were given up.

use std::io::{self, PipeReader, Write};
use std::os::fd::RawFd;
use std::time::Duration;

use ae::Io;

use super::save::{EofMark, SaveOptions, write_stream};
use crate::connection::Connection;
use crate::persist::child::{self, ChildKind, Job, Meter, Pipe, Target};
use crate::state::Server;
use crate::sys;

/// The maximum number of replicas' sockets to which one child sends, since the results of the
/// sockets are the bits of one number.
pub const SOCKETS_MAX: usize = 64;

/// The capacity in bytes of the pipe from the child. The child sleeps when the pipe is full, the
/// parent when the pipe is empty; on a busy machine each switch between child and parent takes much
/// longer than the transfer of the bytes.
pub const PIPE_BYTES: usize = 256 * 1024;

/// Forks a child that sends the data set through a pipe. The pipe is non-blocking and ends with the
/// child; after the child's end, bytes that remain in the pipe must still be read. If the caller
/// drops the pipe, the child ends.
///
/// The callers of this function and of [`to_sockets`] have checked that there is no other child.
/// [`child::ReplicationHooks`] reports the child's result.
pub fn through_pipe(server: &mut Server, options: &SaveOptions) -> io::Result<PipeReader> {
    let (from_child, mut to_parent) = io::pipe()?;
    sys::set_nonblocking(&from_child)?;
    sys::grow_pipe(&from_child, PIPE_BYTES);
    let mark = eof_mark(server);
    let mut from_child = Some(from_child);
    start(server, &[], |server, meter, _| {
        // The child closes its copy of the pipe's reading end: otherwise the child would not notice
        // that the parent has closed the reading end.
        drop(from_child.take());
        write_stream(server, &mut to_parent, &mark, options, meter)
    })?;
    from_child.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
}

/// Forks a child that sends the data set to the connections of replicas, at most [`SOCKETS_MAX`].
/// The parent drops the connections in `sockets` after the fork, so that only the child writes to
/// them. A connection that accepts no bytes for `timeout` is given up.
pub fn to_sockets(
    server: &mut Server,
    sockets: Vec<Connection>,
    timeout: Duration,
    options: &SaveOptions,
) -> io::Result<()> {
    if sockets.len() > SOCKETS_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mark = eof_mark(server);
    let keep: Vec<RawFd> = sockets.iter().map(Connection::raw_fd).collect();
    start(server, &keep, |server, meter, pipe| {
        let mut to = Sockets::new(sockets, timeout, |at| pipe.socket_failed(at));
        write_stream(server, &mut to, &mark, options, meter)
    })
}

fn start(
    server: &mut Server,
    keep: &[RawFd],
    send: impl FnOnce(&Server, Meter, &Pipe) -> io::Result<()>,
) -> io::Result<()> {
    let job = Job {
        kind: ChildKind::Rdb,
        target: Target::Replicas,
        keep,
    };
    let started = child::start(server, job, |server, pipe| {
        let meter = Meter {
            pipe: Some(pipe),
            pause_us: server.config.rdb_key_save_delay,
        };
        send(server, meter, pipe).map_err(|e| {
            let text = sys::error_text(&e);
            log::warn!("Error sending the data set to replicas: {text}");
            1
        })
    });
    match started {
        Ok(pid) => {
            log::info!("Background RDB transfer started by pid {pid}");
            Ok(())
        }
        Err(e) => {
            log::warn!("Can't save in background: fork: {}", sys::error_text(&e));
            Err(e)
        }
    }
}

fn eof_mark(server: &mut Server) -> EofMark {
    let mut mark = [0; 40];
    let digits = server.rng.hex(mark.len());
    mark.copy_from_slice(digits.as_bytes());
    mark
}

/// A writer to the connections of several replicas. All connections get the same bytes; a write
/// fails when no connection is left.
struct Sockets<F> {
    /// The connections to the replicas; `None` stands for a connection that was given up.
    all: Vec<Option<Connection>>,
    /// The time for which a socket may accept no bytes before it is given up.
    timeout: Duration,
    failed: F,
}

impl<F: Fn(usize)> Sockets<F> {
    fn new(sockets: Vec<Connection>, timeout: Duration, failed: F) -> Sockets<F> {
        Sockets {
            all: sockets.into_iter().map(Some).collect(),
            timeout,
            failed,
        }
    }
}

impl<F: Fn(usize)> Write for Sockets<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for (at, place) in self.all.iter_mut().enumerate() {
            let Some(socket) = place else {
                continue;
            };
            if let Err(e) = write_within(socket, bytes, self.timeout) {
                log::warn!(
                    "A replica takes no more of the data set: {}",
                    sys::error_text(&e)
                );
                (self.failed)(at);
                *place = None;
            }
        }
        match self.all.iter().any(Option::is_some) {
            true => Ok(bytes.len()),
            false => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends all bytes through a connection. Fails if the socket accepts no bytes for `timeout`.
pub fn write_within(conn: &mut Connection, mut bytes: &[u8], timeout: Duration) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = conn.write(bytes)?;
        bytes = &bytes[sent.bytes..];
        if sent.io == Io::Drained && !bytes.is_empty() {
            wait_writable(conn, timeout)?;
        }
    }
    Ok(())
}

fn wait_writable(conn: &Connection, timeout: Duration) -> io::Result<()> {
    let fd = conn.as_fd().ok_or(io::ErrorKind::NotConnected)?;
    match sys::wait_writable(&fd, timeout) {
        Ok(true) => Ok(()),
        Ok(false) => Err(io::ErrorKind::TimedOut.into()),
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::db::Ttl;
    use crate::sys::fork::Exit;
    use crate::types::string::encode;
    use crate::types::{New, kind};
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    const KEYS: u32 = 5000;

    fn server() -> Server {
        let mut server = Server::new(Config::default(), Vec::new());
        for n in 0..KEYS {
            let key = format!("key:{n}");
            server.set_key(0, key.as_bytes(), kind::INT, New::Int(7), Ttl::Clear);
        }
        server
    }

    /// Waits until the child has ended. Returns its exit status and the sockets that failed.
    fn outcome(server: &mut Server) -> (Exit, u64) {
        use std::cell::Cell;
        thread_local!(static ENDED: Cell<Option<(Exit, u64)>> = const { Cell::new(None) });
        server.forks.replication = Some(child::ReplicationHooks {
            start: |_| false,
            ended: |_, outcome| {
                assert_eq!(outcome.target, Target::Replicas);
                ENDED.set(Some((outcome.exit, outcome.failed_sockets)));
            },
        });
        while server.child.is_some() {
            child::reap(server);
            std::thread::yield_now();
        }
        ENDED.take().expect("the hook was called")
    }

    /// Checks that the bytes sent to a replica are `$EOF:<mark>`, an RDB, and the mark.
    fn check_framing(bytes: &[u8]) {
        let rest = bytes.strip_prefix(b"$EOF:").expect("the announcement");
        let (mark, rest) = rest.split_at(40);
        assert!(mark.iter().all(u8::is_ascii_hexdigit));
        let rdb = rest.strip_prefix(b"\r\n").expect("a line");
        assert!(rdb.starts_with(b"REDIS0011"));
        assert!(rdb.ends_with(mark));
    }

    #[test]
    fn the_parent_reads_what_its_child_sends_through_a_pipe() {
        let mut server = server();
        let options = SaveOptions::of(&server);
        let mut pipe = through_pipe(&mut server, &options).expect("fork");
        let mut bytes = Vec::new();
        while let Err(e) = pipe.read_to_end(&mut bytes) {
            assert_eq!(e.kind(), io::ErrorKind::WouldBlock);
            std::thread::yield_now();
        }
        assert_eq!(outcome(&mut server), (Exit::Code(0), 0));
        check_framing(&bytes);
    }

    #[test]
    fn a_child_ends_when_its_parent_does_not_read() {
        let mut server = server();
        let bytes = vec![b'x'; 1 << 20];
        let (kind, value) = encode(&bytes, None);
        server.set_key(0, b"big", kind, value, Ttl::Clear);
        server.config.rdbcompression = false;
        let options = SaveOptions::of(&server);
        drop(through_pipe(&mut server, &options).expect("fork"));
        assert_eq!(outcome(&mut server), (Exit::Code(1), 0));
    }

    #[test]
    fn a_replica_that_leaves_does_not_end_the_transfer_to_the_others() {
        let mut server = server();
        let (mut stays, first) = UnixStream::pair().expect("sockets");
        let (leaves, second) = UnixStream::pair().expect("sockets");
        drop(leaves);
        for socket in [&first, &second] {
            socket.set_nonblocking(true).expect("a flag");
        }
        let sockets = vec![Connection::unix(first), Connection::unix(second)];
        let (timeout, options) = (Duration::from_secs(60), SaveOptions::of(&server));
        to_sockets(&mut server, sockets, timeout, &options).expect("fork");
        let mut bytes = Vec::new();
        stays
            .read_to_end(&mut bytes)
            .expect("until the child closes it");
        assert_eq!(outcome(&mut server), (Exit::Code(0), 0b10));
        check_framing(&bytes);
    }

    #[test]
    fn a_replica_that_reads_nothing_is_given_up() {
        let (_silent, socket) = UnixStream::pair().expect("sockets");
        socket.set_nonblocking(true).expect("a flag");
        let failed = std::cell::Cell::new(None);
        let timeout = Duration::from_millis(1);
        let mut sockets = Sockets::new(vec![Connection::unix(socket)], timeout, |at| {
            failed.set(Some(at))
        });
        let result = sockets.write_all(&vec![0; 16 << 20]);
        assert_eq!(result.map_err(|e| e.kind()), Err(io::ErrorKind::BrokenPipe));
        assert_eq!(failed.get(), Some(0));
    }
}

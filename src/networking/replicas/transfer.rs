//! Sends a snapshot from a file to one replica.
//!
//! ```text
//!   $<size>\r\n  <bytes of the file>                     then: Online
//!   file ─> a chunk in memory ─> socket; what the socket does not accept stays in the chunk
//! ```
//!
//! Each replica has its own file handle and chunk, so a slow replica delays no other one. A replica
//! is sent up to `BYTES_PER_TURN` bytes in one turn of the loop.

use std::io::Read;

use ae::Io;

use super::BYTES_PER_TURN;
use crate::client::Client;
use crate::client::table::Net;
use crate::replication::replicas::{State, Transfer};
use crate::state::Server;
use crate::sync::primary;
use crate::sys;

/// The number of bytes of the snapshot's file that are read at once.
const CHUNK: usize = 256 * 1024;

/// Sends as many bytes of the snapshot's file as the replica's socket accepts, up to
/// `BYTES_PER_TURN`. After the last byte of the file the replica is put online.
pub fn write_file(server: &mut Server, c: &mut Client) -> Io {
    let now_ms = server.clock.now_ms;
    let replica = server.replication.replicas.get_mut(c.reference());
    let (Some(replica), Some(conn)) = (replica, &mut c.conn) else {
        return Io::Drained;
    };
    let State::Receiving(transfer) = &mut replica.state else {
        return Io::Drained;
    };
    let mut total = 0;
    let done = loop {
        if let Err(reason) = transfer.fill() {
            log::warn!("Read error sending DB to replica: {reason}");
            break None;
        }
        if transfer.unsent.is_empty() {
            break Some(true);
        }
        if total >= BYTES_PER_TURN {
            break Some(false);
        }
        match conn.write(&transfer.unsent) {
            Ok(sent) => {
                if sent.bytes > 0 {
                    replica.wrote_ms = now_ms;
                }
                transfer.unsent.drain(..sent.bytes);
                total += sent.bytes;
                if sent.io == Io::Drained {
                    break Some(false);
                }
            }
            Err(e) => {
                log::debug!("Write error sending DB to replica: {}", sys::error_text(&e));
                break None;
            }
        }
    };
    c.net_out += total as u64;
    server.stats.net_output_bytes += total as u64;
    server.stats.net_repl_output_bytes += total as u64;
    let goes_on = match done {
        None => false,
        Some(true) => primary::put_online(server, c),
        Some(false) => true,
    };
    if !goes_on {
        Net::close_asap(&mut server.net.close_asap, c);
    }
    match total >= BYTES_PER_TURN {
        true => Io::More,
        false => Io::Drained,
    }
}

impl Transfer {
    /// Reads the next [`CHUNK`] bytes of the snapshot's file, if all earlier bytes have been sent.
    /// A file that became shorter is an error: its length has already been sent to the replica.
    fn fill(&mut self) -> Result<(), String> {
        let left = usize::try_from(self.size - self.read).unwrap_or(usize::MAX);
        if !self.unsent.is_empty() || left == 0 {
            return Ok(());
        }
        self.unsent.resize(left.min(CHUNK), 0);
        match self.file.read(&mut self.unsent) {
            Ok(0) => Err("premature EOF".into()),
            Ok(n) => {
                self.unsent.truncate(n);
                self.read += n as u64;
                Ok(())
            }
            Err(e) => Err(sys::error_text(&e)),
        }
    }
}

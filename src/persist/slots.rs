//! Sends the keys of slots to another node of the cluster: a child writes commands to the socket,
//! while the parent serves clients and collects the changes of these keys.
//!
//! The keys are sent as commands in the form of the AOF (`aof::values`), which every server of the
//! cluster reads. A target that gets no bytes for `repl-timeout` gives up. A slow child may take
//! longer to collect [`CHUNK_BYTES`], so it sends CLUSTER SYNCSLOTS ACK and what it has after each
//! half second.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::cluster::transfer::request::Word;
use crate::connection::Connection;
use crate::ds::bulk::push_command;
use crate::persist::aof::values::write_key;
use crate::persist::child::{self, ChildKind, Job, Meter, Target};
use crate::persist::rdb::transfer::write_within;
use crate::state::Server;
use crate::sys;
use crate::util::number::IntBuf;

/// The number of bytes of commands that the child collects before it sends them.
const CHUNK_BYTES: usize = 256 << 10;
/// The time after which the child sends what it has collected, and an ACK.
const SILENCE: Duration = Duration::from_millis(500);

/// Forks a child that sends the keys of `slots` to a socket, and then CLUSTER SYNCSLOTS
/// SNAPSHOT-EOF. The caller has checked that there is no other child. [`child::SlotHooks`] reports
/// the child's result.
pub fn start(server: &mut Server, socket: OwnedFd, slots: &[u16]) -> io::Result<i32> {
    let timeout = Duration::from_secs(server.config.repl_timeout.into());
    let keep = [socket.as_raw_fd()];
    let job = Job {
        kind: ChildKind::Slots,
        target: Target::Replicas,
        keep: &keep,
    };
    child::start(server, job, |server, pipe| {
        let meter = Meter {
            pipe: Some(pipe),
            pause_us: server.config.rdb_key_save_delay,
        };
        let mut to = Sender {
            socket: Connection::tcp(TcpStream::from(socket)),
            timeout,
            waiting: Vec::with_capacity(2 * CHUNK_BYTES),
            sent: Instant::now(),
        };
        send(server, slots, &mut to, meter).map_err(|e| {
            log::warn!("Error sending slots: {}", sys::error_text(&e));
            1
        })
    })
}

fn send(server: &Server, slots: &[u16], to: &mut Sender, meter: Meter) -> io::Result<()> {
    for db in server.data.dbs.iter().filter(|db| !db.is_empty()) {
        push_command(
            &mut to.waiting,
            &[b"SELECT", IntBuf::new().format(db.index)],
        );
        for slot in slots {
            for entry in db.keys.slot_keys(*slot) {
                write_key(&mut to.waiting, entry);
                meter.key_done();
                to.send_if_due(meter)?;
            }
        }
    }
    to.word(Word::SnapshotEof);
    to.send(meter)
}

/// The child's connection to the target node, and the commands that have not been sent yet.
struct Sender {
    socket: Connection,
    timeout: Duration,
    waiting: Vec<u8>,
    sent: Instant,
}

impl Sender {
    fn word(&mut self, word: Word) {
        push_command(&mut self.waiting, &["CLUSTER", "SYNCSLOTS", word.text()]);
    }

    fn send_if_due(&mut self, meter: Meter) -> io::Result<()> {
        let silent = self.sent.elapsed() >= SILENCE;
        if silent {
            self.word(Word::Ack);
        }
        match silent || self.waiting.len() >= CHUNK_BYTES {
            true => self.send(meter),
            false => Ok(()),
        }
    }

    fn send(&mut self, meter: Meter) -> io::Result<()> {
        write_within(&mut self.socket, &self.waiting, self.timeout)?;
        meter.bytes_done(self.waiting.len());
        self.waiting.clear();
        self.sent = Instant::now();
        Ok(())
    }
}

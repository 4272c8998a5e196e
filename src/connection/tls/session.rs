//! The TLS session of one connection: converts between the records of a socket and plaintext.
//!
//! ```text
//!   read_into   socket ─> scratch ─> rustls, decrypts in place ─> the caller's buffer
//!                            │ a partial record               │ more than was asked for
//!                            v                                v
//!                        `incoming`                        `plain`
//!
//!   write       pieces ─> one slice, up to WRITE_MAX ─> rustls ─> scratch ─> socket
//!                                                                    │ not accepted
//!                                                                    v
//!                                                              `outgoing`, `owed`
//! ```
//!
//! rustls does no I/O here (its unbuffered interface). The large buffers exist once for the thread;
//! a session has a buffer of its own only while a record is incomplete, the socket is full, or the
//! caller has read only a part of the plaintext.
//!
//! **Bytes that are owed.** A record that the socket accepted in part has to be completed before
//! anything else is sent. Until a record is sent completely, its plaintext counts as not written:
//! `write` returns 0, the caller keeps the plaintext, and its next call, which begins with the same
//! bytes, completes the record and returns the number of its plaintext bytes. So a caller needs no
//! list of sessions with unsent records, and the limits of output buffers count these bytes.
//!
//! **Invariant:** after a `write` that returned 0, the next call begins with the same bytes, as all
//! callers that send a queue do. [`Session::write_now`] is for bytes that are not repeated: the
//! bytes that the socket does not accept are dropped.
//! **Limits:** renegotiation and early data are not supported: they end the session with an error.

use ae::Io;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::CertificateDer;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, UnbufferedConnectionCommon, UnbufferedStatus,
};
use rustls::{CommonState, Error};
use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;

use crate::connection::{State, Transfer, not_now};
use crate::sys;

/// The maximum number of bytes of one read from the socket.
const READ_MAX: usize = 64 * 1024;
/// The minimum size of a read from the socket, in bytes: a full record and its overhead.
const READ_MIN: usize = RECORD + 512;
/// The maximum number of plaintext bytes of one write: four full records.
const WRITE_MAX: usize = 4 * RECORD;
/// The number of plaintext bytes of a full record.
const RECORD: usize = 16 * 1024;
/// A bound for the bytes that the header, nonce, padding and tag of one record take.
const OVERHEAD: usize = 128;
/// The size in bytes of a buffer that has room for the encrypted records of one write.
const SEALED_MAX: usize = WRITE_MAX + (WRITE_MAX / RECORD + 1) * OVERHEAD;

/// The type of TLS records of the handshake. A session can begin with such a record, or with an
/// alert.
const HANDSHAKE: u8 = 22;
const ALERT: u8 = 21;
/// The error for a peer whose first record is neither a handshake nor an alert.
const NO_TLS: &str = "the peer does not speak TLS";

/// The buffers that all TLS sessions of the thread share.
#[derive(Default)]
struct Scratch {
    received: Vec<u8>,
    gathered: Vec<u8>,
    /// The encrypted records of one write. The buffer gets its full length at the first write and
    /// keeps this length.
    sealed: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

enum Side {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// A socket with its TLS session.
pub struct Session {
    socket: TcpStream,
    side: Side,
    /// The received bytes of a record whose end has not arrived.
    incoming: Vec<u8>,
    /// Decrypted bytes; those from `plain_at` on have not been read by the caller yet.
    plain: Vec<u8>,
    plain_at: usize,
    /// Encrypted records; the bytes from `outgoing_at` on have not been accepted by the socket yet.
    outgoing: Vec<u8>,
    outgoing_at: usize,
    /// The number of plaintext bytes whose records are in `outgoing`; the caller still holds these
    /// bytes, as `write` has not counted them as written.
    owed: usize,
    /// Whether the first bytes of the peer have arrived and were checked.
    begun: bool,
    /// Whether the peer has announced that no more bytes follow (close_notify).
    ended: bool,
    /// Whether an error has ended the session, so that rustls must not be called any more.
    failed: bool,
}

/// The operation that [`process`] does as soon as the session can send.
enum Then<'a> {
    Nothing,
    Encrypt(&'a [u8], &'a mut [u8]),
    CloseNotify(&'a mut [u8]),
}

/// The result of processing TLS records.
#[derive(Default)]
struct Processed {
    /// The number of input bytes that were processed.
    used: usize,
    /// The number of bytes that the operation [`Then`] has written.
    sealed: usize,
    peer_closed: bool,
}

/// A rustls connection as server or as client: rustls has no common type for both whose records can
/// be processed.
trait Records: Sized {
    type Data;
    fn records<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Records for UnbufferedConnectionCommon<ServerConnectionData> {
    type Data = ServerConnectionData;
    fn records<'c, 'i>(
        &'c mut self,
        input: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, ServerConnectionData> {
        self.process_tls_records(input)
    }
}

impl Records for UnbufferedConnectionCommon<ClientConnectionData> {
    type Data = ClientConnectionData;
    fn records<'c, 'i>(
        &'c mut self,
        input: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, ClientConnectionData> {
        self.process_tls_records(input)
    }
}

/// Processes all complete records of `input`. Plaintext goes to `sink`; records that TLS itself
/// sends, such as messages of the handshake or an alert, go to `out`.
fn process<C: Records>(
    conn: &mut C,
    input: &mut [u8],
    out: &mut Vec<u8>,
    sink: &mut dyn FnMut(&[u8]),
    then: Then,
) -> Result<Processed, Error> {
    let mut done = Processed::default();
    loop {
        let status = conn.records(&mut input[done.used..]);
        let mut discard = status.discard;
        match status.state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    sink(record.payload);
                }
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                append(out, |room| data.encode(room))?;
            }
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::PeerClosed) => done.peer_closed = true,
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                done.used += discard;
                done.sealed = match then {
                    Then::Nothing => 0,
                    Then::Encrypt(plain, room) => traffic.encrypt(plain, room).map_err(general)?,
                    Then::CloseNotify(room) => traffic.queue_close_notify(room).map_err(general)?,
                };
                return Ok(done);
            }
            Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => {
                done.used += discard;
                return Ok(done);
            }
            Ok(_) => return Err(Error::General("early data".into())),
            Err(e) => {
                // After an error, one more call of rustls returns the alert for the peer, if there
                // is one. After the alert there must be no further call of rustls, which does not
                // expect the damaged records again.
                let status = conn.records(&mut input[done.used + discard..]);
                if let Ok(ConnectionState::EncodeTlsData(mut data)) = status.state {
                    append(out, |room| data.encode(room))?;
                }
                return Err(e);
            }
        }
        done.used += discard;
    }
}

fn general(e: impl std::fmt::Display) -> Error {
    Error::General(e.to_string())
}

/// Appends the bytes that `encode` writes to `out`, in as much room as `encode` demands.
fn append(
    out: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), Error> {
    let at = out.len();
    let mut room = 4096;
    for _ in 0..2 {
        out.resize(at + room, 0);
        match encode(&mut out[at..]) {
            Ok(written) => {
                out.truncate(at + written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(size)) => room = size.required_size,
            Err(e) => return Err(general(e)),
        }
    }
    Err(general("a record does not fit"))
}

/// The I/O error for an error of rustls, which ends the session.
fn broken(e: Error) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, e.to_string())
}

impl Session {
    /// The server's side of a TLS session on a connected socket.
    pub fn server(socket: TcpStream, session: UnbufferedServerConnection) -> Session {
        Session::new(socket, Side::Server(session))
    }

    /// The client's side of a TLS session on a connected socket.
    pub fn client(socket: TcpStream, session: UnbufferedClientConnection) -> Session {
        Session::new(socket, Side::Client(session))
    }

    fn new(socket: TcpStream, side: Side) -> Session {
        Session {
            socket,
            side,
            incoming: Vec::new(),
            plain: Vec::new(),
            plain_at: 0,
            outgoing: Vec::new(),
            outgoing_at: 0,
            owed: 0,
            begun: false,
            ended: false,
            failed: false,
        }
    }

    /// The TCP socket of the TLS session.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Replaces the session's descriptor by another descriptor of the same socket; returns the old
    /// one.
    pub fn replace_socket(&mut self, socket: TcpStream) -> TcpStream {
        std::mem::replace(&mut self.socket, socket)
    }

    fn common(&self) -> &CommonState {
        match &self.side {
            Side::Server(session) => session,
            Side::Client(session) => session,
        }
    }

    /// The certificate of the peer, if it has shown one.
    pub fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.common().peer_certificates()?.first()
    }

    fn process(
        &mut self,
        input: &mut [u8],
        sink: &mut dyn FnMut(&[u8]),
        then: Then,
    ) -> Result<Processed, Error> {
        if self.failed {
            return Err(Error::General("the session has failed".into()));
        }
        let out = &mut self.outgoing;
        let done = match &mut self.side {
            Side::Server(session) => process(&mut **session, input, out, sink, then),
            Side::Client(session) => process(&mut **session, input, out, sink, then),
        };
        match done {
            Ok(done) => {
                self.ended |= done.peer_closed;
                Ok(done)
            }
            Err(e) => {
                self.failed = true;
                // Sends the alert, which has the reason for the peer. An error is ignored, as the
                // session ends in any case.
                let _ = self.flush();
                Err(e)
            }
        }
    }

    /// Continues the handshake as far as the socket allows. Returns `Open` when both sides have
    /// finished the handshake and its last messages are sent.
    pub fn handshake(&mut self) -> io::Result<State> {
        SCRATCH.with_borrow_mut(|scratch| {
            loop {
                let mut input = std::mem::take(&mut self.incoming);
                let mut plain = std::mem::take(&mut self.plain);
                let done = self.process(
                    &mut input,
                    &mut |bytes| plain.extend_from_slice(bytes),
                    Then::Nothing,
                );
                self.plain = plain;
                let done = done.map_err(broken)?;
                input.drain(..done.used);
                self.incoming = input;
                if !self.flush()? {
                    return Ok(State::Handshake);
                }
                if !self.common().is_handshaking() {
                    return Ok(State::Open);
                }
                let received = &mut scratch.received;
                received.clear();
                match sys::read_into(self.socket.as_fd(), received, READ_MIN) {
                    Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                    Ok(_) => {
                        self.check_start(received)?;
                        self.incoming.extend_from_slice(received);
                    }
                    Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(State::Handshake),
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
        })
    }

    /// Refuses a peer whose first byte is neither that of a handshake nor that of an alert. The
    /// peer gets no alert, as a peer without TLS would take it for a reply.
    fn check_start(&mut self, received: &[u8]) -> io::Result<()> {
        if !std::mem::replace(&mut self.begun, true)
            && !matches!(received.first(), Some(&HANDSHAKE | &ALERT))
        {
            self.failed = true;
            return Err(io::Error::new(ErrorKind::InvalidData, NO_TLS));
        }
        Ok(())
    }

    /// Whether encrypted records wait for room in the socket.
    pub fn wants_write(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether decrypted bytes wait to be read by the caller.
    fn has_plain(&self) -> bool {
        self.plain_at < self.plain.len()
    }

    /// Appends at most `max` decrypted bytes to `into`, see `Connection::read_into`.
    pub fn read_into(&mut self, into: &mut Vec<u8>, max: usize) -> io::Result<Transfer> {
        if self.has_plain() {
            let end = self.plain.len().min(self.plain_at + max);
            into.extend_from_slice(&self.plain[self.plain_at..end]);
            let bytes = end - self.plain_at;
            self.plain_at = end;
            if !self.has_plain() {
                (self.plain, self.plain_at) = (Vec::new(), 0);
            }
            return Ok(Transfer {
                bytes,
                io: Io::More,
            });
        }
        if self.ended {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        SCRATCH.with_borrow_mut(|scratch| self.receive(&mut scratch.received, into, max))
    }

    fn receive(
        &mut self,
        received: &mut Vec<u8>,
        into: &mut Vec<u8>,
        max: usize,
    ) -> io::Result<Transfer> {
        received.clear();
        received.extend_from_slice(&self.incoming);
        let want = max.clamp(READ_MIN, READ_MAX);
        let read = match sys::read_into(self.socket.as_fd(), received, want) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(e) => return not_now(e),
        };
        self.incoming.clear();
        let before = into.len();
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        let mut sink = |bytes: &[u8]| {
            let room = max - (into.len() - before);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            into.extend_from_slice(now);
            plain.extend_from_slice(later);
        };
        let done = self.process(received, &mut sink, Then::Nothing);
        (self.plain, self.plain_at) = (plain, 0);
        let rest = &received[done.map_err(broken)?.used..];
        self.keep(rest);
        if !self.outgoing.is_empty() {
            // TLS itself has records to send, such as new keys. Bytes that the socket does not
            // accept now are sent before the next records.
            self.flush()?;
        }
        let more = read == want || self.has_plain() || self.ended;
        Ok(Transfer {
            bytes: into.len() - before,
            io: if more { Io::More } else { Io::Drained },
        })
    }

    /// Keeps `rest`, the start of an incomplete record, for the next read. If `rest` is empty, the
    /// session has no buffer.
    fn keep(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            self.incoming = Vec::new();
        } else {
            self.incoming.extend_from_slice(rest);
        }
    }

    /// Encrypts and sends a prefix of `pieces`, see `Connection::write_vectored`.
    pub fn write_vectored(&mut self, pieces: &[IoSlice]) -> io::Result<Transfer> {
        if !self.outgoing.is_empty() && !self.flush()? {
            return Ok(Transfer {
                bytes: 0,
                io: Io::Drained,
            });
        }
        if self.owed > 0 {
            return Ok(Transfer {
                bytes: std::mem::take(&mut self.owed),
                io: Io::More,
            });
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let Scratch {
                gathered, sealed, ..
            } = scratch;
            let plain = gather(pieces, gathered);
            if plain.is_empty() {
                return Ok(Transfer {
                    bytes: 0,
                    io: Io::More,
                });
            }
            let len = self.seal(plain, sealed)?;
            self.transmit(&sealed[..len], plain.len())
        })
    }

    /// Encrypts and sends `bytes` if no earlier records wait for the socket, and otherwise drops
    /// them.
    pub fn write_now(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.owed == 0 && (self.outgoing.is_empty() || self.flush()?) {
            self.write_vectored(&[IoSlice::new(bytes)])?;
            self.owed = 0;
        }
        Ok(())
    }

    /// Encrypts `plain` into records, which are written to `sealed`; returns the length of the
    /// records in bytes.
    fn seal(&mut self, plain: &[u8], sealed: &mut Vec<u8>) -> io::Result<usize> {
        if sealed.len() < SEALED_MAX {
            sealed.resize(SEALED_MAX, 0);
        }
        let done = self.send_after_records(Then::Encrypt(plain, sealed))?;
        match done.sealed {
            0 => Err(ErrorKind::BrokenPipe.into()),
            len => Ok(len),
        }
    }

    fn send_after_records(&mut self, then: Then) -> io::Result<Processed> {
        let mut input = std::mem::take(&mut self.incoming);
        let mut plain = std::mem::take(&mut self.plain);
        let done = self.process(
            &mut input,
            &mut |bytes| plain.extend_from_slice(bytes),
            then,
        );
        self.plain = plain;
        let done = done.map_err(broken)?;
        input.drain(..done.used);
        self.incoming = input;
        Ok(done)
    }

    /// Sends new records, which contain `plain` plaintext bytes of the caller.
    fn transmit(&mut self, records: &[u8], plain: usize) -> io::Result<Transfer> {
        if self.outgoing.is_empty() {
            let sent = send(&self.socket, records)?;
            if sent == records.len() {
                return Ok(Transfer {
                    bytes: plain,
                    io: Io::More,
                });
            }
            self.outgoing.extend_from_slice(&records[sent..]);
        } else {
            // Records of TLS itself (an alert, a key update) wait in `outgoing`, so the new records
            // are appended to them.
            self.outgoing.extend_from_slice(records);
            if self.flush()? {
                return Ok(Transfer {
                    bytes: plain,
                    io: Io::More,
                });
            }
        }
        self.owed = plain;
        Ok(Transfer {
            bytes: 0,
            io: Io::Drained,
        })
    }

    /// Sends the waiting records. Returns true if all of them are sent, and false if the socket is
    /// full.
    fn flush(&mut self) -> io::Result<bool> {
        let sent = send(&self.socket, &self.outgoing[self.outgoing_at..])?;
        self.outgoing_at += sent;
        let all = self.outgoing_at == self.outgoing.len();
        if all {
            (self.outgoing, self.outgoing_at) = (Vec::new(), 0);
        }
        Ok(all)
    }

    /// Sends the notification that no more bytes follow (close_notify), if no records wait for the
    /// socket.
    pub fn close_notify(&mut self) {
        let mut room = [0; 2 * OVERHEAD];
        if self.outgoing.is_empty()
            && let Ok(done) = self.send_after_records(Then::CloseNotify(&mut room))
        {
            // An error is ignored, as the caller closes the socket next.
            let _ = send(&self.socket, &room[..done.sealed]);
        }
    }
}

/// Sends as much of `bytes` as the socket accepts.
fn send(mut socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match socket.write(&bytes[sent..]) {
            Ok(n) => sent += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(sent)
}

/// A prefix of the pieces as one slice of at most [`WRITE_MAX`] bytes, for one encryption; copied
/// only if it spans several pieces.
fn gather<'a>(pieces: &'a [IoSlice], gathered: &'a mut Vec<u8>) -> &'a [u8] {
    if let Some(first) = pieces.first()
        && (pieces.len() == 1 || first.len() >= WRITE_MAX)
    {
        return &first[..first.len().min(WRITE_MAX)];
    }
    gathered.clear();
    for piece in pieces {
        let room = WRITE_MAX - gathered.len();
        gathered.extend_from_slice(&piece[..piece.len().min(room)]);
    }
    gathered
}

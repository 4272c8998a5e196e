//! TLS handshakes of accepted connections, which become clients when the handshake is complete.
//!
//! ```text
//!   accept_common ─> begin ─> handshake_handler, at most max-new-tls-connections-per-cycle in a turn
//!                                 ├─ Open ──────> accept::unless_protected, accept::create_client
//!                                 ├─ an error ──> closed, a line in the log
//!                                 └─ 10 seconds ─> closed by `timer_handler`
//! ```
//!
//! A handshake costs as much as a hundred commands, so the limit for a turn bounds the time that a
//! storm of connections takes from existing clients. A connection counts for `maxclients` from the
//! beginning of its TLS handshake; if `maxclients` is reached, a new connection replaces the oldest
//! handshake, provided that this handshake is a second old. So stuck handshakes keep no client out.
//!
//! **Invariant:** the loop watches a connection exactly while it is in `Handshakes::arriving`.

use ae::{Class, EventLoop, Io, Mask, TimerId, Token};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::Duration;

use crate::acl;
use crate::connection::listener::Accepted;
use crate::connection::{State, tls};
use crate::networking::accept;
use crate::observe::trace::event::EventKind;
use crate::state::Server;
use crate::sys::{error_text, ticks};
use crate::util::rate_limit::RateLimit;

/// The time in milliseconds after which an incomplete TLS handshake is closed.
const TIMEOUT_MS: i64 = 10_000;
/// The age in milliseconds from which on a TLS handshake may be closed in favour of a new
/// connection.
const REPLACEABLE_MS: i64 = 1000;
/// Failed TLS handshakes within this time in milliseconds after a logged warning are logged at
/// level debug.
const WARNING_INTERVAL_MS: i64 = 1000;

struct Arriving {
    accepted: Accepted,
    token: Token,
    since_ms: i64,
}

/// The TLS handshakes in progress.
#[derive(Default)]
pub struct Handshakes {
    /// The handshakes by their numbers, which grow, so that the first handshake is the oldest one.
    arriving: BTreeMap<u64, Arriving>,
    last: u64,
    /// The time in microseconds at which the turn began in which `steps` were counted.
    turn_us: i64,
    /// The number of steps of handshakes in the turn `turn_us`.
    steps: u32,
    has_timer: bool,
    warning: RateLimit,
}

impl Handshakes {
    /// The number of TLS handshakes in progress.
    pub fn count(&self) -> usize {
        self.arriving.len()
    }

    /// Counts a step of a TLS handshake. Returns whether the limit of `max` steps in a turn allows
    /// this step.
    fn may_step(&mut self, turn_us: i64, max: u32) -> bool {
        if self.turn_us != turn_us {
            (self.turn_us, self.steps) = (turn_us, 0);
        }
        self.steps += 1;
        self.steps <= max
    }
}

/// Closes the oldest TLS handshake if it is old enough, to make room for a new connection. Returns
/// whether a handshake was closed.
pub fn make_room(el: &mut EventLoop<Server>, server: &mut Server) -> bool {
    let Some(oldest) = server.handshakes.arriving.first_entry() else {
        return false;
    };
    if server.clock.now_ms - oldest.get().since_ms < REPLACEABLE_MS {
        return false;
    }
    el.remove_file(oldest.remove().token);
    true
}

/// Begins the TLS handshake of an accepted connection.
pub fn begin(el: &mut EventLoop<Server>, server: &mut Server, accepted: Accepted) {
    let Some(materials) = &server.tls.materials else {
        return;
    };
    let conn = match accepted.conn.accept_tls(materials) {
        Ok(conn) => conn,
        Err(e) => return log::warn!("Can't begin a TLS session: {}", error_text(&e)),
    };
    let accepted = Accepted { conn, ..accepted };
    let handshakes = &mut server.handshakes;
    handshakes.last += 1;
    let fd = accepted.conn.raw_fd();
    match el.add_file(fd, Class::Normal, handshakes.last) {
        Ok(token) => {
            el.set_handler(token, Mask::READABLE, handshake_handler);
            let arriving = Arriving {
                accepted,
                token,
                since_ms: server.clock.now_ms,
            };
            handshakes.arriving.insert(handshakes.last, arriving);
        }
        Err(e) => {
            return log::warn!("Error registering fd event for the new client: {e} (fd={fd})");
        }
    }
    if !std::mem::replace(&mut handshakes.has_timer, true) {
        el.add_timer(Duration::from_secs(1), 0, timer_handler);
    }
}

fn handshake_handler(el: &mut EventLoop<Server>, server: &mut Server, token: Token, _: Mask) -> Io {
    let max = server.config.max_new_tls_connections_per_cycle;
    if !server.handshakes.may_step(server.stats.turn_began_us, max) {
        return Io::More;
    }
    let Some(id) = el.data(token) else {
        return Io::Drained;
    };
    let Some(arriving) = server.handshakes.arriving.get_mut(&id) else {
        return Io::Drained;
    };
    let began = ticks::now();
    let state = arriving.accepted.conn.handshake();
    server.traced(EventKind::Handshake, began, 0);
    let Some(arriving) = server.handshakes.arriving.get_mut(&id) else {
        return Io::Drained;
    };
    match state {
        Ok(State::Open) => {
            el.remove_file(token);
            if let Some(arriving) = server.handshakes.arriving.remove(&id) {
                become_client(el, server, arriving.accepted);
            }
        }
        Ok(_) => {
            // The socket is watched for writability only while the TLS session has bytes that the
            // socket did not accept.
            if arriving.accepted.conn.wants_write() {
                el.set_handler(token, Mask::WRITABLE, handshake_handler);
            } else if el.mask(token).contains(Mask::WRITABLE) {
                el.clear_handler(token, Mask::WRITABLE);
            }
        }
        Err(e) => {
            el.remove_file(token);
            let reason = match e.kind() {
                ErrorKind::UnexpectedEof => "the peer has closed the connection".into(),
                ErrorKind::InvalidData => e.to_string(),
                _ => error_text(&e),
            };
            if let Some(arriving) = server.handshakes.arriving.remove(&id) {
                log_failure(server, &arriving, &reason);
            }
        }
    }
    Io::Drained
}

fn log_failure(server: &mut Server, arriving: &Arriving, reason: &str) {
    let now_ms = server.clock.now_ms;
    let level = match server
        .handshakes
        .warning
        .allows(now_ms, WARNING_INTERVAL_MS)
    {
        true => log::Level::Warn,
        false => log::Level::Debug,
    };
    let Accepted { peer, local, .. } = &arriving.accepted;
    log::log!(
        level,
        "Error accepting a client connection: {reason} (addr={peer} laddr={local})"
    );
}

/// Makes a client of a connection whose TLS handshake is complete, with the user that the client's
/// certificate names.
fn become_client(el: &mut EventLoop<Server>, server: &mut Server, accepted: Accepted) {
    let Some(accepted) = accept::unless_protected(server, accepted) else {
        return;
    };
    let field = server.config.tls_auth_clients_user;
    let names = match accepted.conn.session() {
        Some(session) => tls::user_names(session, field),
        None => Vec::new(),
    };
    let Accepted {
        conn, peer, local, ..
    } = accepted;
    let Some(r) = accept::create_client(el, server, conn, peer, local) else {
        return;
    };
    if let Some(mut c) = server.net.clients.take_ref(r) {
        if !names.is_empty() {
            acl::log_in_by_certificate(server, &mut c, &names);
        }
        // The TLS session may have decrypted a request already, which the poller does not report.
        if let Some(token) = c.token {
            el.mark_ready(token, Mask::READABLE);
        }
        server.net.clients.put(c);
    }
}

/// Closes the TLS handshakes that have not been completed in time.
fn timer_handler(el: &mut EventLoop<Server>, server: &mut Server, _: TimerId) -> Option<Duration> {
    let over_ms = server.clock.now_ms - TIMEOUT_MS;
    while let Some(oldest) = server.handshakes.arriving.first_entry()
        && oldest.get().since_ms < over_ms
    {
        let arriving = oldest.remove();
        el.remove_file(arriving.token);
        log_failure(
            server,
            &arriving,
            "the TLS handshake was not finished in time",
        );
    }
    server.handshakes.has_timer = server.handshakes.count() > 0;
    server
        .handshakes
        .has_timer
        .then_some(Duration::from_secs(1))
}

//! The handshake with a primary: what this server announces, and the reply to PSYNC.
//!
//! ```text
//!   PING                                  any reply but a refusal; NOAUTH is accepted
//!   AUTH [user] password
//!   REPLCONF listening-port, ip-address, rdb-no-compress, capa, version, set-cluster-node-id
//!                                         an error is accepted: older primaries don't have them
//!   PSYNC id offset       +FULLRESYNC id offset | +CONTINUE [id] | -NOMASTERLINK, -LOADING: later
//!   SYNC                  after any other reply to PSYNC
//! ```
//!
//! **Invariant:** PSYNC is sent after the replies to all other steps: a primary refuses PSYNC while
//! it has replies to send, and the bytes behind the reply to PSYNC may be a snapshot.
//! **Invariant:** after a reply to PSYNC, either `receive`, `channels` or the client that applies
//! the stream takes over the connection, or the attempt ends with a line in the log.
//! **Invariant:** +CONTINUE is accepted only if PSYNC named a replication id: otherwise the
//! replication stream would be applied to a data set to which it does not belong.
//!
//! **Limits:** `repl-timeout` is the timeout for connecting to the primary and for each of its
//! replies; the log shows at most [`SHOWN_MAX`] bytes of a primary's reply; a primary's offset
//! above [`START_MAX`] is refused.

use ae::EventLoop;

use super::{channels, fail, install, receive, stream_from};
use crate::config::Config;
use crate::link::{Action, Errors, Expect, Failure, Plan, Reply, Step, Unasked};
use crate::networking::link::{self, LinkId};
use crate::persist::rdb;
use crate::propagate::stream::START_MAX;
use crate::replication::failover::{Event, Verdict};
use crate::replication::psync::Dialect;
use crate::replication::upstream::Phase;
use crate::state::Server;
use crate::sync::{failover, role};
use crate::sys::error_text;
use crate::util::number::parse_i64;
use crate::util::quote::printable;

// The tags of the handshake's requests, by which their replies are identified.
const PING: u32 = 0;
const AUTH: u32 = 1;
const PORT: u32 = 2;
const ADDRESS: u32 = 3;
const CAPA: u32 = 4;
const VERSION: u32 = 5;
const PSYNC: u32 = 6;
/// The tag of REPLCONF set-rdb-client-id, which is sent before the PSYNC with the tag
/// [`MAIN_PSYNC`].
pub const SET_RDB_CLIENT: u32 = 7;
/// The tag of the PSYNC that requests the replication stream behind a snapshot that comes over
/// another connection.
pub const MAIN_PSYNC: u32 = 8;
const PLAIN: u32 = 9;
const NODE: u32 = 10;

/// The maximum number of bytes of a primary's reply that are logged.
const SHOWN_MAX: usize = 256;

/// Error replies to PING that only mean that the primary requires AUTH.
const AUTH_WANTED: &[&str] = &["NOAUTH", "NOPERM", "ERR operation not permitted"];

/// The plan of the handshake with a primary, up to PSYNC, which is sent after the replies to all
/// steps of the plan.
pub fn plan(server: &Server) -> Plan {
    let config = &server.config;
    let mut script = vec![
        Step::new(PING, &["PING"])
            .errors(Errors::FatalExcept(AUTH_WANTED))
            .wait(),
    ];
    script.extend(auth(config, AUTH));
    let port = listening_port(config);
    let tolerated = |tag, argv: &[&str]| Step::new(tag, argv).errors(Errors::Tolerated);
    script.push(tolerated(PORT, &["REPLCONF", "listening-port", &port]));
    if !config.replica_announce_ip.is_empty() {
        let ip = config.replica_announce_ip.to_str_lossy();
        script.push(tolerated(ADDRESS, &["REPLCONF", "ip-address", &ip]));
    }
    if install::is_diskless(server) {
        // A replica that loads from the socket is taken to have a fast link, for which compression
        // costs more time than it saves.
        script.push(tolerated(PLAIN, &["REPLCONF", "rdb-no-compress", "1"]));
    }
    let rdb = format!("rdb{}", rdb::VERSION_REDIS_MAX);
    let mut capa = vec!["REPLCONF", "capa", "eof", "capa", "psync2", "capa", &rdb];
    if config.dual_channel_replication_enabled {
        capa.extend(["capa", "dual-channel"]);
    }
    if config.repl_rdb_channel {
        capa.extend(["capa", "rdb-channel-repl"]);
    }
    if config.tls_replication && install::is_diskless(server) {
        capa.extend(["capa", "skip-rdb-checksum"]);
    }
    script.push(tolerated(CAPA, &capa));
    script.push(tolerated(
        VERSION,
        &["REPLCONF", "version", crate::VALKEY_VERSION],
    ));
    if let Some(member) = &server.cluster {
        let name = member.machine.myself().name.to_string();
        let node = ["REPLCONF", "set-cluster-node-id", &name];
        script.push(tolerated(NODE, &node));
    }
    Plan::new(script, Unasked::Keep, timeout_ms(server))
}

/// The timeout for connecting to the primary and for each of its replies, in milliseconds.
pub fn timeout_ms(server: &Server) -> u64 {
    u64::from(server.config.repl_timeout) * 1000
}

/// The step AUTH, if `masterauth` is set; otherwise no step.
pub fn auth(config: &Config, tag: u32) -> Vec<Step> {
    if config.masterauth.is_empty() {
        return Vec::new();
    }
    let user = config.masteruser.to_str_lossy();
    let user = Some(&*user).filter(|user| !user.is_empty());
    vec![Step::auth(tag, user, &config.masterauth.to_str_lossy())]
}

/// The port that REPLCONF listening-port announces.
pub fn listening_port(config: &Config) -> String {
    match (config.replica_announce_port, config.port) {
        (0, port) => port.to_string(),
        (announced, _) => announced.to_string(),
    }
}

/// Whether PSYNC requests the replication stream that follows this server's data, and not a
/// snapshot.
fn can_continue(server: &Server) -> bool {
    let upstream = server.replication.upstream.as_ref();
    upstream.is_some_and(|up| up.can_continue)
}

/// The arguments of PSYNC: the replication id and the offset of the next byte, or `? -1`. During a
/// failover the word FAILOVER is added, at which the other server becomes the primary.
fn psync(server: &mut Server) -> Step {
    let replication = &server.replication;
    let (id, next) = match can_continue(server) {
        true => {
            let next = replication.stream.end() + 1;
            log::info!(
                "Trying a partial resynchronization (request {}:{next}).",
                replication.id
            );
            (replication.id.clone(), next.to_string())
        }
        false => {
            let words = server.config.words();
            log::info!(
                "{}",
                words.line(
                    "Partial resynchronization not possible (no cached master)",
                    &[]
                )
            );
            ("?".to_string(), "-1".to_string())
        }
    };
    let mut argv = vec!["PSYNC", &id, &next];
    if replication.failover.is_in_progress() {
        argv.push("FAILOVER");
    }
    let request = Step::new(PSYNC, &argv);
    failover::step(server, Event::Asked);
    request.errors(Errors::Tolerated).expect(Expect::Line)
}

/// Handles an action of the link on which the handshake with the primary runs.
pub fn on_action(el: &mut EventLoop<Server>, server: &mut Server, id: LinkId, action: Action) {
    let words = server.config.words();
    match action {
        Action::Reply { tag: PING, .. } => {
            set_phase(server, Phase::Handshake);
            log::info!(
                "{}",
                words.line("Master replied to PING, replication can continue...", &[])
            );
        }
        Action::Reply { tag: PSYNC, reply } => psync_replied(el, server, id, reply),
        Action::Reply {
            tag: MAIN_PSYNC,
            reply,
        } => channels::main_replied(el, server, id, &text_of(reply)),
        Action::Reply {
            tag,
            reply: Reply::Error(text),
        } => {
            let option = match tag {
                PORT => "listening-port",
                ADDRESS => "ip-address",
                PLAIN => "rdb-no-compress",
                NODE => "set-cluster-node-id",
                VERSION => "version",
                SET_RDB_CLIENT => "set-rdb-client-id",
                _ => "capa",
            };
            let text = printable(&text, SHOWN_MAX);
            log::info!(
                "(Non critical) {}",
                words.line(
                    "Master does not understand REPLCONF {}: -{}",
                    &[&option, &text]
                )
            );
        }
        Action::Ready => {
            let step = psync(server);
            link::request(el, server, id, step);
        }
        Action::Failed(failure) => {
            server.primary_link.link = None;
            log_failure(server, &failure);
            let connected = !matches!(
                failure,
                Failure::Resolve(_) | Failure::Connect(_) | Failure::ConnectTimeout
            );
            failover::step(server, Event::LinkFailed { connected });
            fail(el, server);
        }
        _ => {}
    }
}

fn set_phase(server: &mut Server, phase: Phase) {
    if let Some(upstream) = &mut server.replication.upstream {
        upstream.phase = phase;
    }
}

fn log_failure(server: &Server, failure: &Failure) {
    let words = server.config.words();
    let text = match failure {
        Failure::Refused { tag: PING, error } => words.line(
            "Error reply to PING from master: '-{}'",
            &[&printable(error, SHOWN_MAX)],
        ),
        Failure::Refused { tag: AUTH, error } => words.line(
            "Unable to AUTH to MASTER: -{}",
            &[&printable(error, SHOWN_MAX)],
        ),
        Failure::ConnectTimeout | Failure::ReplyTimeout { .. } | Failure::SendTimeout => {
            words.line("Timeout connecting to the MASTER...", &[])
        }
        Failure::Resolve(reason) => words.line("Unable to connect to MASTER: {}", &[reason]),
        failure => words.line("Error condition on socket for SYNC: {}", &[failure]),
    };
    log::warn!("{text}");
}

/// The text of a reply: a status has no plus, but an error keeps its dash.
fn text_of(reply: Reply) -> Vec<u8> {
    match reply {
        Reply::Status(text) | Reply::Line(text) => text,
        Reply::Error(text) => [b"-", &text[..]].concat(),
        other => other.to_string().into_bytes(),
    }
}

/// Handles the reply to PSYNC, which decides whether a snapshot or the replication stream follows.
fn psync_replied(el: &mut EventLoop<Server>, server: &mut Server, id: LinkId, reply: Reply) {
    let words = server.config.words();
    let text = text_of(reply);
    if server.replication.failover.is_in_progress() {
        step_failover(server, &text);
        // The reply to PSYNC matters further only if this server still has a primary after the
        // failover has handled the reply.
        if !server.replication.is_replica() {
            return;
        }
    }
    let mut parts = text.split(|&b| b == b' ');
    let verb = parts.next().unwrap_or_default();
    let new_id = parts.next();
    if verb == b"FULLRESYNC" {
        match full_resync_reply(&text) {
            Some((new_id, offset)) => full_resync(el, server, id, new_id, offset),
            None => {
                let line = words.line("Master replied with wrong +FULLRESYNC syntax.", &[]);
                log::warn!("{line}");
                fail(el, server);
            }
        }
    } else if verb == b"CONTINUE" && !can_continue(server) {
        log::warn!("The primary replied +CONTINUE to a request for a full resync.");
        fail(el, server);
    } else if verb == b"CONTINUE" {
        resume(el, server, id, new_id.and_then(valid_id));
    } else if verb == b"DUALCHANNELSYNC" {
        channels::begin(el, server, id, Dialect::Valkey, "");
    } else if verb == b"RDBCHANNELSYNC" {
        let main = new_id.map_or("0".into(), String::from_utf8_lossy);
        channels::begin(el, server, id, Dialect::Redis, &main);
    } else if verb == b"-NOMASTERLINK" || verb == b"-LOADING" {
        let line = words.line(
            "Master is currently unable to PSYNC but should be in the future: {}",
            &[&printable(&text, SHOWN_MAX)],
        );
        log::info!("{line}");
        fail(el, server);
    } else {
        let shown = printable(&text, SHOWN_MAX);
        let line = match text.starts_with(b"-ERR") {
            true => words.line(
                "Master does not support PSYNC or is in error state (reply: {})",
                &[&shown],
            ),
            false => words.line("Unexpected reply to PSYNC from master: {}", &[&shown]),
        };
        log::warn!("{line}");
        sync(el, server, id);
    }
}

/// Requests a snapshot by SYNC from a primary that does not reply to PSYNC as it should. The
/// replication id that this server then chooses is unknown to the primary, so the next sync is a
/// full one as well.
fn sync(el: &mut EventLoop<Server>, server: &mut Server, id: LinkId) {
    log::info!("Retrying with SYNC...");
    server.primary_link.link = None;
    let Some(mut taken) = link::take(el, server, id) else {
        return fail(el, server);
    };
    if let Err(e) = taken.conn.write_now(b"SYNC\r\n") {
        let words = server.config.words();
        let reason = error_text(&e);
        log::warn!(
            "{}",
            words.line("I/O error writing to MASTER: {}", &[&reason])
        );
        return fail(el, server);
    }
    if let Some(upstream) = &mut server.replication.upstream {
        upstream.speaks_psync = false;
    }
    let history = server.rng.hex(40);
    receive::begin(el, server, taken, history, 0);
}

/// Passes the reply to `PSYNC .. FAILOVER` to the state machine of the failover.
fn step_failover(server: &mut Server, text: &[u8]) {
    let begins = |start: &[u8]| text.starts_with(start);
    let accepted: [&[u8]; 4] = [
        b"CONTINUE",
        b"FULLRESYNC",
        b"DUALCHANNELSYNC",
        b"RDBCHANNELSYNC",
    ];
    let verdict = if accepted.iter().any(|start| begins(start)) {
        Verdict::Accepted
    } else if begins(b"-ERR PSYNC FAILOVER can't be sent to a master") {
        Verdict::IsPrimary
    } else {
        Verdict::Rejected
    };
    failover::step(server, Event::Replied(verdict));
}

/// The replication id and the offset of the reply `FULLRESYNC <id> <offset>`; `None` if the reply
/// is not of this form.
pub fn full_resync_reply(text: &[u8]) -> Option<(String, u64)> {
    let text = text.strip_prefix(b"FULLRESYNC ")?;
    let mut words = text.split(|&b| b == b' ');
    let id = words.next().and_then(valid_id)?;
    let offset = words.next().and_then(parse_i64)?;
    let offset = u64::try_from(offset).ok()?;
    (offset <= START_MAX).then_some((id, offset))
}

/// Accepts a replication id: 40 letters and digits.
fn valid_id(id: &[u8]) -> Option<String> {
    let valid = id.len() == 40 && id.iter().all(u8::is_ascii_alphanumeric);
    valid.then(|| String::from_utf8_lossy(id).into_owned())
}

/// Receives the snapshot that follows `+FULLRESYNC`.
fn full_resync(
    el: &mut EventLoop<Server>,
    server: &mut Server,
    id: LinkId,
    new_id: String,
    offset: u64,
) {
    let words = server.config.words();
    log::info!(
        "{}",
        words.line("Full resync from master: {}:{}", &[&new_id, &offset])
    );
    server.primary_link.link = None;
    match link::take(el, server, id) {
        Some(taken) => receive::begin(el, server, taken, new_id, offset),
        None => fail(el, server),
    }
}

/// Applies the replication stream that follows `+CONTINUE`, from the requested offset on.
fn resume(el: &mut EventLoop<Server>, server: &mut Server, id: LinkId, new_id: Option<String>) {
    let words = server.config.words();
    log::info!(
        "{}",
        words.line("Successful partial resynchronization with master.", &[])
    );
    if let Some(new_id) = new_id.filter(|new_id| *new_id != server.replication.id) {
        server.replication.branch_history(new_id);
        log::info!(
            "{}",
            words.line(
                "Master replication ID changed to {}",
                &[&server.replication.id]
            )
        );
        // The links to this server's own replicas are closed, so that these connect again and get
        // the new replication id.
        role::close_replicas(server);
    }
    log::info!(
        "{}",
        words.line(
            "MASTER <-> REPLICA sync: Master accepted a Partial Resynchronization.",
            &[]
        )
    );
    server.primary_link.link = None;
    match link::take(el, server, id) {
        Some(taken) => stream_from(el, server, taken.conn, &taken.received),
        None => fail(el, server),
    }
}

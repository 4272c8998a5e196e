//! A client in one line: CLIENT LIST, CLIENT INFO, and the log.

use std::fmt::Write;

use crate::client::{Client, flag};
use crate::state::Server;

/// What each flag is called, in Redis's order.
const LETTERS: [(u64, char); 18] = [
    (flag::MONITOR, 'O'),
    (flag::REPLICA, 'S'),
    (flag::PRIMARY, 'M'),
    (flag::PUBSUB, 'P'),
    (flag::MULTI, 'x'),
    (flag::BLOCKED, 'b'),
    (flag::TRACKING, 't'),
    (flag::TRACKING_BROKEN_REDIR, 'R'),
    (flag::TRACKING_BCAST, 'B'),
    (flag::DIRTY_CAS, 'd'),
    (flag::CLOSE_AFTER_REPLY, 'c'),
    (flag::UNBLOCKED, 'u'),
    (flag::CLOSE_ASAP, 'A'),
    (flag::UNIX_SOCKET, 'U'),
    (flag::READONLY, 'r'),
    (flag::NO_EVICT, 'e'),
    (flag::NO_TOUCH, 'T'),
    (flag::IMPORT_SOURCE, 'I'),
];

/// The letters of a client's flags; `N` when there are none.
pub fn flags_text(c: &Client) -> String {
    let text: String = LETTERS
        .iter()
        .filter(|(bit, _)| c.has(*bit))
        .map(|&(_, letter)| letter)
        .collect();
    if text.is_empty() { "N".into() } else { text }
}

/// Whether a flag may be called so.
pub fn is_flag_letter(letter: u8) -> bool {
    letter == b'N'
        || LETTERS
            .iter()
            .any(|(_, known)| *known == char::from(letter))
}

/// Which events the loop tells this client about.
fn events_text(c: &Client) -> &'static str {
    match (c.conn.is_some(), c.has(flag::WAITS_TO_WRITE)) {
        (false, _) => "",
        (true, false) => "r",
        (true, true) => "rw",
    }
}

fn text<T: AsRef<[u8]>>(bytes: &Option<T>) -> String {
    bytes.as_ref().map_or(String::new(), |b| {
        String::from_utf8_lossy(b.as_ref()).into_owned()
    })
}

/// `id=3 addr=127.0.0.1:54422 laddr=127.0.0.1:6379 fd=8 name= age=0 ...`
pub fn describe(server: &Server, c: &Client) -> String {
    describe_with(server, c, c.argv_bytes())
}

/// The same for the client whose command runs, with these arguments.
pub fn describe_running(server: &Server, c: &Client, argv: &[&[u8]]) -> String {
    describe_with(server, c, argv.iter().map(|arg| arg.len()).sum())
}

fn describe_with(server: &Server, c: &Client, argv_bytes: usize) -> String {
    let now = server.clock.now_ms;
    let (subs, psubs, ssubs) = c.pubsub.as_ref().map_or((0, 0, 0), |p| {
        (p.channels.len(), p.patterns.len(), p.shards.len())
    });
    let queued = c.multi.as_ref().map_or(-1, |m| m.commands.len() as i64);
    let cmd = c
        .shown_cmd
        .map_or("NULL", |id| &server.commands.entry(id).fullname);
    // What the replication stream holds for a replica.
    let lag = server.replication.lag(c.reference()) as usize;
    let redirect = server.tracking.redirect_of(c.id);
    let redirect = redirect.map_or(-1, |id| id as i64);
    let mut line = format!(
        "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={} capa={} db={}",
        c.id,
        c.peer,
        c.local,
        c.conn.as_ref().map_or(-1, |conn| conn.raw_fd()),
        text(&c.name),
        (now - c.created_ms) / 1000,
        (now - c.last_interaction_ms) / 1000,
        flags_text(c),
        if c.has(flag::CAPA_REDIRECT) { "r" } else { "" },
        c.db,
    );
    // Writing to a String can't fail.
    let _ = write!(
        line,
        " sub={subs} psub={psubs} ssub={ssubs} multi={queued} watch={} qbuf={} qbuf-free={} argv-mem={} \
         multi-mem={} rbs={} rbp={} obl={} oll={} omem={} tot-mem={} events={} cmd={cmd} user={} redir={redirect} \
         resp={} lib-name={} lib-ver={} tot-net-in={} tot-net-out={} tot-cmds={}",
        c.watched.len(),
        c.querybuf_len(),
        c.querybuf_free(),
        argv_bytes,
        c.multi.as_ref().map_or(0, |m| m.argv_len()),
        c.reply_class.size,
        c.reply_class.peak,
        c.reply.fixed_len(),
        c.reply.node_count(),
        c.reply.queued_memory() + lag,
        crate::clients::memory::memory_of(server, c) + lag,
        events_text(c),
        String::from_utf8_lossy(server.acl.name_of(c.user)),
        if c.reply.resp3 { 3 } else { 2 },
        text(&c.lib_name),
        text(&c.lib_ver),
        c.net_in,
        c.net_out,
        c.commands,
    );
    line
}

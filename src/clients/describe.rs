//! A client as one line: CLIENT LIST, CLIENT INFO, and the server's log.

use std::fmt::Write;

use crate::client::{Client, flag};
use crate::clients::memory;
use crate::state::Server;

/// The letter of each client flag in CLIENT LIST, in Redis's order.
const LETTERS: [(u64, char); 21] = [
    (flag::MONITOR, 'O'),
    (flag::REPLICA, 'S'),
    (flag::PRIMARY, 'M'),
    (flag::PUBSUB, 'P'),
    (flag::MULTI | flag::IN_EXEC, 'x'),
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
    (flag::INTERNAL, 'I'),
    (flag::SLOT_EXPORT, 'E'),
    (flag::SLOT_IMPORT, 'i'),
];

/// The letters of a client's flags in CLIENT LIST; `N` when the client has none of these flags.
pub fn flags_text(c: &Client) -> String {
    let text: String = LETTERS
        .iter()
        .filter(|(bit, _)| c.has(*bit))
        .map(|&(_, letter)| letter)
        .collect();
    if text.is_empty() { "N".into() } else { text }
}

/// Whether a letter stands for a client flag in CLIENT LIST.
pub fn is_flag_letter(letter: u8) -> bool {
    letter == b'N'
        || LETTERS
            .iter()
            .any(|(_, known)| *known == char::from(letter))
}

/// The events for which the loop watches the client's socket, `events` in CLIENT LIST.
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

/// A client as a line of CLIENT LIST: `id=3 addr=127.0.0.1:54422 laddr=127.0.0.1:6379 fd=8 ...`
pub fn describe(server: &Server, c: &Client) -> String {
    describe_with(server, c, c.argv_bytes())
}

/// The line of CLIENT LIST for a client whose command runs, with the arguments `argv`.
pub fn describe_running(server: &Server, c: &Client, argv: &[&[u8]]) -> String {
    describe_with(server, c, argv.iter().map(|arg| arg.len()).sum())
}

fn describe_with(server: &Server, c: &Client, argv_bytes: usize) -> String {
    let now = server.clock.now_ms;
    let (subs, psubs, ssubs) = c.pubsub.as_ref().map_or((0, 0, 0), |p| {
        (p.channels.len(), p.patterns.len(), p.shards.len())
    });
    let multi = c.multi.as_ref().map(|m| m.figures());
    // While EXEC runs a queue, the client's last request is EXEC.
    let argv_bytes = match c.has(flag::IN_EXEC) {
        true => "exec".len(),
        false => argv_bytes,
    };
    let cmd = c
        .shown_cmd
        .map_or("NULL", |id| &server.commands.entry(id).fullname);
    // For a replica, the number of bytes of the replication stream that have not been sent to it.
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
        " sub={subs} psub={psubs} ssub={ssubs} multi={} watch={} qbuf={} qbuf-free={} argv-mem={} \
         multi-mem={} rbs={} rbp={} obl={} oll={} omem={} tot-mem={} events={} cmd={cmd} user={} redir={redirect} \
         resp={} lib-name={} lib-ver={} tot-net-in={} tot-net-out={} tot-cmds={}",
        multi.map_or(-1, |m| m.commands as i64),
        c.watched.len(),
        c.querybuf_len(),
        c.querybuf_free(),
        argv_bytes,
        multi.map_or(0, |m| m.argv_len),
        c.reply_class.size,
        c.reply_class.peak,
        c.reply.fixed_len(),
        c.reply.node_count(),
        c.reply.queued_memory() + lag,
        memory::memory_of(server, c) + lag,
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

#[cfg(test)]
mod tests {
    use crate::client::flag;
    use crate::state::Server;
    use crate::testing::{heard, say, server_with};

    /// The value of the word `name=value` in a client's description.
    fn word(line: &str, name: &str) -> String {
        let mut words = line
            .split_whitespace()
            .filter_map(|word| word.split_once('='));
        let found = words.find(|(found, _)| *found == name);
        found
            .unwrap_or_else(|| panic!("no {name} in {line}"))
            .1
            .to_string()
    }

    fn words<const N: usize>(server: &mut Server, slot: u32, names: [&str; N]) -> [String; N] {
        let line = say(server, slot, &["client info"]);
        names.map(|name| word(&line, name))
    }

    #[test]
    fn a_transaction_is_still_one_while_exec_runs_it() {
        let mut server = server_with(1);
        let reply = say(&mut server, 0, &["multi", "client info", "get key", "exec"]);
        let shown =
            ["flags", "multi", "multi-mem", "argv-mem", "cmd"].map(|name| word(&reply, name));
        assert_eq!(shown, ["x", "2", "16", "4", "exec"]);
        let shown = words(&mut server, 0, ["flags", "multi", "multi-mem"]);
        assert_eq!(shown, ["N", "-1", "0"]);
    }

    /// After a watched key has changed, the client watches no key; the flag `d` makes EXEC reply
    /// with null.
    #[test]
    fn a_transaction_that_is_lost_watches_nothing() {
        let mut server = server_with(2);
        say(&mut server, 0, &["watch a b", "set c 1"]);
        assert_eq!(words(&mut server, 0, ["watch", "flags"]), ["2", "N"]);
        say(&mut server, 1, &["set a 1"]);
        assert_eq!(words(&mut server, 0, ["watch", "flags"]), ["0", "d"]);
        assert!(server.key_clients[0].watched.is_empty());
        assert_eq!(
            say(&mut server, 0, &["watch a", "multi", "exec"]),
            "+OK\r\n+OK\r\n*-1\r\n"
        );
        say(&mut server, 0, &["watch a", "set a 2"]);
        assert_eq!(words(&mut server, 0, ["watch", "flags"]), ["0", "d"]);
        say(&mut server, 0, &["unwatch"]);
        assert_eq!(words(&mut server, 0, ["watch", "flags"]), ["0", "N"]);
        say(&mut server, 0, &["watch a b c"]);
        say(&mut server, 1, &["flushall"]);
        assert_eq!(words(&mut server, 0, ["watch", "flags"]), ["0", "d"]);
    }

    /// A client's own GET deletes the expired key that it watches, which counts as a change of the
    /// key.
    #[test]
    fn a_client_that_expires_its_own_watched_key_has_lost_too() {
        let mut server = server_with(1);
        server.clock.update();
        say(&mut server, 0, &["set k v px 1000", "watch k"]);
        server.clock.now_ms += 2000;
        say(&mut server, 0, &["get k"]);
        assert_eq!(words(&mut server, 0, ["watch", "flags"]), ["0", "d"]);
        assert_eq!(say(&mut server, 0, &["multi", "exec"]), "+OK\r\n*-1\r\n");
    }

    #[test]
    fn omem_is_a_part_of_tot_mem() {
        let mut server = server_with(2);
        for bytes in [10, 20_000, 300_000] {
            let c = server.net.clients.get_mut(1).expect("a client");
            c.reply.bulk(&vec![b'x'; bytes]);
            let all = say(&mut server, 0, &["client list"]);
            let line = all
                .lines()
                .find(|line| line.contains("id=2 "))
                .expect("a line");
            let [omem, total] =
                ["omem", "tot-mem"].map(|name| word(line, name).parse::<u64>().expect("a number"));
            assert!(omem < total, "{line}");
        }
        heard(&mut server, 1);
    }

    /// A client gets no lines of MONITOR and no messages after the reply to QUIT.
    #[test]
    fn nothing_is_added_to_a_client_that_closes() {
        let mut server = server_with(3);
        assert_eq!(say(&mut server, 0, &["monitor", "quit"]), "+OK\r\n+OK\r\n");
        say(
            &mut server,
            1,
            &["hello 3", "subscribe news", "client tracking on bcast"],
        );
        assert_eq!(say(&mut server, 1, &["quit"]), "+OK\r\n");
        say(&mut server, 2, &["set k v"]);
        assert_eq!(say(&mut server, 2, &["publish news x"]), ":1\r\n");
        assert_eq!(heard(&mut server, 0) + &heard(&mut server, 1), "");
        assert!(
            server
                .net
                .clients
                .get(1)
                .is_some_and(|c| c.has(flag::CLOSE_AFTER_REPLY))
        );
    }

    /// The header of EXEC's reply announces three elements, but the first command closes the
    /// client.
    #[test]
    fn what_runs_behind_its_own_kill_is_not_answered() {
        let mut server = server_with(1);
        let lines = [
            "multi",
            "client kill id 1 skipme no",
            "set k v",
            "get k",
            "exec",
        ];
        let reply = say(&mut server, 0, &lines);
        assert!(reply.ends_with("*3\r\n:1\r\n"), "{reply}");
        assert_eq!(server.data.dbs[0].len(), 1);
    }
}

//! Errors of commands that come from this server's primary, from one of its replicas, or from the
//! AOF.
//!
//! ```text
//!   call, reject ─> note ─> log, counter ─┬─ ignore            the data may differ from the primary's
//!                                         ├─ panic             the process ends
//!                                         ├─ panic-on-replicas the same, but not for the AOF
//!                                         └─ resync            the link is closed; a full resync follows
//! ```
//!
//! No client gets the errors of commands from the replication stream or the AOF. Such an error
//! means that the data sets of two servers may differ from now on. A command that fails within a
//! script is not an error of the stream, as long as the script itself does not fail.

use crate::client::reply::Mark;
use crate::client::table::Net;
use crate::client::{Client, flag};
use crate::clients::describe::describe;
use crate::command::Role;
use crate::config::PropagationErrorBehavior as Behavior;
use crate::error::Error;
use crate::state::Server;
use crate::texts::Words;

/// The flags of the clients whose commands must not fail, so that an error is logged and counted:
/// links to the primary, to replicas and to the other node of a slot move, and the AOF's loader.
pub const NOTED: u64 = flag::PRIMARY | flag::REPLICA | flag::AOF_LOADER | flag::SLOT_LINK;

/// The maximum number of characters of an error reply that are logged.
const SHOWN: usize = 4096;

/// Logs and counts the error reply to a command of a client in [`NOTED`], and does what
/// `propagation-error-behavior` says.
#[cold]
pub fn note(server: &mut Server, c: &mut Client, error: &Error) {
    if c.has(flag::SCRIPT) {
        return;
    }
    if c.has(flag::SLOT_LINK) {
        return fail_transfer(server, c, error);
    }
    let primary = match server.config.words() {
        Words::Redis => "master",
        Words::Valkey => "primary",
    };
    let (from, to) = match () {
        () if c.has(flag::AOF_LOADER) => ("server", "AOF-loading-client"),
        () if c.has(flag::PRIMARY) => ("replica", primary),
        () => (primary, "replica"),
    };
    let command = match c.shown_cmd {
        Some(id) => server.commands.entry(id).fullname.clone(),
        None => "<unknown>".into(),
    };
    let text = shown(error);
    log::warn!(
        "== CRITICAL == This {from} is sending an error to its {to}: '{text}' after processing the command \
         '{command}' (offset {})",
        server.replication.stream.end()
    );
    server.stats.unexpected_error_replies += 1;
    let follows = c.has(flag::PRIMARY) && server.config.replica_read_only;
    match server.config.propagation_error_behavior {
        Behavior::Panic if follows || c.has(flag::AOF_LOADER) => end(from, to, &command),
        Behavior::PanicOnReplicas if follows => end(from, to, &command),
        Behavior::Resync if follows => resync(server, c),
        _ => {}
    }
}

/// Fails a move of slots, because a command that the other node has sent can't be executed.
fn fail_transfer(server: &mut Server, c: &mut Client, error: &Error) {
    let text = shown(error);
    if let Some(member) = &mut server.cluster {
        let now = member.now();
        member.transfers.link_failed(now, c.id, &text);
    }
    Net::close_asap(&mut server.net.close_asap, c);
}

/// Closes the connection of a replica whose command has a reply (which begins at `from`), since the
/// reply would get into the replication stream that the connection carries. The replies to SYNC and
/// PSYNC are allowed, as they precede the stream.
#[cold]
pub fn refuse_reply(server: &mut Server, c: &mut Client, from: Mark) {
    if !c.has(flag::REPLICA) || c.reply.bytes_since(from) == 0 {
        return;
    }
    let row = c.shown_cmd.map(|id| server.commands.row(id));
    if row.is_some_and(|row| row.role == Role::Synchronize) {
        return;
    }
    let entry = c.shown_cmd.map(|id| server.commands.entry(id));
    let name = entry.map_or("<unknown>".into(), |entry| entry.fullname.clone());
    c.reply.truncate(from);
    log::warn!(
        "Replica generated a reply to command '{name}', disconnecting it: {}",
        describe(server, c)
    );
    Net::close_asap(&mut server.net.close_asap, c);
}

/// The error as Redis and Valkey log it: without the code `ERR`, with a `-` before another code.
fn shown(error: &Error) -> String {
    let text = error.text();
    let text = match text.strip_prefix("ERR ") {
        Some(text) => text.to_string(),
        None => format!("-{text}"),
    };
    text.chars().take(SHOWN).collect()
}

/// Ends the process, as `propagation-error-behavior` requires.
fn end(from: &str, to: &str, command: &str) {
    panic!(
        "This {from} panicked sending an error to its {to} after processing the command '{command}'"
    )
}

/// Closes the link to the primary. The next link requests a full resync, which replaces the data
/// set.
fn resync(server: &mut Server, c: &mut Client) {
    let Some(upstream) = &mut server.replication.upstream else {
        return;
    };
    if upstream.client == Some(c.reference()) {
        log::warn!("propagation-error-behavior is resync: a full resync follows");
        upstream.can_continue = false;
        Net::close_asap(&mut server.net.close_asap, c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_shown_as_in_the_peers_logs() {
        assert_eq!(shown(&Error::SYNTAX), "syntax error");
        assert_eq!(shown(&Error::of("MY err")), "-MY err");
        let long = Error::new("x".repeat(2 * SHOWN));
        assert_eq!(shown(&long).len(), SHOWN);
    }
}

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
//! No client reads these errors: they mean that the data sets of two servers may differ from now
//! on. A command of a script that fails is not an error of the stream, as long as the script
//! itself does not fail.

use crate::client::table::Net;
use crate::client::{Client, flag};
use crate::config::PropagationErrorBehavior as Behavior;
use crate::error::Error;
use crate::state::Server;
use crate::texts::Words;

/// The clients whose errors are noted.
pub const NOTED: u64 = flag::PRIMARY | flag::REPLICA | flag::AOF_LOADER;

/// The maximum length of an error in the log, in bytes.
const SHOWN: usize = 4096;

/// Notes the error that is the reply to a command of such a client, and does what
/// `propagation-error-behavior` says.
#[cold]
pub fn note(server: &mut Server, c: &mut Client, error: &Error) {
    if c.has(flag::SCRIPT) {
        return;
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

/// The error as the peers' logs show it: without the code `ERR`, with a `-` before another code.
fn shown(error: &Error) -> String {
    let text = error.text();
    let text = match text.strip_prefix("ERR ") {
        Some(text) => text.to_string(),
        None => format!("-{text}"),
    };
    text.chars().take(SHOWN).collect()
}

/// Ends the process, as the setting demands.
fn end(from: &str, to: &str, command: &str) {
    panic!(
        "This {from} panicked sending an error to its {to} after processing the command '{command}'"
    )
}

/// Closes the link to the primary; a full resync replaces the data set.
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

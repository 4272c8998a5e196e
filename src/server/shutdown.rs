//! Stops the server: SHUTDOWN, SIGTERM and SIGINT.
//!
//! ```text
//!   SHUTDOWN ─> request ─┐ (before_sleep)               ┌─> replicas behind? wait ─┐
//!                        ├─> prepare: wait for           │   (cron: caught up, or    │
//!   signal ───> cron ────┘   replicas? ─────────────────┘    the time is over)      │
//!                                   refused: reply with      │                      v
//!                                   an error, go on  <───────┴── save ── stop the loop ─> finish
//! ```
//!
//! With the option FAILOVER of SHUTDOWN, a primary of a cluster chooses a replica that has the
//! whole stream before it saves, and sends the replica CLUSTER FAILOVER in the stream. The save
//! runs in a later turn, when the command has been sent, so the replica serves while this process
//! still saves.
//!
//! SHUTDOWN only requests the stop; the data set is saved between two turns of the loop, after all
//! commands of a turn and before their replies. So everything that was acknowledged has been saved.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use crate::client::blocked::BlockKind;
use crate::client::{Client, ClientRef, flag};
use crate::config::ShutdownFlags;
use crate::error::Error;
use crate::execute::blocked;
use crate::execute::pause::PausePurpose;
use crate::persist::aof::{self, State};
use crate::persist::child::{self, ChildKind};
use crate::persist::rdb::background;
use crate::replication::replicas::Replica;
use crate::script::debug;
use crate::server::supervisor;
use crate::server::trace;
use crate::state::Server;
use crate::sys;
use crate::sys::process;
use crate::sys::signals;
use crate::sys::tape;
use crate::texts;

/// A stop was refused; the server's log has the details.
#[derive(Debug)]
pub struct Refused;

/// How the process starts again after DEBUG RESTART or TRACE RECORD.
#[derive(Default)]
pub struct Restart {
    /// DEBUG RESTART: the delay before the new start.
    pub delay: Duration,
    /// TRACE RECORD: further arguments of the new process.
    pub arguments: Vec<String>,
}

/// The state of a shutdown that was requested or is in progress.
#[derive(Default)]
pub struct Shutdown {
    /// The options of a SHUTDOWN in this turn.
    requested: Option<ShutdownFlags>,
    /// A stop that waits for replicas, or has just named a successor: its options, and the Unix
    /// time in milliseconds at which the wait ends.
    pub pending: Option<(ShutdownFlags, i64)>,
    /// Set if the process starts again after the loop has ended.
    pub restart: Option<Restart>,
    /// The clients that called SHUTDOWN, which get a reply only if the stop fails.
    clients: Vec<ClientRef>,
    /// Whether the loop ends after this turn.
    pub now: bool,
}

/// SHUTDOWN: stops after this turn. The client gets a reply only if the stop fails.
pub fn request(server: &mut Server, c: &mut Client, argv: &[&[u8]], options: ShutdownFlags) {
    blocked::block(server, c, BlockKind::Shutdown, argv, 0);
    server.shutdown.clients.push(c.reference());
    server.shutdown.requested.get_or_insert(options);
}

/// Before the loop sleeps: handles a SHUTDOWN of this turn.
pub fn handle_request(server: &mut Server) {
    let Some(options) = server.shutdown.requested.take() else {
        return;
    };
    // If a shutdown is in progress already, a further client that calls SHUTDOWN gets the reply of
    // the first client.
    let in_progress = server.shutdown.pending.is_some();
    if !in_progress && prepare(server, options).is_err() {
        refuse_clients(server);
    }
}

/// A job of the cron: handles SIGTERM and SIGINT, and the end of a shutdown's wait for replicas.
pub fn cron(server: &mut Server) {
    if let Some((options, deadline_ms)) = server.shutdown.pending {
        if (server.clock.now_ms >= deadline_ms || replicas_are_ready(server))
            && begin_to_stop(server, options).is_err()
        {
            refuse_clients(server);
        }
        return;
    }
    let Some(signal) = signals::shutdown_asked() else {
        return;
    };
    let options = if signal == libc::SIGINT {
        server.config.shutdown_on_sigint
    } else {
        server.config.shutdown_on_sigterm
    };
    if prepare(server, options).is_err() {
        signals::clear_shutdown();
    }
}

/// SHUTDOWN ABORT: cancels a stop that is in progress. Returns false if no stop is in progress.
pub fn abort(server: &mut Server) -> bool {
    let in_progress = server.shutdown.pending.is_some() || server.shutdown.requested.is_some();
    if !in_progress && signals::shutdown_asked().is_none() {
        return false;
    }
    log::info!("Shutdown manually aborted.");
    server.shutdown.requested = None;
    signals::clear_shutdown();
    give_up_waiting(server);
    refuse_clients(server);
    true
}

/// Begins to stop the server. `Ok`: the server stops, or waits for replicas and the cron continues.
fn prepare(server: &mut Server, mut options: ShutdownFlags) -> Result<(), Refused> {
    if server.is_loading() {
        // A partly loaded data set must not replace the whole data set in the RDB file.
        (options.save, options.nosave) = (false, true);
    }
    // Changes that were propagated outside of any command, such as expired keys, must be in the
    // stream, too.
    server.end_unit();
    log::info!("User requested shutdown...");
    let timeout_ms = server.config.shutdown_timeout as i64 * 1000;
    if !options.now && timeout_ms > 0 && !replicas_are_ready(server) {
        log::info!("Waiting for replicas before shutting down.");
        let deadline_ms = server.clock.now_ms.saturating_add(timeout_ms);
        // Without a request, replicas acknowledge once a second only.
        server.replication.request_acks();
        server.shutdown.pending = Some((options, deadline_ms));
        server.pause_clients(PausePurpose::Shutdown, i64::MAX, false);
        return Ok(());
    }
    begin_to_stop(server, options)
}

/// With the option FAILOVER, chooses a replica as the successor; then stops the server.
fn begin_to_stop(server: &mut Server, mut options: ShutdownFlags) -> Result<(), Refused> {
    if !std::mem::take(&mut options.failover) || !hand_over(server) {
        return stop(server, options);
    }
    server.shutdown.pending = Some((options, server.clock.now_ms));
    server.pause_clients(PausePurpose::Shutdown, i64::MAX, false);
    Ok(())
}

/// Lets the best replica of this primary take over its slots. Returns whether a replica was chosen.
/// No replica is chosen if one of them does not know the command CLUSTER FAILOVER with REPLICAID,
/// which it would answer with an error.
fn hand_over(server: &mut Server) -> bool {
    let Some(member) = &server.cluster else {
        return false;
    };
    let node = member.machine.myself();
    if !node.is_primary() || node.slot_count == 0 {
        return false;
    }
    let replicas = &server.replication.replicas;
    let knows = |replica: &Replica| {
        let version = replica.announced.version;
        !replica.has_stream() || version.is_some_and(|version| version >= 0x09_00_00)
    };
    if !replicas.iter().all(knows) {
        log::warn!("Unable to perform auto failover on shutdown since there are legacy replicas.");
        return false;
    }
    let end = server.replication.stream.end();
    let is_complete = |replica: &&Replica| replica.is_online() && replica.acked == end;
    let successor = replicas.iter().filter(is_complete).find_map(|replica| {
        let node = replica.announced.node.clone()?;
        Some((replica.name(), node))
    });
    let Some((replica, node)) = successor else {
        log::warn!("Unable to find a replica to perform the auto failover on shutdown.");
        return false;
    };
    log::info!("Perform auto failover to replica {replica} on shutdown.");
    let argv: [&[u8]; 5] = [b"CLUSTER", b"FAILOVER", b"FORCE", b"REPLICAID", &node];
    server.propagation.to_replicas(0, &argv);
    server.end_unit();
    true
}

/// Whether all replicas that get the replication stream have acknowledged the whole stream. A
/// connection that is for a snapshot only is not counted.
fn replicas_are_ready(server: &Server) -> bool {
    let end = server.replication.stream.end();
    let mut replicas = server.replication.replicas.iter();
    replicas.all(|replica| replica.acked == end || !replica.has_stream())
}

/// Logs each replica that has not acknowledged the whole replication stream.
fn log_lagging_replicas(server: &Server) {
    let end = server.replication.stream.end();
    let replicas = &server.replication.replicas;
    let (mut all, mut in_sync) = (0, 0);
    let with_stream = |replica: &&Replica| replica.has_stream();
    for replica in replicas.iter().filter(with_stream) {
        all += 1;
        if replica.acked == end {
            in_sync += 1;
            continue;
        }
        log::info!(
            "Lagging replica {} reported offset {} behind master, lag={}, state={}.",
            replica.name(),
            end - replica.acked,
            replica.lag_s(server.clock.now_ms),
            replica.state_name()
        );
    }
    if all > 0 {
        log::info!("{in_sync} of {all} replicas are in sync when shutting down.");
    }
}

/// Saves the data set if the options and settings say so, and ends the event loop.
fn stop(server: &mut Server, options: ShutdownFlags) -> Result<(), Refused> {
    debug::end_sessions(server);
    log_lagging_replicas(server);
    if save(server, options).is_err() && !options.force {
        log::warn!("Errors trying to shut down the server. Check the logs for more information.");
        give_up_waiting(server);
        signals::clear_shutdown();
        return Err(Refused);
    }
    server.shutdown.now = true;
    if server.shutdown.restart.is_none() {
        supervisor::stopping();
    }
    Ok(())
}

/// Ends the children, flushes and syncs the AOF, and writes the last snapshot.
fn save(server: &mut Server, options: ShutdownFlags) -> Result<(), Refused> {
    if server.aof.state != State::Off {
        save_aof(server, options)?;
    }
    let wanted = options.save || !options.nosave && !server.config.save.is_empty();
    let saved = background::save_at_shutdown(server, wanted, options.force);
    saved.map_err(|_| Refused)
}

/// Makes the AOF durable. An AOF whose rewrite was killed is longer than after a rewrite, but
/// complete.
fn save_aof(server: &mut Server, options: ShutdownFlags) -> Result<(), Refused> {
    let is_rewritten = server
        .child
        .as_ref()
        .is_some_and(|child| child.kind == ChildKind::Aof);
    if is_rewritten {
        // A new AOF can't be loaded without its base file, which the child writes.
        if server.aof.state == State::WaitRewrite && !options.force {
            log::warn!("Writing initial AOF, can't exit.");
            return Err(Refused);
        }
        if server.aof.state == State::WaitRewrite {
            log::warn!("Writing initial AOF. Exit anyway.");
        }
        log::warn!("There is a child rewriting the AOF. Killing it!");
        child::kill_and_wait(server, ChildKind::Aof);
    }
    aof::finish(server).map_err(|_| Refused)
}

fn give_up_waiting(server: &mut Server) {
    if server.shutdown.pending.take().is_some() {
        server.unpause_clients(PausePurpose::Shutdown);
    }
}

/// Replies to all clients that called SHUTDOWN that the stop was refused.
fn refuse_clients(server: &mut Server) {
    server.shutdown.restart = None;
    for r in std::mem::take(&mut server.shutdown.clients) {
        let Some(mut c) = server.net.clients.take_ref(r) else {
            continue;
        };
        let error = Error::of("ERR Errors trying to SHUTDOWN. Check logs.");
        let reply_from = c.reply.mark();
        c.reply.error(&error);
        c.drop_unwanted_reply(reply_from);
        c.clear(flag::REPLY_SKIP);
        server.stats.count_error(error.code());
        blocked::unblock(server, &mut c);
        server.net.clients.put(c);
    }
}

/// Removes the pid file and the unix sockets, which exist only while the server runs. Called after
/// the loop has ended.
pub fn finish(server: &mut Server, ended: io::Result<()>) -> ExitCode {
    tape::finish();
    if let Err(e) = ended {
        log::warn!("The event loop failed: {}", sys::error_text(&e));
        return ExitCode::FAILURE;
    }
    trace::write_session(server);
    if !server.config.pidfile.is_empty() {
        log::info!("Removing the pid file.");
        // The pid file may never have been written, or may be removed already.
        let _ = std::fs::remove_file(&server.config.pidfile);
    }
    for path in server.net.made_unix_sockets(&server.config) {
        log::info!("Removing the unix socket file.");
        let _ = std::fs::remove_file(path);
    }
    server.net.listeners.clear();
    if let Some(wanted) = server.shutdown.restart.take() {
        let error = restart(server, wanted);
        log::warn!("Can't restart: {}", sys::error_text(&error));
        return ExitCode::FAILURE;
    }
    log::warn!("{}", server.config.text(texts::LOG_BYE));
    ExitCode::SUCCESS
}

/// Replaces this process by the same program with the same arguments, after a delay. Returns only
/// if the replacement fails.
pub fn restart(server: &Server, wanted: Restart) -> io::Error {
    sys::sleep(wanted.delay);
    log::warn!("Restarting.");
    // Relative paths in the arguments begin in the directory in which the server was started. If
    // the directory is gone, opening such paths fails with an error.
    let _ = std::env::set_current_dir(&server.config.start_dir);
    let argv = [&server.run.argv[..], &wanted.arguments].concat();
    process::replace(&server.run.executable, &argv)
}

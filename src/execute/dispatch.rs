//! Whether a client may run a command now. `process_command` makes the checks in Redis's order and
//! runs the command, queues it for EXEC, or refuses it.

use crate::acl;
use crate::armed;
use crate::client::resp::Sent;
use crate::client::table;
use crate::client::{Client, NO_SLOT, flag};
use crate::command;
use crate::command::{Command, Role};
use crate::error::{Error, excerpt};
use crate::execute::blocked;
use crate::execute::call::{call, reject};
use crate::execute::cross_protocol;
use crate::execute::route;
use crate::execute::transaction;
use crate::keyspace::evict;
use crate::state::Server;
use crate::texts::{self, Words};
use crate::tracking;

/// The features that must do something before and after each command of a client.
const AROUND: u32 = armed::TRACKING | armed::IMPORT | armed::SLOT_IMPORTS;

/// Values that belong to the command that lets a nested turn run (a script), saved while a command
/// of another client runs in the nested turn.
struct Outer {
    /// The id of the client whose command lets the nested turn run.
    running: u64,
    /// Whether expired keys count as alive for the command that lets the nested turn run.
    applying: bool,
}

#[cold]
fn begin(server: &mut Server, c: &mut Client) -> Outer {
    let applying = server.replication.applying;
    if server.armed & (armed::IMPORT | armed::SLOT_IMPORTS) != 0 {
        server.replication.applying = c.has(flag::IMPORT_SOURCE | flag::SLOT_IMPORT);
    }
    let running = match server.armed & armed::TRACKING {
        0 => 0,
        _ => tracking::begin(server, c),
    };
    Outer { running, applying }
}

#[cold]
fn end(server: &mut Server, c: &mut Client, argv: &[&[u8]], outer: Option<Outer>) {
    let running = outer.as_ref().map_or(0, |outer| outer.running);
    if let Some(outer) = outer {
        server.replication.applying = outer.applying;
    }
    tracking::end(server, c, argv, running);
}

/// Runs, queues, holds back or refuses one request of a client. `id` is the number of the top-level
/// command; `None` if no command has that name.
pub fn process_command(
    server: &mut Server,
    c: &mut Client,
    argv: &[&[u8]],
    id: Option<u16>,
    sent: Sent,
) {
    if c.has(flag::REPLY_SKIP_NEXT) {
        c.clear(flag::REPLY_SKIP_NEXT);
        c.set(flag::REPLY_SKIP);
    }
    let around = server.armed & AROUND != 0;
    let outer = around.then(|| begin(server, c));
    match check(server, c, argv, id) {
        Ok(Verdict::Run(id)) => {
            call(server, c, argv, id, sent);
            // While a script runs, its changes are not complete, so commands in its nested turns
            // serve no blocked clients.
            let whole = server.nesting == 0 && !c.has(flag::MULTI);
            if whole && !server.blocked.ready_keys.is_empty() {
                blocked::handle_ready_keys(server);
            }
        }
        Ok(Verdict::Queue(id, flags)) => {
            transaction::queue(server, c, id, flags, argv);
            if !c.has(flag::REPLY_OFF | flag::REPLY_SKIP) {
                c.reply.status("QUEUED");
            }
        }
        Ok(Verdict::Postpone) => blocked::postpone(server, c, argv),
        // Only unknown commands are checked for HTTP, so that known ones don't pay for the check.
        Err((None, _)) if cross_protocol::is_http(argv[0]) => cross_protocol::abort(server, c),
        Err((id, error)) => reject(server, c, id, error),
    }
    // The command may have switched client-side caching on for the first client, or off for the
    // last one.
    if around || server.armed & AROUND != 0 {
        end(server, c, argv, outer);
    }
    if !server.net.later.is_empty() {
        let offset = server.offset_of_event();
        table::send_later(&mut server.net, c, offset);
    }
    // The flags REPLY_SKIP and ASKING stay while the client is blocked, since the command's reply
    // is still to come.
    if c.has(flag::REPLY_SKIP | flag::ASKING) && !c.has(flag::BLOCKED) {
        end_of_command(server, c);
    }
}

/// Clears the flags that are set for one command only: that of CLIENT REPLY SKIP, and that of
/// ASKING, which in a transaction lasts from MULTI to EXEC.
#[cold]
fn end_of_command(server: &Server, c: &mut Client) {
    c.clear(flag::REPLY_SKIP);
    let row = c.shown_cmd.map(|id| server.commands.row(id));
    if !c.has(flag::MULTI) && row.is_none_or(|row| row.role != Role::Asking) {
        c.clear(flag::ASKING);
    }
}

enum Verdict {
    Run(u16),
    /// Queue the command for EXEC, with the flags that [`flags_of`] has returned.
    Queue(u16, command::Flags),
    /// Hold the command back because of CLIENT PAUSE.
    Postpone,
}

type Refusal = (Option<u16>, Error);

fn check(
    server: &mut Server,
    c: &mut Client,
    argv: &[&[u8]],
    id: Option<u16>,
) -> Result<Verdict, Refusal> {
    c.shown_cmd = None;
    let id = resolve(server, argv, id)?;
    c.shown_cmd = Some(id);
    let cmd = server.commands.row(id);
    let refuse = |error: Error| (Some(id), error);
    if !cmd.check_arity(argv.len()) {
        let name = server.commands.entry(id).fullname.clone();
        return Err(refuse(Error::arity(&name)));
    }
    if cmd.flags & command::PROTECTED != 0 {
        check_protected(server, c, cmd).map_err(refuse)?;
    }
    if !c.authenticated && cmd.flags & command::NO_AUTH == 0 && server.acl.auth_required() {
        return Err(refuse(Error::NOAUTH));
    }
    if c.has(flag::MULTI) && cmd.flags & command::NO_MULTI != 0 {
        check_nesting(server, cmd).map_err(refuse)?;
    }
    if server.armed & armed::REPLICA != 0
        && c.has(flag::CAPA_REDIRECT)
        && redirect(server, c, cmd, argv).map_err(refuse)?
    {
        return Ok(Verdict::Postpone);
    }
    if server.armed & (armed::ACL | armed::ROUTE) != 0 {
        acl::check_command(server, c, argv, id).map_err(refuse)?;
        check_slot(server, c, argv, id).map_err(refuse)?;
    }
    let flags = flags_of(server, c, cmd, argv);
    if server.config.maxmemory != 0 {
        check_memory(server, c, flags).map_err(refuse)?;
    }
    check_disk(server, c, cmd, flags).map_err(refuse)?;
    if server.armed & armed::REPLICA != 0 {
        check_replica(server, c, cmd, flags).map_err(refuse)?;
    }
    if c.has(flag::PUBSUB) && !c.reply.resp3 && cmd.flags & command::IN_SUBSCRIBED == 0 {
        return Err(refuse(subscribe_mode_error(server, id)));
    }
    if server.is_loading() && is_denied_by_loading(server, c, cmd, flags) {
        return Err(refuse(Error::of(server.config.text(texts::LOADING))));
    }
    if let Some(running) = &server.scripting.running
        && cmd.flags & command::ALLOW_BUSY == 0
    {
        return Err(refuse(running.busy_error(&server.config)));
    }
    if c.has(flag::MONITOR | flag::REPLICA)
        && cmd.flags & (command::READONLY | command::WRITE | command::MAY_REPLICATE) != 0
    {
        return Err(refuse(Error::of(
            "ERR Replica can't interact with the keyspace",
        )));
    }
    if server.armed & armed::PAUSED != 0 && must_wait(server, c, flags).map_err(refuse)? {
        return Ok(Verdict::Postpone);
    }
    if c.has(flag::MULTI) && cmd.flags & command::RUNS_IN_MULTI == 0 {
        return Ok(Verdict::Queue(id, flags));
    }
    Ok(Verdict::Run(id))
}

/// On a cluster node, refuses a command whose keys belong to another node.
#[inline(never)]
fn check_slot(server: &mut Server, c: &mut Client, argv: &[&[u8]], id: u16) -> Result<(), Error> {
    if server.armed & armed::ROUTE == 0 {
        return Ok(());
    }
    route::check(server, c, id, argv, |server, c| {
        flags_of(server, c, server.commands.row(id), argv)
    })
}

/// Refuses commands that are not allowed between MULTI and EXEC. With `extended-redis-compatibility
/// yes`, MULTI and WATCH run inside a transaction: MULTI and WATCH reply with an error of their
/// own, and EXEC still runs the transaction's other commands.
fn check_nesting(server: &Server, cmd: &Command) -> Result<(), Error> {
    if server.config.words() == Words::Redis && cmd.is(command::MULTI_IN_REDIS) {
        return Ok(());
    }
    Err(Error::of("ERR Command not allowed inside a transaction"))
}

/// Finds the command of a request in the AOF: looks up its name, resolves its subcommand and checks
/// its number of arguments. The errors are those that a client would get for this request.
pub fn find_command(server: &Server, argv: &[&[u8]]) -> Result<u16, Error> {
    let id = resolve(server, argv, server.commands.lookup(argv[0])).map_err(|(_, error)| error)?;
    if !server.commands.row(id).check_arity(argv.len()) {
        return Err(Error::arity(&server.commands.entry(id).fullname));
    }
    Ok(id)
}

/// The id of the command `argv`; of a command with subcommands (CONFIG), the id of the subcommand
/// (CONFIG GET).
#[inline]
fn resolve(server: &Server, argv: &[&[u8]], id: Option<u16>) -> Result<u16, Refusal> {
    let Some(id) = id else {
        return Err((None, unknown_command(argv)));
    };
    let (_, subcommands) = server.commands.entry(id).subcommands;
    if subcommands == 0 || argv.len() < 2 {
        return Ok(id);
    }
    resolve_subcommand(server, id, argv[1])
}

#[inline(never)]
fn resolve_subcommand(server: &Server, id: u16, name: &[u8]) -> Result<u16, Refusal> {
    let found = server.commands.lookup_subcommand(id, name);
    found.ok_or_else(|| {
        let container = server.commands.entry(id).fullname.to_uppercase();
        let name = excerpt(name, 128);
        let text = format!("ERR unknown subcommand '{name}'. Try {container} HELP.");
        (None, Error::new(text))
    })
}

#[cold]
fn unknown_command(argv: &[&[u8]]) -> Error {
    let mut args = String::new();
    let mut left = 128;
    for arg in &argv[1..] {
        let shown = excerpt(arg, left);
        args.push_str(&format!("'{shown}' "));
        // The error shows at most 128 characters of arguments, including the two quotes and the
        // space around each argument.
        left = left.saturating_sub(shown.chars().count() + 3);
        if left == 0 {
            break;
        }
    }
    Error::new(format!(
        "ERR unknown command '{}', with args beginning with: {args}",
        excerpt(argv[0], 128)
    ))
}

/// Refuses DEBUG and MODULE unless `enable-debug-command` or `enable-module-command` allows them to
/// this client.
fn check_protected(server: &Server, c: &Client, cmd: &Command) -> Result<(), Error> {
    let (setting, what) = if cmd.role == Role::Debug {
        (server.config.enable_debug_command, "debug")
    } else {
        (server.config.enable_module_command, "module")
    };
    if setting.allows(c.is_local()) {
        return Ok(());
    }
    Err(Error::new(format!(
        "ERR {} command not allowed. If the enable-{what}-command option is set to \"local\", you can run \
         it from a local connection, otherwise you need to set this option in the configuration file, and \
         then restart the server.",
        what.to_uppercase()
    )))
}

/// The flags of a command: for EXEC those of the queued commands, for EVAL and FCALL those that the
/// script declares.
#[inline]
fn flags_of(server: &Server, c: &Client, cmd: &Command, argv: &[&[u8]]) -> command::Flags {
    if cmd.flags & command::SCRIPT_DECIDES != 0 {
        return server
            .scripting
            .command_flags(&server.data.functions, cmd, argv);
    }
    if cmd.is(command::RUNS_QUEUE)
        && let Some(queued) = &c.multi
    {
        return queued.flags;
    }
    cmd.flags
}

/// Whether the command is refused because it needs data that is being loaded; EXEC needs the data
/// that its queued commands need.
#[cold]
fn is_denied_by_loading(server: &Server, c: &Client, cmd: &Command, flags: command::Flags) -> bool {
    if server.loading.is_aside() {
        return flags & command::NO_ASYNC_LOADING != 0;
    }
    lacks(c, cmd) & command::LOADING != 0
}

/// The flags that the command lacks; EXEC lacks each flag that one of its queued commands lacks.
fn lacks(c: &Client, cmd: &Command) -> command::Flags {
    let queued = c.multi.as_ref().filter(|_| cmd.is(command::RUNS_QUEUE));
    !cmd.flags | queued.map_or(0, |queued| queued.lacks)
}

/// Evicts keys if `maxmemory` is exceeded. Refuses a command that may need more memory if no key
/// can be evicted.
fn check_memory(server: &mut Server, c: &mut Client, flags: command::Flags) -> Result<(), Error> {
    if c.replays() || server.replication.is_replica() && server.config.replica_ignore_maxmemory {
        return Ok(());
    }
    let enough = evict::perform_evictions(server);
    let left = (server.config.maxmemory as usize).saturating_sub(server.memory_counted());
    server.data.dbs[c.db as usize].keys.set_headroom(left);
    if server.armed & armed::TRACKING != 0 {
        // Invalidations of evicted keys are sent to the client before its reply.
        tracking::send_pending(server, c);
    }
    if !enough && flags & command::DENYOOM != 0 {
        return Err(Error::OOM);
    }
    Ok(())
}

/// Refuses writes and PING while the data set can't be saved and the settings demand it.
fn check_disk(
    server: &mut Server,
    c: &Client,
    cmd: &Command,
    flags: command::Flags,
) -> Result<(), Error> {
    let writes = flags & command::WRITE != 0;
    if let Some(error) = write_refusal(server)
        && (writes || cmd.role == Role::Ping)
    {
        if !c.has(flag::PRIMARY) {
            return Err(error);
        }
        apply_without_disk(server, writes);
    }
    if writes && too_few_replicas(server) && !c.has(flag::PRIMARY) {
        return Err(Error::NOREPLICAS);
    }
    Ok(())
}

/// Handles a command of the primary whose changes can't be saved. A replica can't refuse its
/// primary's commands, so the process ends unless `replica-ignore-disk-write-errors` is set.
#[cold]
fn apply_without_disk(server: &mut Server, writes: bool) {
    const LOG_PERIOD_MS: i64 = 10_000;
    assert!(
        !writes || server.config.replica_ignore_disk_write_errors,
        "Replica was unable to write command to disk."
    );
    let now_ms = server.clock.now_ms;
    let logged_ms = &mut server.replication.disk_error_logged_ms;
    if now_ms - *logged_ms > LOG_PERIOD_MS {
        *logged_ms = now_ms;
        log::warn!("Replica is applying a command even though it is unable to write to disk.");
    }
}

/// On a replica, for a client that follows redirections: refuses commands on keys with an error
/// that has the primary's address, except reads of a client that has sent READONLY. Returns whether
/// the command must wait: while a failover is in progress, the future primary may still be a
/// replica.
#[cold]
fn redirect(server: &Server, c: &Client, cmd: &Command, argv: &[&[u8]]) -> Result<bool, Error> {
    let flags = flags_of(server, c, cmd, argv);
    let writes = flags & command::WRITE != 0;
    let reads = flags & command::READONLY != 0 && !c.has(flag::READONLY);
    if c.must_obey() || !(writes || reads) {
        return Ok(false);
    }
    if server.replication.failover.is_in_progress() {
        return Ok(true);
    }
    match redirection(server) {
        Some(error) => Err(error),
        None => Ok(false),
    }
}

/// The error `REDIRECT host:port` with the address of the primary; `None` on a primary.
pub fn redirection(server: &Server) -> Option<Error> {
    let upstream = server.replication.upstream.as_ref()?;
    let text = format!("REDIRECT {}:{}", upstream.host, upstream.port);
    Some(Error::new(text))
}

/// On a replica, refuses writes, and, while the link to the primary is down, reads of data that may
/// be out of date.
#[cold]
fn check_replica(
    server: &mut Server,
    c: &Client,
    cmd: &Command,
    flags: command::Flags,
) -> Result<(), Error> {
    if c.must_obey() {
        return Ok(());
    }
    if flags & command::WRITE != 0 {
        if is_read_only(server) {
            return Err(Error::READONLY);
        }
        // A queued command is counted as a local write of the replica only when its EXEC runs.
        let runs = !c.has(flag::MULTI) || cmd.is(command::RUNS_QUEUE);
        server.stats.replica_local_writes += u64::from(runs);
    }
    // With stale data, EXEC is allowed if all its queued commands are allowed, and a script if its
    // flags include allow-stale.
    let allowed = match cmd.is(command::RUNS_QUEUE) {
        true => !lacks(c, cmd),
        false => flags,
    };
    if is_stale(server) && allowed & command::STALE == 0 {
        return Err(Error::MASTERDOWN);
    }
    Ok(())
}

/// Whether this server is a replica that refuses writes of its clients.
pub fn is_read_only(server: &Server) -> bool {
    server.replication.is_replica() && server.config.replica_read_only
}

/// Whether this server is a replica that must not be read while the link to its primary is down.
pub fn is_stale(server: &Server) -> bool {
    server.replication.is_link_down() && !server.config.replica_serve_stale_data
}

/// Whether `min-replicas-to-write` is not met. On a replica the answer is false: the primary has
/// checked the writes.
#[inline]
pub fn too_few_replicas(server: &Server) -> bool {
    let (config, replication) = (&server.config, &server.replication);
    let (wanted, max_lag_s) = (config.min_replicas_to_write, config.min_replicas_max_lag);
    if wanted == 0 || max_lag_s == 0 || replication.is_replica() {
        return false;
    }
    let good = replication
        .replicas
        .good(max_lag_s.into(), server.clock.now_ms);
    good < wanted as usize
}

/// The error reply to writes while an error of the AOF or of the last RDB save demands that writes
/// are refused; `None` if writes are allowed.
#[inline]
pub fn write_refusal(server: &Server) -> Option<Error> {
    let aof = server.aof.write_refusal();
    aof.or_else(|| server.rdb.write_refusal(&server.config))
}

fn subscribe_mode_error(server: &Server, id: u16) -> Error {
    let name = &server.commands.entry(id).fullname;
    Error::new(format!(
        "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are \
         allowed in this context"
    ))
}

/// Refuses writes to a slot that this node has granted to another node, while this node does not
/// know whether the other node has taken the slot.
fn check_handed_over(server: &Server, slot: u16) -> Result<(), Error> {
    match server.pause.slot_is_refused(slot) {
        true => Err(Error::of(
            "TRYAGAIN The slot is being handed over to another node, which can't be reached",
        )),
        false => Ok(()),
    }
}

/// Whether CLIENT PAUSE holds a command back: ALL holds back all commands, WRITE those that may
/// change data. A command that may write to a slot that is being handed over to another node is
/// held back, too.
fn must_wait(server: &Server, c: &Client, flags: command::Flags) -> Result<bool, Error> {
    if c.has(flag::REPLICA | flag::PRIMARY) || c.conn.is_none() {
        return Ok(false);
    }
    let now = server.clock.now_ms;
    if server.pause.holds_all(now) {
        return Ok(true);
    }
    if flags & (command::WRITE | command::MAY_REPLICATE) == 0 {
        return Ok(false);
    }
    if server.pause.holds_slots() && c.hash_slot != NO_SLOT {
        check_handed_over(server, c.hash_slot)?;
        if server.pause.slot_waits(c.hash_slot) {
            return Ok(true);
        }
    }
    Ok(server.pause.holds_writes(now))
}

//! REPLICAOF, FAILOVER, and the commands that a replica sends to its primary: REPLCONF, PSYNC,
//! SYNC.

use crate::client::announced::{Announced, Contents};
use crate::client::flag;
use crate::client::table::Net;
use crate::clients::describe::describe_running;
use crate::cluster::name::Name;
use crate::command::ctx::{CmdResult, Ctx};
use crate::command::*;
use crate::error::{Error, said};
use crate::persist::rdb;
use crate::replication::failover::{Event, Request};
use crate::replication::upstream::Upstream;
use crate::state::Server;
use crate::sync::primary::{self, Request as SyncRequest};
use crate::sync::{failover, role};
use crate::sys::tape;
use crate::util::number::parse_i64;
use crate::util::quote::split_args;

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[
    cmd("failover", failover, -1, ADMIN | NOSCRIPT | STALE, NONE_CAT),
    cmd("psync", sync, -3, SYNCHRONIZE, NONE_CAT).role(Role::Synchronize),
    cmd(
        "replconf",
        replconf,
        -1,
        ADMIN | NOSCRIPT | LOADING | STALE | ALLOW_BUSY,
        NONE_CAT,
    ),
    cmd("replicaof", replicaof, 3, ATTACH, NONE_CAT),
    cmd("slaveof", replicaof, 3, ATTACH, NONE_CAT),
    cmd("sync", sync, 1, SYNCHRONIZE, NONE_CAT).role(Role::Synchronize),
];

const SYNCHRONIZE: Flags = ADMIN | NOSCRIPT | NO_ASYNC_LOADING | NO_MULTI;
const ATTACH: Flags = ADMIN | NOSCRIPT | STALE | NO_ASYNC_LOADING;

/// REPLICAOF host port | NO ONE
fn replicaof(ctx: &mut Ctx) -> CmdResult {
    if ctx.server.config.cluster_enabled {
        return Err(Error::of("ERR REPLICAOF not allowed in cluster mode."));
    }
    if ctx.server.replication.failover.is_running() {
        return Err(Error::of("ERR REPLICAOF not allowed while failing over."));
    }
    let words = ctx.server.config.words();
    let user = describe_running(ctx.server, ctx.client, ctx.argv);
    if ctx.is(1, "no") && ctx.is(2, "one") {
        if ctx.server.replication.is_replica() {
            role::promote(ctx.server);
            let line = words.line("MASTER MODE enabled (user request from '{}')", &[&user]);
            log::info!("{line}");
        }
        ctx.client.reply.ok();
        return Ok(());
    }
    if ctx.client.has(flag::REPLICA) {
        return Err(Error::of(
            "ERR Command is not valid when client is a replica.",
        ));
    }
    let port = ctx.int_in(2, 0, u16::MAX.into(), "ERR Invalid master port")? as u16;
    let host = String::from_utf8_lossy(ctx.argv[1]);
    let same = |up: &Upstream| up.port == port && up.host.eq_ignore_ascii_case(&host);
    if let Some(upstream) = ctx
        .server
        .replication
        .upstream
        .as_mut()
        .filter(|up| same(up))
    {
        if upstream.refused_empty {
            upstream.is_new = true;
            upstream.connect_at_ms = 0;
        }
        let line = words.line(
            "REPLICAOF would result into synchronization with the master we are already connected with. No operation \
             performed.",
            &[],
        );
        log::info!("{line}");
        let reply = words.line("OK Already connected to specified master", &[]);
        ctx.client.reply.status(&reply);
        return Ok(());
    }
    role::follow(ctx.server, &host, port);
    log::info!("REPLICAOF {host}:{port} enabled (user request from '{user}')");
    ctx.client.reply.ok();
    Ok(())
}

/// FAILOVER [TO host port [FORCE]] [ABORT] [TIMEOUT milliseconds]
fn failover(ctx: &mut Ctx) -> CmdResult {
    if ctx.server.config.cluster_enabled {
        return Err(Error::of(
            "ERR FAILOVER not allowed in cluster mode. Use CLUSTER FAILOVER command instead.",
        ));
    }
    if ctx.argv.len() == 2 && ctx.is(1, "abort") {
        if !ctx.server.replication.failover.is_running() {
            return Err(Error::of("ERR No failover in progress."));
        }
        failover::step(ctx.server, Event::Abort);
        ctx.client.reply.ok();
        return Ok(());
    }
    let options = parse_failover(ctx)?;
    let request = check_failover(ctx.server, &options)?;
    failover::begin(ctx.server, request);
    ctx.client.reply.ok();
    Ok(())
}

/// The options of FAILOVER: TO, TIMEOUT and FORCE.
#[derive(Default)]
struct FailoverOptions<'a> {
    target: Option<(&'a [u8], i64)>,
    timeout_ms: Option<i64>,
    force: bool,
}

fn parse_failover<'a>(ctx: &Ctx<'a>) -> Result<FailoverOptions<'a>, Error> {
    let argc = ctx.argv.len();
    let mut options = FailoverOptions::default();
    let mut at = 1;
    while at < argc {
        if ctx.is(at, "timeout") && at + 1 < argc && options.timeout_ms.is_none() {
            let timeout_ms = ctx.int(at + 1)?;
            if timeout_ms <= 0 {
                return Err(Error::of("ERR FAILOVER timeout must be greater than 0"));
            }
            options.timeout_ms = Some(timeout_ms);
            at += 2;
        } else if ctx.is(at, "to") && at + 2 < argc && options.target.is_none() {
            options.target = Some((ctx.argv[at + 1], ctx.int(at + 2)?));
            at += 3;
        } else if ctx.is(at, "force") && !options.force {
            options.force = true;
            at += 1;
        } else {
            return Err(Error::SYNTAX);
        }
    }
    Ok(options)
}

fn check_failover(server: &Server, options: &FailoverOptions) -> Result<Request, Error> {
    let replication = &server.replication;
    let refuse = |text| Err(Error::of(text));
    if replication.failover.is_running() {
        return refuse("ERR FAILOVER already in progress.");
    }
    if replication.is_replica() {
        return refuse("ERR FAILOVER is not valid when server is a replica.");
    }
    if replication.replicas.is_empty() {
        return refuse("ERR FAILOVER requires connected replicas.");
    }
    if options.force && (options.timeout_ms.is_none() || options.target.is_none()) {
        return refuse(
            "ERR FAILOVER with force option requires both a timeout and target HOST and IP.",
        );
    }
    let mut target = None;
    if let Some((host, port)) = options.target {
        let host = String::from_utf8_lossy(host);
        let replica = failover::find_replica(server, &host, port);
        let address = replica.and_then(failover::address_of);
        let (Some(replica), Some(address)) = (replica, address) else {
            return refuse("ERR FAILOVER target HOST and PORT is not a replica.");
        };
        if !replica.is_online() {
            return refuse("ERR FAILOVER target replica is not online.");
        }
        target = Some(address);
    }
    let now_ms = server.clock.now_ms;
    let deadline_ms = options.timeout_ms.map(|ms| now_ms.saturating_add(ms));
    Ok(Request {
        target,
        deadline_ms,
        force: options.force,
    })
}

/// REPLCONF [option value ...]
fn replconf(ctx: &mut Ctx) -> CmdResult {
    let options = &ctx.argv[1..];
    if !options.len().is_multiple_of(2) {
        return Err(Error::SYNTAX);
    }
    let mut announced = ctx.client.announced.take().unwrap_or_default();
    let mut done = Ok(true);
    for pair in options.chunks_exact(2) {
        done = match pair[0].to_ascii_lowercase().as_slice() {
            b"ack" => acknowledge(ctx, options).map(|()| false),
            b"getack" => {
                ctx.server.replication.owes_ack |= ctx.client.has(flag::PRIMARY);
                Ok(false)
            }
            b"set-rdb-client-id" => rdb_client(ctx, pair[1]).map(|id| {
                announced.rdb_client = Some(id);
                true
            }),
            b"main-ch-client-id" => main_client(ctx, pair[1]).map(|id| {
                announced.main_client = Some(id);
                true
            }),
            b"set-cluster-node-id" => cluster_node(ctx, pair[1]).map(|()| {
                announced.node = Some(pair[1].into());
                true
            }),
            b"capa" if pair[1].eq_ignore_ascii_case(b"skip-rdb-checksum") => {
                let conn = ctx.client.conn.as_ref();
                announced.no_checksum |= conn.is_some_and(|conn| conn.session().is_some());
                Ok(true)
            }
            _ => announce(&mut announced, pair[0], pair[1]).map(|()| true),
        };
        if !matches!(done, Ok(true)) {
            break;
        }
    }
    ctx.client.announced = Some(announced);
    if done? {
        ctx.client.reply.ok();
    }
    Ok(())
}

/// Parses REPLCONF SET-RDB-CLIENT-ID: the id of the client that receives the snapshot for this
/// replica.
fn rdb_client(ctx: &Ctx, value: &[u8]) -> Result<u64, Error> {
    let id = parse_i64(value).ok_or(Error::NOT_INTEGER)?;
    let known = u64::try_from(id).ok();
    let known = known.filter(|&id| ctx.server.replication.stream.pin_lag(id).is_some());
    known.ok_or_else(|| Error::new(format!("ERR Unrecognized RDB client id {id}")))
}

/// Parses REPLCONF MAIN-CH-CLIENT-ID: the id of the replica's other client, which receives the
/// replication stream, while this client receives the snapshot.
fn main_client(ctx: &Ctx, value: &[u8]) -> Result<u64, Error> {
    let id = parse_i64(value).ok_or(Error::NOT_INTEGER)?;
    let known = u64::try_from(id).ok();
    let known = known.filter(|&id| ctx.server.replication.replicas.of_id(id).is_some());
    known.ok_or_else(|| Error::new(format!("ERR Unrecognized RDB client id: {id}")))
}

/// Checks REPLCONF SET-CLUSTER-NODE-ID of Valkey 9, the name of the replica as a node of the
/// cluster: the node must be known.
fn cluster_node(ctx: &Ctx, value: &[u8]) -> CmdResult {
    let Some(member) = &ctx.server.cluster else {
        return Err(Error::of("ERR This instance has cluster support disabled"));
    };
    let node = Name::parse(value).and_then(|name| member.machine.nodes().find(&name));
    let unknown = || Error::new(format!("ERR Unknown node {}", said(value)));
    node.map(|_| ()).ok_or_else(unknown)
}

/// REPLCONF ACK offset [FACK offset]: never has a reply.
fn acknowledge(ctx: &mut Ctx, options: &[&[u8]]) -> CmdResult {
    if !ctx.client.has(flag::REPLICA) {
        return Ok(());
    }
    let value = |name: &[u8]| {
        let mut pairs = options.chunks_exact(2);
        let pair = pairs.find(|pair| pair[0].eq_ignore_ascii_case(name));
        pair.and_then(|pair| parse_i64(pair[1]))
    };
    if let Some(offset) = value(b"ack") {
        let r = ctx.client.reference();
        if !primary::acknowledged(ctx.server, r, offset, value(b"fack")) {
            Net::close_asap(&mut ctx.server.net.close_asap, ctx.client);
        }
    }
    Ok(())
}

/// The maximum length of REPLCONF's `ip-address` in bytes, including the final NUL that it has in
/// Redis.
const ADDRESS_MAX: usize = 256;

/// Applies one option of REPLCONF by which a replica announces its port, address, capabilities or
/// version.
fn announce(announced: &mut Announced, option: &[u8], value: &[u8]) -> CmdResult {
    match option.to_ascii_lowercase().as_slice() {
        b"listening-port" => {
            let port = parse_i64(value).and_then(|port| i32::try_from(port).ok());
            announced.port = port.ok_or(Error::NOT_INTEGER)?;
        }
        b"ip-address" if value.len() >= ADDRESS_MAX => {
            return Err(Error::new(format!(
                "ERR REPLCONF ip-address provided by replica instance is too long: {} bytes",
                value.len()
            )));
        }
        // A comma in the address is refused, as INFO shows the address in a line of fields that
        // commas separate.
        b"ip-address" if !value.iter().all(|&b| b.is_ascii_graphic() && b != b',') => {
            return Err(Error::of("ERR Invalid REPLCONF ip-address"));
        }
        b"ip-address" => announced.address = String::from_utf8_lossy(value).into(),
        b"capa" => announce_capability(announced, value),
        b"version" => {
            let unknown = || {
                let text = format!("ERR Unrecognized version format: {}", said(value));
                Error::new(text)
            };
            announced.version = Some(parse_version(value).ok_or_else(unknown)?);
        }
        b"rdb-channel" => announced.rdb_channel = zero_or_one(value)?,
        b"rdb-no-compress" => announced.no_compression = zero_or_one(value)?,
        b"rdb-no-checksum" => announced.no_checksum = zero_or_one(value)?,
        b"rdb-only" => announced.rdb_only = zero_or_one(value)?,
        b"rdb-filter-only" => announced.contents = parse_contents(value)?,
        _ => {
            let text = format!("ERR Unrecognized REPLCONF option: {}", said(option));
            return Err(Error::new(text));
        }
    }
    Ok(())
}

/// Records a capability that a replica announces with REPLCONF capa; unknown ones are ignored, as
/// newer replicas may announce them.
fn announce_capability(announced: &mut Announced, value: &[u8]) {
    match value.to_ascii_lowercase().as_slice() {
        b"eof" => announced.eof = true,
        b"psync2" => announced.psync2 = true,
        b"dual-channel" => announced.dual_channel = true,
        b"rdb-channel-repl" => announced.rdb_channel_repl = true,
        name => {
            let version = name.strip_prefix(b"rdb").and_then(parse_i64);
            let written = version.and_then(|version| u32::try_from(version).ok());
            let written = written.filter(|&version| version >= rdb::VERSION_REDIS_MIN);
            if let Some(version) = written {
                announced.rdb_version = Some(version.min(rdb::VERSION_REDIS_MAX));
            }
        }
    }
}

/// Parses `8.1.0` as 0x080100.
fn parse_version(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok()?;
    let numbers: Option<Vec<u8>> = text.split('.').map(|part| part.parse().ok()).collect();
    match numbers?[..] {
        [major, minor, patch] => Some(u32::from_be_bytes([0, major, minor, patch])),
        _ => None,
    }
}

fn zero_or_one(value: &[u8]) -> Result<bool, Error> {
    match parse_i64(value).ok_or(Error::NOT_INTEGER)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Error::of(
            "ERR value is out of range, value must between 0 and 1",
        )),
    }
}

/// Parses REPLCONF rdb-filter-only: the parts of the data set that the snapshot contains, either
/// `functions` or nothing.
fn parse_contents(value: &[u8]) -> Result<Contents, Error> {
    let parts = split_args(value).ok_or(Error::of("ERR Missing rdb-filter-only values"))?;
    let mut contents = Contents {
        without_functions: true,
        without_keys: true,
    };
    for part in &parts {
        if !part.eq_ignore_ascii_case(b"functions") {
            let text = format!("ERR Unsupported rdb-filter-only option: {}", said(part));
            return Err(Error::new(text));
        }
        contents.without_functions = false;
    }
    Ok(contents)
}

/// SYNC, PSYNC replicationid offset [FAILOVER]
fn sync(ctx: &mut Ctx) -> CmdResult {
    tape::not_recorded("a replica");
    let request = match ctx.argv {
        [_, id, offset, ..] => {
            let failover = ctx.is(3, "failover");
            SyncRequest::Psync {
                id,
                offset,
                failover,
            }
        }
        _ => SyncRequest::Sync,
    };
    primary::serve(ctx.server, ctx.client, request)
}

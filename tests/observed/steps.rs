//! Steps of the test of observed fields that use each feature of a single server once.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use crate::common::{Conn, multibulk};
use crate::life::{Life, children_of};

/// Changes settings that reports show.
pub fn settings(life: &mut Life) {
    life.say(&[
        "CONFIG SET hz 20",
        "CONFIG SET auto-aof-rewrite-percentage 0",
        "CONFIG SET availability-zone north",
        "CONFIG SET maxclients 5000",
        "CONFIG SET maxmemory-policy allkeys-lru",
        "CONFIG SET maxmemory 1gb",
        "CONFIG SET maxmemory 0",
        "CONFIG SET repl-backlog-size 20000",
        "CONFIG SET hotkeys-tracking yes",
        "CONFIG SET bigkeys-tracking yes",
        "CONFIG SET port 0",
    ]);
    let port = life.primary.port;
    life.say(&[&format!("CONFIG SET port {port}")]);
    let bind = ["CONFIG", "SET", "bind", "127.0.0.1 127.0.0.2"];
    assert_eq!(life.ask.cmd(&bind), b"+OK\r\n");
    life.until(&[
        "listener* bind",
        "listener* name",
        "listener* port",
        "tcp_port",
    ]);
}

/// Runs commands of each type, with hits, misses and errors.
pub fn traffic(life: &mut Life) {
    life.say(&[
        "HOTKEYS START METRICS 1 CPU",
        "SET text v",
        "GET text",
        "GET nothing",
        "RPUSH list a b c",
        "HSET hash f v g w",
        "SADD set 1 2 3",
        "ZADD sorted 1 a 2 b",
        "XADD added 1-1 f v",
        "SETEX volatile 1000 v",
        "HPEXPIRE hash 100000 FIELDS 1 f",
        "HOTKEYS GET",
        "CONFIG SET hotkeys-tracking no",
        "HOTKEYS STOP",
    ]);
    life.fail(&["INCR list", "NOSUCHCOMMAND", "SET a"]);
    life.fail(&["INCR list", "NOSUCHCOMMAND", "SET a"]);
    // The table of the keyspace grows, since many keys are added.
    for i in 0..400 {
        life.ask.line(&format!("SET key:{i} {i}"));
        if i % 8 == 0 {
            life.look_at_primary();
        }
    }
    // The set and the sorted set get lengths that are in other bins of the histograms (INFO
    // keysizes).
    life.say(&["SADD set 4 5 6 7", "ZADD sorted 3 c 4 d 5 e"]);
    life.look_at_primary();
    life.until(&[
        "mem_overhead_db_hashtable_rehashing",
        "memory db.dict.rehashing.count",
    ]);
    life.say(&["CONFIG SET bigkeys-tracking no", "UNLINK list"]);
    lazy_free(life);
    life.look_behind(&[&["SET", "text", "w"]]);
    life.until(&[
        "mem_aof_buffer",
        "aof_buffer_length",
        "mem_not_counted_for_evict",
    ]);
    dumps(life);
}

/// Samples the number of pending frees in the turn in which FLUSHALL ASYNC begins one. On a busy
/// machine the background thread may have freed everything by then, so the step is repeated.
fn lazy_free(life: &mut Life) {
    for _ in 0..100 {
        if life.has_changed("lazyfree_pending_objects") {
            break;
        }
        life.say(&["DEBUG POPULATE 20000 populated 8"]);
        life.look_behind(&[&["FLUSHALL", "ASYNC"]]);
    }
    life.until(&["lazyfreed_objects"]);
}

fn dumps(life: &mut Life) {
    life.say(&["CONFIG SET sanitize-dump-payload yes", "RPUSH list a b"]);
    let dump = life.ask.cmd(&["DUMP", "list"]);
    let start = dump.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
    let payload = &dump[start..dump.len() - 2];
    let argv: [&[u8]; 4] = [b"RESTORE", b"copy", b"0", payload];
    assert_eq!(life.ask.cmd(&argv), b"+OK\r\n");
    life.until(&["dump_payload_sanitizations"]);
}

/// Runs scripts and a function, and keeps more scripts than the server does.
pub fn scripts(life: &mut Life) {
    let library = "#!lua name=library\nredis.register_function('f', function() return 1 end)";
    life.ask.cmd(&["EVAL", "return 1", "0"]);
    life.ask.cmd(&["FUNCTION", "LOAD", library]);
    life.say(&["FCALL f 0"]);
    // The server keeps a limited number of scripts that were sent by EVAL.
    for i in 0..600 {
        life.ask.cmd(&["EVAL", &format!("return {i}"), "0"]);
    }
    life.until(&["evicted_scripts"]);
}

/// Uses a stream, its groups and their consumers.
pub fn streams(life: &mut Life) {
    life.say(&[
        "XADD stream 1-1 f v",
        "XGROUP CREATE stream group 0",
        "XGROUP CREATE stream other 0",
        "XREADGROUP GROUP group reader COUNT 1 STREAMS stream >",
    ]);
    for i in 2..300 {
        life.ask.line(&format!("XADD stream {i}-1 f v"));
    }
    life.say(&[
        "XREADGROUP GROUP group reader COUNT 9 STREAMS stream >",
        "XREADGROUP GROUP other another COUNT 2 STREAMS stream >",
        "XREADGROUP GROUP group third COUNT 2 STREAMS stream >",
        "XACK stream group 2-1",
        "XDEL stream 1-1",
        "XDEL stream 299-1",
        "XTRIM stream MAXLEN 5",
    ]);
    life.until(&["xinfo consumers idle", "xinfo consumers inactive"]);
}

/// Lets keys and hash fields expire.
pub fn expiry(life: &mut Life) {
    life.say(&[
        "SET soon v PX 1",
        "HSET fields f v g w",
        "HPEXPIRE fields 1 FIELDS 1 f",
    ]);
    life.until(&["expired_keys", "expired_fields", "expired_subkeys"]);
    life.say(&["DEBUG SET-ACTIVE-EXPIRE 0"]);
    let script = "for i = 1, 30000 do redis.call('set', 'volatile:' .. i, i, 'px', 1) end";
    life.ask.cmd(&["EVAL", script, "0"]);
    life.say(&["SET longer v PX 100000"]);
    life.until(&["expired_stale_perc"]);
    life.say(&["DEBUG SET-ACTIVE-EXPIRE 1"]);
    life.until(&[
        "expired_time_cap_reached_count",
        "expire_cycle_cpu_milliseconds",
    ]);
    life.until(&["db* avg_ttl", "db* subexpiry", "db* expires"]);
}

/// Connects clients of all kinds.
pub fn clients(life: &mut Life) {
    let kinds: &[&[&str]] = &[
        &["BLPOP nothing 0"],
        &["BLPOP nothing 1000"],
        &["XREADGROUP GROUP group waits BLOCK 0 STREAMS stream >"],
        &["SUBSCRIBE channel", "PSUBSCRIBE pattern*"],
        &["SSUBSCRIBE shard"],
        &["HELLO 3", "CLIENT TRACKING ON", "GET text"],
        &["HELLO 3", "CLIENT TRACKING ON BCAST PREFIX p"],
        &["WATCH text other"],
        &["MULTI", "SET text v", "GET text"],
        &[
            "CLIENT SETNAME named",
            "CLIENT SETINFO lib-name lib",
            "CLIENT SETINFO lib-ver 1",
        ],
        &["CLIENT CAPA redirect", "SELECT 1", "CLIENT NO-EVICT ON"],
    ];
    let mut all: Vec<Conn> = Vec::new();
    // Commands that block get no reply. XREADGROUP blocks, because all entries of the stream were
    // delivered.
    life.ask
        .line("XREADGROUP GROUP group third COUNT 1000 STREAMS stream >");
    for lines in kinds {
        let mut conn = life.primary.connect();
        for line in *lines {
            conn.send(&multibulk(&line.split(' ').collect::<Vec<_>>()));
            life.look_at_primary();
        }
        all.push(conn);
    }
    life.until(&["total_blocking_keys_on_nokey", "clients_in_timeout_table"]);
    life.ask.line("ACL SETUSER other on nopass +@all ~* &*");
    let mut conn = life.primary.connect();
    conn.line("AUTH other x");
    redirected(life, &mut conn);
    let mut socket = UnixStream::connect(life.primary.dir().join("socket")).expect("a socket");
    socket.write_all(b"PING\r\n").expect("sent");
    socket.read_exact(&mut [0; 7]).expect("a reply");
    // The last request is incomplete, so it stays in the query buffer.
    conn.send(b"*2\r\n$3\r\nGET\r\n$100\r\nabc");
    life.until(&[
        "client qbuf",
        "client qbuf-free",
        "client addr",
        "client laddr",
    ]);
    life.say(&["CLIENT PAUSE 100000 WRITE", "CLIENT UNPAUSE"]);
    life.until(&["client age", "client idle"]);
}

/// A client whose invalidations go to another client (REDIRECT).
fn redirected(life: &mut Life, conn: &mut Conn) {
    let mut target = life.primary.connect();
    let id = target.line("CLIENT ID");
    conn.line(&format!("CLIENT TRACKING ON REDIRECT {}", id[1..].trim()));
    life.look_at_primary();
}

/// Makes buffers of clients grow, shrink and reach their limits.
pub fn buffers(life: &mut Life) {
    life.say(&["DEBUG REPLYBUFFER PEAK-RESET-TIME 100"]);
    let mut conn = life.primary.connect();
    conn.line("PING");
    life.until(&["reply_buffer_shrinks", "client rbs", "client rbp"]);
    let echo = "x".repeat(15_000);
    for _ in 0..200 {
        conn.cmd(&["ECHO", &echo]);
    }
    life.until(&["reply_buffer_expands"]);
    life.ask.cmd(&["SET", "big", &"x".repeat(10_000_000)]);
    let mut slow = life.primary.connect();
    slow.send(b"GET big\r\nGET big\r\nPING\r\n");
    life.until(&[
        "client oll",
        "client omem",
        "client events",
        "client_recent_max_output_buffer",
    ]);
    drop(slow);
    let limit = [
        "CONFIG",
        "SET",
        "client-output-buffer-limit",
        "normal 1mb 0 0",
    ];
    assert_eq!(life.ask.cmd(&limit), b"+OK\r\n");
    let mut cut = life.primary.connect();
    cut.send(b"GET big\r\n");
    life.until(&["client_output_buffer_limit_disconnections"]);
    life.say(&["CONFIG SET client-query-buffer-limit 1mb"]);
    let mut cut = life.primary.connect();
    cut.send(b"*2\r\n$3\r\nGET\r\n$4000000\r\n");
    cut.try_send(&vec![b'x'; 2_000_000]);
    life.until(&[
        "client_query_buffer_limit_disconnections",
        "client_recent_max_input_buffer",
    ]);
    life.say(&["CONFIG SET maxmemory-clients 1mb"]);
    let mut large = life.primary.connect();
    large.send(b"MULTI\r\n*2\r\n$3\r\nGET\r\n$900000\r\n");
    large.try_send(&vec![b'x'; 800_000]);
    let mut another = life.primary.connect();
    another.send(b"*2\r\n$3\r\nGET\r\n$900000\r\n");
    another.try_send(&vec![b'x'; 800_000]);
    life.until(&["evicted_clients"]);
    life.say(&[
        "CONFIG SET maxmemory-clients 0",
        "CONFIG SET client-query-buffer-limit 1gb",
        "UNLINK big",
    ]);
}

/// Has requests refused by ACL, for each reason.
pub fn access(life: &mut Life) {
    life.say(&["ACL SETUSER weak on >secret ~k* resetchannels db=0 -@all +get +select +publish"]);
    let mut conn = life.primary.connect();
    for line in [
        "AUTH weak wrong",
        "AUTH weak secret",
        "SET k v",
        "GET other",
        "PUBLISH channel x",
        "SELECT 1",
    ] {
        conn.line(line);
    }
    life.until(&[
        "acl_access_denied_auth",
        "acl_access_denied_cmd",
        "acl_access_denied_key",
        "acl_access_denied_channel",
        "acl_access_denied_db",
    ]);
}

/// Reaches the limits of clients and of memory.
pub fn limits(life: &mut Life) {
    life.say(&["CONFIG SET maxclients 1"]);
    let mut refused = life.primary.connect();
    assert!(refused.reply().starts_with(b"-ERR max number of clients"));
    life.until(&["rejected_connections"]);
    life.say(&[
        "CONFIG SET maxclients 5000",
        "DEBUG POPULATE 3000 populated 1000",
        "CONFIG SET maxmemory-policy noeviction",
        "CONFIG SET maxmemory 1mb",
    ]);
    life.fail(&["SET text v"]);
    life.until(&[
        "current_eviction_exceeded_time",
        "total_eviction_exceeded_time",
    ]);
    life.say(&[
        "CONFIG SET maxmemory-policy allkeys-random",
        "CONFIG SET maxmemory 3mb",
    ]);
    life.until(&["evicted_keys"]);
    life.say(&["CONFIG SET maxmemory 0"]);
}

/// Runs children that save: their progress, their costs, and their ends are reported.
pub fn children(life: &mut Life) {
    life.say(&[
        "DEBUG POPULATE 20000 saved 1000",
        "CONFIG SET rdb-key-save-delay 1000",
        "BGSAVE",
    ]);
    // A write makes the server copy a page of memory that it shares with its child.
    life.ask.line("DEBUG POPULATE 2000 more 2000");
    life.say(&["BGREWRITEAOF"]);
    life.until(&[
        "aof_rewrite_scheduled",
        "aof_pending_rewrite",
        "rdb_current_bgsave_time_sec",
    ]);
    life.until(&["current_save_keys_processed", "current_fork_perc"]);
    let script = "for i = 0, 1999 do redis.call('setrange', 'saved:' .. i, 0, 'changed') end";
    while !life.has_changed("current_cow_size_age") {
        life.ask.cmd(&["EVAL", script, "0"]);
        life.look_at_primary();
    }
    life.until(&["current_cow_size", "current_cow_peak"]);
    kill_child(life);
    life.until(&["rdb_last_bgsave_status"]);
    life.wait("aof_rewrite_in_progress", "1");
    life.until(&["aof_current_rewrite_time_sec"]);
    kill_child(life);
    life.until(&[
        "aof_last_bgrewrite_status",
        "aof_rewrites_consecutive_failures",
    ]);
    life.say(&[
        "CONFIG SET rdb-key-save-delay 100",
        "FLUSHALL",
        "DEBUG POPULATE 2000 saved 1000",
    ]);
    for command in ["BGSAVE", "BGREWRITEAOF"] {
        life.say(&[command]);
        life.ask.cmd(&["EVAL", script, "0"]);
        life.wait("rdb_bgsave_in_progress", "0");
        life.wait("aof_rewrite_in_progress", "0");
    }
    life.until(&[
        "rdb_last_cow_size",
        "aof_last_cow_size",
        "aof_last_rewrite_time_sec",
    ]);
    life.say(&["CONFIG SET appendonly no", "CONFIG SET appendonly yes"]);
    life.wait("aof_rewrite_in_progress", "0");
}

/// Kills the running child of the primary.
fn kill_child(life: &mut Life) {
    for child in children_of(life.primary.pid()) {
        let child = nix::unistd::Pid::from_raw(child);
        nix::sys::signal::kill(child, nix::sys::signal::SIGKILL).expect("a child");
    }
}

/// Restarts the primary twice: with its AOF, to which a command that fails was added, and with a
/// snapshot that has an expired key.
pub fn restart(life: &mut Life) {
    life.say(&[
        "FLUSHALL",
        "DEBUG POPULATE 3000 loaded 100",
        "RPUSH list a",
        "BGREWRITEAOF",
    ]);
    life.wait("aof_rewrite_in_progress", "0");
    let slow = [
        "--key-load-delay",
        "500",
        "--loading-process-events-interval-bytes",
        "1024",
    ];
    life.restart_with(&slow, |dir| {
        let files = std::fs::read_dir(dir.join("appendonlydir")).expect("a directory");
        let names = files.map(|file| file.expect("a name").path());
        let increments = names.filter(|name| name.to_string_lossy().contains(".incr."));
        let last = increments.max().expect("a file");
        let file = std::fs::File::options().append(true).open(last);
        let command = multibulk(&["INCR", "list"]);
        file.expect("the AOF").write_all(&command).expect("written");
    });
    life.until(&[
        "unexpected_error_replies",
        "loading",
        "process_id",
        "run_id",
    ]);
    // Without a replica, the server starts no child for one.
    life.say_to_replica(&["REPLICAOF NO ONE"]);
    life.wait("connected_slaves", "0");
    life.wait("rdb_bgsave_in_progress", "0");
    life.say(&["SET gone v PX 300", "SAVE"]);
    while !life.ask.line("GET gone").starts_with("$-1") {
        life.look_at_primary();
    }
    life.restart_with(&["--appendonly", "no", "--supervised", "systemd"], |_| ());
    life.until(&[
        "rdb_last_load_keys_expired",
        "rdb_last_load_keys_loaded",
        "loading_start_time",
    ]);
}

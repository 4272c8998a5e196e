use std::fs::File;
use std::sync::Arc;

use super::replicas::State;
use super::*;
use crate::config::Enable;
use crate::testing::{say, server_with};

/// A reference to a client that does not exist.
const READER: ClientRef = ClientRef { slot: 9, id: 9 };

/// Adds the client `READER` as a replica that gets the stream from `offset` on.
fn attach(server: &mut Server, offset: u64) -> bool {
    server.replication.add(Replica {
        state: State::Online,
        ..Replica::new(READER, Default::default(), "", 0)
    });
    server.replication.attach(READER, offset)
}

/// A server with one client that feeds the AOF and the stream.
fn server_with_both_sinks() -> Server {
    let mut server = server_with(1);
    let null = File::open("/dev/null").expect("/dev/null");
    server.aof.feed.switch_to(Arc::new(null), 0);
    server.propagation.set_sink(sink::AOF, true);
    ensure_backlog(&mut server);
    assert!(attach(&mut server, 0));
    server
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace("\r\n", " ")
}

/// The bytes that were fed to the AOF and to the stream since the last call.
fn fed(server: &mut Server) -> (String, String) {
    server.end_unit();
    let (_, aof, _) = server.aof.feed.take_front().expect("open");
    let written = aof.len();
    let aof_text = text(&aof);
    server.aof.feed.wrote(aof, written);
    let mut pieces = [IoSlice::new(&[]); 64];
    let n = server
        .replication
        .io_slices(READER, usize::MAX, &mut pieces);
    let bytes: Vec<u8> = pieces[..n].iter().flat_map(|p| p.iter().copied()).collect();
    server.replication.advance(READER, bytes.len());
    (aof_text, text(&bytes))
}

#[test]
fn both_sinks_are_fed_the_same() {
    let mut server = server_with_both_sinks();
    let long = format!("SET k {}", "v".repeat(3000));
    let histories: &[&[&str]] = &[
        &["*3", "$3", "SET", "$1", "k", "$1", "v"],
        &["SET k inline"],
        &[&long],
        &["SELECT 2", "INCRBYFLOAT f 1.5", "SETEX t 100 v", "SELECT 0"],
        &["MULTI", "INCR a", "SELECT 5", "INCR b", "EXEC", "SELECT 0"],
        &["SADD s 1 2 3", "SPOP s", "DEL s nothing"],
        &["GET k", "SET k v NX", "MSET a 1 b 2"],
        &["EVAL \"redis.call('INCR', 'x') redis.call('INCR', 'y')\" 0"],
    ];
    for lines in histories {
        say(&mut server, 0, lines);
        let (aof, stream) = fed(&mut server);
        assert_eq!(aof, stream);
        assert!(aof.contains('*'), "{lines:?} propagated nothing");
    }
}

#[test]
fn each_sink_keeps_its_own_database() {
    let mut server = server_with_both_sinks();
    say(&mut server, 0, &["SELECT 1", "INCR k"]);
    fed(&mut server);
    server.replication.stream.forget_db();
    say(&mut server, 0, &["INCR k"]);
    let incr = "*2 $4 INCR $1 k ";
    assert_eq!(
        fed(&mut server),
        (incr.into(), format!("*2 $6 SELECT $1 1 {incr}"))
    );
    server.aof.feed.forget_db();
    say(&mut server, 0, &["MULTI", "INCR k", "INCR k", "EXEC"]);
    let (multi, exec) = ("*1 $5 MULTI ", "*1 $4 EXEC ");
    assert_eq!(
        fed(&mut server),
        (
            format!("{multi}*2 $6 SELECT $1 1 {incr}{incr}{exec}"),
            format!("{multi}{incr}{incr}{exec}")
        )
    );
}

#[test]
fn a_script_withholds_commands_from_one_sink() {
    let mut server = server_with_both_sinks();
    say(&mut server, 0, &["SET k 0"]);
    fed(&mut server);
    let script = "redis.set_repl(redis.REPL_AOF) redis.call('INCR','a') \
                  redis.set_repl(redis.REPL_ALL) redis.call('INCR','b')";
    say(&mut server, 0, &[&format!("EVAL \"{script}\" 0")]);
    let (a, b) = ("*2 $4 INCR $1 a ", "*2 $4 INCR $1 b ");
    assert_eq!(
        fed(&mut server),
        (format!("*1 $5 MULTI {a}{b}*1 $4 EXEC "), b.to_string())
    );
}

#[test]
fn the_stream_alone_is_fed_what_the_aof_would_be() {
    let mut server = server_with(1);
    ensure_backlog(&mut server);
    let long = format!("SET k {}", "v".repeat(3000));
    let lines = ["SET k v", "INCRBYFLOAT f 2", &long, "SET k v"];
    say(&mut server, 0, &lines);
    assert!(attach(&mut server, 0));
    let mut pieces = [IoSlice::new(&[]); 1];
    assert_eq!(
        server
            .replication
            .io_slices(READER, usize::MAX, &mut pieces),
        1
    );
    let alone = text(&pieces[0]);
    let mut both = server_with_both_sinks();
    say(&mut both, 0, &lines);
    assert_eq!(fed(&mut both).0, alone);
}

#[test]
fn a_released_backlog_is_fed_nothing() {
    let mut server = server_with_both_sinks();
    say(&mut server, 0, &["SET k v"]);
    fed(&mut server);
    let end = server.replication.stream.end();
    release_backlog(&mut server);
    assert!(server.replication.is_lost(READER));
    say(&mut server, 0, &["SET k w"]);
    let (aof, stream) = fed(&mut server);
    assert!(aof.contains("$1 w") && stream.is_empty());
    assert_eq!(server.replication.stream.end(), end);
    server.replication.remove(READER);
    // A replica that attaches to the new backlog does not know which database is selected, so the
    // stream begins with SELECT.
    ensure_backlog(&mut server);
    assert!(attach(&mut server, end));
    say(&mut server, 0, &["SET k x"]);
    let (aof, stream) = fed(&mut server);
    assert_eq!(format!("*2 $6 SELECT $1 0 {aof}"), stream);
}

#[test]
fn info_shows_the_backlog_and_debug_opens_it() {
    let mut server = server_with(1);
    server.config.enable_debug_command = Enable::Yes;
    let info = |server: &mut Server, fields: &[&str]| -> Vec<u64> {
        let text = say(server, 0, &["INFO replication memory"]);
        let value = |name: &&str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(*name)?.strip_prefix(':'));
            line.and_then(|value| value.parse().ok()).expect("a number")
        };
        fields.iter().map(value).collect()
    };
    let fields = [
        "repl_backlog_active",
        "master_repl_offset",
        "repl_backlog_first_byte_offset",
        "repl_backlog_histlen",
        "mem_clients_slaves",
    ];
    assert_eq!(info(&mut server, &fields), [0, 0, 0, 0, 0]);
    say(&mut server, 0, &["CONFIG SET repl-backlog-size 16384"]);
    assert_eq!(say(&mut server, 0, &["DEBUG REPL-BACKLOG 1"]), "+OK\r\n");
    say(&mut server, 0, &["SET k v"]);
    // 50 bytes: SELECT 0 and the request, as in a real server.
    assert_eq!(info(&mut server, &fields), [1, 50, 1, 50, 0]);
    assert!(attach(&mut server, 0));
    assert!(say(&mut server, 0, &["DEBUG REPL-BACKLOG 0"]).starts_with("-ERR"));
    let long = format!("SET k {}", "v".repeat(50_000));
    say(&mut server, 0, &[&long]);
    let held = info(&mut server, &["mem_total_replication_buffers"])[0];
    assert_eq!(
        info(
            &mut server,
            &["mem_clients_slaves", "mem_replication_backlog"]
        ),
        [held - 16384, 16384]
    );
    server.replication.remove(READER);
    say(&mut server, 0, &["CONFIG SET repl-backlog-size 1mb"]);
    assert_eq!(server.replication.stream.backlog_size(), 1 << 20);
    assert_eq!(say(&mut server, 0, &["DEBUG REPL-BACKLOG 0"]), "+OK\r\n");
    assert_eq!(info(&mut server, &fields)[0], 0);
    // Releasing the backlog does not change the replication offset.
    assert!(server.replication.stream.end() > 50_000);
}

/// WAIT in a script must wait for the offset of the script's caller: a script's commands run with a
/// client of their own, which has written nothing, so its offset is 0.
#[test]
fn a_script_waits_for_the_writes_of_its_caller() {
    let mut server = server_with_both_sinks();
    say(&mut server, 0, &["SET k v"]);
    let script = "EVAL \"return redis.call('wait', 1, 0)\" 0";
    assert_eq!(say(&mut server, 0, &[script]), ":0\r\n");
    let end = server.replication.stream.end();
    let replica = server.replication.replicas.get_mut(READER);
    replica.expect("attached").acked = end;
    assert_eq!(say(&mut server, 0, &[script]), ":1\r\n");
}

/// The expected streams are those of Redis 8.2 and Valkey 8.0, command by command.
#[test]
fn messages_go_to_replicas_alone() {
    let mut server = server_with_both_sinks();
    fed(&mut server);
    let mut stream = |lines: &[&str]| {
        say(&mut server, 0, lines);
        let (aof, stream) = fed(&mut server);
        assert!(!aof.contains("lish"), "{aof}");
        stream
    };
    let publish = "*3 $7 PUBLISH $1 c $1 m ";
    let select = "*2 $6 SELECT $1 0 ";
    assert_eq!(stream(&["PUBLISH c m"]), format!("{select}{publish}"));
    assert_eq!(stream(&["SPUBLISH c m"]), "*3 $8 SPUBLISH $1 c $1 m ");
    assert_eq!(stream(&["MULTI", "PUBLISH c m", "EXEC"]), publish);
    let both = stream(&["MULTI", "PUBLISH c m", "SET k v", "EXEC"]);
    let set = "*3 $3 SET $1 k $1 v ";
    assert_eq!(both, format!("*1 $5 MULTI {publish}{set}*1 $4 EXEC "));
    let script =
        |before: &str| format!("EVAL \"{before} return redis.call('PUBLISH', 'c', 'm')\" 0");
    assert_eq!(stream(&[&script("")]), publish);
    let withheld = "redis.set_repl(redis.REPL_NONE)";
    assert_eq!(stream(&[&script(withheld)]), "");
}

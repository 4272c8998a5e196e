use super::*;
use crate::testing::{self, on_one_line};

fn server() -> Server {
    testing::server_with(4)
}

/// Runs these lines as requests of a client. Returns the client's replies, and the invalidation
/// messages that it gets with them.
fn say(server: &mut Server, slot: u32, lines: &[&str]) -> String {
    on_one_line(testing::say(server, slot, lines))
}

/// The invalidation messages that the client got since the last call.
fn heard(server: &mut Server, slot: u32) -> String {
    on_one_line(testing::heard(server, slot))
}

fn resp3(server: &mut Server, slot: u32, options: &str) {
    server
        .net
        .clients
        .get_mut(slot)
        .expect("a client")
        .reply
        .resp3 = true;
    let line = format!("client tracking on {options}");
    assert_eq!(say(server, slot, &[&line]), "+OK");
}

const A_IS_STALE: &str = ">2 $10 invalidate *1 $1 a";

#[test]
fn a_key_that_was_read_is_invalidated_once() {
    let mut server = server();
    resp3(&mut server, 0, "");
    say(&mut server, 0, &["get a", "mget a b"]);
    assert_eq!((server.tracking.keys(), server.tracking.items()), (2, 2));
    say(&mut server, 1, &["set a 1", "set a 2", "set c 1"]);
    assert_eq!(heard(&mut server, 0), A_IS_STALE);
    assert_eq!((server.tracking.keys(), server.tracking.items()), (1, 1));
}

#[test]
fn items_are_counted() {
    let mut server = server();
    for slot in 0..3 {
        resp3(&mut server, slot, "");
        say(&mut server, slot, &["mget a b", "get a"]);
    }
    assert_eq!((server.tracking.keys(), server.tracking.items()), (2, 6));
    say(&mut server, 3, &["del a", "set b 1"]);
    assert_eq!((server.tracking.keys(), server.tracking.items()), (1, 3));
    for slot in 0..3 {
        say(&mut server, slot, &["client tracking off"]);
    }
    assert_eq!((server.tracking.keys(), server.tracking.items()), (0, 0));
    assert_eq!(server.armed & armed::TRACKING, 0, "off costs nothing");
}

#[test]
fn the_message_follows_the_reply() {
    let mut server = server();
    resp3(&mut server, 0, "");
    let reply = say(&mut server, 0, &["set a 1", "get a", "incr a", "ping"]);
    assert_eq!(reply, format!("+OK $1 1 :2 {A_IS_STALE} +PONG"));
    let lines = ["get a", "multi", "incr a", "get a", "flushdb", "exec"];
    let reply = say(&mut server, 0, &lines);
    let queued = "+QUEUED +QUEUED +QUEUED";
    let all = ">2 $10 invalidate _";
    let exec = format!("*3 :3 $1 3 +OK {A_IS_STALE} {all}");
    assert_eq!(reply, format!("$1 2 +OK {queued} {exec}"));
}

#[test]
fn the_first_to_track_may_do_so_in_a_transaction() {
    let mut server = server();
    server.net.clients.get_mut(0).expect("a client").reply.resp3 = true;
    let lines = ["multi", "client tracking on", "get a", "exec"];
    let queued = "+QUEUED +QUEUED";
    assert_eq!(
        say(&mut server, 0, &lines),
        format!("+OK {queued} *2 +OK _")
    );
    say(&mut server, 1, &["get a", "set a 1"]);
    assert_eq!(heard(&mut server, 0), A_IS_STALE);
    assert_eq!(heard(&mut server, 1), "");
}

#[test]
fn noloop_gets_no_message_about_its_own_changes() {
    let mut server = server();
    resp3(&mut server, 0, "noloop");
    assert_eq!(say(&mut server, 0, &["get a", "set a 1"]), "_ +OK");
    say(&mut server, 0, &["get a"]);
    say(&mut server, 1, &["set a 2"]);
    assert_eq!(heard(&mut server, 0), A_IS_STALE);
    resp3(&mut server, 2, "bcast noloop");
    say(&mut server, 2, &["mset a 1 b 2"]);
    say(&mut server, 1, &["set b 3"]);
    broadcast(&mut server);
    assert_eq!(heard(&mut server, 2), ">2 $10 invalidate *1 $1 b");
}

#[test]
fn bcast_sends_the_keys_of_a_turn_together() {
    let mut server = server();
    resp3(&mut server, 0, "bcast prefix x: prefix y:");
    resp3(&mut server, 1, "bcast");
    say(&mut server, 2, &["mset x:1 1 z 1 x:2 1 y:1 1", "set x:1 2"]);
    assert_eq!(heard(&mut server, 0), "");
    broadcast(&mut server);
    let wanted = ">2 $10 invalidate *2 $3 x:1 $3 x:2 >2 $10 invalidate *1 $3 y:1";
    assert_eq!(heard(&mut server, 0), wanted);
    let wanted = ">2 $10 invalidate *4 $3 x:1 $3 x:2 $3 y:1 $1 z";
    assert_eq!(heard(&mut server, 1), wanted);
    broadcast(&mut server);
    assert_eq!(heard(&mut server, 1), "");
    assert_eq!(server.tracking.prefixes(), 3);
    say(&mut server, 0, &["reset"]);
    assert_eq!(server.tracking.prefixes(), 1);
}

/// A key is compared with each prefix, or each of its beginnings is looked up. The comparison, for
/// few prefixes, and the look-up, for many, find the same prefixes.
#[test]
fn every_prefix_of_a_key_is_found_among_few_and_among_many() {
    let mut server = server();
    resp3(&mut server, 0, "bcast prefix ab: prefix ac");
    resp3(&mut server, 1, "bcast prefix a");
    let wanted = [">2 $10 invalidate *1 $4 ab:c"; 2];
    for more in [0, 100] {
        let many: String = (0..more).map(|n| format!(" prefix m:{n}:")).collect();
        let first = if more == 0 { " prefix none:" } else { "" };
        resp3(&mut server, 3, &format!("bcast{first}{many}"));
        assert_eq!(server.tracking.prefixes(), 4 + more);
        say(&mut server, 2, &["mset ab:c 1 b 1"]);
        broadcast(&mut server);
        let got = [0, 1, 3].map(|slot| heard(&mut server, slot));
        assert_eq!(got, [wanted[0], wanted[1], ""]);
        assert!(server.tracking.changed.is_empty());
    }
    say(&mut server, 2, &["set ab:d 1"]);
    say(&mut server, 0, &["reset"]);
    broadcast(&mut server);
    assert_eq!(heard(&mut server, 0), "");
    assert_eq!(heard(&mut server, 1), ">2 $10 invalidate *1 $4 ab:d");
}

#[test]
fn caching_is_for_the_next_command() {
    let mut server = server();
    resp3(&mut server, 0, "optin");
    let keys = |server: &Server| server.tracking.keys();
    say(&mut server, 0, &["get a"]);
    assert_eq!(keys(&server), 0);
    say(&mut server, 0, &["client caching yes", "get b", "get c"]);
    assert_eq!(keys(&server), 1);
    let transaction = [
        "client caching yes",
        "multi",
        "get d",
        "get e",
        "exec",
        "get f",
    ];
    say(&mut server, 0, &transaction);
    assert_eq!(keys(&server), 3);
    resp3(&mut server, 1, "optout");
    say(&mut server, 1, &["client caching no", "get g", "get h"]);
    assert_eq!(keys(&server), 4);
}

#[test]
fn resp2_redirects_to_a_subscriber() {
    let mut server = server();
    let target = server.net.clients.get(1).expect("a client").id;
    let on = format!("client tracking on redirect {target}");
    assert_eq!(say(&mut server, 0, &[&on, "get a"]), "+OK $-1");
    say(&mut server, 2, &["set a 1"]);
    assert_eq!(heard(&mut server, 1), "", "it does not listen");
    say(&mut server, 1, &["subscribe __redis__:invalidate"]);
    say(&mut server, 0, &["get a"]);
    say(&mut server, 2, &["set a 1"]);
    let message = "*3 $7 message $20 __redis__:invalidate *1 $1 a";
    assert_eq!(heard(&mut server, 1), message);
    say(&mut server, 2, &["flushall"]);
    let message = "*3 $7 message $20 __redis__:invalidate $-1";
    assert_eq!(heard(&mut server, 1), message);
    assert_eq!(heard(&mut server, 0), "");
}

/// The client to which messages are redirected changes the key itself: the message follows the
/// reply to its command.
#[test]
fn a_target_that_runs_a_command_gets_the_message_after_it() {
    let mut server = server();
    let target = server.net.clients.get(1).expect("a client").id;
    resp3(&mut server, 0, &format!("redirect {target}"));
    server.net.clients.get_mut(1).expect("a client").reply.resp3 = true;
    say(&mut server, 0, &["get a"]);
    let reply = say(&mut server, 1, &["set a 1"]);
    assert_eq!(reply, format!("+OK {A_IS_STALE}"));
}

#[test]
fn a_broken_redirection_is_reported_and_shown() {
    let mut server = server();
    let target = server.net.clients.get(1).expect("a client").id;
    resp3(&mut server, 0, &format!("redirect {target}"));
    say(&mut server, 0, &["get a"]);
    let gone = server.net.clients.take(1).expect("a client");
    server.net.clients.forget(&gone);
    say(&mut server, 2, &["set a 1"]);
    let broken = format!(">2 $21 tracking-redir-broken :{target}");
    assert_eq!(heard(&mut server, 0), broken);
    let info = say(&mut server, 0, &["client trackinginfo"]);
    assert!(info.contains("~2 $2 on $15 broken_redirect"), "{info}");
}

#[test]
fn a_long_table_is_cut_with_growing_effort() {
    let mut server = server();
    resp3(&mut server, 0, "");
    for i in 0..1000 {
        say(&mut server, 0, &[&format!("get k{i}")]);
    }
    server.config.tracking_table_max_keys = 150;
    for left in [900, 700, 400, 150] {
        limit_table(&mut server);
        assert_eq!(server.tracking.keys(), left);
    }
    assert_eq!(server.tracking.overruns, 0);
    assert_eq!(heard(&mut server, 0).matches("invalidate").count(), 850);
}

#[test]
fn expired_keys_are_invalidated() {
    let mut server = server();
    resp3(&mut server, 0, "");
    say(&mut server, 1, &["set a 1 px 60000"]);
    say(&mut server, 0, &["get a"]);
    server.clock.now_ms += 60_001;
    assert_eq!(say(&mut server, 1, &["get a"]), "$-1");
    assert_eq!(heard(&mut server, 0), A_IS_STALE);
}

#[test]
fn one_prefix_must_not_begin_with_another() {
    assert!(overlap(b"foo", b"foobar") && overlap(b"foobar", b"foo"));
    assert!(overlap(b"", b"x") && overlap(b"x", b"x") && !overlap(b"bar", b"baz"));
    let mut server = server();
    resp3(&mut server, 0, "bcast prefix foo");
    let line = "client tracking on bcast prefix bar prefix fo";
    let wanted = "-ERR Prefix 'fo' overlaps with an existing prefix 'foo'. Prefixes for a single client must \
                  not overlap.";
    assert_eq!(say(&mut server, 0, &[line]), wanted);
    assert_eq!(server.tracking.prefixes(), 1);
}

/// The name of a key is data too: a client in BCAST mode gets the names of keys that its user may
/// read.
#[test]
fn a_broadcast_names_only_keys_that_the_user_may_read() {
    let mut server = server();
    say(
        &mut server,
        3,
        &["acl setuser u on nopass resetkeys ~open:* %W~written:* +@all db=0"],
    );
    say(&mut server, 0, &["auth u x"]);
    resp3(&mut server, 0, "bcast");
    resp3(&mut server, 1, "bcast");
    let change = [
        "mset open:1 1 secret:1 1 written:1 1",
        "select 1",
        "set open:2 1",
        "select 0",
    ];
    say(&mut server, 3, &change);
    broadcast(&mut server);
    assert_eq!(heard(&mut server, 0), ">2 $10 invalidate *1 $6 open:1");
    let all = ">2 $10 invalidate *4 $6 open:1 $6 open:2 $8 secret:1 $9 written:1";
    assert_eq!(heard(&mut server, 1), all);
    say(&mut server, 3, &["set secret:1 2"]);
    broadcast(&mut server);
    assert_eq!(heard(&mut server, 0), "", "not even an empty list");
}

/// A broadcast obeys the rights that a user has at the moment when the message is sent.
#[test]
fn a_broadcast_obeys_rights_that_were_changed() {
    let mut server = server();
    say(&mut server, 3, &["acl setuser u on nopass ~* +@all"]);
    say(&mut server, 0, &["auth u x"]);
    resp3(&mut server, 0, "bcast prefix a noloop");
    say(
        &mut server,
        3,
        &["mset a1 1 a2 1", "acl setuser u resetkeys ~a2"],
    );
    broadcast(&mut server);
    assert_eq!(heard(&mut server, 0), ">2 $10 invalidate *1 $2 a2");
    say(&mut server, 3, &["mset a1 2 a2 2", "acl setuser u allkeys"]);
    broadcast(&mut server);
    assert_eq!(heard(&mut server, 0), ">2 $10 invalidate *2 $2 a1 $2 a2");
    say(&mut server, 3, &["acl setuser u resetkeys"]);
    say(&mut server, 3, &["mset a1 3 a2 3"]);
    broadcast(&mut server);
    assert_eq!(heard(&mut server, 0), "");
}

/// A redirected broadcast is filtered by the rights of the client that tracks, not by those of the
/// receiver.
#[test]
fn a_redirected_broadcast_has_the_rights_of_the_tracking_client() {
    let mut server = server();
    let target = server.net.clients.get(1).expect("a client").id;
    say(
        &mut server,
        3,
        &["acl setuser u on nopass resetkeys ~a* +@all"],
    );
    say(&mut server, 0, &["auth u x"]);
    resp3(&mut server, 0, &format!("bcast redirect {target}"));
    say(&mut server, 1, &["subscribe __redis__:invalidate"]);
    say(&mut server, 2, &["mset a 1 b 1"]);
    broadcast(&mut server);
    let message = "*3 $7 message $20 __redis__:invalidate *1 $1 a";
    assert_eq!(heard(&mut server, 1), message);
}

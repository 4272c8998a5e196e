use super::*;
use crate::acl::rules::{RuleError, merge_selectors};
use crate::client::ClientRef;
use crate::client::subscriptions::ChannelKind;
use crate::config::Config;
use crate::pubsub;
use crate::testing;
use proptest::prelude::*;

fn server() -> Server {
    Server::new(Config::default(), Vec::new())
}

fn user(server: &Server, rules: &str) -> Result<User, RuleError> {
    let terms = Acl::terms(&server.commands, &server.config);
    let words: Vec<&[u8]> = rules.split(' ').map(str::as_bytes).collect();
    let mut user = User::new(&terms, b"alice");
    let rules = merge_selectors(&words).expect("closed selectors");
    user.apply_all(&terms, &rules).map_err(|(_, e)| e)?;
    Ok(user)
}

/// The id of the command that `argv` calls; of the subcommand, if it names one.
fn lookup(server: &Server, argv: &[&[u8]]) -> u16 {
    let table = &server.commands;
    let id = table.lookup(argv[0]).expect("a command");
    let subcommand = argv
        .get(1)
        .and_then(|name| table.lookup_subcommand(id, name));
    subcommand.unwrap_or(id)
}

/// The error text of ACL DRYRUN for a call by a user with `rules`, or `allowed`.
fn dry_run(rules: &str, call: &str) -> String {
    let server = server();
    let user = user(&server, rules).unwrap();
    let argv: Vec<&[u8]> = call.split(' ').map(str::as_bytes).collect();
    let id = lookup(&server, &argv);
    match check::check(&user, &mut Call::new(&server, id, &argv, 0)) {
        Ok(()) => "allowed".into(),
        Err(denied) => String::from_utf8(denied.text(&user, Some(&argv)))
            .unwrap()
            .replace("User alice has no permissions to ", ""),
    }
}

/// In Redis, a user may run PFMERGE without sources on any key.
#[test]
fn the_destination_of_a_merge_without_sources_is_checked() {
    assert_eq!(dry_run("~a +@all", "pfmerge a"), "allowed");
    assert_eq!(dry_run("~a +@all", "pfmerge b"), "access the 'b' key");
}

#[test]
fn commands_by_name_category_and_first_argument() {
    for (rules, call, expected) in [
        ("allkeys +get", "get k", "allowed"),
        ("allkeys +get", "set k v", "run the 'set' command"),
        ("allkeys +@read", "get k", "allowed"),
        ("allkeys +@read -get", "get k", "run the 'get' command"),
        ("+config|get", "config get x", "allowed"),
        (
            "+config|get",
            "config set x y",
            "run the 'config|set' command",
        ),
        (
            "+config -config|set",
            "config set x y",
            "run the 'config|set' command",
        ),
        (
            "+@all -config",
            "config get x",
            "run the 'config|get' command",
        ),
        ("+select|0", "select 0", "allowed"),
        ("+select|0", "select 1", "run the 'select' command"),
        ("+select|0 +select", "select 1", "allowed"),
        ("+select|0 -select", "select 0", "run the 'select' command"),
        ("+debug|jmap", "debug JMAP", "allowed"),
        ("-@all", "auth a b", "allowed"),
    ] {
        assert_eq!(dry_run(rules, call), expected, "{rules}: {call}");
    }
}

#[test]
fn keys_need_the_rights_that_the_call_uses() {
    let rules = "+@all %R~r* %W~w* ~rw*";
    for (call, expected) in [
        ("get r1", "allowed"),
        ("get w1", "access the 'w1' key"),
        ("set w1 v", "allowed"),
        ("set w1 v get", "access the 'w1' key"),
        ("set rw1 v get", "allowed"),
        ("lpush r1 v", "access the 'r1' key"),
        ("exists r1 w1", "allowed"),
        ("exists r1 x", "access the 'x' key"),
        ("copy r1 w1", "allowed"),
        ("copy w1 r1", "access the 'w1' key"),
        ("mset w1 v x v", "access the 'x' key"),
        ("sort r1 store w1", "allowed"),
        ("sort r1 store r1", "access the 'r1' key"),
        ("dbsize", "allowed"),
    ] {
        assert_eq!(dry_run(rules, call), expected, "{call}");
    }
    assert_eq!(dry_run("+@all %RW~", "get x"), "access the 'x' key");
}

#[test]
fn channels_are_matched_and_patterns_compared() {
    let rules = "+@all &news &chat:*";
    for (call, expected) in [
        ("publish chat:1 x", "allowed"),
        ("publish other x", "access the 'other' channel"),
        ("subscribe news chat:2 other", "access the 'other' channel"),
        ("psubscribe chat:*", "allowed"),
        ("psubscribe chat:1", "access the 'chat:1' channel"),
        ("ssubscribe news", "allowed"),
        ("unsubscribe other", "allowed"),
        ("pubsub channels other", "allowed"),
    ] {
        assert_eq!(dry_run(rules, call), expected, "{call}");
    }
}

#[test]
fn databases_by_the_current_one_and_those_named() {
    let rules = "+@all allkeys db=1,3";
    let server = server();
    let alice = user(&server, rules).unwrap();
    let ask = |db: u32, line: &str| {
        let argv: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let id = lookup(&server, &argv);
        match check::check(&alice, &mut Call::new(&server, id, &argv, db)) {
            Ok(()) => "allowed".into(),
            Err(denied) => String::from_utf8(denied.object).unwrap(),
        }
    };
    assert_eq!(ask(0, "ping"), "allowed");
    assert_eq!(ask(0, "get k"), "get");
    assert_eq!(ask(1, "get k"), "allowed");
    assert_eq!(ask(0, "DBSIZE"), "dbsize");
    assert_eq!(ask(0, "Object Encoding k"), "object|encoding");
    assert_eq!(ask(0, "select 1"), "allowed");
    assert_eq!(ask(1, "select 2"), "2");
    assert_eq!(ask(1, "select x"), "allowed");
    assert_eq!(ask(1, "select 99"), "allowed", "there is no such database");
    assert_eq!(ask(0, "swapdb 1 3"), "allowed");
    assert_eq!(ask(0, "swapdb 1 2"), "2");
    assert_eq!(ask(0, "swapdb x 2"), "allowed", "a syntax error");
    assert_eq!(
        ask(0, "swapdb 0 99"),
        "allowed",
        "there is no such database"
    );
    assert_eq!(ask(1, "move k 3"), "allowed");
    assert_eq!(ask(1, "move k 4"), "4");
    assert_eq!(ask(1, "copy a b"), "allowed");
    assert_eq!(ask(1, "copy a b replace db 2"), "2");
    assert_eq!(ask(0, "copy a b db 2"), "2");
    assert_eq!(ask(0, "copy a b db 1"), "copy");
    assert_eq!(ask(0, "move k 1"), "move");
    assert_eq!(ask(1, "flushdb"), "allowed");
    assert_eq!(ask(1, "flushall"), "flushall");
    let described = |rules| user(&server, rules).unwrap().root().describe_databases();
    assert_eq!(described("db=3,0,3"), "db=0,3");
    assert_eq!(described("db=3 db=1"), "db=1");
    assert_eq!(described("db=3 resetdbs"), "resetdbs");
    assert_eq!(described("db=3 alldbs"), "alldbs");
    assert_eq!(user(&server, "db="), Err(RuleError::Syntax));
    assert_eq!(user(&server, "db=1,"), Err(RuleError::Syntax));
    assert_eq!(described("db=+7,07,-0"), "db=0,7");
    assert_eq!(described("db=2147483647"), "db=2147483647");
    for out_of_range in ["db=-1", "db=2147483648", "db=99999999999999999999"] {
        assert_eq!(user(&server, out_of_range), Err(RuleError::DatabaseRange));
    }
    for malformed in ["db=1x", "db=1,,2", "db=,1", "db=-", "db=1-3", "alldbs,0"] {
        assert_eq!(
            user(&server, malformed),
            Err(RuleError::Syntax),
            "{malformed}"
        );
    }
}

/// `COPY k k2 DB 0 DB 1` copies to the last DB option, but the check of the rights once looked only
/// at the first one.
#[test]
fn a_db_given_twice_is_checked_twice() {
    let mut server = testing::server_with(1);
    testing::say(
        &mut server,
        0,
        &["select 1", "set k 1", "select 0", "set k 0"],
    );
    testing::say(
        &mut server,
        0,
        &["acl setuser u on nopass ~* +@all db=0", "auth u x"],
    );
    for call in [
        "copy k k2 db 0 db 1",
        "copy k k2 db 1 db 0",
        "copy k k2 db 1",
    ] {
        let reply = testing::say(&mut server, 0, &[call]);
        assert_eq!(
            reply, "-NOPERM No permissions to access database\r\n",
            "{call}"
        );
    }
    let reply = testing::say(&mut server, 0, &["copy k k2 db 0 db 0"]);
    assert_eq!(reply, ":1\r\n");
}

/// The check of rights reads repeated options, and values that look like options, as the command
/// does.
#[test]
fn the_last_option_is_the_one_that_counts() {
    let rules = "+@all ~in (~out %R~in +@all) %R~r";
    for (call, expected) in [
        ("sort in store out store x", "access the 'x' key"),
        ("sort in store x store in", "allowed"),
        (
            "sort in by store get store limit 0 1 store x",
            "access the 'x' key",
        ),
        (
            "georadius in 0 0 1 km store in storedist x",
            "access the 'x' key",
        ),
        ("georadius in 0 0 1 km store x storedist in", "allowed"),
        (
            "georadius in 0 0 1 km storedist store",
            "access the 'store' key",
        ),
        (
            "georadiusbymember in m 1 km store in store x",
            "access the 'x' key",
        ),
        ("xread count 1 streams in x 0 0", "access the 'x' key"),
        ("xread streams streams in 0 0", "access the 'streams' key"),
        (
            "xreadgroup group g c streams in x > >",
            "access the 'x' key",
        ),
        ("xreadgroup group g streams streams in >", "allowed"),
        (
            "xreadgroup count 1 group g streams streams x >",
            "access the 'x' key",
        ),
        (
            "xreadgroup group streams streams noack streams x >",
            "access the 'x' key",
        ),
        ("migrate h 1 x 0 9", "access the 'x' key"),
        ("migrate h 1 in 0 9 auth keys", "allowed"),
        ("migrate h 1  0 9 auth keys keys in x", "access the 'x' key"),
        ("migrate h 1  0 9 auth2 keys keys keys in", "allowed"),
        ("set r 1 get", "access the 'r' key"),
        ("bitfield r get u8 0 set u8 0 1", "access the 'r' key"),
        ("bitfield r get u8 0 get u8 1", "allowed"),
        ("eval x 2 in x", "access the 'x' key"),
        ("zunionstore in 2 in x", "access the 'x' key"),
        ("mset in 1 x 2", "access the 'x' key"),
    ] {
        assert_eq!(dry_run(rules, call), expected, "{call}");
    }
}

/// A selector that does not allow the database gives the reason of the refusal only if no selector
/// allows it.
#[test]
fn the_database_is_the_first_check_and_the_least_reason() {
    for (rules, call, expected) in [
        ("db=1 +@all", "get z", "access database get"),
        ("db=1", "get z", "access database get"),
        ("db=1 +@all (~x +get)", "get z", "access the 'z' key"),
        ("db=1 +@all (~x +get)", "set z 1", "run the 'set' command"),
        (
            "db=5 ~y +@all (~x db=3 +get) (db=2 ~v +set)",
            "keys *",
            "access database keys",
        ),
        ("&* +@all db=1", "spublish a b", "allowed"),
        ("+@all db=1", "publish a b", "access the 'a' channel"),
        (
            "allkeys +@all db=0",
            "cluster flushslot 1",
            "access database cluster",
        ),
        ("allkeys +@all db=0", "lolwut", "allowed"),
        (
            "allkeys +@all db=0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
            "flushall",
            "allowed",
        ),
        (
            "allkeys +@all db=0,1,2,3,4,5,6,7,8,9,10,11,12,13,14",
            "flushall",
            "access database flushall",
        ),
        ("allkeys +@all resetdbs", "lolwut", "access database lolwut"),
        ("allkeys +@all resetdbs", "eval x 0", "access database eval"),
        ("allkeys +@all resetdbs", "dbSize", "access database dbSize"),
        ("allkeys +@all resetdbs", "multi", "allowed"),
    ] {
        assert_eq!(dry_run(rules, call), expected, "{rules}: {call}");
    }
}

/// A command that is queued after SELECT is checked for the selected database, when it is queued
/// and when it runs.
#[test]
fn a_queued_select_chooses_what_follows_is_checked_against() {
    let mut server = testing::server_with(2);
    let mut say = |slot, line| testing::say(&mut server, slot, &[line]);
    say(0, "acl setuser u on nopass ~* +@all db=3");
    say(0, "auth u x");
    assert!(say(0, "get k").starts_with("-NOPERM"));
    for line in [
        "multi",
        "select 3",
        "get k",
        "select 99",
        "select x",
        "get k",
    ] {
        assert!(say(0, line).starts_with('+'), "{line}");
    }
    assert!(say(0, "select 0").starts_with("-NOPERM"));
    assert!(say(0, "exec").starts_with("-EXECABORT"));
    for line in ["multi", "select 3", "set k 1"] {
        say(0, line);
    }
    say(1, "acl setuser u db=4");
    let reply = say(0, "exec");
    assert_eq!(
        reply.matches("following reason: no permission\r\n").count(),
        2,
        "{reply}"
    );
    assert!(say(1, "exists k").starts_with(":0"));
}

/// A transaction that EXEC will abort does not run, so its SELECT has no effect on the checks of
/// later commands.
#[test]
fn a_select_in_a_transaction_that_is_lost_chooses_nothing() {
    for lost in [
        "swapdb 3 0",
        "move k 0",
        "copy k k2 db 0",
        "flushall",
        "nosuch",
    ] {
        let mut server = testing::server_with(1);
        testing::say(
            &mut server,
            0,
            &["acl setuser u on nopass ~* +@all db=3", "auth u x", "multi"],
        );
        let mut say = |line: &str| testing::say(&mut server, 0, &[line]);
        assert_eq!(say("select 3"), "+QUEUED\r\n");
        assert!(say(lost).starts_with('-'), "{lost}");
        assert!(say("get k").starts_with("-NOPERM"), "{lost}");
        assert_eq!(say("select 3"), "+QUEUED\r\n");
        assert!(say("get k").starts_with("-NOPERM"), "{lost}");
        assert!(say("exec").starts_with("-EXECABORT"), "{lost}");
    }
}

/// Rules may name any command that has a row, whether its feature is built or not.
#[test]
fn rules_name_commands_that_are_not_built() {
    let server = server();
    for rule in [
        "+cluster|slots",
        "-cluster",
        "+psync",
        "+readonly",
        "+migrate",
        "+module|list",
    ] {
        assert!(user(&server, rule).is_ok(), "{rule}");
    }
    assert_eq!(user(&server, "+cluster|nosuch"), Err(RuleError::Unknown));
    assert_eq!(dry_run("+cluster|slots", "cluster slots"), "allowed");
    assert_eq!(
        dry_run("+cluster|slots", "cluster nodes"),
        "run the 'cluster|nodes' command"
    );
}

#[test]
fn one_selector_has_to_allow_the_whole_call() {
    let rules = "+mget ~key (+mget ~key ~other) (+copy %R~r*) (+copy %W~w*)";
    for (call, expected) in [
        ("mget key other", "allowed"),
        ("mget key other third", "access the 'third' key"),
        ("mget third", "access the 'third' key"),
        ("copy r w", "access the 'w' key"),
        ("get key", "run the 'get' command"),
    ] {
        assert_eq!(dry_run(rules, call), expected, "{call}");
    }
}

#[test]
fn the_text_of_command_rules_is_the_shortest() {
    let server = server();
    for (rules, expected) in [
        (
            "+@all -@hash -@slow +hget -@hash",
            "+@all -@slow +hget -@hash",
        ),
        ("-@all -@string -@slow +@all", "+@all"),
        ("+@HASH +@hash", "-@all +@hash"),
        (
            "+client|list +config|get +config +acl|list -acl",
            "-@all +client|list +config -acl",
        ),
        (
            "+select|0 +SELECT|A +debug|x +debug",
            "-@all +select|0 +select|a +debug",
        ),
        ("+config +config|get -config|set +config", "-@all +config"),
        ("-@all -@dangerous", "-@all -@dangerous"),
        ("+@all +client|id", "+@all +client|id"),
    ] {
        let user = user(&server, rules).unwrap();
        assert_eq!(
            user.root().describe_commands(),
            expected.as_bytes(),
            "{rules}"
        );
    }
}

#[test]
fn refusals_of_rules() {
    let server = server();
    for (rules, expected) in [
        ("nosuch", RuleError::Syntax),
        ("+nosuch", RuleError::Unknown),
        ("+@nosuch", RuleError::Unknown),
        ("+config|nosuch", RuleError::Unknown),
        ("-select|0", RuleError::Unknown),
        ("+get|a|b", RuleError::Unknown),
        ("+config|get|x", RuleError::FirstArgOfSubcommand),
        ("+select|", RuleError::Syntax),
        ("%~x", RuleError::Syntax),
        ("%", RuleError::Syntax),
        ("%RR~x", RuleError::Syntax),
        ("~a\tb", RuleError::Syntax),
        ("allkeys %R~x", RuleError::AfterAllKeys),
        ("&* &x", RuleError::AfterAllChannels),
        ("<x", RuleError::NoSuchPassword),
        ("#12", RuleError::BadHash),
        ("(on)", RuleError::Syntax),
        ("((+get))", RuleError::Syntax),
    ] {
        assert_eq!(user(&server, rules), Err(expected), "{rules}");
    }
}

#[test]
fn passwords() {
    let server = server();
    let alice = user(&server, "on >one >two <one").unwrap();
    assert!(alice.accepts(b"two") && !alice.accepts(b"one") && !alice.accepts(b""));
    assert!(!user(&server, ">one").unwrap().accepts(b"one"), "off");
    assert!(user(&server, "on >one nopass").unwrap().accepts(b"any"));
    assert!(!user(&server, "on nopass >one").unwrap().accepts(b"any"));
    assert!(!user(&server, "on nopass resetpass").unwrap().accepts(b""));
    let hash = "#ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert!(
        user(&server, &format!("on {hash}"))
            .unwrap()
            .accepts(b"abc")
    );
}

/// Makes a server with clients that are logged in as the users `names`.
fn server_with(names: &[&str]) -> (Server, Vec<ClientRef>) {
    let mut server = server();
    let mut nobody = Client::detached(0, 0);
    let mut refs = Vec::new();
    for name in names {
        let mut new = user(&server, "on nopass +@all ~* &*").unwrap();
        new.name = name.as_bytes().into();
        set_user(&mut server, &mut nobody, new);
        let id = server.net.clients.next_id();
        let mut c = Box::new(Client::detached(id, 0));
        log_in(&mut server, &mut c, &[b"AUTH"], name.as_bytes(), b"").unwrap();
        let slot = server.net.clients.insert(c);
        refs.push(ClientRef { slot, id });
    }
    (server, refs)
}

fn is_closing(server: &mut Server, r: ClientRef) -> bool {
    let c = server.net.clients.resolve(r).unwrap();
    c.has(flag::CLOSE_ASAP)
}

#[test]
fn clients_of_a_deleted_user_are_cut_off() {
    let (mut server, refs) = server_with(&["alice", "bob", "alice"]);
    let mut own = Client::detached(99, 0);
    log_in(&mut server, &mut own, &[b"AUTH"], b"alice", b"").unwrap();
    assert!(delete(&mut server, &mut own, b"alice"));
    assert!(!delete(&mut server, &mut own, b"alice"));
    assert!(is_closing(&mut server, refs[0]) && is_closing(&mut server, refs[2]));
    assert!(!is_closing(&mut server, refs[1]));
    assert!(own.has(flag::CLOSE_AFTER_REPLY));
    assert!(own.user == UserRef::DEFAULT && !own.authenticated);
    // A new user takes the slot of the deleted user; references to the deleted user do not resolve
    // to the new user.
    let mut carol = user(&server, "on").unwrap();
    carol.name = b"carol"[..].into();
    set_user(&mut server, &mut own, carol);
    assert_eq!(server.acl.name_of(own.user), b"default");
}

#[test]
fn subscribers_that_lose_their_channels_are_cut_off() {
    let (mut server, refs) = server_with(&["alice", "bob"]);
    for r in &refs {
        let mut c = server.net.clients.take_ref(*r).unwrap();
        pubsub::subscribe(&mut server, &mut c, ChannelKind::Channel, b"news");
        pubsub::subscribe(&mut server, &mut c, ChannelKind::Pattern, b"chat:*");
        server.net.clients.put(c);
    }
    let mut nobody = Client::detached(0, 0);
    let keeps = user(&server, "on nopass &n* &chat:*").unwrap();
    set_user(&mut server, &mut nobody, keeps);
    assert!(!is_closing(&mut server, refs[0]));
    let loses = user(&server, "on nopass &n* &chat:1").unwrap();
    set_user(&mut server, &mut nobody, loses);
    assert!(is_closing(&mut server, refs[0]) && !is_closing(&mut server, refs[1]));
}

/// As in Redis, a change of a user checks its clients' patterns again, unless the user had no
/// channel rights before.
#[test]
fn what_was_subscribed_before_auth_is_cut_off_by_a_change_that_takes_nothing() {
    for (rights, kept) in [("on nopass &chat:*", false), ("on nopass", true)] {
        let (mut server, refs) = server_with(&["alice"]);
        let mut nobody = Client::detached(0, 0);
        let alice = user(&server, rights).unwrap();
        set_user(&mut server, &mut nobody, alice.clone());
        let mut c = server.net.clients.take_ref(refs[0]).unwrap();
        pubsub::subscribe(&mut server, &mut c, ChannelKind::Pattern, b"chat:[12]");
        server.net.clients.put(c);
        set_user(&mut server, &mut nobody, alice);
        assert_eq!(is_closing(&mut server, refs[0]), !kept, "{rights}");
    }
}

#[test]
fn the_switch_is_on_while_a_user_is_limited() {
    let mut server = server();
    let mut nobody = Client::detached(0, 0);
    let armed = |server: &Server| server.armed & armed::ACL != 0;
    assert!(!armed(&server));
    let limited = user(&server, "on +get").unwrap();
    set_user(&mut server, &mut nobody, limited);
    assert!(armed(&server));
    let unlimited = user(&server, "on +@all -get +get ~* &*").unwrap();
    set_user(&mut server, &mut nobody, unlimited);
    assert!(!armed(&server));
}

#[test]
fn a_refusal_is_counted_and_logged() {
    let mut server = server();
    let mut c = Client::detached(1, 0);
    let limited = user(&server, "on nopass +get ~a").unwrap();
    set_user(&mut server, &mut c, limited);
    log_in(&mut server, &mut c, &[b"AUTH"], b"alice", b"").unwrap();
    let get = server.commands.lookup(b"get").unwrap();
    let ask = |server: &mut Server, c: &Client, key: &[u8]| {
        check_command(server, c, &[b"GET", key], get).map_err(|e| e.text().to_string())
    };
    assert_eq!(ask(&mut server, &c, b"a"), Ok(()));
    let refused = ask(&mut server, &c, b"b").unwrap_err();
    assert_eq!(refused, "NOPERM No permissions to access a key");
    c.set(flag::IN_EXEC);
    let refused = ask(&mut server, &c, b"b").unwrap_err();
    assert!(refused.ends_with("no permission to touch the specified keys"));
    assert_eq!(server.stats.acl_denied_key, 2);
    let contexts: Vec<Context> = server
        .acl
        .log
        .entries
        .iter()
        .map(|e| e.event.context)
        .collect();
    assert_eq!(contexts, [Context::Multi, Context::TopLevel]);
    c.user = UserRef::SERVER;
    assert_eq!(ask(&mut server, &c, b"b"), Ok(()));
}

/// Generates ACL rules, most of them valid.
fn rule() -> impl Strategy<Value = String> {
    let simple = prop::sample::select(vec![
        "on",
        "off",
        "nopass",
        "resetpass",
        ">p",
        ">q",
        "<p",
        "skip-sanitize-payload",
        "reset",
        "clearselectors",
        "allkeys",
        "resetkeys",
        "~a*",
        "~b",
        "%R~a*",
        "%W~a*",
        "%RW~*",
        "allchannels",
        "resetchannels",
        "&x",
        "&y*",
        "alldbs",
        "resetdbs",
        "db=2,1",
        "db=7",
        "+@all",
        "-@all",
        "+@read",
        "-@read",
        "+@slow",
        "-@dangerous",
        "+get",
        "-get",
        "+config",
        "-config",
        "+config|get",
        "-config|get",
        "+select|0",
        "+select|1",
        "-select",
        "+select",
    ])
    .prop_map(str::to_string);
    let inner = prop::sample::select(vec![
        "~a",
        "%R~b*",
        "&c",
        "+@read",
        "-get",
        "+select|3",
        "db=1",
    ]);
    let selector =
        prop::collection::vec(inner, 0..4).prop_map(|rules| format!("({})", rules.join(" ")));
    prop_oneof![9 => simple, 1 => selector]
}

proptest! {
    #[test]
    fn descriptions_say_the_same(rules in prop::collection::vec(rule(), 0..20)) {
        let server = server();
        let terms = Acl::terms(&server.commands, &server.config);
        let mut user = User::new(&terms, b"alice");
        for rule in &rules {
            // A rule that is refused leaves the user unchanged.
            let before = user.clone();
            if user.apply(&terms, rule.as_bytes()).is_err() {
                prop_assert_eq!(&user, &before);
            }
        }
        let text = user.describe();
        let words: Vec<&[u8]> = text.split(|&b| b == b' ').collect();
        let mut again = User::new(&terms, b"alice");
        let merged = merge_selectors(&words).unwrap();
        prop_assert_eq!(again.apply_all(&terms, &merged), Ok(()));
        prop_assert_eq!(again.describe(), text.clone());
        for (a, b) in user.selectors().iter().zip(again.selectors()) {
            for id in 0..server.commands.entries.len() as u16 {
                let args: [&[u8]; 2] = [b"x", b"0"];
                prop_assert_eq!(a.allows_command(id), b.allows_command(id));
                let first = |s: &selector::Selector| s.allows_command(id) || s.allows_first_arg(id, &args);
                prop_assert_eq!(first(a), first(b));
            }
        }
        prop_assert!(again.is_unlimited() || !user.is_unlimited());
    }
}

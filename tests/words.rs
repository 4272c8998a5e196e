//! The texts of Redis and of Valkey, between which the setting `extended-redis-compatibility`
//! selects; `yes`, Redis's texts, is the default.
//!
//! Each case is a list of requests, and the last reply in both forms. aeris runs the requests in
//! both modes, within the process of the test; redis-server and valkey-server run them too, if they
//! are installed.

mod common;

use aeris::client::{Client, UserRef};
use aeris::config::Config;
use aeris::networking::query;
use aeris::state::Server;

struct Case {
    /// Requests as inline commands. The reply to the last request is compared.
    requests: &'static [&'static str],
    redis: &'static str,
    valkey: &'static str,
    /// Whether the text is that of a newer Valkey, while Valkey 8.0 has another text.
    newer: bool,
}

const fn case(
    requests: &'static [&'static str],
    redis: &'static str,
    valkey: &'static str,
) -> Case {
    Case {
        requests,
        redis,
        valkey,
        newer: false,
    }
}

impl Case {
    const fn newer(mut self) -> Case {
        self.newer = true;
        self
    }
}

/// The request that loads a library which registers a function with these arguments.
macro_rules! register {
    ($arguments:literal) => {
        concat!(
            r#"FUNCTION LOAD REPLACE "#,
            r##""#!lua name=lib\nredis.register_function"##,
            $arguments,
            "\""
        )
    };
}

const CASES: &[Case] = &[
    // Error texts about scripts.
    case(
        &["EVALSHA ffffffffffffffffffffffffffffffffffffffff 0"],
        "-NOSCRIPT No matching script. Please use EVAL.",
        "-NOSCRIPT No matching script.",
    ),
    case(
        &["EVALSHA_RO short 0"],
        "-NOSCRIPT No matching script. Please use EVAL.",
        "-NOSCRIPT No matching script.",
    ),
    case(
        &["EVAL \"return redis.pcall('nosuch')\" 0"],
        "-ERR Unknown Redis command called from script",
        "-ERR Unknown command called from script",
    ),
    case(
        &["EVAL \"return redis.pcall('get')\" 0"],
        "-ERR Wrong number of args calling Redis command from script",
        "-ERR Wrong number of args calling command from script",
    ),
    case(
        &["EVAL \"return redis.pcall()\" 0"],
        "-ERR Please specify at least one argument for this redis lib call",
        "-ERR Please specify at least one argument for this call",
    ),
    case(
        &["EVAL \"return redis.pcall('get', {})\" 0"],
        "-ERR Lua redis lib command arguments must be strings or integers",
        "-ERR Command arguments must be strings or integers",
    ),
    case(
        &["EVAL \"return redis.log(1)\" 0"],
        "-ERR redis.log() requires two arguments or more. script: f5438245431406aa19fc387d93c6d03a0d5bcb0f, on \
         @user_script:1.",
        "-ERR server.log() requires two arguments or more. script: f5438245431406aa19fc387d93c6d03a0d5bcb0f, on \
         @user_script:1.",
    ),
    case(
        &["EVAL \"return redis.setresp()\" 0"],
        "-ERR redis.setresp() requires one argument. script: 76da64e28014e7c9ad76db33c3918c53d81a3d7e, on \
         @user_script:1.",
        "-ERR server.setresp() requires one argument. script: 76da64e28014e7c9ad76db33c3918c53d81a3d7e, on \
         @user_script:1.",
    ),
    case(
        &["EVAL \"return redis.acl_check_cmd('nosuch')\" 0"],
        "-ERR Invalid command passed to redis.acl_check_cmd() script: d2491587bab5149c93be0dce4426f7a06ba9e1a1, on \
         @user_script:1.",
        "-ERR Invalid command passed to server.acl_check_cmd() script: d2491587bab5149c93be0dce4426f7a06ba9e1a1, on \
         @user_script:1.",
    ),
    case(
        &["EVAL \"#!py\\nreturn 1\" 0"],
        "-ERR Unexpected engine in script shebang: #!py",
        "-ERR Could not find scripting engine 'py'",
    )
    .newer(),
    // Error texts about functions.
    case(
        &[register!("()")],
        "-ERR Error registering functions: ERR wrong number of arguments to redis.register_function",
        "-ERR Error registering functions: ERR wrong number of arguments to server.register_function",
    ),
    case(
        &[register!("(nil, function() end)")],
        "-ERR Error registering functions: ERR first argument to redis.register_function must be a string",
        "-ERR Error registering functions: ERR first argument to server.register_function must be a string",
    ),
    case(
        &[register!("('f', 1)")],
        "-ERR Error registering functions: ERR second argument to redis.register_function must be a function",
        "-ERR Error registering functions: ERR second argument to server.register_function must be a function",
    ),
    case(
        &[register!("('f')")],
        "-ERR Error registering functions: ERR calling redis.register_function with a single argument is only \
         applicable to Lua table (representing named arguments).",
        "-ERR Error registering functions: ERR calling server.register_function with a single argument is only \
         applicable to Lua table (representing named arguments).",
    ),
    case(
        &[register!("{1}")],
        "-ERR Error registering functions: ERR unknown argument given to redis.register_function",
        "-ERR Error registering functions: ERR unknown argument given to server.register_function",
    ),
    case(
        &[register!("{[{}]=1}")],
        "-ERR Error registering functions: ERR named argument key given to redis.register_function is not a string",
        "-ERR Error registering functions: ERR named argument key given to server.register_function is not a string",
    ),
    case(
        &[register!("{}")],
        "-ERR Error registering functions: ERR redis.register_function must get a function name argument",
        "-ERR Error registering functions: ERR server.register_function must get a function name argument",
    ),
    case(
        &[register!("{function_name='f'}")],
        "-ERR Error registering functions: ERR redis.register_function must get a callback argument",
        "-ERR Error registering functions: ERR server.register_function must get a callback argument",
    ),
    case(
        &[register!("{function_name={}}")],
        "-ERR Error registering functions: ERR function_name argument given to redis.register_function must be a \
         string",
        "-ERR Error registering functions: ERR function_name argument given to server.register_function must be a \
         string",
    ),
    case(
        &[register!("{callback=1}")],
        "-ERR Error registering functions: ERR callback argument given to redis.register_function must be a function",
        "-ERR Error registering functions: ERR callback argument given to server.register_function must be a function",
    ),
    case(
        &[register!("{description={}}")],
        "-ERR Error registering functions: ERR description argument given to redis.register_function must be a string",
        "-ERR Error registering functions: ERR description argument given to server.register_function must be a string",
    ),
    case(
        &[register!("{flags=1}")],
        "-ERR Error registering functions: ERR flags argument to redis.register_function must be a table representing \
         function flags",
        "-ERR Error registering functions: ERR flags argument to server.register_function must be a table representing \
         function flags",
    ),
    // Transactions: in Redis a MULTI or WATCH within a transaction is an error, and EXEC still runs
    // the other commands.
    case(
        &["MULTI", "MULTI"],
        "-ERR MULTI calls can not be nested",
        "-ERR Command not allowed inside a transaction",
    ),
    case(
        &["MULTI", "WATCH k"],
        "-ERR WATCH inside MULTI is not allowed",
        "-ERR Command not allowed inside a transaction",
    ),
    case(
        &["MULTI", "MULTI", "SET k v", "EXEC"],
        "*1\r\n+OK",
        "-EXECABORT Transaction discarded because of previous errors.",
    ),
    case(
        &["MULTI", "WATCH k", "SET k v", "EXEC"],
        "*1\r\n+OK",
        "-EXECABORT Transaction discarded because of previous errors.",
    ),
    // Other behaviour in which Redis and Valkey differ.
    case(
        &["SCAN 0 TYPE nosuch"],
        "*2\r\n$1\r\n0\r\n*0",
        "-ERR unknown type name 'nosuch'",
    ),
    case(&["SET k hello", "BITCOUNT k 0"], "-ERR syntax error", ":21"),
    case(
        &["SET k hello", "BITCOUNT k 0 x BYTES"],
        "-ERR value is not an integer or out of range",
        "-ERR syntax error",
    ),
    case(
        &["CLIENT KILL ID x"],
        "-ERR client-id should be greater than 0",
        "-ERR syntax error",
    )
    .newer(),
    case(
        &["CLIENT LIST ID x"],
        "-ERR Invalid client ID",
        "-ERR syntax error",
    )
    .newer(),
    case(
        &["CLIENT LIST ID 0"],
        "$0\r\n",
        "-ERR client-id should be greater than 0",
    )
    .newer(),
    case(
        &["CLIENT LIST TYPE x USER default"],
        "-ERR syntax error",
        "-ERR Unknown client type 'x'",
    )
    .newer(),
];

fn server(extended_redis_compatibility: bool) -> (Server, Client) {
    let config = Config {
        extended_redis_compatibility,
        ..Config::default()
    };
    let mut server = Server::new(config, Vec::new());
    let mut client = Client::detached(server.net.clients.next_id(), server.clock.now_ms);
    client.user = UserRef::DEFAULT;
    (server, client)
}

fn ask(server: &mut Server, client: &mut Client, requests: &[&str]) -> String {
    let mut reply = String::new();
    for request in requests {
        query::feed(server, client, format!("{request}\r\n").as_bytes());
        reply = String::from_utf8_lossy(&client.reply.take_bytes()).into_owned();
    }
    reply
}

#[test]
fn each_mode_has_its_words() {
    for case in CASES {
        for (setting, expected) in [(true, case.redis), (false, case.valkey)] {
            let (mut server, mut client) = server(setting);
            let got = ask(&mut server, &mut client, case.requests);
            assert_eq!(
                got,
                format!("{expected}\r\n"),
                "{setting}: {:?}",
                case.requests
            );
        }
    }
}

#[test]
fn the_real_servers_say_the_same() {
    let (Some(redis), Some(valkey)) = (
        common::Peer::redis(&[]),
        common::Peer::valkey(&["--extended-redis-compatibility", "no"]),
    ) else {
        return;
    };
    for case in CASES {
        let both = [
            (&redis, case.redis, false),
            (&valkey, case.valkey, case.newer),
        ];
        for (peer, expected, newer) in both {
            if newer {
                continue;
            }
            let mut conn = peer.connect();
            conn.line("FLUSHALL");
            let mut got = String::new();
            for request in case.requests {
                conn.send(format!("{request}\r\n").as_bytes());
                got = String::from_utf8_lossy(&conn.reply()).into_owned();
            }
            assert_eq!(got, format!("{expected}\r\n"), "{:?}", case.requests);
        }
    }
}

#[test]
fn the_words_change_with_the_setting_at_run_time() {
    let (mut server, mut client) = server(true);
    let evalsha = "EVALSHA short 0";
    let mut said = |request: &str| ask(&mut server, &mut client, &[request]);
    assert!(said(evalsha).ends_with("Please use EVAL.\r\n"));
    assert_eq!(
        said("CONFIG SET extended-redis-compatibility no"),
        "+OK\r\n"
    );
    assert!(said(evalsha).ends_with("No matching script.\r\n"));
    // The setting also changes the texts of HELP and COMMAND.
    assert!(said("CLIENT HELP").contains("(NORMAL|PRIMARY|REPLICA|PUBSUB)"));
    assert!(said("COMMAND INFO multi").contains("no_multi"));
    assert_eq!(
        said("CONFIG SET extended-redis-compatibility yes"),
        "+OK\r\n"
    );
    assert!(said("CLIENT HELP").contains("(NORMAL|MASTER|REPLICA|PUBSUB)"));
    assert!(said("COMMAND HELP").contains("all Redis commands"));
    assert!(!said("COMMAND INFO multi").contains("no_multi"));
}

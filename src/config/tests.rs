//! Tests of settings through their public functions: lines of configuration and their errors,
//! CONFIG GET and SET, and the files after CONFIG REWRITE.

use super::*;
use crate::texts::Words;
use crate::util::quote;
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

const FREE: Access = Access {
    protected: true,
    loading: false,
    loading_aside: false,
};

fn load_text(text: &str) -> Result<Config, StartError> {
    let mut config = Config::default();
    let sources = Sources {
        options: text.into(),
        ..Sources::default()
    };
    load(&mut config, &sources, &mut ()).map(|()| config)
}

/// The error for a configuration that consists of `line` alone.
fn complaint(line: &str) -> String {
    match load_text(line) {
        Err(StartError::Line { reason, .. }) => reason,
        other => panic!("{line}: {other:?}"),
    }
}

fn value(config: &Config, name: &str) -> String {
    let row = lookup(name.as_bytes()).unwrap();
    String::from_utf8(row.get(config)).unwrap()
}

fn set(config: &mut Config, pairs: &[(&str, &str)]) -> Result<Vec<Apply>, String> {
    let pairs: Vec<(&[u8], &[u8])> = pairs
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        .collect();
    let change = config
        .set(&pairs, FREE)
        .map_err(|error| error.to_string())?;
    Ok(change.steps.iter().map(|step| step.apply).collect())
}

fn set_one(name: &str, text: &str) -> Result<String, String> {
    let mut config = Config::default();
    set(&mut config, &[(name, text)]).map(|_| value(&config, name))
}

/// A directory for one test, which is removed when the test ends.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "aeris-config-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text.replace("DIR", self.0.to_str().unwrap())).unwrap();
        path
    }

    /// The text of a configuration file, without the `dir` line that CONFIG REWRITE adds.
    fn text(&self, name: &str) -> String {
        let text = fs::read_to_string(self.0.join(name)).unwrap();
        let text = text.replace(self.0.to_str().unwrap(), "DIR");
        text.lines()
            .filter(|line| !line.starts_with("dir "))
            .map(|line| format!("{line}\n"))
            .collect()
    }

    fn load(&self, name: &str) -> Result<Config, StartError> {
        let mut config = Config::default();
        let sources = Sources {
            file: Some(self.0.join(name)),
            ..Sources::default()
        };
        load(&mut config, &sources, &mut ()).map(|()| config)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn lines_comments_and_quotes() {
    let config = load_text(
        "# comment\n\n  PORT 7000\r\n\tmaxmemory\t100mb  \nlogfile ''\nrequirepass \"a b\\x41\\\"\"\n  # more\nrename-command FLUSHALL \"\"\n",
    );
    let config = config.unwrap();
    assert_eq!((config.port, config.maxmemory), (7000, 100 << 20));
    assert_eq!(config.requirepass, "a bA\"");
    assert_eq!(config.rename_command[0].from, "FLUSHALL");
    assert!(config.rename_command[0].to.is_empty() && config.logfile.is_empty());
}

#[test]
fn a_bad_line_is_shown_with_its_number() {
    let error = load_text("port 0\n# c\n\n  foo \"b c\"  \n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "\n*** FATAL CONFIG FILE ERROR (Redis 7.2.4) ***\nReading the configuration file, at line 4\n\
         >>> 'foo \"b c\"'\nBad directive or wrong number of arguments"
    );
    let error = load_text("cluster-enabled yes\nreplicaof a 1").unwrap_err();
    assert_eq!(
        error.to_string(),
        "\n*** FATAL CONFIG FILE ERROR (Redis 7.2.4) ***\nreplicaof directive not allowed in cluster mode"
    );
}

#[test]
fn complaints_are_redis_s() {
    for (line, expected) in [
        ("port \"a", "Unbalanced quotes in configuration line"),
        ("port", "wrong number of arguments"),
        ("port 1 2", "wrong number of arguments"),
        (
            "port 65536",
            "argument must be between 0 and 65535 inclusive",
        ),
        ("port ' 5'", "argument couldn't be parsed into an integer"),
        ("port +5", "argument couldn't be parsed into an integer"),
        ("hz 0010", "argument couldn't be parsed into an integer"),
        ("maxmemory -1", "argument must be a memory value"),
        ("maxmemory 1.5k", "argument must be a memory value"),
        (
            "maxmemory 18014398509481984gb",
            "argument must be a memory value",
        ),
        (
            "repl-backlog-size 0",
            "argument must be between 1 and 9223372036854775807 inclusive",
        ),
        (
            "unixsocketperm 999",
            "argument couldn't be parsed as an octal number",
        ),
        (
            "unixsocketperm 1777",
            "argument must be between 0 and 777 inclusive",
        ),
        ("appendonly maybe", "argument must be 'yes' or 'no'"),
        (
            "appendfsync x",
            "argument(s) must be one of the following: everysec, always, no",
        ),
        ("save 900", "Invalid save parameters"),
        ("save 0 1", "Invalid save parameters"),
        ("save '' 5", "Invalid save parameters"),
        (
            "maxmemory-clients 101%",
            "percentage argument must be less or equal to 100",
        ),
        (
            "maxmemory-clients 1.5%",
            "argument must be a memory or percent value",
        ),
        ("replicaof a", "wrong number of arguments"),
        ("replicaof a b", "Invalid master port"),
        (
            "dbfilename a/b",
            "dbfilename can't be a path, just a filename",
        ),
        ("appenddirname ''", "appenddirname can't be empty"),
        ("dir /nonexistent/x", "No such file or directory"),
        ("include", "Bad directive or wrong number of arguments"),
        (
            "rename-command a",
            "Bad directive or wrong number of arguments",
        ),
        (
            "notify-keyspace-events Q",
            "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.",
        ),
        ("oom-score-adj-values 0 1", "wrong number of arguments"),
        (
            "oom-score-adj-values 0 1 2001",
            "Invalid oom-score-adj-values, elements must be between -2000 and 2000.",
        ),
        (
            "client-output-buffer-limit normal 1 1",
            "Wrong number of arguments in buffer limit configuration.",
        ),
        (
            "client-output-buffer-limit foo 1 1 1",
            "Invalid client class specified in buffer limit configuration.",
        ),
        (
            "client-output-buffer-limit normal 0 0 x",
            "Error in hard, soft or soft_seconds setting in buffer limit configuration.",
        ),
        (
            "latency-tracking-info-percentiles a",
            "Invalid latency-tracking-info-percentiles parameters",
        ),
        (
            "latency-tracking-info-percentiles 101",
            "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]",
        ),
        (
            "shutdown-on-sigterm save nosave",
            "shutdown options SAVE and NOSAVE can't be used simultaneously",
        ),
        (
            "shutdown-on-sigint",
            "argument(s) must be one of the following: default, save, nosave, now, force",
        ),
        (
            "proc-title-template {x}",
            "template format is invalid or contains unknown variables",
        ),
        (
            "cluster-announce-hostname a_b",
            "Hostnames may only contain alphanumeric characters, hyphens or dots",
        ),
        ("cluster-announce-client-ipv4 x", "Invalid IPv4 address"),
        (
            "bind 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17",
            "Too many bind addresses specified.",
        ),
        (
            "rdb-version 9",
            "argument(s) must be one of the following: 10, 11, 12, 80",
        ),
    ] {
        assert_eq!(complaint(line), expected, "{line}");
    }
}

#[test]
fn the_first_save_line_replaces_the_default_and_others_add() {
    let save = |text: &str| value(&load_text(text).unwrap(), "save");
    assert_eq!(save(""), "3600 1 300 100 60 10000");
    assert_eq!(save("save 100 100"), "100 100");
    assert_eq!(
        save("save ''\nsave 900 1\nsave 300 10 60 5"),
        "900 1 300 10 60 5"
    );
    assert_eq!(save("save '900 1 300 10'"), "900 1 300 10");
    assert_eq!(save("save 900 1\nsave \"\""), "");
    assert_eq!(save("save 900 1\nsave"), "");
}

#[test]
fn users_and_modules_are_kept_and_a_user_comes_once() {
    let config = load_text("user bob on >x\nuser eve off\nloadmodule a.so 1").unwrap();
    assert_eq!(config.user[0], ["bob", "on", ">x"]);
    assert_eq!(config.loadmodule[0], ["a.so", "1"]);
    assert!(complaint("user bob on\nuser bob off").contains("Duplicate user found"));
}

#[test]
fn directives_are_asked_in_order() {
    struct Log(Vec<String>);
    impl Directives for Log {
        fn rename_command(&mut self, from: &[u8], to: &[u8]) -> Result<(), Reason> {
            self.0
                .push(format!("{}>{}", from.escape_ascii(), to.escape_ascii()));
            if from == b"nope" {
                Err("No such command in rename-command".into())
            } else {
                Ok(())
            }
        }
    }
    let mut log = Log(Vec::new());
    let options = b"rename-command get g\nrename-command nope x\n".to_vec();
    let sources = Sources {
        options,
        ..Sources::default()
    };
    let error = load(&mut Config::default(), &sources, &mut log).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("at line 2\n>>> 'rename-command nope x'\nNo such command in rename-command")
    );
    assert_eq!(log.0, ["get>g", "nope>x"]);
}

/// The sources of a recording are read from the directory in which the server was started, as `dir`
/// has changed the working directory when the recording begins.
#[test]
fn files_of_a_recording_are_found_from_where_the_server_was_started() {
    let dir = Dir::new();
    dir.file(
        "a.conf",
        "hz 20\ninclude part.conf\ndir data\ninclude part.conf\n",
    );
    dir.file("part.conf", "port 1\n");
    fs::create_dir(dir.0.join("data")).unwrap();
    dir.file("data/part.conf", "port 2\n");
    let sources = Sources {
        file: Some("a.conf".into()),
        ..Sources::default()
    };
    let text = expanded_text(&sources, &dir.0).unwrap();
    assert_eq!(String::from_utf8(text).unwrap(), "hz 20\nport 1\nport 2\n");
}

#[test]
fn includes_are_read_at_their_place() {
    let dir = Dir::new();
    dir.file(
        "a.conf",
        "port 1\ninclude DIR/part-*.conf\nhz 20\ninclude DIR/none-*.conf\n",
    );
    dir.file("part-1.conf", "port 2\nhz 30\n");
    dir.file("part-2.conf", "timeout 3\n");
    dir.file(".part-9.conf", "timeout 4\n");
    let config = dir.load("a.conf").unwrap();
    assert_eq!((config.port, config.hz, config.timeout), (2, 20, 3));

    dir.file("b.conf", "include DIR/missing.conf\n");
    let error = dir.load("b.conf").unwrap_err().to_string();
    assert!(
        error.starts_with("Fatal error, can't open config file '"),
        "{error}"
    );
    assert!(
        error.ends_with("missing.conf': No such file or directory"),
        "{error}"
    );

    dir.file("bad.conf", "\nfoo\n");
    dir.file("c.conf", "port 1\nport 2\nport 3\ninclude DIR/bad.conf\n");
    assert!(matches!(
        dir.load("c.conf"),
        Err(StartError::Line { number: 2, .. })
    ));

    dir.file("d.conf", "include DIR/d.conf\n");
    assert!(matches!(
        dir.load("d.conf"),
        Err(StartError::Line { number: 1, .. })
    ));
}

#[test]
fn options_override_the_file() {
    let dir = Dir::new();
    let file = dir.file("a.conf", "port 1\nsave 900 1\n");
    let mut config = Config::default();
    let sources = parse_args(&[
        file.as_os_str(),
        "--port".as_ref(),
        "2".as_ref(),
        "--save".as_ref(),
        "100 100".as_ref(),
    ]);
    load(&mut config, &sources, &mut ()).unwrap();
    assert_eq!(config.port, 2);
    assert_eq!(value(&config, "save"), "900 1 100 100");
    assert_eq!(config.file, Some(file));
}

#[test]
fn get_by_pattern_alias_and_hidden_name() {
    let config = Config::default();
    let names = |patterns: &[&str]| {
        let patterns: Vec<&[u8]> = patterns.iter().map(|p| p.as_bytes()).collect();
        config
            .get(&patterns)
            .into_iter()
            .map(|(name, _)| name.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(&["MAXMEM*-s?mples", "maxmemory-samples"]),
        ["maxmemory-samples"]
    );
    assert_eq!(names(&["*of"]), ["replicaof", "slaveof"]);
    assert_eq!(names(&["slaveof", "PORT"]), ["slaveof", "PORT"]);
    assert_eq!(names(&["key-load-delay"]), ["key-load-delay"]);
    assert!(names(&["nothing"]).is_empty());
    let all = names(&["*"]);
    assert!(!all.iter().any(|name| name == "key-load-delay") && all.len() > 200);
}

#[test]
fn set_shows_what_get_shows() {
    for (name, text, shown) in [
        ("notify-keyspace-events", "KEA", "AKE"),
        ("notify-keyspace-events", "g$lshzxetdmn", "Am"),
        ("notify-keyspace-events", "KEn", "nKE"),
        ("maxmemory", "1kB", "1024"),
        ("maxmemory", "10M", "10000000"),
        ("maxmemory", "", "0"),
        ("maxmemory-clients", "5%", "5%"),
        ("maxmemory-clients", "0%", "0"),
        (
            "client-output-buffer-limit",
            "replica 1k 1mb 60",
            "normal 0 0 0 slave 1000 1048576 60 pubsub 33554432 8388608 60",
        ),
        (
            "client-output-buffer-limit",
            "",
            "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
        ),
        (
            "latency-tracking-info-percentiles",
            "0.123456789 0.00001 99.99999999 50.00",
            "0.123457 0.00001 100 50",
        ),
        ("latency-tracking-info-percentiles", "", ""),
        ("oom-score-adj-values", "1 2 +3", "1 2 3"),
        ("shutdown-on-sigterm", "now NOW save default", "save now"),
        ("save", "900 1 60 5", "900 1 60 5"),
        ("save", "", ""),
        ("hz", "501", "500"),
        ("watchdog-period", "1", "200"),
        ("lua-time-limit", "7", "7"),
        ("bind", "127.0.0.1 -::1", "127.0.0.1 -::1"),
        ("bind", "", ""),
    ] {
        assert_eq!(set_one(name, text).as_deref(), Ok(shown), "{name} {text}");
    }
    for text in ["900  1", "900 1 ", "\"900\" 1", " "] {
        assert!(set_one("save", text).is_err(), "{text}");
    }
}

#[test]
fn set_is_all_or_nothing() {
    let mut config = Config::default();
    let before = format!("{config:?}");
    let error = set(
        &mut config,
        &[
            ("maxmemory", "1mb"),
            ("maxmemory-clients", "200%"),
            ("port", "1"),
        ],
    );
    assert_eq!(
        error.unwrap_err(),
        "ERR CONFIG SET failed (possibly related to argument 'maxmemory-clients') - percentage argument must be less or equal to 100"
    );
    assert_eq!(format!("{config:?}"), before);
}

#[test]
fn set_refusals() {
    let mut config = Config::default();
    let mut refusal = |pairs: &[(&str, &str)]| set(&mut config, pairs).unwrap_err();
    assert_eq!(
        refusal(&[("timeout", "1"), ("FOO", "x")]),
        "ERR Unknown option or number of arguments for CONFIG SET - 'FOO'"
    );
    let failed = |name, why| {
        format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}")
    };
    assert_eq!(
        refusal(&[("DAEMONIZE", "x")]),
        failed("DAEMONIZE", "can't set immutable config")
    );
    assert_eq!(
        refusal(&[("timeout", "1"), ("TIMEOUT", "2")]),
        failed("TIMEOUT", "duplicate parameter")
    );
    assert_eq!(
        refusal(&[("MIN-SLAVES-TO-WRITE", "x")]),
        failed(
            "min-slaves-to-write",
            "argument couldn't be parsed into an integer"
        )
    );
    #[cfg(not(feature = "jemalloc"))]
    assert!(refusal(&[("activedefrag", "yes")]).contains("cannot be enabled"));
    #[cfg(feature = "jemalloc")]
    assert!(set(&mut Config::default(), &[("activedefrag", "yes")]).is_ok());

    let locked = Access {
        protected: false,
        loading: true,
        loading_aside: false,
    };
    let error = config.set(&[(b"dir", b"/")], locked).err().unwrap();
    assert_eq!(
        error.to_string(),
        failed("dir", "can't set protected config")
    );
    let error = config
        .set(&[(b"import-mode", b"yes"), (b"timeout", b"1")], locked)
        .err()
        .unwrap();
    assert_eq!(error, SetError::Loading(Words::Redis));
    assert!(config.set(&[(b"loglevel", b"debug")], locked).is_ok());
    assert!(config.set(&[(b"appendonly", b"yes")], locked).is_ok());
}

#[test]
fn a_change_names_its_steps_once_and_only_for_new_values() {
    let mut config = Config::default();
    let steps = set(
        &mut config,
        &[
            ("port", "6379"),
            ("timeout", "9"),
            ("tls-cert-file", "a"),
            ("tls-key-file", "b"),
            ("maxmemory", "5"),
        ],
    );
    assert_eq!(steps, Ok(vec![Apply::Tls, Apply::MaxMemory]));
    // CONFIG SET accepts the name of a setting together with its alias; the last value counts.
    let steps = set(
        &mut config,
        &[
            ("hash-max-listpack-entries", "5"),
            ("hash-max-ziplist-entries", "6"),
        ],
    );
    assert_eq!(steps, Ok(vec![]));
    assert_eq!(config.hash_max_listpack_entries, 6);
}

#[test]
fn rollback_restores_every_value() {
    let mut config = Config::default();
    let before = format!("{config:?}");
    let change = config
        .set(&[(b"port", b"1"), (b"save", b"5 5"), (b"dir", b".")], FREE)
        .ok()
        .unwrap();
    assert_eq!((config.port, config.save.len()), (1, 1));
    config.rollback(&change);
    assert_eq!(format!("{config:?}"), before);
    let error = SetError::apply_failed(&change.steps[0], "Unable to listen on this port");
    assert_eq!(
        error.to_string(),
        "ERR CONFIG SET failed (possibly related to argument 'port') - Unable to listen on this port"
    );
}

#[test]
fn rewrite_keeps_comments_and_goes_back_to_the_file_of_the_line() {
    let dir = Dir::new();
    dir.file(
        "a.conf",
        "# mine\nport   7000\ninclude DIR/b.conf\nsave 900 1\nsave 300 10\n# end\n",
    );
    dir.file("b.conf", "# shared\nmaxmemory 1gb\n  timeout 5 \n");
    let mut config = dir.load("a.conf").unwrap();
    set(
        &mut config,
        &[
            ("maxmemory", "2gb"),
            ("save", "60 1"),
            ("hz", "20"),
            ("appendonly", "no"),
        ],
    )
    .unwrap();
    rewrite(&config, Extent::Changed).unwrap();
    assert_eq!(
        dir.text("b.conf"),
        "# shared\nmaxmemory 2gb\n  timeout 5 \n"
    );
    let rewritten = "# mine\nport   7000\ninclude DIR/b.conf\nsave 60 1\n# end\n# Generated by CONFIG REWRITE\nhz 20\n";
    assert_eq!(dir.text("a.conf"), rewritten);
    assert!(
        fs::read_to_string(dir.0.join("a.conf"))
            .unwrap()
            .contains("\ndir \"/")
    );

    // A second CONFIG REWRITE has nothing to write, and does not repeat its marker comment.
    rewrite(&config, Extent::Changed).unwrap();
    assert_eq!(dir.text("a.conf"), rewritten);
    set(&mut config, &[("timeout", "0"), ("lfu-decay-time", "3")]).unwrap();
    rewrite(&config, Extent::Changed).unwrap();
    assert_eq!(dir.text("a.conf"), format!("{rewritten}lfu-decay-time 3\n"));
    assert_eq!(dir.text("b.conf"), "# shared\nmaxmemory 2gb\ntimeout 0\n");
}

#[test]
fn rewrite_of_several_lines() {
    let dir = Dir::new();
    dir.file("a.conf", "save 900 1\nhash-max-listpack-entries 20\n# x\nhash-max-ziplist-entries 21\nclient-output-buffer-limit pubsub 1 1 1\nrename-command get \"\"\n");
    let mut config = dir.load("a.conf").unwrap();
    set(
        &mut config,
        &[
            ("save", "1 2 3 4"),
            ("hash-max-listpack-entries", "100"),
            ("client-output-buffer-limit", "normal 5 5 5"),
        ],
    )
    .unwrap();
    rewrite(&config, Extent::Changed).unwrap();
    assert_eq!(
        dir.text("a.conf"),
        "save 1 2\nsave 3 4\n# x\nhash-max-ziplist-entries 100\nclient-output-buffer-limit normal 5 5 5\n\
         client-output-buffer-limit pubsub 1 1 1\nrename-command get \"\"\n# Generated by CONFIG REWRITE\n"
    );
    set(&mut config, &[("save", "")]).unwrap();
    rewrite(&config, Extent::Changed).unwrap();
    assert!(dir.text("a.conf").starts_with("save \"\"\n# x\n"));
}

/// The line of a user stays in its file: another file may be readable by more users of the system.
#[test]
fn rewrite_leaves_users_in_their_files() {
    let dir = Dir::new();
    let main = "user bob on >x\ninclude DIR/b.conf\nuser eve off\n";
    dir.file("a.conf", main);
    dir.file("b.conf", "user default on >secret\n");
    let mut config = dir.load("a.conf").unwrap();
    config.user.sort_by(|a, b| b.cmp(a));
    let default = config.user.iter_mut().find(|user| user[0] == *"default");
    default.expect("a line")[2] = "#abc".into();
    config.user.push(vec!["zoe".into(), "off".into()]);
    rewrite(&config, Extent::Changed).unwrap();
    assert_eq!(dir.text("b.conf"), "user default on #abc\n");
    let marker = "# Generated by CONFIG REWRITE\n";
    assert_eq!(dir.text("a.conf"), format!("{main}user zoe off\n{marker}"));
}

/// If the new text of one file can't be written, no file changes.
#[test]
fn a_rewrite_changes_all_files_or_none() {
    let dir = Dir::new();
    dir.file("a.conf", "maxmemory 1gb\ninclude DIR/b.conf\n");
    dir.file("b.conf", "timeout 5\n");
    let mut config = dir.load("a.conf").unwrap();
    set(&mut config, &[("maxmemory", "2gb"), ("timeout", "6")]).unwrap();
    let temporary = dir.0.join(format!("b.conf-{}.1.tmp", std::process::id()));
    fs::create_dir(&temporary).unwrap();
    assert!(rewrite(&config, Extent::Changed).is_err());
    assert_eq!(dir.text("b.conf"), "timeout 5\n");
    assert!(dir.text("a.conf").starts_with("maxmemory 1gb\n"));
    let names = fs::read_dir(&dir.0).unwrap().count();
    assert_eq!(names, 3, "the temporary file of a.conf is gone");
    fs::remove_dir(temporary).unwrap();
    rewrite(&config, Extent::Changed).unwrap();
    assert!(dir.text("a.conf").starts_with("maxmemory 2gb\n"));
}

#[test]
fn rewrite_of_a_file_that_is_included_twice() {
    let dir = Dir::new();
    dir.file("a.conf", "include DIR/b.conf\ninclude DIR/b.conf\n");
    dir.file("b.conf", "timeout 5\nsave 70 2\n");
    let mut config = dir.load("a.conf").unwrap();
    set(&mut config, &[("timeout", "6"), ("save", "60 1 30 2")]).unwrap();
    rewrite(&config, Extent::Changed).unwrap();
    assert!(dir.text("b.conf").starts_with("timeout 6\n"));
    assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 2);
}

#[test]
fn rewrite_removes_what_is_unset_and_follows_the_users() {
    let dir = Dir::new();
    dir.file(
        "a.conf",
        "replicaof 10.0.0.1 6379\nrequirepass secret\nuser bob on\nuser eve off\n",
    );
    let mut config = dir.load("a.conf").unwrap();
    config.replicaof = None;
    config.user.remove(0);
    config
        .user
        .push(vec!["zoe".into(), "on".into(), ">a b".into()]);
    set(&mut config, &[("requirepass", "")]).unwrap();
    rewrite(&config, Extent::Changed).unwrap();
    let users = "user eve off\nuser zoe on \">a b\"\n";
    assert_eq!(
        dir.text("a.conf"),
        format!("{users}# Generated by CONFIG REWRITE\n")
    );
}

#[test]
fn rewrite_of_everything_loads_as_the_same_configuration() {
    let dir = Dir::new();
    let file = dir.file("a.conf", "port 1\nbind 127.0.0.1\n");
    let mut config = dir.load("a.conf").unwrap();
    set(
        &mut config,
        &[
            ("save", ""),
            ("requirepass", "a\"b\n\u{e9}"),
            ("shutdown-on-sigterm", "now force"),
            ("maxmemory-clients", "7%"),
            ("bind", ""),
            ("latency-tracking-info-percentiles", ""),
        ],
    )
    .unwrap();
    rewrite(&config, Extent::All).unwrap();
    let again = dir.load("a.conf").unwrap();
    for row in TABLE {
        assert_eq!(row.get(&again), row.get(&config), "{}", row.name);
    }
    fs::remove_file(&file).unwrap();
    rewrite(&config, Extent::Changed).unwrap();
    assert_eq!(dir.load("a.conf").unwrap().requirepass, config.requirepass);
    config.file = None;
    let error = rewrite(&config, Extent::Changed).unwrap_err();
    assert_eq!(
        error.to_string(),
        "The server is running without a config file"
    );
}

#[test]
fn settings_without_effect_are_named_when_they_are_changed() {
    assert!(Config::default().without_effect().is_empty());
    let config = load_text("io-threads 4").unwrap();
    assert_eq!(config.without_effect(), ["io-threads"]);
}

/// In redis.conf, `# name value` or `name value` states a setting and its default.
#[test]
fn redis_conf_documents_every_setting_with_its_default() {
    let text = include_str!("../../redis.conf");
    let mut config = Config::default();
    config.save.clear();
    let mut documented = Vec::new();
    for line in text.lines() {
        // Prose is `# ` and text; a commented setting is `#name value`, without a space.
        let statement = line.strip_prefix('#').unwrap_or(line);
        if statement.is_empty() || statement.starts_with([' ', '#']) {
            continue;
        }
        let words = quote::split_args(statement.as_bytes()).unwrap();
        let name = String::from_utf8(words[0].clone()).unwrap();
        let args: Vec<&[u8]> = words[1..].iter().map(Vec::as_slice).collect();
        documented.push(name.clone());
        let Some(row) = lookup(name.as_bytes()) else {
            assert!(
                ["include", "rename-command", "user", "loadmodule"].contains(&&*name),
                "{name}"
            );
            continue;
        };
        assert!(!row.is(HIDDEN), "{name} is hidden");
        let unset = args == [b""] || row.name == "replicaof" || row.name == "dir";
        if !unset || row.is(MULTI_ARG) && row.name != "replicaof" {
            super::parse::apply_line(&mut config, name.as_bytes(), &args).unwrap();
        }
    }
    let default = Config::default();
    for row in TABLE.iter().filter(|row| !row.is(HIDDEN)) {
        assert!(
            documented.iter().any(|name| name == row.name),
            "{} is not documented",
            row.name
        );
        assert_eq!(
            row.get(&config).escape_ascii().to_string(),
            row.get(&default).escape_ascii().to_string(),
            "{}",
            row.name
        );
    }
    let single = |name: &&String| {
        !["save", "client-output-buffer-limit", "include"].contains(&name.as_str())
    };
    let mut once: Vec<&String> = documented.iter().filter(single).collect();
    let count = once.len();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), count, "a setting is documented twice");
}

/// The published facts are the names and values of CONFIG GET of each peer, hidden names included.
#[test]
fn every_setting_of_every_peer_is_known_with_the_peer_s_default() {
    let peers = [
        include_str!("../../tests/facts/settings/redis-7.0.txt"),
        include_str!("../../tests/facts/settings/redis-8.2.txt"),
        include_str!("../../tests/facts/settings/valkey-8.0.txt"),
        include_str!("../../tests/facts/settings/valkey-9.1.txt"),
    ];
    for facts in peers {
        assert!(facts.lines().count() > 180);
        for line in facts.lines() {
            let (name, value) = line.split_once(' ').unwrap_or((line, ""));
            let row = lookup(name.as_bytes()).unwrap_or_else(|| panic!("{name} is unknown"));
            let unset = value.is_empty() && row.is(MULTI_ARG | EMPTY_IS_UNSET);
            if unset || name == "replicaof" || name == "slaveof" {
                continue;
            }
            let mut config = Config::default();
            let applied =
                super::parse::apply_line(&mut config, name.as_bytes(), &[value.as_bytes()]);
            assert_eq!(applied, Ok(()), "{name} {value}");
        }
    }
}

#[test]
fn a_setting_that_lacks_another_is_refused() {
    let reason = |text: &str| load_text(text).unwrap().refused();
    assert_eq!(reason("port 7000"), None);
    assert_eq!(reason("replicaof no one"), None);
    assert_eq!(reason("cluster-enabled yes"), None);
    let bus = "cluster-enabled yes\ntls-cluster yes";
    assert!(reason(bus).unwrap().starts_with("tls-cluster needs "));
    assert_eq!(reason(&format!("{bus}\ntls-port 7001")), None);
}

/// Appends the server's source code outside of src/config, without its tests, to `text`.
fn sources(dir: &std::path::Path, text: &mut String) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "config" {
            sources(&path, text);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            let file = std::fs::read_to_string(&path).unwrap();
            text.push_str(file.split("#[cfg(test)]\nmod tests {").next().unwrap());
        }
    }
}

/// Every setting is used, or its row is marked as one without effect, so that the log names it at
/// start. A setting's field counts as used if `.field` occurs in the server's code outside of
/// src/config.
#[test]
fn a_setting_that_nothing_reads_is_marked() {
    // The fields of `Config` that only this module uses, and those that are not settings.
    let inside = [
        "dir",
        "proc_title_template",
        "rdb_del_sync_files",
        "rename_command",
        "start_dir",
        "save_seen",
    ];
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    sources(&root.join("src"), &mut text);
    let table = include_str!("table.rs");
    let fields = include_str!("mod.rs").split("pub struct Config {").nth(1);
    let fields = fields.unwrap().split("\n}\n").next().unwrap().lines();
    let fields = fields.filter_map(|line| line.trim().strip_prefix("pub ")?.split(':').next());
    let is_word =
        |rest: &str| !rest.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_');
    let mut count = 0;
    for field in fields.filter(|field| !inside.contains(field)) {
        let access = format!(".{field}");
        let read = text.split(&access).skip(1).any(is_word);
        let name = format!("\"{}\"", field.replace('_', "-"));
        let names_it = |line: &&str| {
            let word = |start: &str| line.split(start).skip(1).any(is_word);
            let row = line.contains("Row::new(");
            row && (word(&format!("({field}"))
                || word(&format!(" {field}"))
                || line.contains(&name))
        };
        let marked = table
            .lines()
            .find(names_it)
            .is_some_and(|row| row.contains("NO_EFFECT"));
        assert!(read != marked, "{field}: read {read}, marked {marked}");
        count += 1;
    }
    assert!(count > 200, "{count} fields found");
}

/// With such a value the node would not start again, or would announce another one.
#[test]
fn what_nodes_conf_or_the_bus_can_not_hold_is_refused() {
    let long = "1".repeat(46);
    for (name, value, complaint) in [
        (
            "cluster-announce-human-nodename",
            "a b",
            "Announced human node name contained invalid character",
        ),
        (
            "availability-zone",
            "a,b",
            "availability-zone contains invalid character",
        ),
        (
            "availability-zone",
            "a b",
            "availability-zone contains invalid character",
        ),
        (
            "cluster-announce-ip",
            "a b",
            "cluster-announce-ip contains invalid character",
        ),
        (
            "cluster-announce-ip",
            &long,
            "cluster-announce-ip is too long",
        ),
    ] {
        let error = set(&mut Config::default(), &[(name, value)]).expect_err(value);
        let error = error.to_string();
        assert!(error.ends_with(complaint), "{value}: {error}");
    }
    for (name, value) in [
        ("cluster-announce-human-nodename", "a_b.c-d"),
        ("availability-zone", "eu-1a"),
        ("cluster-announce-ip", "fe80::1"),
    ] {
        assert!(
            set(&mut Config::default(), &[(name, value)]).is_ok(),
            "{value}"
        );
    }
}

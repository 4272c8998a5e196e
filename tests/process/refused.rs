//! Faults that end the start of the server: the exit code, and the line or the report with the
//! reason.

use super::*;

/// The start ends with a reason in the last line of the log and exit code 1; standard error is
/// empty.
#[test]
fn a_missing_resource_ends_the_start_with_the_peers_line() {
    let dir = Dir::new("ends");
    let long = format!("/tmp/{}", "x".repeat(200));
    let users = dir.join("users");
    fs::write(&users, "nonsense\n").unwrap();
    let conf = dir.join("conf");
    fs::write(&conf, "port 0\nuser x on +nosuch\n").unwrap();
    let huge = dir.join("huge");
    fs::File::create(&huge).unwrap().set_len(1 << 40).unwrap();
    let huge = huge.to_str().unwrap();
    let socket_in_place_of_a_directory = ["--port", "0", "--unixsocket", dir.0.to_str().unwrap()];
    for (args, line) in [
        (
            &["--port", "0"][..],
            "Configured to not listen anywhere, exiting.",
        ),
        (
            &["--port", "0", "--unixsocket", &long],
            "Failed opening Unix socket: unix socket path too long (205), must be under 108",
        ),
        (
            &["--port", "0", "--unixsocket", "/nonexistent/socket"],
            "Failed opening Unix socket: bind: No such file or directory",
        ),
        (
            &socket_in_place_of_a_directory,
            "Failed opening Unix socket: bind: Address already in use",
        ),
        (
            &["--port", "1", "--bind", "203.0.113.1"],
            "Failed listening on port 1 (tcp), aborting.",
        ),
        (
            &["--port", "0", "--aclfile", "/nonexistent/users"],
            "Aborting Redis startup because of ACL errors: Error loading ACLs, opening file '/nonexistent/users': \
             No such file or directory",
        ),
        (
            &["--port", "0", "--aclfile", users.to_str().unwrap()],
            "WARNING: ACL errors detected, no change to the previously active ACL rules was performed",
        ),
        (
            &["--port", "0", "--aclfile", huge],
            &format!(
                "Aborting Redis startup because of ACL errors: Error loading ACLs, opening file '{huge}': File too large"
            ),
        ),
        (
            &["--port", "0", "--locale-collate", "xx_YY"],
            "Failed to configure LOCALE for invalid locale name.",
        ),
        (
            &[huge],
            &format!("Fatal error, can't open config file '{huge}': File too large"),
        ),
        (
            &[conf.to_str().unwrap()],
            "Critical error while loading ACLs. Exiting.",
        ),
    ] {
        let out = run(args, "");
        let log = text(&out.stdout);
        assert_eq!(out.status.code(), Some(1), "{args:?}");
        assert!(log.ends_with(&format!("{line}\n")), "{args:?}: {log}");
        assert_eq!(text(&out.stderr), "", "{args:?}");
    }
}

/// The start ends with a report on standard error and exit code 1; the log is empty.
#[test]
fn settings_that_cant_be_read_end_the_start_with_the_peers_report() {
    let report = |line: usize, text: &str, reason: &str| {
        format!(
            "\n*** FATAL CONFIG FILE ERROR (Redis 7.2.4) ***\nReading the configuration file, at line {line}\n\
             >>> '{text}'\n{reason}\n"
        )
    };
    for (args, expected) in [
        (
            &["--dir", "/nonexistent"][..],
            report(2, "dir \"/nonexistent\"", "No such file or directory"),
        ),
        (
            &["--maxmemory", "1xb"],
            report(2, "maxmemory \"1xb\"", "argument must be a memory value"),
        ),
        (
            &["--port", "99999"],
            report(
                2,
                "port \"99999\"",
                "argument must be between 0 and 65535 inclusive",
            ),
        ),
        (&["--port"], report(2, "port", "wrong number of arguments")),
    ] {
        let out = run(args, "");
        assert_eq!(out.status.code(), Some(1), "{args:?}");
        assert_eq!(text(&out.stderr), expected, "{args:?}");
        assert_eq!(text(&out.stdout), "", "{args:?}");
    }
}

#[test]
fn a_log_file_that_cant_be_opened_ends_the_start() {
    let out = run(&["--logfile", "/nonexistent/log"], "");
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(text(&out.stdout), "");
    assert_eq!(
        text(&out.stderr),
        "\n*** FATAL CONFIG FILE ERROR (Redis 7.2.4) ***\nCan't open the log file: No such file or directory\n"
    );
}

#[test]
fn a_bus_with_tls_needs_a_port_for_clients_with_tls() {
    let out = run(&["--cluster-enabled", "yes", "--tls-cluster", "yes"], "");
    assert_eq!(out.status.code(), Some(1));
    let said = text(&out.stderr);
    assert!(said.contains("tls-cluster needs a tls-port"), "{said}");
}

#[test]
fn a_module_ends_the_start_and_leaves_nothing_behind() {
    let dir = Dir::new("module");
    let pidfile = dir.join("pid");
    let pidfile = pidfile.to_str().unwrap();
    let out = run(
        &["--loadmodule", "/nosuch", "arg", "--pidfile", pidfile],
        "",
    );
    assert_eq!(out.status.code(), Some(1));
    let log = text(&out.stdout);
    assert!(log.contains("Module /nosuch failed to load: "), "{log}");
    assert!(
        log.ends_with(" # Can't load module from /nosuch: server aborting\n"),
        "{log}"
    );
    assert!(!Path::new(pidfile).exists());
}

#[test]
fn a_setting_that_is_not_there() {
    let out = run(&["--foo", "bar"], "");
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(
        text(&out.stderr),
        "\n*** FATAL CONFIG FILE ERROR (Redis 7.2.4) ***\nReading the configuration file, at line 2\n\
         >>> 'foo \"bar\"'\nBad directive or wrong number of arguments\n"
    );
}

#[test]
fn a_file_that_is_not_there() {
    let out = run(&["/nonexistent/redis.conf"], "");
    assert_eq!(out.status.code(), Some(1));
    let line = text(&out.stdout);
    let end = " # Fatal error, can't open config file '/nonexistent/redis.conf': No such file or directory\n";
    assert!(line.ends_with(end) && line.contains(":C "), "{line}");
}

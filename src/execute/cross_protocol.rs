//! Prevents cross-protocol scripting: a web page makes a browser behind the firewall send an HTTP
//! request to this port. Without protection the server would read the lines of the HTTP request's
//! head as inline commands, reply with errors, and then run the body, which the attacker wrote. So
//! a connection that sends `POST` or `Host:` as a command is closed before another of its commands
//! runs.

use crate::client::Client;
use crate::client::table::Net;
use crate::state::Server;

/// The interval in milliseconds in which at most one closed HTTP connection is logged.
const WARNING_INTERVAL_MS: i64 = 60_000;

/// Whether a command's name, up to a NUL, is `POST` or `Host:`, as in the head of an HTTP request.
pub fn is_http(name: &[u8]) -> bool {
    let name = name.split(|&b| b == 0).next().unwrap_or_default();
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}

/// Closes the connection of a client that has sent an HTTP request, without a reply.
#[cold]
pub fn abort(server: &mut Server, c: &mut Client) {
    let now = server.clock.now_ms;
    if server.net.http_warning.allows(now, WARNING_INTERVAL_MS) {
        log::warn!(
            "Possible SECURITY ATTACK detected. It looks like somebody is sending POST or Host: commands to Redis. \
             This is likely due to an attacker attempting to use Cross Protocol Scripting to compromise your Redis \
             instance. Connection from {} aborted.",
            c.peer
        );
    }
    Net::close_asap(&mut server.net.close_asap, c);
}

#[cfg(test)]
mod tests {
    use crate::client::flag;
    use crate::testing::{self, server_with};
    use crate::util::rate_limit::RateLimit;

    fn is_closed(server: &crate::state::Server, slot: u32) -> bool {
        let c = server.net.clients.get(slot).expect("a client");
        c.has(flag::CLOSE_ASAP)
    }

    #[test]
    fn an_http_request_is_cut_off_before_its_body_runs() {
        let requests: [&[&str]; 8] = [
            &["POST / HTTP/1.1", "set k 1"],
            &["post", "set k 1"],
            &["GET / HTTP/1.1", "Host: 127.0.0.1:6379", "set k 1"],
            &["\"PoSt\" x", "set k 1"],
            &["*2\r\n$4\r\nPOST\r\n$1\r\n/", "set k 1"],
            &["*1\r\n$5\r\nhost:", "set k 1"],
            &["*1\r\n$5\r\nPOST\0", "set k 1"],
            &["multi", "HOST: x", "set k 1", "exec"],
        ];
        let mut server = server_with(requests.len() as u32 + 1);
        for (slot, lines) in requests.iter().enumerate() {
            testing::say(&mut server, slot as u32, lines);
            assert!(is_closed(&server, slot as u32), "{lines:?}");
        }
        let last = requests.len() as u32;
        assert_eq!(testing::say(&mut server, last, &["exists k"]), ":0\r\n");
        assert_ne!(server.net.http_warning, RateLimit::default());
    }

    #[test]
    fn names_that_only_begin_so_are_unknown_commands() {
        let mut server = server_with(1);
        for line in ["host", "Host:x", "posts", "echo POST"] {
            let reply = testing::say(&mut server, 0, &[line]);
            assert!(reply.starts_with("-ERR unknown command") || line == "echo POST");
            assert!(!is_closed(&server, 0), "{line}");
        }
    }

    #[test]
    fn a_flood_makes_one_warning_a_minute() {
        let mut server = server_with(3);
        testing::say(&mut server, 0, &["post"]);
        let first = server.net.http_warning;
        server.clock.now_ms += super::WARNING_INTERVAL_MS;
        testing::say(&mut server, 1, &["post"]);
        assert_eq!(server.net.http_warning, first);
        server.clock.now_ms += 1;
        testing::say(&mut server, 2, &["post"]);
        assert_ne!(server.net.http_warning, first);
    }
}

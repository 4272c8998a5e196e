//! Parses the head of an HTTP request to the monitor port: the path of the resource, and the format
//! of metrics that the client prefers.
//!
//! ```text
//!   bytes ─> httparse ─┬─ not whole yet ─> None, up to MAX_HEAD bytes
//!                      ├─ broken, too long, not GET ─> Err(status)
//!                      └─ Request { path, head_only, format, keep_alive }
//! ```
//!
//! A browser sends requests to its own machine for any page that it shows. A page from elsewhere
//! can't read the replies of the monitor port, unless the page's host name resolves to a loopback
//! address (DNS rebinding). So the Host header of a request that comes from the server's machine
//! must be an address or `localhost`.
//!
//! **Limits:** a request with a body is refused, since no resource of the monitor port uses a body.
//! The head of a request has at most [`MAX_HEADERS`] headers and [`MAX_HEAD`] bytes.

use std::net::IpAddr;

use super::exposition::Format;

/// The maximum length in bytes of the head of an HTTP request.
pub const MAX_HEAD: usize = 8 * 1024;
const MAX_HEADERS: usize = 64;

/// The status of an HTTP reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    Ok,
    BadRequest,
    Forbidden,
    NotFound,
    NotAllowed,
    TooLarge,
    Unavailable,
}

impl Status {
    /// The code and the text of the status, for the status line of an HTTP reply.
    pub fn line(self) -> &'static str {
        match self {
            Status::Ok => "200 OK",
            Status::BadRequest => "400 Bad Request",
            Status::Forbidden => "403 Forbidden",
            Status::NotFound => "404 Not Found",
            Status::NotAllowed => "405 Method Not Allowed",
            Status::TooLarge => "431 Request Header Fields Too Large",
            Status::Unavailable => "503 Service Unavailable",
        }
    }
}

/// An HTTP request whose head is complete.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// The path, without a query.
    pub path: String,
    /// Whether the method is HEAD, so that the reply has no body.
    pub head_only: bool,
    /// The format of metrics that the client prefers.
    pub format: Format,
    /// Whether the connection stays open after the reply.
    pub keep_alive: bool,
}

/// Parses the request at the beginning of `input`. Returns the request with the length of its head
/// in bytes, `None` if more bytes are needed, or the status of the reply to a request that is
/// refused. `from_here` is whether the client runs on this machine.
pub fn parse(input: &[u8], from_here: bool) -> Result<Option<(Request, usize)>, Status> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let length = match head.parse(input) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(httparse::Status::Partial) if input.len() < MAX_HEAD => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Status::TooLarge),
        Err(_) => return Err(Status::BadRequest),
    };
    let header = |name: &str| {
        let found = head
            .headers
            .iter()
            .find(|h| h.name.eq_ignore_ascii_case(name));
        found.map(|h| String::from_utf8_lossy(h.value).into_owned())
    };
    let head_only = match head.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(Status::NotAllowed),
    };
    let count = |name: &str| {
        let headers = head.headers.iter();
        headers
            .filter(|h| h.name.eq_ignore_ascii_case(name))
            .count()
    };
    let has_body = header("transfer-encoding").is_some()
        || header("content-length").is_some_and(|length| length.trim() != "0");
    if has_body || count("content-length") > 1 || count("host") > 1 {
        return Err(Status::BadRequest);
    }
    if from_here && !header("host").is_none_or(|host| is_an_address(&host)) {
        return Err(Status::Forbidden);
    }
    let path = head.path.unwrap_or("/");
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let connection = header("connection")
        .unwrap_or_default()
        .to_ascii_lowercase();
    let has_option = |name: &str| connection.split(',').any(|option| option.trim() == name);
    let request = Request {
        path: path.into(),
        head_only,
        format: Format::of(&header("accept").unwrap_or_default()),
        keep_alive: match head.version {
            Some(1) => !has_option("close"),
            _ => has_option("keep-alive") && !has_option("close"),
        },
    };
    Ok(Some((request, length)))
}

/// Whether the value of a Host header is an address or `localhost`, with or without a port.
fn is_an_address(host: &str) -> bool {
    let host = host.trim();
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Option<(Request, usize)>, Status> {
        parse(text.as_bytes(), true)
    }

    #[test]
    fn a_request_is_read_when_its_head_is_complete() {
        let text = "GET /metrics?x=1 HTTP/1.1\r\nHost: 127.0.0.1:9121\r\n\
                    Accept: application/openmetrics-text; version=1.0.0\r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(parsed(&text[..end]), Ok(None), "{end}");
        }
        let (request, length) = parsed(text).expect("accepted").expect("complete");
        assert_eq!(length, text.len());
        let expected = Request {
            path: "/metrics".into(),
            head_only: false,
            format: Format::OpenMetrics,
            keep_alive: true,
        };
        assert_eq!(request, expected);
    }

    #[test]
    fn the_connection_stays_open_by_version_and_header() {
        for (version, connection, stays) in [
            ("1.1", "x", true),
            ("1.1", "Close", false),
            ("1.1", "x, close", false),
            ("1.0", "x", false),
            ("1.0", "Keep-Alive", true),
        ] {
            let text = format!("HEAD / HTTP/{version}\r\nConnection: {connection}\r\n\r\n");
            let (request, _) = parsed(&text).expect("accepted").expect("complete");
            assert!(request.head_only);
            assert_eq!(request.keep_alive, stays, "{version} {connection}");
        }
    }

    #[test]
    fn what_is_refused_has_its_status() {
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(MAX_HEAD));
        let lines = format!(
            "GET / HTTP/1.1\r\n{}\r\n",
            "A: b\r\n".repeat(MAX_HEADERS + 1)
        );
        for (text, status) in [
            ("POST / HTTP/1.1\r\n\r\n", Status::NotAllowed),
            (
                "GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
                Status::BadRequest,
            ),
            (
                "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
                Status::BadRequest,
            ),
            ("*1\r\n$4\r\nPING\r\n", Status::BadRequest),
            (
                "GET / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n",
                Status::BadRequest,
            ),
            (
                "GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
                Status::BadRequest,
            ),
            ("GET / HTTP/9\r\n\r\n", Status::BadRequest),
            (&long, Status::TooLarge),
            (&long[..MAX_HEAD], Status::TooLarge),
            (&lines, Status::TooLarge),
        ] {
            assert_eq!(parsed(text), Err(status), "{text:.40}");
        }
    }

    #[test]
    fn a_request_of_this_machine_names_the_host_by_its_address() {
        for (host, allowed) in [
            ("localhost", true),
            ("LocalHost:80", true),
            ("127.0.0.1", true),
            ("127.0.0.1:9121", true),
            ("[::1]:9121", true),
            ("evil.example", false),
            ("localhost.evil.example:80", false),
            ("", false),
        ] {
            let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(parse(text.as_bytes(), true).is_ok(), allowed, "{host}");
            assert!(parse(text.as_bytes(), false).is_ok(), "{host}");
        }
    }
}

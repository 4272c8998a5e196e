use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener};

use crate::sys;

use super::connect::{connect, numeric, resolve};
use super::*;

fn pair() -> (Connection, UnixStream) {
    let (ours, peer) = UnixStream::pair().expect("sockets");
    ours.set_nonblocking(true).expect("non-blocking");
    (Connection::unix(ours), peer)
}

/// Waits for the result of a connect, as the event loop would.
fn finish(conn: &mut Connection) -> io::Result<State> {
    loop {
        match conn.finish_connect()? {
            State::Connecting => sys::wait_for(conn.raw_fd(), true)?,
            state => return Ok(state),
        }
    }
}

#[test]
fn a_read_says_whether_the_socket_is_drained() {
    let (mut conn, mut peer) = pair();
    let mut got = Vec::new();
    let drained = |bytes| Transfer {
        bytes,
        io: Io::Drained,
    };
    assert_eq!(conn.read_into(&mut got, 8).expect("open"), drained(0));
    peer.write_all(b"0123456789").expect("sent");
    let full = conn.read_into(&mut got, 8).expect("open");
    assert_eq!((full.bytes, full.io), (8, Io::More));
    assert_eq!(conn.read_into(&mut got, 8).expect("open"), drained(2));
    assert_eq!(got, b"0123456789");
    drop(peer);
    let end = conn.read_into(&mut got, 8).expect_err("closed");
    assert_eq!(end.kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn a_write_is_drained_only_when_the_socket_is_full() {
    let (mut conn, mut peer) = pair();
    let bytes = vec![7; 1 << 20];
    let mut sent = 0;
    loop {
        let transfer = conn.write(&bytes).expect("open");
        sent += transfer.bytes;
        match transfer.io {
            Io::Drained => break,
            Io::More => assert!(transfer.bytes > 0),
        }
    }
    let mut got = vec![0; sent];
    peer.read_exact(&mut got).expect("all that was sent");
    let again = conn.write_vectored(&[IoSlice::new(b"a"), IoSlice::new(b"b")]);
    assert_eq!(again.expect("room again").bytes, 2);
    drop(peer);
    assert!(conn.write(b"c").is_err());
}

#[test]
fn an_outgoing_connection_opens_when_it_is_writable_and_has_the_local_address() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let source: IpAddr = [127, 0, 0, 9].into();
    let mut conn = connect(address, Some(source)).expect("begun");
    assert_eq!(finish(&mut conn).expect("connected"), State::Open);
    assert!(conn.is_local() && !conn.is_unix());
    let (mut peer, from) = listener.accept().expect("accepted");
    assert_eq!(from.ip(), source);
    assert_eq!(conn.write(b"PING").expect("sent").bytes, 4);
    let mut got = [0; 4];
    peer.read_exact(&mut got).expect("received");
    assert_eq!(&got, b"PING");
}

#[test]
fn a_refused_connection_is_an_error_when_the_result_is_known() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let result = connect(address, None).and_then(|mut conn| finish(&mut conn));
    let refused = result.expect_err("nothing listens there");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_source_address_of_another_machine_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    assert!(connect(address, Some([192, 0, 2, 1].into())).is_err());
}

#[test]
fn hosts_in_figures_resolve_to_themselves() {
    let four: SocketAddr = "127.0.0.1:7".parse().expect("an address");
    let six: SocketAddr = "[::1]:7".parse().expect("an address");
    for (host, address) in [("127.0.0.1", four), ("::1", six)] {
        assert_eq!(numeric(host, 7), Some(address));
        assert_eq!(resolve(host, 7).expect("an address"), [address]);
    }
    assert_eq!(numeric("localhost", 7), None);
}

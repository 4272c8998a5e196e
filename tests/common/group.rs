//! A primary with its replicas, as processes.

use super::Peer;

/// A primary and replicas that follow it.
pub struct Group {
    pub primary: Peer,
    pub replicas: Vec<Peer>,
}

/// Settings with which a full sync begins at once.
pub const SETTINGS: &[&str] = &["--repl-diskless-sync-delay", "0"];

impl Group {
    pub fn new(replicas: usize) -> Group {
        Group::with(replicas, &[])
    }

    /// A group whose primary has these settings.
    pub fn with(replicas: usize, settings: &[&str]) -> Group {
        let primary = Peer::aeris(&[SETTINGS, settings].concat());
        let replicas: Vec<Peer> = (0..replicas).map(|_| Peer::aeris(SETTINGS)).collect();
        for replica in &replicas {
            follow(replica, primary.port);
        }
        wait_for(&primary, |info| {
            info.matches("state=online").count() == replicas.len()
        });
        Group { primary, replicas }
    }
}

/// Makes a server a replica of the server at `port`, and waits until the link is up.
pub fn follow(replica: &Peer, port: u16) {
    let reply = replica
        .connect()
        .line(&format!("REPLICAOF 127.0.0.1 {port}"));
    assert_eq!(reply, "+OK\r\n");
    wait_for(replica, |info| info.contains("master_link_status:up"));
}

/// The reply to INFO replication.
pub fn info(server: &Peer) -> String {
    server.connect().line("INFO replication")
}

/// Waits until the reply to INFO replication has this property.
pub fn wait_for(server: &Peer, property: impl Fn(&str) -> bool) {
    for _ in 0..3000 {
        if property(&info(server)) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("it does not come:\n{}", info(server));
}

/// A guard that stops a process until it is dropped, so that the process acknowledges nothing.
pub struct Stopped(nix::unistd::Pid);

impl Stopped {
    pub fn new(server: &Peer) -> Stopped {
        let pid = nix::unistd::Pid::from_raw(server.pid() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::SIGSTOP).expect("stop");
        Stopped(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.0, nix::sys::signal::SIGCONT);
    }
}

//! The ACL file (`aclfile`) is the same as in Valkey 9.1, with permissions for databases: aeris
//! loads what Valkey saved, and the reverse.

mod common;

use common::{Peer, parse_reply};
use std::path::PathBuf;

const USERS: &[&str] = &[
    "all on nopass ~* &* +@all",
    "one on >secret ~k* resetchannels db=0 +@all",
    "some off ~* db=3,1,2 -@all +get +config|get",
    "none on nopass ~* +@all resetdbs",
    "again on nopass ~* +@all db=1 alldbs",
    "far on nopass ~* +@all db=2147483647",
    "parts on nopass +@all db=0 (db=1,2 %R~r* +get) (alldbs ~x +set) (resetdbs ~y +@read)",
];

/// ACL files with an error, of which the server applies no line.
const FAULTY: &[&str] = &[
    "user x on db=",
    "user x on db=1,",
    "user x on db=x",
    "user x on db=-1",
    "user x on db=2147483648",
    "user x on (db=x)",
    "user x on db=1 db=",
    "user x on db=1\nuser x on alldbs",
    "db=1 user x",
];

struct Server {
    peer: Peer,
    file: PathBuf,
}

impl Server {
    /// Starts a server whose ACL file has this text. `None` if this kind of server is not
    /// installed.
    fn new(start: fn(&[&str]) -> Option<Peer>, name: &str, text: &str) -> Option<Server> {
        let directory = std::env::temp_dir();
        let file = directory.join(format!("aeris-acl-{}-{name}", std::process::id()));
        std::fs::write(&file, text).expect("the file of users");
        let peer = start(&["--aclfile", file.to_str().expect("a name in ASCII")]);
        if peer.is_none() {
            std::fs::remove_file(&file).expect("the file of users");
        }
        Some(Server { peer: peer?, file })
    }

    fn ask(&self, line: &str) -> String {
        self.peer.connect().line(line)
    }

    /// The sorted reply of ACL LIST, without the flag for RESTORE payloads, which only Redis has.
    fn users(&self) -> Vec<String> {
        let list = parse_reply(&self.peer.connect().cmd(&["ACL", "LIST"])).sorted();
        let text = |user| String::from_utf8(user).expect("a user in ASCII");
        let list = list.texts().into_iter().map(text);
        list.map(|user| user.replace(" sanitize-payload", ""))
            .collect()
    }

    fn set_users(&self) {
        for user in USERS {
            assert_eq!(self.peer.connect().cmd(&words(user)), b"+OK\r\n", "{user}");
        }
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.file, text).expect("the file of users");
    }

    fn saved(&self) -> String {
        assert_eq!(self.ask("ACL SAVE"), "+OK\r\n");
        std::fs::read_to_string(&self.file).expect("the file of users")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The server may have failed before it wrote the file.
        let _ = std::fs::remove_file(&self.file);
    }
}

/// Splits a text of [`USERS`] into the arguments of ACL SETUSER; a selector is one argument.
fn words(user: &str) -> Vec<String> {
    let mut words = vec!["ACL".to_string(), "SETUSER".to_string()];
    let mut inside = false;
    for word in user.split(' ') {
        match words.last_mut() {
            Some(selector) if inside => *selector += &format!(" {word}"),
            _ => words.push(word.into()),
        }
        inside = inside && !word.ends_with(')') || word.starts_with('(') && !word.ends_with(')');
    }
    words
}

fn aeris(args: &[&str]) -> Option<Peer> {
    Some(Peer::aeris(args))
}

#[test]
fn saved_users_are_loaded_again() {
    let server = Server::new(aeris, "again", "").expect("our server");
    server.set_users();
    let (users, saved) = (server.users(), server.saved());
    assert_eq!(server.ask("ACL DELUSER one some none"), ":3\r\n");
    assert_eq!(server.ask("ACL LOAD"), "+OK\r\n");
    assert_eq!(server.users(), users);
    let started = Server::new(aeris, "started", &saved).expect("our server");
    assert_eq!(started.users(), users);
}

#[test]
fn the_file_of_each_is_read_by_the_other() {
    let ours = Server::new(aeris, "ours", "").expect("our server");
    let Some(theirs) = Server::new(Peer::valkey9, "theirs", "") else {
        return;
    };
    ours.set_users();
    theirs.set_users();
    let users = ours.users();
    assert_eq!(users.len(), USERS.len() + 1);
    assert_eq!(users, theirs.users());
    let (our_text, their_text) = (ours.saved(), theirs.saved());
    for (server, text) in [(&ours, &their_text), (&theirs, &our_text)] {
        server.write(text);
        assert_eq!(server.ask("ACL DELUSER one some"), ":2\r\n");
        assert_eq!(server.ask("ACL LOAD"), "+OK\r\n");
        assert_eq!(server.users(), users);
    }
    for faulty in FAULTY {
        let errors = [&ours, &theirs].map(|server| {
            server.write(faulty);
            let file = server.file.to_str().expect("a name in ASCII");
            let error = server.ask("ACL LOAD").replace(file, "FILE");
            assert_eq!(server.users(), users, "{faulty}");
            error
        });
        assert!(errors[0].starts_with("-ERR "), "{faulty}: {}", errors[0]);
        assert_eq!(errors[0], errors[1], "{faulty}");
    }
    let started = Server::new(aeris, "restarted", &their_text).expect("our server");
    assert_eq!(started.users(), users);
    let started = Server::new(Peer::valkey9, "restarted-theirs", &our_text);
    assert_eq!(started.expect("the other server").users(), users);
}

/// Transactions of users that are limited to some databases: the ACL rules of the user, then the
/// requests.
const TRANSACTIONS: &[&[&str]] = &[
    &[
        "on nopass ~* +@all db=0",
        "SWAPDB 0 1",
        "SET k v",
        "SELECT 1",
        "SET k w",
    ],
    &[
        "on nopass ~* +@all db=0,1",
        "SWAPDB 0 1",
        "SET k v",
        "SELECT 1",
        "SET k v",
    ],
    &[
        "on nopass ~* +@all db=0",
        "MOVE k 1",
        "SET k v",
        "COPY k j DB 1",
        "FLUSHALL",
        "GET k",
    ],
    &["on nopass ~* +@all db=1", "SELECT 1", "SET k v", "GET k"],
    &[
        "on nopass ~* +@all db=1",
        "SET k v",
        "SELECT 1",
        "SET k v",
        "SELECT 0",
        "SET k v",
    ],
    &[
        "on nopass ~* -@all +multi +exec +get +swapdb db=0",
        "SWAPDB 0 1",
        "SET k v",
        "GET k",
        "SWAPDB 0 0",
        "GET k",
    ],
];

/// In a transaction, the commands after a refused one get the replies of Valkey 9.1, too.
#[test]
fn transactions_refuse_databases_as_valkey_does() {
    let Some(theirs) = Peer::valkey9(&[]) else {
        return;
    };
    let ours = Peer::aeris(&[]);
    for (at, lines) in TRANSACTIONS.iter().enumerate() {
        let user = format!("ACL SETUSER user:{at} {}", lines[0]);
        let auth = format!("AUTH user:{at} any");
        let mut all = vec![user.as_str(), &auth, "MULTI"];
        all.extend(&lines[1..]);
        all.push("EXEC");
        let (mut ours, mut theirs) = (ours.connect(), theirs.connect());
        for line in &all {
            assert_eq!(ours.line(line), theirs.line(line), "{line} of {all:?}");
        }
    }
}

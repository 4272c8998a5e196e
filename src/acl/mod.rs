//! Who may do what. A client is a user from its first byte on: the default one, or the one that AUTH named.

use crate::error::Error;
use crate::networking::client::Client;
use crate::state::Server;

/// The user that a client acts as.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct UserRef(Option<Box<str>>);

impl UserRef {
    pub fn name(&self) -> &str {
        self.0.as_deref().unwrap_or("default")
    }
}

#[derive(Default)]
pub struct Acl {
    /// `requirepass`: the default user's password, or none.
    password: Option<Vec<u8>>,
}

impl Acl {
    pub fn set_password(&mut self, password: &[u8]) {
        self.password = (!password.is_empty()).then(|| password.to_vec());
    }

    /// New connections are the default user without having said so.
    pub fn default_user_is_open(&self) -> bool {
        self.password.is_none()
    }

    pub fn auth_required(&self) -> bool {
        self.password.is_some()
    }

    /// Whether there is a user of this name.
    pub fn exists(&self, name: &[u8]) -> bool {
        name == b"default"
    }

    /// Whether name and password are right. Takes as long for a wrong one as for a right one.
    pub fn authenticate(&self, name: &[u8], password: &[u8]) -> bool {
        if name != b"default" {
            return false;
        }
        let Some(expected) = &self.password else {
            return true;
        };
        let len_differs = (expected.len() ^ password.len()) as u8
            | ((expected.len() ^ password.len()) >> 8) as u8;
        let difference = expected
            .iter()
            .zip(password.iter().chain(std::iter::repeat(&0)))
            .fold(len_differs, |sum, (a, b)| sum | (a ^ b));
        difference == 0
    }
}

/// AUTH: the client becomes this user.
pub fn log_in(
    server: &mut Server,
    c: &mut Client,
    name: &[u8],
    password: &[u8],
) -> Result<(), Error> {
    if !server.acl.authenticate(name, password) {
        return Err(Error::of(
            "WRONGPASS invalid username-password pair or user is disabled.",
        ));
    }
    c.user = UserRef::default();
    c.authenticated = true;
    c.set(crate::networking::client::flag::EVER_AUTHENTICATED);
    Ok(())
}

/// May this client run this command on these keys?
#[inline]
pub fn check_command(_: &Server, _: &Client, _: &[&[u8]], _: u16) -> Result<(), Error> {
    Ok(())
}

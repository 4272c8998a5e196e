//! One step of a link: a request, and what is expected in reply.

use super::{Failure, Reply};
use crate::ds::bulk::push_command;

/// The reply that a step expects, if it is not an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    /// Any reply.
    Reply,
    /// A status that begins with this text.
    Status(&'static str),
    /// One line, which may be of a kind that RESP does not have, such as `$ENDOFF:...`.
    Line,
    /// No reply at all.
    Nothing,
}

/// What an error reply to a step means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Errors {
    /// The link fails.
    Fatal,
    /// The link fails, unless the error begins with one of these texts.
    FatalExcept(&'static [&'static str]),
    /// It is a reply as any other.
    Tolerated,
}

/// A request, and what is expected in reply. It has no `Debug`: it may hold a password.
#[derive(Clone)]
pub struct Step {
    /// The owner's name for it.
    pub tag: u32,
    /// The bytes that are sent.
    pub request: Vec<u8>,
    pub expect: Expect,
    pub errors: Errors,
    /// The next step is sent only when the reply to this one is there.
    pub waits: bool,
    /// Time for the reply, if it is not the plan's.
    pub timeout_ms: Option<u64>,
}

impl Step {
    /// A command, sent as a RESP array. Any reply will do but an error, and the next step does not
    /// wait for it.
    pub fn new<A: AsRef<[u8]>>(tag: u32, argv: &[A]) -> Step {
        let mut request = Vec::new();
        push_command(&mut request, argv);
        Step {
            tag,
            request,
            expect: Expect::Reply,
            errors: Errors::Fatal,
            waits: false,
            timeout_ms: None,
        }
    }

    /// AUTH with a password, and with a user's name if it is not the default user. A peer that
    /// refuses ends the link.
    pub fn auth(tag: u32, user: Option<&str>, password: &str) -> Step {
        let mut argv = vec!["AUTH"];
        argv.extend(user);
        argv.push(password);
        Step::new(tag, &argv).expect(Expect::Status("OK"))
    }

    /// Another reply is expected.
    pub fn expect(mut self, expect: Expect) -> Step {
        self.expect = expect;
        self
    }

    /// Errors mean something else than the end of the link.
    pub fn errors(mut self, errors: Errors) -> Step {
        self.errors = errors;
        self
    }

    /// The next step is sent only when the reply to this one is there.
    pub fn wait(mut self) -> Step {
        self.waits = true;
        self
    }

    /// The reply has a time of its own.
    pub fn timeout(mut self, ms: u64) -> Step {
        self.timeout_ms = Some(ms);
        self
    }

    /// The reply, if it is one that the step expects or an error that it tolerates.
    pub(super) fn check(&self, reply: Reply) -> Result<Reply, Failure> {
        let tag = self.tag;
        let begins = |text: &[u8], start: &&str| text.starts_with(start.as_bytes());
        if let Reply::Error(error) = &reply {
            let tolerated = match self.errors {
                Errors::Fatal => false,
                Errors::FatalExcept(list) => list.iter().any(|start| begins(error, start)),
                Errors::Tolerated => true,
            };
            return match reply {
                Reply::Error(error) if !tolerated => Err(Failure::Refused { tag, error }),
                reply => Ok(reply),
            };
        }
        match (self.expect, &reply) {
            (Expect::Status(start), Reply::Status(text)) if begins(text, &start) => Ok(reply),
            (Expect::Status(_), _) => Err(Failure::Unexpected { tag, reply }),
            (Expect::Reply | Expect::Line | Expect::Nothing, _) => Ok(reply),
        }
    }
}

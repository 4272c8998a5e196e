//! A step of an outgoing link to another server: a request, and its expected reply.

use super::{Failure, Reply};
use crate::ds::bulk::push_command;

/// The reply that is expected to a link's request, apart from error replies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    /// Any reply is expected.
    Reply,
    /// A status that begins with this text is expected.
    Status(&'static str),
    /// A single line is expected, which may begin with a byte that RESP does not have, such as
    /// `$ENDOFF:...`.
    Line,
    /// No reply is expected.
    Nothing,
}

/// The consequence of an error reply to a link's request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Errors {
    /// The link fails at an error reply.
    Fatal,
    /// The link fails at an error reply, unless the error begins with one of these texts.
    FatalExcept(&'static [&'static str]),
    /// An error reply is passed to the owner of the link like any other reply.
    Tolerated,
}

/// A request with its expected reply. `Step` has no `Debug`, as it may contain a password.
#[derive(Clone)]
pub struct Step {
    /// The number by which the owner of the link recognises the reply to the step.
    pub tag: u32,
    /// The bytes of the request.
    pub request: Vec<u8>,
    pub expect: Expect,
    pub errors: Errors,
    /// Whether later steps are sent only after the reply to this step.
    pub waits: bool,
    /// The timeout of the reply in milliseconds; `None` means that of the link's plan.
    pub timeout_ms: Option<u64>,
}

impl Step {
    /// A command, sent as a RESP array. Any reply except an error is accepted, and later requests
    /// are sent without waiting for the reply.
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

    /// AUTH with a password and, unless `user` is `None`, a user name. An error reply ends the
    /// link.
    pub fn auth(tag: u32, user: Option<&str>, password: &str) -> Step {
        let mut argv = vec!["AUTH"];
        argv.extend(user);
        argv.push(password);
        Step::new(tag, &argv).expect(Expect::Status("OK"))
    }

    /// Sets the expected reply.
    pub fn expect(mut self, expect: Expect) -> Step {
        self.expect = expect;
        self
    }

    /// Sets the consequence of an error reply.
    pub fn errors(mut self, errors: Errors) -> Step {
        self.errors = errors;
        self
    }

    /// Sets that later steps are sent only after the reply to this step. The step before PSYNC is
    /// such a step: a primary refuses PSYNC while it has replies to send.
    pub fn wait(mut self) -> Step {
        self.waits = true;
        self
    }

    /// Sets the timeout of the reply in milliseconds.
    pub fn timeout(mut self, ms: u64) -> Step {
        self.timeout_ms = Some(ms);
        self
    }

    /// Checks whether the reply to the request is the expected one. Returns an expected reply or a
    /// tolerated error.
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

//! Running commands: from a request's arguments to an executed, propagated command.
//!
//! ```text
//!   dispatch   may this command run now? (arity, authentication, ACL, memory, disk, loading, pause, MULTI)
//!   route      on a cluster node: are the keys here, or where must the client go?
//!   call       run it: clock, statistics, error reply, propagation
//!   stream_errors   errors of commands that a primary, a replica or the AOF sent
//!   cross_protocol   a connection that speaks HTTP is closed
//!   blocked    clients that wait for a key, and serving them when it changes
//! ```
//!
//! Commands are called through the rows of the command table only, so the module `execute` is a
//! layer below the commands, the scripts and the AOF loader, which all run commands through `call`.

pub mod blocked;
pub mod busy;
pub mod call;
pub mod charge;
pub mod cross_protocol;
pub mod disconnect;
pub mod dispatch;
pub mod migration;
pub mod pause;
pub mod route;
pub mod stream_errors;
pub mod transaction;
pub mod wait;
pub mod waiting_link;

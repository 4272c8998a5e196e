//! Whether tables may move, said once for all of a thread's tables.
//!
//! It is the process that forks, not a table: while a child lives, the keyspace and every big hash,
//! set and sorted set in it stay where they are. All of them belong to one thread; the others only
//! free. A flag in each table would have to be carried to millions of them.

use std::cell::Cell;

/// Whether tables may start and continue a resize. A forked child shares the pages: a table that
/// moves costs both sides a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResizePolicy {
    /// Grow, shrink and rehash at will.
    Allow,
    /// While a child runs: grow only when chains get painful, at `AVOID_FACTOR` times the usual
    /// load.
    Avoid,
    /// Never; in the child itself.
    Forbid,
}

thread_local! {
    static POLICY: Cell<ResizePolicy> = const { Cell::new(ResizePolicy::Allow) };
}

/// What this thread's tables may do from now on.
pub fn set_resize_policy(policy: ResizePolicy) {
    POLICY.set(policy);
}

#[inline]
pub(super) fn policy() -> ResizePolicy {
    POLICY.get()
}

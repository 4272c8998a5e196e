//! Whether tables may be resized: one setting for all tables of a thread.
//!
//! While a forked child lives, neither the keyspace nor any big hash, set or sorted set in it is
//! moved. All of them belong to one thread; the other threads only free. A flag in each table would
//! have to be set in millions of them.

use std::cell::Cell;

/// Whether tables may start and continue a resize. A forked child shares memory pages: a table that
/// moves is copied for both processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResizePolicy {
    /// Tables grow, shrink and rehash freely.
    Allow,
    /// As `Allow`, but a resize moves all elements at once (`teach rehash-at-once`).
    AtOnce,
    /// While a child runs: grow only when chains become very long, at `AVOID_FACTOR` times the
    /// usual load.
    Avoid,
    /// Never resize: in the child itself.
    Forbid,
}

thread_local! {
    static POLICY: Cell<ResizePolicy> = const { Cell::new(ResizePolicy::Allow) };
}

/// Sets the policy of this thread's tables.
pub fn set_resize_policy(policy: ResizePolicy) {
    POLICY.set(policy);
}

#[inline]
pub(super) fn policy() -> ResizePolicy {
    POLICY.get()
}

//! The policy for resizing hash tables: one setting for all tables of a thread.
//!
//! While a forked child lives, neither the hash table of the keyspace nor that of any big hash, set
//! or sorted set is resized. All hash tables of the data set belong to one thread; other threads
//! only free tables. A flag in each table would have to be set in millions of them.

use std::cell::Cell;

/// The rule by which hash tables may begin and continue a resize. A forked child shares memory
/// pages with this process, so the pages of a table that is resized would be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResizePolicy {
    /// Tables grow, shrink and rehash freely.
    Allow,
    /// Tables grow as under `Allow`, but a resize moves all elements at once (`teach
    /// rehash-at-once`), and tables don't shrink.
    AtOnce,
    /// Tables grow only when chains become very long, at `AVOID_FACTOR` times the usual load. This
    /// policy holds while a child runs.
    Avoid,
    /// Tables are never resized. This policy holds in the child itself.
    Forbid,
}

thread_local! {
    static POLICY: Cell<ResizePolicy> = const { Cell::new(ResizePolicy::Allow) };
}

/// Sets the policy for resizing this thread's hash tables.
pub fn set_resize_policy(policy: ResizePolicy) {
    POLICY.set(policy);
}

#[inline]
pub(super) fn policy() -> ResizePolicy {
    POLICY.get()
}

//! Moves allocations out of slabs that are nearly empty: the basis of active defragmentation.
//!
//! jemalloc serves small sizes from slabs, runs of pages with room for many allocations of one size
//! class. A slab is returned when its last allocation is freed, so one allocation can hold 16 KB:
//!
//! ```text
//!   before   [##..#...] [.#......] [###.##.#] [...#..#.]     4 slabs, 12 of 32 places used
//!                 |        |                      |  |
//!   after    [######..] [        ] [###.##.#] [        ]     the second and fourth are free pages
//! ```
//!
//! For each address jemalloc reports (`experimental.utilization.query`, which is compiled in) how
//! much of its slab and of all slabs of its class is free, and which slab the next allocation comes
//! from. The next allocation comes from the slab in use, then from the lowest slab that is not
//! full. So moved allocations fill the slabs at low addresses, and the other slabs become empty.
//!
//! # Which allocations are worth moving
//!
//! An allocation is worth moving if its slab is emptier than the slabs of its class are on average
//! ([`Places::is_sparse`]), and if the allocations of the class would fit into fewer slabs at all.
//! Nothing is moved out of the slab in use, since the new allocation would come from the same slab.
//!
//! # Invariants
//!
//! - Moved memory bypasses the cache of the thread, when it is allocated and when it is freed: the
//!   cache would hand out the place that was freed last, in the slab that is to become empty
//!   (`tests::sparse_slabs_become_empty`). The nodes of a standard map can't be moved byte by byte,
//!   so the map is rebuilt while the cache is off ([`Mover::map`]).
//! - An allocation is moved only through the exclusive reference to its only owner.
//!
//! Cost: a query takes about 60 ns, mostly for a lock and a cache miss; a move takes some 200 ns.
//!
//! Rejected: Redis's patch of jemalloc (a distribution's server links the system's jemalloc);
//! `batch_query` (it does not name the slab in use, and reports nothing about the class).

use std::alloc::{Layout, handle_alloc_error};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::CStr;
use std::ptr::NonNull;

/// Whether the allocator is jemalloc, which can be queried.
pub const AVAILABLE: bool = cfg!(feature = "jemalloc");

/// The largest size that jemalloc serves from slabs; larger allocations have pages of their own.
const SLAB_MAX: usize = 14 * 1024;
/// The maximum number of keys of a map that is moved: a map is rebuilt in one step.
const MAP_MAX: usize = 4096;

/// Moves allocations, and counts those that it moved and left.
pub struct Mover {
    choice: Choice,
    /// The number of elements that the present step of defragmentation may still visit.
    left: usize,
    /// Whether jemalloc's cache of this thread is off until [`Mover::end_step`].
    uncached: bool,
    /// The number of allocations that were moved.
    pub hits: u64,
    /// The number of allocations that were examined and left.
    pub misses: u64,
}

/// The rule by which allocations are chosen to be moved.
#[cfg_attr(not(feature = "jemalloc"), allow(dead_code))]
enum Choice {
    /// Allocations in sparse slabs are moved; the value is jemalloc's number for the name of the
    /// query.
    Sparse([usize; 3]),
    /// All allocations are moved; only tests choose this rule.
    All,
}

/// What `experimental.utilization.query` returns about an address.
#[repr(C)]
#[derive(Default)]
struct Places {
    /// The address of the slab that serves the next allocation of this size class.
    current_slab: usize,
    free: usize,
    all: usize,
    slab_bytes: usize,
    /// The number of free places in all slabs of the size class.
    class_free: usize,
    class_all: usize,
}

impl Places {
    /// Whether an allocation at `address` should move to another slab.
    fn is_sparse(&self, address: usize) -> bool {
        let in_current = address.wrapping_sub(self.current_slab) < self.slab_bytes;
        if self.all <= 1 || self.free == 0 || in_current {
            return false;
        }
        // A slab can be emptied if the free places of the class fill two slabs: one of the two may
        // be the current slab.
        let slab_to_win = self.class_free >= 2 * self.all && self.class_free * 50 >= self.class_all;
        // A slab that is up to an eighth less free than the average counts, too: after random frees
        // slabs are equally sparse.
        slab_to_win && self.free * self.class_all * 8 >= self.class_free * self.all * 7
    }
}

impl Mover {
    /// A mover that queries jemalloc; `None` without jemalloc.
    pub fn new() -> Option<Mover> {
        sys::name_of_query().map(|name| Mover::with(Choice::Sparse(name)))
    }

    /// A mover that moves all allocations.
    pub fn of_everything() -> Mover {
        Mover::with(Choice::All)
    }

    fn with(choice: Choice) -> Mover {
        Mover {
            choice,
            left: 0,
            uncached: false,
            hits: 0,
            misses: 0,
        }
    }

    /// Begins a step of defragmentation that may visit about `elements` elements.
    pub fn begin_step(&mut self, elements: usize) {
        self.left = elements;
    }

    /// Ends a step of defragmentation: jemalloc's cache of this thread is used again.
    pub fn end_step(&mut self) {
        if std::mem::take(&mut self.uncached) {
            sys::use_cache(true);
        }
    }

    /// Counts `elements` as visited in the present step.
    #[inline]
    pub fn visited(&mut self, elements: usize) {
        self.left = self.left.saturating_sub(elements);
    }

    /// Whether the present step may visit no more elements.
    #[inline]
    pub fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// Whether the allocation that contains an address, of at least `size` bytes, is worth moving.
    fn wants(&self, address: usize, size: usize) -> bool {
        match &self.choice {
            Choice::All => true,
            Choice::Sparse(_) if size > SLAB_MAX => false,
            Choice::Sparse(name) => sys::query(name, address).is_sparse(address),
        }
    }

    /// Copies an allocation to another place, if the move is worth it. The caller stores the new
    /// address and then calls [`Mover::free`] with the old one.
    ///
    /// # Safety
    /// `p` is a live allocation of the global allocator with this layout, and its content may be
    /// moved by copying the bytes.
    #[inline]
    pub unsafe fn copy(&mut self, p: NonNull<u8>, layout: Layout) -> Option<NonNull<u8>> {
        if layout.size() == 0 || !self.wants(p.addr().get(), layout.size()) {
            self.misses += 1;
            return None;
        }
        self.hits += 1;
        let Some(new) = NonNull::new(sys::allocate(layout)) else {
            handle_alloc_error(layout)
        };
        // SAFETY: both allocations have this size, and they don't overlap.
        unsafe { new.copy_from_nonoverlapping(p, layout.size()) };
        Some(new)
    }

    /// Frees an allocation that was copied.
    ///
    /// # Safety
    /// `p` and `layout` were given to [`Mover::copy`], which made a copy; nothing uses `p` any
    /// more.
    #[inline]
    pub unsafe fn free(&mut self, p: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller promises that nothing uses `p` any more.
        unsafe { sys::free(p.as_ptr(), layout) }
    }

    /// Moves an allocation, if the move is worth it, and returns the new address.
    ///
    /// # Safety
    /// As for [`Mover::copy`]; if there is a new address, the old one is not used again.
    #[inline]
    pub unsafe fn relocate(&mut self, p: NonNull<u8>, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: the caller keeps the contract of `copy`; `p` is freed only after it was copied.
        unsafe {
            let new = self.copy(p, layout)?;
            self.free(p, layout);
            Some(new)
        }
    }

    /// Moves the allocation of a box.
    pub fn boxed<T>(&mut self, owner: &mut Box<T>) {
        let layout = Layout::new::<T>();
        let p = NonNull::from(&mut **owner);
        // SAFETY: the box is the only owner of this allocation, and a box that can be exchanged is
        // not pinned; the old box is forgotten unread.
        unsafe {
            if let Some(new) = self.relocate(p.cast(), layout) {
                std::ptr::write(owner, Box::from_raw(new.cast::<T>().as_ptr()));
            }
        }
    }

    /// Moves the allocation of a slice.
    pub fn boxed_slice<T>(&mut self, owner: &mut Box<[T]>) {
        let (layout, len) = (Layout::for_value(&**owner), owner.len());
        if layout.size() == 0 {
            return;
        }
        let p = NonNull::from(&mut **owner).cast::<u8>();
        // SAFETY: the box is the only owner of this allocation, as in `boxed`; the old box is
        // forgotten unread.
        unsafe {
            if let Some(new) = self.relocate(p, layout) {
                let slice = NonNull::slice_from_raw_parts(new.cast::<T>(), len);
                std::ptr::write(owner, Box::from_raw(slice.as_ptr()));
            }
        }
    }

    /// Moves the allocation of a vector.
    pub fn vec<T>(&mut self, owner: &mut Vec<T>) {
        let (len, capacity) = (owner.len(), owner.capacity());
        let layout = Layout::array::<T>(capacity).expect("the layout of a vector");
        let Some(p) = NonNull::new(owner.as_mut_ptr()).filter(|_| layout.size() > 0) else {
            return;
        };
        // SAFETY: the vector is the only owner of this allocation, which has its capacity; the old
        // vector is forgotten unread.
        unsafe {
            if let Some(new) = self.relocate(p.cast(), layout) {
                let moved = Vec::from_raw_parts(new.cast::<T>().as_ptr(), len, capacity);
                std::ptr::write(owner, moved);
            }
        }
    }

    /// Moves the allocation of a `VecDeque`.
    pub fn deque<T>(&mut self, owner: &mut VecDeque<T>) {
        let bytes = owner.capacity() * size_of::<T>();
        let address = owner.as_slices().0.as_ptr().addr();
        if bytes > SLAB_MAX || owner.is_empty() || !self.wants(address, bytes) {
            self.misses += 1;
            return;
        }
        let mut places = Vec::from(std::mem::take(owner));
        self.vec(&mut places);
        *owner = VecDeque::from(places);
    }

    /// Rebuilds a map if one of its nodes is worth moving; `each` gets the keys and values during
    /// the rebuild, and may move their allocations.
    pub fn map<K: Ord, V>(
        &mut self,
        owner: &mut BTreeMap<K, V>,
        mut each: impl FnMut(&mut Mover, &mut K, &mut V),
    ) {
        if !self.wants_nodes(owner.keys()) {
            return;
        }
        let pairs = std::mem::take(owner).into_iter();
        let moved = pairs.map(|(mut key, mut value)| {
            each(self, &mut key, &mut value);
            (key, value)
        });
        *owner = moved.collect();
    }

    /// Rebuilds a set if one of its nodes is worth moving.
    pub fn set<K: Ord>(&mut self, owner: &mut BTreeSet<K>) {
        if self.wants_nodes(owner.iter()) {
            *owner = std::mem::take(owner).into_iter().collect();
        }
    }

    /// Whether a map with these keys is to be rebuilt. If it is to be rebuilt, jemalloc's cache of
    /// this thread is switched off.
    fn wants_nodes<'a, K: 'a>(&mut self, keys: impl ExactSizeIterator<Item = &'a K>) -> bool {
        /// A stride over a map's keys that reaches each node of the B-tree: a node has at most 11
        /// keys, and usually more than half of that.
        const KEYS_OF_A_NODE: usize = 8;
        if keys.len() == 0 || keys.len() > MAP_MAX {
            return false;
        }
        let mut nodes = keys.step_by(KEYS_OF_A_NODE);
        let wanted = nodes.any(|key| self.wants((&raw const *key).addr(), size_of::<K>()));
        self.hits += u64::from(wanted);
        self.misses += u64::from(!wanted);
        if wanted {
            self.stop_caching();
        }
        wanted
    }

    /// Switches jemalloc's cache of this thread off until the end of the step.
    fn stop_caching(&mut self) {
        if !self.uncached && matches!(self.choice, Choice::Sparse(_)) {
            self.uncached = true;
            sys::use_cache(false);
        }
    }
}

impl Drop for Mover {
    fn drop(&mut self) {
        self.end_step();
    }
}

/// Returns the free memory in jemalloc's cache of this thread to the slabs.
pub fn flush_cache() {
    sys::command(c"thread.tcache.flush");
}

#[cfg(feature = "jemalloc")]
mod sys {
    use super::{CStr, Layout, Places};
    use crate::sys::allocator::aligned;
    use std::ptr;
    use tikv_jemalloc_sys as je;

    /// `MALLOCX_TCACHE_NONE` of jemalloc.h: `(-1 + 2) << 8`.
    const TCACHE_NONE: i32 = 1 << 8;

    pub(super) fn name_of_query() -> Option<[usize; 3]> {
        let (mut name, mut len) = ([0; 3], 3);
        let text = c"experimental.utilization.query";
        // SAFETY: the array has room for `len` numbers, and the name has that many parts.
        let answer = unsafe { je::mallctlnametomib(text.as_ptr(), name.as_mut_ptr(), &mut len) };
        (answer == 0 && len == 3).then_some(name)
    }

    /// What jemalloc reports about an address; all zero if the address is not one of jemalloc's.
    #[inline]
    pub(super) fn query(name: &[usize; 3], address: usize) -> Places {
        let (mut places, mut len) = (Places::default(), size_of::<Places>());
        let mut address = address;
        // SAFETY: the query reads one address and writes the six words of `Places`; it follows no
        // pointer that is not jemalloc's.
        unsafe {
            je::mallctlbymib(
                name.as_ptr(),
                3,
                (&raw mut places).cast(),
                &mut len,
                (&raw mut address).cast(),
                size_of::<usize>(),
            );
        }
        places
    }

    pub(super) fn allocate(layout: Layout) -> *mut u8 {
        // SAFETY: the size is not zero (`Mover::copy`).
        unsafe { je::mallocx(layout.size(), aligned(layout) | TCACHE_NONE).cast() }
    }

    pub(super) unsafe fn free(p: *mut u8, layout: Layout) {
        // SAFETY: the caller owns the allocation, which has this layout.
        unsafe { je::sdallocx(p.cast(), layout.size(), aligned(layout) | TCACHE_NONE) }
    }

    pub(super) fn use_cache(on: bool) {
        let mut on = on;
        // SAFETY: the value of `thread.tcache.enabled` is one boolean.
        unsafe {
            je::mallctl(
                c"thread.tcache.enabled".as_ptr(),
                ptr::null_mut(),
                ptr::null_mut(),
                (&raw mut on).cast(),
                size_of::<bool>(),
            );
        }
    }

    pub(super) fn command(name: &CStr) {
        // SAFETY: a name that is a command has no value to read or write.
        unsafe {
            je::mallctl(
                name.as_ptr(),
                ptr::null_mut(),
                ptr::null_mut(),
                ptr::null_mut(),
                0,
            );
        }
    }
}

#[cfg(not(feature = "jemalloc"))]
mod sys {
    use super::{CStr, Layout, Places};

    pub(super) fn name_of_query() -> Option<[usize; 3]> {
        None
    }

    pub(super) fn query(_: &[usize; 3], _: usize) -> Places {
        Places::default()
    }

    pub(super) fn allocate(layout: Layout) -> *mut u8 {
        // SAFETY: the size is not zero (`Mover::copy`).
        unsafe { std::alloc::alloc(layout) }
    }

    pub(super) unsafe fn free(p: *mut u8, layout: Layout) {
        // SAFETY: the caller owns the allocation, which has this layout.
        unsafe { std::alloc::dealloc(p, layout) }
    }

    pub(super) fn use_cache(_: bool) {}

    pub(super) fn command(_: &CStr) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(free: usize, class_free: usize, class_all: usize) -> Places {
        Places {
            current_slab: 0x10_0000,
            free,
            all: 64,
            slab_bytes: 4096,
            class_free,
            class_all,
        }
    }

    #[test]
    fn only_sparse_slabs_are_worth_emptying() {
        let away = 0x20_0000;
        assert!(
            places(32, 320, 640).is_sparse(away),
            "as full as the average"
        );
        assert!(
            !places(20, 320, 640).is_sparse(away),
            "fuller than the average"
        );
        assert!(!places(0, 320, 640).is_sparse(away), "full");
        assert!(!places(60, 100, 640).is_sparse(away), "no slab to win");
        assert!(
            !places(60, 320, 640).is_sparse(0x10_0fff),
            "the slab in use"
        );
        assert!(
            places(60, 320, 640).is_sparse(0x10_1000),
            "the slab behind it"
        );
        assert!(
            !Places {
                all: 1,
                ..places(1, 1, 1)
            }
            .is_sparse(away),
            "a large one"
        );
    }

    #[test]
    fn what_is_moved_stays_the_same() {
        let mut mover = Mover::of_everything();
        let mut boxed = Box::new([7u64; 9]);
        let mut slice: Box<[u8]> = b"slice"[..].into();
        let mut empty: Box<[u64]> = Box::default();
        let mut vec = Vec::with_capacity(10);
        vec.extend(["a".to_string(), "b".to_string()]);
        let mut ring: VecDeque<u32> = (0..9).collect();
        ring.rotate_left(4);
        ring.push_back(100);
        let was = (
            ring.clone(),
            (&raw const *boxed).addr(),
            vec.as_ptr().addr(),
        );
        let mut map: BTreeMap<u32, Box<str>> =
            (0..100).map(|n| (n, n.to_string().into())).collect();
        mover.boxed(&mut boxed);
        mover.boxed_slice(&mut slice);
        mover.boxed_slice(&mut empty);
        mover.vec(&mut vec);
        mover.vec(&mut Vec::<u64>::new());
        mover.deque(&mut ring);
        mover.map(&mut map, |_, _, _| ());
        assert_eq!((*boxed, &*slice, empty.len()), ([7; 9], &b"slice"[..], 0));
        assert_eq!((vec.join(","), vec.capacity()), ("a,b".to_string(), 10));
        assert_eq!((mover.hits, mover.misses), (5, 0));
        assert_ne!((&raw const *boxed).addr(), was.1);
        assert_ne!(vec.as_ptr().addr(), was.2);
        assert_eq!(ring, was.0);
        assert!(map.iter().all(|(n, text)| n.to_string() == **text) && map.len() == 100);
    }

    #[cfg(feature = "jemalloc")]
    #[test]
    fn sparse_slabs_become_empty() {
        let mut mover = Mover::new().expect("jemalloc has the query");
        let blocks: Vec<Box<[u8; 320]>> = (0..40_000).map(|n| Box::new([n as u8; 320])).collect();
        let mut kept: Vec<(usize, Box<[u8; 320]>)> = blocks
            .into_iter()
            .enumerate()
            .filter(|(n, _)| n % 8 == 3)
            .collect();
        let pages = |kept: &[(usize, Box<[u8; 320]>)]| {
            let pages = kept
                .iter()
                .map(|(_, block)| (&raw const **block).addr() / 4096);
            pages.collect::<std::collections::HashSet<_>>().len()
        };
        let before = pages(&kept);
        for _ in 0..4 {
            kept.iter_mut().for_each(|(_, block)| mover.boxed(block));
        }
        let (after, needed) = (pages(&kept), kept.len() * 320 / 4096);
        assert!(before > 2 * needed, "{before} pages, {needed} needed");
        assert!(
            after < needed * 5 / 4,
            "{before} pages became {after}, {needed} needed"
        );
        assert!(kept.iter().all(|(n, block)| **block == [*n as u8; 320]));
        let hits = mover.hits;
        kept.iter_mut().for_each(|(_, block)| mover.boxed(block));
        assert!(mover.hits - hits < hits / 4, "what is dense is left alone");
    }
}

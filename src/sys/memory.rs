//! What the process holds: `used_memory` and the allocator's own figures.
//!
//! jemalloc keeps two counters for each thread, of bytes allocated and deallocated, which it needs anyway;
//! reading them costs two loads. `used` is their difference for the main thread plus what the background
//! threads last published: exact, and free on the path that allocates.

use std::sync::atomic::{AtomicI64, Ordering};

use tikv_jemalloc_ctl::thread::{ThreadLocal, allocatedp, deallocatedp};
use tikv_jemalloc_ctl::{epoch, stats};
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Balance of all background threads: they free what the main thread allocated, so it is mostly negative.
static BACKGROUND: AtomicI64 = AtomicI64::new(0);

/// The allocation counters of the thread that made this.
pub struct ThreadCounters {
    allocated: ThreadLocal<u64>,
    deallocated: ThreadLocal<u64>,
    published: i64,
}

impl ThreadCounters {
    /// `None` if jemalloc was built without statistics.
    pub fn of_this_thread() -> Option<ThreadCounters> {
        Some(ThreadCounters {
            allocated: allocatedp::read().ok()?,
            deallocated: deallocatedp::read().ok()?,
            published: 0,
        })
    }

    fn balance(&self) -> i64 {
        self.allocated.get().wrapping_sub(self.deallocated.get()) as i64
    }

    /// Bytes in use by the whole process.
    #[inline]
    pub fn used(&self) -> usize {
        (self.balance() + BACKGROUND.load(Ordering::Relaxed)).max(0) as usize
    }

    /// Tell the others this thread's balance; called by background threads after each job.
    pub fn publish(&mut self) {
        let now = self.balance();
        BACKGROUND.fetch_add(now - self.published, Ordering::Relaxed);
        self.published = now;
    }
}

/// jemalloc's view, in bytes.
#[derive(Clone, Copy, Default, Debug)]
pub struct AllocatorStats {
    pub allocated: usize,
    pub active: usize,
    pub resident: usize,
    pub mapped: usize,
    pub retained: usize,
    pub metadata: usize,
}

/// Ask jemalloc; it sums over its arenas, so this is for INFO and cron.
pub fn allocator_stats() -> AllocatorStats {
    if epoch::advance().is_err() {
        return AllocatorStats::default();
    }
    AllocatorStats {
        allocated: stats::allocated::read().unwrap_or(0),
        active: stats::active::read().unwrap_or(0),
        resident: stats::resident::read().unwrap_or(0),
        mapped: stats::mapped::read().unwrap_or(0),
        retained: stats::retained::read().unwrap_or(0),
        metadata: stats::metadata::read().unwrap_or(0),
    }
}

/// Resident set size of this process, in bytes.
pub fn resident_bytes() -> usize {
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .unwrap_or(4096);
    std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<usize>().ok())
        .map_or(0, |pages| pages * page as usize)
}

/// Physical memory of the machine, in bytes.
pub fn system_bytes() -> usize {
    let ask = |var| nix::unistd::sysconf(var).ok().flatten().unwrap_or(0) as usize;
    ask(nix::unistd::SysconfVar::_PHYS_PAGES) * ask(nix::unistd::SysconfVar::PAGE_SIZE)
}

/// Name and version, as INFO's mem_allocator says them.
pub fn allocator_name() -> String {
    let version = tikv_jemalloc_ctl::version::read().unwrap_or("unknown");
    format!("jemalloc-{}", version.split('-').next().unwrap_or(version))
}

/// Give unused pages back to the system: MEMORY PURGE.
pub fn purge() {
    // SAFETY: `arena.4096.purge` (all arenas) takes no value and returns none.
    unsafe {
        tikv_jemalloc_sys::mallctl(
            c"arena.4096.purge".as_ptr(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            0,
        );
    }
}

/// `jemalloc-bg-thread`: let a thread of the allocator's own give unused pages back.
pub fn set_background_thread(on: bool) {
    if tikv_jemalloc_ctl::background_thread::write(on).is_err() {
        log::warn!("jemalloc can't switch its background thread");
    }
}

//! Memory in use: `used_memory` and the allocator's own figures.
//!
//! jemalloc keeps two counters for each thread, of bytes allocated and deallocated; reading both
//! costs two loads. The used memory is the difference of the main thread's two counters, plus the
//! differences that the background threads last published. The result is exact, and counting adds
//! no cost to an allocation.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::{CStr, CString};
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use tikv_jemalloc_ctl::thread::{ThreadLocal, allocatedp, deallocatedp};
use tikv_jemalloc_ctl::{epoch, stats};
use tikv_jemallocator::Jemalloc;

use crate::sys::tape::{self, Input};

#[cfg_attr(feature = "jemalloc", global_allocator)]
#[cfg_attr(not(feature = "jemalloc"), allow(dead_code))]
static ALLOCATOR: Allocator = Allocator;

/// With size classes of 8 bytes, jemalloc's memory is aligned to 8 bytes. The `Jemalloc` type of
/// crate `tikv_jemallocator` asks jemalloc for an alignment only above 16, because C compilers
/// expect any malloc to align to 16. Types aligned to 16 would then crash (std's hash tables read
/// their control bytes by SSE), so this allocator asks for every alignment above 8.
struct Allocator;

/// The alignment of every allocation, in bytes.
const QUANTUM: usize = 8;

/// jemalloc's flag for an alignment: the exponent of a power of two.
pub(super) fn aligned(layout: Layout) -> i32 {
    layout.align().trailing_zeros() as i32
}

// SAFETY: each pair of functions hands the same layout to the same functions of jemalloc; a
// layout's size is never zero here, as GlobalAlloc demands.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= QUANTUM {
            // SAFETY: the caller keeps GlobalAlloc's contract; the layout is passed on unchanged.
            return unsafe { Jemalloc.alloc(layout) };
        }
        // SAFETY: the caller keeps GlobalAlloc's contract; the layout is passed on unchanged.
        unsafe { tikv_jemalloc_sys::mallocx(layout.size(), aligned(layout)).cast() }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= QUANTUM {
            // SAFETY: the caller keeps GlobalAlloc's contract; the layout is passed on unchanged.
            return unsafe { Jemalloc.alloc_zeroed(layout) };
        }
        let flags = aligned(layout) | tikv_jemalloc_sys::MALLOCX_ZERO;
        // SAFETY: the caller keeps GlobalAlloc's contract; the layout is passed on unchanged.
        unsafe { tikv_jemalloc_sys::mallocx(layout.size(), flags).cast() }
    }

    #[inline]
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        if layout.align() <= QUANTUM {
            // SAFETY: the caller keeps GlobalAlloc's contract; the layout is passed on unchanged.
            return unsafe { Jemalloc.dealloc(ptr, layout) };
        }
        // SAFETY: the caller keeps GlobalAlloc's contract; the layout is passed on unchanged.
        unsafe { tikv_jemalloc_sys::sdallocx(ptr.cast(), layout.size(), aligned(layout)) }
    }

    #[inline]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if layout.align() <= QUANTUM {
            // SAFETY: the caller keeps GlobalAlloc's contract; the layout is passed on unchanged.
            return unsafe { Jemalloc.realloc(ptr, layout, new_size) };
        }
        // SAFETY: the caller keeps GlobalAlloc's contract; the layout is passed on unchanged.
        unsafe { tikv_jemalloc_sys::rallocx(ptr.cast(), new_size, aligned(layout)).cast() }
    }
}

/// The balance (bytes allocated less bytes deallocated) of all background threads. Background
/// threads free what the main thread allocated, so the balance is mostly negative.
static BACKGROUND: AtomicI64 = AtomicI64::new(0);

/// The allocation counters of the thread that made this value.
pub struct ThreadCounters {
    allocated: ThreadLocal<u64>,
    deallocated: ThreadLocal<u64>,
    published: i64,
}

impl ThreadCounters {
    /// The counters of the calling thread; `None` if jemalloc was built without statistics.
    pub fn of_this_thread() -> Option<ThreadCounters> {
        Some(ThreadCounters {
            allocated: allocatedp::read().ok()?,
            deallocated: deallocatedp::read().ok()?,
            published: 0,
        })
    }

    /// Bytes allocated less bytes freed by this thread.
    pub fn balance(&self) -> i64 {
        self.allocated.get().wrapping_sub(self.deallocated.get()) as i64
    }

    /// Bytes in use by the whole process.
    #[inline]
    pub fn used(&self) -> usize {
        (self.balance() + BACKGROUND.load(Ordering::Relaxed)).max(0) as usize
    }

    /// Adds the bytes that this thread has allocated, less those that it has freed, to
    /// [`BACKGROUND`]; background threads call this function after each job.
    pub fn publish(&mut self) {
        let now = self.balance();
        BACKGROUND.fetch_add(now - self.published, Ordering::Relaxed);
        self.published = now;
    }
}

/// The allocation counters of a background thread, which other threads can read during a long job,
/// before the thread adds them to [`BACKGROUND`].
///
/// **Invariant:** the thread that made this value lives as long as the value: the counters are in
/// the thread's own storage.
pub struct SharedCounters {
    allocated: *const u64,
    deallocated: *const u64,
    published: i64,
}

// SAFETY: other threads only read the two counters, by atomic loads.
unsafe impl Send for SharedCounters {}

impl SharedCounters {
    /// The counters of the calling thread, which must drop them before it ends; `None` if jemalloc
    /// was built without statistics.
    pub fn of_this_thread() -> Option<SharedCounters> {
        Some(SharedCounters {
            allocated: address(c"thread.allocatedp")?,
            deallocated: address(c"thread.deallocatedp")?,
            published: 0,
        })
    }

    /// The bytes that the thread has allocated, less those that it has freed, since it last
    /// published its balance.
    pub fn unpublished(&self) -> i64 {
        let read = |counter: *const u64| {
            // SAFETY: the thread lives (the invariant), and jemalloc keeps its counters at this
            // address, aligned to 8 bytes; the loads are atomic.
            unsafe { AtomicU64::from_ptr(counter.cast_mut()) }.load(Ordering::Relaxed)
        };
        let balance = read(self.allocated).wrapping_sub(read(self.deallocated)) as i64;
        balance.wrapping_sub(self.published)
    }

    /// Adds the bytes that the thread has allocated, less those that it has freed, to
    /// [`BACKGROUND`].
    pub fn publish(&mut self) {
        let change = self.unpublished();
        BACKGROUND.fetch_add(change, Ordering::Relaxed);
        self.published = self.published.wrapping_add(change);
    }
}

/// The address of the calling thread's counter that jemalloc calls `name`.
fn address(name: &CStr) -> Option<*const u64> {
    let mut address: *const u64 = ptr::null();
    let mut len = size_of_val(&address);
    // SAFETY: the value of a counter's name is an address, which `address` has room for.
    let answer = unsafe {
        tikv_jemalloc_sys::mallctl(
            name.as_ptr(),
            (&raw mut address).cast(),
            &mut len,
            ptr::null_mut(),
            0,
        )
    };
    (answer == 0 && !address.is_null()).then_some(address)
}

/// jemalloc's statistics, in bytes.
#[derive(Clone, Copy, Default, Debug)]
pub struct AllocatorStats {
    /// Bytes that the process has allocated.
    pub allocated: usize,
    /// Bytes of pages that contain at least one allocation.
    pub active: usize,
    /// Bytes of physical memory that jemalloc uses.
    pub resident: usize,
    /// Bytes of the extents that jemalloc has mapped.
    pub mapped: usize,
    /// Bytes of address space that jemalloc keeps without memory.
    pub retained: usize,
    /// Bytes of the allocator's own data.
    pub metadata: usize,
    /// Bytes of pages that were returned to the system and that the system has not reclaimed yet.
    pub muzzy: usize,
}

impl AllocatorStats {
    /// Records the statistics on the tape, or takes them from the tape in a replay.
    fn pass(self) -> AllocatorStats {
        let field = |bytes: usize| tape::number(Input::Memory, || bytes as u64) as usize;
        AllocatorStats {
            allocated: field(self.allocated),
            active: field(self.active),
            resident: field(self.resident),
            mapped: field(self.mapped),
            retained: field(self.retained),
            metadata: field(self.metadata),
            muzzy: field(self.muzzy),
        }
    }
}

/// Reads jemalloc's statistics. jemalloc sums over its arenas, which takes time: only INFO and the
/// cron call this.
pub fn allocator_stats() -> AllocatorStats {
    if tape::replays() {
        return AllocatorStats::default().pass();
    }
    stats_now().pass()
}

fn stats_now() -> AllocatorStats {
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
        muzzy: muzzy_bytes(),
    }
}

/// The muzzy pages of all arenas together, in bytes; the index 4096 stands for all arenas.
fn muzzy_bytes() -> usize {
    let pages = number("stats.arenas.4096.pmuzzy", None);
    pages.map_or(0, |pages| pages as usize * super::page_bytes())
}

/// Resident set size of this process, in bytes.
pub fn resident_bytes() -> usize {
    tape::number(Input::Fact, || {
        std::fs::read_to_string("/proc/self/statm")
            .ok()
            .and_then(|text| text.split_whitespace().nth(1)?.parse::<usize>().ok())
            .map_or(0, |pages| pages * super::page_bytes()) as u64
    }) as usize
}

/// Physical memory of the machine, in bytes.
pub fn system_bytes() -> usize {
    let ask = |var| nix::unistd::sysconf(var).ok().flatten().unwrap_or(0) as u64;
    tape::number(Input::Fact, || {
        ask(nix::unistd::SysconfVar::_PHYS_PAGES) * ask(nix::unistd::SysconfVar::PAGE_SIZE)
    }) as usize
}

/// The allocator's name and version, as in INFO's `mem_allocator`.
pub fn allocator_name() -> String {
    let version = tikv_jemalloc_ctl::version::read().unwrap_or("unknown");
    format!("jemalloc-{}", version.split('-').next().unwrap_or(version))
}

/// jemalloc's own report, for MEMORY MALLOC-STATS.
pub fn allocator_report() -> Vec<u8> {
    tape::text(report_now)
}

fn report_now() -> Vec<u8> {
    extern "C" fn append(report: *mut libc::c_void, text: *const libc::c_char) {
        // SAFETY: jemalloc hands back the pointer given below, and text that ends with a zero byte;
        // the report lives until `malloc_stats_print` returns.
        let (report, text) = unsafe { (&mut *report.cast::<Vec<u8>>(), CStr::from_ptr(text)) };
        report.extend_from_slice(text.to_bytes());
    }
    // The buffer is allocated ahead, so that its growth is not part of the report.
    let mut report: Vec<u8> = Vec::with_capacity(256 * 1024);
    // SAFETY: `append` has the signature that jemalloc calls, and gets the report alone.
    unsafe {
        tikv_jemalloc_sys::malloc_stats_print(Some(append), (&raw mut report).cast(), ptr::null());
    }
    report
}

/// MEMORY PURGE: returns unused pages to the system.
pub fn purge() {
    // SAFETY: `arena.4096.purge` (all arenas) takes no value and returns none.
    unsafe {
        tikv_jemalloc_sys::mallctl(
            c"arena.4096.purge".as_ptr(),
            ptr::null_mut(),
            ptr::null_mut(),
            ptr::null_mut(),
            0,
        );
    }
}

/// Reads one of jemalloc's numbers by name, 1, 4 or 8 bytes wide; `new` sets the number.
pub fn control(name: &str, new: Option<i64>) -> io::Result<i64> {
    if holds_address(name) {
        return Err(refusal(name));
    }
    number(name, new)
}

fn number(name: &str, new: Option<i64>) -> io::Result<i64> {
    let name = CString::new(name)?;
    let mut last = 0;
    for width in [8, 4, 1] {
        let (mut old, mut len) = ([0u8; 8], width);
        let mut bytes = new.unwrap_or(0).to_le_bytes();
        let (from, from_len) = match new {
            Some(_) => (bytes.as_mut_ptr().cast(), width),
            None => (ptr::null_mut(), 0),
        };
        // SAFETY: both buffers have eight bytes, and no more than `width` of them are touched.
        // jemalloc refuses a wrong width before it sets anything.
        last = unsafe {
            tikv_jemalloc_sys::mallctl(
                name.as_ptr(),
                old.as_mut_ptr().cast(),
                &mut len,
                from,
                from_len,
            )
        };
        match last {
            0 => return Ok(i64::from_le_bytes(old)),
            libc::EINVAL => {}
            _ => break,
        }
    }
    Err(io::Error::from_raw_os_error(last))
}

/// Reads one of jemalloc's values that are strings, by its name in `mallctl`. `new` sets the
/// string, unless jemalloc refuses; the result is the old string.
pub fn control_text(name: &str, new: Option<&[u8]>) -> io::Result<Vec<u8>> {
    if !is_text(name) {
        return Err(refusal(name));
    }
    let c_name = CString::new(name)?;
    let mut old: *const libc::c_char = ptr::null();
    let mut len = size_of_val(&old);
    // SAFETY: the value of a text's name is an address, for which there is room.
    let answer = unsafe {
        tikv_jemalloc_sys::mallctl(
            c_name.as_ptr(),
            (&raw mut old).cast(),
            &mut len,
            ptr::null_mut(),
            0,
        )
    };
    if answer != 0 {
        return Err(io::Error::from_raw_os_error(answer));
    }
    let text = match old.is_null() {
        true => Vec::new(),
        // SAFETY: a text that jemalloc names by an address ends with a zero byte, and stays.
        false => unsafe { CStr::from_ptr(old) }.to_bytes().to_vec(),
    };
    if let Some(new) = new {
        set_text(&c_name, &CString::new(new)?);
    }
    Ok(text)
}

fn set_text(name: &CStr, new: &CStr) {
    let mut address = new.as_ptr();
    // SAFETY: the value of this name is the address of a text, which jemalloc reads and does not
    // keep.
    unsafe {
        tikv_jemalloc_sys::mallctl(
            name.as_ptr(),
            ptr::null_mut(),
            ptr::null_mut(),
            (&raw mut address).cast(),
            size_of_val(&address),
        );
    }
}

/// Whether the value that jemalloc has under this name is the address of a text.
fn is_text(name: &str) -> bool {
    const TEXTS: [&str; 10] = [
        "version",
        "config.malloc_conf",
        "opt.dss",
        "opt.junk",
        "opt.metadata_thp",
        "opt.percpu_arena",
        "opt.stats_interval_opts",
        "opt.stats_print_opts",
        "opt.thp",
        "opt.zero_realloc",
    ];
    TEXTS.contains(&name) || name.starts_with("arena.") && name.ends_with(".dss")
}

/// Whether the value that jemalloc has under this name is an address, which must not be read or set
/// as a number.
fn holds_address(name: &str) -> bool {
    const OTHERS: [&str; 5] = [
        "arenas.create",
        "arenas.lookup",
        "prof.dump",
        "prof.prefix",
        "thread.prof.name",
    ];
    is_text(name)
        || OTHERS.contains(&name)
        || name.ends_with(".extent_hooks")
        || name.starts_with("experimental.")
}

/// The error for a name of jemalloc's whose value is not of the requested kind (number or text),
/// with jemalloc's own reason if there is one.
fn refusal(name: &str) -> io::Error {
    let unusable = || io::Error::from_raw_os_error(libc::EINVAL);
    number(name, None).err().unwrap_or_else(unusable)
}

/// `jemalloc-bg-thread`: lets a thread of jemalloc return unused pages.
pub fn set_background_thread(on: bool) {
    if tikv_jemalloc_ctl::background_thread::write(on).is_err() {
        log::warn!("jemalloc can't switch its background thread");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alignment_above_the_size_classes_is_kept() {
        for size in [1, 17, 24, 36, 40, 56, 100, 1000] {
            let blocks: Vec<_> = (0..8)
                .map(|_| {
                    let layout = Layout::from_size_align(size, 16).unwrap();
                    // SAFETY: the block is freed below with the same layout; the size is not zero.
                    (unsafe { ALLOCATOR.alloc(layout) }, layout)
                })
                .collect();
            for (block, layout) in blocks {
                assert_eq!(block.addr() % 16, 0, "{size}");
                // SAFETY: allocated above with this layout.
                unsafe { ALLOCATOR.dealloc(block, layout) };
            }
        }
    }

    #[cfg(feature = "jemalloc")]
    fn code<T: std::fmt::Debug>(answer: io::Result<T>) -> Option<i32> {
        answer.unwrap_err().raw_os_error()
    }

    #[cfg(feature = "jemalloc")]
    #[test]
    fn texts_are_read_and_set() {
        assert!(control_text("version", None).unwrap().starts_with(b"5."));
        let name = "arena.0.dss";
        let before = control_text(name, Some(b"primary")).unwrap();
        assert_eq!(control_text(name, Some(b"no such")).unwrap(), b"primary");
        assert_eq!(control_text(name, Some(&before)).unwrap(), b"primary");
        assert_eq!(control_text(name, None).unwrap(), before);
    }

    #[cfg(feature = "jemalloc")]
    #[test]
    fn no_number_is_followed_as_an_address_and_no_address_is_shown() {
        // The value of `stats.allocated` has the width of an address, but is a number.
        assert_eq!(
            code(control_text("stats.allocated", None)),
            Some(libc::EINVAL)
        );
        assert_eq!(
            code(control_text("thread.tcache.flush", None)),
            Some(libc::EPERM)
        );
        assert_eq!(code(control_text("no.such", None)), Some(libc::ENOENT));
        for name in ["version", "arena.0.dss", "arena.0.extent_hooks"] {
            assert_eq!(code(control(name, None)), Some(libc::EINVAL), "{name}");
            assert_eq!(code(control(name, Some(1))), Some(libc::EINVAL), "{name}");
        }
        assert!(control("stats.allocated", None).unwrap() > 0);
    }
}

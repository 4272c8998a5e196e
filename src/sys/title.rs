//! The title that `ps` and `top` show.
//!
//! ```text
//!   stack, where the kernel put it:   argv[0]\0 argv[1]\0 ... \0 HOME=/root\0 PATH=...\0
//!                                     ^ /proc/PID/cmdline reads here  ^ and may be let into here
//! ```
//!
//! `/proc/PID/cmdline` shows the memory that the arguments were put into at start. A title overwrites it. std
//! has copied neither arguments nor environment, so only the arguments' part is used: the environment behind
//! it stays what `getenv` reads. A title that is longer goes to a place of its own, where the kernel lets us
//! say so (`PR_SET_MM_ARG_START`, which needs a privilege), and is cut otherwise.
//!
//! Invariant: the area is written by one thread, the one that owns the server.

use std::sync::Mutex;

struct Area {
    start: usize,
    len: usize,
    /// A title too long for the area, in memory that the kernel was told of.
    moved: Option<Box<[u8]>>,
}

static AREA: Mutex<Option<Area>> = Mutex::new(None);

/// Find out where the arguments lie. Reads `/proc/self/stat`: fields 48 and 49 are the ends of the area.
fn find() -> Option<Area> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name in parentheses, which may hold anything.
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace().skip(45);
    let start: usize = fields.next()?.parse().ok()?;
    let end: usize = fields.next()?.parse().ok()?;
    (start != 0 && end > start).then_some(Area { start, len: end - start, moved: None })
}

/// Show `title` as this process's command line.
pub fn set(title: &str) {
    let Ok(mut area) = AREA.lock() else { return };
    if area.is_none() {
        *area = find();
    }
    let Some(area) = area.as_mut() else { return };
    if title.len() >= area.len && area.moved.is_none() && !move_area(area, title.len()) {
        return write_at(area, &title.as_bytes()[..area.len - 1]);
    }
    let cut = title.len().min(area.len - 1);
    write_at(area, &title.as_bytes()[..cut]);
}

/// Fill the whole area: what is left of an older title must not show.
fn write_at(area: &Area, title: &[u8]) {
    // SAFETY: the area is `len` writable bytes of this process: its own argument strings, which nothing has
    // references into (std copies arguments when asked), or the buffer that `moved` keeps alive.
    unsafe {
        let to = area.start as *mut u8;
        std::ptr::copy_nonoverlapping(title.as_ptr(), to, title.len());
        std::ptr::write_bytes(to.add(title.len()), 0, area.len - title.len());
    }
}

/// Let the kernel read the title from memory of our own, with room for longer ones.
fn move_area(area: &mut Area, len: usize) -> bool {
    let mut room = vec![0u8; (len + 1).max(1024)].into_boxed_slice();
    let start = room.as_mut_ptr() as usize;
    let end = start + room.len();
    let tell = |option: libc::c_int, address: usize| {
        // SAFETY: the kernel checks the address and only remembers it.
        unsafe { libc::prctl(libc::PR_SET_MM, option, address, 0, 0) == 0 }
    };
    // The end first: the kernel wants start <= end at all times, and either order may be refused.
    let told = tell(libc::PR_SET_MM_ARG_END, end) && tell(libc::PR_SET_MM_ARG_START, start);
    if told {
        *area = Area { start, len: room.len(), moved: Some(room) };
    }
    told
}

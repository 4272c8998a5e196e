//! Sets the title of the process that `ps` and `top` show.
//!
//! ```text
//!   stack, where the kernel put it:   argv[0]\0 argv[1]\0 ... \0 HOME=/root\0 PATH=...\0
//!                                     ^ /proc/PID/cmdline reads here  ^ and may be let into here
//! ```
//!
//! `/proc/PID/cmdline` shows the memory that the arguments were put into at start. If the last byte
//! of this memory is not zero, the kernel reads on into the memory of the environment. A title
//! overwrites the memory of the arguments and of the environment, so the environment is first moved
//! to the heap. std copies the arguments on each call, so nothing refers to the arguments in this
//! memory.
//!
//! **Invariant:** only the main thread finds and writes the memory of the arguments and the
//! environment (`Area`).

use std::ffi::{CStr, c_char};
use std::sync::Mutex;

struct Area {
    start: usize,
    len: usize,
}

static AREA: Mutex<Option<Area>> = Mutex::new(None);

/// Finds where arguments and environment lie: fields 48 to 51 of `/proc/self/stat`.
fn find() -> Option<Area> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses, which may contain any character.
    let fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    let fields: Vec<usize> = fields
        .skip(45)
        .take(4)
        .filter_map(|field| field.parse().ok())
        .collect();
    let &[arg_start, arg_end, env_start, env_end] = &fields[..] else {
        return None;
    };
    if arg_start == 0 || arg_end <= arg_start {
        return None;
    }
    let joined = env_start == arg_end && env_end > env_start;
    if joined {
        move_environment(env_start..env_end);
    }
    let end = if joined { env_end } else { arg_end };
    Some(Area {
        start: arg_start,
        len: end - arg_start,
    })
}

/// Copies the environment's strings that lie in `area` to the heap, for ever.
fn move_environment(area: std::ops::Range<usize>) {
    unsafe extern "C" {
        static mut environ: *mut *mut c_char;
    }
    // SAFETY: `environ` is a list of C strings that ends with a null; no other code changes it at
    // this moment (the background threads have no use for it).
    unsafe {
        let mut slot = environ;
        while !slot.is_null() && !(*slot).is_null() {
            if area.contains(&(*slot as usize)) {
                *slot = CStr::from_ptr(*slot).to_owned().into_raw();
            }
            slot = slot.add(1);
        }
    }
}

/// Shows `title` as this process's command line.
pub fn set(title: &str) {
    let Ok(mut area) = AREA.lock() else { return };
    if area.is_none() {
        *area = find();
    }
    let Some(area) = area.as_ref() else { return };
    let cut = title.len().min(area.len - 1);
    write_at(area, &title.as_bytes()[..cut]);
}

/// Fills the whole memory for the title with the title and zeros, so that no part of an older title
/// shows.
fn write_at(area: &Area, title: &[u8]) {
    // SAFETY: the area is `len` writable bytes of this process, which nothing refers to any more.
    unsafe {
        let to = area.start as *mut u8;
        std::ptr::copy_nonoverlapping(title.as_ptr(), to, title.len());
        std::ptr::write_bytes(to.add(title.len()), 0, area.len - title.len());
    }
}

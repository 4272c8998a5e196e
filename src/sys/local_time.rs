//! The calendar and the wall clock of the time zone that the process runs in, which std does not
//! know.

/// A moment in local time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    pub year: i32,
    /// 0 is January.
    pub month: usize,
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
    /// East of Greenwich.
    pub offset_minutes: i32,
}

impl LocalTime {
    /// Of a Unix time in seconds.
    pub fn at(unix_s: i64) -> LocalTime {
        // SAFETY: `tm` is plain numbers and a pointer that may be null.
        let mut tm: libc::tm = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are to live values of the right types; the call keeps neither.
        unsafe { libc::localtime_r(&unix_s, &mut tm) };
        LocalTime {
            year: tm.tm_year + 1900,
            month: tm.tm_mon.clamp(0, 11) as usize,
            day: tm.tm_mday as u32,
            hour: tm.tm_hour as u32,
            minute: tm.tm_min as u32,
            second: tm.tm_sec as u32,
            offset_minutes: (tm.tm_gmtoff / 60) as i32,
        }
    }
}

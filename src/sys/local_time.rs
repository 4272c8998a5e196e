//! Local time: the calendar and the clock of the process's time zone, which std does not provide.

/// A moment in local time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    pub year: i32,
    /// The month from 0 on, so 0 is January.
    pub month: usize,
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
    /// The offset of the time zone in minutes east of Greenwich.
    pub offset_minutes: i32,
}

impl LocalTime {
    /// The local time of a Unix time in seconds.
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

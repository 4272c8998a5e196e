//! The sections of INFO with the figures of each command, and with the errors that were replied.

use crate::command::table::CommandEntry;
use crate::util::number::DoubleBuf;
use crate::util::quote::info_safe;

use crate::commands::server::info::{Report, View};

/// The section commandstats, a line for each command:
/// `cmdstat_get:calls=1,usec=5,usec_per_call=5.00,rejected_calls=0,failed_calls=0`.
pub fn commandstats(view: &View, out: &mut Report) {
    for entry in &view.server.commands.entries {
        let stats = &entry.stats;
        if stats.calls == 0 && stats.rejected == 0 && stats.failed == 0 {
            continue;
        }
        let us = view.server.clock.us(stats.ticks);
        let per_call = if stats.calls == 0 {
            0.0
        } else {
            us as f64 / stats.calls as f64
        };
        let value = format!(
            "calls={},usec={us},usec_per_call={per_call:.2},rejected_calls={},failed_calls={}",
            stats.calls, stats.rejected, stats.failed
        );
        out.field(&named("cmdstat", entry), value);
    }
}

/// The section errorstats, a line for each error code: `errorstat_ERR:count=2`.
pub fn errorstats(view: &View, out: &mut Report) {
    for (code, count) in &view.server.stats.errors {
        let code = info_safe(code.as_bytes());
        let name = format!("errorstat_{}", String::from_utf8_lossy(&code));
        out.field(&name, format_args!("count={count}"));
    }
}

/// The section latencystats, a line for each command:
/// `latency_percentiles_usec_get:p50=1.003,p99=2.007,p99.9=2.007`.
pub fn latencystats(view: &View, out: &mut Report) {
    for entry in &view.server.commands.entries {
        let Some(histogram) = &entry.stats.latency else {
            continue;
        };
        let percentiles = &view.server.config.latency_tracking_info_percentiles;
        let shown: Vec<String> = percentiles
            .iter()
            .map(|&percent| {
                let mut digits = DoubleBuf::new();
                let name = String::from_utf8_lossy(digits.format(percent)).into_owned();
                format!(
                    "p{name}={:.3}",
                    histogram.percentile(percent) as f64 / 1000.0
                )
            })
            .collect();
        out.field(&named("latency_percentiles_usec", entry), shown.join(","));
    }
}

fn named(prefix: &str, entry: &CommandEntry) -> String {
    let name = info_safe(entry.fullname.as_bytes());
    format!("{prefix}_{}", String::from_utf8_lossy(&name))
}

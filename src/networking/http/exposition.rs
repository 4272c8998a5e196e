//! The text format of metrics: that of Prometheus 0.0.4, or OpenMetrics 1.0.
//!
//! ```text
//!   # HELP redis_commands_total Calls of each command.
//!   # TYPE redis_commands_total counter        (OpenMetrics: redis_commands)
//!   redis_commands_total{cmd="get"} 5
//!   # EOF                                      (OpenMetrics only)
//! ```
//!
//! **Invariant:** the samples of a family follow its head without a gap, and no family comes twice,
//! as the format demands: a family is written by one call of [`Exposition::family`].

use std::fmt::Write;

/// The prefix of all names: that of redis_exporter, for which dashboards exist.
const PREFIX: &str = "redis_";

/// How a metric changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Gauge,
    /// Only grows; the name ends in `_total`.
    Counter,
    Histogram,
    Summary,
}

/// A text in the making.
pub struct Exposition {
    text: String,
    openmetrics: bool,
}

/// The samples of one family.
pub struct Family<'a> {
    out: &'a mut String,
    name: &'a str,
    head: Option<String>,
}

impl Exposition {
    /// An empty text, in the format of OpenMetrics or of Prometheus 0.0.4.
    pub fn new(openmetrics: bool) -> Exposition {
        Exposition {
            text: String::new(),
            openmetrics,
        }
    }

    /// The type of the text's content.
    pub fn content_type(openmetrics: bool) -> &'static str {
        match openmetrics {
            true => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            false => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// A family of metrics. Its head is written before its first sample; a family without samples
    /// leaves no trace.
    pub fn family<'a>(&'a mut self, name: &'a str, kind: Kind, help: &str) -> Family<'a> {
        let kind_name = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
            Kind::Summary => "summary",
        };
        let family = match kind {
            // OpenMetrics names a counter without the ending of its sample.
            Kind::Counter if self.openmetrics => name.strip_suffix("_total").unwrap_or(name),
            _ => name,
        };
        let head = format!("# HELP {PREFIX}{family} {help}\n# TYPE {PREFIX}{family} {kind_name}\n");
        Family {
            out: &mut self.text,
            name,
            head: Some(head),
        }
    }

    /// The whole text.
    pub fn finish(mut self) -> String {
        if self.openmetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

impl Family<'_> {
    /// Adds the sample `name`, with labels (name and value).
    pub fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.part("", labels, value);
    }

    /// Adds the sample `name` and `ending`: `_bucket`, `_sum`, `_count`.
    pub fn part(&mut self, ending: &str, labels: &[(&str, &str)], value: f64) {
        if let Some(head) = self.head.take() {
            self.out.push_str(&head);
        }
        let _ = write!(self.out, "{PREFIX}{}{ending}", self.name);
        for (at, (name, text)) in labels.iter().enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            let _ = write!(self.out, "{before}{name}=\"{}\"", escaped(text));
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        // Writing to a String can't fail.
        let _ = writeln!(self.out, " {}", number(value));
    }
}

/// A number as the format has it.
pub fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.into()
    } else {
        value.to_string()
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(openmetrics: bool) -> String {
        let mut out = Exposition::new(openmetrics);
        let mut calls = out.family("calls_total", Kind::Counter, "Calls.");
        calls.sample(&[("cmd", "a\"b\\c\nd"), ("x", "")], 5.0);
        out.family("nothing", Kind::Gauge, "Left out.");
        let mut sizes = out.family("sizes", Kind::Histogram, "Sizes.");
        sizes.part("_bucket", &[("le", &number(f64::INFINITY))], 0.25);
        out.finish()
    }

    #[test]
    fn both_formats() {
        let samples = "redis_calls_total{cmd=\"a\\\"b\\\\c\\nd\",x=\"\"} 5\n";
        let sizes = "# HELP redis_sizes Sizes.\n# TYPE redis_sizes histogram\n\
                     redis_sizes_bucket{le=\"+Inf\"} 0.25\n";
        let older = "# HELP redis_calls_total Calls.\n# TYPE redis_calls_total counter\n";
        assert_eq!(text(false), format!("{older}{samples}{sizes}"));
        let newer = "# HELP redis_calls Calls.\n# TYPE redis_calls counter\n";
        assert_eq!(text(true), format!("{newer}{samples}{sizes}# EOF\n"));
    }
}

//! The formats of metrics: the text formats of Prometheus 0.0.4 and OpenMetrics 1.0, and the binary
//! format of Prometheus, which alone has native histograms.
//!
//! ```text
//!   # HELP redis_commands_total Calls of each command.
//!   # TYPE redis_commands_total counter        (OpenMetrics: redis_commands)
//!   redis_commands_total{cmd="get"} 5
//!   # EOF                                      (OpenMetrics only)
//!
//!   binary:  length MetricFamily { name, help, type, Metric { label.., counter }.. }   for each family
//! ```
//!
//! **Invariant:** the samples of a family of metrics follow its HELP and TYPE lines without a gap,
//! and no family is written twice, as the formats demand: all samples of a family are added to one
//! [`Family`].

use std::fmt::Write;

use super::protobuf::Message;
use crate::util::histogram::{Histogram, NATIVE_SCHEMA};

/// The prefix of all names of metrics: that of redis_exporter, for which dashboards exist.
const PREFIX: &str = "redis_";

/// The type of a metric.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetricKind {
    Gauge,
    /// A metric whose value only grows, and whose name ends in `_total`.
    Counter,
    Histogram,
    Summary,
}

/// A format of metrics that a client can request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    Text,
    OpenMetrics,
    Binary,
}

impl Format {
    /// The format that the header `Accept` prefers; the text format of Prometheus if the header
    /// names no known format.
    pub fn of(accept: &str) -> Format {
        let mut best = (0.0, Format::Text);
        for part in accept.to_ascii_lowercase().split(',') {
            let format = match () {
                () if part.contains("application/openmetrics-text") => Format::OpenMetrics,
                () if part.contains("application/vnd.google.protobuf")
                    && part.contains("io.prometheus.client.metricfamily")
                    && part.contains("delimited") =>
                {
                    Format::Binary
                }
                () if part.contains("text/plain") => Format::Text,
                () => continue,
            };
            let quality = part.split(';').find_map(|p| p.trim().strip_prefix("q="));
            let quality = quality.map_or(1.0, |q| q.trim().parse().unwrap_or(0.0));
            if quality > best.0 {
                best = (quality, format);
            }
        }
        best.1
    }

    /// The value of the header Content-Type.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::Binary => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }
}

/// The metrics that were written so far.
pub struct Exposition {
    /// The text of the metrics, in the text formats.
    text: String,
    /// The bytes of the metrics, in the binary format.
    binary: Vec<u8>,
    format: Format,
}

/// One family of metrics, to which samples are added: the metrics of one name with different
/// labels.
pub struct Family<'a> {
    out: &'a mut Exposition,
    name: &'a str,
    kind: MetricKind,
    /// The lines HELP and TYPE, which precede the first sample; `None` when these lines are
    /// written.
    head: Option<String>,
    /// The message MetricFamily of the binary format; `None` in the text formats.
    message: Option<Message>,
}

impl Exposition {
    /// An exposition without metrics.
    pub fn new(format: Format) -> Exposition {
        Exposition {
            text: String::new(),
            binary: Vec::new(),
            format,
        }
    }

    /// Begins a family of metrics. The lines HELP and TYPE of a family are written with its first
    /// sample, so a family without samples is not written.
    pub fn family<'a>(&'a mut self, name: &'a str, kind: MetricKind, help: &str) -> Family<'a> {
        let (kind_name, number) = match kind {
            MetricKind::Counter => ("counter", 0),
            MetricKind::Gauge => ("gauge", 1),
            MetricKind::Summary => ("summary", 2),
            MetricKind::Histogram => ("histogram", 4),
        };
        let family = match kind {
            // In OpenMetrics, the name of a counter's family lacks the ending `_total` of its
            // samples.
            MetricKind::Counter if self.format == Format::OpenMetrics => {
                name.strip_suffix("_total").unwrap_or(name)
            }
            _ => name,
        };
        let message = (self.format == Format::Binary).then(|| {
            let mut message = Message::default();
            message.bytes(1, format!("{PREFIX}{name}").as_bytes());
            message.bytes(2, help.as_bytes());
            message.number(3, number);
            message
        });
        let head = format!("# HELP {PREFIX}{family} {help}\n# TYPE {PREFIX}{family} {kind_name}\n");
        Family {
            out: self,
            name,
            kind,
            head: Some(head),
            message,
        }
    }

    /// Ends the exposition and returns its bytes.
    pub fn finish(mut self) -> Vec<u8> {
        match self.format {
            Format::Binary => return self.binary,
            Format::OpenMetrics => self.text.push_str("# EOF\n"),
            Format::Text => {}
        }
        self.text.into_bytes()
    }
}

impl Family<'_> {
    /// Adds a sample with its labels, which are pairs of a name and a value.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        if self.message.is_none() {
            return self.part("", labels, value);
        }
        let mut inner = Message::default();
        inner.double(1, value);
        let field = match self.kind {
            MetricKind::Counter => 3,
            _ => 2,
        };
        self.metric(labels, field, &inner);
    }

    /// Adds a histogram whose values are microseconds, with the sum of all values.
    pub fn histogram(&mut self, labels: &[(&str, &str)], histogram: &Histogram, sum: f64) {
        let total = histogram.total();
        if self.message.is_none() {
            let mut bucket = |bound: &str, calls: u64| {
                self.part(
                    "_bucket",
                    &[labels, &[("le", bound)]].concat(),
                    calls as f64,
                );
            };
            for (us, calls) in histogram.powers_of_two() {
                bucket(&format!("{us}.0"), calls);
            }
            bucket("+Inf", total);
            self.part("_sum", labels, sum);
            return self.part("_count", labels, total as f64);
        }
        let mut inner = Message::default();
        inner.number(1, total);
        inner.double(2, sum);
        // The message has classic buckets and native buckets: a collector that does not know native
        // buckets reads the classic ones.
        for (us, calls) in histogram.powers_of_two() {
            let mut bucket = Message::default();
            bucket.number(1, calls);
            bucket.double(2, us as f64);
            inner.message(3, &bucket);
        }
        native(&mut inner, &histogram.native());
        self.metric(labels, 7, &inner);
    }

    /// Adds quantiles (0 to 1) with their values, the sum and the number of all values.
    pub fn summary(
        &mut self,
        labels: &[(&str, &str)],
        quantiles: &[(f64, f64)],
        sum: f64,
        total: u64,
    ) {
        if self.message.is_none() {
            for (quantile, value) in quantiles {
                let quantile = number(*quantile);
                self.sample(&[labels, &[("quantile", &*quantile)]].concat(), *value);
            }
            self.part("_sum", labels, sum);
            return self.part("_count", labels, total as f64);
        }
        let mut inner = Message::default();
        inner.number(1, total);
        inner.double(2, sum);
        for (quantile, value) in quantiles {
            let mut one = Message::default();
            one.double(1, *quantile);
            one.double(2, *value);
            inner.message(3, &one);
        }
        self.metric(labels, 4, &inner);
    }

    /// Adds a message Metric whose value is the message `inner`, in the field with the number
    /// `field`.
    fn metric(&mut self, labels: &[(&str, &str)], field: u64, inner: &Message) {
        let mut metric = Message::default();
        for (name, text) in labels {
            let mut label = Message::default();
            label.bytes(1, name.as_bytes());
            label.bytes(2, text.as_bytes());
            metric.message(1, &label);
        }
        metric.message(field, inner);
        if let Some(message) = &mut self.message {
            message.message(4, &metric);
            self.head = None;
        }
    }

    /// Adds a line of a text format. `ending` follows the family's name: empty, `_bucket`, `_sum`,
    /// `_count`.
    fn part(&mut self, ending: &str, labels: &[(&str, &str)], value: f64) {
        let out = &mut self.out.text;
        if let Some(head) = self.head.take() {
            out.push_str(&head);
        }
        // Writing to a `String` can't fail.
        let _ = write!(out, "{PREFIX}{}{ending}", self.name);
        for (at, (name, text)) in labels.iter().enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            let _ = write!(out, "{before}{name}=\"{}\"", escaped(text));
        }
        if !labels.is_empty() {
            out.push('}');
        }
        let _ = writeln!(out, " {}", number(value));
    }
}

impl Drop for Family<'_> {
    fn drop(&mut self) {
        if let Some(message) = self.message.take()
            && self.head.is_none()
        {
            message.append_delimited(&mut self.out.binary);
        }
    }
}

/// Adds the fields of a native histogram: the runs of buckets (for each run the number of buckets
/// that are left out before the run, and the run's length), and for each bucket the difference of
/// its count to that of the bucket before.
fn native(inner: &mut Message, buckets: &[(i32, u64)]) {
    inner.signed(5, NATIVE_SCHEMA.into());
    // The native histogram's bucket for zeros is empty, as no value is 0.
    inner.double(6, 0.0);
    inner.number(7, 0);
    let mut next = 0;
    for run in buckets.chunk_by(|a, b| b.0 == a.0 + 1) {
        let mut span = Message::default();
        span.signed(1, (run[0].0 - next).into());
        span.number(2, run.len() as u64);
        inner.message(12, &span);
        next = run[0].0 + run.len() as i32;
    }
    let mut before = 0;
    let deltas = buckets.iter().map(|(_, calls)| {
        let calls = *calls as i64;
        calls - std::mem::replace(&mut before, calls)
    });
    inner.signed_list(13, deltas);
}

/// A number as the text formats of metrics write it.
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

    fn all(format: Format) -> Vec<u8> {
        let mut out = Exposition::new(format);
        out.family("calls_total", MetricKind::Counter, "Calls.")
            .sample(&[("cmd", "a\"b\\c\nd"), ("x", "")], 5.0);
        out.family("nothing", MetricKind::Gauge, "Left out.");
        out.family("sizes", MetricKind::Summary, "Sizes.")
            .summary(&[], &[(0.5, 2.0)], 0.25, 7);
        out.finish()
    }

    #[test]
    fn both_texts() {
        let samples = "redis_calls_total{cmd=\"a\\\"b\\\\c\\nd\",x=\"\"} 5\n";
        let sizes = "# HELP redis_sizes Sizes.\n# TYPE redis_sizes summary\n\
                     redis_sizes{quantile=\"0.5\"} 2\nredis_sizes_sum 0.25\nredis_sizes_count 7\n";
        let older = "# HELP redis_calls_total Calls.\n# TYPE redis_calls_total counter\n";
        let text = |format| String::from_utf8(all(format)).expect("text");
        assert_eq!(text(Format::Text), format!("{older}{samples}{sizes}"));
        let newer = "# HELP redis_calls Calls.\n# TYPE redis_calls counter\n";
        let openmetrics = format!("{newer}{samples}{sizes}# EOF\n");
        assert_eq!(text(Format::OpenMetrics), openmetrics);
    }

    /// The expected bytes are those that the Python package protobuf 4.25 writes for the messages
    /// of client_model.
    #[test]
    fn messages_of_families_follow_one_another() {
        let bytes = all(Format::Binary);
        let first = [
            b"\x41\x0a\x11redis_calls_total\x12\x06Calls.\x18\x00".as_slice(),
            b"\x22\x22\x0a\x0e\x0a\x03cmd\x12\x07a\"b\\c\nd\x0a\x05\x0a\x01x\x12\x00",
            b"\x1a\x09\x09\0\0\0\0\0\0\x14\x40",
        ]
        .concat();
        assert_eq!(bytes[..first.len()], first, "{bytes:02x?}");
        assert_eq!(bytes[first.len()] as usize, bytes.len() - first.len() - 1);
        assert!(!bytes.windows(7).any(|w| w == b"nothing"));
    }

    #[test]
    fn runs_and_differences_of_native_buckets() {
        let mut inner = Message::default();
        native(&mut inner, &[(-3, 2), (-2, 5), (4, 1)]);
        let mut expected = Message::default();
        expected.signed(5, NATIVE_SCHEMA.into());
        expected.double(6, 0.0);
        expected.number(7, 0);
        for (offset, length) in [(-3, 2), (5, 1)] {
            let mut span = Message::default();
            span.signed(1, offset);
            span.number(2, length);
            expected.message(12, &span);
        }
        expected.signed_list(13, [2, 3, -4]);
        let (mut one, mut two) = (Vec::new(), Vec::new());
        inner.append_delimited(&mut one);
        expected.append_delimited(&mut two);
        assert_eq!(one, two);
    }

    #[test]
    fn the_client_chooses_the_format() {
        let binary = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
        for (accept, format) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            (
                "application/openmetrics-text; version=1.0.0",
                Format::OpenMetrics,
            ),
            (binary, Format::Binary),
            ("application/vnd.google.protobuf", Format::Text),
            (
                &*format!(
                    "{binary};q=0.7,application/openmetrics-text;version=1.0.0;q=0.6,text/plain;q=0.5"
                ),
                Format::Binary,
            ),
            (
                &*format!("application/openmetrics-text;q=0.6,{binary};q=0.5,*/*;q=0.1"),
                Format::OpenMetrics,
            ),
        ] {
            assert_eq!(Format::of(accept), format, "{accept}");
        }
    }
}

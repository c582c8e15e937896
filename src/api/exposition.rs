//! The text format of Prometheus, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>): families of samples, each with help and type.

use crate::histogram::Histogram;
use std::fmt::{Display, Write};

/// The media type.
pub(super) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the samples of a family are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// A number that only grows.
    Counter,
    /// A number that may fall.
    Gauge,
}

/// Names of labels with their values.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// A text under way.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
}

impl Exposition {
    /// A family whose samples are those given.
    pub(super) fn family<'a, V: Display>(
        &mut self,
        (name, kind, help): (&str, Kind, &str),
        samples: impl IntoIterator<Item = (Vec<(&'a str, &'a str)>, V)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        // A family without samples says nothing.
        if samples.peek().is_none() {
            return;
        }
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.head(name, kind, help);
        samples.for_each(|(labels, value)| self.sample(name, &labels, value));
    }

    /// A family of one sample without labels.
    pub(super) fn single(&mut self, family: (&str, Kind, &str), value: impl Display) {
        self.family(family, [(Vec::new(), value)]);
    }

    /// A family that is a histogram of seconds.
    pub(super) fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        for (bound, count) in histogram.cumulative() {
            self.sample(&bucket, &[("le", &bound.as_secs_f64().to_string())], count);
        }
        self.sample(&bucket, &[("le", "+Inf")], histogram.count());
        self.sample(&format!("{name}_sum"), &[], histogram.sum().as_secs_f64());
        self.sample(&format!("{name}_count"), &[], histogram.count());
    }

    /// The text.
    pub(super) fn into_text(self) -> String {
        self.text
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a string does not fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: Labels<'_>, value: impl Display) {
        self.text.push_str(name);
        for (at, (label, value)) in labels.iter().enumerate() {
            let start = if at == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{start}{label}=\"{}\"", escaped(value));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{end} {value}");
    }
}

/// The value of a label, in which backslash, quote and line feed are escaped.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn families_are_told_with_help_type_and_escaped_labels() {
        let mut exposition = Exposition::default();
        exposition.single(("rfw_up", Kind::Gauge, "One \\ line\nor two."), 1);
        exposition.family(
            ("rfw_things_total", Kind::Counter, "Things."),
            [(vec![("of", "a\"b\\c\nd"), ("list", "tor")], 7), (Vec::new(), 8)],
        );
        exposition.family(("rfw_none_total", Kind::Counter, "None."), Vec::<(Vec<(&str, &str)>, u64)>::new());
        assert_eq!(
            exposition.into_text(),
            "# HELP rfw_up One \\\\ line\\nor two.\n# TYPE rfw_up gauge\nrfw_up 1\n\
             # HELP rfw_things_total Things.\n# TYPE rfw_things_total counter\n\
             rfw_things_total{of=\"a\\\"b\\\\c\\nd\",list=\"tor\"} 7\nrfw_things_total 8\n"
        );
    }

    #[test]
    fn a_histogram_has_all_of_its_buckets_and_an_infinite_one() {
        let mut histogram = Histogram::default();
        for micros in [50, 3_000, 20_000_000] {
            histogram.note(Duration::from_micros(micros));
        }
        let mut exposition = Exposition::default();
        exposition.histogram("rfw_x_seconds", "X.", &histogram);
        let text = exposition.into_text();
        let expected = "# HELP rfw_x_seconds X.\n# TYPE rfw_x_seconds histogram\n\
                        rfw_x_seconds_bucket{le=\"0.0001\"} 1\nrfw_x_seconds_bucket{le=\"0.00025\"} 1\n";
        assert!(text.starts_with(expected), "{text}");
        let expected = "rfw_x_seconds_bucket{le=\"10\"} 2\nrfw_x_seconds_bucket{le=\"+Inf\"} 3\n\
                        rfw_x_seconds_sum 20.00305\nrfw_x_seconds_count 3\n";
        assert!(text.ends_with(expected), "{text}");
        assert_eq!(text.matches("_bucket{").count(), 17, "{text}");
    }
}

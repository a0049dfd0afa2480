//! Reads our own metrics back from their text, so that whoever scrapes and whoever is told see the same numbers.
//!
//! Decides nothing. Refuses other texts than ours: a line that is not understood is left out.

/// What a family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only rises.
    Counter,
    /// It rises and falls.
    Gauge,
    /// How often in which range.
    Histogram,
}

/// Metrics of one name.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// Its name.
    pub name: String,
    /// What it says.
    pub help: String,
    /// What it is.
    pub kind: Kind,
    /// Its lines.
    pub samples: Vec<Sample>,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// What stands behind the family's name, such as `_total`.
    pub suffix: String,
    /// Its labels.
    pub labels: Vec<(String, String)>,
    /// Its value.
    pub value: f64,
}

/// One series of a histogram.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    /// Its labels.
    pub labels: Vec<(String, String)>,
    /// The upper ends of all ranges but the last.
    pub bounds: Vec<f64>,
    /// How many fell into each range, and above all of them.
    pub counts: Vec<u64>,
    /// How many there were.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
}

/// Reads all families of an exposition.
pub fn read(text: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    let mut help = ("", "");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').unwrap_or((rest, ""));
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let kind = match kind {
                "counter" => Kind::Counter,
                "histogram" => Kind::Histogram,
                _ => Kind::Gauge,
            };
            let help = if help.0 == name { help.1.to_owned() } else { String::new() };
            families.push(Family { name: name.to_owned(), help, kind, samples: Vec::new() });
        } else if let Some(family) = families.last_mut()
            && let Some(sample) = sample(&family.name, line)
        {
            family.samples.push(sample);
        }
    }
    families.retain(|family| !family.samples.is_empty());
    families
}

fn sample(family: &str, line: &str) -> Option<Sample> {
    let rest = line.strip_prefix(family)?;
    let (suffix, labels, value) = match rest.split_once('{') {
        Some((suffix, rest)) => {
            let (labels, value) = rest.rsplit_once("} ")?;
            (suffix, labels, value)
        }
        None => {
            let (suffix, value) = rest.split_once(' ')?;
            (suffix, "", value)
        }
    };
    let value = value.split(' ').next()?.parse().ok()?;
    Some(Sample { suffix: suffix.to_owned(), labels: pairs(labels), value })
}

/// `a="x",b="y"`: our labels are of closed lists, without quotation marks in them.
fn pairs(text: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once("=\"") {
        let Some((value, more)) = after.split_once('"') else { break };
        all.push((key.trim_start_matches(',').to_owned(), value.to_owned()));
        rest = more;
    }
    all
}

impl Family {
    /// The series of a histogram.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts are written as whole numbers, and read back from their text"
    )]
    pub fn histograms(&self) -> Vec<Histogram> {
        let mut all: Vec<Histogram> = Vec::new();
        for sample in &self.samples {
            let labels: Vec<_> = sample.labels.iter().filter(|(key, _)| key != "le").cloned().collect();
            let position = all.iter().position(|own| own.labels == labels);
            let position = position.unwrap_or_else(|| {
                all.push(Histogram { labels, ..Histogram::default() });
                all.len() - 1
            });
            let Some(own) = all.get_mut(position) else { continue };
            match sample.suffix.as_str() {
                "_sum" => own.sum = sample.value,
                "_count" => own.count = sample.value as u64,
                _ => {
                    let end = sample.labels.iter().find(|(key, _)| key == "le").and_then(|(_, end)| end.parse().ok());
                    // Each line counts everything below its end as well.
                    let below: u64 = own.counts.iter().sum();
                    own.counts.push((sample.value as u64).saturating_sub(below));
                    own.bounds.extend(end.filter(|end: &f64| end.is_finite()));
                }
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ids::ServerId;
    use crate::record::{Metrics, ServerLabel};

    #[test]
    fn our_own_metrics_are_read_back_whole() {
        let metrics = Metrics::new();
        let server = ServerLabel(Some(ServerId::new("git").unwrap()));
        metrics.ended(server.clone(), "tools/call", "complete", Duration::from_millis(3));
        metrics.ended(server, "tools/call", "complete", Duration::from_secs(500));
        let families = read(&metrics.encode());
        let family = |name: &str| families.iter().find(|family| family.name == name).unwrap();
        let calls = family("bailiwick_calls");
        assert_eq!((calls.kind, calls.samples[0].value), (Kind::Counter, 2.0));
        assert!(calls.samples[0].labels.contains(&("server".to_owned(), "git".to_owned())), "{calls:?}");
        assert_eq!(
            (family("bailiwick_journal_well").kind, family("bailiwick_journal_well").samples[0].value),
            (Kind::Gauge, 1.0)
        );
        let took = family("bailiwick_call_duration_seconds").histograms();
        assert_eq!((took.len(), took[0].count, took[0].counts.len()), (1, 2, took[0].bounds.len() + 1));
        assert_eq!((took[0].counts.iter().sum::<u64>(), *took[0].counts.last().unwrap()), (2, 1));
        assert!((took[0].sum - 500.003).abs() < 0.001);
    }
}

//! Reads expressions of PromQL, as far as ours are written in it, and holds them against what a gateway exports.
//!
//! Decides what is a mistake: another grammar, a function or a metric that there is not, a label that no series of the
//! metric has, a range where none is wanted. What a real Prometheus says is asked where there is one.

use std::collections::{BTreeMap, BTreeSet};

/// The labels of each metric.
pub type Exported = BTreeMap<String, BTreeSet<String>>;

/// What takes a range, and what takes none.
const OF_RANGES: [&str; 3] = ["rate", "increase", "changes"];
const OF_MOMENTS: [&str; 3] = ["histogram_quantile", "clamp_min", "absent"];
const OVER_SERIES: [&str; 5] = ["sum", "max", "min", "avg", "count"];
const OPERATORS: [&str; 12] = ["==", "!=", ">=", "<=", ">", "<", "+", "-", "*", "/", "and", "or"];
/// What Prometheus adds to each series by itself.
const ADDED: [&str; 2] = ["instance", "job"];

/// What an exposition exports.
pub fn exported(exposition: &str) -> Exported {
    let mut all = Exported::new();
    // One that has no series yet is a metric all the same.
    for told in exposition.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = told.split_once(' ').unwrap_or((told, ""));
        let (suffix, own) = match kind {
            "counter" => ("_total", None),
            "histogram" => ("_bucket", Some("le".to_owned())),
            _ => ("", None),
        };
        all.entry(format!("{name}{suffix}")).or_default().extend(own);
    }
    for line in exposition.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let series = line.rsplit_once(' ').map_or(line, |(series, _)| series);
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let names =
            labels.trim_end_matches('}').split("\",").filter_map(|pair| Some(pair.split_once('=')?.0.to_owned()));
        all.entry(name.to_owned()).or_default().extend(names);
    }
    all
}

/// Holds one expression against that.
pub fn check(expression: &str, exported: &Exported) -> Result<(), String> {
    let mut reader = Reader { rest: expression, exported };
    let read = reader.sum()?;
    match (reader.rest.trim(), read.is_range) {
        ("", false) => Ok(()),
        ("", true) => Err("a range is no answer".to_owned()),
        (rest, _) => Err(format!("`{rest}` is left")),
    }
}

fn is_duration(text: &str) -> bool {
    text.strip_suffix(['s', 'm', 'h', 'd']).is_some_and(|number| number.parse::<u32>().is_ok())
}

/// What an expression is.
struct Read {
    is_range: bool,
    labels: BTreeSet<String>,
}

struct Reader<'a> {
    rest: &'a str,
    exported: &'a Exported,
}

impl<'a> Reader<'a> {
    fn sum(&mut self) -> Result<Read, String> {
        let mut read = self.one()?;
        while let Some(operator) = OPERATORS.iter().find(|operator| self.rest.trim_start().starts_with(**operator)) {
            self.expect(operator)?;
            let other = self.one()?;
            if read.is_range || other.is_range {
                return Err(format!("`{operator}` of a range"));
            }
            read.labels.extend(other.labels);
        }
        Ok(read)
    }

    fn one(&mut self) -> Result<Read, String> {
        if self.takes("(") {
            let read = self.sum()?;
            self.expect(")")?;
            return Ok(read);
        }
        let word = self.word();
        if word.is_empty() {
            return Err(format!("nothing to read at `{}`", self.rest));
        }
        if word.parse::<f64>().is_ok() {
            return Ok(Read { is_range: false, labels: BTreeSet::new() });
        }
        if OVER_SERIES.contains(&word) {
            let by = if self.takes("by") { self.names()? } else { BTreeSet::new() };
            self.expect("(")?;
            let read = self.sum()?;
            self.expect(")")?;
            let unknown = by.iter().find(|label| !read.labels.contains(*label) && !ADDED.contains(&label.as_str()));
            return match unknown {
                Some(label) => Err(format!("{word} by `{label}`, which nothing in it has")),
                None if read.is_range => Err(format!("{word} of a range")),
                None => Ok(Read { is_range: false, labels: by }),
            };
        }
        let of_range = OF_RANGES.contains(&word);
        if of_range || OF_MOMENTS.contains(&word) {
            return self.called(word, of_range);
        }
        self.selected(word)
    }

    fn called(&mut self, function: &str, of_range: bool) -> Result<Read, String> {
        self.expect("(")?;
        let mut read = self.sum()?;
        while self.takes(",") {
            read = self.sum()?;
        }
        self.expect(")")?;
        if function == "histogram_quantile" && !read.labels.contains("le") {
            return Err("a quantile without `le`".to_owned());
        }
        let fits = read.is_range == of_range;
        if fits { Ok(Read { is_range: false, ..read }) } else { Err(format!("{function} takes something else")) }
    }

    fn selected(&mut self, metric: &str) -> Result<Read, String> {
        let labels = self.exported.get(metric).ok_or(format!("there is no metric or function `{metric}`"))?.clone();
        if self.takes("{") {
            while !self.takes("}") {
                let label = self.word();
                if !labels.contains(label) && !ADDED.contains(&label) {
                    return Err(format!("{metric} has no label `{label}`"));
                }
                if !["=~", "!~", "!=", "="].into_iter().any(|operator| self.takes(operator)) {
                    return Err(format!("how `{label}` is matched is not said"));
                }
                self.expect("\"")?;
                let (_, rest) = self.rest.split_once('"').ok_or("a value without an end")?;
                self.rest = rest;
                self.takes(",");
            }
        }
        let is_range = self.takes("[");
        if is_range {
            let (range, rest) = self.rest.split_once(']').ok_or("a range without an end")?;
            if range != "$__rate_interval" && !is_duration(range) {
                return Err(format!("`{range}` is no range"));
            }
            self.rest = rest;
        }
        if self.takes("offset") && !is_duration(self.word()) {
            return Err(format!("{metric} at no offset"));
        }
        Ok(Read { is_range, labels })
    }

    fn names(&mut self) -> Result<BTreeSet<String>, String> {
        self.expect("(")?;
        let mut names = BTreeSet::new();
        while !self.takes(")") {
            names.insert(self.word().to_owned());
            if !self.takes(",") && !self.rest.trim_start().starts_with(')') {
                return Err(format!("labels without an end at `{}`", self.rest));
            }
        }
        Ok(names)
    }

    fn takes(&mut self, sign: &str) -> bool {
        let rest = self.rest.trim_start().strip_prefix(sign);
        rest.map(|rest| self.rest = rest).is_some()
    }

    fn expect(&mut self, sign: &str) -> Result<(), String> {
        if self.takes(sign) { Ok(()) } else { Err(format!("`{sign}` is missing before `{}`", self.rest)) }
    }

    /// A name or a number.
    fn word(&mut self) -> &'a str {
        let rest = self.rest.trim_start();
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | ':' | '.');
        let (word, rest) = rest.split_at(rest.find(|letter| !is_part(letter)).unwrap_or(rest.len()));
        self.rest = rest;
        word
    }
}

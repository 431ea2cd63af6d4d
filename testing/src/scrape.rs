//! Metrics in Prometheus' text format, as a scrape gets them.

use std::collections::{BTreeMap, HashMap};

/// Metrics of one moment.
#[derive(Debug, Clone, Default)]
pub struct Scrape {
    /// Values, by the name and the labels as they were written.
    values: BTreeMap<String, f64>,
    /// Kinds, by name.
    kinds: HashMap<String, String>,
    /// Descriptions, by name.
    texts: HashMap<String, String>,
}

impl Scrape {
    /// Reads a text.
    ///
    /// # Panics
    /// Where a line has not the form of the format.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut scrape = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (what, rest) = line.rsplit_once(' ').unwrap_or_else(|| panic!("a line of another form: {line}"));
            if let Some(name) = what.strip_prefix("# TYPE ") {
                scrape.kinds.insert(name.to_owned(), rest.to_owned());
            } else if let Some(described) = line.strip_prefix("# HELP ") {
                let (name, text) = described.split_once(' ').unwrap_or((described, ""));
                scrape.texts.insert(name.to_owned(), text.to_owned());
            } else {
                let value = rest.parse().unwrap_or_else(|_| panic!("a value of another form: {line}"));
                scrape.values.insert(what.to_owned(), value);
            }
        }
        scrape
    }

    /// Returns the kind of a metric: `counter`, `gauge` or `histogram`.
    #[must_use]
    pub fn kind(&self, name: &str) -> Option<&str> {
        self.kinds.get(name).map(String::as_str)
    }

    /// Returns the description of a metric.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(String::as_str)
    }

    /// Returns the names of all metrics that begin so.
    #[must_use]
    pub fn names(&self, prefix: &str) -> Vec<&str> {
        self.kinds.keys().map(String::as_str).filter(|name| name.starts_with(prefix)).collect()
    }

    /// Returns the number of series whose names begin so.
    #[must_use]
    pub fn series(&self, prefix: &str) -> usize {
        self.values.keys().filter(|name| name.starts_with(prefix)).count()
    }

    /// Returns a value, by the name with its labels, as in `up{job="x"}`; 0 where it is absent.
    #[must_use]
    pub fn value(&self, series: &str) -> f64 {
        self.values.get(series).copied().unwrap_or_default()
    }

    /// Returns the sum of a metric over all of its labels.
    #[must_use]
    pub fn sum(&self, name: &str) -> f64 {
        let is_of = |series: &str| series.split('{').next() == Some(name);
        self.values.iter().filter(|(series, _)| is_of(series)).map(|(_, value)| value).sum()
    }
}

//! Metrics over the `metrics` facade, with handles that are made once.

use std::sync::OnceLock;

use metrics::{Key, KeyName, Label, Metadata, SharedString, Unit, with_recorder};

/// Units of the metrics.
pub(super) mod unit {
    pub(in crate::metrics) const COUNT: super::Unit = super::Unit::Count;
    pub(in crate::metrics) const SECONDS: super::Unit = super::Unit::Seconds;
}

pub(crate) type Counter = Metric<metrics::Counter>;
pub(crate) type Gauge = Metric<metrics::Gauge>;
pub(crate) type Histogram = Metric<metrics::Histogram>;

/// Metric, with a handle for each value of its labels.
pub(crate) struct Metric<H> {
    name: &'static str,
    unit: Unit,
    /// Names of the labels, separated by `:`. Empty where the metric has none.
    labels: &'static str,
    /// Values of the labels, separated as the names are.
    values: &'static [&'static str],
    text: &'static str,
    /// Handles in the order of the values; unset before the registration.
    handles: OnceLock<Box<[H]>>,
}

/// Description of a metric, for the tests of the documents.
#[cfg(all(feature = "server", any(test, feature = "testing")))]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Name, as Prometheus shows it.
    pub name: &'static str,
    /// Kind: `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Unit, in the words of the facade.
    pub unit: &'static str,
    /// Sets of labels, each with their names and values.
    pub labels: Vec<Vec<(&'static str, &'static str)>>,
    /// Text for people.
    pub text: &'static str,
}

/// Handle of one kind of metric.
pub(crate) trait Handle: Sized {
    #[cfg(all(feature = "server", any(test, feature = "testing")))]
    const KIND: &'static str;

    fn describe(name: KeyName, unit: Unit, text: SharedString);

    fn make(key: &Key, metadata: &Metadata<'_>) -> Self;
}

impl Handle for metrics::Counter {
    #[cfg(all(feature = "server", any(test, feature = "testing")))]
    const KIND: &'static str = "counter";

    fn describe(name: KeyName, unit: Unit, text: SharedString) {
        with_recorder(|recorder| recorder.describe_counter(name, Some(unit), text));
    }

    fn make(key: &Key, metadata: &Metadata<'_>) -> Self {
        let counter = with_recorder(|recorder| recorder.register_counter(key, metadata));
        // A count that is still zero is shown too: a rate needs the zero before the first event.
        counter.increment(0);
        counter
    }
}

impl Handle for metrics::Gauge {
    #[cfg(all(feature = "server", any(test, feature = "testing")))]
    const KIND: &'static str = "gauge";

    fn describe(name: KeyName, unit: Unit, text: SharedString) {
        with_recorder(|recorder| recorder.describe_gauge(name, Some(unit), text));
    }

    fn make(key: &Key, metadata: &Metadata<'_>) -> Self {
        with_recorder(|recorder| recorder.register_gauge(key, metadata))
    }
}

impl Handle for metrics::Histogram {
    #[cfg(all(feature = "server", any(test, feature = "testing")))]
    const KIND: &'static str = "histogram";

    fn describe(name: KeyName, unit: Unit, text: SharedString) {
        with_recorder(|recorder| recorder.describe_histogram(name, Some(unit), text));
    }

    fn make(key: &Key, metadata: &Metadata<'_>) -> Self {
        with_recorder(|recorder| recorder.register_histogram(key, metadata))
    }
}

impl<H> Metric<H> {
    pub(super) const fn new(
        name: &'static str,
        unit: Unit,
        labels: &'static str,
        values: &'static [&'static str],
        text: &'static str,
    ) -> Self {
        Self { name, unit, labels, values, text, handles: OnceLock::new() }
    }

    /// Returns the names and values of the labels for one of the values.
    fn labels_of(&self, values: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.labels.split(':').zip(values.split(':')).filter(|(name, _)| !name.is_empty())
    }

    /// Returns the handle for a value of the last label; `None` before the registration.
    fn handle(&self, value: &str) -> Option<&H> {
        let is_meant =
            |values: &&str| values.strip_suffix(value).is_some_and(|before| before.is_empty() || before.ends_with(':'));
        let place = self.values.iter().position(is_meant);
        debug_assert!(place.is_some(), "{} has no value {value:?}", self.name);
        self.handles.get()?.get(place?)
    }
}

impl<H: Handle> Metric<H> {
    /// Describes the metric, and makes its handles, unless that is done already.
    pub(super) fn register(&self) {
        self.handles.get_or_init(|| {
            H::describe(KeyName::from_const_str(self.name), self.unit, SharedString::const_str(self.text));
            let metadata = Metadata::new("mcp_courier", metrics::Level::INFO, Some("mcp_courier"));
            let handle = |values: &&'static str| {
                let labels: Vec<_> = self.labels_of(values).map(|(name, value)| Label::new(name, value)).collect();
                H::make(&Key::from_parts(self.name, labels), &metadata)
            };
            self.values.iter().map(handle).collect()
        });
    }

    #[cfg(all(feature = "server", any(test, feature = "testing")))]
    pub(super) fn description(&self) -> Description {
        let labels = self.values.iter().map(|values| self.labels_of(values).collect()).collect();
        let (name, kind, unit, text) = (self.name, H::KIND, self.unit.as_str(), self.text);
        Description { name, kind, unit, labels, text }
    }
}

/// Share of one part of the process in a gauge. Dropping the value takes the share back.
#[cfg(any(feature = "elicitation", feature = "server"))]
pub(crate) struct Share {
    gauge: &'static Gauge,
    label: &'static str,
    value: f64,
}

#[cfg(any(feature = "elicitation", feature = "server"))]
impl Share {
    /// Makes a share of 0 in the gauge with this value of the label, which is empty for a gauge without labels.
    pub(crate) fn of(gauge: &'static Gauge, label: &'static str) -> Self {
        Self { gauge, label, value: 0.0 }
    }

    /// Changes the share.
    pub(crate) fn set(&mut self, value: f64) {
        let before = std::mem::replace(&mut self.value, value);
        if let Some(gauge) = self.gauge.handle(self.label) {
            gauge.increment(value - before);
        }
    }
}

#[cfg(any(feature = "elicitation", feature = "server"))]
impl Drop for Share {
    fn drop(&mut self) {
        self.set(0.0);
    }
}

/// Share of 1 in a gauge without labels, which lasts as long as this value.
#[cfg(any(feature = "elicitation", feature = "server"))]
pub(crate) struct Level {
    _share: Share,
}

#[cfg(any(feature = "elicitation", feature = "server"))]
impl Level {
    /// Raises a gauge without labels by 1, until the value is dropped.
    pub(crate) fn of(gauge: &'static Gauge) -> Self {
        let mut share = Share::of(gauge, "");
        share.set(1.0);
        Self { _share: share }
    }
}

impl Metric<metrics::Counter> {
    /// Counts events with this value of the last label.
    #[inline]
    pub(crate) fn add(&self, value: &str, count: usize) {
        if let Some(counter) = self.handle(value) {
            counter.increment(count as u64);
        }
    }

    /// Counts events of a metric without labels.
    #[inline]
    pub(crate) fn count(&self, count: usize) {
        self.add("", count);
    }
}

#[cfg(feature = "server")]
impl Metric<metrics::Gauge> {
    /// Sets a gauge without labels.
    pub(crate) fn set(&self, to: f64) {
        if let Some(gauge) = self.handle("") {
            gauge.set(to);
        }
    }
}

#[cfg(feature = "server")]
impl Metric<metrics::Histogram> {
    /// Records each of these values.
    #[inline]
    pub(crate) fn record(&self, values: impl IntoIterator<Item = f64>) {
        if let Some(histogram) = self.handle("") {
            values.into_iter().for_each(|value| histogram.record(value));
        }
    }
}

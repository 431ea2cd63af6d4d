//! Empty form of the metrics, for builds without the feature `metrics`.

/// Units, which nobody reads.
pub(super) mod unit {
    pub(in crate::metrics) const COUNT: () = ();
    pub(in crate::metrics) const SECONDS: () = ();
}

/// Metric that counts nothing.
pub(crate) struct Off;

pub(crate) type Counter = Off;
pub(crate) type Gauge = Off;
pub(crate) type Histogram = Off;

/// Part of a gauge that nobody reads.
#[cfg(any(feature = "elicitation", feature = "server"))]
pub(crate) struct Level;

#[cfg(any(feature = "elicitation", feature = "server"))]
impl Level {
    pub(crate) fn of(_: &Off) -> Self {
        Self
    }
}

impl Off {
    pub(super) const fn new(_: &str, (): (), _: &str, _: &[&str], _: &str) -> Self {
        Self
    }

    pub(super) const fn register(&self) {}

    #[inline]
    pub(crate) fn add(&self, _value: &str, _count: usize) {}

    #[inline]
    pub(crate) fn count(&self, _count: usize) {}

    #[cfg(feature = "server")]
    #[inline]
    pub(crate) fn record(&self, _values: impl IntoIterator<Item = f64>) {}
}

//! [`TraceContext`]: W3C trace context and baggage, by which tracing links a notification to its cause.
//!
//! MCP carries the context in `_meta`, under the names `traceparent`, `tracestate` and `baggage` (SEP-414). The message
//! in Redis carries the context beside the notification, under the same names.
//!
//! *Checked once*. A value of this type keeps to the grammars of W3C and to their bounds, so every reader of the queue
//! may forward it. A context that a foreign producer wrote is read leniently: a bad one is dropped, and its message is
//! delivered all the same.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::json;

mod grammar;

/// Name of the trace context's first part in `_meta` and in a message of the queue.
const TRACEPARENT: &str = "traceparent";
/// Name of the vendors' part of a trace context.
const TRACESTATE: &str = "tracestate";
/// Name of the application's own part.
const BAGGAGE: &str = "baggage";

/// Part of a trace context as a field: its name and its text.
pub(crate) type Part<'a> = (&'static str, &'a str);

/// W3C trace context of a notification's cause, with its baggage.
///
/// The context travels with a notification from the worker to the server, and on to the client in `params._meta`, as
/// MCP's SEP-414 says. Spans of the worker and of the server are thereby parts of one trace.
///
/// The context is not sealed and not secret: keep personal data out of `baggage`.
///
/// ```
/// use mcp_courier::{Notification, TraceContext};
///
/// let context = TraceContext::new("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")?
///     .with_tracestate("congo=t61rcWkgMzE")?
///     .with_baggage("tenant=acme")?;
/// let notification = Notification::tools_list_changed().with_trace_context(context);
/// assert_eq!(notification.trace_context().unwrap().trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
///
/// let refused = TraceContext::new("4bf92f35").unwrap_err();
/// assert_eq!(
///     refused.to_string(),
///     "a traceparent must be 00-TRACE_ID-PARENT_ID-FLAGS in lower-case hexadecimal digits, and this one has 8 \
///      characters in place of 55"
/// );
/// # Ok::<(), mcp_courier::InvalidTraceContext>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// `00-TRACE_ID-PARENT_ID-FLAGS`, always of [`grammar::LENGTH`] characters.
    traceparent: String,
    tracestate: Option<String>,
    baggage: Option<String>,
}

/// Reason why a trace context was rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTraceContext {
    /// The `traceparent` is not of W3C's grammar.
    #[error("a traceparent must be 00-TRACE_ID-PARENT_ID-FLAGS in lower-case hexadecimal digits, and {why}")]
    Traceparent {
        /// Fault of the text.
        why: String,
    },
    /// The `tracestate` is not of W3C's grammar, or too long.
    #[error(
        "a tracestate must be at most {} entries KEY=VALUE with at most {} bytes together, and {why}",
        TraceContext::TRACESTATE_MAX_MEMBERS,
        TraceContext::TRACESTATE_MAX_BYTES
    )]
    Tracestate {
        /// Fault of the text.
        why: String,
    },
    /// The `baggage` is not of W3C's grammar, or too long.
    #[error(
        "baggage must be entries KEY=VALUE with at most {} bytes together, and {why}",
        TraceContext::BAGGAGE_MAX_BYTES
    )]
    Baggage {
        /// Fault of the text.
        why: String,
    },
}

impl TraceContext {
    /// Largest number of entries in a `tracestate`, as W3C says.
    pub const TRACESTATE_MAX_MEMBERS: usize = 32;
    /// Length of the longest `tracestate`, in bytes. W3C demands that as much is forwarded.
    pub const TRACESTATE_MAX_BYTES: usize = 512;
    /// Length of the longest `baggage`, in bytes. W3C demands that as much is forwarded.
    pub const BAGGAGE_MAX_BYTES: usize = 8192;

    /// Reads a `traceparent`: `00-TRACE_ID-PARENT_ID-FLAGS`, with 32, 16 and 2 lower-case hexadecimal digits.
    ///
    /// A later version of the format is read as far as W3C defines, and written as version `00`.
    ///
    /// # Errors
    /// [`InvalidTraceContext::Traceparent`] names the fault.
    pub fn new(traceparent: impl AsRef<str>) -> Result<Self, InvalidTraceContext> {
        let traceparent = grammar::traceparent(traceparent.as_ref());
        let traceparent = traceparent.map_err(|why| InvalidTraceContext::Traceparent { why })?;
        Ok(Self { traceparent, tracestate: None, baggage: None })
    }

    /// Sets the `tracestate`, the data of tracing vendors. Defaults to none, and an empty text means none.
    ///
    /// # Errors
    /// [`InvalidTraceContext::Tracestate`] names the fault.
    pub fn with_tracestate(mut self, tracestate: impl AsRef<str>) -> Result<Self, InvalidTraceContext> {
        let tracestate = grammar::tracestate(tracestate.as_ref());
        self.tracestate = tracestate.map_err(|why| InvalidTraceContext::Tracestate { why })?.map(str::to_owned);
        Ok(self)
    }

    /// Sets the `baggage`, the application's own data. Defaults to none, and an empty text means none.
    ///
    /// Everyone with access to Redis, and the client, can read the baggage.
    ///
    /// # Errors
    /// [`InvalidTraceContext::Baggage`] names the fault.
    pub fn with_baggage(mut self, baggage: impl AsRef<str>) -> Result<Self, InvalidTraceContext> {
        let baggage = grammar::baggage(baggage.as_ref());
        self.baggage = baggage.map_err(|why| InvalidTraceContext::Baggage { why })?.map(str::to_owned);
        Ok(self)
    }

    /// Reads the trace context of a `_meta`, as that of an MCP client's request. Returns `None` where `_meta` has no
    /// `traceparent`.
    ///
    /// A handler of rmcp passes its request's `_meta`, and gives the result to the notifications that follow from the
    /// request. W3C has a server ignore a bad context, which `.ok().flatten()` does.
    ///
    /// ```
    /// use mcp_courier::TraceContext;
    /// use serde_json::json;
    ///
    /// let meta = json!({"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"});
    /// let context = TraceContext::from_meta(meta.as_object().unwrap())?;
    /// assert!(context.unwrap().is_sampled());
    /// # Ok::<(), mcp_courier::InvalidTraceContext>(())
    /// ```
    ///
    /// # Errors
    /// [`InvalidTraceContext`] names the faulty part.
    pub fn from_meta(meta: &Map<String, Value>) -> Result<Option<Self>, InvalidTraceContext> {
        let text = |name: &str| match meta.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(other) => Err(format!("this one is {}", json::kind(other))),
        };
        let traceparent = text(TRACEPARENT).map_err(|why| InvalidTraceContext::Traceparent { why })?;
        let Some(traceparent) = traceparent else { return Ok(None) };
        let tracestate = text(TRACESTATE).map_err(|why| InvalidTraceContext::Tracestate { why })?;
        let baggage = text(BAGGAGE).map_err(|why| InvalidTraceContext::Baggage { why })?;
        let context = Self::new(traceparent)?.with_tracestate(tracestate.unwrap_or_default())?;
        Ok(Some(context.with_baggage(baggage.unwrap_or_default())?))
    }

    /// Reads a context that another program wrote. A part that is bad is dropped; without a `traceparent` everything
    /// is. `part` returns the text of the part of this name.
    pub(crate) fn read<'a>(part: impl Fn(&str) -> Option<Cow<'a, str>>) -> Option<Self> {
        let traceparent = grammar::traceparent(&part(TRACEPARENT)?).ok()?;
        let tracestate = part(TRACESTATE).and_then(|text| Some(grammar::tracestate(&text).ok()??.to_owned()));
        let baggage = part(BAGGAGE).and_then(|text| Some(grammar::baggage(&text).ok()??.to_owned()));
        Some(Self { traceparent, tracestate, baggage })
    }

    /// Returns the parts as fields of `_meta` and of a message: `traceparent`, then `tracestate` and `baggage` if they
    /// are set.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let optional = [(TRACESTATE, self.tracestate()), (BAGGAGE, self.baggage())];
        let optional = optional.into_iter().filter_map(|(name, text)| Some((name, text?)));
        [(TRACEPARENT, self.traceparent())].into_iter().chain(optional)
    }

    /// Returns the parts that a `_meta` lacks. `has` says whether the `_meta` has a field of this name.
    ///
    /// A producer that set `traceparent` or `tracestate` itself keeps both: the two belong together.
    pub(crate) fn parts_beside(&self, has: impl Fn(&str) -> bool) -> impl Iterator<Item = Part<'_>> {
        let has_context = has(TRACEPARENT) || has(TRACESTATE);
        let has_baggage = has(BAGGAGE);
        self.parts().filter(move |(name, _)| if *name == BAGGAGE { !has_baggage } else { !has_context })
    }

    /// Returns the `traceparent`, of 55 characters.
    pub fn traceparent(&self) -> &str {
        &self.traceparent
    }

    /// Returns the `tracestate`, if there is one.
    pub fn tracestate(&self) -> Option<&str> {
        self.tracestate.as_deref()
    }

    /// Returns the `baggage`, if there is any.
    pub fn baggage(&self) -> Option<&str> {
        self.baggage.as_deref()
    }

    /// Returns the id of the trace: 32 lower-case hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        &self.traceparent[grammar::TRACE_ID]
    }

    /// Returns the id of the span that caused the notification: 16 lower-case hexadecimal digits.
    pub fn parent_id(&self) -> &str {
        &self.traceparent[grammar::PARENT_ID]
    }

    /// Returns whether the caller may have recorded its part of the trace.
    pub fn is_sampled(&self) -> bool {
        self.flags() & grammar::SAMPLED != 0
    }

    /// Returns the flags of the `traceparent`, of which bit 0 says "sampled".
    pub(crate) fn flags(&self) -> u8 {
        // Checked when the value was made.
        u8::from_str_radix(&self.traceparent[grammar::FLAGS], 16).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn meta(meta: Value) -> Result<Option<TraceContext>, InvalidTraceContext> {
        TraceContext::from_meta(meta.as_object().unwrap())
    }

    #[test]
    fn a_context_has_its_parts() {
        let context = TraceContext::new(PARENT).unwrap().with_tracestate("a=1").unwrap().with_baggage("k=v").unwrap();
        assert_eq!((context.traceparent(), context.parent_id()), (PARENT, "00f067aa0ba902b7"));
        assert!(context.is_sampled() && !TraceContext::new(PARENT.replace("-01", "-02")).unwrap().is_sampled());
        let parts: Vec<_> = context.parts().collect();
        assert_eq!(parts, [("traceparent", PARENT), ("tracestate", "a=1"), ("baggage", "k=v")]);
        assert_eq!(TraceContext::new(PARENT).unwrap().parts().count(), 1);
        assert_eq!(context.with_tracestate(" ").unwrap().tracestate(), None);
    }

    #[test]
    fn a_producer_that_set_one_half_of_a_context_keeps_both() {
        let context = TraceContext::new(PARENT).unwrap().with_tracestate("a=1").unwrap().with_baggage("k=v").unwrap();
        let beside =
            |set: &[&str]| context.parts_beside(|name| set.contains(&name)).map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(beside(&[]), ["traceparent", "tracestate", "baggage"]);
        assert_eq!(beside(&["traceparent"]), ["baggage"]);
        assert_eq!(beside(&["tracestate"]), ["baggage"]);
        assert_eq!(beside(&["baggage"]), ["traceparent", "tracestate"]);
    }

    #[test]
    fn the_meta_of_a_request_is_read_or_its_fault_named() {
        assert_eq!(meta(json!({"progressToken": 1, "traceparent": null})), Ok(None));
        assert_eq!(meta(json!({"tracestate": 7})), Ok(None), "without a traceparent there is no context");
        let whole = meta(json!({"traceparent": PARENT, "tracestate": "a=1", "baggage": "k=v"})).unwrap().unwrap();
        assert_eq!((whole.tracestate(), whole.baggage()), (Some("a=1"), Some("k=v")));
        for (fields, part) in [
            (json!({"traceparent": 7}), "a traceparent"),
            (json!({"traceparent": PARENT, "tracestate": []}), "a tracestate"),
            (json!({"traceparent": PARENT, "baggage": "k"}), "baggage"),
        ] {
            let error = meta(fields).unwrap_err().to_string();
            assert!(error.starts_with(part), "{error}");
        }
    }

    #[test]
    fn a_bad_part_of_a_foreign_context_is_dropped_alone() {
        let read = |parts: [Option<&'static str>; 3]| {
            let names = [TRACEPARENT, TRACESTATE, BAGGAGE];
            TraceContext::read(|name| parts[names.iter().position(|n| *n == name).unwrap()].map(Cow::Borrowed))
        };
        assert_eq!(read([None, Some("a=1"), Some("k=v")]), None);
        assert_eq!(read([Some("x"), Some("a=1"), Some("k=v")]), None);
        let some = read([Some(PARENT), Some("A=1"), Some("k=v")]).unwrap();
        assert_eq!((some.tracestate(), some.baggage()), (None, Some("k=v")));
        assert_eq!(read([Some(PARENT), Some("a=1"), Some("?")]).unwrap().tracestate(), Some("a=1"));
    }
}

//! Framing of the `text/event-stream` that rmcp itself writes: answers to requests, and early closes.
//!
//! rmcp writes events without an `event` field, and priming events without data to clients of every version. The framer
//! rewrites those bytes in one pass, in the form of the standalone streams:
//!
//! ```text
//!   data: {…}                     event: message
//!   id: 7          becomes        data: {…}
//!                                 id: 7
//! ```
//!
//! *The delay of rmcp*. The answer to each request begins with an event without data, whose `retry` is a constant of
//! rmcp's session manager. Clients in TypeScript use the newest `retry` of any stream, so this constant would replace
//! the delay that the standalone stream names. The framer removes the field from the first event of an answer. A later
//! one comes from the server's own code, and passes (`an_answer_names_no_delay_of_rmcp`).

use crate::session::rmcp::Escaper;

/// Largest number of bytes of one event that are held back until its data begins. Events of rmcp need about 100.
const HELD_MAX: usize = 4096;

/// Treatment of events that have no data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Priming {
    /// All of them pass.
    Pass,
    /// None of them passes: clients of versions before 2025-11-25 report an error for each.
    Drop,
}

/// Framer of an event stream that arrives in pieces.
///
/// The stream must end its lines by `\n`, as rmcp does.
#[derive(Debug)]
pub(super) struct Framer {
    priming: Priming,
    /// Lines of the current event that came before its data, and the beginning of the next line.
    held: Vec<u8>,
    /// Place in `held` where the current line begins.
    line: usize,
    /// Set where the current event has data, so that the rest of it passes.
    passing: bool,
    /// Set where a `retry` of the current event is removed: in the first event of an answer.
    drops_delay: bool,
    /// Set where the next byte that passes begins a line.
    at_line_start: bool,
    /// Escapes line separators in the data that passes.
    escaper: Escaper,
}

impl Framer {
    /// Makes a framer. `is_answer` says that the stream is the answer to a request.
    pub(super) fn new(priming: Priming, is_answer: bool) -> Self {
        let (held, escaper) = (Vec::new(), Escaper::default());
        Self { priming, held, line: 0, passing: false, drops_delay: is_answer, at_line_start: false, escaper }
    }

    /// Appends the rewritten stream to `out`.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = if self.passing { self.pass(rest, out) } else { self.hold(rest, out) };
        }
    }

    /// Appends the held bytes at the end of the stream.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
        self.escaper.finish(out);
    }

    /// Passes on the current line, or the part of the line that has arrived. Returns the bytes behind it.
    fn pass<'a>(&mut self, bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            self.escaper.push(bytes, out);
            self.at_line_start = false;
            return &[];
        };
        let (line, rest) = bytes.split_at(end + 1);
        self.escaper.push(line, out);
        self.passing = !(self.at_line_start && end == 0);
        self.at_line_start = true;
        rest
    }

    /// Holds one more byte. Returns the bytes behind it.
    fn hold<'a>(&mut self, bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let (byte, rest) = bytes.split_at(1);
        self.held.extend_from_slice(byte);
        let line = &self.held[self.line..];
        if has_data(line) {
            if !lines(&self.held).any(|line| line.starts_with(b"event:")) {
                out.extend_from_slice(b"event: message\n");
            }
            self.release(out);
        } else if line == b"\n" {
            let is_event = lines(&self.held).any(|line| !line.is_empty() && !line.starts_with(b":"));
            if !is_event || self.priming == Priming::Pass {
                out.append(&mut self.held);
            }
            self.held.clear();
            self.line = 0;
            self.drops_delay &= !is_event;
        } else if byte == b"\n" {
            if self.drops_delay && line.starts_with(b"retry:") {
                self.held.truncate(self.line);
            }
            self.line = self.held.len();
        } else if self.held.len() >= HELD_MAX {
            self.release(out);
        }
        rest
    }

    /// Lets the rest of the current event pass.
    fn release(&mut self, out: &mut Vec<u8>) {
        (self.passing, self.drops_delay, self.at_line_start, self.line) = (true, false, false, 0);
        let held = std::mem::take(&mut self.held);
        self.escaper.push(&held, out);
    }
}

/// Returns whether a line, or the beginning of a line, contains data.
fn has_data(line: &[u8]) -> bool {
    let value = line.strip_prefix(b"data:").map(|value| value.strip_prefix(b" ").unwrap_or(value));
    value.is_some_and(|value| !value.is_empty() && value != b"\n")
}

fn lines(held: &[u8]) -> impl Iterator<Item = &[u8]> {
    held.split(|byte| *byte == b'\n')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed<'a>(priming: Priming, pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
        framed_as(priming, false, pieces)
    }

    fn framed_as<'a>(priming: Priming, is_answer: bool, pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
        let (mut framer, mut out) = (Framer::new(priming, is_answer), Vec::new());
        for piece in pieces {
            framer.push(piece, &mut out);
            assert!(framer.held.len() <= HELD_MAX);
        }
        framer.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn events_with_data_are_named() {
        let rmcp = "data: {\"a\":1}\nid: 3/7\n\nid: 4\nretry: 5\ndata:{}\n\nevent: other\ndata: x\n\n";
        let wanted = "event: message\ndata: {\"a\":1}\nid: 3/7\n\nevent: message\nid: 4\nretry: 5\ndata:{}\n\n\
                      event: other\ndata: x\n\n";
        for priming in [Priming::Pass, Priming::Drop] {
            assert_eq!(framed(priming, [rmcp.as_bytes()]), wanted);
        }
    }

    #[test]
    fn separators_are_escaped_in_data() {
        let wanted = "event: message\ndata: \"\\u2028\"\n\n";
        assert_eq!(framed(Priming::Pass, ["data: \"\u{2028}\"\n\n".as_bytes()]), wanted);
    }

    #[test]
    fn events_without_data_pass_where_they_may_and_comments_always() {
        let rmcp = "data: \nid: 0\nretry: 3000\n\n:\n\ndata: 1\n\ndata:\nid: 1\n\nretry: 5\n\n: x\n\n";
        let one = "event: message\ndata: 1\n\n";
        let passed = format!("data: \nid: 0\nretry: 3000\n\n:\n\n{one}data:\nid: 1\n\nretry: 5\n\n: x\n\n");
        assert_eq!(framed(Priming::Pass, [rmcp.as_bytes()]), passed);
        assert_eq!(framed(Priming::Drop, [rmcp.as_bytes()]), format!(":\n\n{one}: x\n\n"));
    }

    #[test]
    fn only_the_first_event_of_an_answer_loses_its_delay() {
        let rmcp = ":\n\nretry: 3000\nid: 0/0\ndata:\n\nid: 1/0\nretry: 9000\ndata:\n\n";
        let wanted = ":\n\nid: 0/0\ndata:\n\nid: 1/0\nretry: 9000\ndata:\n\n";
        assert_eq!(framed_as(Priming::Pass, true, [rmcp.as_bytes()]), wanted);
        assert_eq!(framed_as(Priming::Pass, false, [rmcp.as_bytes()]), rmcp);
        let rmcp = "id: 0/0\nretry: 1\ndata: 1\n\nretry: 2\ndata: 2\n\n";
        let wanted = "event: message\nid: 0/0\ndata: 1\n\nevent: message\nretry: 2\ndata: 2\n\n";
        assert_eq!(framed_as(Priming::Pass, true, [rmcp.as_bytes()]), wanted);
    }

    #[test]
    fn a_long_line_before_the_data_is_not_held_for_ever() {
        let long = format!("id: {}\ndata: 1\n\n", "x".repeat(3 * HELD_MAX));
        assert_eq!(framed(Priming::Drop, [long.as_bytes()]), long);
    }

    fn event() -> impl Strategy<Value = String> {
        let data = prop_oneof![Just(String::new()), Just("\"\u{2028}é\u{85}\u{2030}\"".to_owned()), "[a-z{}]{1,9}"];
        let data =
            (data, any::<bool>()).prop_map(|(data, space)| format!("data:{}{data}\n", if space { " " } else { "" }));
        let field = prop_oneof![
            data,
            "[0-9]{1,3}".prop_map(|id| format!("id: {id}\n")),
            Just("retry: 3000\n".to_owned()),
            Just(":\n".to_owned()),
            Just("event: own\n".to_owned()),
        ];
        proptest::collection::vec(field, 0..4).prop_map(|fields| format!("{}\n", fields.concat()))
    }

    proptest! {
        #[test]
        fn every_split_gives_the_same(
            events in proptest::collection::vec(event(), 0..8),
            cuts in proptest::collection::vec(0usize..300, 0..20),
            priming in prop_oneof![Just(Priming::Pass), Just(Priming::Drop)],
            is_answer: bool,
        ) {
            let stream = events.concat();
            let framed = |pieces: Vec<&[u8]>| framed_as(priming, is_answer, pieces);
            let whole = framed(vec![stream.as_bytes()]);
            prop_assert_eq!(&framed(stream.as_bytes().chunks(1).collect()), &whole);
            prop_assert_eq!(&framed(super::super::tests::pieces(stream.as_bytes(), &cuts)), &whole);
            prop_assert!(!super::super::tests::has_separators(&whole));
        }
    }
}

//! [`Frames`]: what a courier writes into a stream, for the null courier to write the same.

use serde::{Deserialize, Serialize};

/// Field of a message that says when it was made, in 19 digits.
const MADE: &str = "\"made\":";

/// Notification and ping, each as the whole event that a courier wrote, with the empty line at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Frames {
    pub(crate) notification: String,
    pub(crate) ping: String,
}

impl Frames {
    /// Returns the notification's data.
    pub(crate) fn data(&self) -> &str {
        self.around_data().1
    }

    /// Returns the notification's data, made at a time.
    pub(crate) fn data_made(&self, at: u64) -> String {
        let data = self.data();
        let digits = data.find(MADE).expect("a message of this benchmark") + MADE.len();
        format!("{}{at:019}{}", &data[..digits], &data[digits + 19..])
    }

    /// Appends the event of a notification with other data.
    pub(crate) fn write(&self, data: &str, out: &mut Vec<u8>) {
        let (head, _, tail) = self.around_data();
        for part in [head, data, tail] {
            out.extend_from_slice(part.as_bytes());
        }
    }

    /// Appends a ping with a number of its own in the place of its id, which keeps its length.
    pub(crate) fn write_ping(&self, number: u64, out: &mut Vec<u8>) {
        let begin = self.ping.find("\"id\":\"").expect("a ping") + 6;
        let length = self.ping[begin..].find('"').expect("the end of its id");
        out.extend_from_slice(&self.ping.as_bytes()[..begin]);
        out.extend_from_slice(format!("{number:0length$}").as_bytes());
        out.extend_from_slice(&self.ping.as_bytes()[begin + length..]);
    }

    /// Splits the notification before and behind its data.
    fn around_data(&self) -> (&str, &str, &str) {
        let begin = self.notification.find("data: ").expect("a line of data") + 6;
        let length = self.notification[begin..].find('\n').expect("the end of that line");
        let (head, rest) = self.notification.split_at(begin);
        let (data, tail) = rest.split_at(length);
        (head, data, tail)
    }
}

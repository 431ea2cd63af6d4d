//! [`Reads`]: plain reads of the oldest messages of one queue, within bounds in messages and in bytes.
//!
//! A plain read cannot be bounded in bytes. It asks for as many messages as fit by the size of those that were read before,
//! and is made again where more than those fit.

use redis::{Cmd, Value};

use crate::backend::LineLimit;
use crate::backend::redis::reply::{self, BadReply};

/// Number of messages that the first read asks for. Nothing is known of their size yet, and each may be as large as
/// [`Config::message_max_bytes`](crate::Config::message_max_bytes) allows.
const FIRST: usize = 10;

/// What the reads of one queue have taught about the size of its messages.
#[derive(Debug)]
pub(in crate::backend::redis) struct Reads {
    /// Number of messages to ask for next.
    count: usize,
}

impl Reads {
    pub(in crate::backend::redis) fn new() -> Self {
        Self { count: FIRST }
    }

    /// Returns the number of messages to ask for.
    pub(in crate::backend::redis) fn count(&self, limit: LineLimit) -> usize {
        self.count.min(limit.messages())
    }

    /// Returns the command whose answer [`read`](Self::read) reads.
    pub(in crate::backend::redis) fn command(&self, queue: &str, limit: LineLimit) -> Cmd {
        oldest(queue, self.count(limit))
    }

    /// Returns the messages that lie within the bounds, the oldest first; at least one, if there is any.
    ///
    /// Returns `None` where more would lie within them than were asked for: then the queue is to be read again.
    ///
    /// # Errors
    /// [`BadReply`] where the answer is no list of messages.
    pub(in crate::backend::redis) fn read(
        &mut self,
        answer: Value,
        limit: LineLimit,
    ) -> Result<Option<Vec<Vec<u8>>>, BadReply> {
        let asked = self.count(limit);
        // Redis answers with the newest first.
        let read = reply::list(answer)?.into_iter().rev().map(reply::bytes);
        let mut messages = read.collect::<Result<Vec<_>, _>>()?;
        let (all, mut bytes, mut fitting) = (messages.len(), 0, 0);
        for message in &messages {
            bytes += message.len();
            if bytes > limit.bytes() && fitting > 0 {
                break;
            }
            fitting += 1;
        }
        let is_whole = fitting < all || all < asked || asked >= limit.messages();
        if let Some(mean) = bytes.checked_div(all.min(fitting + 1)) {
            // One more than fit, which shows that no more do.
            let likely = limit.bytes() / mean.max(1) + 1;
            self.count = if is_whole { likely } else { likely.max(2 * asked) };
        }
        messages.truncate(fitting);
        Ok(is_whole.then_some(messages))
    }
}

/// Returns the command that reads the oldest messages of a queue, the newest of them first.
pub(in crate::backend::redis) fn oldest(queue: &str, count: usize) -> Cmd {
    let mut command = Cmd::with_capacity(4, queue.len() + 16);
    // Negative: positions from the tail.
    let first = -i64::try_from(count).unwrap_or(i64::MAX);
    command.arg("LRANGE").arg(queue).arg(first).arg("-1");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a queue of messages of these sizes, the oldest first. Returns how many were taken, and what each read asked for.
    fn take(reads: &mut Reads, sizes: &[usize], limit: LineLimit) -> (usize, Vec<usize>) {
        let mut asked = Vec::new();
        loop {
            let count = reads.count.min(limit.messages());
            asked.push(count);
            let answer = sizes[..count.min(sizes.len())].iter().rev().map(|size| Value::BulkString(vec![b'x'; *size]));
            if let Some(messages) = reads.read(Value::Array(answer.collect()), limit).unwrap() {
                assert!(messages.iter().map(Vec::len).eq(sizes[..messages.len()].iter().copied()), "the oldest first");
                return (messages.len(), asked);
            }
        }
    }

    #[test]
    fn a_read_asks_for_what_fits_by_the_size_of_the_messages_before() {
        let limit = LineLimit::new(100, 10_000);
        let mut reads = Reads::new();
        assert_eq!(take(&mut reads, &[], limit), (0, vec![10]));
        assert_eq!(take(&mut reads, &[50; 300], limit), (100, vec![10, 100]));
        assert_eq!(take(&mut reads, &[50; 300], limit), (100, vec![100]));
        assert_eq!(take(&mut reads, &[50; 3], limit), (3, vec![100]));
        // They become larger: once too many are read.
        assert_eq!(take(&mut reads, &[1000; 300], limit), (10, vec![100]));
        assert_eq!(take(&mut reads, &[1000; 300], limit), (10, vec![11]));
        // They become smaller.
        assert_eq!(take(&mut reads, &[10; 300], limit), (100, vec![11, 100]));
    }

    #[test]
    fn one_message_is_always_taken() {
        let limit = LineLimit::new(100, 10);
        let mut reads = Reads::new();
        assert_eq!(take(&mut reads, &[1000; 20], limit), (1, vec![10]));
        assert_eq!(take(&mut reads, &[1000; 20], limit), (1, vec![1, 2]));
        assert_eq!(take(&mut reads, &[0; 20], LineLimit::new(1, 1)), (1, vec![1]));
    }

    #[test]
    fn as_many_are_taken_as_the_bounds_allow() {
        for _ in 0..1000 {
            let limit = LineLimit::new(fastrand::usize(1..200), fastrand::usize(1..5000));
            let mut reads = Reads::new();
            for _ in 0..5 {
                let largest = [10, 100, 1000][fastrand::usize(0..3)];
                let sizes: Vec<_> = (0..fastrand::usize(0..300)).map(|_| fastrand::usize(0..largest)).collect();
                let mut sum = 0;
                let fits = |size: &&usize| {
                    sum += **size;
                    sum <= limit.bytes()
                };
                let fitting = sizes.iter().take_while(fits).count().max(1).min(limit.messages()).min(sizes.len());
                let (taken, asked) = take(&mut reads, &sizes, limit);
                assert_eq!(taken, fitting, "{limit:?} {sizes:?}");
                assert!(asked.len() < 10, "{asked:?}");
            }
        }
    }
}

//! [`Reads`]: plain reads of the oldest messages of one queue, within bounds in messages and in bytes.
//!
//! Redis cannot bound a plain read in bytes. Therefore a read asks for the number of messages that fit by the size of
//! those read before. The read is repeated with a larger number where more would have fitted.

use redis::{Cmd, Value};

use crate::backend::redis::reply::{self, BadReply};
use crate::backend::redis::tail::oldest;
use crate::backend::{Behind, LineLimit};

/// Number of messages that the first read asks for. Nothing is known about their size yet. Each may be as large as
/// [`Config::message_max_bytes`](crate::Config::message_max_bytes) allows.
const FIRST: usize = 10;

/// Size of the messages of one queue, learned from its reads.
#[derive(Debug)]
pub(in crate::backend::redis) struct Reads {
    /// Number of messages for the next read.
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
    pub(in crate::backend::redis) fn command(&self, queue: &str, behind: Option<&Behind>, limit: LineLimit) -> Cmd {
        oldest(queue, passed_over(behind), self.count(limit))
    }

    /// Returns the messages that lie within the bounds, the oldest first. Returns at least one, if there is any.
    ///
    /// Returns `None` where more would lie within the bounds than the read asked for. The queue must then be read
    /// again.
    ///
    /// # Errors
    /// [`BadReply`] where the answer is no list of messages.
    pub(in crate::backend::redis) fn read(
        &mut self,
        answer: Value,
        behind: Option<&Behind>,
        limit: LineLimit,
    ) -> Result<Option<Read>, BadReply> {
        let asked = self.count(limit);
        // Redis answers with the newest first.
        let mut read = reply::list(answer)?.into_iter().rev().map(reply::bytes);
        if let Some(Behind { last, .. }) = behind
            && !read.next().transpose()?.is_some_and(|message| last.matches(&message))
        {
            return Ok(Some(Read { messages: Vec::new(), has_more: false, changed: true }));
        }
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
            // One more than fits: reading it shows that no more fit.
            let likely = limit.bytes() / mean.max(1) + 1;
            self.count = if is_whole { likely } else { likely.max(2 * asked) };
        }
        let has_more = fitting < all || all >= asked;
        messages.truncate(fitting);
        Ok(is_whole.then_some(Read { messages, has_more, changed: false }))
    }
}

/// Answer to a read.
#[derive(Debug, Default)]
pub(in crate::backend::redis) struct Read {
    pub(in crate::backend::redis) messages: Vec<Vec<u8>>,
    /// Set where more messages may be queued behind these.
    pub(in crate::backend::redis) has_more: bool,
    /// Set where the messages to pass over are not there.
    pub(in crate::backend::redis) changed: bool,
}

/// Returns the number of messages that a read passes over.
pub(in crate::backend::redis) fn passed_over(behind: Option<&Behind>) -> usize {
    behind.map_or(0, |behind| behind.count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Mark;

    /// Reads a queue of messages of these sizes, the oldest first. Returns the number taken, and the number that each
    /// read asked for.
    fn take(reads: &mut Reads, sizes: &[usize], limit: LineLimit) -> (usize, Vec<usize>) {
        let mut asked = Vec::new();
        loop {
            let count = reads.count.min(limit.messages());
            asked.push(count);
            let answer = sizes[..count.min(sizes.len())].iter().rev().map(|size| Value::BulkString(vec![b'x'; *size]));
            if let Some(Read { messages, has_more, .. }) =
                reads.read(Value::Array(answer.collect()), None, limit).unwrap()
            {
                assert!(has_more || messages.len() == sizes.len());
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
        // The messages become larger: too many are read once.
        assert_eq!(take(&mut reads, &[1000; 300], limit), (10, vec![100]));
        assert_eq!(take(&mut reads, &[1000; 300], limit), (10, vec![11]));
        // The messages become smaller.
        assert_eq!(take(&mut reads, &[10; 300], limit), (100, vec![11, 100]));
    }

    #[test]
    fn a_read_behind_others_begins_with_the_newest_of_them() {
        let (limit, mut reads) = (LineLimit::new(100, 1000), Reads::new());
        let behind = Behind { count: 2, last: Mark::of(b"b") };
        let command = reads.command("q", Some(&behind), limit);
        assert_eq!(command.get_packed_command(), oldest("q", 2, FIRST).get_packed_command());
        assert!(String::from_utf8(command.get_packed_command()).unwrap().contains("\r\n-12\r\n$2\r\n-2\r\n"));
        let mut read = |answer: &[&[u8]]| {
            let answer = answer.iter().map(|message| Value::BulkString(message.to_vec())).collect();
            reads.read(Value::Array(answer), Some(&behind), limit).unwrap().unwrap()
        };
        let Read { messages, has_more, changed } = read(&[b"d", b"c", b"b"]);
        assert_eq!((messages, has_more, changed), (vec![b"c".to_vec(), b"d".to_vec()], false, false));
        assert!(read(&[b"b"]).messages.is_empty());
        for other in [vec![], vec![&b"c"[..]], vec![b"b", b"c"]] {
            let Read { messages, changed, .. } = read(&other);
            assert!(changed && messages.is_empty(), "{other:?}");
        }
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

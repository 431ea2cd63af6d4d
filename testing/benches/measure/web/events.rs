//! [`Decoder`]: the events of a response, found in one pass over its bytes.

/// Event of a stream, as far as the clients look at it.
#[derive(Debug)]
pub(super) struct Event<'a> {
    pub(super) id: Option<&'a [u8]>,
    /// Time that the client is to wait before its next stream, in milliseconds.
    pub(super) retry: Option<&'a [u8]>,
    /// Empty in priming events and comments.
    pub(super) data: &'a [u8],
    /// All of it, with the empty line at its end.
    pub(super) text: &'a [u8],
}

/// Place within a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    /// In a body without chunks, which ends with its connection.
    None,
    /// In the line of a size, with the digits so far.
    Size(usize),
    /// So many bytes before the end of a chunk.
    Data(usize),
    /// In the line end behind a chunk.
    End,
    /// In the empty line behind the last chunk.
    Last,
    Over,
}

/// Decodes one response that arrives in pieces.
#[derive(Debug)]
pub(super) struct Decoder {
    chunk: Chunk,
    /// Beginning of an event whose end has not arrived.
    rest: Vec<u8>,
}

impl Decoder {
    pub(super) fn new(is_chunked: bool) -> Self {
        let chunk = if is_chunked { Chunk::Size(0) } else { Chunk::None };
        Self { chunk, rest: Vec::new() }
    }

    /// Returns whether a chunked body has ended.
    pub(super) fn is_over(&self) -> bool {
        self.chunk == Chunk::Over
    }

    /// Takes bytes of the body, and gives each event that is whole with them.
    pub(super) fn push(&mut self, mut bytes: &[u8], each: &mut impl FnMut(Event<'_>)) {
        while let Some(byte) = bytes.first() {
            match self.chunk {
                Chunk::None => return self.events(bytes, each),
                Chunk::Data(left) => {
                    let (data, behind) = bytes.split_at(left.min(bytes.len()));
                    self.events(data, each);
                    bytes = behind;
                    self.chunk = if left == data.len() { Chunk::End } else { Chunk::Data(left - data.len()) };
                    continue;
                }
                Chunk::Size(0) if *byte == b'\n' => self.chunk = Chunk::Last,
                Chunk::Size(size) if *byte == b'\n' => self.chunk = Chunk::Data(size),
                Chunk::Size(size) => {
                    let digit = char::from(*byte).to_digit(16);
                    self.chunk = Chunk::Size(digit.map_or(size, |digit| size * 16 + digit as usize));
                }
                Chunk::End if *byte == b'\n' => self.chunk = Chunk::Size(0),
                Chunk::Last if *byte == b'\n' => self.chunk = Chunk::Over,
                Chunk::End | Chunk::Last => {}
                Chunk::Over => return,
            }
            bytes = &bytes[1..];
        }
    }

    fn events(&mut self, data: &[u8], each: &mut impl FnMut(Event<'_>)) {
        if self.rest.is_empty() {
            let passed = scan(data, each);
            self.rest.extend_from_slice(&data[passed..]);
        } else {
            self.rest.extend_from_slice(data);
            let passed = scan(&self.rest, each);
            self.rest.drain(..passed);
        }
        if self.rest.is_empty() {
            // Of ten thousand streams each would keep its own.
            self.rest = Vec::new();
        }
    }
}

/// Gives each whole event of a text, and returns the length of all of them.
fn scan(text: &[u8], each: &mut impl FnMut(Event<'_>)) -> usize {
    let (mut begin, mut line) = (0, 0);
    let mut event = Event { id: None, retry: None, data: &[], text: &[] };
    while let Some(length) = text[line..].iter().position(|byte| *byte == b'\n') {
        let field = &text[line..line + length];
        line += length + 1;
        if field.is_empty() {
            each(Event { text: &text[begin..line], ..event });
            event = Event { id: None, retry: None, data: &[], text: &[] };
            begin = line;
        } else if let Some(data) = field.strip_prefix(b"data: ") {
            event.data = data;
        } else if let Some(id) = field.strip_prefix(b"id: ") {
            event.id = Some(id);
        } else if let Some(retry) = field.strip_prefix(b"retry: ") {
            event.retry = Some(retry);
        }
    }
    begin
}

//! [`Connection`]: HTTP/1.1 by hand, with no more work than the bytes need.

use std::cell::RefCell;
use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::events::{Decoder, Event};

/// Most bytes that are read at once.
const READ: usize = 256 * 1024;

thread_local! {
    /// Buffer for the next bytes of any connection: ten thousand would each keep their own.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

/// A connection to a server.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// Bytes that came with the head of a response, and belong to its body.
    behind_head: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, behind_head: Vec::new() })
    }

    pub(super) async fn send(&mut self, request: &str) -> Result<()> {
        self.stream.write_all(request.as_bytes()).await
    }

    /// Returns the head of the next response.
    pub(super) async fn head(&mut self) -> Result<String> {
        let mut read = Vec::new();
        loop {
            self.read(|bytes| read.extend_from_slice(bytes)).await?;
            if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
                self.behind_head = read.split_off(end + 4);
                return String::from_utf8(read).map_err(Error::other);
            }
        }
    }

    /// Reads the body behind a head to its end. One that has no chunks ends with the connection.
    pub(super) async fn events(&mut self, head: &str, mut each: impl FnMut(Event<'_>)) -> Result<()> {
        let mut decoder = Decoder::new(header(head, "transfer-encoding").is_some());
        decoder.push(&std::mem::take(&mut self.behind_head), &mut each);
        while !decoder.is_over() {
            self.read(|bytes| decoder.push(bytes, &mut each)).await?;
        }
        Ok(())
    }

    /// Sends a request, and returns the head of its response, which is read to its end.
    pub(crate) async fn exchange(&mut self, request: &str) -> Result<String> {
        self.send(request).await?;
        let head = self.head().await?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        if !status.starts_with('2') {
            return Err(Error::other(format!("{status} to {request:?}")));
        }
        match header(&head, "content-length") {
            Some(length) => {
                let mut left = length.parse::<usize>().map_err(Error::other)?.saturating_sub(self.behind_head.len());
                while left > 0 {
                    self.read(|bytes| left = left.saturating_sub(bytes.len())).await?;
                }
                self.behind_head.clear();
            }
            None if header(&head, "transfer-encoding").is_some() => self.events(&head, |_| {}).await?,
            None => {}
        }
        Ok(head)
    }

    /// Gives the next bytes. Their end is an error.
    async fn read(&mut self, take: impl FnOnce(&[u8])) -> Result<()> {
        let mut take = Some(take);
        loop {
            self.stream.readable().await?;
            let read = BUFFER.with_borrow_mut(|buffer| {
                let length = self.stream.try_read(buffer)?;
                match take.take() {
                    Some(take) if length > 0 => take(&buffer[..length]),
                    _ => return Err(Error::from(ErrorKind::UnexpectedEof)),
                }
                Ok(())
            });
            match read {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }
}

/// Returns the value of a header, by its name in lower case.
pub(super) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let values = head.lines().filter_map(|line| line.split_once(':'));
    values.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}

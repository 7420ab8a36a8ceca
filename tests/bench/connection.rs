//! HTTP/1.1 with the least work: one message at a time, found by the end of its head.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use memchr::memmem;

/// The largest message that is read.
const BUFFER_BYTES: usize = 16 * 1024;
const HEAD_END: &[u8] = b"\r\n\r\n";
const LENGTH: &[u8] = b"content-length:";

/// A message as it lies in the buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    /// The request or status line, and all headers.
    pub(crate) head: &'a [u8],
    pub(crate) body: &'a [u8],
}

impl<'a> Message<'a> {
    /// The message that the bytes begin with; none while its end is missing. A message without a length has no body.
    pub(crate) fn find(bytes: &'a [u8]) -> io::Result<Option<Self>> {
        let Some(end) = memmem::find(bytes, HEAD_END) else {
            return Ok(None);
        };
        let (head, rest) = bytes.split_at(end + HEAD_END.len());
        let length = length(head)?;
        Ok(rest.get(..length).map(|body| Self { head, body }))
    }

    /// The code of an answer; 0 if there is none.
    pub(crate) fn status(&self) -> u16 {
        let digits = self.head.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
        digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }
}

fn length(head: &[u8]) -> io::Result<usize> {
    let mut from = 0;
    for end in memchr::memchr_iter(b'\n', head) {
        let line = &head[from..end];
        from = end + 1;
        if line.get(..LENGTH.len()).is_some_and(|name| name.eq_ignore_ascii_case(LENGTH)) {
            let text = std::str::from_utf8(&line[LENGTH.len()..]).unwrap_or_default();
            return text.trim().parse().map_err(|_| io::Error::new(ErrorKind::InvalidData, "a bad length"));
        }
    }
    Ok(0)
}

/// What one read brought.
#[derive(Debug)]
pub(crate) enum Received<'a> {
    /// Not enough for a message yet.
    Nothing,
    /// The other side has closed.
    Closed,
    Message(Message<'a>),
}

/// A connection that never blocks, on which at most one request is under way.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Box<[u8]>,
    filled: usize,
}

impl Connection {
    pub(crate) fn open(to: SocketAddr) -> io::Result<Self> {
        TcpStream::connect(to).and_then(Self::new)
    }

    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, buffer: vec![0; BUFFER_BYTES].into_boxed_slice(), filled: 0 })
    }

    /// Reads once. A short read has emptied the socket, so that an edge-triggered poll tells of what comes later.
    pub(crate) fn receive(&mut self) -> io::Result<Received<'_>> {
        match self.stream.read(&mut self.buffer[self.filled..]) {
            Ok(0) => return Ok(Received::Closed),
            Ok(read) => self.filled += read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Received::Nothing),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(Received::Closed),
            Err(error) => return Err(error),
        }
        let filled = self.filled;
        let Some(message) = Message::find(&self.buffer[..filled])? else {
            if filled == self.buffer.len() {
                return Err(io::Error::new(ErrorKind::InvalidData, "a message is larger than the buffer"));
            }
            return Ok(Received::Nothing);
        };
        if message.head.len() + message.body.len() != filled {
            return Err(io::Error::new(ErrorKind::InvalidData, "a second message came before the answer"));
        }
        self.filled = 0;
        Ok(Received::Message(message))
    }

    /// Writes at once. A socket on which nothing else is under way has room for a message of this size.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.stream.write(bytes)?;
        if written == bytes.len() {
            return Ok(());
        }
        Err(io::Error::new(ErrorKind::WriteZero, "the socket has no room for one message"))
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_found_when_it_is_whole() {
        let whole = b"HTTP/1.1 400 Bad Request\r\nDate: x\r\nContent-Length: 3\r\n\r\nabc";
        for end in 0..whole.len() {
            assert_eq!(Message::find(&whole[..end]).unwrap(), None, "{end}");
        }
        let message = Message::find(whole).unwrap().unwrap();
        assert_eq!((message.body, message.status()), (&b"abc"[..], 400));
    }

    #[test]
    fn a_message_without_length_has_no_body() {
        let message = Message::find(b"HTTP/1.1 202 Accepted\r\n\r\n").unwrap().unwrap();
        assert_eq!((message.body.len(), message.status()), (0, 202));
    }

    #[test]
    fn a_bad_length_is_an_error() {
        assert!(Message::find(b"HTTP/1.1 202 Accepted\r\ncontent-length: x\r\n\r\n").is_err());
    }
}

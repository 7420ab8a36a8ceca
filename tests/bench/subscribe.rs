//! The subscriber: one thread, plain sockets, one write for each read.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

use clap::Args;
use http::StatusCode;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::retry_on_intr;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};
use serde_json::json;

use crate::connection::{Connection, Message, Received};
use crate::failure::Failure;
use crate::tally::Tally;
use crate::{clock, request};

/// The most requests that one poll brings.
const POLL_EVENTS: usize = 256;
/// The most connections at once.
const MAX_CONNECTIONS: usize = 4096;
/// The connections that wait to be accepted.
const BACKLOG: i32 = 1024;
const LISTENER: u64 = u64::MAX;
const CONTROL: u64 = u64::MAX - 1;

#[derive(Debug, Args)]
pub(crate) struct Subscribe {
    /// Where it listens; port 0 takes any free one. The address is printed as the first line.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// The code of every answer.
    #[arg(long, value_name = "CODE", default_value_t = 202, conflicts_with = "never")]
    answer: u16,

    /// Never answer.
    #[arg(long)]
    never: bool,

    /// Refuse connections until the line `listen` comes.
    #[arg(long)]
    away: bool,
}

#[derive(Debug)]
struct Subscriber {
    epoll: rustix::fd::OwnedFd,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// What is answered; nothing where no request is ever answered.
    answer: Option<Vec<u8>>,
    tally: Tally,
}

/// Takes events until the standard input ends.
pub(crate) fn subscribe(arguments: &Subscribe) -> Result<(), Failure> {
    let listener = bind(arguments.listen).map_err(Failure::os("listening"))?;
    listener.set_nonblocking(true).map_err(Failure::io("listening"))?;
    let address = listener.local_addr().map_err(Failure::io("listening"))?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(Failure::os("making a poll"))?;
    epoll::add(&epoll, std::io::stdin(), EventData::new_u64(CONTROL), EventFlags::IN)
        .map_err(Failure::os("polling the standard input, which must be a pipe or a terminal"))?;
    crate::print(&format!("{}\n", json!({"listening": address.to_string()})))?;
    // The reason that every server gives: clients keep another one for whoever may ask for it.
    let reason = StatusCode::from_u16(arguments.answer).ok().and_then(|status| status.canonical_reason());
    let reason = reason.unwrap_or_default();
    let answer = format!("HTTP/1.1 {} {reason}\r\ncontent-length: 0\r\n\r\n", arguments.answer);
    let mut subscriber = Subscriber {
        epoll,
        listener,
        connections: Vec::new(),
        free: Vec::new(),
        answer: (!arguments.never).then(|| answer.into_bytes()),
        tally: Tally::new(0),
    };
    if !arguments.away {
        subscriber.listen()?;
    }
    subscriber.take_events()
}

/// Takes an address: whoever connects is refused until somebody listens at it.
fn bind(address: SocketAddr) -> rustix::io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    net::bind(&socket, &address)?;
    Ok(TcpListener::from(socket))
}

impl Subscriber {
    fn listen(&self) -> Result<(), Failure> {
        net::listen(&self.listener, BACKLOG).map_err(Failure::os("listening"))?;
        epoll::add(&self.epoll, &self.listener, EventData::new_u64(LISTENER), EventFlags::IN)
            .map_err(Failure::os("polling the listener"))
    }

    fn take_events(&mut self) -> Result<(), Failure> {
        let mut events = Vec::with_capacity(POLL_EVENTS);
        let mut line = Vec::new();
        loop {
            events.clear();
            retry_on_intr(|| epoll::wait(&self.epoll, spare_capacity(&mut events), None))
                .map_err(Failure::os("polling the connections"))?;
            for event in &events {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    CONTROL => {
                        if !self.control(&mut line)? {
                            return Ok(());
                        }
                    }
                    index => self.receive(index as usize)?,
                }
            }
        }
    }

    fn accept(&mut self) -> Result<(), Failure> {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(Failure::io("accepting a connection")(error)),
        };
        let index = self.free.pop().unwrap_or(self.connections.len());
        if index >= MAX_CONNECTIONS {
            // Dropped, and so closed: whoever sends this many at once measures something else.
            return Ok(());
        }
        let connection = Connection::new(stream).map_err(Failure::io("accepting a connection"))?;
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&self.epoll, &connection, EventData::new_u64(index as u64), flags)
            .map_err(Failure::os("polling a connection"))?;
        if index == self.connections.len() {
            self.connections.push(None);
        }
        self.connections[index] = Some(connection);
        Ok(())
    }

    fn receive(&mut self, index: usize) -> Result<(), Failure> {
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_mut) else {
            return Ok(());
        };
        match connection.receive().map_err(Failure::io("reading a request"))? {
            Received::Nothing => {}
            Received::Closed => {
                self.connections[index] = None;
                self.free.push(index);
            }
            Received::Message(message) => {
                self.tally.note(trigger(&message), request::read(message.body), clock::now());
                if let Some(answer) = &self.answer {
                    // A sender that went away meanwhile is told by the next read.
                    let _ = connection.send(answer);
                }
            }
        }
        Ok(())
    }

    /// Answers the commands that came. False once there will be none any more.
    fn control(&mut self, line: &mut Vec<u8>) -> Result<bool, Failure> {
        let mut bytes = [0; 256];
        // Not through the buffer of the standard library, of whose content the poll would not tell.
        let read =
            rustix::io::read(std::io::stdin(), &mut bytes).map_err(Failure::os("reading a command"))?;
        for byte in &bytes[..read] {
            if *byte != b'\n' {
                line.push(*byte);
                continue;
            }
            let command = String::from_utf8_lossy(line).into_owned();
            line.clear();
            crate::print(&format!("{}\n", self.obey(&command)))?;
        }
        Ok(read > 0)
    }

    fn obey(&mut self, command: &str) -> serde_json::Value {
        match command.split_once(' ').unwrap_or((command, "")) {
            ("count", "") => json!(self.tally.distinct()),
            ("report", "") => json!(self.tally.received()),
            ("reset", run) if run.parse::<u32>().is_ok() => {
                self.tally = Tally::new(run.parse().unwrap_or_default());
                json!(true)
            }
            ("listen", "") => match self.listen() {
                Ok(()) => json!(true),
                Err(failure) => json!({"error": failure.to_string()}),
            },
            _ => json!({"error": "the commands are count, report, listen and reset RUN"}),
        }
    }
}

/// The trigger that a request is for: its path is its number.
fn trigger(message: &Message<'_>) -> usize {
    let path = message.head.strip_prefix(b"POST /").unwrap_or_default();
    let digits = path.iter().take_while(|byte| byte.is_ascii_digit());
    let number = digits.fold(None, |number: Option<usize>, digit| {
        Some(number.unwrap_or(0).saturating_mul(10).saturating_add(usize::from(digit - b'0')))
    });
    number.unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_names_the_trigger() {
        for (head, expected) in [
            ("POST /0 HTTP/1.1\r\n\r\n", 0),
            ("POST /12 HTTP/1.1\r\n\r\n", 12),
            ("POST / HTTP/1.1\r\n\r\n", usize::MAX),
            ("GET /1 HTTP/1.1\r\n\r\n", usize::MAX),
        ] {
            assert_eq!(trigger(&Message { head: head.as_bytes(), body: b"" }), expected, "{head}");
        }
    }
}

//! The events of these tests: all of an event follows from its number, so that a change of it is seen.

use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::wire::Message;

/// Where events are sent.
const PATH: &str = "/default/default";

/// How many keys the events have, in the order of their numbers.
pub(crate) const KEYS: u64 = 100;

/// The data of an event: between 64 bytes and 4 KiB, and not all alike.
pub(crate) fn data(number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let length = 64 + (state >> 40) % 4032;
    let mut data = format!("{number} ").into_bytes();
    while (data.len() as u64) < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.push(b'a' + (state % 26) as u8);
    }
    data
}

/// A request that posts an event in binary mode.
pub(crate) fn request(to: SocketAddr, number: u64) -> Vec<u8> {
    let data = data(number);
    let mut request = format!(
        "POST {PATH} HTTP/1.1\r\nhost: {to}\r\nce-specversion: 1.0\r\nce-id: {number}\r\nce-source: /crash\r\n\
         ce-type: crash\r\nce-twice: {}\r\nce-partitionkey: {}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n",
        number.wrapping_mul(2),
        number % KEYS,
        data.len()
    )
    .into_bytes();
    request.extend_from_slice(&data);
    request
}

/// A request that posts a batch of events with 1 KiB of data each.
pub(crate) fn batch(to: SocketAddr, numbers: std::ops::Range<u64>, filler: &str) -> Vec<u8> {
    let mut body = String::from("[");
    for number in numbers {
        let comma = if body.len() > 1 { "," } else { "" };
        let _ = write!(
            body,
            "{comma}{{\"specversion\":\"1.0\",\"id\":\"{number}\",\"source\":\"/crash\",\"type\":\"bulk\",\
             \"datacontenttype\":\"text/plain\",\"data\":\"{filler}\"}}"
        );
    }
    body.push(']');
    format!(
        "POST {PATH} HTTP/1.1\r\nhost: {to}\r\ncontent-type: application/cloudevents-batch+json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The number of an event that was delivered, where it is one of [`request`] or [`batch`] and unchanged.
pub(crate) fn read(delivered: &Message) -> Result<u64, String> {
    let header = |name: &str| delivered.header(name).unwrap_or_default();
    let number: u64 = header("ce-id").parse().map_err(|_| format!("a changed id: {delivered:?}"))?;
    let whole = match header("ce-type") {
        "bulk" => !delivered.body.is_empty(),
        "crash" => {
            header("ce-twice") == number.wrapping_mul(2).to_string()
                && header("ce-source") == "/crash"
                && header("content-type") == "text/plain"
                && delivered.body == data(number)
        }
        _ => false,
    };
    if whole { Ok(number) } else { Err(format!("event {number} was changed: {delivered:?}")) }
}

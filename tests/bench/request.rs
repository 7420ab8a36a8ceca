//! The event that is sent, ready-made: only its id, its number and its time are written anew for each, and its type where
//! there are several.

use std::net::SocketAddr;

/// The size of an event's data.
pub(crate) const DATA_BYTES: usize = 1024;

/// A number as text in hexadecimal digits.
const DIGITS: usize = 16;
const DATA_START: &[u8] = b"{\"number\":\"";
const BETWEEN: &[u8] = b"\",\"sent\":\"";
const BEFORE_FILLER: &[u8] = b"\",\"filler\":\"";
const DATA_END: &[u8] = b"\"}";
const NUMBER_AT: usize = DATA_START.len();
const SENT_AT: usize = NUMBER_AT + DIGITS + BETWEEN.len();

/// The source of every event.
pub(crate) const SOURCE: &str = "/waypost/bench";

/// From the type of one event to that of the next: prime to the numbers of types that are measured, so that all come in
/// turn, and far, so that no two that follow one another are near in any order.
const TYPE_STEP: u64 = 7_919;

/// A request of the generator.
#[derive(Debug)]
pub(crate) struct Request {
    bytes: Vec<u8>,
    id_at: usize,
    data_at: usize,
    /// Where the number of the type is, and how many types there are; none where all events have one.
    types: Option<(usize, u64)>,
}

/// The type with this number.
pub(crate) fn event_type(number: u64) -> String {
    format!("dev.waypost.bench.{number:016x}")
}

impl Request {
    /// A request in binary mode with 1 KiB of JSON. With a number of types it has each of [`event_type`] in turn.
    pub(crate) fn new(to: SocketAddr, path: &str, types: Option<u32>) -> Self {
        let zeros = "0".repeat(DIGITS);
        let kind = if types.is_some() { event_type(0) } else { "dev.waypost.bench".to_owned() };
        let before_id = format!("POST {path} HTTP/1.1\r\nhost: {to}\r\nce-specversion: 1.0\r\nce-id: ");
        let before_time = format!("\r\nce-source: {SOURCE}\r\nce-type: {kind}");
        let after_id = format!(
            "{before_time}\r\nce-time: 2026-01-01T00:00:00Z\r\n\
             content-type: application/json\r\ncontent-length: {DATA_BYTES}\r\n\r\n"
        );
        let id_at = before_id.len();
        let type_end = id_at + DIGITS + before_time.len();
        let types = types.map(|types| (type_end - DIGITS, u64::from(types.max(1))));
        let mut bytes = [before_id.as_bytes(), zeros.as_bytes(), after_id.as_bytes()].concat();
        let data_at = bytes.len();
        for part in [DATA_START, zeros.as_bytes(), BETWEEN, zeros.as_bytes(), BEFORE_FILLER] {
            bytes.extend_from_slice(part);
        }
        bytes.resize(data_at + DATA_BYTES - DATA_END.len(), b'x');
        bytes.extend_from_slice(DATA_END);
        Self { bytes, id_at, data_at, types }
    }

    /// The bytes of the event with this number, sent at this time.
    pub(crate) fn event(&mut self, number: u64, sent: u64) -> &[u8] {
        write_digits(&mut self.bytes[self.id_at..self.id_at + DIGITS], number);
        if let Some((at, types)) = self.types {
            let number = (number & u64::from(u32::MAX)) * TYPE_STEP % types;
            write_digits(&mut self.bytes[at..at + DIGITS], number);
        }
        let data = &mut self.bytes[self.data_at..];
        write_digits(&mut data[NUMBER_AT..NUMBER_AT + DIGITS], number);
        write_digits(&mut data[SENT_AT..SENT_AT + DIGITS], sent);
        &self.bytes
    }
}

/// Number and send time of an event, read from its data. None where the data is not that of [`Request`].
pub(crate) fn read(data: &[u8]) -> Option<(u64, u64)> {
    if data.len() != DATA_BYTES || !data.starts_with(DATA_START) || !data.ends_with(DATA_END) {
        return None;
    }
    Some((read_digits(&data[NUMBER_AT..NUMBER_AT + DIGITS])?, read_digits(&data[SENT_AT..SENT_AT + DIGITS])?))
}

fn write_digits(to: &mut [u8], number: u64) {
    for (place, byte) in to.iter_mut().rev().enumerate() {
        *byte = b"0123456789abcdef"[((number >> (4 * place)) & 0xf) as usize];
    }
}

fn read_digits(from: &[u8]) -> Option<u64> {
    from.iter().try_fold(0, |number: u64, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Message;

    #[test]
    fn what_is_written_is_read_again() {
        let mut request = Request::new(SocketAddr::from(([127, 0, 0, 1], 80)), "/bench/default", None);
        for (number, sent) in [(0, 0), (1 << 32 | 7, 123_456_789), (u64::MAX, 1)] {
            let bytes = request.event(number, sent);
            let message = Message::find(bytes).unwrap().unwrap();
            assert_eq!(read(message.body), Some((number, sent)));
            assert!(serde_json::from_slice::<serde_json::Value>(message.body).is_ok());
            let head = String::from_utf8_lossy(bytes);
            assert!(head.contains(&format!("ce-id: {number:016x}\r\n")), "{head}");
        }
    }

    #[test]
    fn types_come_in_turn() {
        let mut request = Request::new(SocketAddr::from(([127, 0, 0, 1], 80)), "/bench/default", Some(10));
        let mut seen: Vec<_> = (0..10)
            .map(|place| {
                let bytes = request.event(3 << 32 | place, 1);
                let head = String::from_utf8_lossy(Message::find(bytes).unwrap().unwrap().head).into_owned();
                let kind = head.lines().find_map(|line| line.strip_prefix("ce-type: ")).unwrap().to_owned();
                assert!(head.contains("\r\nce-time: 2026"), "{head}");
                kind
            })
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..10).map(event_type).collect::<Vec<_>>());
    }

    #[test]
    fn other_data_is_not_read() {
        assert_eq!(read(b"{}"), None);
        assert_eq!(read(&[b'x'; DATA_BYTES]), None);
    }
}

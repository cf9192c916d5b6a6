//! Server-sent events, read from bytes that come in any pieces (WHATWG HTML, section 9.2).

/// Bytes of one event; more means that the other side is broken.
const MAX_EVENT_BYTES: usize = 4 << 20;

/// One event: its data, and the other lines as they stood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Lines that are not data: names, identities, comments.
    pub other: Vec<String>,
    /// The data lines, joined by line breaks; `None` if there were none.
    pub data: Option<String>,
}

/// Why a stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// An event is longer than the limit.
    TooLong,
    /// A line is not UTF-8.
    NotUtf8,
}

/// Collects bytes until an event is complete.
#[derive(Default)]
pub struct Parser {
    line: Vec<u8>,
    event: Event,
    size: usize,
    /// The last byte was a carriage return: a line feed after it belongs to it.
    after_return: bool,
}

impl Parser {
    /// Takes bytes; returns the events that they complete.
    ///
    /// # Errors
    /// If the stream cannot be read on.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, Broken> {
        let mut events = Vec::new();
        for &byte in bytes {
            let continues_break = std::mem::take(&mut self.after_return) && byte == b'\n';
            if continues_break {
                continue;
            }
            match byte {
                b'\n' | b'\r' => {
                    self.after_return = byte == b'\r';
                    if let Some(event) = self.end_line()? {
                        events.push(event);
                    }
                }
                _ => {
                    self.size += 1;
                    if self.size > MAX_EVENT_BYTES {
                        return Err(Broken::TooLong);
                    }
                    self.line.push(byte);
                }
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Result<Option<Event>, Broken> {
        let line = String::from_utf8(std::mem::take(&mut self.line)).map_err(|_| Broken::NotUtf8)?;
        if line.is_empty() {
            self.size = 0;
            let event = std::mem::take(&mut self.event);
            return Ok((event != Event::default()).then_some(event));
        }
        match line.strip_prefix("data:").or_else(|| (line == "data").then_some("")) {
            Some(data) => {
                let data = data.strip_prefix(' ').unwrap_or(data);
                match &mut self.event.data {
                    Some(old) => {
                        old.push('\n');
                        old.push_str(data);
                    }
                    None => self.event.data = Some(data.to_owned()),
                }
            }
            None => self.event.other.push(line),
        }
        Ok(None)
    }
}

impl Event {
    /// The event as it is sent on.
    pub(in crate::proxy) fn to_bytes(&self) -> Vec<u8> {
        let mut out = String::new();
        for line in &self.other {
            out.push_str(line);
            out.push('\n');
        }
        for line in self.data.iter().flat_map(|data| data.split('\n')) {
            out.push_str("data: ");
            out.push_str(line);
            out.push('\n');
        }
        out.push('\n');
        out.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str =
        ": hi\n\nevent: x\ndata: {\"a\": \"é\"}\r\n\r\ndata: one\rdata:two\r\rdata\n\n\n\ndata: half";

    #[test]
    fn events_are_the_same_however_the_bytes_come() {
        let whole = Parser::default().push(STREAM.as_bytes()).unwrap();
        let datas: Vec<_> = whole.iter().map(|event| event.data.as_deref()).collect();
        assert_eq!(datas, [None, Some("{\"a\": \"é\"}"), Some("one\ntwo"), Some("")]);
        for size in 1..STREAM.len() {
            let mut parser = Parser::default();
            let events: Vec<Event> =
                STREAM.as_bytes().chunks(size).flat_map(|bytes| parser.push(bytes).unwrap()).collect();
            assert_eq!(events, whole, "pieces of {size}");
        }
        assert_eq!(whole[1].to_bytes(), b"event: x\ndata: {\"a\": \"\xc3\xa9\"}\n\n");
    }

    #[test]
    fn broken_streams_end() {
        assert_eq!(Parser::default().push(b"data: \xff\n"), Err(Broken::NotUtf8));
        assert_eq!(Parser::default().push(&vec![b'x'; MAX_EVENT_BYTES + 1]), Err(Broken::TooLong));
    }
}

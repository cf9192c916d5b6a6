//! Standard output of the commands, and what happens when nobody reads it any more.

use std::io::{ErrorKind, Write};

use sotto_protocol::error::{Error, Result};

/// Prints a line on standard error, as `eprintln!` does; nothing happens where that cannot be written, which is no reason
/// for a panic.
macro_rules! note {
    ($($part:tt)*) => { $crate::output::note(format_args!($($part)*)) };
}

/// Prints a line on standard error, if it can be written.
pub fn note(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Writes `bytes` to `out`, which stands for standard output, and flushes it.
///
/// # Errors
/// As [`failure`].
pub fn write(out: &mut (impl Write + ?Sized), bytes: &[u8]) -> Result<()> {
    out.write_all(bytes).and_then(|()| out.flush()).map_err(failure)
}

/// Writes `text` and a line's end to `out`, which stands for standard output, and flushes it.
///
/// # Errors
/// As [`failure`].
pub fn line(out: &mut (impl Write + ?Sized), text: &str) -> Result<()> {
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(failure)
}

/// What a failed write to standard output means: [`Error::OutputClosed`] where its reader has left, as `head` does when
/// it has enough, and [`Error::Io`] otherwise.
pub fn failure(source: std::io::Error) -> Error {
    match source.kind() {
        ErrorKind::BrokenPipe => Error::OutputClosed,
        _ => Error::Io { context: "writing to standard output".to_owned(), source },
    }
}

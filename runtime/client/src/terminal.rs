//! Text of a server that is shown on a terminal.

/// Whether `c` can drive a terminal or reorder what it shows: control characters, and the marks that turn the direction
/// of writing, with which a text can be made to read as another.
pub fn drives_terminal(c: char) -> bool {
    let turns =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns
}

//! Subtitles: SubRip (`.srt`) and WebVTT (`.vtt`). Numbers and times stay, lines of one cue are one text.

use super::Reader;
use super::unit::{Code, Node, Unit};
use crate::error::Result;

pub(super) fn read(reader: &mut Reader<'_>, bytes: Vec<u8>) -> Result<Node> {
    let text = reader.utf8(bytes)?;
    let first = reader.units.len();
    // All cues are one text: sentences go on from one to the next.
    let mut unit = Unit::new(Code::Plain);
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let is_time = |line: &str| line.contains("-->");
    let mut at = 0;
    for (index, line) in lines.iter().enumerate() {
        let bare = line.trim_end_matches(['\n', '\r']);
        // A line before a time is the cue's number, or its name if it is none.
        let is_number = lines.get(index + 1).is_some_and(|next| is_time(next))
            && bare.trim_start_matches('\u{feff}').trim().bytes().all(|byte| byte.is_ascii_digit());
        if !is_time(line) && !is_number && !bare.is_empty() {
            unit.push(at..at + bare.len(), bare);
            unit.separate("\n");
        }
        at += line.len();
    }
    reader.units.push(unit);
    Ok(Node::text(text.into_bytes(), first..reader.units.len()))
}

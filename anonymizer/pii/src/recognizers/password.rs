//! Passwords and what else lets someone in: after words for it in the languages of the lexicon, on command lines, in
//! headers, cookies, connection strings and the queries of addresses.

use regex::{Regex, RegexBuilder};

use super::{Candidate, Recognizer, before, built_in};
use crate::detect::Entity;
use crate::detect::context::is_unspaced;
use crate::lexicon::lexicon;

/// Longest value, in bytes.
const LONGEST: usize = 256;

/// Values up to white space or a quotation mark.
const VALUE: &str = r#"(?:"([^"\n]{3,128})"|'([^'\n]{3,128})'|`([^`\n]{3,128})`|“([^”\n]{3,128})”|„([^“”\n]{3,128})[“”]|«\s?([^»\n]{3,128}?)\s?»|「([^」\n]{3,128})」|([^\s"'`“”„«»「」<>]{3,128}))"#;
/// "password: ...", `password=...`, `"password": "..."`.
const ASSIGN: &str = r#"["'”»)*_\]`]{0,3}[ \t\u{a0}]{0,3}(?::=|=>|[:：=＝]|->|→)[ \t\u{a0}*_]{0,4}"#;
/// "the password for the router is ...".
const IS: &str = r#"["'”»)*_]{0,2}(?:[ \t]+(?:for|to|of|on|für|zum|zur|vom|pour|du|de|para|del|do|da|per|voor|van|do|для|от|für das|für den)[ \t][^\n.:=]{1,40}?)?(?:[ \t]+(?:is|was|ist|war|lautet|est|es|era|é|è|to|changed to|now|jetzt|reset to|sera|sarà|will be|jest|to jest|är|er|on|-|–|—)(?:[ \t]+(?:now|still|jetzt|maintenant|ahora|agora|ora|nu|set to|currently))?[ \t]*:?[ \t]*|は[、]?|是[:：]?|為|为[:：]?|은 |는 |이 |가 |[ \t]*है[ \t]*|[ \t]+هي[ \t]+|[ \t]+هو[ \t]+)"#;

/// On command lines.
const COMMANDS: &[&str] = &[
    r#"(?:\bcurl\b|\bwget\b|\bhttp\b|\bhttpie\b)[^\n]*?\s(?:-u|--user|--proxy-user|-U|-a|--auth)[ =]?["']?([^\s:"']{1,64}):([^\s"']{1,128})"#,
    r#"(?:^|\s)--?(?:password|passwd|pass|passphrase|db-password|secret|api-key|apikey|token|auth-token|access-token|http-password|ftp-password|requirepass|Password)[ =]["']?()([^\s"'<>$\[\]{}]{3,128})"#,
    r#"\b(?:mysql|mysqldump|mariadb|mysqladmin)\b[^\n]*?\s-p["']?()([^\s"'\-$]{3,64})"#,
    r#"\bsshpass\s+-p\s?["']?()([^\s"'$]{3,128})"#,
    r#"\bnet use\b[^\n]*?/user:\S+\s+()([^\s/"]{3,64})"#,
    r#"\bredis-cli\b[^\n]*?\s-a\s+["']?()([^\s"'$]{3,128})"#,
];

/// Headers, cookies and parts of connection strings whose values are keys; the value is group 1.
const KEYED: &[&str] = &[
    r#"(?i)\b(?:proxy-)?authorization["']?\s{0,2}[:=]\s{0,2}["']?(?:basic|bearer|digest|token|apikey|negotiate|aws4-hmac-sha256)\s+([^\s"',;<>]{6,2048})"#,
    r#"(?i)\b(?:x-api-key|x-auth-token|x-access-token|x-csrf-token|x-amz-security-token|api-key|apikey|ocp-apim-subscription-key|private-token|x-vault-token)["']?\s{0,2}:\s{0,2}["']?([^\s"',;<>]{8,2048})"#,
    r#"(?i)\b(?:accountkey|sharedaccesskey|sharedaccesssignature|storagekey|access[_-]?key|secret[_-]?key|instrumentationkey)\s?=\s?["']?([A-Za-z0-9+/=_%-]{8,512})"#,
    r#"(?i)[?&;](?:access_token|refresh_token|id_token|auth_token|token|api_?key|key|sig|signature|client_secret|secret|session(?:_?id)?|sid|code|auth|jwt|x-amz-signature|x-amz-security-token)=([^\s&#"'<>;]{8,1024})"#,
    r#"(?i)\b(?:sessionid|session_id|session_token|phpsessionid|phpsessid|jsessionid|connect\.sid|csrftoken|xsrf-token|refresh_token|access_token|auth_token|remember_token|sid)["']?\s?[=:]\s?["']?([A-Za-z0-9%._+/=-]{8,1024})"#,
];
/// `Cookie: a=b; c=d`.
const COOKIE: &str = r"(?i)\b(?:set-)?cookie:\s*([^\n]{3,4096})";
/// One pair of a cookie.
const PAIR: &str = r#"[^\s=;,"']{1,64}=([^\s;,"']{8,1024})"#;

/// Words that are given in place of a value, and names of attributes.
const NONE: &[&str] = &[
    "none",
    "null",
    "nil",
    "true",
    "false",
    "undefined",
    "string",
    "str",
    "required",
    "optional",
    "password",
    "passwd",
    "secret",
    "redacted",
    "hidden",
    "masked",
    "changeme",
    "xxx",
    "xxxx",
    "xxxxx",
    "xxxxxx",
    "xxxxxxxx",
    "text",
    "input",
    "yes",
    "no",
    "empty",
    "missing",
    "invalid",
    "incorrect",
    "wrong",
    "expired",
    "protected",
    "reset",
    "unset",
    "your_password",
    "your-password",
    "yourpassword",
    "mypassword",
    "path",
    "httponly",
    "secure",
    "samesite",
    "bytes",
    "bool",
    "option",
    "self",
    "default",
    "prompt",
    "stdin",
    "env",
    "file",
    "field",
    "minimum",
    "length",
    "hash",
    "hashed",
    "encrypted",
    "plaintext",
    "example",
];

/// The recognizer of passwords.
pub struct Passwords {
    assigned: Regex,
    said: Regex,
    before: Regex,
    pin: Regex,
    commands: Vec<Regex>,
    keyed: Vec<Regex>,
    cookie: Regex,
    pair: Regex,
}

impl Passwords {
    /// The recognizer.
    ///
    /// # Panics
    /// If a pattern of this file is wrong.
    #[expect(
        clippy::expect_used,
        reason = "made of the constants of this file and of the compiled-in lexicon"
    )]
    pub fn new() -> Self {
        let mut words: Vec<&str> = lexicon()
            .announced
            .iter()
            .filter(|(_, entity)| *entity == Entity::Password)
            .map(|(word, _)| word.as_str())
            .collect();
        words.sort_by_key(|word| std::cmp::Reverse(word.len()));
        let words: Vec<String> =
            words.iter().map(|word| regex::escape(word).replace(' ', r"[\s_-]{0,2}")).collect();
        let words = words.join("|");
        let build = |pattern: String| {
            RegexBuilder::new(&pattern).size_limit(64 << 20).build().expect("a pattern of this crate")
        };
        Self {
            assigned: build(format!("(?i)({words}){ASSIGN}{VALUE}")),
            said: build(format!("(?i)({words}){IS}{VALUE}")),
            before: build(format!(r#"(?i)({words})[ \t]{{1,2}}([^\s"'`<>]{{8,64}})"#)),
            pin: built_in(
                r"(?i)\b(?:pin|passcode|pincode|pin[- ]code|geheimzahl|code pin|código pin)\b(?: (?:is|ist|est|es|è|for [^\n.:]{1,24} is))?\s{0,2}[:=]?\s{0,2}(\d{4,8})\b",
            ),
            commands: COMMANDS.iter().map(|pattern| built_in(pattern)).collect(),
            keyed: KEYED.iter().map(|pattern| built_in(pattern)).collect(),
            cookie: built_in(COOKIE),
            pair: built_in(PAIR),
        }
    }
}

impl Default for Passwords {
    fn default() -> Self {
        Self::new()
    }
}

impl Recognizer for Passwords {
    fn name(&self) -> &str {
        "password"
    }

    fn find(&self, text: &str, found: &mut Vec<Candidate>) {
        let mut push = |range: std::ops::Range<usize>, entity: Entity, score, reason| {
            found.push(Candidate { range, label: entity.into(), score, reason });
        };
        for (pattern, said) in [(&self.assigned, false), (&self.said, true)] {
            let mut from = 0;
            while let Some(groups) = pattern.captures_at(text, from) {
                let Some(word) = groups.get(1) else { break };
                let quoted = (2..=8).find_map(|group| groups.get(group));
                let Some(value) = quoted.or_else(|| groups.get(9)) else { break };
                from = word.end();
                if !begins_word(text, word.start()) {
                    continue;
                }
                let trimmed = if quoted.is_some() { value.as_str() } else { bare(value.as_str()) };
                let code = quoted.is_none() && is_code(trimmed, &text[value.end()..]);
                let telling = is_telling(trimmed) || quoted.is_some() && said && !trimmed.contains(' ');
                if !code && telling && !is_none(trimmed) && trimmed.len() <= LONGEST {
                    from = value.end();
                    push(
                        value.start()..value.start() + trimmed.len(),
                        Entity::Password,
                        0.9,
                        "what a word for a password announces",
                    );
                }
            }
        }
        for groups in self.before.captures_iter(text) {
            let (Some(word), Some(value)) = (groups.get(1), groups.get(2)) else { continue };
            let trimmed = bare(value.as_str());
            if begins_word(text, word.start())
                && is_strong(trimmed)
                && !is_code(trimmed, &text[value.end()..])
            {
                let range = value.start()..value.start() + trimmed.len();
                push(range, Entity::Password, 0.85, "strong password after a word for it");
            }
        }
        for pin in self.pin.captures_iter(text).filter_map(|groups| groups.get(1)) {
            push(pin.range(), Entity::Password, 0.85, "digits after a word for a PIN");
        }
        for groups in self.commands.iter().flat_map(|pattern| pattern.captures_iter(text)) {
            let Some(value) = groups.get(2) else { continue };
            if let Some(user) =
                groups.get(1).filter(|user| user.start() < user.end() && is_value(user.as_str()))
            {
                push(user.range(), Entity::UserName, 0.9, "account on a command line");
            }
            if is_value(value.as_str()) {
                push(value.range(), Entity::Password, 0.95, "password on a command line");
            }
        }
        for value in self
            .keyed
            .iter()
            .flat_map(|pattern| pattern.captures_iter(text))
            .filter_map(|groups| groups.get(1))
        {
            let trimmed = value.as_str().trim_end_matches(['.', ',', ')', ']', '}']);
            if is_value(trimmed) && is_random(trimmed) {
                push(
                    value.start()..value.start() + trimmed.len(),
                    Entity::Secret,
                    0.9,
                    "value of a header or parameter that holds a key",
                );
            }
        }
        for line in self.cookie.captures_iter(text).filter_map(|groups| groups.get(1)) {
            for value in self.pair.captures_iter(line.as_str()).filter_map(|groups| groups.get(1)) {
                if is_value(value.as_str()) && is_random(value.as_str()) {
                    let range = line.start() + value.start()..line.start() + value.end();
                    push(range, Entity::Secret, 0.9, "value of a cookie");
                }
            }
        }
    }
}

/// Whether a word can begin at `at`; `DB_PASSWORD` and `dbPassword` hold the word, too.
fn begins_word(text: &str, at: usize) -> bool {
    let Some(c) = before(text, at) else { return true };
    let camel = c.is_lowercase() && text[at..].starts_with(char::is_uppercase);
    camel || is_unspaced(c) || !c.is_alphanumeric()
}

/// A value without the punctuation of the sentence around it.
fn bare(value: &str) -> &str {
    let value = value.trim_end_matches(['.', ',', ';', ':', '。', '、', '，', '…', '؛', '،']);
    // Brackets and asterisks that were not opened inside, and a question's mark.
    let close = |c: char, open: char| value.ends_with(c) && !value.contains(open);
    let value =
        if close(')', '(') || close(']', '[') || close('}', '{') { &value[..value.len() - 1] } else { value };
    let value = value.strip_suffix("**").unwrap_or(value);
    // "sakura88です": in scripts without spaces the sentence goes on.
    let value = match value.find(is_unspaced) {
        Some(end) if end >= 4 => &value[..end],
        _ => value,
    };
    match value.find([';', '&']) {
        // `Password=x;Database=y`.
        Some(end) if end >= 3 && value[end..].contains('=') => &value[..end],
        _ => value,
    }
}

/// Whether a word is given in place of a value.
fn is_none(value: &str) -> bool {
    let lower = value.to_lowercase();
    let first = lower.chars().next();
    NONE.contains(&lower.as_str())
        || lower.chars().all(|c| Some(c) == first)
        || lower.chars().all(|c| matches!(c, '*' | '•' | 'x' | '.' | '_' | '-' | '#' | '?' | '●'))
}

/// Whether a value is an expression of a program or a template.
fn is_code(value: &str, rest: &str) -> bool {
    let marks = [
        "${", "{{", "}}", "$(", "<%", "%s", "%(", "()", "[]", "::", "->", "=>", "==", "!=", "||", "&&", "//",
        "/*",
    ];
    let called = value.contains('(')
        && value.find('(').is_some_and(|at| {
            value[..at].bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':'))
                && at > 0
        });
    let path = value.split('.').count() > 1
        && value
            .split('.')
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_'));
    let name = value.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_') && value.contains('_');
    value.starts_with(['$', '<', '{', '[', '&', '%', '@', '/', '\\', '(', '.', '|', '-', '=', '*', ','])
        || marks.iter().any(|mark| value.contains(mark))
        || called
        || path
        || name
        || value.starts_with("http://")
        || value.starts_with("https://")
        || value.ends_with(['[', '(', '{', '='])
        || rest.starts_with(['(', '[', '<'])
}

/// Whether a value on a command line is one, and no variable.
fn is_value(value: &str) -> bool {
    !is_none(value)
        && !value.starts_with(['$', '<', '{', '[', '%', '@'])
        && !value.contains("${")
        && !value.contains("...")
        && !value.to_lowercase().contains("your")
}

/// Whether a value has what passwords have and words have not: a digit or a sign inside, or capitals after small letters.
fn is_telling(value: &str) -> bool {
    let digits = value.chars().filter(char::is_ascii_digit).count();
    let letters = value.chars().filter(|c| c.is_alphabetic()).count();
    let signs = value.chars().filter(|c| !c.is_alphanumeric() && !c.is_whitespace()).count();
    let mixed = value.chars().zip(value.chars().skip(1)).any(|(a, b)| a.is_lowercase() && b.is_uppercase());
    let hyphenated = signs == value.matches(['-', '\'', '’', '/', '.', ',', ':', '_']).count();
    value.chars().count() >= 4
        && (digits > 0 && (letters + signs > 0 || digits >= 4)
            || mixed
            || signs > 0 && letters > 0 && (!hyphenated || value.matches('-').count() >= 2))
}

/// Whether a value without a separator before it can be nothing but a password: digits, letters of both cases or a sign.
fn is_strong(value: &str) -> bool {
    let digits = value.chars().any(|c| c.is_ascii_digit());
    let small = value.chars().any(char::is_lowercase);
    let capital = value.chars().any(char::is_uppercase);
    let sign = value.contains(['!', '@', '#', '$', '%', '&', '*', '?', '+', '^', '~']);
    value.chars().count() >= 8 && digits && small && (capital || sign)
}

/// Digits and letters both, or a long value of many characters.
fn is_random(value: &str) -> bool {
    let digits = value.bytes().any(|byte| byte.is_ascii_digit());
    let letters = value.bytes().any(|byte| byte.is_ascii_alphabetic());
    digits && letters || value.contains(['+', '/', '=']) && value.len() >= 12 || value.len() >= 24 && letters
}

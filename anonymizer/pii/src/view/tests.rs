use std::sync::{Arc, LazyLock};

use proptest::prelude::*;

use super::*;
use crate::config::Config;
use crate::scan::{RecognizersOnly, Rules, Scanner};
use crate::vault::Vault;

static RULES: LazyLock<Arc<Rules>> = LazyLock::new(|| Arc::new(Rules::new(&Config::default()).unwrap()));

/// Encodings, and the value that a reader sees.
const ENCODED: &[(&str, &str)] = &[
    ("M&uuml;ller", "Müller"),
    ("ann&#64;example&#x2e;org", "ann@example.org"),
    ("&amp;#64;", "@"),
    ("?to=ann%40example.org", "ann@example.org"),
    ("%4d%C3%BCller", "Müller"),
    ("?name=Ann+Lee&x=1", "Ann Lee"),
    ("\"M\\u00fcller\"", "Müller"),
    ("\"\\ud83d\\ude00 Ann\"", "😀 Ann"),
    ("ann\\x40example.org", "ann@example.org"),
    ("M=C3=BCller", "Müller"),
    ("Content-Transfer-Encoding: quoted-printable\n\nann=40exam=\nple.org", "ann@example.org"),
    ("=?utf-8?Q?J=C3=B6rg_M=C3=BCller?=", "Jörg Müller"),
    ("=?UTF-8?B?SsO2cmcgTcO8bGxlcg==?=", "Jörg Müller"),
    ("YW5uQGV4YW1wbGUub3JnLCBjYWxsIG1l", "ann@example.org, call me"),
    ("ann[at]example[.]org", "ann@example.org"),
    ("hxxps://example[.]org/in/ann", "https://example.org/in/ann"),
    ("ａｎｎ＠ｅｘａｍｐｌｅ．ｏｒｇ", "ann@example.org"),
    ("٠٢٠ ٧٩٤٦", "020 7946"),
    ("０９０－１２３４", "090-1234"),
    ("a\u{200b}n\u{ad}n\u{2060}@example.org", "ann@example.org"),
    ("Mu\u{308}ller", "Müller"),
    ("𝐀𝐧𝐧", "Ann"),
];

#[test]
fn encodings_are_read_as_a_reader_would() {
    for (text, seen) in ENCODED {
        let view = View::of(text);
        assert!(view.text().contains(seen), "{text}: {}", view.text());
    }
}

#[test]
fn what_is_not_encoded_stays() {
    for text in [
        "50% off, R&D; a\\b C:\\new\\table \\\\host\\news",
        "x=20 and 100%20s",
        "internationalisation-and-localisation",
        "src/main/java/com/example/server/Handler",
        "9f8a7b6c5d4e3f2a1b0c9f8a7b6c5d4e3f2a1b0c",
        "علی\u{200c}رضا",
        "f(x)[0].y and list[.5]",
        "Grüße aus Köln – über 20 °C, ½ l",
    ] {
        let view = View::of(text);
        let expected = if text.contains("%20") { "x=20 and 100 s" } else { text };
        assert_eq!(view.text(), expected);
    }
}

fn part(text: &str, range: Range<usize>) -> String {
    text.chars().skip(range.start).take(range.end - range.start).collect()
}

#[test]
fn a_value_is_found_whole_in_the_original() {
    let cases = [
        ("mail ann&#64;example.org now", "ann&#64;example.org"),
        ("mail ann%40example.org now", "ann%40example.org"),
        ("\"ann\\u0040example.org\"", "ann\\u0040example.org"),
        ("x YW5uQGV4YW1wbGUub3JnLCBjYWxsIG1l y", "YW5uQGV4YW1wbGUub3JnLCBjYWxsIG1l"),
        ("mail a\u{200b}nn@example.org now", "a\u{200b}nn@example.org"),
        ("card ４１１１ １１１１ １１１１ １１１１!", "４１１１ １１１１ １１１１ １１１１"),
        ("رقم +٤٤ ٧٧٠٠ ٩٠٠٩٢٣", "+٤٤ ٧٧٠٠ ٩٠٠٩٢٣"),
    ];
    let mut scanner = Scanner::new(Arc::clone(&RULES), Box::new(RecognizersOnly));
    for (text, value) in cases {
        let scan = scanner.scan(&[text]).unwrap();
        let found: Vec<String> = scan.spans[0].iter().map(|span| part(text, span.start..span.end)).collect();
        assert_eq!(found, [value], "{text}");
    }
}

/// Text in one of the encodings.
fn encoded(plain: &str, how: u8) -> String {
    let each = |write: &dyn Fn(char) -> String| plain.chars().map(write).collect();
    match how {
        0 => each(&|c| format!("&#{};", c as u32)),
        1 => each(&|c| format!("&#x{:x};", c as u32)),
        2 => plain.bytes().map(|byte| format!("%{byte:02X}")).collect(),
        3 => each(&|c| format!("\\u{{{:x}}}", c as u32)),
        4 => each(&|c| c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()),
        5 => each(&|c| format!("{c}\u{200b}")),
        6 => each(&|c| match c {
            '!'..='~' => char::from_u32(c as u32 + 0xfee0).unwrap_or(c).to_string(),
            c => c.to_string(),
        }),
        _ => plain.to_owned(),
    }
}

proptest! {
    #[test]
    fn every_character_maps_to_what_it_stands_for(text in "(\\PC|[&;%#=\\\\u@0-9a-f\n]){0,60}") {
        let view = View::of(&text);
        let count = text.chars().count();
        let mut last = 0;
        for at in 0..view.text().chars().count() {
            let range = view.original(at..at + 1);
            prop_assert!(range.start < range.end && range.end <= count);
            prop_assert!(range.start >= last || view.original(at - 1..at) == range, "in order");
            last = range.start;
        }
        // What is left alone stands for itself.
        let seen: Vec<char> = view.text().chars().collect();
        let own: Vec<char> = text.chars().collect();
        if view.is_plain() {
            prop_assert_eq!(seen, own);
        }
    }

    #[test]
    fn an_encoded_value_maps_back_exactly(
        value in "[a-z]{2,8}[.][a-zäöüß]{2,8}", how in 0u8..8, front in "[a-z ]{0,12} ", back in " [a-z ]{0,12}",
    ) {
        let address = format!("{value}@example.org");
        let inside = encoded(&address, how);
        let text = format!("{front}{inside}{back}");
        let view = View::of(&text);
        let at = view.text().find(&address).expect("the reader sees the address");
        let start = view.text()[..at].chars().count();
        let range = view.original(start..start + address.chars().count());
        // A character without width after the last one is no part of the value.
        prop_assert_eq!(part(&text, range), inside.trim_end_matches('\u{200b}'));
    }

    #[test]
    fn redacted_and_restored_is_byte_for_byte_the_same(
        values in proptest::collection::vec(("[a-z]{2,8}", 0u8..8), 1..5), between in "(\\PC|[&;%=\\\\\n]){0,30}",
    ) {
        let text: String = values
            .iter()
            .map(|(value, how)| format!("{between} {} {between}", encoded(&format!("{value}@example.org"), *how)))
            .collect();
        let spans = Scanner::new(Arc::clone(&RULES), Box::new(RecognizersOnly)).scan(&[&text]).unwrap().spans;
        let mut vault = Vault::new();
        let redacted = vault.redact(&text, &spans[0]).unwrap();
        prop_assert_eq!(vault.restore(&redacted.text).text, text);
    }
}

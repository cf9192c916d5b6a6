//! Readers of what a chat API is asked and answers: nothing panics, and pieces mean what the whole does.

use proptest::prelude::*;
use sotto_fuzz_bodies::anonymizer as fuzz_bodies;

proptest! {
    #[test]
    fn any_text(cut: u8, text in "[\\[\\]\\\\*_A-Za-z0-9'\\u{2019} ]{0,60}") {
        fuzz_bodies::placeholders(&[&[cut], text.as_bytes()].concat());
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_bodies::placeholders(&bytes);
        fuzz_bodies::events(&bytes);
    }

    #[test]
    fn any_events(cut: u8, text in "((data|event|id|:)?: ?[a-z{}\"]{0,9}(\r|\n|\r\n){1,3}){0,6}") {
        fuzz_bodies::events(&[&[cut], text.as_bytes()].concat());
    }
}

proptest! {
    #[test]
    fn nearly_placeholders(cut: u8, text in "(\\\\?\\[\\\\?(EMAIL|email|LITERAL|NAME|\\*)[_ -]{0,2}[0-9]{0,3}('s)?\\\\?\\]?){0,4}") {
        fuzz_bodies::placeholders(&[&[cut], text.as_bytes()].concat());
    }
}

/// Inputs that broke a target once.
#[test]
fn found_by_fuzzing() {
    for input in [&b"\xff[LITERAL_1]"[..], b"\x05[LITERAL_1] [EMAIL_1]", b"\x00\\[LITERAL\\_1\\]"] {
        fuzz_bodies::placeholders(input);
    }
}

#[test]
fn events_are_read() {
    assert_eq!(fuzz_bodies::events(b"\x07data: one\n\nevent: x\ndata: two\r\n\r\n: three\n"), 2);
}

#[test]
fn requests_are_read() {
    for (api, request) in [
        (0, r#"{"model":"m","messages":[{"role":"user","content":"Ann, 4471"}],"n":7}"#),
        (1, r#"{"model":"m","input":["a",1]}"#),
        (
            0,
            r#"{"messages":[{"role":"assistant","tool_calls":[{"function":{"arguments":"{\"a\":[1,\"x\"]}"}}]}]}"#,
        ),
    ] {
        assert!(fuzz_bodies::request(&[&[api], request.as_bytes()].concat()), "{request}");
    }
    let picture =
        r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]}"#;
    assert!(!fuzz_bodies::request(&[&[0], picture.as_bytes()].concat()));
}

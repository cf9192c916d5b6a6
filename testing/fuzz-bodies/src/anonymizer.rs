//! Bodies of the fuzz targets in `fuzz/`: requests to chat APIs, and readers of placeholders and of event streams in any
//! pieces.
//!
//! On the stable toolchain the property tests of `anonymizer` drive the same functions.

use std::sync::{Arc, OnceLock};

use anonymizer::config::Config;
use anonymizer::proxy::fuzzing::{Parser, visit};
use anonymizer::scan::{RecognizersOnly, Rules, Scanner};
use anonymizer::vault::{Escaping, Scope, StreamRestorer, Vault, placeholder};
use serde_json::Value;

/// A vault that knows an address as `[EMAIL_1]` and the look-alike `[email_1]` as `[LITERAL_1]`, and what a request with
/// both may be answered with.
fn vault() -> &'static (Vault, Scope) {
    static VAULT: OnceLock<(Vault, Scope)> = OnceLock::new();
    VAULT.get_or_init(|| {
        let rules = Arc::new(Rules::new(&Config::default()).expect("the default rules"));
        let text = "Write to ann@example.org.";
        let scan = Scanner::new(rules, Box::new(RecognizersOnly)).scan(&[text]).expect("a short text");
        let mut vault = Vault::new();
        vault.redact(text, &scan.spans[0]).expect("spans of this text");
        assert_eq!(vault.restore("[EMAIL_1]").text, "ann@example.org");
        let look_alike = vault.redact("[email_1]", &[]).expect("no spans").text;
        assert_eq!(look_alike, "[LITERAL_1]");
        let scope = Scope::of_request(&vault, ["[EMAIL_1]", look_alike.as_str()]);
        (vault, scope)
    })
}

/// An answer with placeholders; the first byte says where it is cut in two.
pub fn placeholders(bytes: &[u8]) {
    let Some((&cut, text)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(text);
    let mut end = 0;
    for found in placeholder::find_all(&text) {
        assert!(found.range.start >= end && text.get(found.range.clone()).is_some(), "{found:?}");
        // Nobody can call a type so, but the vault does.
        let is_literal = found.label == placeholder::LITERAL;
        assert!(is_literal || placeholder::is_label(&found.label), "{found:?}");
        end = found.range.end;
    }
    let mut cut = usize::from(cut) % (text.len() + 1);
    while !text.is_char_boundary(cut) {
        cut -= 1;
    }
    for escaping in [Escaping::None, Escaping::Json] {
        let (vault, scope) = vault();
        let mut stream = StreamRestorer::new(escaping);
        let pieces =
            [stream.push(scope, &text[..cut]), stream.push(scope, &text[cut..]), stream.finish(scope)];
        assert_eq!(pieces.concat(), scope.restore_as(&text, escaping).text);
        // An answer that holds no placeholder but in targets of links is passed on as it is.
        if stream.replaced == 0 {
            assert_eq!(pieces.concat(), text);
        }
        // Whatever it is, no text of one's own makes this panic.
        vault.restore_as(&text, escaping);
    }
}

/// A stream of events; the first byte says where it is cut in two.
pub fn events(bytes: &[u8]) -> usize {
    let Some((&cut, bytes)) = bytes.split_first() else { return 0 };
    let mut whole = Parser::default();
    let at_once = whole.push(bytes);
    let (one, other) = bytes.split_at(usize::from(cut) % (bytes.len() + 1));
    let mut parser = Parser::default();
    let in_pieces = parser.push(one).and_then(|mut events| {
        events.extend(parser.push(other)?);
        Ok(events)
    });
    assert_eq!(at_once, in_pieces);
    at_once.map_or(0, |events| events.len())
}

/// A request; the first byte says to which API. Whether it may leave.
pub fn request(bytes: &[u8]) -> bool {
    let Some((&api, bytes)) = bytes.split_first() else { return false };
    let Ok(request) = serde_json::from_slice::<Value>(bytes) else { return false };
    let mut texts = Vec::new();
    let mut walked = request.clone();
    let leaves = visit(api.into(), &mut walked, &mut |text| {
        texts.push(text);
        None
    });
    assert_eq!(walked, request, "a visit that replaces nothing changes nothing");
    if !leaves {
        return false;
    }
    let mut expected = Vec::new();
    values(&request, &mut expected);
    let seen = |text: &String| texts.contains(text);
    for text in expected {
        // Arguments that are JSON are visited value by value.
        let parsed =
            serde_json::from_str::<Value>(&text).ok().filter(|value| value.is_object() || value.is_array());
        let by_value = parsed.is_some_and(|value| {
            let mut parts = Vec::new();
            values(&value, &mut parts);
            parts.iter().all(seen)
        });
        assert!(seen(&text) || by_value, "{text:?} was not visited");
    }
    true
}

/// Strings and numbers of a request.
fn values(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::String(text) if !text.is_empty() => out.push(text.clone()),
        Value::Number(number) => out.push(number.to_string()),
        Value::Array(all) => all.iter().for_each(|value| values(value, out)),
        Value::Object(fields) => fields.values().for_each(|value| values(value, out)),
        _ => {}
    }
}

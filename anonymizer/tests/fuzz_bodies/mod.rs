//! Bodies of the fuzz targets in `fuzz/`: readers of placeholders and of event streams, in any pieces.
//!
//! The targets include this file; on the stable toolchain the property tests drive the same functions.
#![allow(dead_code, reason = "each target uses its part")]

use std::sync::{Arc, OnceLock};

use anonymizer::config::Config;
use anonymizer::scan::{RecognizersOnly, Rules, Scanner};
use anonymizer::vault::{Escaping, StreamRestorer, Vault, placeholder};

#[path = "../../src/proxy/sse.rs"]
mod sse;

/// A vault that knows an address as `[EMAIL_1]`.
fn vault() -> &'static Vault {
    static VAULT: OnceLock<Vault> = OnceLock::new();
    VAULT.get_or_init(|| {
        let rules = Arc::new(Rules::new(&Config::default()).expect("the default rules"));
        let text = "Write to ann@example.org.";
        let scan = Scanner::new(rules, Box::new(RecognizersOnly)).scan(&[text]).expect("a short text");
        let mut vault = Vault::new();
        vault.redact(text, &scan.spans[0]).expect("spans of this text");
        assert_eq!(vault.restore("[EMAIL_1]").text, "ann@example.org");
        vault
    })
}

/// An answer with placeholders; the first byte says where it is cut in two.
pub(crate) fn placeholders(bytes: &[u8]) {
    let Some((&cut, text)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(text);
    let mut end = 0;
    for found in placeholder::find_all(&text) {
        assert!(found.range.start >= end && text.get(found.range.clone()).is_some(), "{found:?}");
        assert!(placeholder::is_label(&found.label), "{found:?}");
        end = found.range.end;
    }
    let mut cut = usize::from(cut) % (text.len() + 1);
    while !text.is_char_boundary(cut) {
        cut -= 1;
    }
    for escaping in [Escaping::None, Escaping::Json] {
        let mut stream = StreamRestorer::new(escaping);
        let pieces =
            [stream.push(vault(), &text[..cut]), stream.push(vault(), &text[cut..]), stream.finish(vault())];
        assert_eq!(pieces.concat(), vault().restore_as(&text, escaping).text);
    }
}

/// A stream of events; the first byte says where it is cut in two.
pub(crate) fn events(bytes: &[u8]) -> usize {
    let Some((&cut, bytes)) = bytes.split_first() else { return 0 };
    let mut whole = sse::Parser::default();
    let at_once = whole.push(bytes);
    let (one, other) = bytes.split_at(usize::from(cut) % (bytes.len() + 1));
    let mut parser = sse::Parser::default();
    let in_pieces = parser.push(one).and_then(|mut events| {
        events.extend(parser.push(other)?);
        Ok(events)
    });
    assert_eq!(at_once, in_pieces);
    at_once.map_or(0, |events| events.len())
}

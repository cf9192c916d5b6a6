//! The table of fields in `docs/api.md` is that of the code; `SOTTO_UPDATE_GOLDEN=1` writes it.

use std::fmt::Write;
use std::path::PathBuf;

use sotto_http::fields::{ANTHROPIC, CHAT, COMPLETION, EMBEDDING, Field, PREDICT, RERANK, RESPONSE, Support};

const BEGIN: &str = "<!-- fields: written by `SOTTO_UPDATE_GOLDEN=1 cargo test --release -p sotto-http --test documented` -->\n";
const END: &str = "<!-- end of fields -->";

fn names(table: &[Field], support: Support) -> String {
    let names: Vec<String> =
        table.iter().filter(|(_, of)| *of == support).map(|(name, _)| format!("`{name}`")).collect();
    names.join(", ")
}

fn section(path: &str, table: &[Field]) -> String {
    let mut text = format!("### `{path}`\n\n");
    writeln!(text, "* Implemented: {}.", names(table, Support::Implemented)).unwrap();
    writeln!(text, "* Ignored, as nothing depends on them: {}.", names(table, Support::Ignored)).unwrap();
    for (name, support) in table {
        if let Support::Refused(reason) = support {
            writeln!(text, "* Refused: `{name}` ({reason}).").unwrap();
        }
    }
    text
}

#[test]
fn the_document_has_the_tables_of_the_code() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/api.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the mark before the tables");
    let (_, after) = rest.split_once(END).expect("the mark after the tables");
    let tables = [
        section("POST /v1/chat/completions", CHAT),
        section("POST /v1/completions", COMPLETION),
        section("POST /v1/embeddings", EMBEDDING),
        section("POST /v1/rerank", RERANK),
        section("POST /v1/predict", PREDICT),
        section("POST /v1/responses", RESPONSE),
        section("POST /v1/messages", ANTHROPIC),
    ]
    .join("\n");
    let expected = format!("{before}{BEGIN}\n{tables}\n{END}{after}");
    if std::env::var_os("SOTTO_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), expected, "docs/api.md is not what the code does");
}

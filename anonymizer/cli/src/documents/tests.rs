//! Laws of every format: what is redacted comes back, planted values do not stay, and no input breaks the readers.

use std::io::Write;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::columns::Rules as Columns;
use super::*;
use crate::config::Config;
use crate::scan::{RecognizersOnly, Rules, Scanner};
use crate::vault::Vault;

const PLANTED: &str = "rosamund.t@posthorn.example";

/// Its patterns are compiled once.
fn scanner() -> Scanner {
    static RULES: LazyLock<Arc<Rules>> = LazyLock::new(|| Arc::new(Rules::new(&Config::default()).unwrap()));
    Scanner::new(Arc::clone(&RULES), Box::new(RecognizersOnly))
}

/// The redacted bytes, and the vault.
fn redact(format: Format, bytes: &[u8]) -> Result<(Vec<u8>, Vault)> {
    let mut document = Document::read(format, "test", bytes.to_vec())?;
    let found = Document::scan(std::slice::from_mut(&mut document), &mut scanner(), &Columns::default())?;
    let mut vault = Vault::new();
    let redacted = document.redact(&found[0], &mut vault)?;
    Ok((redacted, vault))
}

fn restore(format: Format, bytes: &[u8], vault: &Vault) -> Vec<u8> {
    Document::read(format, "test", bytes.to_vec()).unwrap().restore(vault).unwrap().0
}

fn zipped(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in members {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// JSON with the planted value in some strings and names.
fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        "[a-z \"\\\\]{0,4}".prop_map(|text| json!(format!("{text} {PLANTED} {text}"))),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-z_]{1,6}( x)?", inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn json_comes_back(value in json_value(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&value).unwrap() } else { value.to_string() };
        let (redacted, vault) = redact(Format::Json, text.as_bytes()).unwrap();
        let seen: Value = serde_json::from_slice(&redacted).unwrap();
        prop_assert!(!seen.to_string().contains(PLANTED));
        prop_assert_eq!(String::from_utf8(restore(Format::Json, &redacted, &vault)).unwrap(), text);
    }

    #[test]
    fn tables_come_back(
        rows in prop::collection::vec(prop::collection::vec("[a-z,;\"\n\r\té]{0,5}", 1..4), 1..6),
        planted in prop::collection::vec(any::<bool>(), 24),
        quoted in prop::collection::vec(any::<bool>(), 24),
    ) {
        let mut number = 0;
        let mut text = String::new();
        for row in &rows {
            for (column, cell) in row.iter().enumerate() {
                let cell = if planted[number % 24] { format!("{cell} {PLANTED}") } else { cell.clone() };
                let needs = cell.contains(['"', ',', '\n', '\r']) || quoted[number % 24];
                number += 1;
                text.push_str(if column > 0 { "," } else { "" });
                text.push_str(&if needs { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell });
            }
            text.push_str("\r\n");
        }
        let (redacted, vault) = redact(Format::Csv, text.as_bytes()).unwrap();
        prop_assert!(!String::from_utf8_lossy(&redacted).contains(PLANTED));
        let back = String::from_utf8(restore(Format::Csv, &redacted, &vault)).unwrap();
        prop_assert_eq!(back, text);
    }

    #[test]
    fn planted_values_leave_no_html(pieces in prop::collection::vec(prop::sample::select(vec![
        "<p>", "</p>", "<b>", "</b>", "x", " ", "&amp;", "<", ">", "<!-- ", " -->", "<a href=\"mailto:rosamund.t@posthorn.example\">", "</a>",
        "rosamund.t@posthorn.example", "<i title='rosamund.t@posthorn.example'>", "é", "<script>", "</script>", "\"", "'",
    ]), 0..12)) {
        let text = pieces.join("|");
        let (redacted, _) = redact(Format::Html, text.as_bytes()).unwrap();
        let redacted = String::from_utf8(redacted).unwrap();
        prop_assert!(!redacted.contains(PLANTED), "{} -> {}", text, redacted);
    }

    #[test]
    fn no_bytes_break_the_readers(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[<>/a-z=\"'&;!\\-\\[\\]: \n{},0-9@.]{0,120}") {
        for format in Format::value_variants() {
            for input in [&bytes[..], text.as_bytes()] {
                // An error or a file, and no panic.
                let _ = redact(*format, input);
            }
        }
        for (format, main, part) in [
            (Format::Docx, "word/document.xml", "word/comments.xml"),
            (Format::Xlsx, "xl/workbook.xml", "xl/worksheets/sheet1.xml"),
        ] {
            let inside = format!("<c r=\"{text}\" t='s'><v>{text}</v><f>{text}</f></c>");
            let sheet = format!("<r xmlns:x='y'><row>{inside}<x:t {text}>{text}</x:t></row></r>");
            let members = [(main, &b"<r/>"[..]), (part, sheet.as_bytes()), ("xl/sharedStrings.xml", text.as_bytes())];
            let _ = redact(format, &zipped(&members));
            let _ = redact(format, &[b"PK\x03\x04", &bytes[..]].concat());
        }
        let mail = format!("Subject: {text}\r\nContent-Type: multipart/mixed; boundary=\"{text}\"\r\n\r\n--{text}\r\nContent-Type: text/html; name={text}\r\n\r\n{text}\r\n--{text}--\r\n");
        let _ = redact(Format::Eml, mail.as_bytes());
        let _ = redact(Format::Mbox, format!("From x\n{mail}\nFrom {text}\n\n{mail}").as_bytes());
    }
}

#[test]
fn names_of_worksheets_with_personal_data_are_refused() {
    let workbook = format!("<workbook><sheets><sheet name=\"{PLANTED}\" sheetId=\"1\"/></sheets></workbook>");
    let error = redact(Format::Xlsx, &zipped(&[("xl/workbook.xml", workbook.as_bytes())])).err().unwrap();
    assert!(error.to_string().contains("the name of a worksheet holds personal data"), "{error}");
}

#[test]
fn a_text_of_several_cells_stays_only_if_it_does_in_all() {
    let sheet = "<worksheet><sheetData><row><c t='s'><v>0</v></c><c t='s'><v>1</v></c></row>\
        <row><c t='s'><v>2</v></c><c t='s'><v>3</v></c></row><row><c t='s'><v>3</v></c><c t='s'><v>3</v></c></row></sheetData></worksheet>";
    let strings = format!(
        "<sst><si><t>id</t></si><si><t>mail</t></si><si><t>bob@example.org</t></si><si><t>{PLANTED}</t></si></sst>"
    );
    let members = [
        ("xl/workbook.xml", &b"<workbook/>"[..]),
        ("xl/sharedStrings.xml", strings.as_bytes()),
        ("xl/worksheets/sheet1.xml", sheet.as_bytes()),
    ];
    let mut document = Document::read(Format::Xlsx, "test", zipped(&members)).unwrap();
    let columns = Columns::parse("id=keep").unwrap();
    let found = Document::scan(std::slice::from_mut(&mut document), &mut scanner(), &columns).unwrap();
    let redacted = document.redact(&found[0], &mut Vault::new()).unwrap();
    let mut zip = zip::ZipArchive::new(std::io::Cursor::new(redacted)).unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut zip.by_name("xl/sharedStrings.xml").unwrap(), &mut text).unwrap();
    assert!(
        text.contains("bob@example.org") && text.contains("<t>[EMAIL_1]</t>") && !text.contains(PLANTED),
        "{text}"
    );
}

#[test]
fn parts_of_office_files_without_xml_are_named() {
    let members = [("word/document.xml", &b"<d/>"[..]), ("word/media/image1.png", &b"\x89PNG"[..])];
    let document = Document::read(Format::Docx, "test", zipped(&members)).unwrap();
    assert_eq!(document.notes(), ["word/media/image1.png is left as it is"]);
}

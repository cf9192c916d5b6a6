//! Files with a form: what is redacted in them, what stays as it is, and that they come back. Recognizers and the model in
//! clear find what is personal; that they do is the matter of other tests.

#[path = "documents_support/mod.rs"]
mod documents_support;

use documents_support::{Folder, MAIL, stderr};

const KEYS: [&str; 4] = ["--vault", "v", "--key-file", "k"];

#[test]
fn tables_are_redacted_by_column_and_restored_byte_for_byte() {
    let folder = Folder::new();
    let rows: String = (0..8)
        .map(|n| format!("{n},\"Marisol, \"\"M\"\" Kowalski\",anna{n}@example.org,A-10{n},fine\r\n"))
        .collect();
    let table = format!("\u{feff}nr,customer,mail,code,note\r\n{rows},,,,\r\n");
    folder.write("in/table.csv", &table);
    let columns = "customer=GIVEN_NAME,code=STAFF_ID,nr=keep,note=keep";
    let output = folder.redact(&[&KEYS[..], &["--out", "out", "--columns", columns, "in"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let redacted = folder.read("out/table.csv");
    assert!(
        redacted.starts_with(
            "\u{feff}nr,customer,mail,code,note\r\n0,\"[GIVEN_NAME_1]\",[EMAIL_1],[STAFF_ID_1],fine\r\n"
        ),
        "{redacted}"
    );
    assert!(
        !redacted.contains("example.org") && !redacted.contains("Kowalski") && !redacted.contains("A-10")
    );
    assert!(redacted.ends_with(",,,,\r\n"));
    let output = folder.run(&[&["restore"], &KEYS[..], &["--out", "back", "out"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(folder.read("back/table.csv"), table);

    let output = folder.redact(&["--out", "out", "--columns", "costumer=SURNAME", "in"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("costumer"), "{}", stderr(&output));
}

#[test]
fn a_column_of_one_type_is_redacted_whole() {
    let folder = Folder::new();
    let cells =
        "a1@example.org\na2@example.org\na3@example.org\na4@example.org\na5@example.org\nsomething odd\n";
    folder.write("t.tsv", &format!("contact\n{cells}"));
    let output = folder.redact(&["t.tsv"]);
    let redacted = String::from_utf8(output.stdout).unwrap();
    assert_eq!(redacted, "contact\n[EMAIL_1]\n[EMAIL_2]\n[EMAIL_3]\n[EMAIL_4]\n[EMAIL_5]\n[EMAIL_6]\n");
}

#[test]
fn json_keeps_its_form_and_numbers_come_back_as_numbers() {
    let folder = Folder::new();
    let json = "{\"mail\" : \"ann@example.org\",\n \"card\": 4111111111111111, \"n\": 1.50, \"list\": [\"caf\\u00e9\", \"say \\\"ann@example.org\\\"\"]}\n";
    folder.write("a.json", json);
    folder.write("b.jsonl", "{\"a\": \"ann@example.org\"}\n\n{\"a\": 7}\n");
    let output = folder.redact(&[&KEYS[..], &["--next-to-input", "a.json", "b.jsonl"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let redacted = folder.read("a.redacted.json");
    let expected = json
        .replace("ann@example.org", "[EMAIL_1]")
        .replace("4111111111111111", "\"[CREDIT_CARD_NUMBER_1]\"");
    assert_eq!(redacted, expected);
    assert_eq!(folder.read("b.redacted.jsonl"), "{\"a\": \"[EMAIL_1]\"}\n\n{\"a\": 7}\n");
    let output = folder.run(&[&["restore"], &KEYS[..], &["--out", "back", "a.redacted.json"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(folder.read("back/a.redacted.json"), json);
}

#[test]
fn html_is_redacted_in_text_and_attributes() {
    let folder = Folder::new();
    let html = "<!doctype html><p class=\"ann@example.org\">Write to <b>ann&#64;</b>example.org &amp; <a href='mailto:ann@example.org'>me</a>\
        <!-- ann@example.org --><input value=ann@example.org><script>var mail = \"ann@example.org\";</script></p>";
    folder.write("a.html", html);
    let redacted = folder.redacted(&["a.html"]);
    assert_eq!(
        redacted,
        "<!doctype html><p class=\"ann@example.org\">Write to <b>[EMAIL_1]</b> &amp; <a href='mailto:[EMAIL_1]'>me</a>\
        <!-- [EMAIL_1] --><input value=\"[EMAIL_1]\"><script>var mail = \"[EMAIL_1]\";</script></p>"
    );
}

#[test]
fn mails_are_redacted_through_their_encodings() {
    let folder = Folder::new();
    folder.write("a.eml", MAIL);
    folder.write("b.mbox", &format!("From ann@example.org Mon Jan 1\n{MAIL}\nFrom bob@example.org Tue Jan 2\nSubject: hi\n\nbob@example.org\n"));
    for name in ["a.eml", "b.mbox"] {
        let output = folder.redact(&[name]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(
            stderr(&output).contains("attachment that cannot be read was left out"),
            "{}",
            stderr(&output)
        );
        let redacted = String::from_utf8(output.stdout).unwrap();
        for gone in ["ann@", "ann=40", "andre@", "900923", "iVBOR", "YW5uQ", "bob@"] {
            assert!(!redacted.contains(gone), "{gone}: {redacted}");
        }
        assert!(redacted.contains("Subject: Call [PHONE_NUMBER_1]"), "{redacted}");
        assert!(redacted.contains("Gr=C3=BC=C3=9Fe an [EMAIL_"), "{redacted}");
        assert!(redacted.contains("charset=\"utf-8\""), "{redacted}");
    }
}

#[test]
fn subtitles_keep_their_times() {
    let folder = Folder::new();
    let text = "1\n00:00:01,000 --> 00:00:02,000\nWrite to\nann@example.org\n\n2\n00:00:03,000 --> 00:00:04,000\nOk\n";
    folder.write("a.srt", text);
    assert_eq!(folder.redacted(&["a.srt"]), text.replace("ann@example.org", "[EMAIL_1]"));
}

#[test]
fn what_is_not_read_is_named_and_nothing_is_lost() {
    let folder = Folder::new();
    folder.write("in/a.txt", "ann@example.org");
    folder.write("in/skip/b.txt", "ann@example.org");
    folder.write("in/c.md", "ann@example.org");
    folder.write("in/bad.json", "{\"a\": Anna}");
    folder.write("in/bad.csv", "a,b\n\"x,1\n");
    folder.write("in/bad.docx", "PK\u{3}\u{4}no");
    folder.write("in/d.zip", "PK\u{3}\u{4}\u{0}no");
    std::os::unix::fs::symlink("a.txt", folder.path("in/link.txt")).unwrap();
    let output = folder.redact(&["--out", "out", "--exclude", "skip", "in"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = stderr(&output);
    for named in [
        "link.txt: a link",
        "bad.json: not valid JSON (line 1, column 7)",
        "bad.csv: line 2: a quote is opened",
        "bad.docx: no DOCX",
        "d.zip: not read: a ZIP archive",
        "5 of 7 files were left out",
    ] {
        assert!(errors.contains(named), "{named}: {errors}");
    }
    assert!(!errors.contains("Anna"));
    assert_eq!(folder.names("out"), ["a.txt", "c.md"]);
    let output = folder.redact(&["--out", "some", "--include", "*.md", "in"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(folder.names("some"), ["c.md"]);
}

#[test]
fn an_interrupted_run_is_resumed_with_the_same_vault() {
    let folder = Folder::new();
    folder.write("in/a.txt", "ann@example.org");
    folder.write("in/b.txt", "bob@example.org and ann@example.org");
    let arguments = [&KEYS[..], &["--out", "out", "--resume", "in"]].concat();
    assert!(folder.redact(&[&KEYS[..], &["--out", "out", "in/a.txt"]].concat()).status.success());
    folder.write("out/a.txt", "done before");
    let output = folder.redact(&arguments);
    assert!(
        output.status.success() && stderr(&output).contains("1 files are done already"),
        "{}",
        stderr(&output)
    );
    assert_eq!(folder.read("out/a.txt"), "done before");
    assert_eq!(folder.read("out/b.txt"), "[EMAIL_2] and [EMAIL_1]");
}

#[test]
fn files_that_are_no_keys_are_called_so() {
    let folder = Folder::new();
    std::fs::write(folder.path("k"), [0xff, 0x00]).unwrap();
    folder.write("v", "x");
    folder.write("short", "abc");
    let errors =
        |arguments: &[&str]| stderr(&folder.run(&[&["restore", "--vault", "v"], arguments].concat()));
    for key in ["k", "short"] {
        let errors = errors(&["--key-file", key]);
        assert!(errors.contains("no key file: one holds 64 hexadecimal digits"), "{errors}");
    }
    assert!(errors(&["--passphrase-file", "k"]).contains("not UTF-8 text"));
}

#[test]
fn a_detector_that_cannot_be_reached_has_its_exit_code() {
    let folder = Folder::new();
    folder.write("a.txt", "Anna");
    // A port that was free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    folder.write(
        "server",
        &format!("sotto://{address}/?pin={}&credential={}", "00".repeat(32), "ab".repeat(32)),
    );
    let output = folder.run(&["redact", "--server", "@server", "--quiet", "a.txt"]);
    assert!(output.stdout.is_empty());
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
}

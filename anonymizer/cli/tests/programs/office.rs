//! Files that were redacted open in the libraries of other programs.

use crate::documents_support::{Folder, MAIL, stderr};
use crate::python::runs;

const KEYS: [&str; 4] = ["--vault", "v", "--key-file", "k"];

fn python_reads(folder: &Folder, script: &str, input: &[u8], module: &str) -> bool {
    runs(&[module], script, &[], &folder.path(""), input)
}

#[test]
fn word_documents_open_after_redacting_and_come_back() {
    let folder = Folder::new();
    let made = python_reads(
        &folder,
        "import docx\nd = docx.Document()\np = d.add_paragraph('Write to ann@')\np.add_run('example').bold = True\np.add_run('.org today')\n\
         d.core_properties.author = 'ann@example.org'\nt = d.add_table(rows=1, cols=2)\nt.rows[0].cells[0].text = 'bob@example.org'\n\
         t.rows[0].cells[1].text = 'a < b'\nd.sections[0].header.paragraphs[0].text = 'ann@example.org'\nd.save('a.docx')\n",
        b"",
        "docx",
    );
    if !made {
        return;
    }
    let output = folder.redact(&[&KEYS[..], &["--out", "out", "a.docx"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let check = "import docx\nd = docx.Document('out/a.docx')\nassert d.paragraphs[0].text == 'Write to [EMAIL_1] today', d.paragraphs[0].text\n\
         c = [c.text for c in d.tables[0].rows[0].cells]\nassert c == ['[EMAIL_2]', 'a < b'], c\n\
         assert d.core_properties.author == '[EMAIL_1]'\nassert d.sections[0].header.paragraphs[0].text == '[EMAIL_1]'\n";
    python_reads(&folder, check, b"", "docx");
    let output = folder.run(&[&["restore"], &KEYS[..], &["--out", "back", "out/a.docx"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let check = check
        .replace("out/a", "back/a")
        .replace("[EMAIL_1]", "ann@example.org")
        .replace("[EMAIL_2]", "bob@example.org");
    python_reads(&folder, &check, b"", "docx");
}

#[test]
fn workbooks_open_after_redacting_and_come_back() {
    let folder = Folder::new();
    let made = python_reads(
        &folder,
        "import openpyxl\nfrom openpyxl.comments import Comment\nw = openpyxl.Workbook()\ns = w.active\ns.append(['mail', 'card', 'count', 'sum'])\n\
         s.append(['ann@example.org', 4111111111111111, 3, '=C2*2&\"ann@example.org\"'])\ns.append(['bob@example.org', 5500000000000004, 4, '=C3*2'])\n\
         s['C2'].comment = Comment('ask ann@example.org', 'ann@example.org')\nw.save('a.xlsx')\n",
        b"",
        "openpyxl",
    );
    if !made {
        return;
    }
    let output = folder.redact(&[&KEYS[..], &["--out", "out", "a.xlsx"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let check = "import openpyxl\ns = openpyxl.load_workbook('out/a.xlsx').active\nr = [[c.value for c in r] for r in s.rows]\n\
         assert r[1] == ['[EMAIL_1]', '[CREDIT_CARD_NUMBER_1]', 3, '=C2*2&\"[EMAIL_1]\"'], r\n\
         assert r[2] == ['[EMAIL_2]', '[CREDIT_CARD_NUMBER_2]', 4, '=C3*2'], r\n\
         assert s['C2'].comment.text == 'ask [EMAIL_1]', s['C2'].comment\n";
    python_reads(&folder, check, b"", "openpyxl");
    let output = folder.run(&[&["restore"], &KEYS[..], &["--out", "back", "out/a.xlsx"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let check = check
        .replace("out/a", "back/a")
        .replace("[EMAIL_1]", "ann@example.org")
        .replace("[EMAIL_2]", "bob@example.org")
        .replace("'[CREDIT_CARD_NUMBER_1]'", "'4111111111111111'")
        .replace("'[CREDIT_CARD_NUMBER_2]'", "'5500000000000004'");
    python_reads(&folder, &check, b"", "openpyxl");
}

#[test]
fn mails_can_be_read_after_redacting() {
    let folder = Folder::new();
    folder.write("a.eml", MAIL);
    let redacted = folder.redacted(&["a.eml"]);
    python_reads(
        &folder,
        "import email, email.policy, sys\n\
         m = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.compat32)\n\
         parts = [p.get_payload(decode=True).decode('utf-8') for p in m.walk() if not p.is_multipart()]\n\
         assert parts[0].startswith('Gr\\u00fc\\u00dfe an [EMAIL_'), parts\n\
         assert parts[1].startswith('<p>[EMAIL_'), parts\n\
         assert 'left out' in parts[2] and len(parts) == 3, parts\n",
        redacted.as_bytes(),
        "email",
    );
}

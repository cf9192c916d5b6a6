//! Detection with the real token classifier, its linear layers in the clear.

use candle_core::Tensor;
use sotto_engine::fetch::{ModelRef, fetch};
use sotto_models::linear::LinearBackend;
use sotto_models::linear::dense::DenseBackend;
use sotto_models::source::ModelSource;
use sotto_models::split::plan::PlanKind;
use sotto_pii::detect::{DetectOptions, Detection, Detector, Entity, Label, Source, Span, Verdict};
use sotto_storage::{Cache, NoProgress};
use std::sync::OnceLock;

fn source() -> ModelSource {
    let fetched =
        fetch(&ModelRef::parse("rampart").unwrap(), &Cache::from_env().unwrap(), &NoProgress).unwrap();
    ModelSource::open(fetched.path).unwrap()
}

fn backend() -> DenseBackend {
    static BACKEND: OnceLock<DenseBackend> = OnceLock::new();
    let load = || {
        let source = source();
        let family = &source.config;
        let plan = family.plan(PlanKind::Plain).unwrap();
        DenseBackend::from_source(family, source.weights.as_ref(), plan).unwrap()
    };
    BACKEND.get_or_init(load).clone()
}

fn detector(options: DetectOptions) -> Detector {
    let source = source();
    let parts = sotto_models::split::split(&source, PlanKind::Plain, |_| ()).unwrap();
    let encoder = parts.client.encoder().unwrap();
    Detector::from_model(encoder, source.tokenizer.text_tokenizer(), options).unwrap()
}

fn scan(detector: &Detector, texts: &[&str], backend: &mut dyn LinearBackend) -> Detection {
    detector.detect(texts, &vec![Vec::new(); texts.len()], backend).unwrap()
}

fn shown(text: &str, spans: &[Span]) -> Vec<(String, String)> {
    let chars: Vec<char> = text.chars().collect();
    spans.iter().map(|span| (chars[span.start..span.end].iter().collect(), span.label.to_string())).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(text, label)| ((*text).to_owned(), (*label).to_owned())).collect()
}

#[test]
fn words_are_labelled_whole() {
    let detector = detector(DetectOptions::default());
    let cases: [(&str, &[(&str, &str)]); 5] = [
        (
            "Dear Mr O'Brien, Xanthippe Quillfeather lives at 12 Wobblebottom Road, Leeds LS1 8AU.",
            &[
                ("O'Brien", "SURNAME"),
                ("Xanthippe", "GIVEN_NAME"),
                ("Quillfeather", "SURNAME"),
                ("12", "BUILDING_NUMBER"),
                ("Wobblebottom Road", "STREET_NAME"),
                ("Leeds", "CITY"),
                ("LS1 8AU", "ZIP_CODE"),
            ],
        ),
        (
            "Routing number: 025513077\nPassport no. C2W06W463",
            &[("025513077", "ROUTING_NUMBER"), ("C2W06W463", "PASSPORT")],
        ),
        ("Order ORD-801639 was shipped with version 4.18.2 on 2025-03-04.", &[]),
        (
            "Grüße von Renée 🎉 aus München, Hauptstraße 5.",
            &[
                ("Renée", "GIVEN_NAME"),
                ("München", "CITY"),
                ("Hauptstraße", "STREET_NAME"),
                ("5", "BUILDING_NUMBER"),
            ],
        ),
        ("", &[]),
    ];
    let texts = cases.map(|(text, _)| text);
    let detection = scan(&detector, &texts, &mut backend());
    assert_eq!(detection.verdict, Verdict::Sound);
    for ((text, expected), spans) in cases.iter().zip(&detection.spans) {
        assert_eq!(shown(text, spans), pairs(expected), "{text}");
    }
}

#[test]
fn recognized_spans_win_over_the_model() {
    let detector = detector(DetectOptions::default());
    let text = "Kontonummer DE46784876609824745645, Anna";
    let recognized = Span {
        start: 12,
        end: 34,
        label: Entity::BankAccount.into(),
        score: 1.0,
        source: Source::Recognizer("iban".into()),
    };
    let detection = detector.detect(&[text], &[vec![recognized.clone()]], &mut backend()).unwrap();
    assert_eq!(detection.spans[0][0], recognized);
    assert_eq!(shown(text, &detection.spans[0][1..]), pairs(&[("Anna", "GIVEN_NAME")]));
}

#[test]
fn long_texts_are_found_across_windows() {
    let detector = detector(DetectOptions { pass_tokens: 96, ..DetectOptions::default() });
    let sentence = "The parcel for Beatriz Kowalski was left with the neighbour in Savannah on Friday. ";
    let text = sentence.repeat(20);
    let detection = scan(&detector, &[&text], &mut backend());
    let expected = [("Beatriz", "GIVEN_NAME"), ("Kowalski", "SURNAME"), ("Savannah", "CITY")].repeat(20);
    assert_eq!(shown(&text, &detection.spans[0]), pairs(&expected));
    assert!(detection.sent > detection.tokens);
}

#[test]
fn canaries_have_their_labels_wherever_they_stand() {
    let detector = detector(DetectOptions::default());
    for _ in 0..24 {
        let detection = scan(&detector, &["Nothing to see here.", "Or here."], &mut backend());
        assert_eq!(detection.verdict, Verdict::Sound);
        assert_eq!(detection.spans, [Vec::new(), Vec::new()]);
    }
}

/// A server that answers as if every token were outside.
struct Liar(DenseBackend);

impl LinearBackend for Liar {
    fn round(&mut self, round: usize, input: &Tensor) -> sotto_models::Result<Vec<Tensor>> {
        let last = self.0.plan().rounds.len() - 1;
        let mut reply = self.0.round(round, input)?;
        if round == last {
            reply[0] = reply[0].zeros_like()?;
        }
        Ok(reply)
    }

    fn begin_pass(&mut self, _tokens: usize) -> sotto_models::Result<()> {
        Ok(())
    }

    fn end_pass(&mut self) {}
}

#[test]
fn a_lying_server_is_noticed() {
    let detector = detector(DetectOptions::default());
    let detection = scan(&detector, &["My name is Beatriz Kowalski."], &mut Liar(backend()));
    assert_eq!(detection.verdict, Verdict::CanaryFailed);
}

/// Notes of every pass whether another was announced before it.
struct Listener {
    inner: DenseBackend,
    announced: bool,
    passes: Vec<bool>,
}

impl LinearBackend for Listener {
    fn round(&mut self, round: usize, input: &Tensor) -> sotto_models::Result<Vec<Tensor>> {
        self.inner.round(round, input)
    }

    fn more_to_come(&mut self) {
        self.announced = true;
    }

    fn begin_pass(&mut self, _tokens: usize) -> sotto_models::Result<()> {
        self.passes.push(std::mem::take(&mut self.announced));
        Ok(())
    }

    fn end_pass(&mut self) {}
}

#[test]
fn every_pass_but_the_last_announces_another() {
    let detector = detector(DetectOptions { pass_tokens: 96, ..DetectOptions::default() });
    let mut listener = Listener { inner: backend(), announced: false, passes: Vec::new() };
    scan(&detector, &[&"The parcel was left with the neighbour. ".repeat(30)], &mut listener);
    let (last, others) = listener.passes.split_last().unwrap();
    assert!(!last && others.len() > 1 && others.iter().all(|&announced| announced), "{:?}", listener.passes);
}

#[test]
fn switches_and_unusual_texts() {
    let disabled = [Label::from(Entity::City)].into();
    let detector = detector(DetectOptions { disabled, ..DetectOptions::default() });
    let long = "x".repeat(5000);
    let texts =
        ["[CLS] [SEP] \u{200f}\u{301}\u{0}", "Anna in Denver", "가나다라 안녕하세요", long.as_str(), " \n\t"];
    let detection = scan(&detector, &texts, &mut backend());
    assert_eq!(shown(texts[1], &detection.spans[1]), pairs(&[("Anna", "GIVEN_NAME")]));
    for (text, spans) in texts.iter().zip(&detection.spans) {
        let length = text.chars().count();
        assert!(spans.iter().all(|span| span.start < span.end && span.end <= length));
    }
}

#[test]
fn impossible_options_are_refused() {
    let refused = |options: DetectOptions| {
        let source = source();
        let parts = sotto_models::split::split(&source, PlanKind::Plain, |_| ()).unwrap();
        let encoder = parts.client.encoder().unwrap();
        Detector::from_model(encoder, source.tokenizer.text_tokenizer(), options).is_err()
    };
    assert!(refused(DetectOptions { pass_tokens: 40, ..DetectOptions::default() }));
    assert!(refused(DetectOptions { pass_tokens: 1000, ..DetectOptions::default() }));
    assert!(refused(DetectOptions { threshold: f32::NAN, ..DetectOptions::default() }));
}

#[test]
fn forms_of_other_countries_are_found() {
    let detector = detector(DetectOptions::default());
    let cases: [(&str, &[(&str, &str)]); 7] = [
        (
            "lena: are you coming tonight?\nbot: yes, at eight\nlena: bring the blue bag\nbot: lena's bag it is",
            &[("lena", "GIVEN_NAME"), ("lena", "GIVEN_NAME"), ("lena", "GIVEN_NAME")],
        ),
        ("Passenger: MARCHETTI/PAOLA MRS, seat 9A", &[("MARCHETTI", "SURNAME"), ("PAOLA", "GIVEN_NAME")]),
        ("# TODO(pedro): delete this", &[("pedro", "GIVEN_NAME")]),
        (
            "Send it to 18 Beach Road, Hobart TAS 7000.",
            &[
                ("18", "BUILDING_NUMBER"),
                ("Beach Road", "STREET_NAME"),
                ("Hobart", "CITY"),
                ("TAS", "STATE"),
                ("7000", "ZIP_CODE"),
            ],
        ),
        ("She was born in Nagpur, Maharashtra.", &[("Nagpur", "CITY"), ("Maharashtra", "STATE")]),
        (
            "We ship to 12 Florida Avenue, Austin, TX 78701.",
            &[
                ("12", "BUILDING_NUMBER"),
                ("Florida Avenue", "STREET_NAME"),
                ("Austin", "CITY"),
                ("TX", "STATE"),
                ("78701", "ZIP_CODE"),
            ],
        ),
        ("My PAN is ABKPT4821Q.", &[("ABKPT4821Q", "TAX_ID")]),
    ];
    let texts = cases.map(|(text, _)| text);
    let detection = scan(&detector, &texts, &mut backend());
    for ((text, expected), spans) in cases.iter().zip(&detection.spans) {
        assert_eq!(shown(text, spans), pairs(expected), "{text}");
    }
}

#[test]
fn things_are_not_personal() {
    let detector = detector(DetectOptions::default());
    let texts = [
        "The fix is in KB5041580.",
        "Vehicle WVWZZZ1JZXW000001 was recalled.",
        "Request 3f2b8c1e-5d7a-4c9b-8e1f-0a2b3c4d5e6f failed.",
        "Statement for account 04/2025",
        "Return badge 31-2201 at the desk.",
        "Flight BA 2490 leaves at 9.",
        "The subnet mask is 255.255.254.0.",
        "Season with Worcestershire sauce.",
        "Read 978-3-16-148410-0 first.",
        "hi my card was declined",
    ];
    let detection = scan(&detector, &texts, &mut backend());
    for (text, spans) in texts.iter().zip(&detection.spans) {
        assert_eq!(shown(text, spans), [], "{text}");
    }
}

#[test]
fn a_bare_number_counts_beside_a_person_only() {
    let detector = detector(DetectOptions::default());
    let number = "Il codice della guarnizione rossa sarebbe 754131770.";
    let letter = format!("{number} Scrivi a Giulia Ferrari.");
    let detection = scan(&detector, &[number, &letter], &mut backend());
    assert_eq!(shown(number, &detection.spans[0]), []);
    let found = shown(&letter, &detection.spans[1]);
    assert!(found.iter().any(|(value, _)| value == "754131770"), "{found:?}");
    let part = self::detector(DetectOptions { alone: true, ..DetectOptions::default() });
    let found = shown(number, &scan(&part, &[number], &mut backend()).spans[0]);
    assert!(found.iter().any(|(value, _)| value == "754131770"), "{found:?}");
}

#[test]
fn what_is_said_around_a_word_decides() {
    let detector = detector(DetectOptions::default());
    let cases: [(&str, &[(&str, &str)]); 6] = [
        ("My name is Ann. I hit a grey Skoda Octavia.", &[("Ann", "GIVEN_NAME")]),
        ("Ann says commit 3f9c2ab broke it.", &[("Ann", "GIVEN_NAME")]),
        ("The bill goes to familjen Drake.", &[("Drake", "SURNAME")]),
        (
            "Please pay Anna Berg, sort code 20-35-12.",
            &[("Anna", "GIVEN_NAME"), ("Berg", "SURNAME"), ("20-35-12", "ROUTING_NUMBER")],
        ),
        ("See the notes above. It works now.\n\nViele Grüße von uns\nTjark", &[("Tjark", "GIVEN_NAME")]),
        ("Hon har somnat in, Helsingborg den 2 mars.", &[("Helsingborg", "CITY")]),
    ];
    let texts = cases.map(|(text, _)| text);
    let detection = scan(&detector, &texts, &mut backend());
    for ((text, expected), spans) in cases.iter().zip(&detection.spans) {
        assert_eq!(shown(text, spans), pairs(expected), "{text}");
    }
}

#[test]
fn what_the_model_calls_an_address_has_the_form_of_one() {
    let detector = detector(DetectOptions::default());
    let text = "\u{202e}abc\u{202c} ann@example.org";
    let recognized = Span {
        start: 6,
        end: 21,
        label: Entity::Email.into(),
        score: 1.0,
        source: Source::Recognizer("email".into()),
    };
    let detection = detector.detect(&[text], &[vec![recognized]], &mut backend()).unwrap();
    assert_eq!(shown(text, &detection.spans[0]), pairs(&[("ann@example.org", "EMAIL")]));
}

#[test]
fn forms_of_addresses_and_names_are_read_whole() {
    let detector = detector(DetectOptions::default());
    let cases: [(&str, &[(&str, &str)]); 8] = [
        (
            "Adres: ul. Polna 14, 00-625 Warszawa",
            &[
                ("ul. Polna", "STREET_NAME"),
                ("14", "BUILDING_NUMBER"),
                ("00-625", "ZIP_CODE"),
                ("Warszawa", "CITY"),
            ],
        ),
        (
            "Deliver to Atatürk Caddesi No: 9, 35210 Konak",
            &[
                ("Atatürk Caddesi", "STREET_NAME"),
                ("9", "BUILDING_NUMBER"),
                ("35210", "ZIP_CODE"),
                ("Konak", "CITY"),
            ],
        ),
        (
            "She lives at 9 Mill Lane, 2nd floor, Leeds.",
            &[
                ("9", "BUILDING_NUMBER"),
                ("Mill Lane", "STREET_NAME"),
                ("2nd floor", "SECONDARY_ADDRESS"),
                ("Leeds", "CITY"),
            ],
        ),
        ("they are moving to bergen next week", &[("bergen", "CITY")]),
        ("Paid by Moreau, Camille with a card", &[("Moreau", "SURNAME"), ("Camille", "GIVEN_NAME")]),
        (
            "hi, my name is rajesh kulkarni and i need help",
            &[("rajesh", "GIVEN_NAME"), ("kulkarni", "SURNAME")],
        ),
        ("Doctor: Okafor", &[("Okafor", "SURNAME")]),
        ("Please sit in seat 9A at table 4.", &[]),
    ];
    let texts = cases.map(|(text, _)| text);
    let detection = scan(&detector, &texts, &mut backend());
    for ((text, expected), spans) in cases.iter().zip(&detection.spans) {
        assert_eq!(shown(text, spans), pairs(expected), "{text}");
    }
}

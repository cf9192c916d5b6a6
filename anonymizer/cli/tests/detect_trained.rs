//! Detection with the detector of `anonymizer/training`, its linear layers in the clear.

use std::path::PathBuf;

use anonymizer::model::{BackendChoice, MODEL, ModelDetector, ModelOptions};
use anonymizer::scan::TextDetector;
use sotto_models::linear::dense::DenseBackend;
use sotto_models::source::ModelSource;
use sotto_models::split::plan::PlanKind;
use sotto_pii::detect::{DetectOptions, Detector, Verdict};
use sotto_storage::NoProgress;

fn source() -> ModelSource {
    ModelSource::open(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../training/model")).unwrap()
}

fn found(texts: &[&str]) -> Vec<Vec<(String, String)>> {
    let source = source();
    let parts = sotto_models::split::split(&source, PlanKind::Plain, |_| ()).unwrap();
    let encoder = parts.client.encoder().unwrap();
    let detector =
        Detector::from_model(encoder, source.tokenizer.text_tokenizer(), DetectOptions::default()).unwrap();
    let plan = source.config.plan(PlanKind::Plain).unwrap();
    let mut backend = DenseBackend::from_source(&source.config, source.weights.as_ref(), plan).unwrap();
    let detection = detector.detect(texts, &vec![Vec::new(); texts.len()], &mut backend).unwrap();
    assert_eq!(detection.verdict, Verdict::Sound, "the canaries have their labels");
    let shown = |(text, spans): (&&str, &Vec<sotto_pii::detect::Span>)| {
        let chars: Vec<char> = text.chars().collect();
        let value = |span: &sotto_pii::detect::Span| chars[span.start..span.end].iter().collect::<String>();
        spans.iter().map(|span| (value(span), span.label.to_string())).collect()
    };
    texts.iter().zip(&detection.spans).map(shown).collect()
}

#[test]
fn names_are_found_in_their_own_scripts() {
    let texts = [
        "您好，我叫王小明，住在杭州市。",
        "Меня зовут Ольга Кузнецова, телефон 8 912 345-67-89.",
        "مرحبا، اسمي أحمد الحسيني وأسكن في دمشق.",
        "안녕하세요, 저는 김민수입니다.",
        "Με λένε Γιώργος Παπαδόπουλος.",
    ];
    let names = [
        &["王", "小明"][..],
        &["Ольга", "Кузнецова"],
        &["أحمد", "الحسيني"],
        &["김", "민수"],
        &["Γιώργος", "Παπαδόπουλος"],
    ];
    for ((text, names), spans) in texts.iter().zip(names).zip(found(&texts)) {
        for name in names {
            assert!(spans.iter().any(|(value, _)| value.contains(name)), "{name} in {text}: {spans:?}");
        }
    }
}

#[test]
fn spans_begin_and_end_with_their_values() {
    let spans = found(&["Dear Anna Kowalski,\n\nplease call 555-0199.\nYours, Peter"]).remove(0);
    let values: Vec<&str> = spans.iter().map(|(value, _)| value.as_str()).collect();
    assert!(
        values.contains(&"Anna") && values.contains(&"Kowalski") && values.contains(&"Peter"),
        "{values:?}"
    );
    assert!(values.iter().all(|value| value.trim() == *value), "{values:?}");
}

#[test]
fn text_without_personal_data_stays() {
    let clean = ["Rest the dough for an hour, then bake it at 200 degrees.", "把鸡蛋打散，加入面粉和牛奶。"];
    assert!(found(&clean).iter().all(Vec::is_empty), "{:?}", found(&clean));
}

#[test]
fn the_default_reads_every_script_with_the_detector_that_knows_it() {
    let open = |options: ModelOptions| {
        let options = ModelOptions { backend: BackendChoice::Dense, ..options };
        ModelDetector::open(&options, DetectOptions::default(), &NoProgress).unwrap()
    };
    let mut detector = open(ModelOptions::default());
    let texts = [
        "您好，我叫王小明，住在杭州市。",
        "Please call Maria Lopez in Denver, or ask 李秀英 about the invoice of last month.",
        "Sehr geehrte Frau Kowalczyk, hiermit bestätige ich den Termin am Donnerstag um zehn Uhr.",
    ];
    let names = [&["王", "小明"][..], &["Maria", "Lopez", "Denver", "李"], &["Kowalczyk"]];
    let detection = detector.detect(&texts, &vec![Vec::new(); texts.len()]).unwrap();
    for ((text, names), spans) in texts.iter().zip(names).zip(&detection.spans) {
        let chars: Vec<char> = text.chars().collect();
        let values: Vec<String> = spans.iter().map(|s| chars[s.start..s.end].iter().collect()).collect();
        for name in names {
            assert!(values.iter().any(|value| value.contains(name)), "{name} in {text}: {values:?}");
        }
    }
    assert_eq!(detector.unknown_letters(texts[0]).unwrap(), 0);
    assert_eq!(detector.unknown_letters("Իմ անունը").unwrap(), 8, "Armenian");
    let mut latin = open(ModelOptions { detector: MODEL.to_owned(), ..ModelOptions::default() });
    assert_eq!(latin.unknown_letters(texts[0]).unwrap(), 12, "rampart knows Latin script only");
}

//! The proxy with the real token classifier, its linear layers in the clear: no list says what is personal.

use crate::support::{Running, contents};
use anonymizer::detect::DetectOptions;
use anonymizer::model::{BackendChoice, ModelDetector, ModelOptions};
use anonymizer::scan::TextDetector;
use sotto_storage::NoProgress;

const TEXT: &str =
    "Please tell Beatriz Kowalski in Savannah that her parcel is here, or write to bk@example.org.";
const SECRETS: [&str; 4] = ["Beatriz", "Kowalski", "Savannah", "bk@example.org"];

fn model() -> Box<dyn TextDetector> {
    let options = ModelOptions { backend: BackendChoice::Dense, ..ModelOptions::default() };
    Box::new(ModelDetector::open(&options, DetectOptions::default(), &NoProgress).unwrap())
}

#[tokio::test]
async fn names_that_only_the_model_knows_stay_here_and_come_back() {
    let running = Running::start_with("", model).await;
    for stream in [false, true] {
        let answer = running.chat("echo", stream, TEXT).await.text().await.unwrap();
        let said = if stream {
            contents(&answer).concat()
        } else {
            let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
            answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
        };
        assert_eq!(said, TEXT);
    }
    let sent = &running.provider.requests()[0]["messages"][0]["content"];
    assert_eq!(
        sent,
        "Please tell [GIVEN_NAME_1] [SURNAME_1] in [CITY_1] that her parcel is here, or write to [EMAIL_1]."
    );
    let seen = running.provider.text();
    assert!(SECRETS.iter().all(|secret| !seen.contains(secret)), "{seen}");
}

#[tokio::test]
async fn fifty_streams_share_the_model() {
    let running = Running::start_with("", model).await;
    let texts: Vec<String> = (0..50).map(|n| format!("Parcel {n} is for Beatriz Kowalski.")).collect();
    let answers = futures::future::join_all(texts.iter().map(|text| async {
        contents(&running.chat("echo", true, text).await.text().await.unwrap()).concat()
    }));
    assert_eq!(answers.await, texts);
    assert_eq!(running.provider.requests().len(), texts.len());
    let seen = running.provider.text();
    assert!(!seen.contains("Beatriz") && !seen.contains("Kowalski"), "{seen}");
}

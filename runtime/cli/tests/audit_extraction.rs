//! `sotto audit extraction`: both attacks, real weights, real ciphertexts. The wording "the weights are not shipped" instead
//! of "secret" rests on what is measured here.

mod client_support;

use client_support::{errors, json, sotto};

#[test]
fn both_attacks_recover_a_real_layer_in_the_stated_number_of_tokens() {
    let output = sotto().args(["audit", "extraction", "--json", "--quiet"]).output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 1);
    let report = json(&output);
    assert_eq!(report["layer"], "blk.0.attn_out");
    assert_eq!((&report["d_in"], &report["weights"]), (&576.into(), &(576 * 576).into()));
    assert!(report["security_bits"].as_u64().unwrap() >= 128);
    // d_in / 4 tokens, every weight.
    assert_eq!(report["chosen"]["tokens"], 144);
    assert_eq!(report["chosen"]["recovered"], report["weights"]);
    // 0.4 d_in slots in the other forms, in the lean one with keys of zeros.
    let forms = report["chosen_by_form"].as_array().unwrap();
    assert_eq!(forms.len(), 2);
    for form in forms {
        assert_eq!((&form["tokens"], &form["recovered"]), (&231.into(), &report["weights"]), "{form}");
    }
    // Honest traffic: fewer tokens than inputs cannot determine the weights, a quarter more do.
    let honest = report["honest"].as_array().unwrap();
    let fraction = |tokens: u64| {
        let point = honest.iter().find(|point| point["tokens"] == tokens).unwrap();
        point["fraction"].as_f64().unwrap()
    };
    assert!(fraction(288) < 0.1 && fraction(432) < 0.1, "{honest:?}");
    assert!(fraction(720) > 0.999 && fraction(1152) > 0.999, "{honest:?}");
    let error = |point: &serde_json::Value| point["relative_error"].as_f64().unwrap();
    assert!(honest.windows(2).all(|pair| error(&pair[1]) < error(&pair[0])), "{honest:?}");
    // The whole model, as the documents say.
    let whole: Vec<_> = report["whole_model"].as_array().unwrap().iter().collect();
    assert_eq!((&whole[0]["plan"], &whole[0]["chosen_tokens"]), (&"plain".into(), &384.into()));
    assert_eq!((&whole[0]["chosen_slots"], &whole[1]["chosen_slots"]), (&615.into(), &845.into()));
    assert_eq!((&whole[1]["plan"], &whole[1]["chosen_tokens"]), (&"fused".into(), &528.into()));
    assert_eq!(report["first_credential_budget"], 1_000_000);
}

#[test]
fn a_text_is_read_and_must_be_long_enough() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("text");
    std::fs::write(&path, "One spring a stranger came up the valley with a theodolite on a mule.").unwrap();
    let audit = |tokens| {
        let args = ["audit", "extraction", "--quiet", "--layer", "blk.0.qkv", "--tokens", tokens, "--text"];
        sotto().args(args).arg(&path).output().unwrap()
    };
    let output = audit("500");
    assert_eq!(output.status.code(), Some(2));
    assert!(errors(&output).contains("500 are needed"), "{}", errors(&output));
    let output = audit("8");
    assert!(output.status.success(), "{}", errors(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    // The table names the round, both attacks and the budget.
    for part in
        ["blk.0.qkv of smollm2-135m", "960 x 576", "144  100.0000 %", "384 tokens", "528 tokens", "1000000"]
    {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    assert!(text.contains("did not give every weight"), "{text}");
}

#[test]
fn what_cannot_be_attacked_is_a_usage_error() {
    for (arguments, part) in [
        (["--layer", "blk.99.qkv"], "blk.0.qkv"),
        (["--tokens", "0"], "at least 1"),
        (["--model", "no-such-model"], "no-such-model"),
    ] {
        let output = sotto().args(["audit", "extraction", "--quiet"]).args(arguments).output().unwrap();
        assert!(!output.status.success() && output.stdout.is_empty());
        assert!(errors(&output).contains(part), "{}", errors(&output));
    }
}

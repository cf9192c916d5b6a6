//! What each part of a split holds, and that damaged parts are refused.

use crate::support;
use sotto_models::source::ModelSource;
use sotto_models::split::plan::PlanKind;
use sotto_models::split::{ClientPart, ProtocolBinding, ServerPart, SplitParts, is_current, split, split_to};
use sotto_testing::tiny::Tiny;
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Weights that make up a fingerprint of a row.
const RUN: usize = 16;

/// Runs of consecutive weights that occur in the server's part, as bytes of every type they could be stored in.
struct Fingerprints {
    /// By length in bytes.
    known: Vec<(usize, HashSet<Vec<u8>>)>,
    /// The first three bytes of any of them, to look up most positions at no cost.
    beginnings: Vec<bool>,
}

impl Fingerprints {
    fn of(source: &ModelSource, parts: &SplitParts) -> Self {
        let family = &source.config;
        let [mut int8, mut half, mut float] = [(); 3].map(|()| HashSet::<Vec<u8>>::new());
        let plain = family.plan(PlanKind::Plain).unwrap();
        // The float weights as they are in the file, and as the plan has them.
        for plan in [&plain, &parts.plan] {
            for round in 0..plan.rounds.len() {
                for matrix in family.round_weights(&*source.weights, plan, round).unwrap() {
                    let cols = matrix.dims()[1];
                    let values = matrix.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                    for run in values.chunks_exact(cols).filter_map(|row| row.get(..RUN)) {
                        float.insert(run.iter().flat_map(|w| w.to_le_bytes()).collect());
                        half.insert(
                            run.iter().flat_map(|w| half::bf16::from_f32(*w).to_le_bytes()).collect(),
                        );
                        half.insert(run.iter().flat_map(|w| half::f16::from_f32(*w).to_le_bytes()).collect());
                    }
                }
            }
        }
        for matrix in parts.server.iter().flat_map(|round| &round.matrices) {
            for run in matrix.weights.chunks_exact(matrix.cols).filter_map(|row| row.get(..RUN)) {
                int8.insert(run.iter().map(|w| w.cast_unsigned()).collect());
            }
        }
        let known = vec![(RUN, int8), (2 * RUN, half), (4 * RUN, float)];
        let mut beginnings = vec![false; 1 << 24];
        for (_, set) in &known {
            assert!(set.len() > 100, "too few fingerprints");
            for run in set {
                beginnings[beginning(run)] = true;
            }
        }
        Self { known, beginnings }
    }

    /// Where in `bytes` a run of the server's weights begins.
    fn find(&self, bytes: &[u8]) -> Option<usize> {
        (0..bytes.len().saturating_sub(RUN)).find(|&at| {
            self.beginnings[beginning(&bytes[at..])]
                && self
                    .known
                    .iter()
                    .any(|(length, set)| bytes.get(at..at + length).is_some_and(|run| set.contains(run)))
        })
    }
}

fn beginning(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) | usize::from(bytes[1]) << 8 | usize::from(bytes[2]) << 16
}

fn protocol() -> ProtocolBinding {
    ProtocolBinding { tau: 64, params_id: "params".into() }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn no_linear_weight_is_in_the_client_part(source: &ModelSource, kind: PlanKind) {
    let parts = split(source, kind, |_| ()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    parts.write(directory.path(), &protocol()).unwrap();
    let fingerprints = Fingerprints::of(source, &parts);
    let client = files(&directory.path().join("client").join(kind.as_str()));
    assert!(client.len() >= 6, "{client:?}");
    for file in client {
        let found = fingerprints.find(&fs::read(&file).unwrap());
        assert_eq!(found, None, "a linear weight in {}", file.display());
    }
    // The search finds what is there: every server weight, and a row hidden at an odd place.
    let server = directory.path().join("server").join(kind.as_str()).join("weights.safetensors");
    let bytes = fs::read(server).unwrap();
    assert!(fingerprints.find(&bytes).is_some());
    let row = parts.server[1].matrices[0].weights[..RUN].iter().map(|w| w.cast_unsigned());
    let hidden: Vec<u8> = [0; 1001].into_iter().chain(row).chain([0; 9]).collect();
    assert_eq!(fingerprints.find(&hidden), Some(1001));
}

#[test]
fn smollm2s_client_part_has_no_linear_weight() {
    // Its head is tied to the embedding, which the client needs and has: that matrix is no remote layer.
    for kind in [PlanKind::Plain, PlanKind::Fused] {
        no_linear_weight_is_in_the_client_part(&support::smollm2(), kind);
    }
}

fn tiny_source(tiny: &Tiny) -> (ModelSource, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    tiny.write_directory(directory.path());
    (ModelSource::open(directory.path()).unwrap(), directory)
}

#[test]
fn an_untied_heads_client_part_has_no_linear_weight() {
    for tiny in [Tiny::llama(), Tiny::qwen3()] {
        let (source, _directory) = tiny_source(&tiny);
        for kind in [PlanKind::Plain, PlanKind::Fused] {
            no_linear_weight_is_in_the_client_part(&source, kind);
        }
    }
}

#[test]
fn the_client_part_holds_exactly_these_tensors() {
    let (source, _directory) = tiny_source(&Tiny::llama());
    let names = |kind| {
        let local = source.config.local_tensors(&*source.weights, kind).unwrap();
        local.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    // The head is untied and the gains are folded: nothing but the embedding is left.
    assert_eq!(names(PlanKind::Fused), [""; 0]);
    assert_eq!(names(PlanKind::Plain).len(), 1 + 2 * 3);
}

#[test]
fn both_plans_have_the_rounds_they_promise() {
    let smollm2 = support::smollm2();
    let (untied, _directory) = tiny_source(&Tiny::llama());
    for (source, blocks, head) in [(&smollm2, 30, 0), (&untied, 3, 1)] {
        let family = &source.config;
        let [plain, fused] = [PlanKind::Plain, PlanKind::Fused].map(|kind| family.plan(kind).unwrap());
        plain.validate().unwrap();
        fused.validate().unwrap();
        assert_eq!(plain.rounds.len(), 4 * blocks + head);
        assert_eq!(fused.rounds.len(), 2 * blocks + 1);
        assert_eq!(plain.rows(), fused.rows());
    }
    let plan = smollm2.config.plan(PlanKind::Plain).unwrap();
    // As the design document counts them.
    assert_eq!(plan.rows(), 155_520);
}

#[test]
fn the_same_model_gives_the_same_digest_and_anything_else_another() {
    let (source, _directory) = tiny_source(&Tiny::qwen2());
    let digest = |kind, protocol: &ProtocolBinding| {
        let directory = tempfile::tempdir().unwrap();
        split(&source, kind, |_| ()).unwrap().write(directory.path(), protocol).unwrap()
    };
    let first = digest(PlanKind::Plain, &protocol());
    assert_eq!(first, digest(PlanKind::Plain, &protocol()));
    assert_ne!(first, digest(PlanKind::Fused, &protocol()));
    assert_ne!(first, digest(PlanKind::Plain, &ProtocolBinding { tau: 256, ..protocol() }));
    assert_ne!(first, digest(PlanKind::Plain, &ProtocolBinding { params_id: "other".into(), tau: 64 }));
}

#[test]
fn writing_while_splitting_gives_the_same_files() {
    for tiny in [Tiny::llama(), Tiny::qwen2()] {
        let (source, _directory) = tiny_source(&tiny);
        for kind in [PlanKind::Plain, PlanKind::Fused] {
            let [whole, streamed] = [(); 2].map(|()| tempfile::tempdir().unwrap());
            let digest = split(&source, kind, |_| ()).unwrap().write(whole.path(), &protocol()).unwrap();
            let rounds = std::sync::atomic::AtomicUsize::new(0);
            let count = |of: usize| {
                rounds.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                assert_eq!(of, source.config.plan(kind).unwrap().rounds.len());
            };
            assert_eq!(split_to(&source, kind, streamed.path(), &protocol(), count).unwrap(), digest);
            assert_eq!(rounds.into_inner(), source.config.plan(kind).unwrap().rounds.len());
            for side in ["client", "server"] {
                let part = |root: &tempfile::TempDir| root.path().join(side).join(kind.as_str());
                let names = |root| -> Vec<_> {
                    files(&part(root)).into_iter().map(|file| file.file_name().unwrap().to_owned()).collect()
                };
                assert_eq!(names(&whole), names(&streamed));
                for name in names(&whole) {
                    let read = |root| fs::read(part(root).join(&name)).unwrap();
                    assert!(read(&whole) == read(&streamed), "{side} {name:?}");
                }
            }
        }
    }
}

#[test]
fn a_loaded_embedding_is_the_int8_one() {
    let (source, _directory) = tiny_source(&Tiny::qwen2());
    let parts = split(&source, PlanKind::Plain, |_| ()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    parts.write(directory.path(), &protocol()).unwrap();
    let loaded = ClientPart::load(directory.path().join("client/plain")).unwrap().part;
    let all: Vec<u32> = (0..50).collect();
    let rows = |part: &ClientPart| part.embedding.rows(&all).unwrap().to_vec2::<f32>().unwrap();
    let (float, int8) = (rows(&parts.client), rows(&loaded));
    for (float, int8) in float.iter().flatten().zip(int8.iter().flatten()) {
        // Weights are up to 0.25, so half a step of a block is up to 0.001.
        assert!((float - int8).abs() < 1.1e-3, "{float} became {int8}");
    }
    // A byte a weight, and four for every 32 of them.
    assert_eq!(loaded.embedding.bytes(), 50 * 64 * 36 / 32);
    assert_eq!(parts.client.embedding.bytes(), 50 * 64 * 4);
}

#[test]
fn parts_of_an_older_version_are_to_be_made_again() {
    let (_directory, client, server) = tiny_split();
    assert!(is_current(&client) && is_current(&server));
    for part in [&client, &server] {
        let manifest = part.join("manifest.json");
        let text = fs::read_to_string(&manifest).unwrap();
        fs::write(&manifest, text.replacen("\"format_version\": 2", "\"format_version\": 1", 1)).unwrap();
        assert!(!is_current(part));
    }
    for error in [ClientPart::load(&client).err(), ServerPart::open(&server).err()] {
        let error = error.unwrap().to_string();
        assert!(error.contains("expected 2, got 1") && error.contains("split the model again"), "{error}");
    }
    assert!(!is_current(&client.join("nothing")));
}

/// A written split of a tiny model.
fn tiny_split() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let (source, _directory) = tiny_source(&Tiny::llama());
    let directory = tempfile::tempdir().unwrap();
    split(&source, PlanKind::Plain, |_| ()).unwrap().write(directory.path(), &protocol()).unwrap();
    let [client, server] = ["client", "server"].map(|part| directory.path().join(part).join("plain"));
    (directory, client, server)
}

#[cfg(unix)]
#[test]
fn whoever_may_read_the_manifest_may_read_the_weights() {
    use std::os::unix::fs::PermissionsExt;
    // One user splits, another serves.
    let (_directory, client, server) = tiny_split();
    let mode = |file: &Path| fs::metadata(file).unwrap().permissions().mode() & 0o777;
    for part in [client, server] {
        let expected = mode(&part.join("manifest.json"));
        for file in files(&part) {
            assert_eq!(mode(&file), expected, "{}", file.display());
        }
    }
}

#[test]
fn any_changed_bit_of_the_client_part_is_noticed() {
    let (_directory, client, _) = tiny_split();
    ClientPart::load(&client).unwrap();
    for file in files(&client) {
        let original = fs::read(&file).unwrap();
        for at in [original.len() / 3, original.len() / 2, original.len() - 2] {
            let mut changed = original.clone();
            changed[at] ^= 1;
            fs::write(&file, &changed).unwrap();
            assert!(ClientPart::load(&client).is_err(), "byte {at} of {}", file.display());
        }
        for shorter in [0, original.len() - 2] {
            fs::write(&file, &original[..shorter]).unwrap();
            assert!(ClientPart::load(&client).is_err(), "{} cut to {shorter}", file.display());
        }
        fs::remove_file(&file).unwrap();
        let error = ClientPart::load(&client).err().expect("a file is missing").to_string();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        assert!(error.contains(&name), "{error} does not name {name}");
        fs::write(&file, &original).unwrap();
    }
    ClientPart::load(&client).unwrap();
}

#[test]
fn damaged_server_parts_are_refused() {
    let (_directory, _, server) = tiny_split();
    let weights = server.join("weights.safetensors");
    let original = fs::read(&weights).unwrap();
    let mut changed = original.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(&weights, &changed).unwrap();
    assert!(ServerPart::open(&server).unwrap().verify().is_err());
    fs::write(&weights, &original[..original.len() - 1]).unwrap();
    assert!(ServerPart::open(&server).is_err());
    fs::write(&weights, &original).unwrap();

    let manifest = server.join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    for (from, to) in [
        ("\"format_version\": 2", "\"format_version\": 1"),
        ("\"format_version\": 2", "\"format_version\": 3"),
        ("\"d_in\": 64", "\"d_in\": 63"),
        ("\"rows\": 32", "\"rows\": 33"),
        ("\"blk.0.attn_q\"", "\"blk.0.attn_k\""),
        ("\"model\"", "\"modle\""),
        ("weights.safetensors", "../weights.safetensors"),
    ] {
        assert!(text.contains(from), "{from}");
        fs::write(&manifest, text.replacen(from, to, 1)).unwrap();
        assert!(ServerPart::open(&server).is_err(), "{to}");
    }
    fs::write(&manifest, text).unwrap();
    ServerPart::open(&server).unwrap().verify().unwrap();
}

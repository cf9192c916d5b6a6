//! The published digests are those of the splits that this program makes of its built-in models.

use std::collections::BTreeSet;

use fhe_layers::Set;
use sotto_client::published::PUBLISHED;
use sotto_engine::embedded::local_model;
use sotto_engine::fetch::{BUILTINS, ModelRef, Shape, fetch};
use sotto_models::source::ModelSource;
use sotto_models::split::plan::PlanKind;
use sotto_models::split::{ClientPart, ServerPart};
use sotto_protocol::binding::binding_of;
use sotto_storage::{Cache, NoProgress};

#[test]
#[ignore = "fetches and splits every built-in model: some minutes, and three gigabytes of disk"]
fn published_splits_are_those_made_here() {
    // Splits of earlier versions of this program may be in the user's cache: models from there, splits made anew.
    let (own, place) = (Cache::from_env().unwrap(), tempfile::tempdir().unwrap());
    let cache = Cache::at(place.path());
    std::fs::create_dir_all(place.path()).unwrap();
    std::os::unix::fs::symlink(own.root().join("models"), place.path().join("models")).unwrap();
    let mut made = BTreeSet::new();
    for builtin in BUILTINS {
        let model = ModelRef::parse(builtin.name).unwrap();
        for plan in [PlanKind::Plain, PlanKind::Fused] {
            let binding = binding_of(Set::Default, 64).unwrap();
            let Ok(local) = local_model(&model, plan, &binding, &cache, &NoProgress) else {
                println!("{} has no {plan} plan, or is not here", builtin.name);
                continue;
            };
            let digest = ClientPart::load(local.client_directory()).unwrap().digest;
            let part = ServerPart::open(local.server_directory()).unwrap();
            assert_eq!(part.digest_under(&binding).unwrap(), digest);
            for (set, tau) in Set::ALL.into_iter().flat_map(|set| [64, 128, 256].map(|tau| (set, tau))) {
                let digest = part.digest_under(&binding_of(set, tau).unwrap()).unwrap().to_string();
                let set = set.to_string();
                println!("    split({:?}, {:?}, {set:?}, {tau}, {digest:?}),", builtin.name, plan.as_str());
                made.insert((builtin.name, plan.as_str().to_owned(), set, tau, digest));
            }
            std::fs::remove_dir_all(&local.directory).unwrap();
        }
    }
    let published: BTreeSet<_> = PUBLISHED
        .iter()
        .map(|split| {
            (split.model, split.plan.to_owned(), split.set.to_owned(), split.tau, split.digest.to_owned())
        })
        .collect();
    assert_eq!(published, made);
}

#[test]
#[ignore = "fetches every built-in model"]
fn shapes_of_built_in_models_are_those_of_their_files() {
    let cache = Cache::from_env().unwrap();
    for builtin in BUILTINS {
        let fetched = fetch(&ModelRef::Builtin(builtin), &cache, &NoProgress).unwrap();
        let source = ModelSource::open(&fetched.path).unwrap();
        let shape = Shape::of(&source, PlanKind::Plain).unwrap();
        println!("{}: {shape:?}", builtin.name);
        let off = builtin.shape.client_bytes as f64 / shape.client_bytes as f64 - 1.0;
        assert!(off.abs() < 0.05, "{}: {off}", builtin.name);
        assert_eq!(Shape { client_bytes: shape.client_bytes, ..builtin.shape }, shape, "{}", builtin.name);
    }
}

//! Whose client part a server's model has, in words.

use std::path::Path;

use sotto_client::Connected;
use sotto_models::split::ModelDigest;
use sotto_storage::Cache;

use crate::session::Padding;

/// Says whose client part is in use: it renders and reads every text.
pub(crate) fn describe(connected: &Connected, padding: Padding) -> String {
    match connected.published {
        Some(published) => format!(
            "client part: the published one of {} ({}, {} set, tau {})",
            published.model, published.plan, published.set, published.tau
        ),
        None => format!(
            "client part: the server's own. Its tokenizer, chat template and end of text are what this server says they \
             are; prompts are padded to multiples of {} tokens and answers to multiples of {} passes",
            padding.prompt, padding.answer
        ),
    }
}

/// The name of a model on this machine that has, or whose split would have, the digest of the connected one.
pub(crate) fn own_copy(cache: &Cache, connected: &Connected) -> Option<String> {
    if let Some(published) = connected.published {
        return cache.model(published.model).is_dir().then(|| published.model.to_owned());
    }
    let has_digest = |split: &Path| {
        let sets = std::fs::read_dir(split).into_iter().flatten().flatten();
        sets.map(|set| set.path().join("server").join(connected.plan.as_str()).join("manifest.json"))
            .filter_map(|manifest| std::fs::read(manifest).ok())
            .any(|manifest| ModelDigest::of(&manifest).0 == connected.digest)
    };
    let mut splits = std::fs::read_dir(cache.split("")).ok()?.flatten();
    splits.find(|split| has_digest(&split.path()))?.file_name().into_string().ok()
}

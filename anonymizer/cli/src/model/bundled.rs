//! The detector that this program carries: the one of `anonymizer/training`, for 30 languages in their own scripts.

use std::fs;
use std::path::{Path, PathBuf};

use sotto_storage::{Cache, StorageError};

use crate::error::Result;

/// The files of the model's directory. They are in the program, so nothing has to be fetched.
const FILES: [(&str, &[u8]); 4] = [
    ("config.json", include_bytes!("../../../training/model/config.json")),
    ("model.safetensors", include_bytes!("../../../training/model/model.safetensors")),
    ("tokenizer.json", include_bytes!("../../../training/model/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../../../training/model/tokenizer_config.json")),
];

/// First digits of the SHA-256 of the weights, which the model card names whole: weights of another release get another
/// directory.
const VERSION: &str = "c96ff6433938";

/// The directory of the model in the cache, written anew if a file is missing or is not what this program carries.
///
/// # Errors
/// If the cache cannot be written.
pub(super) fn unpack(cache: &Cache) -> Result<PathBuf> {
    // The last part is the model's name. It is the same as in the repository, so that a split that somebody makes of the
    // directory there has the same digest.
    let directory = cache.model(&format!("trained-detector-{VERSION}")).join("model");
    if is_whole(&directory) {
        return Ok(directory);
    }
    let write = || {
        let _lock = cache.lock("trained-detector")?;
        // Another process may have written it while this one waited.
        if is_whole(&directory) {
            return Ok(());
        }
        let stage = cache.stage("trained-detector")?;
        let fresh = stage.path().join("model");
        fs::create_dir(&fresh).map_err(StorageError::io(&fresh))?;
        for (name, bytes) in FILES {
            let path = fresh.join(name);
            fs::write(&path, bytes).map_err(StorageError::io(&path))?;
        }
        cache.install(&fresh, &directory)
    };
    write().map_err(sotto_protocol::Error::from)?;
    Ok(directory)
}

fn is_whole(directory: &Path) -> bool {
    FILES.iter().all(|(name, bytes)| fs::read(directory.join(name)).is_ok_and(|found| found == *bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    #[test]
    fn a_damaged_copy_is_written_anew() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path());
        let directory = unpack(&cache).unwrap();
        assert!(directory.ends_with(format!("trained-detector-{VERSION}/model")));
        let config = directory.join("config.json");
        fs::write(&config, "{}").unwrap();
        assert_eq!(unpack(&cache).unwrap(), directory);
        assert_eq!(fs::read(&config).unwrap(), FILES[0].1);
    }

    #[test]
    fn the_version_is_that_of_the_weights() {
        assert!(hex::encode(Sha256::digest(FILES[1].1)).starts_with(VERSION));
    }
}

//! Secrets among the arguments: a file (`@FILE`), a variable, or, with a warning, the command line itself.

use std::io::Read;
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// Bytes of a file with a secret.
const MAX_BYTES: u64 = 64 << 10;

/// The secret that an option or its variable names; empty is none.
///
/// # Errors
/// If its file cannot be read or holds no text.
pub(super) fn secret(option: &str, variable: &str, given: Option<&str>) -> Result<Option<Zeroizing<String>>> {
    let Some(given) = given.map(str::trim).filter(|given| !given.is_empty()) else { return Ok(None) };
    if let Some(path) = given.strip_prefix('@') {
        let secret = read(Path::new(path))?;
        if secret.is_empty() {
            return Err(Error::Usage(format!("{option}: {path} is empty")));
        }
        return Ok(Some(secret));
    }
    if std::env::var(variable).is_ok_and(|value| value.trim() == given) {
        return Ok(Some(Zeroizing::new(given.to_owned())));
    }
    eprintln!(
        "anonymize: {option} on the command line can be read by every user of this machine; use {option} @FILE or {variable}"
    );
    Ok(Some(Zeroizing::new(given.to_owned())))
}

/// The first line of a file.
fn read(path: &Path) -> Result<Zeroizing<String>> {
    let failed = |error| Error::io("reading", path, error);
    let mut bytes = Zeroizing::new(Vec::new());
    std::fs::File::open(path).map_err(failed)?.take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| {
        Error::Usage(format!("{} is no text; a file with a secret has it in its first line", path.display()))
    })?;
    Ok(Zeroizing::new(text.lines().next().unwrap_or_default().trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_come_from_files_and_empty_ones_are_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "sk-1\nmore\n").unwrap();
        let named = format!("@{}", file.path().display());
        let given = |text: &str| secret("--key", "SOTTO_NO_SUCH", Some(text));
        assert_eq!(given(&named).unwrap().unwrap().as_str(), "sk-1");
        assert!(given("").unwrap().is_none() && given(" ").unwrap().is_none());
        assert!(given("@/no/such/file").is_err());
        std::fs::write(file.path(), "\n").unwrap();
        assert!(given(&named).is_err());
        std::fs::write(file.path(), [0xff, b'\n']).unwrap();
        assert!(given(&named).unwrap_err().to_string().contains("no text"));
    }
}

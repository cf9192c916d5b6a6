//! Named checks: a measurement that is wrong is not a measurement.

use serde::Serialize;

/// One check of a run: what was compared, and how it came out.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What must hold, in a few words.
    pub name: String,
    /// Whether it held.
    pub ok: bool,
    /// The two sides of the comparison.
    pub detail: String,
}

/// The checks of one run, kept in order and published with its figures.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Checks(Vec<Check>);

impl Checks {
    /// No checks yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that `name` held or not; a failure is also told on stderr at once.
    pub fn that(&mut self, name: impl Into<String>, ok: bool, detail: impl Into<String>) {
        let check = Check { name: name.into(), ok, detail: detail.into() };
        if !ok {
            eprintln!("CHECK FAILED: {}: {}", check.name, check.detail);
        }
        self.0.push(check);
    }

    /// `got <= limit`, NaN failing.
    pub fn at_most(&mut self, name: impl Into<String>, got: f64, limit: f64) {
        self.that(name, got <= limit, format!("got {got:.6}, limit {limit:.6}"));
    }

    /// `got >= limit`, NaN failing.
    pub fn at_least(&mut self, name: impl Into<String>, got: f64, limit: f64) {
        self.that(name, got >= limit, format!("got {got:.6}, limit {limit:.6}"));
    }

    /// Appends the checks of a part of the run.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Whether every check held (true when there were none).
    #[must_use]
    pub fn all_ok(&self) -> bool {
        self.0.iter().all(|check| check.ok)
    }

    /// How many checks there were.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was checked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Ends the run: an error naming the failed checks, or one saying that nothing was checked.
    ///
    /// # Errors
    /// If a check failed, or if there was none: a figure without a check is not published.
    pub fn finish(&self) -> anyhow::Result<()> {
        if self.is_empty() {
            anyhow::bail!("the run checked nothing");
        }
        let failed: Vec<&str> = self.0.iter().filter(|c| !c.ok).map(|c| c.name.as_str()).collect();
        if failed.is_empty() { Ok(()) } else { anyhow::bail!("checks failed: {}", failed.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_fails_and_nothing_checked_fails() {
        let mut checks = Checks::new();
        assert!(checks.finish().is_err());
        checks.at_most("finite", 1.0, 2.0);
        assert!(checks.finish().is_ok());
        checks.at_most("nan", f64::NAN, 2.0);
        assert!(checks.finish().unwrap_err().to_string().contains("nan"));
    }
}

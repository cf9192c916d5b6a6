//! Finding a model's features among the columns of a table.

use std::fmt;

/// Where a model's features are among a table's columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// Per feature, the index of its column.
    pub places: Vec<usize>,
    /// Columns that are no features.
    pub left_out: Vec<String>,
    /// Whether they were found by name; if not, by place.
    pub by_name: bool,
}

/// Why a table's columns do not fit a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// A feature's column occurs twice.
    Twice(String),
    /// Features without a column.
    Missing {
        /// Number of columns.
        columns: usize,
        /// Number of features.
        features: usize,
        /// The first few that have none.
        missing: Vec<String>,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Twice(name) => write!(f, "has two columns called {name}"),
            Self::Missing { columns, features, missing } => write!(
                f,
                "has {columns} columns where the model has {features} features; not among them: {}",
                missing.join(", ")
            ),
        }
    }
}

/// Names that a mismatch lists.
const MAX_LISTED: usize = 5;

/// Finds `features` among the names of columns: in any order, others left out. Features whose names were made up (`f0`,
/// `f1`, ...) because the model's file has none are the columns in their order if there are as many.
///
/// # Errors
/// Which feature is missing or occurs twice.
pub fn find(features: &[&str], names: &[String]) -> Result<Columns, Mismatch> {
    let mut first = std::collections::HashMap::with_capacity(names.len());
    let mut doubled = std::collections::HashSet::new();
    for (index, name) in names.iter().enumerate() {
        if first.insert(name.as_str(), index).is_some() {
            doubled.insert(name.as_str());
        }
    }
    let places: Option<Vec<usize>> = features.iter().map(|feature| first.get(feature).copied()).collect();
    if let Some(places) = places {
        if let Some(twice) = features.iter().find(|feature| doubled.contains(*feature)) {
            return Err(Mismatch::Twice((*twice).to_owned()));
        }
        let used: std::collections::HashSet<usize> = places.iter().copied().collect();
        let unused = names.iter().enumerate().filter(|(index, _)| !used.contains(index));
        let left_out = unused.map(|(_, name)| name.clone()).collect();
        return Ok(Columns { places, left_out, by_name: true });
    }
    let made_up = features.iter().enumerate().all(|(index, name)| *name == format!("f{index}"));
    if made_up && names.len() == features.len() {
        return Ok(Columns { places: (0..names.len()).collect(), left_out: Vec::new(), by_name: false });
    }
    let missing = features.iter().filter(|feature| !first.contains_key(*feature)).take(MAX_LISTED);
    Err(Mismatch::Missing {
        columns: names.len(),
        features: features.len(),
        missing: missing.map(|name| (*name).to_owned()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split(' ').map(ToOwned::to_owned).collect()
    }

    #[test]
    fn features_are_found_by_name_or_by_place_if_they_have_none() {
        let found = find(&["a", "b"], &names("note b a")).unwrap();
        assert_eq!((found.places, found.left_out), (vec![2, 1], names("note")));
        assert_eq!(find(&["f0", "f1"], &names("age sex")).unwrap().places, [0, 1]);
        // Names that are there win over places.
        assert_eq!(find(&["f0", "f1"], &names("f1 f0")).unwrap().places, [1, 0]);
        assert_eq!(find(&["a", "b"], &names("a b a")).unwrap_err(), Mismatch::Twice("a".into()));
        assert_eq!(find(&["a"], &names("a x x")).unwrap().left_out, names("x x"));
        let error = find(&["a", "b"], &names("a c")).unwrap_err().to_string();
        assert!(error.contains("2 features; not among them: b"), "{error}");
        assert!(find(&["f0", "f1"], &names("age")).is_err());
    }
}

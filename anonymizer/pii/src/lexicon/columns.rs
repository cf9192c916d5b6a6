//! Names of columns, fields and keys: what the values under them are.

use super::Lexicon;
use crate::detect::Entity;

/// What the name of a column says about its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    /// One type.
    Is(Entity),
    /// A person's name in full.
    Person,
    /// A person or a thing; a person's name only if the model thinks so too.
    Party,
    /// A street with its number, perhaps with a part of the building.
    StreetLine,
    /// Nothing personal.
    NotPersonal,
}

use Column::{Is, NotPersonal, Party, Person, StreetLine};

impl Column {
    /// The column that a data file calls so: a type's label, `PERSON`, `PARTY`, `STREET_LINE` or `NOT_PERSONAL`.
    pub(super) fn from_label(label: &str) -> Option<Self> {
        match label {
            "PERSON" => Some(Person),
            "PARTY" => Some(Party),
            "STREET_LINE" => Some(StreetLine),
            "NOT_PERSONAL" => Some(NotPersonal),
            label => Entity::from_label(label).map(Is),
        }
    }
}

/// Words of a name: separators, and capitals after small letters, divide it (`home_phone`, `firstName`).
fn parts(name: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    let mut small = false;
    let mut open = false;
    for c in name.chars() {
        if !c.is_alphanumeric() {
            // "driver's" is one word.
            open = open && matches!(c, '\'' | '\u{2019}');
            continue;
        }
        if !open || (small && c.is_uppercase()) {
            parts.push(String::new());
        }
        if let Some(part) = parts.last_mut() {
            part.extend(c.to_lowercase());
        }
        (small, open) = (c.is_lowercase(), true);
    }
    parts
}

impl Lexicon {
    /// What a name says by itself. It counts also after other words (`home_phone`), the longest that fits.
    pub(crate) fn column(&self, name: &str) -> Option<Column> {
        let parts = parts(name);
        (0..parts.len()).find_map(|first| {
            let column = *self.columns.get(&parts[first..].concat())?;
            // "File name", "bank account holder's dog": the word before one for a person may change it.
            let bare = matches!(column, Person | Party) && first > 0;
            (!bare).then_some(column)
        })
    }

    /// What the names of all columns of a table say.
    pub(crate) fn columns(&self, names: &[String]) -> Vec<Option<Column>> {
        let whole: Vec<String> = names.iter().map(|name| parts(name).concat()).collect();
        let has = |name: &str| whole.iter().any(|own| own == name);
        let pair = |own: &str| {
            let mut pairs = self.column_pairs.iter();
            pairs.find(|(name, beside, _)| name == own && has(beside)).map(|(_, _, entity)| Is(*entity))
        };
        let mut columns: Vec<Option<Column>> =
            names.iter().zip(&whole).map(|(name, own)| pair(own).or_else(|| self.column(name))).collect();
        // States, and parts of buildings, are many other things too: they need an address around them.
        let addressed = columns
            .iter()
            .any(|column| matches!(column, Some(Is(Entity::City | Entity::ZipCode) | StreetLine)));
        if !addressed {
            for column in &mut columns {
                if matches!(column, Some(Is(Entity::State | Entity::SecondaryAddress))) {
                    *column = None;
                }
            }
        }
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::super::lexicon;
    use super::*;

    #[test]
    fn names_say_what_their_values_are() {
        assert_eq!(lexicon().column("home_phone"), Some(Is(Entity::PhoneNumber)));
        assert_eq!(lexicon().column("firstName"), Some(Is(Entity::GivenName)));
        assert_eq!(lexicon().column("Driver's License"), Some(Is(Entity::DriversLicense)));
        assert_eq!(lexicon().column("customer_id"), Some(NotPersonal));
        assert_eq!(lexicon().column("full_name"), Some(Person));
        assert_eq!(lexicon().column("file name"), Some(NotPersonal));
        assert_eq!(lexicon().column("plugin name"), None);
        assert_eq!(lexicon().column("capacity"), None);
    }

    #[test]
    fn other_columns_explain_a_name() {
        let of = |names: &str| lexicon().columns(&names.split(',').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(of("Name,Vorname")[0], Some(Is(Entity::Surname)));
        assert_eq!(of("name,city")[0], Some(Party));
        assert_eq!(of("id,state"), [Some(NotPersonal), None]);
        assert_eq!(of("city,state")[1], Some(Is(Entity::State)));
    }
}

//! Word lists, read from the data files in `anonymizer/data`.
//!
//! | file | content |
//! |---|---|
//! | `lexicon/<language>.toml` | titles, greetings, keywords before numbers, names of columns, ... |
//! | `country/<code>.toml` | regions, states, street suffixes |
//! | `brands.toml`, `codes.toml`, `hosts.toml`, `postcodes.toml` | what belongs to no language |
//!
//! All files share one schema, in which every list is optional. Lists of the same name are joined: a text is not
//! assumed to be in one language. Each file names its source and licence.

mod columns;

use std::collections::{BTreeMap, HashSet};
use std::sync::LazyLock;

use serde::Deserialize;

use crate::detect::Entity;

pub(crate) use columns::Column;

/// A set of words or phrases. Lower case, unless the list says otherwise.
#[derive(Debug, Default)]
pub(crate) struct WordSet(HashSet<String>);

impl WordSet {
    pub(crate) fn contains(&self, word: &str) -> bool {
        self.0.contains(word)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// What a keyword says about the value after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// It is of this type.
    Is(Entity),
    /// It is an order number, a version or the like.
    NotPersonal,
}

/// A column whose name only another column of the same table explains: `name` next to `vorname` is a surname.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ColumnPair {
    name: String,
    beside: String,
    #[serde(rename = "type")]
    label: String,
}

macro_rules! word_lists {
    ($($(#[doc = $doc:literal])* $name:ident,)+) => {
        /// A data file.
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct DataFile {
            source: String,
            licence: String,
            $($name: Vec<String>,)+
            keywords: BTreeMap<String, Vec<String>>,
            announced: BTreeMap<String, Vec<String>>,
            columns: BTreeMap<String, Vec<String>>,
            column_pairs: Vec<ColumnPair>,
            states: BTreeMap<String, String>,
            forms: Vec<String>,
        }

        /// All word lists.
        #[derive(Debug, Default)]
        pub(crate) struct Lexicon {
            $($(#[doc = $doc])* pub(crate) $name: WordSet,)+
            /// Keywords before a number or code. Each occurs once.
            pub(crate) keywords: Vec<(String, Meaning)>,
            /// Keywords again, to look one up.
            keyword_set: HashSet<String>,
            /// Words directly before a value that need not be a number: "born", "user name".
            pub(crate) announced: Vec<(String, Entity)>,
            /// Names of columns, fields and keys in lower case without separators.
            columns: BTreeMap<String, Column>,
            column_pairs: Vec<(String, String, Entity)>,
            /// Abbreviations and names of the states of the United States.
            pub(crate) states: Vec<(String, String)>,
            /// Forms of postcodes: `9` is a digit, `A` a letter, and a space may be missing.
            pub(crate) postcode_forms: Vec<String>,
        }

        impl Lexicon {
            fn join_lists(&mut self, file: &mut DataFile) {
                $(self.$name.0.extend(std::mem::take(&mut file.$name));)+
            }

            /// Lists by name, for a check of the data.
            #[cfg(test)]
            fn lists(&self) -> Vec<(&'static str, &WordSet)> {
                vec![$((stringify!($name), &self.$name),)+]
            }
        }
    };
}

word_lists! {
    /// Titles before a surname, and other words that announce one: "Mrs", "familie", "née".
    titles,
    /// Titles that may be the label of a surname on a form: "Doctor: Okafor".
    titles_as_labels,
    /// Forms of address in passenger lists.
    passenger_titles,
    /// Kinds of passengers: child, infant.
    passenger_kinds,
    /// Words inside a name that are not capitalised: "de", "van".
    name_particles,
    /// Words after which a full name is likely, also with the surname first.
    name_holders,
    /// Words after which a name is likely.
    cues,
    /// Last words of the line before a signature.
    closings,
    /// Greetings, followed by a given name.
    greetings,
    /// Words before the name of a brand: "make", "marque".
    brand_words,
    /// Articles of languages in which only names are capitalised.
    articles,
    /// "and", between two people who sign.
    and,
    /// What stands between the parties of a case, with the spaces around it.
    versus,
    /// Words of a mailbox name that belong to no person.
    mailboxes,
    /// Words that are no name on their own: relatives, weekdays, products.
    no_names,
    /// After a name, these make it the name of a thing: laws, dishes, companies.
    named_things,
    /// Capitalised after a name, these make it the name of a company.
    company_words,
    /// After "and", these make what precedes it the name of a company: "Miller & Sons".
    company_partners,
    /// Brands.
    brands,
    /// The word after one of these is the name of a vehicle.
    vehicle_makers,
    /// Names of parts of a building.
    units,
    /// Parts of a building that may go without a number.
    units_without_number,
    /// Numbered things that are no part of an address: "seat", "gate".
    numbered_things,
    /// Last words of street names.
    street_words,
    /// Those that mean nothing else and may begin in lower case.
    street_words_only,
    /// Abbreviations and words before a street name that belong to it: "ul.", "via".
    street_prefixes,
    /// First words of street names in languages that put the kind of street first.
    street_first_words,
    /// Ends of street names written as one word, for a number that follows.
    street_endings_sure,
    /// Ends of street names written as one word, also after a number.
    street_endings,
    /// Last words of street names in the United States beyond `street_words`.
    street_suffixes,
    /// Words after which a number is part of the street's name: "County Road 14".
    streets_with_numbers,
    /// Phrases before the town where someone lives.
    home_phrases,
    /// Words that announce a postcode.
    postcode_words,
    /// First words of names of towns that are not a name on their own.
    town_openers,
    /// Words inside names of streets and towns that are not capitalised.
    place_particles,
    /// What stands between the place and the day at the head of a letter.
    letter_dating,
    /// Words before a version number.
    version_words,
    /// Words that may stand between a keyword and a value that is not personal.
    keyword_fillers,
    /// Letters with which order and ticket numbers begin. Capitals.
    order_prefixes,
    /// First parts of surnames with a capital inside. As written.
    surname_prefixes,
    /// Hosts whose pages say nothing of a person, but for profiles.
    public_hosts,
    /// Hosts on which the first part of a path is a person.
    profile_hosts,
    /// Parts of a path before a person's name.
    profile_segments,
    /// First parts of a path on hosts of profiles that are no person.
    public_segments,
    /// Parameters of addresses that hold a person's data.
    personal_parameters,
    /// Regions outside the United States. As written.
    regions,
    /// Abbreviations of regions outside the United States. Capitals.
    region_codes,
}

macro_rules! data_files {
    ($($path:literal)+) => {
        /// Path below `anonymizer/data`, and content.
        const FILES: &[(&str, &str)] = &[$(($path, include_str!(concat!("../../../data/", $path)))),+];
    };
}

data_files! {
    "brands.toml" "codes.toml" "hosts.toml" "postcodes.toml"
    "lexicon/ar.toml" "lexicon/bg.toml" "lexicon/bn.toml" "lexicon/cs.toml" "lexicon/da.toml" "lexicon/de.toml"
    "lexicon/el.toml" "lexicon/en.toml" "lexicon/es.toml" "lexicon/et.toml" "lexicon/fa.toml" "lexicon/fi.toml"
    "lexicon/fr.toml" "lexicon/he.toml" "lexicon/hi.toml" "lexicon/hr.toml" "lexicon/hu.toml" "lexicon/id.toml"
    "lexicon/it.toml" "lexicon/ja.toml" "lexicon/ko.toml" "lexicon/lt.toml" "lexicon/lv.toml" "lexicon/mr.toml"
    "lexicon/nl.toml" "lexicon/no.toml" "lexicon/pl.toml" "lexicon/pt.toml" "lexicon/ro.toml" "lexicon/ru.toml"
    "lexicon/sv.toml" "lexicon/sw.toml" "lexicon/ta.toml" "lexicon/te.toml" "lexicon/th.toml" "lexicon/tl.toml"
    "lexicon/tr.toml" "lexicon/uk.toml" "lexicon/ur.toml" "lexicon/vi.toml" "lexicon/zh.toml"
    "country/ar.toml" "country/at.toml" "country/au.toml" "country/be.toml" "country/br.toml" "country/ca.toml"
    "country/ch.toml" "country/cn.toml" "country/co.toml" "country/cz.toml" "country/de.toml" "country/dk.toml"
    "country/es.toml" "country/fi.toml" "country/fr.toml" "country/gb.toml" "country/gh.toml" "country/gr.toml"
    "country/id.toml" "country/ie.toml" "country/il.toml" "country/in.toml" "country/it.toml" "country/jp.toml"
    "country/ke.toml" "country/kr.toml" "country/mx.toml" "country/my.toml" "country/ng.toml" "country/nl.toml"
    "country/no.toml" "country/nz.toml" "country/pk.toml" "country/pl.toml" "country/pt.toml" "country/ro.toml"
    "country/se.toml" "country/tr.toml" "country/us.toml" "country/za.toml"
}

/// The word lists.
#[expect(clippy::panic, reason = "the data is compiled in, and a test reads every file")]
pub(crate) fn lexicon() -> &'static Lexicon {
    static LEXICON: LazyLock<Lexicon> = LazyLock::new(|| {
        let mut lexicon = Lexicon::default();
        for (path, text) in FILES {
            match read(text) {
                Ok(file) => lexicon.join(file).unwrap_or_else(|problem| panic!("{path}: {problem}")),
                Err(problem) => panic!("{path}: {problem}"),
            }
        }
        lexicon
    });
    &LEXICON
}

fn read(text: &str) -> Result<DataFile, String> {
    let file: DataFile = toml::from_str(text).map_err(|error| error.to_string())?;
    if file.source.is_empty() || file.licence.is_empty() {
        return Err("source and licence must be named".to_owned());
    }
    Ok(file)
}

impl Lexicon {
    fn join(&mut self, mut file: DataFile) -> Result<(), String> {
        self.join_lists(&mut file);
        for (label, words) in file.keywords {
            let meaning = match label.as_str() {
                "NOT_PERSONAL" => Meaning::NotPersonal,
                label => Meaning::Is(entity(label)?),
            };
            for word in words {
                // Of two meanings, which one counts would hang on the order of files.
                if !self.keyword_set.insert(word.clone()) {
                    return Err(format!("keyword {word} is defined twice"));
                }
                self.keywords.push((word, meaning));
            }
        }
        for (label, words) in file.announced {
            let entity = entity(&label)?;
            self.announced.extend(words.into_iter().map(|word| (word, entity)));
        }
        for (label, names) in file.columns {
            let column = Column::from_label(&label).ok_or_else(|| format!("no such column: {label}"))?;
            for name in names {
                if self.columns.insert(name.clone(), column).is_some() {
                    return Err(format!("column {name} is defined twice"));
                }
            }
        }
        for pair in file.column_pairs {
            self.column_pairs.push((pair.name, pair.beside, entity(&pair.label)?));
        }
        self.states.extend(file.states);
        self.postcode_forms.extend(file.forms);
        Ok(())
    }

    /// Whether a word is a keyword on its own.
    pub(crate) fn is_keyword(&self, word: &str) -> bool {
        self.keyword_set.contains(word)
    }

    /// Whether this is the abbreviation of a US state.
    pub(crate) fn is_state_code(&self, code: &str) -> bool {
        self.states.iter().any(|(known, _)| known == code)
    }
}

fn entity(label: &str) -> Result<Entity, String> {
    Entity::from_label(label).ok_or_else(|| format!("no such type: {label}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(directory: &std::path::Path, below: &str, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{below}{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                walk(&entry.path(), &format!("{name}/"), found);
            } else if name.ends_with(".toml") {
                found.push(name);
            }
        }
    }

    #[test]
    fn every_data_file_is_read_and_names_its_source() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../data");
        let mut on_disk = Vec::new();
        walk(&directory, "", &mut on_disk);
        on_disk.sort();
        let mut compiled: Vec<&str> = FILES.iter().map(|(path, _)| *path).collect();
        compiled.sort_unstable();
        assert_eq!(on_disk, compiled);
        for (path, text) in FILES {
            read(text).unwrap_or_else(|problem| panic!("{path}: {problem}"));
        }
    }

    #[test]
    fn no_list_is_empty_and_words_are_in_lower_case() {
        let as_written = ["order_prefixes", "surname_prefixes", "regions", "region_codes"];
        for (name, list) in lexicon().lists() {
            assert!(list.iter().next().is_some(), "{name} is empty");
            let lower = list.iter().all(|word| word == word.to_lowercase());
            assert!(lower || as_written.contains(&name), "{name} holds capitals");
        }
        assert!(lexicon().is_state_code("TX") && !lexicon().is_state_code("TE"));
        assert_eq!(lexicon().states.len(), 59);
    }

    #[test]
    fn names_of_people_are_no_brands() {
        for name in ["ford", "marshall", "braun", "rose"] {
            assert!(!lexicon().brands.contains(name) && !lexicon().no_names.contains(name), "{name}");
        }
    }

    #[test]
    fn mistakes_in_data_are_named() {
        assert!(read("source = 'x'").is_err());
        assert!(read("source = 'x'\nlicence = 'y'\ntitel = ['herr']").is_err());
        let file = read("source = 'x'\nlicence = 'y'\n[keywords]\nTOWN = ['town']").unwrap();
        assert!(Lexicon::default().join(file).unwrap_err().contains("TOWN"));
        let file = read("source = 'x'\nlicence = 'y'\n[keywords]\nCITY = ['a']\nSTATE = ['a']").unwrap();
        assert!(Lexicon::default().join(file).unwrap_err().contains("twice"));
    }
}

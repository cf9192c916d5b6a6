//! Postcodes: the forms they have in the countries that have them.

use crate::lexicon::lexicon;

/// Whether a value has the form of a postcode.
pub(super) fn is_postcode(value: &[char]) -> bool {
    // The second half of an Irish code is letters and digits in any order.
    let eircode = value.len() >= 7
        && value[0].is_ascii_alphabetic()
        && value[1].is_ascii_digit()
        && value[value.len() - 4..].iter().all(char::is_ascii_alphanumeric)
        && value[3..value.len() - 4].iter().all(|c| *c == ' ')
        && value[2].is_ascii_alphanumeric();
    eircode || lexicon().postcode_forms.iter().any(|form| matches(value, form))
}

fn matches(value: &[char], form: &str) -> bool {
    let mut rest = value;
    for kind in form.chars() {
        let next = rest.first();
        let holds = match kind {
            '9' => next.is_some_and(char::is_ascii_digit),
            'A' => next.is_some_and(char::is_ascii_alphabetic),
            ' ' if next.is_some_and(|c| !c.is_whitespace()) => continue,
            ' ' => next.is_some_and(|c| c.is_whitespace()),
            other => next == Some(&other),
        };
        if !holds {
            return false;
        }
        rest = &rest[1..];
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::is_postcode;

    #[test]
    fn forms_of_many_countries_and_nothing_else() {
        let is = |value: &str| is_postcode(&value.chars().collect::<Vec<_>>());
        for code in [
            "78701",
            "78701-1234",
            "980-0802",
            "50-444",
            "J8X 2Z1",
            "SW1A 1AA",
            "LS18AU",
            "V94 K3T2",
            "3011 AB",
            "411 05",
        ] {
            assert!(is(code), "{code}");
        }
        for other in ["00-482-119", "20-4471", "6204-2RS", "4711-B", "12345678", "9.12"] {
            assert!(!is(other), "{other}");
        }
    }
}

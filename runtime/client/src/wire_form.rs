//! Which wire form to use: what the user asked for, among those that the server offers.

use std::fmt;
use std::str::FromStr;

use fhe_layers::{Params, WireForm};
use sotto_protocol::error::{Error, Result};

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WirePreference {
    /// Lean where the server's mask and body roles are one process, else stateless. Stateless when replies are checked.
    #[default]
    Auto,
    /// The lean form with its default widths for the parameter set.
    Lean,
    /// This form with these widths.
    Exactly(WireForm),
}

impl fmt::Display for WirePreference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Lean => f.write_str("lean"),
            Self::Exactly(form) => form.fmt(f),
        }
    }
}

impl FromStr for WirePreference {
    type Err = String;

    /// `auto`, `lean`, `stateless`, `full`, or one of the first two forms with widths: `lean:30/20/28`, `lean:thrifty`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "lean" => Ok(Self::Lean),
            _ => text.parse().map(Self::Exactly),
        }
    }
}

impl WirePreference {
    /// The form of a server on this machine that offers every form and is not checked.
    pub fn on_this_machine(self, params: &Params) -> WireForm {
        match self {
            Self::Auto | Self::Lean => WireForm::lean(params),
            Self::Exactly(form) => form,
        }
    }

    /// The form to use with a server that offers `offered`, for `params`. `one_process`: whether masks and bodies are
    /// answered by the same process. `check_weights`: whether replies are to be checked, which the lean form cannot have.
    ///
    /// # Errors
    /// [`Error::WireForm`] when the choice cannot be had: nothing else is used in its place.
    pub fn choose(
        self,
        offered: &[String],
        params: &Params,
        one_process: bool,
        check_weights: bool,
    ) -> Result<WireForm> {
        let offers = |form: &WireForm| offered.iter().any(|name| name == form.name());
        let refused = |wanted: String, why: &str| Err(Error::WireForm { wanted, why: why.to_owned() });
        let wanted = match self {
            Self::Auto => {
                let (lean, stateless) = (WireForm::lean(params), WireForm::stateless());
                let order = [lean, stateless, WireForm::Full];
                let fits = |form: &WireForm| !form.keeps_words() || (one_process && !check_weights);
                return match order.into_iter().find(|form| fits(form) && offers(form)) {
                    Some(form) => Ok(form),
                    None if check_weights => {
                        refused("stateless".to_owned(), "the server offers none whose replies can be checked")
                    }
                    None => refused("auto".to_owned(), "the server offers none that this program speaks"),
                };
            }
            Self::Lean => WireForm::lean(params),
            Self::Exactly(form) => form,
        };
        if wanted.keeps_words() && check_weights {
            return refused(wanted.to_string(), "replies cannot be checked in it; use --wire stateless");
        }
        if wanted.keeps_words() && !one_process {
            return refused(wanted.to_string(), "the server's mask and body roles are separate processes");
        }
        if !offers(&wanted) {
            return refused(wanted.to_string(), "the server does not offer it");
        }
        Ok(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fhe_layers::{Set, Widths};

    #[test]
    fn the_choice_is_never_another_than_the_one_asked_for() {
        let params = Set::Default.params(64).unwrap();
        let all = ["lean", "stateless", "full"].map(str::to_owned);
        let choose = |wanted: &str, offered: &[String], one_process, check| {
            wanted.parse::<WirePreference>().unwrap().choose(offered, &params, one_process, check).ok()
        };
        let (lean, stateless) = (WireForm::Lean(Widths::DEFAULT), WireForm::stateless());
        assert_eq!(choose("auto", &all, true, false), Some(lean));
        assert_eq!(choose("auto", &all, false, false), Some(stateless));
        assert_eq!(
            choose("auto", &all, true, true),
            Some(stateless),
            "replies of the lean form cannot be checked"
        );
        assert_eq!(choose("auto", &all[..1], true, true), None, "a lean-only server is refused");
        assert_eq!(choose("lean", &all, true, true), None);
        assert_eq!(choose("lean", &all, false, false), None);
        assert_eq!(choose("lean", &all[1..], true, false), None);
        assert_eq!(choose("lean:fine", &all, true, false), Some(WireForm::Lean(Widths::FINE)));
        assert_eq!(choose("full", &all, true, false), Some(WireForm::Full));
        assert_eq!(choose("auto", &["new".to_owned()], true, false), None);
        assert!("leaner".parse::<WirePreference>().is_err());
    }
}

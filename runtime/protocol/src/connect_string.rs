//! The one line a server prints and a client needs:
//! `sotto://host:port/?pin=HEX&model=HEX&credential=TEXT[&mask=host:port][&body=host:port]...`.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::limits;
use crate::pin::CertificatePin;

const SCHEME: &str = "sotto://";

/// Where a server is, how to recognise it, and what lets a client in.
///
/// It holds a credential: [`fmt::Display`] prints it in full, [`fmt::Debug`] hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectString {
    /// "host:port" of the catalogue.
    pub address: String,
    /// Pin of the certificate that all of the server's processes hold.
    pub pin: CertificatePin,
    /// Model digest the client must insist on; absent if the client may choose from the catalogue.
    pub model: Option<[u8; 32]>,
    /// The credential; absent if the client has it from elsewhere.
    pub credential: Option<String>,
    /// Mask workers, if not the catalogue's own address.
    pub mask_addresses: Vec<String>,
    /// Body replicas, if not the catalogue's own address.
    pub body_addresses: Vec<String>,
}

impl fmt::Debug for ConnectString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectString")
            .field("address", &self.address)
            .field("pin", &hex::encode(self.pin.0))
            .field("model", &self.model.map(hex::encode))
            .field("mask_addresses", &self.mask_addresses)
            .field("body_addresses", &self.body_addresses)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for ConnectString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/?pin={}", self.address, hex::encode(self.pin.0))?;
        if let Some(model) = &self.model {
            write!(f, "&model={}", hex::encode(model))?;
        }
        if let Some(credential) = &self.credential {
            write!(f, "&credential={credential}")?;
        }
        for address in &self.mask_addresses {
            write!(f, "&mask={address}")?;
        }
        for address in &self.body_addresses {
            write!(f, "&body={address}")?;
        }
        Ok(())
    }
}

impl FromStr for ConnectString {
    type Err = Error;

    /// # Errors
    /// [`Error::ConnectString`] naming the part that is wrong; never repeats the credential.
    fn from_str(text: &str) -> Result<Self> {
        let rest = text.trim().strip_prefix(SCHEME).ok_or_else(|| wrong("it must begin with sotto://"))?;
        let (address, query) = rest.split_once("/?").ok_or_else(|| wrong("the part /?pin=... is missing"))?;
        check_address(address)?;
        let (mut pin, mut model, mut credential) = (None, None, None);
        let (mut mask_addresses, mut body_addresses) = (Vec::new(), Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| wrong("a parameter has no '='"))?;
            match key {
                "pin" => set_once(&mut pin, "pin", CertificatePin(hex32("pin", value)?))?,
                "model" => set_once(&mut model, "model", hex32("model", value)?)?,
                "credential" => set_once(&mut credential, "credential", checked_credential(value)?)?,
                "mask" => mask_addresses.push(check_address(value)?),
                "body" => body_addresses.push(check_address(value)?),
                _ => return Err(wrong("unknown parameter; is this build older than the server?")),
            }
        }
        let pin = pin.ok_or_else(|| wrong("pin=... is missing"))?;
        Ok(Self { address: address.to_owned(), pin, model, credential, mask_addresses, body_addresses })
    }
}

fn wrong(text: &str) -> Error {
    Error::ConnectString(text.to_owned())
}

fn set_once<T>(slot: &mut Option<T>, name: &str, value: T) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Error::ConnectString(format!("{name} is given twice"))),
    }
}

fn hex32(name: &str, text: &str) -> Result<[u8; 32]> {
    let mut out = [0; 32];
    match hex::decode_to_slice(text, &mut out) {
        Ok(()) => Ok(out),
        Err(_) => Err(Error::ConnectString(format!("{name} must be 64 hexadecimal digits"))),
    }
}

fn checked_credential(text: &str) -> Result<String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if !plain || text.is_empty() || text.len() > limits::MAX_CREDENTIAL_BYTES {
        return Err(wrong("the credential holds characters that no credential has"));
    }
    Ok(text.to_owned())
}

/// `host:port` with a port in 1..=65535; IPv6 hosts in brackets.
pub fn check_address(text: &str) -> Result<String> {
    let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("the address must be host:port"))?;
    let bracketed = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
    let plain =
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    let inner_ok = bracketed && host[1..host.len() - 1].parse::<std::net::Ipv6Addr>().is_ok();
    match port.parse::<u16>() {
        Ok(1..) if plain || inner_ok => Ok(text.to_owned()),
        _ => Err(wrong("the address must be host:port")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> ConnectString {
        ConnectString {
            address: "127.0.0.1:4711".to_owned(),
            pin: CertificatePin([7; 32]),
            model: Some([9; 32]),
            credential: Some("00ff.abc-_".to_owned()),
            mask_addresses: vec!["[::1]:5".to_owned()],
            body_addresses: vec!["a.example:6".to_owned(), "b.example:7".to_owned()],
        }
    }

    #[test]
    fn printing_and_parsing_are_inverse() {
        let text = sample().to_string();
        assert_eq!(text.parse::<ConnectString>().unwrap(), sample());
        assert_eq!(format!(" {text}\n").parse::<ConnectString>().unwrap(), sample());
    }

    #[test]
    fn debug_hides_the_credential() {
        assert!(!format!("{:?}", sample()).contains("00ff.abc"));
    }

    #[test]
    fn wrong_strings_are_refused_without_repeating_the_credential() {
        let pin = "07".repeat(32);
        for text in [
            "http://127.0.0.1:1/?pin=00".to_owned(),
            "sotto://127.0.0.1:1".to_owned(),
            format!("sotto://127.0.0.1/?pin={pin}"),
            format!("sotto://127.0.0.1:0/?pin={pin}"),
            format!("sotto://127.0.0.1:1/?pin={pin}&pin={pin}"),
            format!("sotto://127.0.0.1:1/?pin={pin}&credential=s3cret!"),
            format!("sotto://127.0.0.1:1/?pin={pin}&model=12"),
            format!("sotto://127.0.0.1:1/?pin={pin}&colour=s3cret"),
            "sotto://127.0.0.1:1/?credential=s3cret".to_owned(),
        ] {
            let error = text.parse::<ConnectString>().unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}

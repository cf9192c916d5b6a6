//! Names of columns, fields and keys: what the values under them are.

use super::span::Entity;

/// What the name of a column says about its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    /// One type.
    Is(Entity),
    /// A person's name in full.
    Person,
    /// Somebody or something; a person's name only if the model thinks so too.
    Party,
    /// A street with its number, perhaps with a part of the building.
    StreetLine,
    /// Nothing personal.
    NotPersonal,
}

use Column::{Is, NotPersonal, Party, Person, StreetLine};

/// Names without separators, in lower case, separated by spaces. A name counts also behind other words
/// (`home_phone`), the longest that fits.
const COLUMNS: &[(Column, &str)] = &[
    (
        Is(Entity::GivenName),
        "firstname givenname givennames forename forenames fname given vorname prénom prenom voornaam förnamn fornamn imię imie primernombre primeironome middlename",
    ),
    (
        Is(Entity::Surname),
        "surname lastname familyname lname family secondname nachname familienname nomdefamille apellido apellidos cognome sobrenome achternaam efternamn nazwisko maidenname",
    ),
    (
        Person,
        "fullname customername patientname employeename contactname guestname holdername accountholder cardholder cardholdername contactperson clientname studentname membername legalname displayname passengername drivername billingname recipientname",
    ),
    (
        Party,
        "name contact customer guest patient employee applicant client operator assignee owner manager reviewer author driver passenger tenant student teacher doctor attendee participant member recipient sender beneficiary payee holder insured landlord",
    ),
    (
        Is(Entity::City),
        "city town hometown locality ville ort wohnort stadt ciudad città citta miasto cidade plaats placeofbirth birthplace geburtsort",
    ),
    (Is(Entity::State), "state province region county bundesland provincia estado stan"),
    (
        Is(Entity::ZipCode),
        "zip zipcode postcode postalcode plz postleitzahl codepostal códigopostal codigopostal cap cep pincode postnummer kodpocztowy",
    ),
    (
        StreetLine,
        "street streetaddress address addressline addressline1 address1 line1 strasse straße rue adresse dirección direccion indirizzo calle ulica adres streetname",
    ),
    (Is(Entity::BuildingNumber), "housenumber houseno hausnummer hausnr buildingnumber streetnumber"),
    (Is(Entity::SecondaryAddress), "addressline2 address2 line2 apt apartment suite"),
    (
        Is(Entity::PhoneNumber),
        "phone phonenumber phoneno telephone tel mobile mobileno cell cellphone fax contactnumber telefon telefono teléfono telefone téléphone handy mobil mobiel telefoon móvil movil portable",
    ),
    (Is(Entity::Ssn), "ssn socialsecurity socialsecuritynumber"),
    (
        Is(Entity::TaxId),
        "taxid taxnumber taxno tin itin ein vat vatid vatnumber vatno steuerid steuernummer nif cpf codicefiscale partitaiva",
    ),
    (
        Is(Entity::BankAccount),
        "iban account accountnumber accountno acct acctno konto kontonummer bankaccount rekening",
    ),
    (Is(Entity::RoutingNumber), "routing routingnumber routingno aba abanumber"),
    (Is(Entity::Passport), "passport passportnumber passportno reisepass pasaporte passeport"),
    (
        Is(Entity::DriversLicense),
        "license licence licensenumber licenseno driverslicense driverlicense driverslicence drivinglicence dl",
    ),
    (
        Is(Entity::GovernmentId),
        "nationalid governmentid govid idnumber idcard identitycard personalausweis dni nino aadhaar pesel personnummer",
    ),
    (Is(Entity::CreditCardNumber), "card cardnumber cardno creditcard ccnumber pan"),
    (
        NotPersonal,
        "id no number date time timestamp day month year qty quantity amount price total balance currency sku product productname item itemname part partno unit units value sensor status type category kind version code source company companyname organisation organization employer firm vendor supplier brand model department dept team title role job jobtitle position country nationality language score count rate room seat row birthdate dob dateofbirth geburtsdatum started hired created updated filename hostname username bankname eventname reference ref invoice order ordernumber mrn arrival departure plate licenseplate menge preis betrag datum artikel firma land",
    ),
];

/// Names that only another column explains: `name` next to `vorname` is a surname, `nombre` next to `apellidos` a given
/// name, `first` next to `last` both.
const PAIRS: &[(&str, &str, Entity)] = &[
    ("name", "vorname", Entity::Surname),
    ("nom", "prénom", Entity::Surname),
    ("nom", "prenom", Entity::Surname),
    ("naam", "voornaam", Entity::Surname),
    ("nombre", "apellidos", Entity::GivenName),
    ("nombre", "apellido", Entity::GivenName),
    ("nome", "cognome", Entity::GivenName),
    ("nome", "sobrenome", Entity::GivenName),
    ("first", "last", Entity::GivenName),
    ("last", "first", Entity::Surname),
];

/// Words of a name: separators, and capitals behind small letters, divide it (`home_phone`, `firstName`).
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

/// What a name says by itself.
pub(super) fn column(name: &str) -> Option<Column> {
    let parts = parts(name);
    (0..parts.len()).find_map(|first| {
        let name = parts[first..].concat();
        let (column, _) = COLUMNS.iter().find(|(_, names)| names.split(' ').any(|known| known == name))?;
        // "File name", "bank account holder's dog": what stands in front of a word for somebody may change it.
        let bare = matches!(column, Person | Party) && first > 0;
        (!bare).then_some(*column)
    })
}

/// What the names of all columns of a table say.
pub(super) fn columns(names: &[String]) -> Vec<Option<Column>> {
    let whole: Vec<String> = names.iter().map(|name| parts(name).concat()).collect();
    let has = |name: &str| whole.iter().any(|own| own == name);
    let pair = |own: &str| {
        PAIRS.iter().find(|(name, other, _)| *name == own && has(other)).map(|(_, _, entity)| Is(*entity))
    };
    let mut columns: Vec<Option<Column>> =
        names.iter().zip(&whole).map(|(name, own)| pair(own).or_else(|| column(name))).collect();
    // States, and parts of buildings, are many other things too: they need an address around them.
    let addressed =
        columns.iter().any(|column| matches!(column, Some(Is(Entity::City | Entity::ZipCode) | StreetLine)));
    if !addressed {
        for column in &mut columns {
            if matches!(column, Some(Is(Entity::State | Entity::SecondaryAddress))) {
                *column = None;
            }
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_their_values_are() {
        assert_eq!(column("home_phone"), Some(Is(Entity::PhoneNumber)));
        assert_eq!(column("firstName"), Some(Is(Entity::GivenName)));
        assert_eq!(column("Driver's License"), Some(Is(Entity::DriversLicense)));
        assert_eq!(column("customer_id"), Some(NotPersonal));
        assert_eq!(column("full_name"), Some(Person));
        assert_eq!(column("file name"), Some(NotPersonal));
        assert_eq!(column("plugin name"), None);
        assert_eq!(column("capacity"), None);
    }

    #[test]
    fn other_columns_explain_a_name() {
        let of = |names: &str| columns(&names.split(',').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(of("Name,Vorname")[0], Some(Is(Entity::Surname)));
        assert_eq!(of("name,city")[0], Some(Party));
        assert_eq!(of("id,state"), [Some(NotPersonal), None]);
        assert_eq!(of("city,state")[1], Some(Is(Entity::State)));
    }
}

//! Regions outside the United States: states, provinces, counties and lands, which the model takes for cities or leaves
//! out. Regions that share their name with a well-known city are missing on purpose.

use super::common_words::is_named_thing;
use super::span::Entity;
use super::words::Word;

/// Abbreviations that stand behind a city or in front of a postcode: Australia, Canada.
const SHORT: [&str; 21] = [
    "NSW", "VIC", "QLD", "TAS", "ACT", "SA", "WA", "NT", "ON", "QC", "BC", "AB", "MB", "SK", "NS", "NB",
    "NL", "PE", "PEI", "YT", "NU",
];

/// Names by country, separated by `|`.
const NAMES: &[&str] = &[
    "Victoria|New South Wales|Queensland|Tasmania|South Australia|Western Australia|Northern Territory",
    "Ontario|Alberta|Manitoba|British Columbia|Nova Scotia|New Brunswick|Saskatchewan|Quebec|Québec|Newfoundland|Prince Edward Island|Nunavut|Yukon",
    "England|Scotland|Wales|Northern Ireland|Cornwall|Devon|Dorset|Kent|Essex|Sussex|East Sussex|West Sussex|Surrey|Norfolk|Suffolk|Hampshire|Lancashire|Yorkshire|North Yorkshire|West Yorkshire|South Yorkshire|Cumbria|Derbyshire|Nottinghamshire|Lincolnshire|Leicestershire|Warwickshire|Worcestershire|Gloucestershire|Wiltshire|Somerset|Berkshire|Buckinghamshire|Oxfordshire|Hertfordshire|Bedfordshire|Cambridgeshire|Northamptonshire|Cheshire|Shropshire|Staffordshire|Herefordshire|Northumberland|Greater Manchester|Merseyside|Tyne and Wear|West Midlands|Aberdeenshire|Fife|Ayrshire|Gwynedd|Powys|Dyfed",
    "Munster|Leinster|Connacht|Ulster",
    "Bayern|Bavaria|Baden-Württemberg|Hessen|Hesse|Niedersachsen|Lower Saxony|Sachsen|Saxony|Sachsen-Anhalt|Thüringen|Thuringia|Brandenburg|Rheinland-Pfalz|Rhineland-Palatinate|Saarland|Schleswig-Holstein|Nordrhein-Westfalen|North Rhine-Westphalia|Mecklenburg-Vorpommern",
    "Tirol|Tyrol|Kärnten|Carinthia|Steiermark|Styria|Vorarlberg|Burgenland|Oberösterreich|Niederösterreich|Upper Austria|Lower Austria|Aargau|Graubünden|Thurgau|Ticino|Valais|Vaud|Wallis",
    "Bretagne|Brittany|Normandie|Normandy|Occitanie|Nouvelle-Aquitaine|Auvergne-Rhône-Alpes|Grand Est|Hauts-de-France|Bourgogne-Franche-Comté|Pays de la Loire|Provence-Alpes-Côte d'Azur|Île-de-France|Ile-de-France|Corse|Corsica|Alsace|Aquitaine",
    "Andalucía|Andalusia|Aragón|Aragon|Asturias|Cantabria|Catalonia|Catalunya|Cataluña|Galicia|Extremadura|Navarra|Navarre|País Vasco|Castilla y León|Castilla-La Mancha|Basque Country|La Rioja",
    "Lombardia|Lombardy|Toscana|Tuscany|Piemonte|Piedmont|Veneto|Liguria|Lazio|Campania|Puglia|Apulia|Calabria|Sicilia|Sicily|Sardegna|Sardinia|Umbria|Abruzzo|Molise|Basilicata|Emilia-Romagna|Friuli-Venezia Giulia|Trentino-Alto Adige",
    "Noord-Holland|Zuid-Holland|North Holland|South Holland|Noord-Brabant|North Brabant|Gelderland|Friesland|Drenthe|Overijssel|Flevoland|Zeeland|Limburg|Flanders|Wallonia|Hainaut|West Flanders|East Flanders|Algarve|Alentejo",
    "Skåne|Västra Götaland|Östergötland|Uppland|Småland|Värmland|Dalarna|Vestland|Rogaland|Nordland|Viken|Jutland|Jylland|Zealand|Uusimaa|Pirkanmaa|Lapland|Nordjylland|Midtjylland",
    "Mazowieckie|Masovia|Małopolska|Lesser Poland|Silesia|Lower Silesia|Upper Silesia|Pomerania|Wielkopolska|Greater Poland|Podlaskie|Moravia|Bohemia|South Moravia|Transylvania|Attica|Attiki|Thessaly|Macedonia|Peloponnese",
    "Maharashtra|Karnataka|Kerala|Tamil Nadu|Andhra Pradesh|Telangana|Gujarat|Rajasthan|Punjab|Haryana|Uttar Pradesh|Madhya Pradesh|West Bengal|Bihar|Odisha|Assam|Jharkhand|Chhattisgarh|Himachal Pradesh|Uttarakhand|Sindh|Balochistan|Khyber Pakhtunkhwa",
    "Hokkaido|Miyagi|Chiba|Saitama|Kanagawa|Aichi|Hyogo|Ibaraki|Tochigi|Gunma|Okinawa|Shizuoka|Gyeonggi|Gangwon|Guangdong|Sichuan|Zhejiang|Jiangsu|Shandong|Hunan|Hubei|Fujian|Yunnan|Hebei|Henan|Selangor|Sabah|Sarawak|West Java|East Java|Central Java",
    "Paraná|Bahia|Minas Gerais|Rio Grande do Sul|Santa Catarina|Pernambuco|Ceará|Goiás|Mato Grosso|Amazonas|Maranhão|Espírito Santo|Jalisco|Nuevo León|Yucatán|Quintana Roo|Baja California|Guanajuato|Michoacán|Antioquia|Cundinamarca|Valle del Cauca|Mendoza Province",
    "Gauteng|KwaZulu-Natal|Western Cape|Eastern Cape|Northern Cape|Free State|Limpopo|Mpumalanga|North West Province|Oyo State|Ogun State|Rivers State|Enugu State|Kano State|Kaduna State|Ashanti|Rift Valley",
    "Anatolia|Galilee|Canterbury Region|Otago|Waikato|Bay of Plenty",
];

/// Probability from which a region counts without a city or postcode next to it.
const SUSPECTED: f32 = 0.3;

/// Words of the longest name.
const LONGEST: usize = 4;

/// Takes regions behind a city, in front of a postcode, or where the model suspects a place, for states.
pub(super) fn refine(text: &[char], words: &mut [Word]) {
    let mut first = 0;
    while first < words.len() {
        let count = region_at(text, words, first).unwrap_or(0);
        if count > 0 {
            for word in &mut words[first..first + count] {
                let score = word.probability(Entity::State).max(0.6);
                word.set(Entity::State, score);
            }
        }
        first += count.max(1);
    }
}

/// How many words from `first` on are a region.
fn region_at(text: &[char], words: &[Word], first: usize) -> Option<usize> {
    let in_street = words[first].entity == Some(Entity::StreetName)
        && words.get(first + 1).is_some_and(|next| next.entity == Some(Entity::StreetName));
    if !text[words[first].start].is_uppercase() || in_street {
        return None;
    }
    (1..=LONGEST.min(words.len() - first)).rev().find(|&count| {
        let words_in = &words[first..first + count];
        let inside: String = text[words[first].start..words_in[count - 1].end].iter().collect();
        let behind_city = (0..first)
            .rev()
            .find(|&i| words[i].entity.is_some())
            .filter(|&i| is_gap(&text[words[i].end..words[first].start]))
            .is_some_and(|i| {
                words[i].entity == Some(Entity::City)
                    || (words[i].entity == Some(Entity::ZipCode)
                        && i > 0
                        && words[..i].iter().rev().find_map(|word| word.entity) == Some(Entity::City))
            });
        let end = words_in[count - 1].end;
        let before_zip = (first + count..words.len())
            .find(|&i| words[i].entity.is_some())
            .is_some_and(|i| words[i].entity == Some(Entity::ZipCode) && is_gap(&text[end..words[i].start]));
        if count == 1 && SHORT.contains(&inside.as_str()) {
            return behind_city;
        }
        let place = |word: &Word| word.probability(Entity::City) + word.probability(Entity::State);
        // Several words are no person's name.
        let suspected = || match words_in {
            [word] => place(word) >= SUSPECTED,
            _ => words_in.iter().all(|word| word.personal() >= SUSPECTED),
        };
        // "Worcestershire sauce", "Victoria Kent".
        let thing = words.get(first + count).is_some_and(|next| {
            text.get(end..next.start) == Some(&[' '])
                && is_named_thing(
                    &text[next.start..next.end].iter().flat_map(|c| c.to_lowercase()).collect::<String>(),
                )
        });
        let name = count == 1 && words[first].entity == Some(Entity::GivenName);
        if thing {
            return false;
        }
        is_region(&inside) && (behind_city || before_zip || !name && suspected())
            || count > 1 && inside.ends_with(" State") && behind_city
    })
}

fn is_region(name: &str) -> bool {
    NAMES.iter().any(|country| country.split('|').any(|region| region == name))
}

/// White space and commas, a line break at most.
fn is_gap(gap: &[char]) -> bool {
    gap.len() <= 3 && gap.iter().all(|c| matches!(c, ',' | ' ' | '\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_whole() {
        assert!(is_region("Maharashtra") && is_region("Castilla y León") && is_region("Mendoza Province"));
        assert!(!is_region("Castilla") && !is_region("Paris") && !is_region(""));
        let longest = NAMES.iter().flat_map(|country| country.split('|'));
        assert_eq!(longest.map(|name| name.split(' ').count()).max(), Some(LONGEST));
    }
}

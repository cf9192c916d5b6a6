//! Saved tables: the same model comes back in either form, and a damaged or foreign file does not.

mod layer_support;

use fhe_layers::kernels::Isa;
use fhe_layers::*;
use layer_support::{Model, masks, odd_rounds};
use proptest::prelude::*;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};

fn saved() -> &'static (Model, Vec<u8>) {
    static SAVED: OnceLock<(Model, Vec<u8>)> = OnceLock::new();
    SAVED.get_or_init(|| {
        let model = Model::new(64, Isa::detect(), odd_rounds(), 127);
        let mut bytes = Vec::new();
        model.prepare(TableForm::Ntt).save_compact(&mut bytes).unwrap();
        (model, bytes)
    })
}

fn load(bytes: &[u8], form: TableForm) -> Result<PreparedModel> {
    PreparedModel::load(Arc::clone(&saved().0.instance), Arc::new(bytes.to_vec()), form)
}

#[test]
fn loaded_tables_are_the_prepared_ones() {
    let (model, bytes) = saved();
    let batch = model.batch();
    let expected = masks(&model.prepare(TableForm::Ntt), &[batch.keys()], [4; 32]);
    for form in [TableForm::Ntt, TableForm::Compact] {
        let tables = load(bytes, form).unwrap();
        assert_eq!(tables.form(), form);
        assert!(masks(&tables, &[batch.keys()], [4; 32]) == expected, "{form:?}");
        let mut again = Vec::new();
        tables.save_compact(&mut again).unwrap();
        assert!(again == *bytes, "{form:?}: saved again");
    }
}

/// Saved tables that remember what was released.
struct Watched {
    bytes: Vec<u8>,
    released: Mutex<Vec<Range<usize>>>,
}

impl AsRef<[u8]> for Watched {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl TableBytes for Watched {
    fn release(&self, range: Range<usize>) {
        self.released.lock().unwrap().push(range);
    }
}

#[test]
fn expanding_releases_every_saved_group_once_and_in_order() {
    let (model, bytes) = saved();
    let watched = Arc::new(Watched { bytes: bytes.clone(), released: Mutex::default() });
    let shared = Arc::clone(&watched);
    let tables = PreparedModel::load(Arc::clone(&model.instance), shared, TableForm::Compact).unwrap();
    assert!(watched.released.lock().unwrap().is_empty());
    let compact = tables.table_bytes();
    assert!(matches!(tables.expand(&|| false), Err(Error::Cancelled)));
    assert_eq!((tables.form(), tables.table_bytes()), (TableForm::Compact, compact));
    tables.expand(&|| true).unwrap();
    assert_eq!(tables.form(), TableForm::Ntt);
    let prepared = model.prepare(TableForm::Ntt);
    assert_eq!(tables.table_bytes(), prepared.table_bytes(), "nothing of the compact form is left");
    let released = watched.released.lock().unwrap();
    assert!(released.windows(2).all(|pair| pair[0].end == pair[1].start), "{released:?}");
    assert_eq!(released.last().map(|range| range.end), Some(bytes.len()));
}

#[test]
fn tables_keep_their_promised_size() {
    for (set, ntt, compact) in [(Set::Default, 33_000, 8_600), (Set::Light, 16_500, 6_600)] {
        let model = Model::of_set(set, 64, Isa::detect(), odd_rounds(), 127);
        let rows = model.instance.layout().blocks() * model.instance.params().phi();
        for (form, limit) in [(TableForm::Ntt, ntt), (TableForm::Compact, compact)] {
            let bytes = model.prepare(form).table_bytes() / rows;
            assert!(bytes <= limit, "{set} {form:?}: {bytes} bytes per row");
        }
    }
}

#[test]
fn foreign_and_damaged_files_are_refused() {
    let (_, bytes) = saved();
    let changed = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        load(&bytes, TableForm::Compact).err().unwrap()
    };
    assert!(matches!(changed(0), Error::Malformed { .. }));
    assert!(matches!(changed(4), Error::Foreign { .. }), "version");
    assert!(matches!(changed(10), Error::Foreign { .. }), "parameters");
    let last = bytes.len() - 1;
    for at in [last, last / 2, last / 3] {
        assert!(matches!(changed(at), Error::Malformed { .. }), "byte {at}");
    }
    for len in [0, 3, 4, 60, last] {
        assert!(load(&bytes[..len], TableForm::Ntt).is_err(), "{len} bytes");
    }
    assert!(matches!(load(&bytes[..last], TableForm::Ntt).err(), Some(Error::Mismatch { .. })));
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(matches!(load(&longer, TableForm::Ntt).err(), Some(Error::Mismatch { .. })));
    let spec = |rows| vec![RoundSpec { d_in: 4, matrices: vec![MatrixSpec { rows, columns: 0..4 }] }];
    let params = params::sets::n2048_q50_tau(64).unwrap();
    let other = Arc::new(Instance::new(params, spec(4), ModelDigest([7; 32]), "odd").unwrap());
    assert!(PreparedModel::load(other, Arc::new(bytes.clone()), TableForm::Ntt).is_err(), "other shapes");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_changed_byte_goes_unnoticed(at: prop::sample::Index, bit in 0u8..8) {
        let mut bytes = saved().1.clone();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(load(&bytes, TableForm::Compact).is_err(), "byte {}", at);
    }
}

use super::*;

#[test]
fn only_the_exact_credential_is_let_in() {
    let store = Store::in_memory().unwrap();
    let (id, text) = store.add("a", 64, 100).unwrap();
    assert_eq!(store.authenticate(&text).unwrap().0, id);
    let (_, other) = store.add("b", 64, 100).unwrap();
    let crossed = format!("{id}.{}", other.split_once('.').unwrap().1);
    for wrong in ["", "x", ".", crossed.as_str(), &text[..text.len() - 1], &"a".repeat(1000)] {
        assert!(matches!(store.authenticate(wrong), Err(Error::Credential)), "{wrong}");
    }
    store.revoke(id).unwrap();
    assert!(matches!(store.authenticate(&text), Err(Error::Credential)));
    assert!(matches!(store.charge(id, Grant { body_tokens: 1, mask_slots: 0 }, 64), Err(Error::Credential)));
}

#[test]
fn budgets_are_charged_granted_in_part_and_survive_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("credentials.redb");
    let store = Store::open(&path).unwrap();
    let (id, _) = store.add("a", 150, 100).unwrap();
    let grant = store.charge(id, Grant { body_tokens: 70, mask_slots: 640 }, 64).unwrap();
    assert_eq!(grant, Grant { body_tokens: 70, mask_slots: 128 });
    // A second handle stands for the process after a crash; the first is not closed.
    let again = Store::open(&path).unwrap();
    let grant = again.charge(id, Grant { body_tokens: 70, mask_slots: 0 }, 64).unwrap();
    assert_eq!(grant.body_tokens, 30);
    let wanted = Grant { body_tokens: 1, mask_slots: 0 };
    assert!(matches!(store.charge(id, wanted, 64), Err(Error::Budget { counter: "body tokens", .. })));
    let wanted = Grant { body_tokens: 0, mask_slots: 64 };
    assert!(matches!(
        store.charge(id, wanted, 64),
        Err(Error::Budget { counter: "mask slots", left: 22, .. })
    ));
    store.give_back(id, Grant { body_tokens: 5, mask_slots: 64 }).unwrap();
    let (_, record) = store.list().unwrap().remove(0);
    assert_eq!((record.body_tokens.left(), record.mask_slots.left()), (5, 86));
}

#[test]
fn made_up_ids_do_not_keep_the_file_busy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("credentials");
    let store = Store::open(&path).unwrap();
    // Another process adds it.
    let (_, known) = Store::open(&path).unwrap().add("a", 64, 100).unwrap();
    let is_stranger = |id: u8| {
        let text = format!("{}.{}", hex::encode([id; 8]), "A".repeat(43));
        matches!(store.authenticate(&text), Err(Error::Credential))
    };
    assert!(is_stranger(1));
    // Damage that leaves no trace: who reads the file notices it.
    std::fs::write(&path, vec![0; store.stamp().unwrap().bytes as usize]).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let (at, now) = (Instant::now(), SystemTime::now());
    file.set_modified(now - 2 * TICK).unwrap();
    *lock(&store.searched) = Some(Searched { at, stamp: store.stamp(), now });
    assert!((0..100).all(is_stranger), "the file was read");
    store.authenticate(&known).unwrap();
    file.set_modified(now - 3 * TICK).unwrap();
    assert!(!is_stranger(1), "a changed file is read");
}

const WHOLE: BlockCount = BlockCount { wanted: 10, whole: 10 };

#[test]
fn a_paid_batch_is_not_computed_again_without_end() {
    let store = Store::in_memory().unwrap();
    let (id, batch) = (CredentialId([1; 8]), BatchId([2; 16]));
    let submit = |wanted| store.charge_batch(id, batch, [3; 32], BlockCount { wanted, whole: 10 }, || Ok(()));
    submit(10).unwrap();
    let repeats = (1..1000).take_while(|_| submit(10).is_ok()).count() as u64;
    assert_eq!(repeats, limits::MAX_BATCH_REPEATS - 1);
    assert!(matches!(submit(1), Err(Error::Budget { .. })));
    let other = BatchId([5; 16]);
    store.charge_batch(id, other, [3; 32], WHOLE, || Ok(())).unwrap();
}

#[test]
fn there_is_no_lease_over_nothing() {
    let store = Store::in_memory().unwrap();
    let id = store.add("a", 64, 64).unwrap().0;
    assert!(matches!(store.charge(id, Grant::default(), 64), Err(Error::Malformed { .. })));
    store.charge(id, Grant { body_tokens: 64, mask_slots: 64 }, 64).unwrap();
    for (body_tokens, mask_slots) in [(0, 0), (1, 0), (0, 64)] {
        assert!(store.charge(id, Grant { body_tokens, mask_slots }, 64).is_err());
    }
}

#[test]
fn a_batch_id_belongs_to_one_set_of_keys() {
    let store = Store::in_memory().unwrap();
    let (id, batch) = (CredentialId([1; 8]), BatchId([2; 16]));
    let charge = |id, hash| store.charge_batch(id, batch, hash, WHOLE, || Ok(()));
    assert_eq!(charge(id, [3; 32]).unwrap(), BatchState::New);
    let free = store.charge_batch(id, batch, [3; 32], WHOLE, || panic!("charged twice"));
    assert_eq!(free.unwrap(), BatchState::Known);
    assert!(matches!(charge(id, [4; 32]), Err(Error::BatchConflict)));
    assert_eq!(charge(CredentialId([9; 8]), [4; 32]).unwrap(), BatchState::New);
    store.forget_batches_before(unix_now() - 60).unwrap();
    assert_eq!(charge(id, [3; 32]).unwrap(), BatchState::Known);
    store.forget_batches_before(unix_now() + 60).unwrap();
    assert_eq!(charge(id, [4; 32]).unwrap(), BatchState::New);
}

#[test]
fn a_batch_that_cannot_be_paid_for_is_free_for_nobody() {
    let store = Store::in_memory().unwrap();
    let submit = |batch| {
        let refused = || Err(Error::Lease("its mask slots are used up"));
        store.charge_batch(CredentialId([1; 8]), BatchId(batch), [3; 32], WHOLE, refused).is_err()
    };
    // Two jobs of one id at once, often enough for every order of their steps.
    let start = std::sync::Barrier::new(2);
    let refusals = || {
        let rounds = (0..500_u128).filter(|round| {
            start.wait();
            submit(round.to_le_bytes())
        });
        rounds.count()
    };
    let refused = std::thread::scope(|scope| {
        let other = scope.spawn(refusals);
        (refusals(), other.join().unwrap())
    });
    assert_eq!(refused, (500, 500));
}

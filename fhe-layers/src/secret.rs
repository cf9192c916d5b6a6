//! Containers of secrets: wiped on drop, no `Clone`, no `Debug`, no serialized form.

use std::ops::{Deref, DerefMut};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A secret polynomial or vector of words.
///
/// Its length is fixed when it is made: growing would leave copies behind in freed memory.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct SecretWords(Box<[u64]>);

impl SecretWords {
    /// `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        Self(vec![0; len].into_boxed_slice())
    }

    /// A copy of `words`, which stay the caller's to wipe.
    pub(crate) fn copied(words: &[u64]) -> Self {
        Self(words.into())
    }

    /// Gives the words up: for those that have become a ciphertext.
    pub(crate) fn publish(mut self) -> Vec<u64> {
        std::mem::take(&mut self.0).into_vec()
    }
}

impl Deref for SecretWords {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        &self.0
    }
}

impl DerefMut for SecretWords {
    fn deref_mut(&mut self) -> &mut [u64] {
        &mut self.0
    }
}

/// Fails to compile when the type has one of the traits: with it, two `some_item` apply and the path is ambiguous.
macro_rules! assert_never {
    ($type:ty: $($trait:path),+) => {
        const _: fn() = || {
            trait Ambiguous<Marker> {
                fn some_item() {}
            }
            impl<T: ?Sized> Ambiguous<()> for T {}
            $({
                #[allow(dead_code, reason = "a marker")]
                struct Has;
                impl<T: ?Sized + $trait> Ambiguous<Has> for T {}
            })+
            let _ = <$type as Ambiguous<_>>::some_item;
        };
    };
}

assert_never!(SecretWords: Clone, std::fmt::Debug);
assert_never!(crate::client::Batch: Clone, std::fmt::Debug);
assert_never!(crate::client::Slot: Clone, std::fmt::Debug);
assert_never!(crate::client::PendingReply: Clone, std::fmt::Debug);
assert_never!(crate::client::integrity::RoundCheck: Clone, std::fmt::Debug);
assert_never!(crate::random::keys::KeyRng: Clone, std::fmt::Debug);
assert_never!(crate::random::noise::NoiseRng: Clone, std::fmt::Debug);
assert_never!(crate::server::MaskJob<'static>: Clone, std::fmt::Debug);

/// Fails to compile when the type is not wiped on drop: a feature of another crate decides whether it is.
const fn assert_wiped<T: ZeroizeOnDrop>() {}
const _: () = assert_wiped::<crate::random::noise::Stream>();

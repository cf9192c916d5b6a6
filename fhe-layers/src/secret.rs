//! Containers of secrets: wiped on drop, no `Clone`, no `Debug`, no serialized form.

use std::ops::{Deref, DerefMut};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A secret polynomial or vector.
///
/// Its length is fixed when it is made: growing would leave copies in freed memory.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Secret<T: Zeroize>(Box<[T]>);

/// Residues and 64-bit words.
pub(crate) type SecretWords = Secret<u64>;

/// 32-bit words.
pub(crate) type SecretHalves = Secret<u32>;

impl<T: Zeroize + Clone + Default> Secret<T> {
    /// `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        Self(vec![T::default(); len].into_boxed_slice())
    }

    /// A copy of `words`; the caller wipes the original.
    pub(crate) fn copied(words: &[T]) -> Self {
        Self(words.into())
    }

    /// Gives up the words: for those that have become a ciphertext.
    pub(crate) fn publish(mut self) -> Vec<T> {
        std::mem::take(&mut self.0).into_vec()
    }
}

impl<T: Zeroize> Deref for Secret<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Zeroize> DerefMut for Secret<T> {
    fn deref_mut(&mut self) -> &mut [T] {
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
assert_never!(SecretHalves: Clone, std::fmt::Debug);
assert_never!(crate::client::ClientSession: Clone, std::fmt::Debug);
assert_never!(crate::server::ServerSession: Clone, std::fmt::Debug);

/// Fails to compile when the type is not wiped on drop: a feature of another crate decides whether it is.
const fn assert_wiped<T: ZeroizeOnDrop>() {}
const _: () = assert_wiped::<crate::random::noise::Stream>();

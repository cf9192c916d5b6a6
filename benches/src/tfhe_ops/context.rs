//! Keys of one TFHE parameter set and the bootstrapped lookup.

use rayon::prelude::*;
use tfhe::core_crypto::prelude::*;

use super::TfheSet;

/// An encrypted real number, see the module's first paragraph; the range is its maker's to remember.
pub type Cipher = LweCiphertextOwned<u64>;

/// A function made ready for lookup: real input of one range, real output of another.
pub struct Table {
    accumulator: GlweCiphertextOwned<u64>,
    /// The value at each input step, as the lookup will write it (before encryption noise).
    values: Vec<f64>,
    range_in: f64,
}

impl Table {
    /// The number of input steps, `2^bits`.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.values.len()
    }

    /// The input at the centre of step `i`.
    #[must_use]
    pub fn centre(&self, i: usize) -> f64 {
        -self.range_in + (i as f64 + 0.5) * 2.0 * self.range_in / self.steps() as f64
    }

    /// The output of step `i`.
    #[must_use]
    pub fn value(&self, i: usize) -> f64 {
        self.values[i]
    }
}

/// Secret and evaluation keys of one set, and what it took to make them.
pub struct Context {
    set: TfheSet,
    key: LweSecretKeyOwned<u64>,
    noise: TUniform<u64>,
    bootstrap_key: FourierLweBootstrapKeyOwned,
    keyswitch_key: LweKeyswitchKeyOwned<u64>,
    /// Milliseconds to make the keys (all threads).
    pub keygen_ms: f64,
}

const MODULUS: CiphertextModulus<u64> = CiphertextModulus::new_native();
/// Phase of the end of the range: one bit below the padding bit, which a lookup needs clear.
const HALF: f64 = (1u64 << 62) as f64;

impl Context {
    /// Makes fresh keys from the operating system's entropy.
    #[must_use]
    pub fn generate(set: TfheSet) -> Self {
        let start = std::time::Instant::now();
        let mut seeder = new_seeder();
        let seeder = seeder.as_mut();
        let mut secrets = SecretRandomGenerator::<DefaultRandomGenerator>::new(seeder.seed());
        let mut generator = EncryptionRandomGenerator::<DefaultRandomGenerator>::new(seeder.seed(), seeder);
        let small = LweSecretKey::generate_new_binary(LweDimension(set.lwe_dimension), &mut secrets);
        let glwe = GlweSecretKey::generate_new_binary(
            GlweDimension(set.glwe_dimension),
            PolynomialSize(set.polynomial_size),
            &mut secrets,
        );
        let noise = TUniform::new(set.glwe_noise_bound_log2);
        let standard: LweBootstrapKeyOwned<u64> = par_allocate_and_generate_new_lwe_bootstrap_key(
            &small,
            &glwe,
            DecompositionBaseLog(set.pbs_base_log),
            DecompositionLevelCount(set.pbs_level),
            noise,
            MODULUS,
            &mut generator,
        );
        let mut bootstrap_key = FourierLweBootstrapKey::new(
            standard.input_lwe_dimension(),
            standard.glwe_size(),
            standard.polynomial_size(),
            standard.decomposition_base_log(),
            standard.decomposition_level_count(),
        );
        par_convert_standard_lwe_bootstrap_key_to_fourier(&standard, &mut bootstrap_key);
        drop(standard);
        let key = glwe.into_lwe_secret_key();
        let keyswitch_key = allocate_and_generate_new_lwe_keyswitch_key(
            &key,
            &small,
            DecompositionBaseLog(set.ks_base_log),
            DecompositionLevelCount(set.ks_level),
            TUniform::new(set.lwe_noise_bound_log2),
            MODULUS,
            &mut generator,
        );
        let keygen_ms = crate::stats::millis(start.elapsed());
        Self { set, key, noise, bootstrap_key, keyswitch_key, keygen_ms }
    }

    /// The parameter set.
    #[must_use]
    pub fn set(&self) -> &TfheSet {
        &self.set
    }

    /// Bytes of the evaluation keys as held for computing.
    #[must_use]
    pub fn key_bytes(&self) -> usize {
        self.bootstrap_key.as_view().data().as_ref().len() * 16 + self.keyswitch_key.as_ref().len() * 8
    }

    /// Encrypts each `v` of `values` under range `range`.
    ///
    /// # Panics
    /// If a value is outside `[-range, range)`.
    #[must_use]
    pub fn encrypt(&self, values: &[f64], range: f64) -> Vec<Cipher> {
        let mut seeder = new_seeder();
        let seeder = seeder.as_mut();
        let mut generator = EncryptionRandomGenerator::<DefaultRandomGenerator>::new(seeder.seed(), seeder);
        values
            .iter()
            .map(|&v| {
                assert!(v >= -range && v < range, "{v} is outside [-{range}, {range})");
                let plain = Plaintext(phase(v, range));
                allocate_and_encrypt_new_lwe_ciphertext(&self.key, plain, self.noise, MODULUS, &mut generator)
            })
            .collect()
    }

    /// Decrypts ciphertexts of range `range`.
    #[must_use]
    pub fn decrypt(&self, ciphers: &[Cipher], range: f64) -> Vec<f64> {
        ciphers
            .iter()
            .map(|c| decrypt_lwe_ciphertext(&self.key, c).0.cast_signed() as f64 / HALF * range)
            .collect()
    }

    /// Prepares `f` for lookup in `2^bits` steps; outputs are clamped to `[-range_out, range_out)`.
    ///
    /// # Panics
    /// If `2^bits` exceeds the ring degree.
    #[must_use]
    pub fn table(&self, bits: u32, range_in: f64, range_out: f64, f: impl Fn(f64) -> f64) -> Table {
        let (n, steps) = (self.set.polynomial_size, 1usize << bits);
        assert!(steps <= n, "2^{bits} steps exceed the ring degree {n}");
        let width = 2.0 * range_in / steps as f64;
        let limit = range_out * (1.0 - 1e-6);
        let values: Vec<f64> =
            (0..steps).map(|i| f(-range_in + (i as f64 + 0.5) * width).clamp(-range_out, limit)).collect();
        let body: Vec<u64> =
            values.iter().flat_map(|&v| std::iter::repeat_n(phase(v, range_out), n / steps)).collect();
        let accumulator = allocate_and_trivially_encrypt_new_glwe_ciphertext(
            GlweDimension(self.set.glwe_dimension).to_glwe_size(),
            &PlaintextList::from_container(body),
            MODULUS,
        );
        Table { accumulator, values, range_in }
    }

    /// Looks every input up in `table`, one key switch and one bootstrap each, spread over the current rayon pool.
    #[must_use]
    pub fn lookup(&self, inputs: &[Cipher], table: &Table) -> Vec<Cipher> {
        let fft = Fft::new(PolynomialSize(self.set.polynomial_size));
        inputs
            .par_iter()
            .map_init(|| self.scratch(&fft), |buffers, input| self.bootstrap(input, table, &fft, buffers))
            .collect()
    }

    fn scratch(&self, fft: &Fft) -> ComputationBuffers {
        let mut buffers = ComputationBuffers::new();
        let need = blind_rotate_assign_mem_optimized_requirement::<u64>(
            GlweDimension(self.set.glwe_dimension).to_glwe_size(),
            PolynomialSize(self.set.polynomial_size),
            fft.as_view(),
        );
        buffers.resize(need.unaligned_bytes_required());
        buffers
    }

    fn bootstrap(
        &self,
        input: &Cipher,
        table: &Table,
        fft: &Fft,
        buffers: &mut ComputationBuffers,
    ) -> Cipher {
        let mut small = LweCiphertext::new(0, LweDimension(self.set.lwe_dimension).to_lwe_size(), MODULUS);
        keyswitch_lwe_ciphertext(&self.keyswitch_key, input, &mut small);
        // Signed range to [0, 2^63): the padding bit above it stays clear.
        lwe_ciphertext_plaintext_add_assign(&mut small, Plaintext(1 << 62));
        let log = PolynomialSize(self.set.polynomial_size).to_blind_rotation_input_modulus_log();
        let switched = if self.set.centered_modulus_switch {
            lwe_ciphertext_centered_binary_modulus_switch::<u64, usize, _>(small, log)
        } else {
            lwe_ciphertext_modulus_switch::<u64, usize, _>(small, log)
        };
        let mut accumulator = table.accumulator.clone();
        blind_rotate_assign_mem_optimized(
            &switched,
            &mut accumulator,
            &self.bootstrap_key,
            fft.as_view(),
            buffers.stack(),
        );
        let mut output = LweCiphertext::new(0, self.key.lwe_dimension().to_lwe_size(), MODULUS);
        extract_lwe_sample_from_glwe_ciphertext(&accumulator, &mut output, MonomialDegree(0));
        output
    }
}

/// `v` of range `range` as a phase, wrapping to two's complement.
fn phase(v: f64, range: f64) -> u64 {
    ((v / range * HALF).round() as i64).cast_unsigned()
}

/// `a + b`; all three of one range.
#[must_use]
pub(super) fn add(a: &Cipher, b: &Cipher) -> Cipher {
    let mut sum = a.clone();
    lwe_ciphertext_add_assign(&mut sum, b);
    sum
}

/// `a - b`; all three of one range.
#[must_use]
pub(super) fn sub(a: &Cipher, b: &Cipher) -> Cipher {
    let mut difference = a.clone();
    lwe_ciphertext_sub_assign(&mut difference, b);
    difference
}

/// Sum of `terms`, all of one range that also holds the sum.
///
/// # Panics
/// If there are none.
#[must_use]
pub(super) fn sum(terms: &[Cipher]) -> Cipher {
    let (first, rest) = terms.split_first().expect("a sum has terms");
    let mut total = first.clone();
    for term in rest {
        lwe_ciphertext_add_assign(&mut total, term);
    }
    total
}

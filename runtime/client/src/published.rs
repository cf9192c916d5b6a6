//! Digests of the splits of the built-in models.
//!
//! A split is a function of the model file, the plan, the parameter set and tau, so anyone can compute its digest. A client part with one of
//! these digests is the one that this program makes itself: its tokenizer, chat template and special tokens are the
//! model's own. Any other client part is its server's own, and only that server vouches for it.

/// A split of a built-in model.
#[derive(Debug, PartialEq, Eq)]
pub struct Published {
    /// Name of the model.
    pub model: &'static str,
    /// "plain" or "fused".
    pub plan: &'static str,
    /// "default" or "light".
    pub set: &'static str,
    /// Tokens per batch.
    pub tau: usize,
    /// The model digest, hexadecimal.
    pub digest: &'static str,
}

const fn split(
    model: &'static str,
    plan: &'static str,
    set: &'static str,
    tau: usize,
    digest: &'static str,
) -> Published {
    Published { model, plan, set, tau, digest }
}

/// All published splits. `runtime/cli/tests/published_splits.rs` recomputes them.
#[rustfmt::skip]
pub static PUBLISHED: &[Published] = &[
    split("smollm2-135m", "plain", "default", 64, "1005873a609959ec355c584cbc3971fef234188a43bccc2e7cc34e44c290e590"),
    split("smollm2-135m", "plain", "default", 128, "a3ea69d06c4a5338bf8842c5ee8f4c58c06ab1aadb28d6d92fac3be34ebcad67"),
    split("smollm2-135m", "plain", "default", 256, "22c913efb828af281332200bc8eb5b6f9f6cbc30911f0f884217a4983d7bae24"),
    split("smollm2-135m", "plain", "light", 64, "47dca6cca6d99b269b1089d68610dbc83ecda5bf8176ad1510a6a6d79684a274"),
    split("smollm2-135m", "plain", "light", 128, "00d43504fbb299183b6a0f98ca6a7ef51885309aab8469b970c7d98e0c7d4f36"),
    split("smollm2-135m", "plain", "light", 256, "39d94971864808146539af57f37577841ee2c2f05f0d9c36979317195a40ac12"),
    split("smollm2-135m", "fused", "default", 64, "985ed6481fc7e65916606cf1b684d01ea6fda9fa813013143403c2045155af97"),
    split("smollm2-135m", "fused", "default", 128, "2f6b8ee221b2994669da947af3aeb02b65f6854041a973955981afc19fc0bd1b"),
    split("smollm2-135m", "fused", "default", 256, "3fbc4f783ad96e9684533ba390b22c9c4768bbf02bbf1d762b8f1ce75ba74499"),
    split("smollm2-135m", "fused", "light", 64, "8e6ff0b30013df314088eaf7928b9cec8904260c792fe6b7608105d49c8b6190"),
    split("smollm2-135m", "fused", "light", 128, "200189a81a8662457094e48eeeffd4c9846b15b1e974e3d3aa0a90564f33cdfb"),
    split("smollm2-135m", "fused", "light", 256, "2ef9107a2f7510f9f043904fa7903e0d154e9edd5738bca50d80938fc1b9323e"),
    split("qwen2.5-coder-0.5b", "plain", "default", 64, "c3b34bdfc1255637a0cb1b577da9be79ce1c001df4de2f86d59462b69e115c84"),
    split("qwen2.5-coder-0.5b", "plain", "default", 128, "e0eb52e37286c64887252949f2189c8fc46d19958d4d34b72bb39aa688addab3"),
    split("qwen2.5-coder-0.5b", "plain", "default", 256, "2c1ab60679494d89360ffa6d58358dc4146a628d75452c2a9a74c2afd3fad182"),
    split("qwen2.5-coder-0.5b", "plain", "light", 64, "4b7d7ca3c359be2ef1408d60ae1a546f20a99645ef9f2084487a40132b7f30a7"),
    split("qwen2.5-coder-0.5b", "plain", "light", 128, "437ebbf31ae1da39f1813529f0324dddd83d526789047cf1248f00ae5ddd625e"),
    split("qwen2.5-coder-0.5b", "plain", "light", 256, "515533744ad09d74b5eef60d561b119dbd6d0b2a5d266a6cf500e769cb0eeb31"),
    split("qwen2.5-coder-0.5b", "fused", "default", 64, "c6c836fc5d7a457a68cfc120e546549afd623099b7b47c2a1b50ee688b615d8d"),
    split("qwen2.5-coder-0.5b", "fused", "default", 128, "25f30c10c893f695a5f1be860846ad15dd961d028e69c7dbbbef721d733f62e2"),
    split("qwen2.5-coder-0.5b", "fused", "default", 256, "81ca884977c2ec03576a60c93c0d45e701d8c23e8e269fc00ef8ee06e911c286"),
    split("qwen2.5-coder-0.5b", "fused", "light", 64, "558a4ca8c48853eaf14c69a9f27c359a432fb53e593b15e294a61176594f6423"),
    split("qwen2.5-coder-0.5b", "fused", "light", 128, "0a1459de1e74c719d0912e7e7a513ad32b6c32b45d617355dc580cb86a490097"),
    split("qwen2.5-coder-0.5b", "fused", "light", 256, "c8503b86de0d989dfd020ef8c9a046e7d25931c19f2c414b1efddeea3535791b"),
    split("qwen2.5-coder-1.5b", "plain", "default", 64, "b8559ce5955e6ed414a4859a9c69e06a212e05cda7cc5a6ffdb0c6f1648c78fb"),
    split("qwen2.5-coder-1.5b", "plain", "default", 128, "27f6ee1f41f9bf9dbfb42d8fffab7ba973f8d9e9e2f6643f66bab7d67b95e94c"),
    split("qwen2.5-coder-1.5b", "plain", "default", 256, "202d73cb99ece14c9c6e7b59e9f76cb310f15ed222345482f5f43630d5fb9c69"),
    split("qwen2.5-coder-1.5b", "plain", "light", 64, "0b1ecd42389780f8c926114bf75f0acd5e9c7c2565e94aadb79350be7fa30774"),
    split("qwen2.5-coder-1.5b", "plain", "light", 128, "6aaa83fa45d78ac7f8608746f1c3925544651ec4c2b9722082df2899554d2071"),
    split("qwen2.5-coder-1.5b", "plain", "light", 256, "118510e4f931b4cfccd80606c6cbc58bf04e37d8a1966d66cc440163f060e075"),
    split("qwen2.5-coder-1.5b", "fused", "default", 64, "51a26314b5a66a5b7ce1d8720e77f8f31f4c899ba5b893b58a3b64745e029f2d"),
    split("qwen2.5-coder-1.5b", "fused", "default", 128, "4c9c106c2cec7743582c0f912f7cdc164907285d3829ee922b06b0a0dece25e4"),
    split("qwen2.5-coder-1.5b", "fused", "default", 256, "2083e7f87de23d4e5663eeb9b4e58034e55310c277f211c0347cb58a858a416a"),
    split("qwen2.5-coder-1.5b", "fused", "light", 64, "ce754e1a84dfc4572209255b9209913ade76c871a5f5579d17f31049a16d48c2"),
    split("qwen2.5-coder-1.5b", "fused", "light", 128, "da1a961ea50279a5baf9d18a7872c23c82c5ea09fdd28b6af698ad481a8c09e7"),
    split("qwen2.5-coder-1.5b", "fused", "light", 256, "533fad94fcef34a436a2fa82dbcc6e7570706c7c85c9ab2b2334f9180ec1e03a"),
    split("minilm", "plain", "default", 64, "99fd4cb9f13acd788326089e1098e4467459b159d0530bbf156c5f0f5e8fa58a"),
    split("minilm", "plain", "default", 128, "1653f48e20a4dbeea18a825e0aa1e9311489e0bf8ef3f9428fdf8432bf4aafed"),
    split("minilm", "plain", "default", 256, "74c6779b189ab75e2cdedc4d76eb1e004b57168741512d166d2432bcfcb032ff"),
    split("minilm", "plain", "light", 64, "f59fbb6876f1d42468a57eddf0fa1b506e5aebc03ccb941eb7d476c5e7f622b2"),
    split("minilm", "plain", "light", 128, "972458affb7522fbe50ae2a1788ef3005811699fd43b786547ee392191d6ce78"),
    split("minilm", "plain", "light", 256, "4aebc01dd8b331ee52e882f4474b59db45a62af6a8977e74343f5b4e8520851c"),
    split("minilm", "fused", "default", 64, "326952f6352ae2068ea34202348f7d5ebd707ed5f641ca14ac7475f23c586a04"),
    split("minilm", "fused", "default", 128, "20cda523b932cbd51fc787b4b24f4d36f321598c230bd89422e9aeabcb5d5b0f"),
    split("minilm", "fused", "default", 256, "fc94b815a2a46c0276424e4ae6ba97d3ca02c78c6b1e0f9e706ddb7c44d116b8"),
    split("minilm", "fused", "light", 64, "a14b4a4829f55aa2b3272d119f8007c4d093d0d53c1a0c1e458769629141ced0"),
    split("minilm", "fused", "light", 128, "c927d3273e3890e3836f761f2cd5de0e8caf9d6eb44b240571cbee97e7f0329a"),
    split("minilm", "fused", "light", 256, "95f5dc692b01b4d3723b5933f13f8cb83f2b98f3fe0ae54e75b9d7477793d5f6"),
    split("rampart", "plain", "default", 64, "0f58e4909df4b3a1886e8e07e45f98dbcfa5d9c3d2bddd30c5c646ce8f87a44f"),
    split("rampart", "plain", "default", 128, "e1be271bb5d9bb9828b18056bf43786b818fe40aff6ed759a393b733d403932e"),
    split("rampart", "plain", "default", 256, "9bf8f65cdd8b11853d232451500881231d7ca92ebb6efcc66a6bb1cc888270c2"),
    split("rampart", "plain", "light", 64, "33028fd716be2127e5fc41c07cb303f16d2447ce67a7282aa4257e3c0b031d46"),
    split("rampart", "plain", "light", 128, "c9cfe508b431e7a424b51dc8e4b1e189f4073d8c91cf800752fa4f395265250c"),
    split("rampart", "plain", "light", 256, "a7d786ea2b0476cbe2d0361cab5b2ce873e2dbe3b9929b55c65b372f7a4c6303"),
    split("rampart", "fused", "default", 64, "394db825393744c8d3fea658d7ad8796d9b8723b907d9ab6c2f76a781395e76f"),
    split("rampart", "fused", "default", 128, "4a9ff8aa44d77d5642b4c601cc0661f373ff55675d638e28e09d24f9dfd88193"),
    split("rampart", "fused", "default", 256, "ad348b06384806a0fc03f8fb6dc6e9eec061428d02fff86266d6bae589779781"),
    split("rampart", "fused", "light", 64, "31670229518f886bfa2bcd4ab2b09c89a89b8f8e9f224c389293e7fc955348e8"),
    split("rampart", "fused", "light", 128, "a6e25196822f2d5612de124124306f5df612f212c01d203bd42e86a8a5af7280"),
    split("rampart", "fused", "light", 256, "9d631260406d95319f81b95a0114095990e4ba619301ca336fddae5a4c8f6505"),
];

/// The published split with this digest.
pub fn find(digest: &[u8; 32]) -> Option<&'static Published> {
    let digest = hex::encode(digest);
    PUBLISHED.iter().find(|published| published.digest == digest)
}

/// The digests of the published splits of `model`.
pub fn digests_of(model: &str) -> Vec<[u8; 32]> {
    PUBLISHED
        .iter()
        .filter(|published| published.model == model)
        .filter_map(|published| {
            let mut digest = [0; 32];
            hex::decode_to_slice(published.digest, &mut digest).ok().map(|()| digest)
        })
        .collect()
}

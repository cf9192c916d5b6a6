//! GPT-2 and BERT tensors of a GGUF file under transformers' names, which the code of these families uses.

use super::Names;
use crate::weights::WeightSource;
use crate::{Error, Result};
use candle_core::Tensor;

const GPT2: Names = Names {
    blocks: "h.",
    block: &[
        ("attn_norm", "ln_1"),
        ("attn_qkv", "attn.c_attn"),
        ("attn_output", "attn.c_proj"),
        ("ffn_norm", "ln_2"),
        ("ffn_up", "mlp.c_fc"),
        ("ffn_down", "mlp.c_proj"),
    ],
    outer: &[("token_embd", "wte"), ("position_embd", "wpe"), ("output_norm", "ln_f")],
};

const BERT: Names = Names {
    blocks: "encoder.layer.",
    block: &[
        ("attn_q", "attention.self.query"),
        ("attn_k", "attention.self.key"),
        ("attn_v", "attention.self.value"),
        ("attn_output", "attention.output.dense"),
        ("attn_output_norm", "attention.output.LayerNorm"),
        ("ffn_up", "intermediate.dense"),
        ("ffn_down", "output.dense"),
        ("layer_output_norm", "output.LayerNorm"),
    ],
    outer: &[
        ("token_embd", "embeddings.word_embeddings"),
        ("position_embd", "embeddings.position_embeddings"),
        ("token_types", "embeddings.token_type_embeddings"),
        ("token_embd_norm", "embeddings.LayerNorm"),
    ],
};

/// A GGUF file under transformers' names.
pub struct FromGguf {
    inner: Box<dyn WeightSource>,
    names: &'static Names,
    /// Whether transformers has the linear layers the other way round, `[in, out]`.
    turned: bool,
}

impl FromGguf {
    /// A GPT-2. A head of its own in the file is left out: the converter writes a copy of the embedding there.
    pub fn gpt2(inner: Box<dyn WeightSource>) -> Self {
        Self { inner, names: &GPT2, turned: true }
    }

    /// A BERT encoder.
    pub fn bert(inner: Box<dyn WeightSource>) -> Self {
        Self { inner, names: &BERT, turned: false }
    }

    fn is_turned(&self, name: &str) -> bool {
        self.turned && name.contains(".c_") && name.ends_with(".weight")
    }
}

impl WeightSource for FromGguf {
    fn names(&self) -> Vec<String> {
        let names = self.inner.names();
        let mut names: Vec<_> = names.iter().filter_map(|name| self.names.to_hugging_face(name)).collect();
        names.sort();
        names
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let mut shape = self.inner.shape(&self.names.to_gguf(name)?)?;
        if self.is_turned(name) {
            shape.reverse();
        }
        Some(shape)
    }

    fn get(&self, name: &str) -> Result<Tensor> {
        let missing = || Error::MissingTensor { name: name.to_owned() };
        let tensor = self.inner.get(&self.names.to_gguf(name).ok_or_else(missing)?)?;
        if self.is_turned(name) && tensor.rank() == 2 {
            return Ok(tensor.t()?.contiguous()?);
        }
        Ok(tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::MemorySource;
    use candle_core::Device;

    #[test]
    fn names_go_both_ways() {
        for (names, theirs, gguf) in [
            (&GPT2, "wte.weight", "token_embd.weight"),
            (&GPT2, "h.11.attn.c_attn.weight", "blk.11.attn_qkv.weight"),
            (&GPT2, "h.0.mlp.c_proj.bias", "blk.0.ffn_down.bias"),
            (&BERT, "embeddings.LayerNorm.bias", "token_embd_norm.bias"),
            (&BERT, "encoder.layer.3.output.LayerNorm.weight", "blk.3.layer_output_norm.weight"),
            (&BERT, "encoder.layer.3.attention.output.dense.bias", "blk.3.attn_output.bias"),
        ] {
            assert_eq!(names.to_gguf(theirs).as_deref(), Some(gguf));
            assert_eq!(names.to_hugging_face(gguf).as_deref(), Some(theirs));
        }
        assert_eq!((GPT2.to_gguf("h.0.attn.bias"), GPT2.to_hugging_face("output.weight")), (None, None));
    }

    #[test]
    fn gpt2s_linear_layers_are_turned_and_nothing_else() {
        let tensor =
            |shape: &[usize]| Tensor::arange(0f32, 6.0, &Device::Cpu).unwrap().reshape(shape).unwrap();
        let gguf = MemorySource::new([
            ("blk.0.ffn_up.weight".to_owned(), tensor(&[3, 2])),
            ("position_embd.weight".to_owned(), tensor(&[3, 2])),
        ]);
        let source = FromGguf::gpt2(Box::new(gguf));
        assert_eq!(source.names(), ["h.0.mlp.c_fc.weight", "wpe.weight"]);
        assert_eq!(source.shape("h.0.mlp.c_fc.weight"), Some(vec![2, 3]));
        let turned = source.get("h.0.mlp.c_fc.weight").unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(turned, [[0., 2., 4.], [1., 3., 5.]]);
        assert_eq!(source.get("wpe.weight").unwrap().dims(), [3, 2]);
        assert!(source.get("h.1.ln_1.bias").is_err());
    }
}

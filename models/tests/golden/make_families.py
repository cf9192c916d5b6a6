#!/usr/bin/env python3
"""Writes golden files of small models with random weights, one or two for each family.

    python3 -m venv venv && venv/bin/pip install torch transformers gguf
    venv/bin/python make_families.py DIRECTORY [FAMILY...]

For each family DIRECTORY/FAMILY.safetensors holds the tensors as transformers saves them (bf16), the ids of a text, and what
transformers computes for it in float64: `golden.logits` of a decoder, `golden.hidden` of an encoder, and `golden.labels`
of a token classifier. The file's metadata holds config.json. DIRECTORY/FAMILY.gguf is the same decoder as llama.cpp's
convert_hf_to_gguf.py writes it: names by the package `gguf`, with the converter's reorderings, written here anew.

Made with torch 2.15.0, transformers 5.24.0, gguf 0.19.0.
"""
import json
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from safetensors.torch import save_file

VOCAB, TOKENS = 48, 14
LAYERS, HIDDEN, INNER, HEADS, KV_HEADS, DIM = 2, 32, 40, 4, 2, 8

COMMON = dict(
    vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
    max_position_embeddings=32, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)
GROUPED = dict(num_key_value_heads=KV_HEADS)
ALTERNATING = dict(sliding_window=5, layer_types=["sliding_attention", "full_attention"])

# family: (configuration class, its arguments, model class, architecture in GGUF)
DECODERS = {
    "llama": ("LlamaConfig", dict(GROUPED, tie_word_embeddings=False), "LlamaForCausalLM", "llama"),
    "mistral": ("MistralConfig", dict(GROUPED, sliding_window=5, head_dim=DIM, tie_word_embeddings=False),
                "MistralForCausalLM", None),
    "qwen2": ("Qwen2Config", dict(GROUPED, tie_word_embeddings=True), "Qwen2ForCausalLM", "qwen2"),
    "qwen3": ("Qwen3Config", dict(GROUPED, head_dim=12, tie_word_embeddings=False), "Qwen3ForCausalLM", "qwen3"),
    "gemma": ("GemmaConfig", dict(GROUPED, head_dim=12), "GemmaForCausalLM", "gemma"),
    "gemma2": ("Gemma2Config", dict(GROUPED, **ALTERNATING, head_dim=12, query_pre_attn_scalar=12,
                                    attn_logit_softcapping=2.0, final_logit_softcapping=3.0),
               "Gemma2ForCausalLM", "gemma2"),
    "gemma3": ("Gemma3TextConfig", dict(GROUPED, **ALTERNATING, head_dim=12, query_pre_attn_scalar=12),
               "Gemma3ForCausalLM", None),
    # The pattern that GGUF implies, every sixth block global, with a window that two blocks feel.
    "gemma3_local": ("Gemma3TextConfig", dict(GROUPED, head_dim=12, query_pre_attn_scalar=12, sliding_window=5,
                                              layer_types=["sliding_attention"] * 2), "Gemma3ForCausalLM", "gemma3"),
    "phi": ("PhiConfig", dict(rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5)),
            "PhiForCausalLM", "phi2"),
    "phi3": ("Phi3Config", dict(GROUPED, rope_parameters=dict(rope_type="default", rope_theta=10000.0,
                                                              partial_rotary_factor=0.75),
                                tie_word_embeddings=False, original_max_position_embeddings=32),
             "Phi3ForCausalLM", "phi3"),
    "smollm3": ("SmolLM3Config", dict(GROUPED, no_rope_layers=[1, 0], tie_word_embeddings=True),
                "SmolLM3ForCausalLM", None),
    "smollm3_rotated": ("SmolLM3Config", dict(GROUPED, no_rope_layers=[1, 1], tie_word_embeddings=True),
                        "SmolLM3ForCausalLM", "smollm3"),
    "olmo2": ("Olmo2Config", dict(GROUPED, tie_word_embeddings=False), "Olmo2ForCausalLM", "olmo2"),
    "granite": ("GraniteConfig", dict(GROUPED, embedding_multiplier=3.0, residual_multiplier=0.4,
                                      attention_multiplier=0.2, logits_scaling=2.0, tie_word_embeddings=True),
                "GraniteForCausalLM", "granite"),
    "starcoder2": ("Starcoder2Config", dict(GROUPED, sliding_window=None, use_bias=True), "Starcoder2ForCausalLM",
                   "starcoder2"),
    "gpt_neox": ("GPTNeoXConfig", dict(rope_parameters=dict(rope_type="default", rope_theta=10000.0,
                                                            partial_rotary_factor=0.5)),
                 "GPTNeoXForCausalLM", "gptneox"),
    "cohere": ("CohereConfig", dict(GROUPED, logit_scale=0.25), "CohereForCausalLM", "command-r"),
    "cohere2": ("Cohere2Config", dict(GROUPED, **ALTERNATING, logit_scale=0.25, head_dim=DIM), "Cohere2ForCausalLM",
                None),
}
ENCODERS = {
    "xlm_roberta": ("XLMRobertaConfig", dict(pad_token_id=1, bos_token_id=0, max_position_embeddings=24,
                                             type_vocab_size=1), "XLMRobertaModel"),
    "distilbert": ("DistilBertConfig", dict(dim=HIDDEN, hidden_dim=INNER, n_layers=LAYERS, n_heads=HEADS),
                   "DistilBertModel"),
    "distilbert_labels": ("DistilBertConfig", dict(dim=HIDDEN, hidden_dim=INNER, n_layers=LAYERS, n_heads=HEADS,
                                                   num_labels=5), "DistilBertForTokenClassification"),
    "modernbert": ("ModernBertConfig", dict(local_attention=8, cls_token_id=1, sep_token_id=2),
                   "ModernBertModel"),
}


def randomize(model, seed):
    """Norms near 1 (or 0 where they are stored as the difference from 1), everything else near 0; all exact in bf16."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        is_gain = "norm" in name.lower() and name.endswith("weight")
        mean = 1.0 if is_gain and float(parameter.detach().float().mean()) > 0.5 else 0.0
        spread = 0.25 if is_gain or parameter.dim() == 1 else 0.3
        parameter.data = (mean + spread * noise).bfloat16().float()


def build(family):
    config_class, arguments, model_class, *_ = (DECODERS | ENCODERS)[family]
    arguments = COMMON | arguments
    if "dim" in arguments:
        for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
            arguments.pop(name)
    config = getattr(transformers, config_class)(**arguments)
    config._attn_implementation = "eager"
    model = getattr(transformers, model_class)(config).eval()
    randomize(model, sum(map(ord, family)))
    config.architectures = [model_class]
    return config, model


def save(path, config, model, golden):
    state = {name: tensor for name, tensor in model.state_dict().items() if "inv_freq" not in name}
    if config.tie_word_embeddings:
        for head in ("lm_head.weight", "embed_out.weight"):
            if family_is_decoder(model):
                state.pop(head, None)
    tensors = {name: tensor.bfloat16().contiguous().clone() for name, tensor in state.items() if tensor.is_floating_point()}
    tensors |= golden
    save_file(tensors, path, metadata={"config": config.to_json_string(use_diff=False)})


def family_is_decoder(model):
    return "CausalLM" in type(model).__name__


def permuted(tensor, heads):
    """Rows of rotary pairs next to each other, as the converter stores Llama's q and k."""
    shape = tensor.shape
    return tensor.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def write_gguf(path, architecture, config, model):
    writer = gguf.GGUFWriter(str(path), architecture)
    arch = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(arch, LAYERS)
    head_dim = getattr(config, "head_dim", None) or HIDDEN // HEADS
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    writer.add_block_count(LAYERS)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(getattr(config, "num_key_value_heads", HEADS))
    writer.add_key_length(head_dim)
    writer.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1.0)))
    writer.add_rope_freq_base(rope["rope_theta"])
    eps = getattr(config, "rms_norm_eps", None)
    if eps is not None:
        writer.add_layer_norm_rms_eps(eps)
    else:
        writer.add_layer_norm_eps(getattr(config, "norm_epsilon", None) or config.layer_norm_eps)
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if architecture in ("gemma2", "gemma3"):
        writer.add_sliding_window(config.sliding_window)
    if architecture == "granite":
        writer.add_embedding_scale(config.embedding_multiplier)
        writer.add_residual_scale(config.residual_multiplier)
        writer.add_attention_scale(config.attention_multiplier)
        writer.add_logit_scale(config.logits_scaling)
    if architecture == "command-r":
        writer.add_logit_scale(config.logit_scale)
    if architecture == "gptneox":
        writer.add_parallel_residual(config.use_parallel_residual)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b", "ab"] + [f"w{i}" for i in range(3, VOCAB)])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(2)
    interleaved = architecture in ("llama", "granite", "smollm3")
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point() or "inv_freq" in name:
            continue
        if config.tie_word_embeddings and name in ("lm_head.weight", "embed_out.weight"):
            continue
        data = tensor.float().numpy()
        if interleaved and ".q_proj." in name:
            data = permuted(data, HEADS)
        if interleaved and ".k_proj." in name:
            data = permuted(data, config.num_key_value_heads)
        if "query_key_value" in name:
            by_head = data.reshape(HEADS, 3, head_dim, *data.shape[1:])
            data = np.concatenate([by_head[:, i].reshape(-1, *data.shape[1:]) for i in range(3)])
        if architecture.startswith("gemma") and name.endswith("norm.weight"):
            data = data + 1
        new = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert new is not None, name
        if data.ndim == 1:
            writer.add_tensor(new, np.ascontiguousarray(data, dtype=np.float32))
        else:
            kind = gguf.GGMLQuantizationType.BF16
            writer.add_tensor(new, gguf.quants.quantize(np.ascontiguousarray(data), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    directory, only = Path(sys.argv[1]), sys.argv[2:]
    directory.mkdir(exist_ok=True)
    for family in DECODERS | ENCODERS:
        if only and family not in only:
            continue
        config, model = build(family)
        ids = torch.randint(3, VOCAB, (1, TOKENS), generator=torch.Generator().manual_seed(7))
        wide = model.double()
        with torch.no_grad():
            output = wide(input_ids=ids, attention_mask=torch.ones_like(ids))
        model = wide.float()
        golden = {"golden.ids": ids[0].float()}
        if "logits" in output:
            name = "golden.logits" if family in DECODERS else "golden.labels"
            golden[name] = output.logits[0].float().contiguous()
        else:
            golden["golden.hidden"] = output.last_hidden_state[0].float().contiguous()
        save(directory / f"{family}.safetensors", config, model, golden)
        if family in DECODERS and DECODERS[family][3]:
            write_gguf(directory / f"{family}.gguf", DECODERS[family][3], config, model)
        print(family, json.loads(config.to_json_string())["model_type"], float(next(reversed(golden.values())).abs().max()))


main()

"""The trained model as sotto reads it: `config.json`, `tokenizer.json`, and quantized safetensors."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from .e5 import BLOCK
from .labels import CLASSES

#: Weights of a linear layer that share a scale.
GROUP = 64
NAMES = {"q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
         "ao": "attention.output.dense", "aln": "attention.output.LayerNorm", "fi": "intermediate.dense",
         "fo": "output.dense", "oln": "output.LayerNorm"}


def nibbles(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes of 4 bits, two per byte, and `[rows, blocks]` scales. The embeddings were of this form before; nothing is lost."""
    rows, columns = weights.shape
    blocks = weights.reshape(rows, columns // BLOCK, BLOCK)
    index = np.abs(blocks).argmax(axis=2, keepdims=True)
    # The code of the largest weight is -8, as in the file that the embeddings come from.
    scales = np.take_along_axis(blocks, index, 2) / -8
    codes = np.round(blocks / np.where(scales == 0, 1, scales)).clip(-8, 7) + 8
    codes = codes.astype(np.uint8).reshape(rows, columns)
    return codes[:, 0::2] | codes[:, 1::2] << 4, scales[:, :, 0].astype(np.float16)


def bytes_of(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes of 8 bits, and `[rows, groups]` scales."""
    rows, columns = weights.shape
    groups = weights.reshape(rows, columns // GROUP, GROUP)
    scales = (np.abs(groups).max(axis=2, keepdims=True) / 127).astype(np.float16)
    codes = np.round(groups / np.where(scales == 0, 1, scales).astype(np.float32)).clip(-127, 127)
    return codes.astype(np.int8).reshape(rows, columns), scales[:, :, 0]


def export(checkpoint: Path, tokenizer: bytes, out: Path) -> None:
    """Writes the model directory `out` from a checkpoint of the training."""
    out.mkdir(parents=True, exist_ok=True)
    saved = torch.load(checkpoint, map_location="cpu")
    state = {name: value.float().numpy() for name, value in saved["model"].items()}
    tensors: dict[str, np.ndarray] = {}

    def put(name: str, weights: np.ndarray, quantize) -> None:
        tensors[name], tensors[f"{name}_scale"] = quantize(weights)

    embeddings = "bert.embeddings."
    put(f"{embeddings}word_embeddings.weight", state["word.weight"], nibbles)
    for name, long in (("pos", "position_embeddings"), ("kind", "token_type_embeddings")):
        tensors[f"{embeddings}{long}.weight"] = state[f"{name}.weight"].astype(np.float16)
    tensors[f"{embeddings}LayerNorm.weight"] = state["ln.weight"]
    tensors[f"{embeddings}LayerNorm.bias"] = state["ln.bias"]
    for index in range(len(saved["layers"])):
        for name, long in NAMES.items():
            at = f"bert.encoder.layer.{index}.{long}"
            weight = state[f"blocks.{index}.{name}.weight"]
            if weight.ndim == 2:
                put(f"{at}.weight", weight, bytes_of)
            else:
                tensors[f"{at}.weight"] = weight
            tensors[f"{at}.bias"] = state[f"blocks.{index}.{name}.bias"]
    put("classifier.weight", state["cls.weight"], bytes_of)
    tensors["classifier.bias"] = state["cls.bias"]
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, out / "model.safetensors",
              metadata={"format": "pt"})
    vocabulary, hidden = state["word.weight"].shape
    config = {
        "architectures": ["BertForTokenClassification"], "model_type": "bert", "vocab_size": vocabulary,
        "hidden_size": hidden, "intermediate_size": state["blocks.0.fi.weight"].shape[0],
        "num_hidden_layers": len(saved["layers"]), "num_attention_heads": 12, "hidden_act": "gelu",
        "max_position_embeddings": state["pos.weight"].shape[0], "type_vocab_size": 2, "layer_norm_eps": 1e-12,
        "pad_token_id": 1, "id2label": {str(index): name for index, name in enumerate(CLASSES)},
        "label2id": {name: index for index, name in enumerate(CLASSES)},
    }
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    (out / "tokenizer.json").write_bytes(tokenizer)
    (out / "tokenizer_config.json").write_text(json.dumps(
        {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}, indent=1) + "\n")


def read(directory: Path) -> dict[str, torch.Tensor]:
    """The weights of a model directory by the names of the training, `export` backwards: a training can go on from it. What the
    8 bits rounded away stays away."""
    tensors = load_file(directory / "model.safetensors")

    def take(name: str) -> torch.Tensor:
        value = tensors[name]
        scales = tensors.get(f"{name}_scale")
        if scales is None:
            return torch.from_numpy(value.astype(np.float32))
        if value.dtype == np.uint8:
            value = np.stack([value & 15, value >> 4], axis=2).reshape(value.shape[0], -1).astype(np.float32) - 8
        groups = value.astype(np.float32).reshape(value.shape[0], scales.shape[1], -1)
        return torch.from_numpy((groups * scales.astype(np.float32)[:, :, None]).reshape(value.shape))

    embeddings = "bert.embeddings."
    state = {"word.weight": take(f"{embeddings}word_embeddings.weight"), "pos.weight": take(f"{embeddings}position_embeddings.weight"),
             "kind.weight": take(f"{embeddings}token_type_embeddings.weight"), "ln.weight": take(f"{embeddings}LayerNorm.weight"),
             "ln.bias": take(f"{embeddings}LayerNorm.bias"), "cls.weight": take("classifier.weight"),
             "cls.bias": take("classifier.bias")}
    blocks = json.loads((directory / "config.json").read_text())["num_hidden_layers"]
    for index in range(blocks):
        for name, long in NAMES.items():
            for part in ("weight", "bias"):
                state[f"blocks.{index}.{name}.{part}"] = take(f"bert.encoder.layer.{index}.{long}.{part}")
    return state

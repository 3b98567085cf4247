"""training/decoder-*/: tiny causal models, and in reference.safetensors what transformers and
PyTorch make of them: losses and gradients of next tokens, of a list to rank and of InfoNCE, and 20
steps of AdamW over the first two in turn. Computed in f32, losses from f32 logits in f64."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from . import oracle
from .common import empty_folder, load, normal, random_state, write_tensors
from .model_cases import Case, build, llama, qwen2, qwen3, save

SMALL = dict(vocab_size=32, hidden_size=16, intermediate_size=20, max_position_embeddings=128)
# Wavelengths 6, 17, 44 and 118: one stays, two are blended, one is divided.
ROPE = {"rope_type": "llama3", "rope_theta": 50.0, "factor": 32.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64}

CASES = [
    Case("decoder-qwen3", qwen3(**SMALL, head_dim=8), "q/k norm, head_dim 8 where C/H is 4, tied"),
    Case("decoder-qwen2", qwen2(**SMALL, tie_word_embeddings=False), "q, k, v biases, untied"),
    Case("decoder-llama",
         llama(**SMALL | {"hidden_size": 24}, num_attention_heads=3, num_key_value_heads=1,
               rope_parameters=ROPE, attention_bias=True, mlp_bias=True,
               tie_word_embeddings=True),
         "llama3 rope, all biases, one kv head, tied"),
]

TEXTS = (13, 8)
# A list: rows of the prefix and of each candidate; V takes the next vector, the last row closes.
LIST = ["..V.....", "V.", "VV..", "....", ".V..V."]
GAINS = np.array([0, 3, 0, 1], np.float32)
YES, NO = 5, 11
PAIRS, TEMPERATURE = 4, 0.05
STEPS, RATE, CLIP = 20, 3e-3, 1.0
ADAMW = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}


VECTOR = -1  # in ids: here goes the next vector


@dataclass
class Inputs:
    """Texts one after another with their lengths."""

    ids: np.ndarray
    lengths: np.ndarray
    vectors: np.ndarray | None = None

    def parts(self) -> list[np.ndarray]:
        return np.split(self.ids, np.cumsum(self.lengths)[:-1])


def draw_ids(case: Case, lengths, *names) -> Inputs:
    ids = random_state(case.name, *names).randint(0, case.config.vocab_size, sum(lengths))
    return Inputs(ids.astype(np.int32), np.array(lengths, np.int32))


def draw_list(case: Case) -> Inputs:
    out = draw_ids(case, [len(rows) for rows in LIST], "list")
    out.ids[[row == "V" for row in "".join(LIST)]] = VECTOR
    # Of the size of the word embeddings.
    out.vectors = normal((int((out.ids == VECTOR).sum()), case.config.hidden_size), 0.4,
                         case.name, "vectors")
    return out


def last_states(model, embeds: torch.Tensor) -> torch.Tensor:
    return model.model(inputs_embeds=embeds[None], use_cache=False).last_hidden_state[0]


def next_token_loss(model, inputs: Inputs) -> torch.Tensor:
    """Mean over both texts' tokens but the first; each text runs alone."""
    logits, targets = [], []
    for ids in map(torch.from_numpy, inputs.parts()):
        logits.append(model(input_ids=ids[None].long(), use_cache=False).logits[0, :-1])
        targets.append(ids[1:].long())
    return F.cross_entropy(torch.cat(logits).double(), torch.cat(targets))


def list_margins(model, inputs: Inputs, vectors: torch.Tensor) -> torch.Tensor:
    """Each candidate behind the prefix as a sequence of its own."""
    prefix, *candidates = inputs.parts()
    first = int((prefix == VECTOR).sum())
    words, margins = model.get_input_embeddings(), []
    taken = first
    for candidate in candidates:
        count = int((candidate == VECTOR).sum())
        mine = iter([*vectors[:first], *vectors[taken:taken + count]])
        taken += count
        rows = [next(mine) if i == VECTOR else words(torch.tensor(int(i)))
                for i in [*prefix, *candidate]]
        logits = model(inputs_embeds=torch.stack(rows)[None], use_cache=False).logits[0, -1]
        margins.append(logits[YES] - logits[NO])
    assert taken == len(vectors)
    return torch.stack(margins)


def listwise(margins: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(margins.double(), torch.from_numpy(GAINS).double() / GAINS.sum())


def contrast_loss(model, inputs: Inputs) -> torch.Tensor:
    """Texts 2 i and 2 i + 1 are a pair; both directions."""
    words = model.get_input_embeddings()
    states = torch.stack([last_states(model, words(torch.from_numpy(ids).long()))[-1]
                          for ids in inputs.parts()])
    a, b = F.normalize(states[0::2], dim=1), F.normalize(states[1::2], dim=1)
    logits = (a @ b.T).double() / TEMPERATURE
    target = torch.arange(PAIRS)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def gradients(model, loss: torch.Tensor, prefix: str) -> dict[str, np.ndarray]:
    """Weights that the loss does not reach have none."""
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {f"{prefix}.loss": np.array([loss.item()])} | {
        f"{prefix}.gradient.{name}": parameter.grad.numpy().copy()
        for name, parameter in model.named_parameters() if parameter.grad is not None}


def trajectory(model, texts: Inputs, ranked: Inputs) -> dict[str, np.ndarray]:
    matrices = [p for p in model.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW([{"params": matrices}, {"params": others, "weight_decay": 0.0}],
                                  lr=RATE, foreach=False, **ADAMW)
    vectors = torch.from_numpy(ranked.vectors)
    losses, norms = [], []
    for step in range(STEPS):
        loss = (next_token_loss(model, texts) if step % 2 == 0
                else listwise(list_margins(model, ranked, vectors)))
        optimizer.zero_grad(set_to_none=False)  # what a loss does not reach still decays
        loss.backward()
        losses.append(loss.item())
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP).item())
        optimizer.step()
    after = {f"after.{name}": p.detach().numpy().copy() for name, p in model.named_parameters()}
    return {"steps.loss": np.array(losses), "steps.norm": np.array(norms)} | after


def inputs_of(case: Case) -> tuple[Inputs, Inputs, Inputs]:
    lengths = random_state(case.name, "lengths").randint(2, 9, 2 * PAIRS).tolist()
    return (draw_ids(case, TEXTS, "texts"), draw_list(case), draw_ids(case, lengths, "pairs"))


def reference(case: Case, folder: Path) -> dict[str, np.ndarray]:
    texts, ranked, pairs = inputs_of(case)
    model = load(folder)
    out = {"next_token.ids": texts.ids, "next_token.lengths": texts.lengths,
           "list.ids": ranked.ids, "list.lengths": ranked.lengths, "list.vectors": ranked.vectors,
           "list.gains": GAINS, "pairs.ids": pairs.ids, "pairs.lengths": pairs.lengths}
    out |= gradients(model, next_token_loss(model, texts), "next_token")
    vectors = torch.from_numpy(ranked.vectors.copy()).requires_grad_()
    margins = list_margins(model, ranked, vectors)
    out |= gradients(model, listwise(margins), "list")
    out["list.margins"] = margins.detach().numpy()
    out["list.gradient.vectors"] = vectors.grad.numpy()
    out |= gradients(model, contrast_loss(model, pairs), "pairs")
    return out | trajectory(load(folder), texts, ranked)


def exact_losses(config: dict, weights: dict[str, np.ndarray], case: Case,
                 vectors: np.ndarray) -> dict[str, float]:
    """The three losses by the double-precision forward pass of oracle.py, for check.py."""
    texts, ranked, pairs = inputs_of(case)

    def log_softmax(x: np.ndarray) -> np.ndarray:
        x = x - x.max(axis=-1, keepdims=True)
        return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))

    token_losses = []
    for ids in texts.parts():
        log_p = log_softmax(oracle.run(config, weights, ids=ids)["logits"][:-1])
        token_losses.extend(-log_p[np.arange(len(ids) - 1), ids[1:]])

    prefix, *candidates = ranked.parts()
    first = taken = int((prefix == VECTOR).sum())
    margins = []
    for candidate in candidates:
        ids = np.concatenate([prefix, candidate])
        count = int((candidate == VECTOR).sum())
        embeds = weights["embed_tokens.weight"][ids].copy()
        embeds[ids == VECTOR] = np.concatenate([vectors[:first], vectors[taken:taken + count]])
        taken += count
        logits = oracle.run(config, weights, embeds=embeds)["logits"][-1]
        margins.append(logits[YES] - logits[NO])
    share = GAINS.astype(np.float64) / GAINS.sum()

    states = np.stack([oracle.run(config, weights, ids=ids)["hidden_states"][-1][-1]
                       for ids in pairs.parts()])
    states /= np.linalg.norm(states, axis=1, keepdims=True)
    logits = states[0::2] @ states[1::2].T / TEMPERATURE
    both = np.diag(log_softmax(logits)) + np.diag(log_softmax(logits.T))
    return {"next_token": float(np.mean(token_losses)),
            "list": float(-(share * log_softmax(np.array(margins))).sum()),
            "pairs": float(-both.mean() / 2)}


def write(root: Path) -> None:
    """After training.py, which empties the folder."""
    for case in CASES:
        folder = empty_folder(root / "training" / case.name)
        save(case, build(case), folder)
        (folder / "generation_config.json").unlink()
        write_tensors(folder / "reference.safetensors", reference(case, folder))

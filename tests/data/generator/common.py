"""What the other modules share: writing files, filling weights, running a model."""

import json
import re
import shutil
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging

logging.disable_progress_bar()
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)
torch.backends.mkldnn.enabled = False  # it picks its bf16 kernels by CPU model


def empty_folder(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def write_json(path: Path, value) -> None:
    """Indented, but a list of numbers stays on one line."""
    text = json.dumps(value, indent=2)
    text = re.sub(r"\[\s+(-?\d[^][{}\"]*?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text)
    path.write_text(text + "\n", encoding="ascii")


def write_jsonl(path: Path, rows: list[dict]) -> None:
    """ASCII only: U+0000, lone marks and direction controls stay readable as \\u escapes."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="ascii")


def write_tensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, path)


def random_state(*names) -> np.random.RandomState:
    """A generator that depends on these names only, so that adding a case moves no other.

    RandomState and not default_rng: numpy promises never to change its streams.
    """
    return np.random.RandomState(zlib.crc32("/".join(map(str, names)).encode()))


def normal(shape, std: float, *names) -> np.ndarray:
    return (std * random_state(*names).standard_normal(shape)).astype(np.float32)


def fill_weights(model: torch.nn.Module, case: str) -> None:
    """Random weights under which every parameter matters.

    transformers' own start (std 0.02, norms 1, biases 0) makes attention nearly uniform and
    hides a forgotten norm weight or bias completely.
    """
    for name, parameter in model.named_parameters():
        kind = name.removesuffix(".weight").rsplit(".", 1)[-1]
        if name.endswith(".bias"):
            mean, std = 0.0, 0.3
        elif kind in ("q_norm", "k_norm"):
            mean, std = 1.5, 0.25  # sharp attention: a wrong position is a wrong result
        elif kind in ("q_proj", "k_proj"):
            mean, std = 0.0, 0.25  # the same, for families without q/k norms
        elif "norm" in kind:
            mean, std = 1.0, 0.25
        elif kind == "embed_tokens":
            mean, std = 0.0, 0.4
        else:
            mean, std = 0.0, 0.2
        value = mean + normal(tuple(parameter.shape), std, case, name)
        parameter.data = torch.from_numpy(np.asarray(value, np.float32))


def load(folder: Path, dtype: torch.dtype = torch.float32):
    """Loads a folder, weights converted to dtype, and insists that every tensor has its place."""
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", output_loading_info=True
    )
    problems = {kind: names for kind, names in info.items() if names}
    assert not problems, f"{folder}: {problems}"
    return model.eval()


@torch.no_grad()
def run(model, ids: list[int] | None = None, embeds: np.ndarray | None = None) -> dict:
    """One forward pass over one sequence. Returns f32 arrays without the batch dimension.

    hidden_states[0] is the input embeddings, hidden_states[i] the output of layer i for
    0 < i < L, and hidden_states[L] the output of the last layer *after the final norm*, as
    transformers gives them. pre_norm is the output of the last layer before it.
    """
    kept = {}
    hook = model.model.norm.register_forward_pre_hook(lambda _, args: kept.update(x=args[0]))
    if embeds is None:
        inputs = {"input_ids": torch.tensor([ids])}
    else:
        inputs = {"inputs_embeds": torch.from_numpy(embeds)[None].to(model.dtype)}
    out = model(**inputs, output_hidden_states=True, use_cache=False)
    hook.remove()

    states = [state[0].float().numpy() for state in out.hidden_states]
    assert len(states) == model.config.num_hidden_layers + 1
    assert torch.equal(model.model.norm(kept["x"]), out.hidden_states[-1])
    return {
        "hidden_states": states,
        "pre_norm": kept["x"][0].float().numpy(),
        "logits": out.logits[0].float().numpy(),
    }


@torch.no_grad()
def scatter(model, ids: list[int], mask: list[int], vectors: np.ndarray) -> np.ndarray:
    """Word embeddings of ids, with the masked positions replaced by vectors in order."""
    words = model.get_input_embeddings()(torch.tensor(ids))
    at = torch.tensor(mask, dtype=torch.bool)[:, None].expand_as(words)
    assert int(sum(mask)) == len(vectors)
    return words.masked_scatter(at, torch.from_numpy(vectors).to(words.dtype)).float().numpy()

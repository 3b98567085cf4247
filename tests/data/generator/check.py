"""Checks a finished tree: every folder is loaded again with transformers and gives the stored
results, and so does the independent forward pass of oracle.py."""

import json
import math
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch_file

from . import (
    clip_cases, llava_cases, mixed, model_cases, oracle, oracle_vision, projectors,
    training_decoder,
)
from .common import load, random_state, run

# Of the largest absolute value in a tensor. The oracle works in double precision, so this is
# how far the f32 reference itself is from the exact result.
TOLERANCE = 5e-6


def relative_difference(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def check_model(case: model_cases.Case, folder: Path) -> str:
    stored = load_file(folder / "reference.safetensors")
    model = load(folder)
    again = run(model, stored["input_ids"].tolist())
    assert np.array_equal(again["logits"], stored["logits"]), folder
    again = run(model, embeds=stored["inputs_embeds"])
    assert np.array_equal(again["logits"], stored["embeds_logits"]), folder

    exact = oracle.forward(folder, ids=stored["input_ids"])
    exact_embeds = oracle.forward(folder, embeds=stored["inputs_embeds"])
    expected = {
        "pre_norm": exact["pre_norm"],
        "logits": exact["logits"],
        "embeds_logits": exact_embeds["logits"],
        "embeds_hidden_last": exact_embeds["hidden_states"][-1],
    }
    expected |= {f"hidden_states.{i}": s for i, s in enumerate(exact["hidden_states"])}
    worst = max(relative_difference(stored[name], value) for name, value in expected.items())
    assert worst < TOLERANCE, (folder, worst)
    line = f"{case.name:24} within {worst:.1e} of double precision"
    if "logits_bf16" in stored:
        line += f", bf16 {relative_difference(stored['logits_bf16'], stored['logits']):.1e}"
    return f"{line}  ({case.note})"


def check_reranker(folder: Path) -> str:
    rows = [json.loads(line) for line in (folder / "scores.jsonl").open()]
    worst = 0.0
    for row in rows:
        for suffix in ("", "_plain"):
            logits = oracle.forward(folder, ids=row["ids" + suffix])["logits"][-1]
            margin = logits[row["id_yes"]] - logits[row["id_no"]]
            worst = max(worst, abs(margin - row["margin" + suffix]))
    assert worst < 1e-4, worst
    margins = [row["margin"] for row in rows]
    return (f"reranker: {len(rows)} pairs, margins {min(margins):.2f} to {max(margins):.2f}, "
            f"within {worst:.1e} of double precision")


def check_mixed(folder: Path) -> str:
    reference = json.loads((folder / "reference.json").read_text())
    tensors = load_file(folder / "reference.safetensors")
    words = oracle.read_weights(folder / "llm")["embed_tokens.weight"]
    worst = 0.0
    for r, request in enumerate(reference["requests"]):
        for c, candidate in enumerate(request["candidates"]):
            ids = np.array(request["prefix"]["ids"] + candidate["ids"])
            embeds = words[ids]
            parts = (tensors.get(f"{r}.{part}.vectors") for part in ("prefix", f"suffix.{c}"))
            vectors = [part for part in parts if part is not None]
            if vectors:
                embeds[ids == mixed.VECTOR] = np.concatenate(vectors)
            logits = oracle.forward(folder / "llm", embeds=embeds)["logits"][-1]
            worst = max(worst, relative_difference(tensors[f"{r}.logits"][c], logits))
    states = load_file(folder / "encoder.safetensors")
    for i in range(len(mixed.ENCODER_TEXTS)):
        exact = oracle.forward(folder / "encoder", ids=states[f"{i}.ids"])["hidden_states"][-1]
        for count in mixed.LAST_ROWS:
            worst = max(worst, relative_difference(states[f"{i}.last_{count}"], exact[-count:]))
    assert worst < TOLERANCE, worst
    return f"mixed: prompts and encoder within {worst:.1e} of double precision"


def check_projector(folder: Path) -> str:
    weights = load_torch_file(folder / "projector.safetensors")
    reference = load_file(folder / "reference.safetensors")

    def linear(i: int, x: np.ndarray) -> np.ndarray:
        weight, bias = (weights.get(f"linear_{i}.{part}") for part in ("weight", "bias"))
        return x @ weight.double().numpy().T + (0 if bias is None else bias.double().numpy())

    y = linear(1, reference["input"].astype(np.float64))
    if "linear_2.weight" in weights:
        y = linear(2, y * (1 + np.vectorize(math.erf)(y / math.sqrt(2))) / 2)
    worst = relative_difference(reference["output"], y)
    assert worst < TOLERANCE, (folder, worst)
    return f"{folder.name:24} within {worst:.1e} of double precision"


def check_clip(case: clip_cases.Case, folder: Path) -> str:
    stored = load_file(folder / "reference.safetensors")
    exact = oracle_vision.clip(folder, stored)
    inputs = {name for name in stored if name.endswith(("pixel_values", "input_ids"))}
    assert exact.keys() == stored.keys() - inputs, folder
    worst = max(relative_difference(stored[name], value) for name, value in exact.items())
    assert worst < TOLERANCE, (folder, worst)
    return f"clip {case.name:19} within {worst:.1e} of double precision  ({case.note})"


def check_llava(case: llava_cases.Case, folder: Path) -> str:
    stored = load_file(folder / "reference.safetensors")
    worst, least = 0.0, math.inf
    for r in range(len(llava_cases.PROMPTS)):
        prompt = {name.removeprefix(f"{r}."): value for name, value in stored.items()
                  if name.startswith(f"{r}.")}
        exact = oracle_vision.llava(folder, prompt)
        gaps = exact.pop("answer_gaps")
        assert np.abs(gaps - prompt["answer_gaps"]).max() < 1e-4, folder
        least = min(least, float(gaps.min()))
        worst = max(worst, *(relative_difference(prompt[n], v) for n, v in exact.items()))
    assert worst < TOLERANCE and least > llava_cases.LEAST_GAP, (folder, worst, least)
    return (f"llava {case.name:18} within {worst:.1e} of double precision, "
            f"least gap {least:.1e}  ({case.note})")


def check_decoder(case: model_cases.Case, folder: Path) -> str:
    """Losses, and each stored gradient against a central difference in one direction: half along
    the gradient, half anywhere."""
    stored = load_file(folder / "reference.safetensors")
    config = json.loads((folder / "config.json").read_text())
    weights = oracle.read_weights(folder)
    values = {"vectors": stored["list.vectors"].astype(np.float64)} | weights
    exact = training_decoder.exact_losses(config, weights, case, values["vectors"])
    worst = max(abs(stored[f"{loss}.loss"][0] / value - 1) for loss, value in exact.items())
    worst_slope, step = 0.0, 1e-5
    for key in stored:
        loss, _, name = key.partition(".gradient.")
        if not name:
            continue
        short = name.removeprefix("model.")
        gradient = stored[key].astype(np.float64)
        anywhere = random_state(case.name, key).standard_normal(gradient.shape)
        direction = gradient / np.linalg.norm(gradient) + anywhere / np.linalg.norm(anywhere)
        more, less = (training_decoder.exact_losses(config, moved, case, moved["vectors"])[loss]
                      for moved in (values | {short: values[short] + sign * step * direction}
                                    for sign in (1, -1)))
        slope = np.array((more - less) / (2 * step))
        worst_slope = max(worst_slope, relative_difference((gradient * direction).sum(), slope))
    assert worst < TOLERANCE and worst_slope < 2 * TOLERANCE, (folder, worst, worst_slope)
    return (f"{case.name:24} losses within {worst:.1e}, slopes within {worst_slope:.1e} of double "
            f"precision  ({case.note})")


def check(root: Path) -> None:
    for case in model_cases.CASES:
        print(check_model(case, root / "models" / case.name))
    print(check_reranker(root / "reranker"))
    print(check_mixed(root / "mixed"))
    for case in projectors.CASES:
        print(check_projector(root / "projectors" / case))
    for case in clip_cases.CASES:
        print(check_clip(case, root / "clip" / case.name))
    for case in llava_cases.CASES:
        print(check_llava(case, root / "llava" / case.name))
    for case in training_decoder.CASES:
        print(check_decoder(case, root / "training" / case.name))

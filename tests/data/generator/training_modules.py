"""training/{projector,user,user-sequence,vision}/: modules in the layout that they are served in,
and beside each reference-<name>.safetensors with an input, the output, a gradient of the output
(`mix`) and what it becomes for every weight and the input. Computed in f64 from f32 values."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPVisionConfig, CLIPVisionModel

from .common import empty_folder, fill_weights, normal, write_json, write_tensors

USERS = {
    # Of the widths of mixed/, so that a bundle can be made with it.
    "user": {"item_dim": 32, "hidden_size": 32, "num_latents": 3, "num_hidden_layers": 1,
             "num_cross_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
             "head_dim": 6, "intermediate_size": 20, "max_history": 8,
             "position_embedding": "none", "rms_norm_eps": 1e-6},
    "user-sequence": {"item_dim": 10, "hidden_size": 15, "num_latents": 2, "num_hidden_layers": 2,
                      "num_cross_layers": 1, "num_attention_heads": 3, "intermediate_size": 12,
                      "max_history": 8, "position_embedding": "sinusoid", "rms_norm_eps": 1e-5},
}
HISTORIES = [1, 5, 8]
PICTURES, TOKENS, FEATURE_LAYER = 2, 4, -2


def leaves(weights: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value).double().requires_grad_()
            for name, value in weights.items()}


def gradients(weights: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {f"gradient.{name}": value.grad.float().numpy()
            for name, value in weights.items() if value.grad is not None}


def write_projector(folder: Path) -> None:
    weights = {
        "linear_1.weight": normal((14, 9), 0.4, "projector", 1),
        "linear_1.bias": normal((14,), 0.3, "projector", 2),
        "linear_2.weight": normal((11, 14), 0.4, "projector", 3),
        "linear_2.bias": normal((11,), 0.3, "projector", 4),
    }
    write_tensors(folder / "model.safetensors", weights)
    values = leaves(weights)
    inputs = normal((7, 9), 1.0, "projector", "input")
    mix = normal((7, 11), 1.0, "projector", "mix")
    x = torch.from_numpy(inputs).double().requires_grad_()
    hidden = F.gelu(F.linear(x, values["linear_1.weight"], values["linear_1.bias"]))
    out = F.linear(hidden, values["linear_2.weight"], values["linear_2.bias"])
    out.backward(torch.from_numpy(mix).double())
    write_tensors(folder.parent / f"reference-{folder.name}.safetensors", {
        "input": inputs, "mix": mix, "output": out.detach().float().numpy(),
        "gradient.input": x.grad.float().numpy()} | gradients(values))


def user_weights(name: str, config: dict) -> dict[str, np.ndarray]:
    C, heads, ffn = (config["hidden_size"], config["num_attention_heads"],
                     config["intermediate_size"])
    head_dim = config.get("head_dim", C // heads)
    wide, narrow = heads * head_dim, config.get("num_key_value_heads", heads) * head_dim
    shapes = {"input_proj.weight": (C, config["item_dim"]), "input_proj.bias": (C,),
              "latents.weight": (config["num_latents"], C), "norm.weight": (C,)}
    kinds = [("layers", "self_attn", config["num_hidden_layers"]),
             ("cross_layers", "cross_attn", config["num_cross_layers"])]
    for kind, attention, n in kinds:
        for i in range(n):
            shapes |= {
                f"{kind}.{i}.input_layernorm.weight": (C,),
                f"{kind}.{i}.{attention}.q_proj.weight": (wide, C),
                f"{kind}.{i}.{attention}.k_proj.weight": (narrow, C),
                f"{kind}.{i}.{attention}.v_proj.weight": (narrow, C),
                f"{kind}.{i}.{attention}.o_proj.weight": (C, wide),
                f"{kind}.{i}.post_attention_layernorm.weight": (C,),
                f"{kind}.{i}.mlp.gate_proj.weight": (ffn, C),
                f"{kind}.{i}.mlp.up_proj.weight": (ffn, C),
                f"{kind}.{i}.mlp.down_proj.weight": (C, ffn),
            }
            if kind == "cross_layers":
                shapes[f"{kind}.{i}.context_layernorm.weight"] = (C,)
    return {key: (normal(shape, 0.25, name, key) + ("norm" in key)).astype(np.float32)
            for key, shape in shapes.items()}


def user_forward(w: dict[str, torch.Tensor], config: dict, items: torch.Tensor) -> torch.Tensor:
    C, heads = config["hidden_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim", C // heads)
    groups = heads // config.get("num_key_value_heads", heads)

    def norm(x, name):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + config["rms_norm_eps"]) * w[name]

    def split(x):
        return x.unflatten(-1, (-1, head_dim)).transpose(0, 1)

    def block(stream, context, name, attention):
        h = norm(stream, f"{name}.input_layernorm.weight")
        seen = h if context is None else norm(context, f"{name}.context_layernorm.weight")
        q = split(F.linear(h, w[f"{name}.{attention}.q_proj.weight"]))
        k = split(F.linear(seen, w[f"{name}.{attention}.k_proj.weight"]))
        v = split(F.linear(seen, w[f"{name}.{attention}.v_proj.weight"]))
        k, v = k.repeat_interleave(groups, 0), v.repeat_interleave(groups, 0)
        p = torch.softmax(q @ k.transpose(1, 2) / head_dim ** 0.5, -1)
        out = (p @ v).transpose(0, 1).flatten(1)
        stream = stream + F.linear(out, w[f"{name}.{attention}.o_proj.weight"])
        h = norm(stream, f"{name}.post_attention_layernorm.weight")
        active = (F.silu(F.linear(h, w[f"{name}.mlp.gate_proj.weight"]))
                  * F.linear(h, w[f"{name}.mlp.up_proj.weight"]))
        return stream + F.linear(active, w[f"{name}.mlp.down_proj.weight"])

    x = F.linear(items, w["input_proj.weight"], w["input_proj.bias"])
    if config["position_embedding"] == "sinusoid":
        back = torch.arange(len(items) - 1, -1, -1, dtype=torch.float64)[:, None]
        angle = back / 10000.0 ** (torch.arange(0, C, 2, dtype=torch.float64) / C)
        table = torch.zeros(len(items), C, dtype=torch.float64)
        table[:, 0::2] = angle.sin()
        table[:, 1::2] = angle.cos()[:, : C // 2]
        x = x + table
    for i in range(config["num_hidden_layers"]):
        x = block(x, None, f"layers.{i}", "self_attn")
    y = w["latents.weight"]
    for i in range(config["num_cross_layers"]):
        y = block(y, x, f"cross_layers.{i}", "cross_attn")
    return norm(y, "norm.weight")


def write_user(folder: Path, name: str, config: dict) -> None:
    write_json(folder / "config.json", {"model_type": "mixrank_user"} | config)
    weights = user_weights(name, config)
    write_tensors(folder / "model.safetensors", weights)
    values = leaves(weights)
    items = normal((sum(HISTORIES), config["item_dim"]), 1.0, name, "items")
    mix = normal((len(HISTORIES), config["num_latents"], config["hidden_size"]), 1.0, name, "mix")
    x = torch.from_numpy(items).double().requires_grad_()
    out = torch.stack([user_forward(values, config, part) for part in x.split(HISTORIES)])
    out.backward(torch.from_numpy(mix).double())
    write_tensors(folder.parent / f"reference-{folder.name}.safetensors", {
        "input": items, "rows": np.array(HISTORIES, np.int32), "mix": mix,
        "output": out.detach().float().numpy(),
        "gradient.input": x.grad.float().numpy()} | gradients(values))


def write_vision(folder: Path) -> None:
    model = CLIPVisionModel(CLIPVisionConfig(
        hidden_size=12, intermediate_size=20, num_hidden_layers=3, num_attention_heads=2,
        image_size=13, patch_size=4, hidden_act="quick_gelu", projection_dim=8))
    fill_weights(model, "training vision")
    model.save_pretrained(folder)
    model = model.double().eval()
    grid, side = 3, int(TOKENS ** 0.5)
    pixels = normal((PICTURES, 3, 13, 13), 1.0, "vision", "pixels")
    mix = normal((PICTURES, TOKENS, 12), 1.0, "vision", "mix")
    states = model(torch.from_numpy(pixels).double(), output_hidden_states=True).hidden_states
    patches = states[FEATURE_LAYER][:, 1:].unflatten(1, (grid, grid))
    cut = [i * grid // side for i in range(side + 1)]
    out = torch.stack([patches[:, cut[y]:cut[y + 1], cut[x]:cut[x + 1]].mean((1, 2))
                       for y in range(side) for x in range(side)], 1)
    out.backward(torch.from_numpy(mix).double())
    write_tensors(folder.parent / f"reference-{folder.name}.safetensors", {
        "input": pixels, "mix": mix, "output": out.detach().float().numpy(),
    } | gradients(dict(model.named_parameters())))


def write(root: Path) -> None:
    """After training.py, which empties the folder."""
    write_projector(empty_folder(root / "training" / "projector"))
    for name, config in USERS.items():
        write_user(empty_folder(root / "training" / name), name, config)
    write_vision(empty_folder(root / "training" / "vision"))

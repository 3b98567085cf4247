"""clip/<case>/: tiny random CLIP folders as save_pretrained writes them, and reference.safetensors
with every hidden state of both towers, the embeddings and the similarities."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModel

from .common import empty_folder, fill_weights, normal, random_state, write_json, write_tensors
from .image_files import all_files
from .images import open_rgb, preprocess

IMAGES = ["rgb-61x47.png", "rgba.png"]
EOS, PAD = 90, 91  # of the cases that say which token ends a text


def config(image_size: int, patch_size: int, act: str, projection: int, eos: int | None = EOS,
           vision: dict | None = None, text: dict | None = None) -> CLIPConfig:
    both = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
                hidden_act=act, projection_dim=projection)
    ids = dict(bos_token_id=89, eos_token_id=eos, pad_token_id=PAD)
    return CLIPConfig(
        projection_dim=projection,
        vision_config=both | dict(image_size=image_size, patch_size=patch_size) | (vision or {}),
        text_config=both | dict(vocab_size=96, max_position_embeddings=20, num_hidden_layers=2)
        | ids | (text or {}),
    )


def before_4_31(values: dict) -> None:
    """As the first releases have it: eos_token_id 2, which no text ends with, and torch_dtype."""
    values["text_config"] |= {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    values["torch_dtype"] = values.pop("dtype")


@dataclass
class Case:
    name: str
    config: CLIPConfig
    note: str
    dtype: torch.dtype = torch.float32
    vision_only: bool = False
    edit: Callable[[dict], None] | None = None
    texts: list[list[int]] = field(default_factory=list)


# Each text begins with 89. Where EOS ends it, the first one counts, and larger ids mean nothing.
TEXTS_BY_EOS = [[89, 4, 17, 17, EOS], [89, 95, 3, EOS, EOS, PAD, 94], [89, EOS],
                [89, *range(10, 28), EOS]]
# Where the largest id ends it, the first of equals counts.
TEXTS_BY_LARGEST = [[89, 4, 17, 17, 95], [89, 90, 3, 94, 94, 2], [89, 95]]

CASES = [
    Case("quick-gelu-patch14", config(28, 14, "quick_gelu", 24),
         "grid 2 x 2; the text ends at the first eos_token_id", texts=TEXTS_BY_EOS),
    Case("gelu-patch16", config(56, 16, "gelu", 20, vision={"layer_norm_eps": 1e-3},
                                text={"layer_norm_eps": 1e-2, "hidden_size": 24,
                                      "num_attention_heads": 3, "intermediate_size": 40}),
         "56 is not a multiple of 16: grid 3 x 3, and 8 pixels at the right and below are never "
         "seen; towers of different widths; layer_norm_eps 1e-3 and 1e-2",
         edit=before_4_31, texts=TEXTS_BY_LARGEST),
    Case("f16-patch10", config(30, 10, "quick_gelu", 24,
                               vision={"num_attention_heads": 2, "num_hidden_layers": 4}),
         "F16 on disk; grid 3 x 3; head size 16", dtype=torch.float16, texts=TEXTS_BY_EOS[:2]),
    Case("vision-only", config(28, 14, "quick_gelu", 24),
         "a CLIPVisionModel, BF16 on disk: model_type clip_vision_model, names without a prefix, "
         "no text tower and no projections",
         dtype=torch.bfloat16, vision_only=True),
]


def build(case: Case):
    if case.vision_only:
        model = CLIPVisionModel._from_config(
            case.config.vision_config, attn_implementation="eager", dtype=torch.float32)
    else:
        model = CLIPModel._from_config(case.config, attn_implementation="eager",
                                       dtype=torch.float32)
    fill_clip_weights(model, "clip/" + case.name)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(case.dtype).float()
    return model.eval()


def fill_clip_weights(model: torch.nn.Module, case: str) -> None:
    """fill_weights, with embeddings of one size: patches would drown the positions otherwise."""
    fill_weights(model, case)
    for name, parameter in model.named_parameters():
        std = {"patch_embedding.weight": 0.04, "class_embedding": 1.0,
               "position_embedding.weight": 0.7}.get(".".join(name.split(".")[-2:]))
        if name.endswith("class_embedding"):
            std = 1.0
        if std:
            parameter.data = torch.from_numpy(normal(tuple(parameter.shape), std, case, name))
        if name == "logit_scale":
            parameter.data = torch.tensor(2.5 + float(random_state(case, name).uniform(0, 0.5)))


def load(case_folder: Path, kind):
    model, info = kind.from_pretrained(case_folder, dtype=torch.float32,
                                       attn_implementation="eager", output_loading_info=True)
    problems = {what: names for what, names in info.items() if names}
    assert not problems, f"{case_folder}: {problems}"
    return model.eval()


@torch.no_grad()
def run_vision(model, pixel_values: np.ndarray) -> dict[str, np.ndarray]:
    """model is a CLIPVisionModel. hidden_states[0] is after pre_layrnorm."""
    out = model(torch.from_numpy(pixel_values), output_hidden_states=True)
    states = {f"vision.hidden_states.{i}": s.numpy() for i, s in enumerate(out.hidden_states)}
    assert len(states) == model.config.num_hidden_layers + 1
    assert torch.equal(model.post_layernorm(out.hidden_states[-1][:, 0]), out.pooler_output)
    return states | {"vision.pooled": out.pooler_output.numpy()}


@torch.no_grad()
def run_text(model: CLIPModel, ids: list[int]) -> dict[str, np.ndarray]:
    """One text alone, without padding and without its batch dimension."""
    out = model.text_model(torch.tensor([ids]), output_hidden_states=True)
    states = {f"hidden_states.{i}": s[0].numpy() for i, s in enumerate(out.hidden_states)}
    assert len(states) == model.config.text_config.num_hidden_layers + 1
    last = model.text_model.final_layer_norm(out.hidden_states[-1])
    assert torch.equal(last, out.last_hidden_state)
    return states | {
        "input_ids": np.array(ids, np.int32),
        "last": last[0].numpy(),
        "pooled": out.pooler_output[0].numpy(),
        "embeds": model.text_projection(out.pooler_output)[0].numpy(),
    }


@torch.no_grad()
def reference(case: Case, folder: Path) -> dict[str, np.ndarray]:
    size = case.config.vision_config.image_size
    files = all_files()
    pixel_values = np.stack([preprocess(open_rgb(files[name]), size, size, False)[1]
                             for name in IMAGES])
    tensors = {"pixel_values": pixel_values}
    if case.vision_only:
        return tensors | run_vision(load(folder, CLIPVisionModel), pixel_values)

    model = load(folder, CLIPModel)
    tensors |= run_vision(model.vision_model, pixel_values)
    pooled = torch.from_numpy(tensors["vision.pooled"])
    tensors["image_embeds"] = model.visual_projection(pooled).numpy()
    columns = []
    for k, ids in enumerate(case.texts):
        tensors |= {f"text.{k}.{name}": value for name, value in run_text(model, ids).items()}
        out = model(input_ids=torch.tensor([ids]), pixel_values=torch.from_numpy(pixel_values))
        columns.append(out.logits_per_image.numpy())
    tensors["logits_per_image"] = np.concatenate(columns, axis=1)
    return tensors


def write_processor(folder: Path, size: int, **changes) -> None:
    """preprocessor_config.json as the older folders have it: the one all tools read."""
    write_json(folder / "preprocessor_config.json", {
        "crop_size": {"height": size, "width": size},
        "do_center_crop": True, "do_convert_rgb": True, "do_normalize": True, "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "CLIPImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"shortest_edge": size},
    } | changes)


def write(root: Path) -> None:
    for case in CASES:
        folder = empty_folder(root / "clip" / case.name)
        model = build(case)
        model.to(case.dtype).save_pretrained(folder)
        path = folder / "config.json"
        values = json.loads(path.read_text())
        if case.edit:
            case.edit(values)
        path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
        write_processor(folder, case.config.vision_config.image_size)
        tensors = reference(case, folder)
        # What was saved is what was built: nothing lost, renamed or read with a default.
        tower = model.float() if case.vision_only else model.float().vision_model
        built = run_vision(tower, tensors["pixel_values"])
        assert np.array_equal(built["vision.pooled"], tensors["vision.pooled"]), case.name
        write_tensors(folder / "reference.safetensors", tensors)

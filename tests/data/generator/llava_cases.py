"""llava/<case>/: tiny random LLaVA folders in the three spellings of their tensor names, with the
llama-sp tokenizer, and reference.* with what every stage gives for two prompts, up to the answer.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from .clip_cases import fill_clip_weights, load, write_processor
from .common import empty_folder, write_json, write_tensors
from .image_files import all_files
from .images import open_rgb, preprocess
from .tokenizer_files import Recipe, llama_sp

PROMPTS = [
    {"prompt": "What is the color?", "images": ["rgb-61x47.png"]},
    {"prompt": "table or chair?", "images": ["rgba.png", "rgb-portrait-37x90.png"]},
]
ANSWER = 64
LEAST_GAP = 1e-3  # between the two best logits at every step: a greedy choice that none misses
LOGIT_ROWS = 8


# Tensor names: transformers 5 has model.vision_tower.embeddings and so on in memory

def published(name: str) -> str:
    """As llava-hf/llava-1.5-7b-hf and all folders saved before transformers 4.52."""
    name = name.removeprefix("model.")
    name = re.sub(r"^language_model\.", "language_model.model.", name)
    name = re.sub(r"^lm_head\.", "language_model.lm_head.", name)
    return re.sub(r"^vision_tower\.", "vision_tower.vision_model.", name)


def since_4_52(name: str) -> str:
    return re.sub(r"^model\.vision_tower\.", "model.vision_tower.vision_model.", name)


def in_memory(name: str) -> str:
    return name


def published_config(values: dict) -> None:
    """config.json as the published folder has it: no more than differs from the defaults."""
    text, vision = values["text_config"], values["vision_config"]
    kept = ["hidden_size", "intermediate_size", "max_position_embeddings", "model_type",
            "num_attention_heads", "num_hidden_layers", "rms_norm_eps", "vocab_size"]
    text = {key: text[key] for key in kept} | {"torch_dtype": "float32",
                                               "architectures": ["LlamaForCausalLM"]}
    kept = ["hidden_size", "image_size", "intermediate_size", "model_type", "num_attention_heads",
            "num_hidden_layers", "patch_size", "projection_dim"]
    vision = {key: vision[key] for key in kept} | {"vocab_size": 32000}
    kept = ["architectures", "image_token_index", "projector_hidden_act", "model_type",
            "tie_word_embeddings", "vision_feature_layer", "vision_feature_select_strategy"]
    short = {key: values[key] for key in kept}
    values.clear()
    values |= short | {"ignore_index": -100, "pad_token_id": short["image_token_index"] + 1,
                       "text_config": text, "torch_dtype": "float32",
                       "transformers_version": "4.36.0.dev0", "vision_config": vision,
                       "vocab_size": text["vocab_size"]}


@dataclass
class Case:
    name: str
    note: str
    rename: Callable[[str], str]
    seed: int  # the first one whose answers have the gaps
    vision: dict
    text: dict
    joint: dict
    dtype: torch.dtype = torch.float32
    shards: int = 1
    edit: Callable[[dict], None] | None = None


CASES = [
    Case("published", "names and config.json as llava-1.5-7b-hf has them; layer -2, without CLS",
         published, 12,
         vision=dict(image_size=28, patch_size=14),
         text=dict(num_key_value_heads=4),
         joint=dict(vision_feature_layer=-2), edit=published_config),
    Case("sharded-f16",
         "names since 4.52 (`model.language_model.`, `model.vision_tower.vision_model.`), three "
         "shards, F16; layer -1 with CLS; two kv heads; `rope_parameters`",
         since_4_52, 2,
         vision=dict(image_size=24, patch_size=8, hidden_act="gelu"),
         text=dict(num_key_value_heads=2,
                   rope_parameters={"rope_type": "default", "rope_theta": 500_000.0}),
         joint=dict(vision_feature_layer=-1, vision_feature_select_strategy="full"),
         dtype=torch.float16, shards=3),
    Case("module-names-f16",
         "names as modules are called in 5.x (no `vision_model.`), F16; layer 1 counted from the "
         "front; projector without biases",
         in_memory, 3,
         vision=dict(image_size=30, patch_size=10, num_hidden_layers=4, layer_norm_eps=1e-3),
         text=dict(num_key_value_heads=4, rms_norm_eps=1e-2),
         joint=dict(vision_feature_layer=1, multimodal_projector_bias=False),
         dtype=torch.float16),
]


def config(case: Case, recipe: Recipe) -> LlavaConfig:
    vision = dict(hidden_size=24, intermediate_size=48, num_hidden_layers=3, num_attention_heads=3,
                  hidden_act="quick_gelu", projection_dim=16)
    text = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                max_position_embeddings=512, rms_norm_eps=1e-5, vocab_size=recipe.vocab_rows(),
                bos_token_id=1, eos_token_id=2, tie_word_embeddings=False)
    vision |= case.vision
    return LlavaConfig(
        vision_config=CLIPVisionConfig(**vision),
        image_seq_length=(vision["image_size"] // vision["patch_size"]) ** 2,
        text_config=LlamaConfig(**text | case.text),
        image_token_index=recipe.token_id("<image>"), tie_word_embeddings=False, **case.joint,
    )


def build(case: Case, recipe: Recipe, seed: int) -> LlavaForConditionalGeneration:
    model = LlavaForConditionalGeneration._from_config(
        config(case, recipe), attn_implementation="eager", dtype=torch.float32)
    fill_clip_weights(model, f"llava/{case.name}/{seed}")
    for parameter in model.parameters():
        parameter.data = parameter.data.to(case.dtype).float()
    return model.eval()


def save(case: Case, model: LlavaForConditionalGeneration, recipe: Recipe, folder: Path) -> None:
    model.config.architectures = ["LlavaForConditionalGeneration"]
    model.config.dtype = case.dtype
    model.config.save_pretrained(folder)
    path = folder / "config.json"
    values = json.loads(path.read_text())
    if case.edit:
        case.edit(values)
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")

    tensors = {case.rename(name): tensor.to(case.dtype).contiguous()
               for name, tensor in model.state_dict().items()}
    names = sorted(tensors)
    where = {}
    for i in range(case.shards):
        part = names[i * len(names) // case.shards:(i + 1) * len(names) // case.shards]
        file = f"model-{i + 1:05}-of-{case.shards:05}.safetensors"
        if case.shards == 1:
            file = "model.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(part, file)
    if case.shards > 1:
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        write_json(folder / "model.safetensors.index.json",
                   {"metadata": {"total_size": size}, "weight_map": where})

    (folder / "tokenizer.json").write_text(recipe.to_json() + "\n", encoding="utf-8")
    write_json(folder / "generation_config.json",
               {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2,
                "pad_token_id": recipe.token_id("<image>") + 1})
    write_processor(folder, model.config.vision_config.image_size)


def prompt_text(prompt: dict) -> str:
    return "USER: " + "<image>\n" * len(prompt["images"]) + prompt["prompt"] + " ASSISTANT:"


def inputs(model, recipe: Recipe, prompt: dict) -> dict:
    """Ids as the tokenizer gives them and expanded, and the pictures."""
    size = model.config.vision_config.image_size
    patches = (size // model.config.vision_config.patch_size) ** 2
    strategy = model.config.vision_feature_select_strategy
    image = model.config.image_token_index
    ids = recipe.tokenizer().encode(prompt_text(prompt)).ids
    each = patches + (strategy == "full")
    expanded = [e for i in ids for e in ([i] * each if i == image else [i])]
    files = all_files()
    pictures = [open_rgb(files[name]) for name in prompt["images"]]
    pixels = np.stack([preprocess(rgb, size, size, False)[1] for rgb in pictures])

    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": size},
                              crop_size={"height": size, "width": size}),
        PreTrainedTokenizerFast(tokenizer_object=recipe.tokenizer()),
        patch_size=model.config.vision_config.patch_size,
        vision_feature_select_strategy=strategy, num_additional_image_tokens=1)
    both = processor(images=pictures, text=prompt_text(prompt), return_tensors="np")
    assert both["input_ids"][0].tolist() == expanded
    assert np.array_equal(both["pixel_values"], pixels)
    return {"prompt_ids": ids, "input_ids": expanded, "pixel_values": pixels}


@torch.no_grad()
def run(model, recipe: Recipe, prompt: dict) -> dict[str, np.ndarray]:
    given = inputs(model, recipe, prompt)
    ids = torch.tensor([given["input_ids"]])
    pixels = torch.from_numpy(given["pixel_values"])
    kept = {}
    hooks = [
        model.model.multi_modal_projector.register_forward_hook(
            lambda _, args, out: kept.update(features=args[0], projected=out)),
        model.model.language_model.register_forward_pre_hook(
            lambda _, args, kwargs: kept.update(embeds=kwargs["inputs_embeds"]), with_kwargs=True),
        model.model.language_model.norm.register_forward_pre_hook(
            lambda _, args: kept.update(pre_norm=args[0])),
    ]
    out = model(input_ids=ids, pixel_values=pixels, output_hidden_states=True, use_cache=False)
    for hook in hooks:
        hook.remove()
    assert len(out.hidden_states) == model.config.text_config.num_hidden_layers + 1
    assert torch.equal(out.hidden_states[0], kept["embeds"])
    tensors = {
        "prompt_ids": np.array(given["prompt_ids"], np.int32),
        "input_ids": np.array(given["input_ids"], np.int32),
        "pixel_values": given["pixel_values"],
        "image_features": kept["features"].numpy(),
        "projected": kept["projected"].numpy(),
        "inputs_embeds": kept["embeds"][0].numpy(),
        "pre_norm": kept["pre_norm"][0].numpy(),
        "logits": out.logits[0, -LOGIT_ROWS:].numpy(),
    }
    for i, state in enumerate(out.hidden_states):
        tensors[f"hidden_states.{i}"] = state[0].numpy()

    answer = model.generate(input_ids=ids, pixel_values=pixels, do_sample=False,
                            attention_mask=torch.ones_like(ids), max_new_tokens=ANSWER,
                            output_logits=True, return_dict_in_generate=True)
    best = torch.cat(answer.logits).topk(2, dim=-1).values
    tensors["answer_ids"] = answer.sequences[0, ids.shape[1]:].numpy().astype(np.int32)
    tensors["answer_gaps"] = (best[:, 0] - best[:, 1]).numpy()
    return tensors


def is_plain(tensors: dict[str, np.ndarray], recipe: Recipe) -> bool:
    """Whether the answer is ANSWER ordinary tokens and greedy choices are clear all along."""
    ids = tensors["answer_ids"]
    return (len(ids) == ANSWER and ids.min() > 2 and ids.max() < len(recipe.vocab)
            and tensors["answer_gaps"].min() > LEAST_GAP)


def find_seed(case: Case, recipe: Recipe, folder: Path) -> int:
    """How the seeds of CASES were found."""
    seed = 0
    while True:
        model = build(case, recipe, seed)
        if all(is_plain(run(model, recipe, prompt), recipe) for prompt in PROMPTS):
            return seed
        seed += 1


def write(root: Path) -> None:
    recipe = llama_sp()
    for case in CASES:
        folder = empty_folder(root / "llava" / case.name)
        built = build(case, recipe, case.seed)
        save(case, built, recipe, folder)
        model = load(folder, LlavaForConditionalGeneration)
        tensors, rows = {}, []
        for r, prompt in enumerate(PROMPTS):
            found = run(model, recipe, prompt)
            again = run(built, recipe, prompt)
            assert all(np.array_equal(found[name], again[name]) for name in found), case.name
            assert is_plain(found, recipe), (case.name, found["answer_gaps"].min())
            tensors |= {f"{r}.{name}": value for name, value in found.items()}
            rows.append(prompt | {
                "text": prompt_text(prompt),
                "answer": recipe.tokenizer().decode(found["answer_ids"].tolist(),
                                                    skip_special_tokens=True),
            })
        write_tensors(folder / "reference.safetensors", tensors)
        write_json(folder / "reference.json", rows)

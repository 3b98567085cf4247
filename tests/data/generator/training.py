"""training/: losses with their gradients, and 20 steps of AdamW with clipping, as PyTorch computes
them. Losses in f64 from f32 inputs, AdamW in f32."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from .common import empty_folder, normal, random_state, write_tensors

ROWS, CLASSES, LIST, DIM = 6, 11, 9, 16
STEPS = 20
SHAPES = {"matrix": (12, 7), "bias": (7,)}  # the matrix decays, the bias does not
ADAMW = {"betas": (0.9, 0.95), "eps": 1e-8}
RATE, DECAY, CLIP = 3e-2, 0.1, 1.0


def loss_cases() -> dict[str, np.ndarray]:
    out = {}

    def case(name: str, x: np.ndarray, loss) -> None:
        leaf = torch.from_numpy(x).double().requires_grad_()
        value = loss(leaf)
        value.backward()
        out[f"{name}.input"] = x
        out[f"{name}.loss"] = np.array([value.item()])
        out[f"{name}.gradient"] = leaf.grad.float().numpy()

    logits = normal((ROWS, CLASSES), 3.0, "training", "logits")
    target = random_state("training", "target").randint(0, CLASSES, ROWS).astype(np.int32)
    target[2] = -1
    out["cross_entropy.target"] = target
    case("cross_entropy", logits, lambda x: F.cross_entropy(
        x, torch.from_numpy(target).long(), ignore_index=-1))

    margins = normal((LIST,), 4.0, "training", "margins")
    margins[0], margins[1] = 60.0, -60.0
    labels = random_state("training", "labels").uniform(0, 1, LIST).astype(np.float32)
    labels[0], labels[1], labels[2] = 0.0, 1.0, 1.0
    out["yes_no.target"] = labels
    case("yes_no", margins, lambda x: F.binary_cross_entropy_with_logits(
        x, torch.from_numpy(labels).double()))

    gains = np.array([0, 3, 0, 1, 1, 0, 0, 7, 0], np.float32)
    out["listwise.target"] = gains
    case("listwise", normal((LIST,), 2.0, "training", "list"), lambda x: F.cross_entropy(
        x, torch.from_numpy(gains).double() / gains.sum()))

    teacher = normal((LIST,), 2.0, "training", "teacher")
    out["distill.target"] = teacher
    case("distill", normal((LIST,), 2.0, "training", "student"), lambda x: 4 * F.kl_div(
        F.log_softmax(x / 2, 0), F.log_softmax(torch.from_numpy(teacher).double() / 2, 0),
        reduction="sum", log_target=True))

    state = normal((DIM,), 1.0, "training", "teacher state")
    out["cosine.target"] = state
    case("cosine", normal((DIM,), 1.0, "training", "student state"), lambda x:
         1 - F.cosine_similarity(x, torch.from_numpy(state).double(), dim=0))
    return out


def adamw_case() -> dict[str, np.ndarray]:
    out = {}
    values = {}
    for name, shape in SHAPES.items():
        start = normal(shape, 0.5, "training", "adamw", name)
        out[f"{name}.start"] = start
        values[name] = torch.from_numpy(start.copy()).requires_grad_()
    optimizer = torch.optim.AdamW(
        [{"params": [values["matrix"]], "weight_decay": DECAY},
         {"params": [values["bias"]], "weight_decay": 0.0}], lr=RATE, foreach=False, **ADAMW)
    norms = []
    for step in range(STEPS):
        for name, value in values.items():
            # Sizes from far below the clipping norm to far above it.
            gradient = normal(value.shape, 10.0 ** (step % 5 - 2), "training", name, step)
            out[f"{name}.gradient.{step}"] = gradient
            value.grad = torch.from_numpy(gradient.copy())
        norms.append(torch.nn.utils.clip_grad_norm_(list(values.values()), CLIP).item())
        optimizer.step()
        for name, value in values.items():
            out[f"{name}.after.{step}"] = value.detach().numpy().copy()
    out["norms"] = np.array(norms)
    return out


def write(root: Path) -> None:
    folder = empty_folder(root / "training")
    write_tensors(folder / "losses.safetensors", loss_cases())
    write_tensors(folder / "adamw.safetensors", adamw_case())

"""projectors/<case>/: projector.safetensors, the file a bundle names, and reference.safetensors
with input and output. A two-layer projector is linear_2(gelu(linear_1(x))) with the exact (erf)
GELU; a linear one is linear_1(x), with or without bias."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from .common import empty_folder, normal, write_tensors

IN, HIDDEN, OUT = 24, 40, 32
ROWS = 17

# case: (layers, bias, type on disk)
CASES = {
    "mlp-f32": (2, True, torch.float32),
    "mlp-bf16": (2, True, torch.bfloat16),
    "linear-f32": (1, True, torch.float32),
    "linear-nobias-bf16": (1, False, torch.bfloat16),
}


@torch.no_grad()
def write(root: Path) -> None:
    for case, (layers, bias, dtype) in CASES.items():
        folder = empty_folder(root / "projectors" / case)
        widths = [IN, HIDDEN, OUT] if layers == 2 else [IN, OUT]
        weights = {}
        for i in range(1, layers + 1):
            shape = (widths[i], widths[i - 1])
            weights[f"linear_{i}.weight"] = normal(shape, 0.25, "projector", case, i, "weight")
            if bias:
                weights[f"linear_{i}.bias"] = normal(shape[:1], 0.3, "projector", case, i, "bias")
        weights = {name: torch.from_numpy(value).to(dtype) for name, value in weights.items()}
        save_file(weights, folder / "projector.safetensors", metadata={"format": "pt"})

        # Rows from tiny to large, so that GELU is seen on both of its tails too.
        x = torch.from_numpy(normal((ROWS, IN), 1.0, "projector", case, "input"))
        x *= torch.logspace(-2, 1, ROWS)[:, None]
        y = x
        for i in range(1, layers + 1):
            if i > 1:
                y = torch.nn.functional.gelu(y)
            parameters = (weights.get(f"linear_{i}.{part}") for part in ("weight", "bias"))
            y = torch.nn.functional.linear(y, *(p if p is None else p.float() for p in parameters))
        write_tensors(folder / "reference.safetensors", {"input": x.numpy(), "output": y.numpy()})

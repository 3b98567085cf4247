#!/usr/bin/env python3
"""Writes the reference data of this folder: what transformers, PyTorch, tokenizers
and Pillow compute.

    python tests/data/generate.py           writes the folders named below
    python tests/data/generate.py --check   changes nothing: writes a second copy to a temporary
                                            folder, compares it with this one byte by byte, and
                                            checks the results in other ways

Needs the packages of requirements.txt and no network. README.md says what the files hold.
"""

import argparse
import filecmp
import importlib.metadata
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True

HERE = Path(__file__).resolve().parent
FOLDERS = ["models", "tokenizers", "reranker", "mixed", "projectors", "images", "clip", "llava",
           "training", "bpe"]


def require_versions() -> None:
    """Other versions give other last digits, key orders or ids: say so instead of writing them."""
    for line in (HERE / "requirements.txt").read_text().split():
        name, _, wanted = line.partition("==")
        found = importlib.metadata.version(name).partition("+")[0]  # 2.15.0+cpu is 2.15.0
        if found != wanted:
            sys.exit(f"{name} is {found}, requirements.txt says {wanted}")


def write_all(root: Path) -> None:
    from generator import (
        bpe, clip_cases, images, llava_cases, mixed, model_cases, projectors, reranker,
        tokenizer_files, training, training_decoder, training_modules,
    )

    for part in (tokenizer_files, model_cases, reranker, mixed, projectors, images, clip_cases,
                 llava_cases, training, training_decoder, training_modules, bpe):
        part.write(root)
    for path in files(root):
        (root / path).chmod(0o644)  # safetensors leaves its files to their owner alone


def files(root: Path) -> list[Path]:
    return sorted(
        path.relative_to(root)
        for folder in FOLDERS
        for path in (root / folder).rglob("*")
        if path.is_file()
    )


def check() -> int:
    from generator.check import check as check_results

    with tempfile.TemporaryDirectory() as folder:
        write_all(Path(folder))
        here, there = files(HERE), files(Path(folder))
        _, differ, missing = filecmp.cmpfiles(
            HERE, folder, sorted({*here, *there}), shallow=False
        )
    for path in [*differ, *missing]:
        print(f"differs: {path}")
    check_results(HERE)
    size = sum((HERE / path).stat().st_size for path in here)
    print(f"{len(here)} files, {size / 1e6:.2f} MB, {len(differ) + len(missing)} differ")
    return 1 if differ or missing else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with a second run")
    arguments = parser.parse_args()
    require_versions()
    if arguments.check:
        return check()
    write_all(HERE)
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""The tokenizers library on the texts of bench_tokenizer: ids per second on one thread.

    bench_tokenizer_hf.py --model DIR --text FILE [--reference ids.jsonl] [--seconds 1]

Prints one JSON line per figure, as bench_tokenizer does. With --reference it also writes the ids,
one row per line of the text and a last one for the whole text, for bench_tokenizer to check.
Calls encode, which also gives offsets, and encode_batch_fast with one text, which does not.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import tokenizers  # noqa: E402


def lines_of(text: str) -> list[str]:
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def time_it(work, seconds: float) -> float:
    work()
    times = []
    until = time.monotonic() + seconds
    while len(times) < 3 or time.monotonic() < until:
        began = time.monotonic()
        work()
        times.append(time.monotonic() - began)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--text", required=True, type=Path)
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--seconds", default=1.0, type=float)
    arguments = parser.parse_args()

    tokenizer = tokenizers.Tokenizer.from_file(str(arguments.model / "tokenizer.json"))
    data = arguments.text.read_bytes()
    text = data.decode()
    cases = {"lines": lines_of(text), "whole": [text]}
    if arguments.reference:
        with arguments.reference.open("w", encoding="ascii") as out:
            for texts in cases.values():
                for part in texts:
                    ids = tokenizer.encode(part, add_special_tokens=False).ids
                    out.write(json.dumps({"ids": ids}) + "\n")

    calls = {
        "encode": lambda part: tokenizer.encode(part, add_special_tokens=False).ids,
        "encode_batch_fast": lambda part: tokenizer.encode_batch_fast(
            [part], add_special_tokens=False)[0].ids,
    }
    for what, texts in cases.items():
        for name, call in calls.items():
            n_ids = sum(len(call(part)) for part in texts)
            seconds = time_it(lambda: [call(part) for part in texts], arguments.seconds)
            print(json.dumps({
                "bench": "tokenizer", "what": what, "library": f"tokenizers {tokenizers.__version__}",
                "call": name, "bytes": len(data), "ids": n_ids, "seconds": round(seconds, 6),
                "ids_per_second": round(n_ids / seconds),
                "mb_per_second": round(1e-6 * len(data) / seconds, 2),
            }), flush=True)


if __name__ == "__main__":
    main()

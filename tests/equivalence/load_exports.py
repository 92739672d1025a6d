"""Loads exported folders as anyone would who has never heard of the package, and prints nothing.

A program of its own, run by `test_plain_exports.py`: importing the package here is an error. It
runs each folder's `load.py` and gives real rows to what that leaves; the outputs are written as
safetensors.

    python load_exports.py JOBS.json OUTPUTS.safetensors
"""

from __future__ import annotations

import contextlib
import importlib.abc
import io
import json
import runpy
import sys
import time
import warnings
from pathlib import Path
from typing import Any


class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name.partition(".")[0] == "adapterxlt":
            raise ImportError("the package is not to be used here")


sys.meta_path.insert(0, Blocked())
warnings.simplefilter("ignore")

import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import save_file  # noqa: E402


def encoded(tokenizer: Any, task: str, rows: list[dict[str, Any]], flat: bool) -> Any:
    """Rows as the model card says."""
    how = {"padding": True, "return_tensors": "pt", "return_token_type_ids": False}
    if task == "lab-pos":
        return tokenizer([r["tokens"] for r in rows], is_split_into_words=True, **how)
    if task == "lab-nli":
        return tokenizer([r["premise"] for r in rows], [r["hypothesis"] for r in rows], **how)
    if task == "lab-qa":
        return tokenizer([r["question"] for r in rows], [r["context"] for r in rows], **how)
    if task == "lab-choice":
        first = [f"{r['premise']} {r['question']}" for r in rows for _ in range(2)]
        second = [r[name] for r in rows for name in ("choice1", "choice2")]
        batch = tokenizer(first, second, **how)
        return batch if flat else {n: t.view(len(rows), 2, -1) for n, t in batch.items()}
    column = {"lab-topic": "text", "lab-ranking": "query", "lab-bitext": "source"}[task]
    return tokenizer([r[column] for r in rows], **how)


def main(jobs: str, outputs: str) -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    found, seconds = {}, {}
    for job in json.loads(Path(jobs).read_text(encoding="utf-8")):
        started = time.monotonic()
        script = Path(job["folder"]) / "load.py"
        sys.argv = [str(script), *job["arguments"]]
        with contextlib.redirect_stdout(io.StringIO()) as shown:
            loaded = runpy.run_path(str(script), run_name="__main__")
        assert shown.getvalue().startswith("tensor("), shown.getvalue()
        look = loaded.get("logits") or loaded["vectors"]
        flat = "head" in loaded
        batch = encoded(loaded["tokenizer"], job["task"], job["rows"], flat)
        with torch.inference_mode():
            if job.get("states"):
                encoder = loaded["model"].base_model
                states = encoder(**batch).last_hidden_state
                found[job["name"]] = states.contiguous()
            else:
                found[job["name"]] = look(batch).contiguous()
        seconds[job["name"]] = time.monotonic() - started
    assert not any(name.partition(".")[0] == "adapterxlt" for name in sys.modules)
    save_file(found, outputs)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What recap does with each architecture, measured on shrunk random models: docs/architectures.md.

    python benchmarks/architectures.py docs/architectures.md

Every row goes through the code that loads real weights. `tests/models/test_architectures.py` holds
the same to its bounds.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "models")]

import shrunk  # noqa: E402
import torch  # noqa: E402
from test_shared_prefix import PREFIX, RATIONALES, batch_of, build, difference, gradient, separately  # noqa: E402  # noqa: E402

from recap.errors import ConfigError  # noqa: E402
from recap.models.engine.attention import TESTED, why_unsupported  # noqa: E402
from recap.models.engine.loss import answer_loss, choose_batching  # noqa: E402
from recap.models.finetune import projections  # noqa: E402

MODELS = {
    "apertus": "Apertus",
    "arcee": "AFM",
    "ernie4_5": "ERNIE 4.5",
    "exaone4": "EXAONE 4",
    "gemma": "Gemma",
    "gemma2": "Gemma 2",
    "gemma3_text": "Gemma 3 (270M, 1B)",
    "glm": "GLM-4-9B (2024), GLM-Edge",
    "glm4": "GLM-4-0414",
    "granite": "Granite 3",
    "llama": "Llama 2 to 3.3, SmolLM2, Yi",
    "mistral": "Mistral 7B, Mistral Small (text), Nemo",
    "mixtral": "Mixtral",
    "olmo2": "OLMo 2",
    "olmo3": "OLMo 3",
    "phi3": "Phi-3, Phi-4, Phi-4-mini",
    "qwen2": "Qwen2, Qwen2.5, QwQ",
    "qwen3": "Qwen3 (0.6B to 32B)",
    "qwen3_moe": "Qwen3-30B-A3B, 235B-A22B",
    "seed_oss": "Seed-OSS",
    "smollm3": "SmolLM3",
}

PAGE = """\
# Architectures

Any causal language model that transformers loads can be tuned and asked; this page says how exactly and how fast. It is
made by `python benchmarks/architectures.py docs/architectures.md`, on shrunk random weights that go through the code that
loads real ones (torch {torch}, transformers {transformers}).

A batching that is marked has the loss and the gradients of one plain forward an example; the number is the largest
difference of all gradients, relative to them, in float64 (models with experts: float32). `trunk` computes once
what examples begin with, `packed` puts examples side by side, `padded` fills them up. `batching=auto` takes
the first of them that is exact, and says why it is not an earlier one. Where the answers come from `rows`, what
prompts share is encoded once and all labels scored together; elsewhere from transformers' own `generate`: the same answers,
slower.

| `model_type` | for example | `trunk` | `packed` | `padded` | answers | adapters on |
|---|---|---|---|---|---|---|
{rows}

{notes}

Other architectures are padded and answer through transformers, and the console says so; one whose logits are made in a
way of its own is refused when it is loaded. A model without a chat template gets a plain layout; one whose template
knows no system message gets it at the beginning of the user's (docs/models.md).
"""  # noqa: E501


def main() -> None:
    """Measure every architecture and write the page."""
    import transformers

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    page = parser.parse_args().page
    notes: list[str] = []
    rows = [row_of(family, notes) for family in TESTED]
    text = PAGE.format(
        torch=torch.__version__.partition("+")[0],
        transformers=transformers.__version__,
        rows="\n".join(rows),
        notes="\n".join(f"- {note}." for note in notes),
    )
    page.write_text(text, encoding="utf-8")


def row_of(family: str, notes: list[str]) -> str:
    """Return a row of the table, and note why something is not done."""
    print(family, flush=True)
    dtype = torch.float32 if family in ("mixtral", "qwen3_moe") else torch.float64
    model = build(family, dtype=dtype).eval()
    _, expected = separately(model, RATIONALES)
    cells = [measured(model, batching, expected) for batching in ("trunk", "packed", "padded")]
    reason = why_unsupported(model)
    if reason:
        notes.append(f"`{family}`: no `trunk`, since {reason}")
    layers = ", ".join(f"`{name}`" for name in projections(shrunk.model_of(family, 50)))
    answers = "`generate`" if reason else "rows"
    return f"| `{family}` | {MODELS[family]} | {' | '.join(cells)} | {answers} | {layers} |"


def measured(model: Any, batching: str, expected: torch.Tensor) -> str:
    """Return the difference of gradients under a batching, or that it is not claimed."""
    prefix = {"trunk": PREFIX, "packed": 0, "padded": None}[batching]
    try:
        choose_batching(model, batching)
    except ConfigError:
        return "no"
    found = gradient(model, answer_loss(model, batch_of(RATIONALES, prefix)))
    return f"{difference(found, expected):.0e}"


if __name__ == "__main__":
    main()

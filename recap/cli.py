"""The console script: ``recap <verb> …`` is ``python -m recap.<verb> …``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from recap.errors import did_you_mean

VERBS = {
    "train": "fine-tune under cross-validation, decode, score, aggregate",
    "prompt": "zero-shot and few-shot baselines, of a model on this machine or on a server",
    "evaluate": "score a saved model, a predictions file, a baseline or a cascade",
    "predict": "annotate dialogues with trained models: streamed, resumed, shared out",
    "corpus": "what a corpus holds: counts, faults, words, codebook; annotators, their agreement",
    "insights": "prevalence per session, alliance, counsellor studies, feedback cards, supervision",
    "report": "tables, figures and tests over run folders, and one page that shows them all",
    "audit": "what a trained model has kept of its training texts: canaries, verbatim repetition",
    "plan": "memory per device, steps, operations, hours and disk of a run, before it begins",
}
"""The commands and what each does."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    verb = arguments.pop(0) if arguments else "--help"
    if verb in ("-h", "--help"):
        print("usage: recap <verb> [options]; recap <verb> --help explains a verb\n")
        print("\n".join(f"  {name:<10}{does}" for name, does in VERBS.items()))
        return 0
    if verb not in VERBS:
        known = ", ".join(VERBS)
        print(
            f"error: no verb {verb!r}{did_you_mean(verb, VERBS)}; known: {known}", file=sys.stderr
        )
        return 2
    code: int = import_module(f"recap.{verb}").main(arguments)
    return code


if __name__ == "__main__":
    sys.exit(main())

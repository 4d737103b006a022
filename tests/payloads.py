"""Files that would run a command when they are read carelessly: each creates a file that shows it.

None of them does harm: the command is ``touch``.
"""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import torch


class Touch:
    """Unpickles by creating a file."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self._canary}",)


def pickle_bytes(canary: Path) -> bytes:
    """Return a plain pickle."""
    return pickle.dumps({"state_dict": Touch(canary)})


def torch_file(path: Path, canary: Path, **more: Any) -> Path:
    """Write what ``torch.save`` writes."""
    torch.save({"state_dict": Touch(canary), **more}, path)
    return path


def name_own_code(folder: Path, canary: Path, *, model_type: str | None = None) -> None:
    """Have a model's folder name code of its own in place of each of its classes.

    ``model_type`` is one that ``transformers`` does not know; ``None`` keeps the folder's own.
    """
    code = (
        f"open({str(canary)!r}, 'w').close()\n"
        "from transformers import PreTrainedConfig as Config\n"
        "from transformers import PreTrainedModel as Model\n"
        "from transformers import PreTrainedTokenizerFast as Tokenizer\n"
    )
    (folder / "evil.py").write_text(code, encoding="utf-8")
    models = ("AutoModelForCausalLM", "AutoModelForSequenceClassification", "AutoModel")
    named = {"AutoConfig": "evil.Config", **dict.fromkeys(models, "evil.Model")}
    _change(
        folder / "config.json", auto_map=named, **({"model_type": model_type} if model_type else {})
    )
    _change(
        folder / "tokenizer_config.json",
        auto_map={"AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"]},
        **({"tokenizer_class": "EvilTokenizer"} if model_type else {}),
    )


def _change(file: Path, **values: Any) -> None:
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    file.write_text(json.dumps({**found, **values}), encoding="utf-8")


def templates(canary: Path) -> dict[str, str]:
    """Return chat templates that try to leave jinja's sandbox, in the ways that are known."""
    run = f"os.popen('touch {canary}').read()"
    return {
        "globals of a function": "{{ cycler.__init__.__globals__." + run + " }}",
        "globals of a helper": "{{ lipsum.__globals__." + run + " }}",
        "globals of raise_exception": "{{ raise_exception.__globals__ }}",
        "subclasses": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "subclasses by attr": "{{ ''|attr('__class__')|attr('__mro__') }}",
        "format": "{{ '{0.__class__.__mro__}'.format(messages) }}",
        "format_map": "{{ '{a.__class__}'.format_map({'a': messages}) }}",
        "import": (
            "{{ namespace.__init__.__globals__['__builtins__']['__import__']('os')"
            f".system('touch {canary}') }}}}"
        ),
        "code of a macro": "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}",
        "include": "{% include '/etc/passwd' %}",
        "changing the messages": "{{ messages.clear() }}",
        "without an end": "{% for i in range(10**9) %}{% endfor %}",
    }

"""How many tokens a text has, without loading a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from recap.errors import ConfigError


def token_counter(name: str | None) -> Callable[[str], int] | None:
    """Return what counts a text's tokens (control tokens apart), ``None`` for no tokenizer.

    Args:
        name: ``tiny``, a folder that holds a ``tokenizer.json``, or such a file.

    Raises:
        ConfigError: When the file is missing or no tokenizer.
    """
    if name is None:
        return None
    if name == "tiny":
        from recap.models.tiny import tiny_tokenizer

        tokenizer = tiny_tokenizer().backend_tokenizer
    else:
        from tokenizers import Tokenizer

        path = Path(name).expanduser()
        path = path / "tokenizer.json" if path.is_dir() else path
        if not path.is_file():
            raise ConfigError(
                f"describe.tokenizer={name}: there is no {path}; name tiny, a model's folder or a "
                "tokenizer.json"
            )
        try:
            tokenizer = Tokenizer.from_file(str(path))
        # The tokenizers library (0.22) raises bare Exception for whatever it cannot read.
        except Exception as error:  # noqa: BLE001
            raise ConfigError(
                f"describe.tokenizer={name}: {path} is no tokenizer ({type(error).__name__})"
            ) from None
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)

"""Commands say what recap has to say, not what libraries think of its choices."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ASKS = "bitsandbytes.backends.cpu.ops"
"""Where bitsandbytes (0.50) asks for a further package, on processors with AVX512-BF16 alone."""


def said_by(code: str, *arguments: str) -> str:
    """Return what a process prints that runs code and is then asked for the package once more.

    So that a machine without AVX512-BF16 would hear it as well.
    """
    asked = f"{code}; logging.getLogger({ASKS!r}).warning('Failed to load CPU gemm_4bit_forward')"
    done = subprocess.run(
        [sys.executable, "-c", f"import logging, sys; {asked}", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout + done.stderr


# Both processes import everything anew, which is what makes the libraries speak.
@pytest.mark.slow
def test_adapters_without_four_bits_say_nothing_of_four_bits(tmp_path: Path) -> None:
    overrides = ["experiment=smoke", "finetune=lora", "logger=none", f"runs_dir={tmp_path}"]
    overrides += ["cv.fold=0", "cv.max_examples=24", "decoding.max_new_tokens=4"]
    train = "from recap.train.__main__ import main; ended = main(sys.argv[1:]); assert ended == 0"
    trained = said_by(train, *overrides)
    assert "runs/" in trained or str(tmp_path) in trained
    [adapter, *_] = tmp_path.glob("*/fold*/model/adapter_model.safetensors")
    load = "import recap; recap.Detector.from_pretrained(sys.argv[1])"
    loaded = said_by(load, str(adapter.parent))
    for word in ("gemm", "kernels", "bitsandbytes"):
        assert word not in trained + loaded, (trained, loaded)

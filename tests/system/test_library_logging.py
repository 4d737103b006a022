"""Commands say what recap has to say, not what libraries think of its choices."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ASKS = "bitsandbytes.backends.cpu.ops"
"""Where bitsandbytes (0.50) asks for a further package, on processors with AVX512-BF16 alone."""


def test_adapters_without_four_bits_say_nothing_of_four_bits(tmp_path: Path) -> None:
    # Asked once more at the end, so that a machine without AVX512-BF16 would hear it as well.
    code = (
        "import logging, sys; from recap.train.__main__ import main; ended = main(sys.argv[1:]); "
        f"logging.getLogger({ASKS!r}).warning('Failed to load CPU gemm_4bit_forward'); "
        "sys.exit(ended)"
    )
    overrides = ["experiment=smoke", "finetune=lora", "logger=none", f"runs_dir={tmp_path}"]
    overrides += ["cv.fold=0", "cv.max_examples=24", "decoding.max_new_tokens=4"]
    done = subprocess.run(
        [sys.executable, "-c", code, *overrides], capture_output=True, text=True, check=True
    )
    assert "runs/" in done.stdout or str(tmp_path) in done.stdout
    assert list(tmp_path.glob("*/fold*/model/adapter_model.safetensors"))
    for word in ("gemm", "kernels", "bitsandbytes"):
        assert word not in done.stdout + done.stderr, done.stderr

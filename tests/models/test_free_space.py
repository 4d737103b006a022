"""Room on the disk: the least that a training needs, and a refusal before it begins."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from recap.errors import ConfigError
from recap.models.checkpoints import least_bytes, require_free_space
from recap.train import __main__ as train


def test_the_least_that_is_needed_follows_from_weights_and_moments() -> None:
    model = torch.nn.Linear(100, 10)  # 1,010 weights of four bytes, and two moments of each
    checkpoint = 3 * 4 * 1010
    assert least_bytes(model, optimizer="adamw", n_saves=10) == 3 * checkpoint
    # One checkpoint stands while the model is written.
    assert least_bytes(model, optimizer="adamw", n_saves=1) == checkpoint + 4 * 1010
    assert least_bytes(model, optimizer="adamw8bit", n_saves=10) == 3 * (4 + 2) * 1010
    # Of an optimizer that is not known, the weights alone.
    assert least_bytes(model, optimizer="my.module:sgd", n_saves=3) == 3 * 4 * 1010
    model.weight.requires_grad_(False)
    assert least_bytes(model, optimizer="adamw", n_saves=10) == 3 * 12 * 10
    assert least_bytes(model.bfloat16(), optimizer="adamw", n_saves=10) == 3 * 6 * 10


def test_what_lies_there_already_is_not_needed_again(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = torch.nn.Linear(10**6, 10**6)  # 4 TB, and nothing of it in memory
    with pytest.raises(ConfigError, match=r"needs at least 36000\.\d+ GB .* GB are free; make"):
        require_free_space(tmp_path / "not" / "there", model, optimizer="adamw", n_saves=3)
    with (tmp_path / "000001.ckpt").open("wb") as file:
        file.truncate(8 * 10**12)  # a hole, which takes no room
    with pytest.raises(ConfigError, match=r"needs at least 28000\.\d+ GB"):
        require_free_space(tmp_path, model, optimizer="adamw", n_saves=3)


def test_a_run_that_will_not_fit_is_refused_before_it_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        code = train.main(
            [
                *("task=binary", "rationale=false", "cv.folds=2", "cv.fold=0", "prompt=brief"),
                *("cv.max_examples=12", "logger=csv", "trainer=cpu", "run=r"),
                f"runs_dir={tmp_path}",
            ]
        )
        left = list(tmp_path.rglob("*.ckpt"))
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    said = capsys.readouterr()
    assert code == 2, said.err
    assert "GB are free; make room" in said.err
    assert "epoch 1" not in said.out
    assert left == []

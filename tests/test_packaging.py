"""The wheel works without the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    """Return what a command printed; fails with its output when it ended badly."""
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Path:
    """Return a wheel built from this tree with the installed hatchling, so without a network."""
    folder = tmp_path_factory.mktemp("dist")
    build = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ".")
    run(*build, cwd=project_root)
    [built] = folder.glob("recap_counseling-*.whl")
    return built


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """Return the Python of an environment with the wheel in it, which sees the suite's packages.

    A folder named in a .pth file is searched, but the .pth files inside it are not read: the
    checkout's editable installation stays out of sight.
    """
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    install = ("install", "--quiet", "--no-deps", "--no-index", wheel)
    run(sys.executable, "-m", "pip", "--python", python, *install, cwd=folder)
    [packages] = folder.glob("lib/python3.*/site-packages")
    (packages / "packages-of-the-suite.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_the_wheel_holds_the_choices_the_templates_the_types_and_the_licence(
    wheel: Path, project_root: Path
) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    conf = project_root / "conf"
    choices = {f"recap/conf/{p.relative_to(conf).as_posix()}" for p in conf.rglob("*.yaml")}
    assert choices
    assert choices <= names
    package = project_root / "recap"
    templates = {p.relative_to(project_root).as_posix() for p in package.rglob("templates/*")}
    assert templates
    assert templates <= names
    assert "recap/insights/words.yaml" in names
    sentences = {f"recap/report/{name}.yaml" for name in ("statements", "notes", "checklists")}
    assert sentences <= names
    assert "recap/py.typed" in names
    assert [name for name in names if name.endswith("licenses/LICENSE")]
    assert not [name for name in names if name.startswith("tests/")]


def test_the_wheel_is_what_the_bare_environment_imports(bare_python: Path, tmp_path: Path) -> None:
    where = "import recap.system.files as c; print(c.__file__); print(c.conf_dir())"
    for path in run(bare_python, "-c", where, cwd=tmp_path).splitlines():
        assert Path(path).is_relative_to(bare_python.parent.parent)


def test_the_smallest_run_goes_through_from_another_directory(
    bare_python: Path, tmp_path: Path
) -> None:
    run(bare_python, "-m", "recap.train", "experiment=smoke", "run=wheel", cwd=tmp_path)
    summary = json.loads((tmp_path / "runs" / "wheel" / "summary.json").read_text("utf-8"))
    assert summary["folds"]


def test_the_console_script_knows_the_commands(bare_python: Path, tmp_path: Path) -> None:
    assert "task=" in run(bare_python.parent / "recap", "train", "--help", cwd=tmp_path)

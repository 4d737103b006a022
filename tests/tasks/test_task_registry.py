"""Tasks by name: built-in, registered in Python, or brought by an installed package."""

from __future__ import annotations

import sys

import pytest

from recap.errors import ConfigError, UnknownNameError
from recap.registry import Registry
from recap.tasks import library as task_registry
from recap.tasks.library import TASKS, builtin_task, get_task, register_task


@pytest.fixture
def scratch(monkeypatch):
    """A registry of its own, so that no test leaves a name behind."""
    fresh = Registry("task", entry_point_group="recap.tasks")
    fresh.register("flat", aliases=("14-way",))(lambda **options: builtin_task("flat", **options))
    monkeypatch.setattr(task_registry, "TASKS", fresh)
    return fresh


def test_the_built_in_tasks_are_registered_with_aliases():
    assert {"binary", "fine_grained", "flat", "annomi_talk"} <= set(TASKS.names())
    assert get_task("fine-grained") == builtin_task("fine_grained")
    assert get_task("14-way", language="zh") == builtin_task("flat", language="zh")


def test_a_misspelt_name_gets_the_nearest_one():
    with pytest.raises(UnknownNameError, match="did you mean 'fine_grained'"):
        get_task("fine_graned")


@pytest.mark.usefixtures("scratch")
def test_a_function_registers_as_a_task_and_takes_options():
    @register_task("mine", aliases=("my-own",))
    def make(**options):
        return builtin_task("binary", **options)

    assert get_task("my-own", rationale=False) == builtin_task("binary", rationale=False)


@pytest.mark.usefixtures("scratch")
def test_a_task_registers_as_itself_and_takes_options():
    register_task("mine")(builtin_task("binary"))
    assert get_task("mine", style="brief") == builtin_task("binary", style="brief")


@pytest.mark.usefixtures("scratch")
@pytest.mark.parametrize("names", [("flat", ()), ("14-way", ()), ("other", ("flat",))])
def test_a_name_that_is_taken_is_refused(names):
    name, aliases = names
    with pytest.raises(ConfigError, match="registered already"):
        register_task(name, aliases=aliases)(builtin_task("binary"))


@pytest.mark.usefixtures("scratch")
def test_what_is_no_task_is_refused():
    register_task("wrong")(lambda **options: "a text")
    with pytest.raises(ConfigError, match="stands for a str"):
        get_task("wrong")


def test_a_package_brings_a_task_through_its_entry_point(tmp_path, monkeypatch, scratch):
    (tmp_path / "plugin_of_mine.py").write_text(
        "from recap.tasks.library import builtin_task\n"
        "def make(**options):\n    return builtin_task('annomi_talk', **options)\n",
        encoding="utf-8",
    )
    info = tmp_path / "plugin_of_mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-of-mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[recap.tasks]\nplugged = plugin_of_mine:make\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        assert "plugged" in scratch.names()
        assert get_task("plugged").labels == ("change", "neutral", "sustain")
    finally:
        sys.modules.pop("plugin_of_mine", None)


def test_an_import_path_is_a_name_too(tmp_path, monkeypatch):
    (tmp_path / "task_by_path.py").write_text(
        "from recap.tasks.library import builtin_task\nTASK = builtin_task('flat')\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        assert get_task("task_by_path:TASK", language="zh") == builtin_task("flat", language="zh")
        with pytest.raises(UnknownNameError, match=r"package\.module:attribute"):
            get_task("task_by_path:NONE")
    finally:
        sys.modules.pop("task_by_path", None)

"""Keys stay in the environment: no configuration holds one, no message says one."""

from __future__ import annotations

import pytest

import recap
from recap.cli.command import with_exit_code
from recap.cli.prompted import load_prompted
from recap.errors import ConfigError, RecapError
from recap.system.privacy import secret_values, without_secrets
from recap.system.processes import switch_telemetry_off

KEY = "sk-Z0k7-4711-0815"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.mark.parametrize(
    "override",
    [
        f"data.path=/somewhere/{KEY}/talks.jsonl",
        f"run=with-{KEY}",
        f"+callbacks.mine={{name: 'a:B', key: {KEY}}}",
        f"+data.options.{KEY}=1",
    ],
)
def test_an_option_that_holds_a_key_is_refused_without_saying_it(override: str) -> None:
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        recap.load_config([override])
    assert KEY not in str(caught.value)


def test_the_clients_options_are_looked_at_too() -> None:
    with pytest.raises(ConfigError, match=r"^client\.model: holds the value of"):
        load_prompted(["client=openai", f"client.model={KEY}"])


def test_a_message_names_the_variable_in_the_place_of_its_value(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse() -> int:
        raise RecapError(f"the server said {KEY}")

    assert with_exit_code(refuse) == 1
    assert capsys.readouterr().err == "error: the server said <OPENAI_API_KEY>\n"


def test_what_looks_like_no_key_counts_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SHORT_TOKEN": "true",
        "FILE_OF_KEY": "long enough",
        "PATH_KEY": "/home/me/keys",
        "SENTENCE_SECRET": "two words",
        "MONKEY": "a-long-value",
        "SERVICE_TOKEN": "abcdefgh",
    }.items():
        monkeypatch.setenv(name, value)
    found = secret_values()
    assert {"OPENAI_API_KEY", "SERVICE_TOKEN"} <= found.keys()
    names = {"SHORT_TOKEN", "FILE_OF_KEY", "PATH_KEY", "SENTENCE_SECRET", "MONKEY"}
    assert names.isdisjoint(found)
    assert without_secrets("a-long-value") == "a-long-value"


def test_no_library_reports_to_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "true")
    switch_telemetry_off()
    import os

    assert [os.environ[name] for name in names] == ["1", "1", "0"]
    assert os.environ["WANDB_ERROR_REPORTING"] == "true"  # what the user has said stays

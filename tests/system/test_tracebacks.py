"""Tracebacks tell where an error comes from, and nothing of what a client said."""

from __future__ import annotations

import json

import pytest

from recap.cli.command import with_exit_code
from recap.errors import DataError
from recap.system.privacy import FULL, safe_traceback

SAID = "I never told anybody"


def raised(function: object, *arguments: object) -> BaseException:
    try:
        function(*arguments)  # type: ignore[operator]
    except BaseException as error:  # noqa: BLE001 - any is what is wanted
        return error
    raise AssertionError


def quote_in_a_chain() -> None:
    try:
        {}[SAID]
    except KeyError as error:
        error.add_note(SAID)
        raise ValueError(f"cannot make sense of {SAID}") from error


def test_a_traceback_names_files_lines_and_types_but_quotes_nobody() -> None:
    told = safe_traceback(raised(quote_in_a_chain))
    assert SAID not in told
    assert "test_tracebacks.py" in told
    assert "in quote_in_a_chain" in told
    assert told.index("KeyError") < told.index("ValueError (a message of 41 characters")


@pytest.mark.parametrize(
    ("function", "arguments"),
    [(json.loads, (SAID,)), (int, (SAID,)), (SAID.encode().decode, (SAID,)), (getattr, (1, SAID))],
)
def test_errors_of_libraries_that_quote_are_not_quoted(
    function: object, arguments: tuple[object, ...]
) -> None:
    error = raised(function, *arguments)
    assert type(error).__name__ in safe_traceback(error)
    assert SAID not in safe_traceback(error)


def test_what_is_said_of_the_machine_keeps_its_words() -> None:
    assert "No such file or directory: '/nowhere/x'" in safe_traceback(raised(open, "/nowhere/x"))
    assert "No module named 'recap.nothing'" in safe_traceback(raised(__import__, "recap.nothing"))
    assert SAID not in safe_traceback(OSError(SAID))


def test_a_hidden_cause_stays_hidden_and_a_circle_ends() -> None:
    def hide() -> None:
        try:
            {}[SAID]
        except KeyError:
            raise ValueError from None

    assert "KeyError" not in safe_traceback(raised(hide))
    one, other = ValueError("a"), TypeError("b")
    one.__cause__, other.__cause__ = other, one
    assert safe_traceback(one).count("Traceback") == 2


def test_who_asks_for_the_words_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FULL, "1")
    told = safe_traceback(raised(quote_in_a_chain))
    assert told.count(SAID) >= 3


def test_a_command_ends_with_1_and_such_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def crash() -> int:
        quote_in_a_chain()
        return 0

    assert with_exit_code(crash) == 1
    told = capsys.readouterr().err
    assert "ValueError" in told
    assert SAID not in told

    def refuse() -> int:
        raise DataError("my.jsonl:3: turns: missing")

    assert with_exit_code(refuse) == 2
    assert capsys.readouterr().err == "error: my.jsonl:3: turns: missing\n"

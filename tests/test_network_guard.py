"""The suite cannot reach other machines, neither from its own process nor from those it starts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import network_guard
import pytest
from network_guard import ATTEMPTS_FILE, LeftMachineError, stays_here

ELSEWHERE = ("192.0.2.1", 9)  # reserved for documentation: nobody is there (RFC 5737)
CONNECTS = """
import socket
try:
    socket.create_connection(("192.0.2.1", 9), timeout=0.2)
except Exception:
    print("an ordinary error")
"""


@pytest.fixture
def attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Keep what is tried here apart from what fails a test."""
    file = tmp_path / "attempts"
    file.touch()
    monkeypatch.setenv(ATTEMPTS_FILE, str(file))
    return file


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_connection_to_another_machine_is_refused_and_written_down(
    kind: socket.SocketKind, attempts: Path
) -> None:
    with socket.socket(socket.AF_INET, kind) as mine, pytest.raises(LeftMachineError):
        mine.connect(ELSEWHERE)
    with socket.socket(socket.AF_INET, kind) as mine, pytest.raises(LeftMachineError):
        mine.connect_ex(ELSEWHERE)
    assert attempts.read_text(encoding="utf-8").count("192.0.2.1") == 2


def test_a_name_of_another_machine_is_not_even_looked_up(attempts: Path) -> None:
    with pytest.raises(LeftMachineError):
        socket.getaddrinfo("example.org", 443)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mine,
        pytest.raises(LeftMachineError),
    ):
        mine.sendto(b"x", ELSEWHERE)
    assert "example.org" in attempts.read_text(encoding="utf-8")


def test_loopback_and_unix_sockets_work_as_ever(tmp_path: Path) -> None:
    with socket.socket() as server, socket.socket() as mine:
        server.bind(("127.0.0.1", 0))
        server.listen()
        mine.connect(server.getsockname())
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as mine:
        server.bind(str(tmp_path / "s"))
        server.listen()
        mine.connect(str(tmp_path / "s"))


def test_a_process_that_a_test_starts_is_refused_too(attempts: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CONNECTS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "ordinary" not in done.stdout
    assert "LeftMachineError" in done.stderr
    assert "192.0.2.1" in attempts.read_text(encoding="utf-8")


def test_a_test_whose_code_swallows_the_refusal_fails_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import socket\n"
        "def test_swallows():\n"
        "    try:\n"
        "        socket.socket().connect(('192.0.2.1', 9))\n"
        "    except BaseException:\n"
        "        pass\n",
        encoding="utf-8",
    )
    conftest = Path(network_guard.__file__).parents[1] / "conftest.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "conftest"]
    done = subprocess.run(
        [*command, "-c", "/dev/null", f"--rootdir={tmp_path}", str(tmp_path / "test_it.py")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(conftest.parent)},
    )
    assert "left this machine" in done.stdout
    assert done.returncode == 1


def test_only_this_machine_counts_as_here() -> None:
    assert all(map(stays_here, ["127.0.0.1", "127.9.9.9", "::1", "localhost", b"localhost", None]))
    away = ["192.168.0.1", "10.0.0.1", "localhost.example.org", "2001:db8::1", "8.8.8.8"]
    assert not any(map(stays_here, away))

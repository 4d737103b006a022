"""Whether text may leave the machine is decided by the address alone."""

from __future__ import annotations

import pytest

from recap.cli.prompted import ClientConfig
from recap.errors import ConfigError
from recap.prompt.clients import check_destination, endpoint, is_loopback


def client(base_url: str | None, name: str = "openai") -> ClientConfig:
    return ClientConfig(name=name, model="m", base_url=base_url)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000/v1",
        "http://127.8.9.10",
        "http://localhost:11434/v1",
        "https://LOCALHOST/v1",
        "http://[::1]:8000/v1",
    ],
)
def test_loopback_is_this_machine(url: str) -> None:
    assert is_loopback(url)
    check_destination(client(url), allow_external=False)


@pytest.mark.parametrize(
    "url",
    [
        None,
        "https://api.example.org/v1",
        "http://192.168.1.5:8000",
        "http://0.0.0.0:8000",
        "http://[::]:8000",
        "http://localhost.example.org/v1",
        "http://127.0.0.1.example.org",
        "http://127.1",
        "http://2130706433",
    ],
)
@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_anything_else_is_another_machine_and_needs_permission(url: str | None, name: str) -> None:
    with pytest.raises(ConfigError, match=r"privacy\.allow_external=true"):
        check_destination(client(url, name), allow_external=False)
    check_destination(client(url, name), allow_external=True)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1@example.org/v1",
        "http://me:secret@127.0.0.1/v1",
        "http://127.0.0.1\\@example.org/v1",
        "http://127.0.0.1/v1?key=secret",
        "http://127.0.0.1/v1#secret",
        "127.0.0.1:8000",
        "ftp://127.0.0.1",
        "",
    ],
)
def test_an_address_is_scheme_host_and_path_alone(url: str) -> None:
    with pytest.raises(ConfigError, match=r"client\.base_url") as caught:
        endpoint(client(url))
    assert "secret" not in str(caught.value)


def test_addresses_of_the_environment_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9")
    assert endpoint(client(None)) == "https://api.openai.com/v1"

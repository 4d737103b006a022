"""Where requests go, and whether they may: text leaves the machine only where it is allowed."""

from __future__ import annotations

import os
from ipaddress import ip_address
from urllib.parse import urlsplit

from recap.errors import ConfigError
from recap.prompting.options import ClientConfig

_OFFICIAL = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
_PATHS = {"openai": "/v1", "anthropic": ""}
_KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}


def endpoint(client: ClientConfig) -> str:
    """Return the address that a client's requests go to.

    The official clients' own variables (``OPENAI_BASE_URL`` and the like) are not read: an address
    that no configuration names could not be checked.

    Raises:
        ConfigError: When ``client.base_url`` is not a plain address.
    """
    url = client.base_url if client.base_url is not None else _OFFICIAL[client.name]
    parts = urlsplit(url)
    plain = parts.scheme in ("http", "https") and parts.hostname and "\\" not in url
    if not plain or parts.username is not None or parts.query or parts.fragment:
        raise ConfigError(
            "client.base_url: give scheme, host and path alone, such as http://127.0.0.1:8000/v1; "
            f"a key belongs into {_KEYS[client.name]}"
        )
    return url


def is_loopback(url: str) -> bool:
    """Whether an address is this machine: ``localhost``, 127.0.0.0/8 or ::1.

    Any other name counts as another machine, whatever it resolves to at the moment.

    >>> is_loopback("http://127.0.0.1:8000/v1"), is_loopback("http://localhost.example.org")
    (True, False)
    """
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def check_destination(client: ClientConfig, *, allow_external: bool) -> None:
    """Refuse a server elsewhere, unless sending text there is allowed.

    Raises:
        ConfigError: When it is not, or the address is not a plain one.
    """
    url = endpoint(client)
    if not is_loopback(url) and not allow_external:
        raise ConfigError(
            f"client={client.name} would send dialogues to {urlsplit(url).hostname}; where consent "
            "and approval cover that, set privacy.allow_external=true, otherwise name a server on "
            f"this machine with client.base_url=http://127.0.0.1:PORT{_PATHS[client.name]}"
        )


def api_key(client: ClientConfig) -> str:
    """Return the key for a server, from the official client's environment variable.

    A server on this machine may want none: without one, a placeholder is sent.

    Raises:
        ConfigError: When a server elsewhere lacks its key.
    """
    variable = _KEYS[client.name]
    key = os.environ.get(variable, "").strip()
    if not key and not is_loopback(endpoint(client)):
        raise ConfigError(
            f"client={client.name} needs a key, and the environment variable {variable} is not "
            f"set; export {variable}=… first (it is written to no file)"
        )
    return key or "none"

"""Names for what configuration can choose: readers, tasks, optimizers, schedulers, callbacks."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from recap.errors import ConfigError, UnknownNameError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """A table from names to objects of one kind.

    Args:
        kind: What is registered, as error messages call it (``"task"``).
        entry_point_group: Installed packages add names through this group; they are read on the
            first look-up that the table itself cannot answer, never at import.
    """

    def __init__(self, kind: str, *, entry_point_group: str | None = None) -> None:
        self.kind = kind
        self._entry_point_group = entry_point_group
        self._entries: dict[str, T] = {}
        self._aliases: dict[str, str] = {}

    def register(self, name: str, *, aliases: Iterable[str] = ()) -> Callable[[T], T]:
        """Return a decorator that registers its object under ``name`` and ``aliases``.

        Raises:
            ConfigError: When a name is taken by another object.
        """

        def add(entry: T) -> T:
            for taken in (name, *aliases):
                owner = self._aliases.get(taken, taken)
                if owner in self._entries and self._entries[owner] is not entry:
                    raise ConfigError(
                        f"{self.kind} {taken!r} is registered already; "
                        "choose another name for the new one"
                    )
            self._entries[name] = entry
            self._aliases.update(dict.fromkeys(aliases, name))
            return entry

        return add

    def get(self, name: str) -> T:
        """Return what a registered name, an alias, or ``package.module:attribute`` stands for.

        Raises:
            UnknownNameError: With the closest known name, when there is none.
        """
        if ":" in name:
            imported: T = self._import(name)
            return imported
        name = self._aliases.get(name, name)
        if name not in self._entries:
            self._load_entry_points()
        if name not in self._entries:
            known = self.names()
            raise UnknownNameError(
                f"there is no {self.kind} {name!r}{did_you_mean(name, known)}; "
                f"known: {', '.join(known) or 'none'}"
            )
        return self._entries[name]

    def names(self) -> list[str]:
        """Return every registered name, sorted, without aliases."""
        self._load_entry_points()
        return sorted(self._entries)

    def __contains__(self, name: str) -> bool:
        """Whether ``name`` is a registered name or alias, entry points included."""
        return self._aliases.get(name, name) in self.names()

    def _import(self, path: str) -> Any:
        module, _, attribute = path.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise UnknownNameError(
                f"{self.kind} {path!r} cannot be imported ({error}); "
                "write it as package.module:attribute"
            ) from error

    def _load_entry_points(self) -> None:
        if self._entry_point_group is None:
            return
        group, self._entry_point_group = self._entry_point_group, None
        for point in entry_points(group=group):
            self.register(point.name)(point.load())

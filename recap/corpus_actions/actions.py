"""The actions of ``recap.corpus`` by name."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from recap.corpus_actions.options import CorpusConfig
from recap.errors import ConfigError, did_you_mean
from recap.reporting.findings import Findings

Action = Callable[[CorpusConfig], Findings]

ACTIONS = {
    "describe": "recap.corpus_actions.describe:describe",
    "validate": "recap.corpus_actions.validate:validate",
    "codebook": "recap.corpus_actions.codebook:codebook",
    "lexicon": "recap.corpus_actions.lexicon:lexicon",
    "assign": "recap.corpus_actions.assign:assign_examples",
    "agreement": "recap.corpus_actions.agreement:agreement",
    "adjudicate": "recap.corpus_actions.adjudicate:adjudicate_labels",
    "exam": "recap.corpus_actions.exam:exam",
    "ratings": "recap.corpus_actions.ratings:ratings",
}
"""Name of an action to its function; modules are imported when they are asked for."""


def find_action(name: str) -> Action:
    """Return the function of an action.

    Raises:
        ConfigError: When there is none of that name.
    """
    if name not in ACTIONS:
        raise ConfigError(
            f"action: there is no action {name!r}{did_you_mean(name, ACTIONS)}; "
            f"known: {', '.join(ACTIONS)}"
        )
    module, _, function = ACTIONS[name].partition(":")
    action: Action = getattr(import_module(module), function)
    return action

"""The learning rate of a run: the configured one, or one that is found before the first fold."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from recap.combinations import check_combinations
from recap.data.encode import EncodedExample
from recap.launch import is_first_process
from recap.models.range_test import N_STEPS, RangeTest, suggest_rate
from recap.prepare import Setup
from recap.run_folder import FoldFolder
from recap.tracking.tracker import NoTracker
from recap.training import Training


def settle_learning_rate(
    setup: Setup,
    folder: FoldFolder,
    train: Sequence[EncodedExample],
    *,
    on_found: Callable[[float, str], None],
) -> float:
    """Return the learning rate to train with.

    With ``optimizer.find_learning_rate`` it is found once a run, on the training examples of the
    fold that trains first, with a model of its own that is thrown away; the manifest keeps it for
    the other folds and for resuming.

    Args:
        setup: What all folds share.
        folder: Of the fold that is about to train.
        train: Its training examples.
        on_found: Told of a rate that is used, and of the fold that it was found on.

    Raises:
        ConfigError: When no rate can be suggested, or the weights' type cannot take up the one that
            is.
    """
    config = setup.config
    if not config.optimizer.find_learning_rate:
        return config.optimizer.learning_rate
    found = setup.folder.read_manifest().get("learning_rate")
    if found is None:
        found = _find(setup, folder, train)
        if is_first_process():
            setup.folder.update_manifest(learning_rate=found)
    rate = float(found["used"])
    settled = replace(config.optimizer, learning_rate=rate, find_learning_rate=False)
    check_combinations(replace(config, optimizer=settled))
    on_found(rate, found["found_on"])
    return rate


def _find(setup: Setup, folder: FoldFolder, train: Sequence[EncodedExample]) -> dict[str, Any]:
    began = time.monotonic()
    test = RangeTest()
    steps_per_epoch = math.ceil(len(train) / setup.config.global_batch_size)
    training = Training(
        setup,
        folder,
        NoTracker(),
        lambda *_: None,
        train=train,
        max_epochs=math.ceil(N_STEPS / steps_per_epoch),
        learning_rate=setup.config.optimizer.learning_rate,
        range_test=test,
    )
    training.try_rates()
    del training
    # A trainer and its module hold each other; two models need not be in memory together.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return {
        "used": suggest_rate(test.rates, test.losses),
        "found_on": folder.path.name,
        "seconds": round(time.monotonic() - began, 3),
        "tried": list(test.rates),
        "losses": [loss if math.isfinite(loss) else None for loss in test.losses],
    }

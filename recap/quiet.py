"""Libraries that talk about choices which recap makes."""

from __future__ import annotations

import logging
import warnings


def quiet_libraries() -> None:
    """Silence Lightning's and transformers' advice and progress notes.

    They are about choices that recap makes.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    # peft imports bitsandbytes for any adapter, which asks for a further package where a processor
    # has AVX512-BF16: to multiply packed weights, which recap keeps none of.
    advisers = ("lightning.pytorch", "lightning.fabric", "lightning", "transformers")
    for name in (*advisers, "bitsandbytes.backends.cpu.ops"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
    # peft asks transformers under the name of an earlier release (0.21, 5.23).
    warnings.filterwarnings("ignore", message=r".*is_gradient_checkpointing.*")

"""The metric that a training loop updates; :mod:`recap.metrics.scores` scores without torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from recap.errors import RecapError
from recap.metrics.scores import scores_from_confusion
from recap.records import Scores


class TokenMean(Metric):
    """The mean loss over tokens, however they are cut into batches and spread over ranks.

    Not torchmetrics' ``MeanMetric``: that one leaves out batches whose loss is not a number, and
    with ``nan_strategy="disable"`` forgets the weights (1.9).

    >>> metric = TokenMean()
    >>> metric.update(torch.tensor(6.0), 2)
    >>> metric.update(torch.tensor(1.0), 5)
    >>> metric.compute().item()
    1.0
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    total: Tensor
    tokens: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("tokens", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, loss_sum: Tensor, n_tokens: int) -> None:
        """Add one batch: the summed loss of its tokens (scalar, nats) and their number."""
        self.total += loss_sum.to(self.total.dtype)
        self.tokens += n_tokens

    def compute(self) -> Tensor:
        """Return the mean, a scalar; not a number where one batch is, or when no token was seen."""
        return self.total / self.tokens


class CategoryScores(Metric):
    """A confusion matrix that grows batch by batch and is summed over ranks.

    torchmetrics' own macro averages count an extra class of unparsed answers as a class of zeros
    and drop labels that never occur; here only counts are kept, and :meth:`scores` applies the one
    arithmetic.

    Args:
        labels: The task's labels; their order is the class index.

    >>> metric = CategoryScores(labels=["Resistance", "Collaboration"])
    >>> metric.update(torch.tensor([0, 1, 2]), torch.tensor([0, 0, 1]))
    >>> metric.compute().tolist()
    [[1, 1, 0], [0, 0, 1]]
    >>> metric.scores(task="binary").metrics["accuracy"]
    0.3333333333333333
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    confusion: Tensor

    def __init__(self, *, labels: Sequence[str]) -> None:
        super().__init__()
        self.labels = tuple(labels)
        shape = (len(self.labels), len(self.labels) + 1)
        self.add_state("confusion", torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")

    @property
    def invalid_index(self) -> int:
        """The class index of an answer in which no label could be read."""
        return len(self.labels)

    def update(self, predicted: Tensor, gold: Tensor) -> None:
        """Count one batch.

        Args:
            predicted: Class indices ``(batch,)``, :attr:`invalid_index` for an answer without a
                label.
            gold: Class indices ``(batch,)``.

        Raises:
            RecapError: When shapes differ or an index is out of range.
        """
        if predicted.shape != gold.shape or gold.ndim != 1:
            raise RecapError(
                "predicted and gold must both be (batch,), got "
                f"{tuple(predicted.shape)} and {tuple(gold.shape)}"
            )
        if gold.numel() == 0:
            return
        low = int(torch.minimum(predicted.min(), gold.min()))
        if low < 0 or int(gold.max()) >= self.invalid_index or predicted.max() > self.invalid_index:
            raise RecapError(
                f"class indices must lie in 0 to {self.invalid_index - 1}, "
                f"and {self.invalid_index} for an unparsed answer"
            )
        one = torch.ones((), dtype=torch.long, device=self.confusion.device)
        # Not bincount: CUDA refuses it under deterministic algorithms.
        self.confusion.index_put_((gold.long(), predicted.long()), one, accumulate=True)

    def compute(self) -> Tensor:
        """Return the counts ``(n_labels gold, n_labels + 1 predicted)`` of all ranks, as int64."""
        return self.confusion.clone()

    def scores(self, *, task: str, loss: float | None = None) -> Scores:
        """Return the scores of everything counted so far, over all ranks.

        Raises:
            DataError: When nothing has been counted.
        """
        return scores_from_confusion(task, self.labels, self.compute().tolist(), loss)

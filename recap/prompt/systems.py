"""Models that are prompted as they are, on a server or on this machine.

And the choices that a prompted run cannot have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from recap.cli.prompted import PromptedConfig, refuse_impossible
from recap.config import RunConfig, weights_dtype
from recap.data.encode import ChatEncoder, encode_examples
from recap.errors import ConfigError
from recap.folds.prompts import estimated_tokens
from recap.folds.run import backbone_files
from recap.models.backbone import load_backbone, load_positions, load_tokenizer
from recap.models.engine.label_scoring import LabelScorer, ModelAnswer
from recap.models.precision import mixed
from recap.prompt.clients import ChatClient, Reply, check_destination, endpoint, thinking_off
from recap.prompt.logprobs import label_probabilities
from recap.prompt.requests import (
    FOLDER,
    AnswerCache,
    Budget,
    PromptRequest,
    RequestRunner,
    UnansweredRequests,
    answer_once,
    request_key,
    usage_of,
)
from recap.records import Example, Usage
from recap.system.processes import device_type
from recap.tasks.answer import THOUGHT_MARK, UNREADABLE, cut_text
from recap.tasks.task import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptedAnswer:
    """What a system says of one example; ``label`` is ``None`` where none can be read."""

    text: str
    label: str | None
    rationale: str | None
    probabilities: Mapping[str, float] | None = None


def _workload(tokens: Mapping[str, int], kept: Callable[[str], object]) -> Counter[str]:
    """Return how many prompts have no answer yet (``calls``), how many have one, and the tokens.

    ``tokens`` has those of every prompt, by the key that its answer is ``kept`` under.
    """
    still = [n for key, n in tokens.items() if kept(key) is None]
    return Counter(calls=len(still), kept=len(tokens) - len(still), input_tokens=sum(still))


class RemoteModel:
    """A prompted model on a server.

    Without a client it makes estimates alone, and sends nothing. ``spent`` is what the run's
    requests have used so far.
    """

    def __init__(
        self,
        config: PromptedConfig,
        task: Task,
        *,
        client: ChatClient | None = None,
        spent: Usage | None = None,
        unanswered: UnansweredRequests | None = None,
    ) -> None:
        options, max_new_tokens = config.client, config.training.decoding.max_new_tokens
        self._task = task
        self._cache = AnswerCache(Path(config.training.runs_dir) / FOLDER, Reply)
        self._parameters = {
            "api": options.name,
            "base_url": endpoint(options),
            "model": options.model,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "max_new_tokens": max_new_tokens,
            **thinking_off(options),
        }
        self._runner: RequestRunner | None = None
        if client is not None:
            self._runner = RequestRunner(
                client,
                options,
                cache=self._cache,
                budget=Budget(
                    prices=config.prices,
                    max_cost=options.max_cost,
                    max_total_tokens=options.max_total_tokens,
                    spent=spent,
                ),
                max_new_tokens=max_new_tokens,
                unanswered=unanswered,
                judge=lambda reply: label_probabilities(task, reply.tokens),
            )

    device = "remote"
    """Not this machine's."""

    shortened: Mapping[str, int] = {}
    """What prompts lost: nothing."""
    limit = ""
    """What limits them: nothing that is known here."""

    def answer(
        self,
        examples: Sequence[Example],
        shots: Sequence[Example],
        *,
        on_answer: Callable[[], None] = lambda: None,
    ) -> tuple[list[PromptedAnswer], Usage]:
        """Return what the model says of each example, and what the answers have used.

        Only what was never answered is asked.

        Raises:
            RecapError: When a request fails for good, or the budget ends.
        """
        assert self._runner is not None, "an estimate sends nothing"
        requests = self._requests(examples, shots)
        replies = self._runner.answer(requests, on_answer=on_answer)
        distinct = dict(zip((q.key for q in requests), replies, strict=True))
        thinks = _thinks(replies)
        return [self._read(reply, thinks) for reply in replies], usage_of(list(distinct.values()))

    def workload(self, examples: Sequence[Example], shots: Sequence[Example]) -> Counter[str]:
        """Return the number of requests still to be sent, and about how many tokens they have."""
        requests = self._requests(examples, shots)
        tokens = {q.key: estimated_tokens(q.messages) for q in requests}
        return _workload(tokens, self._cache.read)

    def kept_usage(self, examples: Sequence[Example], shots: Sequence[Example]) -> Usage:
        """Return what the answers that are there already have used."""
        found = (self._cache.read(q.key) for q in self._requests(examples, shots))
        return usage_of([reply for reply in found if reply is not None])

    def _requests(
        self, examples: Sequence[Example], shots: Sequence[Example]
    ) -> list[PromptRequest]:
        requests = []
        for example in examples:
            messages = self._task.messages(example, shots)
            said = [[message.role, message.text] for message in messages]
            key = request_key({**self._parameters, "messages": said})
            requests.append(PromptRequest(id=example.id, messages=messages, key=key))
        return requests

    def _read(self, reply: Reply, thinks: bool) -> PromptedAnswer:
        text = cut_text(reply.text) if reply.cut and thinks else reply.text
        # Words of a refusal may name a label, and give none.
        answer = UNREADABLE if reply.refused else self._task.parse(text)
        return PromptedAnswer(
            text=text,
            label=answer.label,
            rationale=answer.rationale,
            probabilities=reply.probabilities if answer.label else None,
        )


def _thinks(replies: Sequence[Reply]) -> bool:
    """Whether a text that was cut off may be a thought, whose beginning the prompt held.

    Where that is so, answers that were not cut off end a thought, and there may be none.
    """
    return all(r.cut for r in replies) or any(THOUGHT_MARK.search(r.text) for r in replies)


def check_prompted(config: PromptedConfig) -> None:
    """Refuse what cannot work, and text to another machine where that is not allowed.

    A dry run sends nothing, and needs no permission.

    Raises:
        ConfigError: With one line for every fault, each naming what to set instead.
    """
    refuse_impossible(config)
    if config.remote:
        allowed = config.privacy.allow_external or config.dry_run
        check_destination(config.client, allow_external=allowed)


_BATCHES_BETWEEN_WRITES = 4


class LocalModel:
    """A prompted backbone, which does as :class:`RemoteModel`.

    Answers are kept as those of servers are, under a hash of prompt, decoding and the backbone's
    files. In a dry run nothing may be written, the digests of those files among it.

    Raises:
        ConfigError: When there is no such backbone.
    """

    def __init__(self, config: RunConfig, task: Task, *, dry_run: bool = False) -> None:
        self._config, self._task, self._dry_run = config, task, dry_run
        self._cache = AnswerCache(Path(config.runs_dir) / FOLDER, PromptedAnswer)
        self.encoder = ChatEncoder(load_tokenizer(**config.backbone.source))
        self.shortened: Mapping[str, int] = {}
        """What prompts lost to their ``limit``, of the examples last asked about."""
        self.limit = ""

    @property
    def device(self) -> str:
        """Where the model runs."""
        return device_type(self._config.trainer)

    def answer(
        self,
        examples: Sequence[Example],
        shots: Sequence[Example],
        *,
        on_answer: Callable[[], None] = lambda: None,
    ) -> tuple[list[PromptedAnswer], Usage]:
        """Return what the model says of each example, decoding only what it has not before."""
        asked = [(self._key(prompt), prompt) for prompt in self._prompts(examples, shots)]
        answers = answer_once(asked, self._cache, self._decoded, on_answer)
        distinct = dict(asked)
        texts = {key: answer.text for (key, _), answer in zip(asked, answers, strict=True)}
        return answers, Usage(
            answers=len(distinct),
            input_tokens=sum(map(len, distinct.values())),
            output_tokens=sum(self.encoder.count_tokens(list(texts.values()))),
        )

    def workload(self, examples: Sequence[Example], shots: Sequence[Example]) -> Counter[str]:
        """Return the number of prompts still to be answered, and their tokens, exactly."""
        prompts = self._prompts(examples, shots)
        return _workload({self._key(prompt): len(prompt) for prompt in prompts}, self._cache.read)

    def _decoded(
        self, prompts: Mapping[str, tuple[int, ...]], on_answer: Callable[[], None]
    ) -> dict[str, PromptedAnswer]:
        """Return answers that are kept already, some batches a time, as prompts begin alike."""
        answers: dict[str, PromptedAnswer] = {}
        if not prompts:
            return answers
        decoding = self._config.decoding
        answerer = LabelScorer(
            self._model,
            self._task,
            self.encoder,
            decoding=decoding.name,
            max_new_tokens=decoding.max_new_tokens,
            batch_size=decoding.batch_size,
            threshold=decoding.threshold,
            engine=decoding.engine,
        )
        order = sorted(prompts, key=prompts.__getitem__)
        step = _BATCHES_BETWEEN_WRITES * decoding.batch_size
        for start in range(0, len(order), step):
            keys = order[start : start + step]
            with mixed(self._config.trainer.precision, self.device):
                said = answerer.answer([prompts[key] for key in keys])
            for key, answer in zip(keys, map(_answered, said), strict=True):
                self._cache.write(key, answer)
                answers[key] = answer
                on_answer()
        return answers

    def _prompts(
        self, examples: Sequence[Example], shots: Sequence[Example]
    ) -> list[tuple[int, ...]]:
        config = self._config
        encoding = encode_examples(
            examples,
            self._task,
            self.encoder,
            max_tokens=config.prompt.max_tokens,
            positions=load_positions(self.encoder.tokenizer, **config.backbone.source),
            max_new_tokens=config.decoding.max_new_tokens,
            cut=config.prompt.cut,
            shots=shots,
        )
        self.shortened, self.limit = dict(encoding.counts), encoding.limit
        return [example.prompt for example in encoding.examples]

    def _key(self, prompt: Sequence[int]) -> str:
        return request_key({**self._parameters, "prompt": list(prompt)})

    @cached_property
    def _parameters(self) -> dict[str, Any]:
        """All that an answer depends on beside the prompt."""
        config, task = self._config, self._task
        return {
            "api": "local",
            "weights": backbone_files(config, keep=not self._dry_run)
            or [config.backbone.name, config.seed],
            "dtype": config.backbone.dtype,
            "precision": config.trainer.precision,
            "decoding": [config.decoding.name, config.decoding.threshold],
            "max_new_tokens": config.decoding.max_new_tokens,
            "labels": [*task.labels, task.language, task.label_form, task.rationale],
        }

    @cached_property
    def _model(self) -> Any:
        """The weights, loaded when the first prompt needs them."""
        import torch

        config, device = self._config, self.device
        if device == "cuda" and not torch.cuda.is_available():
            raise ConfigError(
                "trainer.accelerator=gpu: there is no GPU here; use trainer=cpu or trainer=auto"
            )
        backbone = config.backbone
        model, _ = load_backbone(**backbone.source, dtype=backbone.dtype, seed=config.seed)
        # As Lightning turns weights: buffers keep their own type where weights do.
        turned = weights_dtype(config.trainer.precision, "")
        return model.to(device=device, dtype=getattr(torch, turned) if turned else None)


PromptedModel = RemoteModel | LocalModel
"""A language model that is prompted."""


def _answered(answer: ModelAnswer) -> PromptedAnswer:
    return PromptedAnswer(
        text=answer.text,
        label=answer.label,
        rationale=answer.rationale,
        probabilities=dict(answer.probabilities),
    )

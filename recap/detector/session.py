"""A dialogue that is annotated while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from recap.data.readers.dialogue_text import SpeakerNames
from recap.errors import DataError
from recap.records import Annotation, Dialogue, Turn

if TYPE_CHECKING:
    from recap.detector.detector import Detector
    from recap.detector.stage import Prompt
    from recap.models.answerer import Conversation, ModelAnswer


class Session:
    """Takes the turns of one dialogue as they come, and annotates each client turn at once.

    What one prompt shares with the one before is kept and not computed again. Annotations are those
    of :meth:`recap.detector.detector.Detector.predict` on the dialogue so far. When a client says
    several things in a row, each annotation takes in what was said since the counsellor spoke: the
    last of them is the one that the whole dialogue has.

    Args:
        detector: Gives the answers; :meth:`~recap.detector.detector.Detector.session` makes one.
        session: Name of the dialogue.
    """

    def __init__(self, detector: Detector, session: str = "session") -> None:
        self._detector = detector
        self._session = session
        self._turns: list[Turn] = []
        self._names = SpeakerNames()
        self._conversations: dict[int, Conversation] = {}

    @property
    def dialogue(self) -> Dialogue:
        """The dialogue so far."""
        return Dialogue(session=self._session, turns=tuple(self._turns))

    def add(self, speaker: str, text: str, *, id: str | None = None) -> Annotation | None:  # noqa: A002
        """Add a turn; return its annotation, ``None`` when it is the counsellor's.

        Args:
            speaker: ``client`` or ``counselor``, or a usual name of either (therapist, 来访者).
            text: What was said.
            id: Of the turn; by default ``<session>:<index>``.

        Raises:
            DataError: When the speaker is not known.
        """
        role = self._names.find(speaker)
        if role is None:
            raise DataError("speaker: " + ", ".join(self._names.complaint(speaker)))
        self._turns.append(Turn(speaker=role, text=text, id=id))
        if role == "counselor":
            return None
        latest = self._detector.utterances(self.dialogue, 0)[-1:]
        return self._detector.judge(latest, self._ask)[0]

    def _ask(self, stage: int, prompts: list[Prompt]) -> list[ModelAnswer]:
        if stage not in self._conversations:
            self._conversations[stage] = self._detector.stages[stage].conversation()
        answer: Callable[[tuple[int, ...]], ModelAnswer] = self._conversations[stage].answer
        return [answer(prompt.ids) for prompt in prompts]

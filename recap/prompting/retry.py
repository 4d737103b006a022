"""The one policy for requests that fail: back off, ask again, give up."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from recap.errors import ConfigError, RecapError
from recap.prompting.failures import RequestError

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often and after how long a request is tried again.

    The wait doubles with every failure and is then shortened by up to half at random, so that
    requests which failed together do not come back together; a server's ``Retry-After`` is honoured
    in full.
    """

    attempts: int
    backoff_seconds: float
    longest_wait_seconds: float
    jitter: Callable[[], float] = field(default=random.random)
    """Returns a number from 0 to 1."""

    def wait(self, failures: int, asked: float | None) -> float:
        """Return the seconds to wait after so many failures.

        Args:
            failures: From 1.
            asked: What the server asked for, if it did.
        """
        grown = min(self.longest_wait_seconds, self.backoff_seconds * 2.0 ** (failures - 1))
        return max(grown * (1 - self.jitter() / 2), asked or 0.0)


def with_retries(
    request: Callable[[], Result],
    policy: RetryPolicy,
    *,
    pause: Callable[[float], None] = time.sleep,
) -> Result:
    """Return what a request gives, tried again as long as the policy and the failures allow.

    Args:
        request: Asks once.
        policy: How often and after how long.
        pause: Waits so many seconds; what it raises ends the trying.

    Raises:
        RecapError: When the last attempt failed; a :class:`ConfigError` where the configuration is
            at fault.
    """
    for failures in range(1, policy.attempts + 1):
        try:
            return request()
        except RequestError as failure:
            asked = failure.wait_seconds
            if not failure.temporary:
                raise (ConfigError if failure.mendable else RecapError)(str(failure)) from failure
            if asked is not None and asked > policy.longest_wait_seconds:
                raise RecapError(
                    f"{failure}, and asks to wait {asked:.0f} s, longer than "
                    f"client.longest_wait_seconds={policy.longest_wait_seconds:g}"
                ) from failure
            if failures == policy.attempts:
                tried = "once" if failures == 1 else f"{failures} times"
                raise RecapError(f"{failure} (tried {tried})") from failure
            pause(policy.wait(failures, asked))
    raise AssertionError("a policy has at least one attempt")

"""Checks passwords with bcrypt: once per credential, on other threads, and fairly.

bcrypt is slow on purpose, so whoever sends wrong passwords makes others wait, unless:

- a credential that was right stays known (by a keyed digest, in memory) until its user's line changes, and needs no bcrypt;
- a credential that was wrong stays known too, in a bounded list;
- the rest waits in lanes, one per user and address, each short, and a user has so many: what does not fit is told to come again (429);
- a user has one thread at most, and the lane with the fewest recent failures goes first. Users that do not exist share one lane.

No lane is by address alone, since a portal is one address for all.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from enum import Enum

from tracking_server.guard.log import tell_failure
from tracking_server.guard.loop import Loop, Timer

THREADS = 2
LANE_DEPTH = 8
LANES = 32
WRONG_REMEMBERED = 8192
RETRY_AFTER_SECONDS = 2
_FORGET_SECONDS = 20.0  # a lane's failures halve in this time
_FREE_FAILURES = 5.0
_LONGEST_REST = 1.0
_BCRYPT_BYTES = 72

Check = Callable[[bytes, bytes], bool]
# bcrypt's "nothing", at a usual cost: checked for names that nobody has, so that they take as long as others.
_NOBODY = b"$2b$%02d$......................WqQRMrcCMzO0Mo6Aqj9xAUlL6XQ9kvC"


class Verdict(Enum):
    RIGHT = "right"
    WRONG = "wrong"
    BUSY = "busy"


Answer = Callable[[Verdict], None]


class _Job:
    __slots__ = ("answers", "digest", "line", "name", "password")

    def __init__(self, name: str, password: bytes, line: bytes, digest: bytes, answer: Answer) -> None:
        self.name = name
        self.password = password
        self.line = line
        self.digest = digest
        self.answers = [answer]


class _Lane:
    """What one user at one address wants checked, with the memory of how often it was wrong."""

    __slots__ = ("failures", "failures_at", "known", "rests_until", "served_at", "user", "waiting")

    def __init__(self, user: str, *, known: bool) -> None:
        self.user = user
        self.known = known
        self.waiting: deque[_Job] = deque()
        self.failures = 0.0
        self.failures_at = 0.0
        self.rests_until = 0.0
        self.served_at = 0.0

    def recent_failures(self, now: float) -> float:
        return self.failures * math.exp2((self.failures_at - now) / _FORGET_SECONDS)

    def failed(self, now: float) -> None:
        self.failures = self.recent_failures(now) + 1
        self.failures_at = now
        self.rests_until = now + min(_LONGEST_REST, max(0.0, 0.05 * (self.failures - _FREE_FAILURES)))

    def rank(self, now: float) -> tuple[bool, float, float]:
        return (not self.known, round(self.recent_failures(now)), self.served_at)


class Verifier:
    """`verify` and `set_users` are for the loop's thread; answers come on it too."""

    def __init__(self, loop: Loop, *, check: Check | None = None) -> None:
        self._loop = loop
        self._check = check
        self._key = os.urandom(32)
        self._users: dict[str, bytes] = {}
        self._nobody = _NOBODY % 12
        self._right: dict[str, bytes] = {}
        self._wrong: OrderedDict[bytes, None] = OrderedDict()
        self._pending: dict[bytes, _Job] = {}
        self._lanes: dict[str, OrderedDict[str, _Lane]] = {}
        self._busy_users: set[str] = set()
        self._work: deque[tuple[_Lane, _Job]] = deque()
        self._work_waits = threading.Semaphore(0)
        self._threads = 0
        self._rest_timer: Timer | None = None

    def set_users(self, users: Mapping[str, bytes]) -> None:
        """A digest covers the user's line, so what was remembered of a changed line is found no more."""
        self._users = dict(users)
        self._right = {name: digest for name, digest in self._right.items() if name in self._users}
        gone = [
            name for name, lanes in self._lanes.items() if name and name not in users and not any(each.waiting for each in lanes.values())
        ]
        for name in gone:
            del self._lanes[name]
        self._nobody = _NOBODY % max((int(line[4:6]) for line in users.values()), default=12)

    def verify(self, name: str, password: bytes, address: str, answer: Answer) -> None:
        """Answer whether this is the user's password: at once when known, else when bcrypt has said so, or BUSY."""
        line = self._users.get(name)
        digest = self._digest(name, line or b"", password)
        if line is not None and self._right.get(name) == digest:
            answer(Verdict.RIGHT)
        elif not self._users or len(password) > _BCRYPT_BYTES or digest in self._wrong:
            answer(Verdict.WRONG)
        elif digest in self._pending:
            self._pending[digest].answers.append(answer)
        else:
            self._enqueue(_Job(name, password, line or self._nobody, digest, answer), address, known=line is not None)

    def _digest(self, name: str, line: bytes, password: bytes) -> bytes:
        parts = (name.encode(), line, password)
        return hashlib.blake2b(b"".join(len(part).to_bytes(4, "big") + part for part in parts), key=self._key, digest_size=16).digest()

    def _enqueue(self, job: _Job, address: str, *, known: bool) -> None:
        lane = self._lane(job.name, address) if known else self._lane("", "")
        if lane is None or len(lane.waiting) >= LANE_DEPTH:
            job.answers[0](Verdict.BUSY)
            return
        lane.waiting.append(job)
        self._pending[job.digest] = job
        self._dispatch()

    def _lane(self, user: str, address: str) -> _Lane | None:
        """None: all of this user's have somebody who waits. Whoever fills them shuts nobody else out."""
        lanes = self._lanes.setdefault(user, OrderedDict())
        if address not in lanes and len(lanes) >= LANES:
            idle = next((each for each, lane in lanes.items() if not lane.waiting), None)
            if idle is None:
                return None
            del lanes[idle]
        lane = lanes.setdefault(address, _Lane(user, known=bool(user)))
        lanes.move_to_end(address)
        return lane

    def _dispatch(self) -> None:
        now = time.monotonic()
        while len(self._busy_users) < THREADS:
            free = (lanes for user, lanes in self._lanes.items() if user not in self._busy_users)
            ready = [lane for lanes in free for lane in lanes.values() if lane.waiting]
            rested = [lane for lane in ready if lane.rests_until <= now]
            if not rested:
                self._wake_at(min((lane.rests_until for lane in ready), default=None), now)
                return
            lane = min(rested, key=lambda candidate: candidate.rank(now))
            if self._threads > len(self._busy_users) or self._start_thread():
                lane.served_at = now
                self._busy_users.add(lane.user)
                self._work.append((lane, lane.waiting.popleft()))
                self._work_waits.release()
            elif self._busy_users:
                return  # whose thread takes this one, too, when it is done
            else:
                self._answer(lane.waiting.popleft(), Verdict.BUSY)

    def _wake_at(self, when: float | None, now: float) -> None:
        if self._rest_timer is not None:
            self._rest_timer.cancel()
            self._rest_timer = None
        if when is not None:
            self._rest_timer = self._loop.later(when - now, self._dispatch)

    def _start_thread(self) -> bool:
        """False: the machine lets us have no more now."""
        try:
            threading.Thread(target=self._serve, name="bcrypt", daemon=True).start()
        except (RuntimeError, MemoryError):
            tell_failure()
            return False
        self._threads += 1
        return True

    def _serve(self) -> None:
        """A thread's life: bcrypt lets the others run while it computes."""
        while True:
            self._work_waits.acquire()
            lane, job = self._work.popleft()
            right = self._is_right(job)
            self._loop.post(lambda lane=lane, job=job, right=right: self._checked(lane, job, right))  # type: ignore[misc]

    def _is_right(self, job: _Job) -> bool | None:
        """None: nobody can say. Whatever it was, the thread goes on: everybody's logins hang on it."""
        try:
            if self._check is None:
                import bcrypt  # half a megabyte that a box without logins need not have

                self._check = bcrypt.checkpw
            return self._check(job.password, job.line)
        except BaseException:  # noqa: BLE001  # as above; a panic of bcrypt's is no Exception
            tell_failure()
            return None

    def _checked(self, lane: _Lane, job: _Job, right: bool | None) -> None:
        self._busy_users.discard(lane.user)
        if right is None:
            verdict = Verdict.BUSY
        # The line may have changed while bcrypt ran: what counts is the one in force now.
        elif right and self._users.get(job.name) == job.line:
            self._right[job.name] = job.digest
            verdict = Verdict.RIGHT
        else:
            verdict = Verdict.WRONG
            self._remember_wrong(job.digest)
            lane.failed(time.monotonic())
        self._answer(job, verdict)
        self._dispatch()

    def _answer(self, job: _Job, verdict: Verdict) -> None:
        self._pending.pop(job.digest, None)
        for answer in job.answers:
            answer(verdict)

    def _remember_wrong(self, digest: bytes) -> None:
        self._wrong[digest] = None
        if len(self._wrong) > WRONG_REMEMBERED:
            self._wrong.popitem(last=False)

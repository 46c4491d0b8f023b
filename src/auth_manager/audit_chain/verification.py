"""Walking the chain: which event is the first that was altered, removed or put in.

In pages, each a short statement, so that memory is flat and nobody waits: what is chained does not change,
but for the erasure of an account, its owner's acts on others included, which no hash covers.
"""

from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from auth_manager.audit_chain import chaining, checkpoints
from auth_manager.audit_chain.checkpoints import Checkpoint, CheckpointFault
from auth_manager.audit_chain.rows import COLUMNS, GENESIS, hash_event, hash_person
from auth_manager.database import Database, Row
from auth_manager.signing_keys import KeySet

PAGE = 2000
"""Events of one statement."""

FARTHEST_SHIFT = 100
"""Places by which events may have been renumbered for us to say so; beyond, the first is called altered."""

_FIRST = -(1 << 63)
"""The least bigint: whoever may write the table may write positions that no chain has."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The first place where the trail is not what it was.

    `event_id` is the event that was altered or put in; None where it is gone. `rewritten` is an event up to
    which the chain holds together, but is not the one that was signed.
    """

    kind: Literal["altered", "missing", "inserted", "rewritten"]
    position: int
    event_id: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What a walk found."""

    events: int
    """Of the chain, as far as it is sound."""
    unchained: int
    """Events that wait for the next run of maintenance: nothing holds them yet."""
    erased: int
    """Of the events: those whose address and user agent went with their account."""
    checkpoints: int
    last_checkpoint: datetime | None
    fault: Fault | None
    checkpoint_faults: Sequence[CheckpointFault]

    @property
    def is_sound(self) -> bool:
        """Whether nothing was found."""
        return self.fault is None and not self.checkpoint_faults


def verify(
    database: Database, key_set: KeySet, *, outside: Sequence[Checkpoint] = (), page: int = PAGE
) -> Verified:
    """Walk the whole chain, and compare it with every checkpoint.

    Args:
        database: whose trail.
        key_set: the keys that are published.
        outside: checkpoints that were kept elsewhere, of which the caller knows that they are ours.
        page: events of one statement.
    """
    kept = checkpoints.list_checkpoints(database)
    faults = checkpoints.find_faults(kept, key_set, outside)
    doubtful = {fault.position for fault in faults}
    sound = [checkpoint for checkpoint in kept if checkpoint.position not in doubtful]
    signed: dict[int, list[Checkpoint]] = {}  # each of them counts: none stands in for another of its place
    for checkpoint in (*sound, *outside):
        signed.setdefault(checkpoint.position, []).append(checkpoint)
    walk = _Walk(signed)
    fault = walk.along(_pages(database, page))
    return Verified(
        events=walk.position,
        unchained=chaining.count_waiting(database),
        erased=walk.erased,
        checkpoints=len(kept),
        last_checkpoint=kept[-1].taken_at if kept else None,
        fault=fault,
        checkpoint_faults=faults,
    )


class _Walk:
    """As far as it is sound: where we are, which hash the next event has to carry."""

    def __init__(self, signed: Mapping[int, Sequence[Checkpoint]]) -> None:
        self.position = 0
        self.erased = 0
        self._hash = GENESIS
        self._signed = signed
        self._passed: deque[tuple[int, str]] = deque(maxlen=FARTHEST_SHIFT)
        self._last_signed = 0

    def along(self, rows: Iterable[Row]) -> Fault | None:
        """Walk until something is wrong, or to the end."""
        for row, following in _with_next(rows):
            if fault := self._find_fault(row, following):
                return fault
        ahead = [position for position in self._signed if position > self.position]
        if not ahead:
            return None
        seen = self._signed[max(ahead)][0]
        reason = f"there were {seen.position} when the checkpoint of {_day(seen)} was taken"
        return Fault("missing", self.position + 1, None, reason)

    def _find_fault(self, row: Row, following: Row | None) -> Fault | None:
        """Look at the next event, and go on to it if it is sound."""
        fault = self._check_place(row, following) or self._check_content(row, following)
        if fault is None:
            self.position, self._hash = row["position"], bytes(row["hash"])
            self._passed.append((row["position"], row["id"]))
            fault = self._check_signed(row)
        return fault

    def _check_place(self, row: Row, following: Row | None) -> Fault | None:
        position = row["position"]
        if position <= self.position:
            return Fault("inserted", position, row["id"], "no event has this place")
        if position > self.position + 1:
            gone = _count(position - self.position - 1)
            return Fault("missing", self.position + 1, None, f"{gone} before {row['id']}")
        if following and following["position"] == position:
            genuine = _is_sound(row) and _bytes(row["previous_hash"]) == self._hash
            intruder = following if genuine else row
            return Fault("inserted", position, intruder["id"], "two events have this place")
        return None

    def _check_content(self, row: Row, following: Row | None) -> Fault | None:
        position, event_id = row["position"], row["id"]
        if not _is_sound(row):
            return self._explain(row, following)
        if _bytes(row["previous_hash"]) != self._hash:
            if not self._passed:
                return Fault("altered", position, event_id, "it says that an event came before it")
            before, before_id = self._passed[-1]
            return Fault("altered", before, before_id, "it is not the one that the next event follows")
        if not self._is_person(row):
            return Fault("altered", position, event_id, "its address or user agent is not what it was")
        return None

    def _check_signed(self, row: Row) -> Fault | None:
        for checkpoint in self._signed.get(self.position, ()):
            if checkpoint.hash != self._hash:
                day, first = _day(checkpoint), self._last_signed + 1
                reason = f"the checkpoint of {day} has another hash: look from {first} on"
                return Fault("rewritten", self.position, row["id"], reason)
        if self.position in self._signed:
            self._last_signed = self.position
        return None

    def _explain(self, row: Row, following: Row | None) -> Fault:
        """Tell what was done to an event whose content is not what its hash says."""
        position, event_id = row["position"], row["id"]
        shift = _find_shift(row)
        if shift is None:
            if following and _bytes(following["previous_hash"]) == self._hash:
                return Fault("inserted", position, event_id, "the next event follows the one before it")
            return Fault("altered", position, event_id, "its content is not what its hash says")
        if shift < 0:
            intruder = dict(self._passed).get(position + shift)
            return Fault("inserted", position + shift, intruder, f"{event_id} was there, later ones moved")
        if following is None or _is_sound(following, shift=shift):
            return Fault("missing", position, None, f"{_count(shift)} before {event_id}, later ones moved")
        return Fault("altered", position, event_id, f"its place was {position + shift}")

    def _is_person(self, row: Row) -> bool:
        """Tell whether address and user agent are what they were, or went with the account."""
        salt, address, user_agent = row["personal_salt"], row["address"], row["user_agent"]
        if hash_person(_bytes(salt), address, user_agent) == _bytes(row["personal_hash"]):
            return True
        if row["may_be_erased"]:
            self.erased += 1
            return True
        return False


def _pages(database: Database, page: int) -> Generator[Row]:
    """Read the chain in its order; by their ids events that have one place, which only an index refuses."""
    after: tuple[int, str] = (_FIRST, "00000000-0000-0000-0000-000000000000")
    while True:
        with database.one_trip() as connection:
            rows = connection.fetch_all(
                f"""
                SELECT {COLUMNS}, address IS NULL AND user_agent = '' AND personal_salt IS NULL
                       -- Not by what is in accounts: the end of one is an event, held like all others.
                       AND EXISTS (SELECT FROM audit_events AS last
                                   WHERE last.account_id IN (audit_events.account_id, audit_events.actor_id)
                                     AND last.event = 'account_deleted') AS may_be_erased
                FROM audit_events
                WHERE position >= %(position)s AND (position, audit_events.id) > (%(position)s, %(id)s::uuid)
                ORDER BY position, audit_events.id LIMIT %(limit)s
                """,  # noqa: S608 -- our own select list
                {"position": after[0], "id": after[1], "limit": page},
            )
        yield from rows
        if len(rows) < page:
            return
        after = rows[-1]["position"], rows[-1]["id"]


def _with_next(rows: Iterable[Row]) -> Generator[tuple[Row, Row | None]]:
    before: Row | None = None
    for row in rows:
        if before is not None:
            yield before, row
        before = row
    if before is not None:
        yield before, None


def _is_sound(row: Row, *, shift: int = 0) -> bool:
    """Tell whether an event's hash is that of its content, at its place or at one further on."""
    previous, person = _bytes(row["previous_hash"]), _bytes(row["personal_hash"])
    if previous is None or person is None:
        return False
    own = hash_event(row, position=row["position"] + shift, previous_hash=previous, personal_hash=person)
    return own == _bytes(row["hash"])


def _find_shift(row: Row) -> int | None:
    for distance in range(1, FARTHEST_SHIFT + 1):
        for shift in (distance, -distance):
            if _is_sound(row, shift=shift):
                return shift
    return None


def _bytes(value: object) -> bytes | None:
    return bytes(value) if isinstance(value, memoryview | bytes) else None


def _count(events: int) -> str:
    return "1 event" if events == 1 else f"{events} events"


def _day(checkpoint: Checkpoint) -> str:
    return checkpoint.taken_at.date().isoformat()

"""The updates of globals that the functions of one job make, in the fewest bytes that say the same. Pure.

::

    by stage    pre {"seen": 1}    hook {"total": +{"a": 2}}    post {"seen": 2}
    as one                                                           {"seen": 2, "total": +{"a": 2}}

Each update that travels costs the dispatcher, the Manager and every replica a commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rigger_mp.encoding import Encoded, dump_encoded
from rigger_mp.namespace import joined_commits

Updates = dict[str, Encoded]
Fields = tuple[bytes, bytes, tuple[Any, ...] | None, float]
"""The fields of a :class:`~rigger_mp.engine.messages.Result`, ``b""`` for its updates of globals."""
Returned = tuple[Fields, Updates]
"""What a function returned."""


def has_failed(returned: Iterable[Returned]) -> bool:
    """Tell whether one of these functions has failed."""
    for fields, _ in returned:  # noqa: SIM110 - any() of a generator takes three times as long
        if fields[2] is not None:
            return True
    return False


def combined_updates(stages: Iterable[Updates]) -> Updates | None:
    """Return one update that does what these do one after another, ``None`` if only they can.

    An update that merges into what a name has is merged into whatever that is by then: it cannot be merged into an
    earlier update alone.
    """
    joined = joined_commits(stages)
    return joined[0] if len(joined) == 1 else None


def encode_results(stages: Sequence[Sequence[Returned]], merged: Sequence[Updates]) -> tuple[tuple[Fields, ...], ...]:
    """Return the fields of a job's :class:`~rigger_mp.engine.messages.Result`\\ s, by stage.

    Args:
        stages: what its functions did.
        merged: what is merged into the globals, by stage: of all stages, or of all but the last, which failed.
    """
    whole = combined_updates(merged) if len(merged) > 1 else None
    if whole is None:
        return tuple([tuple([_with(updates, fields) for fields, updates in stage]) for stage in stages])
    results = [(stage[0][0],) if len(stage) == 1 else tuple([fields for fields, _ in stage]) for stage in stages]
    if whole:
        *others, last = results[len(merged) - 1]
        results[len(merged) - 1] = (*others, _with(whole, last))
    return tuple(results)


def without_locals(results: tuple[tuple[Fields, ...], ...]) -> tuple[tuple[Fields, ...], ...]:
    """Return results without their local updates, which nobody wants of an event that nobody waits for."""
    for stage in results:
        for fields in stage:
            if fields[0]:
                return tuple([tuple([(b"", *fields[1:]) for fields in stage]) for stage in results])
    return results


def _with(updates: Updates, fields: Fields) -> Fields:
    return (fields[0], dump_encoded(updates), fields[2], fields[3]) if updates else fields

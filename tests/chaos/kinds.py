"""The kinds of events that the load consists of, and what may come of each. Pure data.

An event of every kind leaves one line in the ledger for each run of each of its functions, and its success
adds one key and one list item to the globals for each function: ``chaos → function → keys, order``.
"""

from __future__ import annotations

from dataclasses import dataclass

OK = "ok"
WORKER_LOST, TIME_LIMIT, ENGINE_LOST, HOOK_ERROR = "WorkerLost", "TimeLimitExceeded", "EngineLost", "HookError"
QUARANTINED = "EventQuarantined"

TIME_LIMIT_SECONDS = 0.15
"""``time_limit`` of the hooks that have one."""
RETRIES = 2
"""``max_retries`` of the hooks that have one."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of event.

    Attributes:
        name: also the hook's name.
        weight: how often it is drawn, relative to the others.
        functions: what runs while the event lasts; each run is in the ledger.
        ends: the outcomes that the event itself brings about; a kill may bring a loss instead.
        earlier: those of ``functions`` in a stage before the last: committed even if the event then fails.
        background: what runs in the archive.
        ordered: events run one at a time, in the order fired.
        stateful: the functions of stateful instances, which see the events in the order fired.
        crashes: the event ends its own process.
        limited: the hook has a time limit.
        retries: how often the event is run again.
        watched: somebody waits for the outcome; else only losses are reported, by hook.
        local: its arguments, its answer or the report of its loss need the engine itself, not a client.
    """

    name: str
    weight: float
    functions: tuple[str, ...]
    ends: tuple[str, ...] = (OK,)
    earlier: tuple[str, ...] = ()
    background: tuple[str, ...] = ()
    ordered: bool = False
    stateful: tuple[str, ...] = ()
    crashes: bool = False
    limited: bool = False
    retries: int = 0
    watched: bool = True
    local: bool = False


def _alone(name: str, weight: float, *ends: str, **rest: object) -> Kind:
    return Kind(name, weight, (name,), ends or (OK,), **rest)  # type: ignore[arg-type]


_STAGES = ("pre", "first", "second", "own", "post")


def _staged(name: str, weight: int, **rest: bool) -> Kind:
    functions = tuple(f"{name}_{stage}" for stage in _STAGES)
    return Kind(name, weight, functions, earlier=functions[:-1], stateful=(f"{name}_own",), **rest)


ALL = (
    _alone("plain", 30),
    _alone("count", 15, ordered=True, stateful=("count",)),
    _alone("count_anywhere", 15, ordered=True),
    _alone("keep", 15, stateful=("keep",)),
    _alone("slow", 8),
    _alone("spin", 4),
    _alone("swap", 5),
    _alone("peek", 10),
    _staged("staged", 6),
    _staged("marched", 6, ordered=True),
    Kind("filed", 10, ("filed",), background=("filed_bg", "filed_too"), stateful=("filed_bg", "filed_too")),
    _alone("filed_only", 5, watched=False, local=True),
    _alone("family", 8, local=True),
    _alone("child", 0, watched=False),
    _alone("forgotten", 8, watched=False, local=True),
    _alone("volley", 3, ordered=True, stateful=("volley",), watched=False, local=True),
    _alone("large", 3, local=True),
    _alone("retried", 2, OK, QUARANTINED, crashes=True, retries=RETRIES),
    _alone("leave", 2, HOOK_ERROR),
    _alone("vanish", 1, WORKER_LOST, crashes=True),
    _alone("segfault", 0.5, WORKER_LOST, crashes=True),
    _alone("hang", 0.2, TIME_LIMIT, limited=True),
    _alone("nearly", 0.8, OK, TIME_LIMIT, limited=True),
    _alone("leak", 2),
    _alone("garbage", 3, HOOK_ERROR),
    _alone("unpicklable", 2, HOOK_ERROR),
    _alone("stubborn", 2, HOOK_ERROR),
    _alone("poison", 2, local=True),
    _alone("brood", 2),
    _alone("twins", 2),
)

BY_NAME = {kind.name: kind for kind in ALL}

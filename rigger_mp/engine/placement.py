"""Which slot each instance lives in. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from rigger_mp.engine.blueprint import InstancePlan

ANY = -1
"""The home of a function that any worker may run."""
ARCHIVE = -2
"""The home of a function that runs in the archive process; that of a later generation is below it."""


def is_archive(home: int) -> bool:
    """Tell whether a slot is an archive process's."""
    return home <= ARCHIVE


class Placement(NamedTuple):
    """Where each instance lives.

    Attributes:
        homes: by ident, in the order of the configuration.
        dedicated: the slots of a single instance.
        slots: the numbers of all slots but the archive's.
        archive: the number of the archive's slot.
    """

    homes: Mapping[str, int]
    dedicated: frozenset[int]
    slots: range
    archive: int

    @property
    def shared(self) -> frozenset[int]:
        """The slots that take tasks that any worker may run."""
        return frozenset(self.slots) - self.dedicated

    def living_in(self, number: int) -> list[str]:
        """Return the instances that a slot has a copy of; of the archive's, those that live nowhere else."""
        homes = (number, ANY) if number in self.shared else (number,)
        return [ident for ident, home in self.homes.items() if home in homes]


def place(instances: Iterable[InstancePlan], workers: int, first: int = 0, archive: int = ARCHIVE) -> Placement:
    """Spread stateful instances over the workers; give each dedicated one a slot beyond them.

    Args:
        instances: all that are enabled.
        workers: how many slots are shared.
        first: the number of the first slot.
        archive: the number of the archive's slot.
    """
    homes: dict[str, int] = {}
    dedicated: set[int] = set()
    stateful = 0
    for instance in instances:
        if instance.background:
            homes[instance.ident] = archive
        elif instance.dedicated:
            homes[instance.ident] = first + workers + len(dedicated)
            dedicated.add(homes[instance.ident])
        elif instance.stateless:
            homes[instance.ident] = ANY
        else:
            homes[instance.ident] = first + stateful % workers
            stateful += 1
    slots = range(first, first + workers + len(dedicated))
    return Placement(homes, frozenset(dedicated), slots, archive)

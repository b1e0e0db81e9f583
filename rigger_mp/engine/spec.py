"""What a host needs to make a plugin instance: where its class comes from and how it is configured."""

# Not from __future__ import annotations: typing compiles each annotation of a named tuple that is a string.
from typing import Any, Literal, NamedTuple


class PluginSource(NamedTuple):
    """Where a host finds a plugin class.

    Attributes:
        kind: ``"pickled"``: ``payload`` is the class, cloudpickled; ``"module"``: ``location`` is
            ``package.module:Class``; ``"file"``: ``location`` is the path of a Python file, ``attribute``
            the class's name in it, ``module`` the name under which the file is put into ``sys.modules``.
        location: see ``kind``.
        attribute: see ``kind``.
        module: see ``kind``.
        payload: see ``kind``.
    """

    kind: Literal["pickled", "module", "file"]
    location: str = ""
    attribute: str = ""
    module: str = ""
    payload: bytes = b""


class InstanceSpec(NamedTuple):
    """One entry under ``plugins:``, with everything decided that needs the class.

    Attributes:
        ident: the entry's name, unique.
        plugin: the plugin's name as the entry gives it.
        source: where a host finds the class.
        data: the entry itself, given to the constructor.
        stateless: any worker may run it; every worker has a copy.
        background: its hooks run in the archive process.
        dedicated: it has a worker of its own.
        time_limit: seconds that one of its functions may run, or ``None``.
        max_retries: how often an event is run again whose worker died in this instance.
    """

    ident: str
    plugin: str
    source: PluginSource
    data: dict[str, Any]
    stateless: bool = False
    background: bool = False
    dedicated: bool = False
    time_limit: float | None = None
    max_retries: int = 0

"""A directory for each test."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

LONGEST_NAME = 100
_UNUSUAL = re.compile(r"[^\w.,=+@\-\[\]]", re.ASCII)


class Artifacts:
    """The directories of tests below one directory.

    Args:
        root: where they are.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, node_id: str) -> Path:
        """Return where the directory of a test is, or would be."""
        return self.root.joinpath(*directory_names(node_id))

    def directory(self, node_id: str) -> Path:
        """Return the directory of a test, which is made if it is missing.

        Raises:
            OSError: it cannot be made.
        """
        path = self.path(node_id)
        path.mkdir(parents=True, exist_ok=True)
        return path


def directory_names(node_id: str) -> list[str]:
    """Return the names of the directories that lead to a test's, valid and different for each node id.

    >>> directory_names("tests/test_a.py::TestB::test_c[1]")
    ['tests', 'test_a.py', 'TestB', 'test_c[1]']
    """
    file, _, rest = node_id.partition("::")
    inner, bracket, parameters = rest.partition("[")
    # Parameters may contain anything, slashes and colons included.
    parts = [*file.split("/"), *inner.split("::")]
    parts[-1] += bracket + parameters
    return [_directory_name(part) for part in parts if part]


def _directory_name(part: str) -> str:
    name = _UNUSUAL.sub("_", part)
    if name == part and len(name) <= LONGEST_NAME and part.strip("."):
        return name
    mark = hashlib.sha256(part.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{name[:LONGEST_NAME].strip('.')}-{mark}"

"""SHA-256 of a file, and how far LZMA compresses it, in one pass and constant memory."""

from __future__ import annotations

import hashlib
import lzma
import os
from pathlib import Path
from typing import Any, NamedTuple

from rigger_mp import RiggerBasePlugin

BLOCK = 1 << 20
"""Bytes read at once."""

DEFAULT_PRESET = 6
"""LZMA's own default: the higher presets only enlarge the window, beyond what one source file fills."""

PRESETS = range(10)


class Checksum(RiggerBasePlugin):
    """Measures the file of each ``audit_file`` event. Stateless: files are measured on all cores at once.

    Its configuration takes ``preset``: LZMA's, 0 (fast) to 9 (small); default 6.
    """

    stateless = True

    def plugin_initialize(self) -> None:
        """Bind ``audit_file``.

        Raises:
            ValueError: ``preset`` is not a whole number from 0 to 9.
        """
        self.preset = self.data.get("preset", DEFAULT_PRESET)
        if type(self.preset) is not int or self.preset not in PRESETS:
            raise ValueError(f"{self.ident}: preset: {self.preset!r}, expected a whole number from 0 to 9")
        self.register_plugin_hook("audit_file")

    def audit_file(self, path: str | os.PathLike[str]) -> tuple[None, dict[str, Any]]:
        """Measure a file.

        Returns:
            The global update ``{"files": {path: {"checksum": {"sha256": hexadecimal str, "bytes": int,
            "compressed": int}}}}``, sizes in bytes.

        Raises:
            OSError: the file cannot be read.
        """
        name = os.fsdecode(path)
        return None, {"files": {name: {"checksum": measure(name, self.preset)._asdict()}}}


class Measured(NamedTuple):
    """A file's content in numbers: digest, size and compressed size in bytes."""

    sha256: str
    bytes: int
    compressed: int


def measure(path: str | os.PathLike[str], preset: int = DEFAULT_PRESET) -> Measured:
    """Read a file once; return its digest and sizes.

    Raises:
        OSError: the file cannot be read.
    """
    digest, compressor = hashlib.sha256(), lzma.LZMACompressor(preset=preset)
    size = compressed = 0
    with Path(path).open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            size += len(block)
            compressed += len(compressor.compress(block))
    return Measured(digest.hexdigest(), size, compressed + len(compressor.flush()))

"""Text that any process can read: a ``str``, not a class derived from it, which no message between processes can hold.

Members of string enumerations, and strings that a template engine has marked as safe, are such.
"""

from __future__ import annotations


def plain_text(value: object) -> str:
    """Return ``str(value)``."""
    return str.__str__(str(value))


def plain_name(name: object, what: str) -> str:
    """Return a name, of which ``what`` says what it names; a string enumeration's member is the string.

    Raises:
        TypeError: it is no string.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of {what} must be a string, not {type(name).__name__} ({name!r})")
    return str.__str__(name)

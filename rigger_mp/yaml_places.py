"""YAML with the place of every key and value, for error messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

MOST_NODES = 100_000
"""Nodes, aliases expanded, that a file may have: far more than any configuration, far fewer than a bomb's."""
MERGE = "tag:yaml.org,2002:merge"
TEXTS = frozenset({"tag:yaml.org,2002:str", "tag:yaml.org,2002:value", MERGE})
"""The tags of scalars that, as keys, are their own text."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Line and column, both from 1."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.line}:{self.column}"


class YamlProblem(Exception):
    """Raised when a text is no YAML that can be loaded.

    Attributes:
        place: where.
    """

    def __init__(self, place: Place, text: str) -> None:
        super().__init__(text)
        self.place = place


@dataclass(slots=True)
class Places:
    """Where the keys and values of a document stand, by their path of keys."""

    keys: dict[tuple[str, ...], Place] = field(default_factory=dict)
    values: dict[tuple[str, ...], Place] = field(default_factory=dict)

    def find(self, path: tuple[str, ...], at_key: bool) -> Place:
        """Return the place of a path, or of the nearest one above it that has a place."""
        while path:
            place = (self.keys if at_key else self.values).get(path) or self.keys.get(path)
            if place is not None:
                return place
            path = path[:-1]
        return self.values.get((), Place(1, 1))


def load_with_places(text: str) -> tuple[Any, Places, list[tuple[tuple[str, ...], str]]]:
    """Load a YAML document safely.

    Returns:
        The value; the places; and the problems of its form that do not keep it from being loaded
        (keys given twice), by path.

    Raises:
        YamlProblem: it is not YAML, has tags that are not safe, or its aliases are circular or explode.
    """
    loader = _Loader("")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, Places(), []
        walk = _Walk(loader)
        walk.visit(node, ())
        return loader.construct_document(node), walk.places, walk.problems
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = _place(mark) if mark is not None else Place(1, 1)
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise YamlProblem(place, f"{what}, expected valid YAML") from None
    except yaml.reader.ReaderError as error:
        place = _place_of_character(text, error.position)
        raise YamlProblem(place, f"character #x{ord(text[error.position]):04x}, expected valid YAML") from None
    except RecursionError:
        raise YamlProblem(Place(1, 1), "nested too deeply, expected valid YAML") from None
    finally:
        loader.dispose()


def _place(mark: Any) -> Place:
    return Place(mark.line + 1, mark.column + 1)


def _place_of_character(text: str, position: int) -> Place:
    before = text[:position]
    return Place(before.count("\n") + 1, position - before.rfind("\n"))


class _Loader(yaml.SafeLoader):
    """Tells the place of a scalar that is not what its tag, or its look, says: ``2024-13-45``, ``!!bool x``."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError):
            text, kind = str(node.value)[:40], node.tag.rpartition(":")[2]
            what = f"{text!r} is no {kind}, expected valid YAML (in quotes, if it is a string)"
            raise YamlProblem(_place(node.start_mark), what) from None


class _Walk:
    """Visits every node once for each path that leads to it."""

    def __init__(self, loader: _Loader) -> None:
        self._loader = loader
        self.places = Places()
        self.problems: list[tuple[tuple[str, ...], str]] = []
        self._above: set[int] = set()
        self._visited = 0

    def visit(self, node: yaml.Node, path: tuple[str, ...]) -> None:
        """Note the places of a node and of everything in it."""
        self._visited += 1
        if id(node) in self._above:
            raise YamlProblem(_place(node.start_mark), "an alias refers to what contains it, expected no circle")
        if self._visited > MOST_NODES:
            raise YamlProblem(_place(node.start_mark), f"more than {MOST_NODES} nodes, expected a configuration")
        self.places.values[path] = _place(node.start_mark)
        self._above.add(id(node))
        if isinstance(node, yaml.MappingNode):
            self._visit_mapping(node, path)
        elif isinstance(node, yaml.SequenceNode):
            for number, item in enumerate(node.value):
                self.visit(item, (*path, str(number)))
        self._above.discard(id(node))

    def _visit_mapping(self, node: yaml.MappingNode, path: tuple[str, ...]) -> None:
        seen: dict[Any, Place] = {}
        for key, value in node.value:
            made = self._made(key)
            name = str(made)
            inner, place = (*path, name), _place(key.start_mark)
            first = seen.setdefault(made, place)
            if first is not place and key.tag != MERGE:
                twice = (*path, name, "")
                self.places.keys[twice] = place
                self.problems.append((twice, f"the key {name!r} stands twice (first at {first}), expected once"))
            else:
                self.places.keys[inner] = place
            self.visit(value, inner)

    def _made(self, key: yaml.Node) -> Any:
        """Return the key itself, since unlike texts may mean the same one: ``1`` and ``0x1``."""
        if not isinstance(key, yaml.ScalarNode):
            return id(key)
        return key.value if key.tag in TEXTS else self._loader.construct_object(key)

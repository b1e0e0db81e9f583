"""McCabe's cyclomatic complexity of every function in a Python file.

T. J. McCabe, "A Complexity Measure", IEEE Transactions on Software Engineering SE-2(4), 1976: the complexity
of a single-entry, single-exit program is the number of its predicates plus one, and a compound predicate
counts once for each of its conditions. In Python's terms a function starts at 1, and adds

====================================  =====================================================
``if``, ``elif``, ``x if c else y``   1
``for``, ``async for``, ``while``     1; their ``else`` decides nothing and adds 0
``except``, ``except*``               1 for each; ``else`` and ``finally`` add 0
``assert``                            1
``and``, ``or``                       1 for each operator
comprehensions                        1 for each ``for``, 1 for each ``if``
``case``                              1, and 1 for its guard; a catch-all pattern adds 0
====================================  =====================================================

Functions, methods and lambdas are counted on their own: what one decides is not added to the function around
it. Decorators, defaults and annotations run in the scope around the function and count there, and so
does the body of a class. What a module decides outside of functions belongs to none and is not counted.
"""

from __future__ import annotations

import ast
import os
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from rigger_mp import RiggerBasePlugin
from rigger_mp.errors import PluginError

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
DECISIONS = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.Assert)


class FunctionComplexity(NamedTuple):
    """One function.

    Attributes:
        name: its qualified name, as ``__qualname__`` has it.
        line: the line of its ``def`` or ``lambda``, from 1.
        complexity: McCabe's number, 1 or more.
    """

    name: str
    line: int
    complexity: int


class Complexity(RiggerBasePlugin):
    """Measures the file of each ``audit_file`` event. Stateless: files are measured on all cores at once."""

    stateless = True

    def plugin_initialize(self) -> None:
        """Bind ``audit_file``, and ``audit_failed``, which keeps the reason of a failure for the report."""
        self.register_plugin_hook("audit_file")
        self.register_plugin_hook("audit_failed")

    def audit_file(self, path: str | os.PathLike[str]) -> tuple[None, dict[str, Any]]:
        """Measure a Python file.

        Returns:
            The global update ``{"files": {path: {"complexity": {"functions": ((name, line, complexity), ...),
            "max": int, "total": int}}}}``; ``max`` and ``total`` are 0 in a file without functions.

        Raises:
            SyntaxError: the file is not Python, or cannot be decoded; it names the file.
            OSError: the file cannot be read.
        """
        name = os.fsdecode(path)
        try:
            functions = measure(Path(name).read_bytes(), name)
        except (SyntaxError, OSError) as error:
            self._keep_reason(name, error)
            raise
        numbers = [function.complexity for function in functions]
        # A tuple, because lists are appended to: a file audited twice has its functions once.
        rows = tuple(tuple(function) for function in functions)
        entry = {"functions": rows, "max": max(numbers, default=0), "total": sum(numbers)}
        return None, {"files": {name: {"complexity": entry}}}

    def audit_failed(self, path: str, error: str) -> tuple[None, dict[str, Any]]:
        """Keep why a file was not measured: the global update ``{"files": {path: {"error": error}}}``."""
        return None, {"files": {path: {"error": error}}}

    def _keep_reason(self, name: str, error: Exception) -> None:
        # A failed event's own updates are discarded, so the reason travels in an event of its own.
        with suppress(PluginError):  # outside an engine nobody asks for it
            self.fire_hook("audit_failed", path=name, error=f"{type(error).__name__}: {error}")


def measure(source: bytes | str, filename: str = "<source>") -> list[FunctionComplexity]:
    """Return the complexity of each function of a module, in order of lines.

    Args:
        source: bytes are decoded as their PEP 263 comment or byte-order mark says, else as UTF-8.
        filename: what errors call the source.

    Raises:
        SyntaxError: the source is not Python, or cannot be decoded.
    """
    found: list[FunctionComplexity] = []
    pending: list[tuple[str, FunctionNode]] = []
    _walk(_parse(source, filename), "", pending)
    while pending:
        name, function = pending.pop()
        body = function.body if isinstance(function.body, list) else [function.body]
        decisions = sum(_walk(node, f"{name}.<locals>.", pending) for node in body)
        found.append(FunctionComplexity(name, function.lineno, 1 + decisions))
    return sorted(found, key=lambda row: (row.line, row.name))


def _parse(source: bytes | str, filename: str) -> ast.Module:
    with warnings.catch_warnings():
        # Warnings about the audited code are not about this program.
        warnings.simplefilter("ignore")
        try:
            return ast.parse(source, filename)
        except SyntaxError as error:
            if error.filename is None:
                error.filename = filename
            raise
        except (ValueError, RecursionError) as error:  # null bytes before Python 3.12; nesting too deep
            raise SyntaxError(str(error), (filename, None, None, None)) from error


def _walk(root: ast.AST, prefix: str, functions: list[tuple[str, FunctionNode]]) -> int:
    """Count the decisions below a node; append the functions met, whose bodies are left alone.

    Iterative, because real code nests deeper than Python's stack.
    """
    decisions = 0
    pending = [(prefix, root)]
    while pending:
        scope, node = pending.pop()
        if isinstance(node, FUNCTIONS):
            name = "<lambda>" if isinstance(node, ast.Lambda) else node.name
            functions.append((scope + name, node))
            pending += [(scope, child) for child in _outside(node)]
            continue
        decisions += _decisions(node)
        inner = f"{scope}{node.name}." if isinstance(node, ast.ClassDef) else scope
        pending += [(inner, child) for child in ast.iter_child_nodes(node)]
    return decisions


def _outside(function: FunctionNode) -> Iterator[ast.AST]:
    """Yield what of a function runs in the scope around it."""
    yield function.args
    if not isinstance(function, ast.Lambda):
        yield from function.decorator_list
        if function.returns is not None:
            yield function.returns


def _decisions(node: ast.AST) -> int:
    if isinstance(node, DECISIONS):
        return 1
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    if isinstance(node, ast.match_case):
        return int(not _matches_all(node.pattern)) + int(node.guard is not None)
    return 0


def _matches_all(pattern: ast.pattern) -> bool:
    # ``case x:`` is a MatchAs without an inner pattern, ``case _:`` one that has no name either.
    while isinstance(pattern, ast.MatchAs) and pattern.pattern is not None:
        pattern = pattern.pattern
    if isinstance(pattern, ast.MatchOr):
        return _matches_all(pattern.patterns[-1])
    return isinstance(pattern, ast.MatchAs)

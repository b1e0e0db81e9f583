"""``rigger-mp check``: is a configuration right, and what would run for which hook? Starts no process."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rigger_mp.cli.inputs import source_from_config
from rigger_mp.config import Settings, read_yaml
from rigger_mp.discovery import find_instances
from rigger_mp.engine.callables import describe_callable
from rigger_mp.engine.spec import InstanceSpec
from rigger_mp.plugin_loading import load_class

_DESCRIPTION = """\
Validate a configuration, then list its instances and, for each hook, the functions that it runs, what each takes,
and whether events of the hook are ordered or concurrent. Plugins are imported and instances made in this process;
no engine is started and no hook is run.
"""
_EPILOG = "exit status: 0 right, 1 an instance cannot be made, 2 the configuration is wrong"


@dataclass(frozen=True, slots=True)
class FunctionReport:
    """One function bound to a hook."""

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    takes_all: bool
    background: bool
    concurrent: bool


@dataclass(slots=True)
class HookReport:
    """One hook: its functions, and whether its events overlap."""

    functions: list[FunctionReport] = field(default_factory=list)
    concurrent: bool = True
    kept_ordered_by: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """Everything that ``check`` tells."""

    warnings: list[str]
    problems: list[str]
    instances: list[dict[str, str]] = field(default_factory=list)
    hooks: dict[str, HookReport] = field(default_factory=dict)


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "check",
        help="validate a configuration and list what it would run",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", metavar="CONFIG", help="the configuration, a YAML file")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=check)


def check(options: argparse.Namespace) -> int:
    """Carry out the subcommand and return its exit status."""
    with redirect_stdout(sys.stderr):  # what a plugin prints is no part of the report
        report = make_report(Path(options.config))
    if options.json:
        print(json.dumps(asdict(report), indent=2))
    else:
        print(render(report))
        for line in (*report.warnings, *report.problems):
            print(line, file=sys.stderr)
    return 1 if report.problems else 0


def make_report(path: Path) -> Report:
    """Return everything that can be told of a configuration.

    Raises:
        ConfigError: it is wrong.
    """
    loaded = read_yaml(path)
    settings = Settings.from_config(loaded.config)
    source_from_config(loaded.config)
    found = find_instances(loaded.config, {}, path.parent)
    report = Report(list(loaded.warnings), list(found.problems))
    for spec in found.instances:
        _add_instance(report, spec)
    for name, hook in report.hooks.items():
        _settle_order(hook, settings.hooks.get(name, {}).get("concurrent"))
    return report


def _add_instance(report: Report, spec: InstanceSpec) -> None:
    try:
        instance = _make(spec)
        functions = [(event, _describe(spec, bound)) for event, bound in instance.callbacks.items()]
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        report.problems.append(f"instance [{spec.ident}] cannot be made: {type(error).__name__}: {error}")
        return
    report.instances.append({"ident": spec.ident, "plugin": spec.plugin, "lives": _home(spec)})
    for event, function in functions:
        report.hooks.setdefault(event, HookReport()).functions.append(function)


def _make(spec: InstanceSpec) -> Any:
    plugin = load_class(spec.source)
    return plugin(spec.ident, spec.data, None) if _takes_link(plugin) else plugin(spec.ident, spec.data)


def _takes_link(plugin: Any) -> bool:
    return describe_callable(plugin).takes_at_least(3)


def _home(spec: InstanceSpec) -> str:
    if spec.background:
        return "archive"
    if spec.dedicated:
        return "a worker of its own"
    return "any worker" if spec.stateless else "one worker"


def _describe(spec: InstanceSpec, bound: Any) -> FunctionReport:
    called = describe_callable(bound.func, owner=spec.ident)
    return FunctionReport(
        called.label,
        tuple(name for name, required in called.parameters if required),
        tuple(name for name, required in called.parameters if not required),
        called.takes_all,
        spec.background or bound.bg,
        spec.stateless or bound.concurrent,
    )


def _settle_order(hook: HookReport, override: bool | None) -> None:
    ordered = [function.name for function in hook.functions if not (function.concurrent or function.background)]
    hook.concurrent = not ordered if override is None else override
    hook.kept_ordered_by = [] if hook.concurrent else ordered


def render(report: Report) -> str:
    """Return the report as text."""
    lines = ["instances:"]
    lines += [f"  {row['ident']}: {row['plugin']} ({row['lives']})" for row in report.instances] or ["  none"]
    lines.append("hooks:")
    for name, hook in report.hooks.items():
        lines.append(f"  {name}: {_order(hook)}")
        lines += [f"    {_signature(function)}" for function in hook.functions]
    if not report.hooks:
        lines.append("  none")
    return "\n".join(lines)


def _order(hook: HookReport) -> str:
    if hook.concurrent:
        return "concurrent"
    reason = ", ".join(hook.kept_ordered_by) or "the configuration"
    return f"ordered, because of {reason}"


def _signature(function: FunctionReport) -> str:
    parameters = [*function.required, *(f"{name}=..." for name in function.optional)]
    if function.takes_all:
        parameters.append("**locals")
    return f"{function.name}({', '.join(parameters)})" + (" in the background" if function.background else "")



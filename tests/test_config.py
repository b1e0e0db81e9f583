"""Configurations: every mistake at once, each with its place; defaults."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rigger_mp.config import Settings, check_mapping, read_yaml
from rigger_mp.config_keys import KEYS, MOST_SECONDS, SERVER_KEYS, usable_cpus
from rigger_mp.errors import ConfigError
from rigger_mp.net.limits import PREFIX, Limits


def write(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "rigger.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def errors_of(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    return [line.removeprefix(f"{path}:") for line in str(caught.value).splitlines()]


def test_the_pages_configuration(tmp_path: Path) -> None:
    text = """
squash_exceptions: True
threaded: True
server_address: 127.0.0.1
server_port: 21212
server_enabled: True
plugins:
    test:
        enabled: True
        plugin: test
"""
    loaded = read_yaml(write(tmp_path, text))
    assert loaded.warnings == ()
    settings = Settings.from_config(loaded.config)
    assert settings.squash_exceptions is True
    assert settings.threaded is True
    assert (settings.server_address, settings.server_port) == ("127.0.0.1", 21212)
    assert settings.server_enabled is True
    assert loaded.config["plugins"] == {"test": {"enabled": True, "plugin": "test"}}


def test_all_mistakes_at_once_each_at_its_place(tmp_path: Path) -> None:
    text = """\
workers: 0
threaded: maybe
server_port: 70000
list_merge: append
time_limit: 0
plugins:
  a: {enabled: true}
  b:
    plugin: 5
    time_limit: soon
  c: no
  7: {plugin: x}
hooks:
  h: {concurrent: 1}
plugin_path: [dir, 5]
workers: 3
"""
    assert errors_of(write(tmp_path, text)) == [
        "2:11: threaded is 'maybe', expected true or false",
        "3:14: server_port is 70000, expected a whole number at least 0, at most 65535",
        "4:13: list_merge is 'append', expected 'extend' or 'replace'",
        "5:13: time_limit is 0, expected a number more than 0, at most 1000000000 (or null)",
        "7:3: 'plugin' is missing, expected name, package.module:Class, entry point, or file in plugin_path",
        "9:13: plugin is 5, expected a string",
        "10:17: time_limit is 'soon', expected a number more than 0, at most 1000000000 (or null)",
        "11:3: 'c' is False, expected a mapping of its keys",
        "12:3: the name is 7, expected a string",
        "14:19: concurrent is 1, expected true or false (or null)",
        "15:20: item 2 of plugin_path is 5, expected a string",
        "16:1: the key 'workers' stands twice (first at 1:1), expected once",
    ]


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a: [1, 2", "1:9", "valid YAML"),
        ("a: 1\n b: 2\n", "2:3", "valid YAML"),
        ("a: !!python/object/apply:os.system [ls]", "1:4", "valid YAML"),
        ("- a\n- b\n", "1:1", "a list, expected a mapping"),
        ("just text", "1:1", "expected a mapping"),
        ("a: &x [*x]", "1:4", "circle"),
        ("b: 1\na: 2024-13-45", "2:4", "'2024-13-45' is no timestamp"),
        ("? [1, 2]\n: 3\n", "1:3", "valid YAML"),
        ("b: é\na: \x07", "2:4", "character #x0007"),
        ("a: !!bool x", "1:4", "'x' is no bool"),
        ("a: !!timestamp x", "1:4", "'x' is no timestamp"),
        ("a: [1, !!float x]", "1:8", "'x' is no float"),
        ("a: " + "9" * 5000, "1:4", "is no int"),
        ("a: " + "[" * 3000 + "]" * 3000, "1:1", "nested too deeply"),
        ("a: 1\n--- \nb: 2\n", "2:1", "single document"),
        ("a: &a\n  b: *a\n", "1:4", "circle"),
        ("a: *nowhere", "1:4", "undefined alias 'nowhere'"),
        ("a:\n  <<: 5\n", "2:7", "for merging"),
    ],
)
def test_what_is_no_usable_yaml(tmp_path: Path, text: str, place: str, words: str) -> None:
    (error,) = errors_of(write(tmp_path, text))
    assert error.startswith(f"{place}: ")
    assert words in error


def test_aliases_that_explode(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (error,) = errors_of(write(tmp_path, "\n".join(lines)))
    assert "nodes" in error


@pytest.mark.parametrize("kind", ["missing", "directory", "latin", "utf-16", "loop", "forbidden"])
def test_a_file_that_cannot_be_read_says_what_to_do(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "rigger.yaml"
    if kind == "directory":
        path.mkdir()
    elif kind == "latin":
        path.write_bytes("a: é".encode("latin-1"))
    elif kind == "utf-16":
        path.write_bytes("a: 1".encode("utf-16"))
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "forbidden":
        path.write_text("a: 1")
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("this user may read everything")
    with pytest.raises(ConfigError, match=r"rigger\.yaml.*expected"):
        read_yaml(path)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "plugins:\n", "\ufeffplugins: {}\n"])
def test_empty_configurations_are_fine(tmp_path: Path, text: str) -> None:
    config = read_yaml(write(tmp_path, text)).config
    assert not config.get("plugins")
    assert Settings.from_config(config).workers == usable_cpus()


def test_near_misses_are_warned_about_and_unknown_keys_kept(tmp_path: Path) -> None:
    text = "theaded: true\nmine: {a: 1}\nplugins:\n  a: {plugin: x, enbaled: false, path: y}\narchive: {spol: z}\n"
    path = write(tmp_path, text)
    loaded = read_yaml(path)
    assert loaded.config["mine"] == {"a": 1}
    assert loaded.config["plugins"]["a"]["path"] == "y"
    assert loaded.warnings == (
        f"{path}:1:1: unknown key 'theaded', did you mean 'threaded'?",
        f"{path}:4:18: unknown key 'enbaled', did you mean 'enabled'?",
        f"{path}:5:11: unknown key 'spol', did you mean 'spool'?",
    )


def test_merge_keys(tmp_path: Path) -> None:
    text = "base: &base {plugin: x, enabled: true}\nplugins:\n  a:\n    <<: *base\n    enabled: false\n"
    assert read_yaml(write(tmp_path, text)).config["plugins"]["a"] == {"plugin": "x", "enabled": False}


def test_merging_twice_is_no_key_given_twice(tmp_path: Path) -> None:
    text = "a: &a {plugin: x}\nb: &b {dedicated: true}\nplugins:\n  c:\n    <<: *a\n    <<: *b\n"
    assert read_yaml(write(tmp_path, text)).config["plugins"]["c"] == {"plugin": "x", "dedicated": True}


def test_a_byte_order_mark_takes_no_column(tmp_path: Path) -> None:
    (error,) = errors_of(write(tmp_path, "\ufeffworkers: 0\n"))
    assert error.startswith("1:10: workers is 0")


def test_a_path_that_no_file_can_have() -> None:
    with pytest.raises(ConfigError, match="null byte"):
        read_yaml("rigger\0.yaml")


def test_a_mistake_in_what_is_merged_is_found_where_it_is_merged(tmp_path: Path) -> None:
    text = "base: &base {plugin: 5}\nplugins:\n  a:\n    <<: *base\n"
    assert errors_of(write(tmp_path, text)) == ["4:5: plugin is 5, expected a string"]


def test_what_aliases_share_is_listed_once(tmp_path: Path) -> None:
    text = "plugins:\n  a: &a {plugin: 5, enbaled: true}\n  b: *a\n  c: *a\n"
    path = write(tmp_path, text)
    assert errors_of(path) == ["2:18: plugin is 5, expected a string"]
    path.write_text(text.replace("5", "x"))
    assert read_yaml(path).warnings == (f"{path}:2:21: unknown key 'enbaled', did you mean 'enabled'?",)


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("plugins:\n  a: {plugin: x, plugin: y}\n  a: {plugin: z}\n", ["2:18", "3:3"]),
        ("mine: {1: a, 0x1: b}\n", ["1:14"]),
        ('mine: {a: 1, "a": 2}\n', ["1:14"]),
        ('mine: {1: a, "1": b}\n', []),
    ],
)
def test_keys_given_twice(tmp_path: Path, text: str, places: list[str]) -> None:
    path = write(tmp_path, text)
    if not places:
        assert read_yaml(path).warnings == ()
        return
    errors = errors_of(path)
    assert [error.partition(": ")[0] for error in errors] == places
    assert all("stands twice" in error for error in errors)


@pytest.mark.parametrize("key", ["null", "on", "2020-01-01", "7", "1.5"])
def test_keys_that_are_no_strings(tmp_path: Path, key: str) -> None:
    errors = errors_of(write(tmp_path, f"a: 1\n{key}: 2\nhooks: {{{key}: {{}}}}\n"))
    assert [error.partition(": ")[0] for error in errors] == ["2:1", "3:9"]
    assert all(error.endswith("expected a string") for error in errors)


def test_lines_end_as_they_like(tmp_path: Path) -> None:
    errors = errors_of(write(tmp_path, "workers: 0\r\nthreaded: 5\r\n"))
    assert [error.partition(": ")[0] for error in errors] == ["1:10", "2:11"]


def test_null_stands_for_none_only_where_there_is_none() -> None:
    for key in KEYS:
        if key.nullable:
            assert check_mapping({key.name: None}) == ()
        else:
            with pytest.raises(ConfigError, match=f"{key.name} is empty, expected"):
                check_mapping({key.name: None})


def test_bounds_are_exact() -> None:
    for key in KEYS:
        step = 1 if key.types == ("integer",) else 1e-9
        bad = [] if key.minimum is None else [key.minimum - step]
        bad += [] if key.maximum is None else [key.maximum * (1 + 1e-15) + step]
        bad += [] if key.above is None else [key.above]
        for number in bad:
            with pytest.raises(ConfigError, match=f"{key.name} is .*, expected"):
                check_mapping({key.name: int(number) if step == 1 else number})
        good = [bound for bound in (key.minimum, key.maximum) if bound is not None]
        for number in good:
            assert check_mapping({key.name: int(number) if step == 1 else number}) == ()


def test_true_is_no_number_and_one_is_no_boolean() -> None:
    for key in KEYS:
        wrong: Any = 1 if key.types == ("boolean",) else True
        with pytest.raises(ConfigError, match=f"{key.name} is {wrong}, expected"):
            check_mapping({key.name: wrong})


class Unprintable:
    def __repr__(self) -> str:
        raise ValueError


UNSHOWABLE = [-(10**5000), Unprintable(), {1}, b"x", ["x" * 1000]]


@pytest.mark.parametrize("value", UNSHOWABLE, ids=lambda value: type(value).__name__)
def test_what_cannot_be_shown_is_named_by_its_type(value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        check_mapping({"queue_size": value})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("config", [None, [], "text", 5])
def test_what_is_no_mapping(config: Any) -> None:
    with pytest.raises(ConfigError, match="expected a mapping"):
        check_mapping(config)
    with pytest.raises(ConfigError, match="expected a mapping"):
        Settings.from_config(config)


def test_a_mapping_is_checked_by_path() -> None:
    with pytest.raises(ConfigError) as caught:
        check_mapping({"plugins": {"adder": {"enabled": "yes", "plugin": "x"}}, "queue_size": True})
    assert str(caught.value).splitlines() == [
        "plugins.adder.enabled: enabled is 'yes', expected true or false",
        "queue_size: queue_size is True, expected a whole number at least 1",
    ]
    assert check_mapping({"worker": 2}) == ("worker: unknown key 'worker', did you mean 'workers'?",)


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan, 10**400, MOST_SECONDS * 2])
def test_numbers_that_are_none(number: float) -> None:
    with pytest.raises(ConfigError, match="graceful_timeout"):
        check_mapping({"graceful_timeout": number})


def test_every_key_of_the_table_is_a_setting_with_the_tables_default() -> None:
    settings = Settings.from_config({})
    for key in KEYS:
        if key.name == "plugins" or key in SERVER_KEYS:
            continue
        special = {"workers": usable_cpus(), "plugin_path": (), "archive": {}, "hooks": {}, "inputs": {}, "logging": {}}
        expected = special.get(key.name, key.default)
        found = getattr(settings, key.name)
        assert (found, type(found)) == (expected, type(expected)), key.name


def test_the_servers_limits_are_keys_with_the_limits_defaults() -> None:
    defaults = {key.name: key.default for key in SERVER_KEYS}
    assert Limits.from_config(defaults) == Limits()
    assert {PREFIX + field.name for field in dataclasses.fields(Limits)} <= set(defaults)
    assert Settings.from_config(defaults) == Settings.from_config({})


def test_settings_take_what_is_given() -> None:
    config = {"workers": 3, "plugin_path": "here", "hooks": {"h": None, "g": {"concurrent": True}}, "time_limit": 2}
    settings = Settings.from_config(config)
    assert (settings.workers, settings.plugin_path, settings.time_limit) == (3, ("here",), 2)
    assert settings.hooks == {"h": {}, "g": {"concurrent": True}}


# -- properties -----------------------------------------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers(-5, 70_000) | st.floats(-5, 5) | st.sampled_from(["", "extend", "x"])
NAMES = st.sampled_from([key.name for key in KEYS] + ["concurrent", "plugin", "enabled", "a", "threadde"])
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=3))
CONFIGS = st.dictionaries(NAMES, VALUES, max_size=5)


def is_accepted(config: dict[str, Any]) -> bool:
    try:
        check_mapping(config)
    except ConfigError as error:
        assert str(error)
        return False
    Settings.from_config(config)
    return True


@settings(deadline=None)
@given(CONFIGS)
def test_any_mapping_is_judged(config: dict[str, Any]) -> None:
    try:
        warnings = check_mapping(config)
    except ConfigError as error:
        assert all(": " in line for line in str(error).splitlines())
    else:
        assert all("did you mean" in warning for warning in warnings)


@settings(deadline=None)
@given(config=CONFIGS)
def test_a_file_is_judged_like_its_mapping(tmp_path_factory: pytest.TempPathFactory, config: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("config") / "rigger.yaml"
    path.write_text(yaml.safe_dump(config))
    try:
        read = read_yaml(path).config
    except ConfigError:
        assert not is_accepted(config)
    else:
        assert is_accepted(config)
        assert read == config


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_judged(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("config") / "rigger.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        assert isinstance(read_yaml(path).config, dict)
    except ConfigError as error:
        assert str(error).startswith(str(path))

"""Configurations: every mistake at once, each with its place; defaults; the schema says the same."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rigger_mp.config import Settings, check_mapping, read_yaml
from rigger_mp.config_keys import KEYS, usable_cpus
from rigger_mp.config_schema import config_schema
from rigger_mp.errors import ConfigError


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
        "5:13: time_limit is 0, expected a number more than 0 (or null)",
        "7:3: 'plugin' is missing, expected name, package.module:Class, entry point, or file in plugin_path",
        "9:13: plugin is 5, expected a string",
        "10:17: time_limit is 'soon', expected a number more than 0 (or null)",
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
        ("a: 2024-13-45", "1:1", "valid YAML"),
        ("? [1, 2]\n: 3\n", "1:3", "valid YAML"),
        ("a: \x07", "1:1", "valid YAML"),
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


@pytest.mark.parametrize("kind", ["missing", "directory", "latin", "unreadable"])
def test_a_file_that_cannot_be_read_says_what_to_do(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "rigger.yaml"
    if kind == "directory":
        path.mkdir()
    elif kind == "latin":
        path.write_bytes("a: é".encode("latin-1"))
    elif kind == "unreadable":
        os.mkfifo(path)
        path.unlink()
        path.symlink_to(path)
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


def test_a_mapping_is_checked_by_path() -> None:
    with pytest.raises(ConfigError) as caught:
        check_mapping({"plugins": {"adder": {"enabled": "yes", "plugin": "x"}}, "queue_size": True})
    assert str(caught.value).splitlines() == [
        "plugins.adder.enabled: enabled is 'yes', expected true or false",
        "queue_size: queue_size is True, expected a whole number at least 1",
    ]
    assert check_mapping({"worker": 2}) == ("worker: unknown key 'worker', did you mean 'workers'?",)


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_numbers_that_are_none(number: float) -> None:
    with pytest.raises(ConfigError, match="graceful_timeout"):
        check_mapping({"graceful_timeout": number})


def test_every_key_of_the_table_is_a_setting_with_the_tables_default() -> None:
    settings = Settings.from_config({})
    for key in KEYS:
        if key.name == "plugins" or "object" in key.types:
            continue
        expected = {"workers": usable_cpus(), "plugin_path": ()}.get(key.name, key.default)
        assert getattr(settings, key.name) == expected, key.name


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


@given(CONFIGS)
def test_the_schema_accepts_exactly_what_the_validator_accepts(config: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(config_schema())
    whole = [value for value in _floats(config) if value.is_integer()]
    if not whole:  # JSON Schema takes 1.0 for an integer, Python does not
        assert validator.is_valid(json.loads(json.dumps(config))) == is_accepted(config)


def _floats(value: Any) -> list[float]:
    if isinstance(value, float):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [number for part in inner for number in _floats(part)]


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


@given(st.text(max_size=60))
def test_any_text_is_judged(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("config") / "rigger.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        assert isinstance(read_yaml(path).config, dict)
    except ConfigError as error:
        assert str(error).startswith(str(path))


def test_the_schema_is_valid_and_describes_every_key() -> None:
    schema = config_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert set(schema["properties"]) == {key.name for key in KEYS}
    assert all(part["description"] for part in schema["properties"].values())

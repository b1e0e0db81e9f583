"""The JSON Schema says what the validator says."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
from hypothesis import given, settings
from hypothesis import strategies as st

from rigger_mp.config import Settings, check_mapping
from rigger_mp.config_keys import KEYS, Key
from rigger_mp.config_schema import config_schema
from rigger_mp.errors import ConfigError

SCHEMA = config_schema()
# JSON Schema takes 1.0 for an integer; in YAML and Python it is none.
CHECKER = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
    "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
)
VALIDATOR = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=CHECKER)(SCHEMA)

WRONG = st.sampled_from([None, True, False, 0, -1, 1, 1.0, 0.5, 10**12, 1e300, "", "yes", [], [1], ["x"], {}, {"a": 1}])
NAMES = st.sampled_from(["a", "b", "enabled", "plugin"])


def right(key: Key) -> st.SearchStrategy[Any]:
    least, most = key.minimum, key.maximum
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "boolean": st.booleans(),
        "integer": st.integers(None if least is None else int(least), None if most is None else int(most)),
        "number": st.floats(key.above if least is None else least, most, exclude_min=key.above is not None),
        "string": st.sampled_from(key.choices) if key.choices else st.text(max_size=3),
        "array": st.lists(st.text(max_size=3), max_size=2),
        "object": objects(key.keys, right) if key.keys else st.dictionaries(NAMES, objects(key.values, right)),
    }
    values = st.one_of(*(kinds[name] for name in key.types))
    return st.none() | values if key.nullable else values


def any_value(key: Key) -> st.SearchStrategy[Any]:
    nested = {True: objects(key.keys, any_value), False: WRONG}[bool(key.keys)]
    if key.values:
        nested = st.dictionaries(NAMES, objects(key.values, any_value) | WRONG, max_size=2)
    return st.one_of(right(key), right(key), right(key), nested, WRONG)


def objects(keys: tuple[Key, ...], of: Any) -> st.SearchStrategy[dict[str, Any]]:
    required = {key.name: of(key) for key in keys if key.required and of is right}
    optional = {key.name: of(key) for key in keys if key.name not in required}
    return st.fixed_dictionaries(required, optional=optional | {"mine": WRONG})


def is_accepted(config: dict[str, Any]) -> bool:
    try:
        check_mapping(config)
    except ConfigError:
        return False
    Settings.from_config(config)
    return True


def test_the_schema_is_valid_and_describes_every_key() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
    assert set(SCHEMA["properties"]) == {key.name for key in KEYS}
    assert all(part["description"] for part in SCHEMA["properties"].values())


def test_the_schemas_defaults_are_accepted() -> None:
    defaults = {name: part["default"] for name, part in SCHEMA["properties"].items() if "default" in part}
    assert len(defaults) > 10
    assert is_accepted(defaults)
    assert VALIDATOR.is_valid(defaults)


@settings(deadline=None)
@given(objects(KEYS, right))
def test_what_the_table_allows_is_accepted_by_both(config: dict[str, Any]) -> None:
    assert is_accepted(config)
    assert VALIDATOR.is_valid(config)


@settings(deadline=None, max_examples=300)
@given(objects(KEYS, any_value))
def test_the_schema_accepts_exactly_what_the_validator_accepts(config: dict[str, Any]) -> None:
    assert VALIDATOR.is_valid(config) == is_accepted(config)


@settings(deadline=None)
@given(st.sampled_from(KEYS).flatmap(lambda key: any_value(key).map(lambda value: {key.name: value})))
def test_they_agree_on_each_key_alone(config: dict[str, Any]) -> None:
    assert VALIDATOR.is_valid(config) == is_accepted(config)

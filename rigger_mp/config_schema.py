"""The JSON Schema of the configuration, for editors; made from the table that validates."""

from __future__ import annotations

from typing import Any

from rigger_mp.config_keys import KEYS, Key


def config_schema() -> dict[str, Any]:
    """Return the schema (JSON Schema draft 2020-12) of a configuration file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "rigger_mp configuration",
        **_object(KEYS),
    }


def _object(keys: tuple[Key, ...]) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {key.name: _key(key) for key in keys},
        "additionalProperties": True,
    }
    required = [key.name for key in keys if key.required]
    if required:
        # A disabled instance needs nothing more.
        schema["if"] = {"properties": {"enabled": {"const": False}}, "required": ["enabled"]}
        schema["else"] = {"required": required}
    return schema


def _key(key: Key) -> dict[str, Any]:
    schema: dict[str, Any] = {"description": key.help}
    types = [*key.types, *(["null"] if key.nullable else [])]
    schema["type"] = types[0] if len(types) == 1 else types
    if key.default is not None:
        schema["default"] = key.default
    if key.choices:
        schema["enum"] = list(key.choices)
    bounds = {"minimum": key.minimum, "exclusiveMinimum": key.above, "maximum": key.maximum}
    schema |= {name: number for name, number in bounds.items() if number is not None}
    if "array" in key.types:
        schema["items"] = {"type": "string"}
    if key.keys:
        schema |= {name: part for name, part in _object(key.keys).items() if name != "type"}
    if key.values:
        inner = _object(key.values)
        if not any(part.required for part in key.values):
            inner["type"] = ["object", "null"]
        schema["additionalProperties"] = inner
    return schema

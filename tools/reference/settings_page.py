"""`reference/settings.md`: every key of `broker.toml`, by the models of the settings."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from broker.settings import Section, Settings
from tools.reference.markdown import Incomplete, code, page, table

_INTRODUCTION = """
Settings are read from the file that `--config` names, else from the one in `BROKER_CONFIG`, else from
`broker.toml` in the working directory, where there is one. Each can be set in the environment too, which comes
first: `BROKER_DATABASE__URL` is `url` of `[database]`, and a list of sections is JSON, such as
`BROKER_OIDC='[{"name": "corp", ...}]'`.

A secret may be given by a file: `client_secret_file = "/etc/broker/oidc-secret"` in place of `client_secret`. The
file must be readable by its owner alone. Paths are relative to the working directory.

A key that is not here stops the broker from starting: see [wrong settings](wrong-settings.md).
"""
_TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true, false"}


def render() -> str:
    parts = []
    for name, field in Settings.model_fields.items():
        model, is_list = _model(field)
        title = f"[[{name}]]" if is_list else f"[{name}]"
        parts.append(f"## `{title}` {{ #{name} }}\n")
        parts.append(table(["Key", "Type", "Default", "What it is for"], _rows(model)))
        inner = list(_tables_in(model))
        for key, one in inner:
            several = sum(other == key for other, _ in inner) > 1
            parts.append(f"{'One kind' if several else 'Each'} of `{key}` is a table of:\n")
            parts.append(table(["Key", "Type", "Default", "What it is for"], _rows(one)))
    return page("Settings", _INTRODUCTION, *parts)


def every_key() -> Iterator[str]:
    """Every key, as `section.key`."""
    for name, field in Settings.model_fields.items():
        model, _ = _model(field)
        for key in model.model_fields:
            yield f"{name}.{key}"


def _model(field: FieldInfo) -> tuple[type[Section], bool]:
    (found,) = _sections_in(field.annotation)
    return found, found is not field.annotation


def _sections_in(annotation: Any) -> Iterator[type[Section]]:
    if inspect.isclass(annotation) and issubclass(annotation, Section):
        yield annotation
    for inner in get_args(annotation):
        yield from _sections_in(inner)


def _tables_in(model: type[Section]) -> Iterator[tuple[str, type[Section]]]:
    for key, field in model.model_fields.items():
        for inner in _sections_in(field.annotation):
            yield key, inner


def _rows(model: type[Section]) -> Iterator[list[str]]:
    properties = model.model_json_schema()["properties"]
    definitions = model.model_json_schema().get("$defs", {})
    said = _docstrings(model)
    for key, field in model.model_fields.items():
        if key not in said:
            raise Incomplete(f"{model.__name__}.{key} says nowhere what it is for")
        written = field.alias or key
        secret = "SecretStr" in str(field.annotation)
        named = f"`{written}`" + (f", `{written}_file`" if secret else "")
        yield [named, _type(properties[written], definitions), _default(field), said[key]]


def _type(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "$ref" in schema:
        return _type(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "oneOf" in schema:
        return "table"
    if "anyOf" in schema:
        kinds = [_type(one, definitions) for one in schema["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema or "const" in schema:
        return ", ".join(code(str(one)) for one in schema.get("enum", [schema.get("const")]))
    if schema.get("format") == "password":
        return "secret"
    if schema.get("type") == "array":
        return f"list of: {_type(schema['items'], definitions)}" if "items" in schema else "list"
    if schema.get("type", "object") == "object" or "oneOf" in schema:
        return "table"
    if str(schema.get("format", "")).startswith("ipv"):
        return "network"
    return _TYPES[schema["type"]] + _range(schema)


def _range(schema: dict[str, Any]) -> str:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is None and high is None:
        return f" of the form `{schema['pattern']}`" if "pattern" in schema else ""
    over = "over " if "exclusiveMinimum" in schema else ""
    return f", {over}{low:g} to {high:g}" if low is not None and high is not None else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is None:
        return "not set"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, tuple):
        value = [str(one) for one in value]
    if isinstance(value, PurePath):
        value = str(value)
    return code(json.dumps(value))


def _docstrings(model: type[Section]) -> dict[str, str]:
    """The string that follows each field of the class, which Python itself does not keep."""
    found: dict[str, str] = {}
    for one in reversed(model.__mro__):
        if one is not Section and issubclass(one, Section):
            found |= _strings_after_fields(one)
    return found


def _strings_after_fields(model: type[Section]) -> dict[str, str]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    if not isinstance(definition, ast.ClassDef):
        raise Incomplete(f"{model} is no class")
    return {
        field.target.id: inspect.cleandoc(after.value.value)
        for field, after in zip(definition.body, definition.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
        and isinstance(after.value.value, str)
    }

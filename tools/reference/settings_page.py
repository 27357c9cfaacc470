"""`reference/settings.md`: every key of `broker.toml`, by the models of `broker/settings.py`."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from broker import settings as module
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
        for of, inner in _tables_in(model):
            parts.append(f"Each of `{of}` is a table of:\n")
            parts.append(table(["Key", "Type", "Default", "What it is for"], _rows(inner)))
    return page("Settings", _INTRODUCTION, *parts)


def keys() -> Iterator[str]:
    """Every key, as `section.key`."""
    for name, field in Settings.model_fields.items():
        model, _ = _model(field)
        for key in model.model_fields:
            yield f"{name}.{key}"


def _model(field: FieldInfo) -> tuple[type[Section], bool]:
    found = _section_in(field.annotation)
    if found is None:
        raise Incomplete(f"{field.annotation} is no section")
    return found, found is not field.annotation


def _section_in(annotation: Any) -> type[Section] | None:
    if inspect.isclass(annotation) and issubclass(annotation, Section):
        return annotation
    for inner in get_args(annotation):
        if (found := _section_in(inner)) is not None:
            return found
    return None


def _tables_in(model: type[Section]) -> Iterator[tuple[str, type[Section]]]:
    for key, field in model.model_fields.items():
        if (inner := _section_in(field.annotation)) is not None:
            yield key, inner


def _rows(model: type[Section]) -> Iterator[list[str]]:
    properties = model.model_json_schema()["properties"]
    definitions = model.model_json_schema().get("$defs", {})
    said = _docstrings(model)
    for key, field in model.model_fields.items():
        if key not in said:
            raise Incomplete(f"{model.__name__}.{key} says nowhere what it is for")
        secret = "SecretStr" in str(field.annotation)
        named = f"`{key}`" + (f", `{key}_file`" if secret else "")
        yield [named, _type(properties[key], definitions), _default(field), said[key]]


def _type(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "$ref" in schema:
        return _type(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        kinds = [_type(one, definitions) for one in schema["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema or "const" in schema:
        return ", ".join(code(str(one)) for one in schema.get("enum", [schema.get("const")]))
    if schema.get("format") == "password":
        return "secret"
    if schema.get("type") == "array":
        return f"list of: {_type(schema['items'], definitions)}" if "items" in schema else "list"
    if schema.get("type") == "object":
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
    tree = ast.parse(Path(module.__file__).read_text("utf-8"))
    found: dict[str, str] = {}
    for node in tree.body:
        if not isinstance(node, ast.ClassDef) or node.name != model.__name__:
            continue
        for field, after in zip(node.body, node.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            ):
                found[field.target.id] = inspect.cleandoc(after.value.value)
    return found

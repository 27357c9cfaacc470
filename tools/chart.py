"""What the chart's files take from elsewhere: `settings` in values.schema.json, by the models of
`broker/settings.py`, and the table of values in README.md, by values.schema.json and values.yaml.

`python -m tools.chart` writes them; with `--check` it only says which are stale.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from broker.settings import Settings
from tools.renew import renew

CHART = Path(__file__).parents[1] / "helm" / "broker"
SCHEMA, README, VALUES = CHART / "values.schema.json", CHART / "README.md", CHART / "values.yaml"
BEGIN, END = "<!-- values: written by `python -m tools.chart`, not by hand -->\n", "<!-- end -->\n"

# The chart decides these itself, or has values of their own for them.
_OWN = {
    "Server": {"host", "port", "metrics_port"},
    "Database": {"url"},
    "Oidc": {"client_secret"},
    "Audit": {"allow_unsafe_durability"},
    "Settings": {"keys"},
}
_MOUNTED = "^/etc/broker/secrets/file-[a-z0-9][a-z0-9-]{0,31}$"
_ORIGIN = r"^https://[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[0-9]{1,5})?/?$"
_HTTPS = r"^https://[A-Za-z0-9][A-Za-z0-9.-]{0,252}(:[0-9]{1,5})?(/[^\x00-\x20?#\x7f]*)?$"
# NEL (0x85) ends a line in YAML; the other two of Unicode that do are escaped by toJson.
_TEXT = r"^[^\x00-\x1f\x7f\x85]*$"
_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_FORMATS = {
    "path": "^/[A-Za-z0-9._/-]{1,512}$",
    # Proxies that are believed: nobody means half of the Internet.
    "ipv4network": rf"^{_OCTET}(\.{_OCTET}){{3}}(/([89]|[12][0-9]|3[0-2]))?$",
    "ipv6network": "^[0-9a-fA-F:]*:[0-9a-fA-F:]*(/(1[6-9]|[2-9][0-9]|1[01][0-9]|12[0-8]))?$",
}
_VALIDATED = {"_origin": _ORIGIN, "_https_or_loopback": _HTTPS}

Schema = dict[str, Any]


class _WithUrls(GenerateJsonSchema):
    """Pydantic's, and what the validators of URLs ask for: in a cluster no address is loopback."""

    def function_after_schema(self, schema: core_schema.AfterValidatorFunctionSchema) -> Schema:
        found = super().function_after_schema(schema)
        name = getattr(schema["function"]["function"], "__name__", "")
        return {**found, "pattern": _VALIDATED[name]} if name in _VALIDATED else found


def settings_schema() -> Schema:
    """JSON Schema of `settings`: what may stand in broker.toml, without what the chart decides."""
    whole = Settings.model_json_schema(schema_generator=_WithUrls)
    found = _model("Settings", whole, whole["$defs"])
    found["required"] = ["server"]
    found["properties"]["server"]["required"] = ["public_url"]
    return found


def _model(title: str, model: Schema, definitions: Mapping[str, Schema]) -> Schema:
    properties: Schema = {}
    for name, one in model["properties"].items():
        if name in _OWN.get(title, ()):
            continue
        key = f"{name}_file" if _is_secret(one) else name
        properties[key] = _plain(one, definitions)
    found = {"type": "object", "additionalProperties": False, "properties": properties}
    required = [name for name in model.get("required", ()) if name in properties]
    return found | ({"required": required} if required else {})


def _plain(one: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Without references, defaults, titles and null, which TOML does not have."""
    if _is_secret(one):
        return {"type": "string", "pattern": _MOUNTED}
    if "$ref" in one:
        name = one["$ref"].rpartition("/")[2]
        return _plain({"title": name, **definitions[name]}, definitions)
    for word in ("anyOf", "oneOf"):
        if word in one:
            kinds = [_plain(kind, definitions) for kind in one[word] if kind.get("type") != "null"]
            kinds = [kind for index, kind in enumerate(kinds) if kind not in kinds[:index]]
            return kinds[0] if len(kinds) == 1 else {word: kinds}
    if one.get("type") == "object" and "properties" in one:
        return _model(one["title"], one, definitions)
    kept = {k: v for k, v in one.items() if k not in {"default", "title", "description", "format"}}
    if "items" in kept:
        kept["items"] = _plain(kept["items"], definitions)
    if kept.get("type") == "string" and not kept.keys() & {"pattern", "enum", "const"}:
        kept["pattern"] = _FORMATS.get(one.get("format", ""), _TEXT)
    return kept


def _is_secret(one: Schema) -> bool:
    return bool(one.get("format") == "password") or any(map(_is_secret, one.get("anyOf", ())))


def schema_text() -> str:
    schema = json.loads(SCHEMA.read_text("utf-8"))
    schema["definitions"]["settings"] = settings_schema()
    return json.dumps(schema, indent=2) + "\n"


def readme_text() -> str:
    before, _, rest = README.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    lines = ["| Value | Default | What it is |", "|---|---|---|"]
    lines += [f"| `{path}` | {default} | {said} |" for path, default, said in rows()]
    return before + BEGIN + "\n" + "\n".join(lines) + "\n\n" + END + after


def rows() -> Iterator[tuple[str, str, str]]:
    """Every value: its path, its default as Markdown, and what it is."""
    schema = json.loads(SCHEMA.read_text("utf-8"))
    values = yaml.safe_load(VALUES.read_text("utf-8"))
    for name, one in schema["properties"].items():
        if name == "settings":
            yield from _setting_rows(schema["definitions"]["settings"])
        elif name != "global":
            yield from _rows(name, one, values[name])


def _rows(path: str, one: Schema, value: object) -> Iterator[tuple[str, str, str]]:
    properties = one.get("properties", {})
    if not properties or any("description" not in each for each in properties.values()):
        default = "" if value in ("", {}, [], None) else f"`{json.dumps(value)}`"
        yield path, default, one["description"].replace("|", "\\|")
        return
    inner = value if isinstance(value, dict) else {}
    for name, each in properties.items():
        yield from _rows(f"{path}.{name}", each, inner.get(name))


def _setting_rows(settings: Schema) -> Iterator[tuple[str, str, str]]:
    required = settings["required"]
    for name, section in settings["properties"].items():
        table = section.get("items", section)
        keys = ", ".join(f"`{key}`" for key in table["properties"])
        kind = f"A list, each with {keys}" if "items" in section else keys
        must = " (`public_url` is required)" if name in required else ""
        yield f"settings.{name}", "", f"{kind}{must}"


def main(words: list[str]) -> int:
    return renew({SCHEMA: schema_text, README: readme_text}, words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

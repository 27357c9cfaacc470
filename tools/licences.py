"""Is every package that the image ships under a licence that we may ship?

    python -m tools.licences [REQUIREMENTS...]    default: requirements/image.txt

Reads what each pinned distribution says of itself (importlib.metadata), in the environment that
runs this. What it says must be on the list below; a package that says nothing usable is looked at
once by a person, who writes down what was found. Exit code 0: all are allowed; 1: some are not, a
line each.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from tools.pinned import pinned

# SPDX identifiers, each with the reason why it may be shipped with Apache-2.0 code.
ALLOWED = {
    "Apache-2.0": "the project's own",
    "BSD": "two or three clauses, where only a classifier tells; both ask for attribution alone",
    "BSD-2-Clause": "asks for attribution alone, which the installed licence files give",
    "BSD-3-Clause": "asks for attribution alone, which the installed licence files give",
    "ISC": "asks for attribution alone, which the installed licence files give",
    "MIT": "asks for attribution alone, which the installed licence files give",
    "MIT-0": "asks for nothing",
    "MPL-2.0": "copyleft a file; its files are shipped as they came, with their source",
    "PSF-2.0": "asks for attribution and a list of changes, of which there are none",
    "Unlicense": "public domain",
}
# What people write in the old free-form field and as classifiers, as SPDX.
SPELLINGS = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD 3": "BSD-3-Clause",
    "BSD License": "BSD",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}
# Read by a person where the metadata is no licence: the expression, and where it was found.
READ = {
    "python-dateutil": (
        "Apache-2.0 OR BSD-3-Clause",
        "its LICENSE: «Dual License», either of them",
    ),
}
# The free-form field may hold a whole licence text instead of a name.
_NAME_LENGTH = 64
_CLASSIFIER = re.compile(r"License :: (?:OSI Approved :: )?(.+)")


@dataclass(frozen=True, slots=True)
class Package:
    name: str
    version: str


def expressions(package: Package) -> list[str]:
    """The SPDX expressions of what the distribution says, all of which must be allowed.

    Raises LookupError where it is not installed in the pinned version or says nothing usable.
    """
    try:
        installed = distribution(package.name)
    except PackageNotFoundError:
        raise LookupError("is not installed here") from None
    if installed.version != package.version:
        raise LookupError(f"is pinned at {package.version}, installed is {installed.version}")
    if package.name in READ:
        return [READ[package.name][0]]
    said = installed.metadata
    if expression := said.get_all("License-Expression"):
        return list(expression)
    texts = (text.strip() for text in said.get_all("License") or ())
    names = [text for text in texts if 0 < len(text) <= _NAME_LENGTH]
    classifiers = map(_CLASSIFIER.fullmatch, said.get_all("Classifier") or ())
    names += [found[1] for found in classifiers if found and found[1] != "OSI Approved"]
    if not names:
        raise LookupError("says nothing of its licence: read it, and add it to READ")
    return [SPELLINGS.get(name, name) for name in names]


def allows(expression: str) -> bool:
    """Whether an SPDX expression can be met by what is ALLOWED. A licence WITH an exception needs
    an entry of its own. Raises ValueError for what is no expression.
    """
    if expression in ALLOWED:
        return True
    tokens = re.findall(r"[()]|[^\s()]+", expression)
    met = _alternatives(tokens)
    if tokens:
        raise ValueError(f"{expression!r} is no SPDX expression")
    return met


def _alternatives(tokens: list[str]) -> bool:
    met = _all_of(tokens)
    while tokens[:1] == ["OR"]:
        tokens.pop(0)
        # Both sides are read, whatever the first says.
        met = _all_of(tokens) or met
    return met


def _all_of(tokens: list[str]) -> bool:
    met = _one(tokens)
    while tokens[:1] == ["AND"]:
        tokens.pop(0)
        met = _one(tokens) and met
    return met


def _one(tokens: list[str]) -> bool:
    if not tokens or tokens[0] in ("AND", "OR", "WITH", ")"):
        raise ValueError("a licence is missing in the expression")
    word = tokens.pop(0)
    if word == "(":
        met = _alternatives(tokens)
        if tokens[:1] != [")"]:
            raise ValueError("a bracket is not closed")
        tokens.pop(0)
        return met
    if tokens[:1] == ["WITH"]:
        word = " ".join([word, *tokens[:2]])
        del tokens[:2]
    return word in ALLOWED


def faults(packages: Sequence[Package]) -> Iterator[str]:
    """A line for each package that may not be shipped, and each entry that names none."""
    for package in packages:
        try:
            refused = [said for said in expressions(package) if not allows(said)]
        except (LookupError, ValueError) as fault:
            yield f"{package.name}: {fault}"
            continue
        if refused:
            yield f"{package.name}: {', '.join(refused)} is not on the list of tools/licences.py"
    for name in sorted(set(READ) - {package.name for package in packages}):
        yield f"{name}: stands in READ and is shipped no more: take it out"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check the licences of what the image ships.")
    parser.add_argument("requirements", nargs="*", type=Path)
    parser.add_argument("--list", action="store_true", help="show what each package says")
    arguments = parser.parse_args(argv)
    packages = [
        Package(name, version)
        for file in arguments.requirements or [Path("requirements/image.txt")]
        for name, version in pinned(file).items()
    ]
    if arguments.list:
        for package in packages:
            print(f"{package.name} {package.version}: {', '.join(expressions(package))}")
    found = list(faults(packages))
    for line in found:
        print(line, file=sys.stderr)
    if not found:
        print(f"The licences of {len(packages)} packages are on the list.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""A second verifier of broker's audit log, written from docs/audit-format.md alone.

One file, Python's standard library, nothing of the broker: so that an auditor can
read it in one sitting, and so that a mistake in the other verifier shows.

    verify_log.py EXPORT|DIRECTORY [--key VKEY] [--checkpoint FILE] [--receipt FILE]
                  [--witness VKEY]

Exit code 0: consistent (authentic, with a key); 1: broken; 2: wrong usage.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path


class Broken(Exception):
    """The log is broken at a sequence number; 0 for what is signed and not the log."""

    def __init__(self, seq: int, what: str) -> None:
        super().__init__(what)
        self.seq = seq


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


# --- Records and exports --------------------------------------------------------------------------


def number_of(record: bytes) -> int:
    """The record's own seq. ValueError for what is no record."""

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len({name for name, _ in pairs}) != len(pairs):
            raise ValueError("a member stands twice")
        return dict(pairs)

    def no_fraction(text: str) -> object:
        raise ValueError("a number that is not an integer")

    text = record.decode("utf-8")
    if text != text.strip(" \t\r\n"):
        raise ValueError("something stands around the record")
    try:
        value = json.loads(
            text, object_pairs_hook=once, parse_float=no_fraction, parse_constant=no_fraction
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict) or type(value.get("seq")) is not int:
        raise ValueError("not a JSON object with a number")
    return int(value["seq"])


def spell(record: str, leaf: bytes, chain: bytes) -> bytes:
    """The one spelling of an export's line, without its line feed."""
    short = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r"}
    short["\t"] = "\\t"
    out = []
    for character in record:
        if character in short:
            out.append(short[character])
        elif character < " ":
            out.append(f"\\u{ord(character):04x}")
        else:
            out.append(character)
    text = "".join(out)
    return f'{{"record": "{text}", "leaf": "{leaf.hex()}", "chain": "{chain.hex()}"}}'.encode()


MAX_LINE = 123_047


def lines_of(path: str) -> Iterator[tuple[int, bytes]]:
    """Each line with the number that is due, without its line feed."""
    with Path(path).open("rb") as file:
        seq = 0
        while line := file.readline(MAX_LINE + 2):
            seq += 1
            if not line.endswith(b"\n"):
                raise Broken(seq, "the line is cut off, or too long")
            yield seq, line[:-1]


def read_export(path: str, tree: Tree) -> None:
    chain = bytes(32)
    for seq, line in lines_of(path):
        try:
            value = json.loads(line.decode("utf-8"))
            record = value["record"]
            data = record.encode("utf-8")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise Broken(seq, "the line is not that of an export") from None
        leaf = sha(b"\0", data)
        chain = sha(b"\2", chain, leaf)
        if line != spell(record, leaf, chain):
            raise Broken(seq, "the hashes, or the spelling of the line, are not right")
        check_number(seq, data)
        tree.add(leaf)


def check_number(seq: int, record: bytes) -> None:
    try:
        found = number_of(record)
    except ValueError as error:
        raise Broken(seq, f"not a record: {error}") from None
    if found != seq:
        raise Broken(seq, f"the record says it is number {found}")


# --- The tree -------------------------------------------------------------------------------------


class Tree:
    """The Merkle tree, leaf by leaf; roots and leaves are kept where they are asked for."""

    def __init__(self, sizes: set[int], numbers: set[int]) -> None:
        self.sizes, self.numbers = sizes, numbers
        self.size = 0
        self.stack: list[tuple[int, bytes]] = []  # (leaves below, hash)
        self.roots = {0: sha(b"")}
        self.leaves: dict[int, bytes] = {}

    def add(self, leaf: bytes) -> None:
        self.size += 1
        node = (1, leaf)
        while self.stack and self.stack[-1][0] == node[0]:
            count, left = self.stack.pop()
            node = (2 * count, sha(b"\1", left, node[1]))
        self.stack.append(node)
        if self.size in self.sizes:
            self.roots[self.size] = self.root()
        if self.size in self.numbers:
            self.leaves[self.size] = leaf

    def root(self) -> bytes:
        if not self.stack:
            return sha(b"")
        root = self.stack[-1][1]
        for _, left in reversed(self.stack[:-1]):
            root = sha(b"\1", left, root)
        return root


def root_by_path(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes | None:
    """RFC 9162 section 2.1.3, told recursively; None for a path of the wrong length."""
    if not 0 <= index < size:
        return None
    if size == 1:
        return leaf if not path else None
    if not path:
        return None
    half = 1
    while half * 2 < size:
        half *= 2
    if index < half:
        left = root_by_path(leaf, index, half, path[:-1])
        return left and sha(b"\1", left, path[-1])
    right = root_by_path(leaf, index - half, size - half, path[:-1])
    return right and sha(b"\1", path[-1], right)


# --- Directories of tiles -------------------------------------------------------------------------


def tile_path(level: str, index: int, width: int) -> str:
    digits = f"{index:03}"
    digits = digits.zfill((len(digits) + 2) // 3 * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    name = "/".join([f"x{group}" for group in groups[:-1]] + [groups[-1]])
    return f"tile/{level}/{name}" + ("" if width == 256 else f".p/{width}")


def read_tiles(directory: Path, size: int, tree: Tree) -> None:
    level: list[bytes] = []
    for index in range((size + 255) // 256):
        width = min(256, size - index * 256)
        try:
            data = (directory / tile_path("entries", index, width)).read_bytes()
        except FileNotFoundError:
            raise Broken(index * 256 + 1, "its tile is missing") from None
        small = Tree(set(), set())
        hashes = read_optional(directory / tile_path("0", index, width))
        at = 0
        for place in range(width):
            seq = index * 256 + place + 1
            length = int.from_bytes(data[at : at + 2], "big")
            record = data[at + 2 : at + 2 + length]
            if at + 2 > len(data) or len(record) != length:
                raise Broken(index * 256 + 1, "its tile is cut off")
            at += 2 + length
            leaf = sha(b"\0", record)
            if hashes is not None and hashes[place * 32 : place * 32 + 32] != leaf:
                raise Broken(seq, "it does not match its hash in the tile")
            check_number(seq, record)
            small.add(leaf)
            tree.add(leaf)
        if at != len(data) or (hashes is not None and len(hashes) != width * 32):
            raise Broken(index * 256 + 1, "its tile is of another width")
        if width == 256:
            level.append(small.root())
    upper_tiles(directory, level)


def upper_tiles(directory: Path, level: list[bytes]) -> None:
    number, span = 1, 256
    while level:
        above: list[bytes] = []
        for at in range(0, len(level), 256):
            part = level[at : at + 256]
            found = read_optional(directory / tile_path(str(number), at // 256, len(part)))
            if found is not None and found != b"".join(part):
                raise Broken(at * span + 1, "a tile above it is not over the records")
            if len(part) == 256:
                small = Tree(set(), set())
                for one in part:
                    small.add(one)
                above.append(small.root())
        level, number, span = above, number + 1, span * 256


def read_optional(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


# --- Signed notes ---------------------------------------------------------------------------------

Key = tuple[str, bytes, bytes]  # name, key id, public key


def unbase64(text: str) -> bytes:
    data = base64.b64decode(text.encode("ascii"), validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("not canonical base64")
    return data


def parse_key(vkey: str, kind: bytes = b"\1") -> tuple[str, bytes, bytes]:
    """Name, key id and public key. `kind` is 1 for keys of logs, 4 for those of witnesses."""
    name, key_id, encoded = vkey.split("+", 2)
    data = unbase64(encoded)
    public = data[1:]
    if data[:1] != kind or len(public) != 32 or not name or any(c.isspace() for c in name):
        raise ValueError("not an Ed25519 verifier key")
    if sha(name.encode(), b"\n", data)[:4].hex() != key_id:
        raise ValueError("the key id does not belong to the key")
    return name, bytes.fromhex(key_id), public


def parse_note(note: str) -> tuple[str, list[Key]]:
    """The text, and each signature's key name, key id and bytes."""
    if len(note) > 65_536 or any(c < " " and c != "\n" for c in note):
        raise ValueError("not a note")
    text, empty, rest = note.rpartition("\n\n")
    lines = rest.split("\n")
    if not empty or not text or lines.pop() or not 1 <= len(lines) <= 64:
        raise ValueError("a note without signatures")
    signatures = []
    for line in lines:
        dash, name, encoded = line.split(" ")
        blob = unbase64(encoded)
        if dash != "\u2014" or not name or "+" in name or len(blob) < 5:
            raise ValueError("a malformed signature")
        signatures.append((name, blob[:4], blob[4:]))
    return text + "\n", signatures


def parse_checkpoint(text: str) -> tuple[str, int, bytes]:
    origin, size, root, end = text.split("\n")
    data = unbase64(root)
    if end or not origin or len(data) != 32 or not (size.isascii() and size.isdigit()):
        raise ValueError("not a checkpoint")
    if str(int(size)) != size or len(size) > 16:
        raise ValueError("not a checkpoint")
    return origin, int(size), data


def signed_by(text: str, signatures: list[Key], keys: list[Key]) -> None:
    """ValueError unless one of the keys has signed the text, and none falsely."""
    trusted = 0
    for name, key_id, signature in signatures:
        for known in keys:
            if (name, key_id) == known[:2]:
                if not ed25519_verify(known[2], text.encode(), signature):
                    raise ValueError("a false signature")
                trusted += 1
    if not trusted:
        raise ValueError("signed by no key that was given")


def open_checkpoint(note: str, keys: list[Key]) -> tuple[str, int, bytes]:
    """Origin, size and root. ValueError unless one of the keys, if there are any, has signed it."""
    text, signatures = parse_note(note)
    if keys:
        signed_by(text, signatures, keys)
    return parse_checkpoint(text)


def check_witness(note: str, witness: Key) -> None:
    """ValueError unless the witness has cosigned the note, and never falsely."""
    text, signatures = parse_note(note)
    found = False
    for name, key_id, signature in signatures:
        if (name, key_id) != witness[:2]:
            continue
        seconds = int.from_bytes(signature[:8], "big")
        message = f"cosignature/v1\ntime {seconds}\n{text}".encode()
        if seconds >= 2**63 or not ed25519_verify(witness[2], message, signature[8:]):
            raise ValueError("a false cosignature")
        found = True
    if not found:
        raise ValueError(f"not cosigned by the witness {witness[0]}")


def open_certificate(note: str, keys: list[Key]) -> tuple[str, Key, datetime, datetime]:
    """Origin, key, begin and end of a delegate. ValueError unless a key of that origin, if
    there are any keys, has signed it.
    """
    text, signatures = parse_note(note)
    lines = text.split("\n")
    labels = ["broker-log-delegate/v1", "origin ", "key ", "from ", "until ", ""]
    if len(lines) != 6 or not all(a.startswith(b) for a, b in zip(lines, labels, strict=True)):
        raise ValueError("not a certificate")
    if lines[0] != labels[0] or lines[5]:
        raise ValueError("not a certificate")
    origin = lines[1][len("origin ") :]
    delegate = parse_key(lines[2][len("key ") :])
    begins, ends = parse_time(lines[3][len("from ") :]), parse_time(lines[4][len("until ") :])
    if delegate[0] != f"{origin}/delegate":
        raise ValueError("the delegate is not named after its log")
    if not timedelta(0) < ends - begins <= timedelta(hours=24):
        raise ValueError("certified for no time, or for more than 24 hours")
    if keys:
        signed_by(text, signatures, [key for key in keys if key[0] == origin])
    return origin, delegate, begins, ends


def parse_time(text: str) -> datetime:
    moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ")  # noqa: DTZ007 - both sides are UTC
    if moment.strftime("%Y-%m-%dT%H:%M:%SZ") != text:
        raise ValueError("a time in another spelling")
    return moment


def open_receipt(value: object, keys: list[Key]) -> tuple[int, bytes, int, bytes]:
    """Number and leaf of its record, size and root of its checkpoint."""
    members = {"version", "seq", "record", "path", "checkpoint"}
    if not isinstance(value, dict) or type(value.get("version")) is not int:
        raise ValueError("not a receipt")
    if value["version"] == 2:
        members.add("certificate")
    elif value["version"] != 1:
        raise ValueError("not a receipt")
    if set(value) != members:
        raise ValueError("not a receipt")
    record = value["record"].encode("utf-8")
    if value["version"] == 1:
        _, size, root = open_checkpoint(value["checkpoint"], keys)
    else:
        certificate = open_certificate(value["certificate"], keys)
        size, root = open_delegated(value["checkpoint"], certificate, record, checked=bool(keys))
    path = [bytes.fromhex(one) for one in value["path"]]
    if any(
        len(one) != 32 or one.hex() != text for one, text in zip(path, value["path"], strict=True)
    ):
        raise ValueError("a malformed path")
    leaf = sha(b"\0", record)
    if root_by_path(leaf, value["seq"] - 1, size, path) != root:
        raise ValueError("the receipt's record is not in its checkpoint's tree")
    if number_of(record) != value["seq"]:
        raise ValueError("the receipt's record has another number")
    return value["seq"], leaf, size, root


def open_delegated(
    note: str, certificate: tuple[str, Key, datetime, datetime], record: bytes, *, checked: bool
) -> tuple[int, bytes]:
    """Size and root of a head that a delegate has signed for a record of its time."""
    log, delegate, begins, ends = certificate
    origin, size, root = open_checkpoint(note, [delegate] if checked else [])
    if not checked:
        return size, root
    if origin != log:
        raise ValueError("the delegate is another log's")
    written = json.loads(record)["time"]
    # Records' times have microseconds, in one spelling; what is after the second changes nothing.
    if len(written) != 27 or written[19] != "." or not written[20:26].isdigit():
        raise ValueError("the record has no time")
    if not begins <= parse_time(f"{written[:19]}{written[26:]}") < ends:
        raise ValueError("the delegate was not certified for the time of the record")
    return size, root


# --- Ed25519 (RFC 8032) in affine coordinates: slow, and short ------------------------------------

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
Point = tuple[int, int]


def plus(a: Point, b: Point) -> Point:
    t = D * a[0] * b[0] * a[1] * b[1] % P
    x = (a[0] * b[1] + b[0] * a[1]) * pow(1 + t, P - 2, P)
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - t, P - 2, P)
    return x % P, y % P


def times(n: int, a: Point) -> Point:
    total = (0, 1)
    while n:
        if n & 1:
            total = plus(total, a)
        a = plus(a, a)
        n >>= 1
    return total


def to_bytes(a: Point) -> bytes:
    return (a[1] | (a[0] & 1) << 255).to_bytes(32, "little")


def to_point(data: bytes) -> Point | None:
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number % 2**255
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if x * x % P != square or (x == 0 and sign):
        return None
    return (P - x if x & 1 != sign else x), y


BASE = to_point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def ed25519_verify(public: bytes, message: bytes, signature: bytes) -> bool:
    key = to_point(public)
    if len(signature) != 64 or key is None or times(8, key) == (0, 1) or BASE is None:
        return False
    s = int.from_bytes(signature[32:], "little")
    if s >= ORDER:
        return False
    digest = hashlib.sha512(signature[:32] + public + message).digest()
    k = int.from_bytes(digest, "little") % ORDER
    negative = (-key[0] % P, key[1])
    return to_bytes(plus(times(s, BASE), times(k, negative))) == signature[:32]


# --- The command ----------------------------------------------------------------------------------


def verify(arguments: argparse.Namespace) -> str:
    """What was found, in one line. Broken, or ValueError for wrong usage."""
    keys = [parse_key(vkey) for vkey in arguments.key]
    witnesses = [parse_key(vkey, b"\4") for vkey in arguments.witness]
    source = Path(arguments.source)
    beside = source / "checkpoint" if source.is_dir() else Path(f"{arguments.source}.checkpoint")
    names = arguments.checkpoint or ([str(beside)] if beside.is_file() else [])
    heads: list[tuple[int, bytes]] = []
    leaves: dict[int, bytes] = {}
    try:
        for name in names:
            note = Path(name).read_text("utf-8")
            heads.append(open_checkpoint(note, keys)[1:])
            for witness in witnesses:
                check_witness(note, witness)
        for name in arguments.receipt:
            seq, leaf, size, root = open_receipt(json.loads(Path(name).read_bytes()), keys)
            leaves[seq] = leaf
            heads.append((size, root))
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise Broken(0, str(error)) from None
    if (keys or source.is_dir()) and not heads:
        raise ValueError("nothing signed to check with: give --checkpoint FILE")
    if witnesses and not (keys and names):
        raise ValueError("--witness asks for a checkpoint, and for the log's --key")
    tree = Tree({size for size, _ in heads}, set(leaves))
    if source.is_dir():
        read_tiles(source, max(size for size, _ in heads), tree)
    else:
        read_export(arguments.source, tree)
    compare(tree, sorted(heads), leaves)
    if not keys:
        return f"internally consistent: {tree.size} records"
    covered = max(size for size, _ in heads)
    return f"authentic: {tree.size} records, signed up to {covered}"


def compare(tree: Tree, heads: list[tuple[int, bytes]], leaves: dict[int, bytes]) -> None:
    faults = []
    good = 0
    for size, root in heads:
        if size > tree.size:
            faults.append((tree.size + 1, f"the log ends before it; {size} records are signed"))
        elif tree.roots[size] == root:
            good = max(good, size)
        else:
            faults.append((good + 1, f"from here to {size} is not what was signed"))
            break
    for seq, leaf in leaves.items():
        if seq in tree.leaves and tree.leaves[seq] != leaf:
            faults.append((seq, "it is not the record of the receipt"))
    if faults:
        raise Broken(*min(faults))


def main() -> int:
    parser = argparse.ArgumentParser(description="Verify an audit log of broker's.")
    parser.add_argument("source", help="an export, or a directory of tiles")
    for option in ("--key", "--checkpoint", "--receipt", "--witness"):
        parser.add_argument(option, action="append", default=[])
    arguments = parser.parse_args()
    try:
        print(verify(arguments))
    except Broken as broken:
        where = f"broken at seq {broken.seq}" if broken.seq else "not authentic"
        print(f"{where}: {broken}")
        return 1
    except (ValueError, OSError) as error:
        print(f"verify_log.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Checking Ed25519 signatures with the standard library alone (RFC 8032 section 5.1.7).

For the light client and for offline verification, which have no compiled
dependency. It only ever handles public values, so it need not run in constant
time; it takes a few milliseconds. Signing is the server's (`adapters/signing`).

It refuses what signatures of honest keys never have, so that nobody can show
one signature in two spellings: an S of L or over, points not written in the one
canonical way, and public keys of small order.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha512
from typing import TypeAlias

KEY_BYTES = 32
SIGNATURE_BYTES = 64

# Extended homogeneous coordinates (X, Y, Z, T): x = X/Z, y = Y/Z, x*y = T/Z (section 5.1.4).
_Point: TypeAlias = tuple[int, int, int, int]

_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_SQRT_MINUS_ONE = pow(2, (_P - 1) // 4, _P)
_NEUTRAL: _Point = (0, 1, 1, 0)


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` (64 bytes) over `message` is of the key (32 bytes)."""
    if len(signature) != SIGNATURE_BYTES:
        return False
    key = _decode_key(public_key)
    if key is None:
        return False
    scalar = int.from_bytes(signature[32:], "little")
    if scalar >= _L:
        return False
    digest = sha512(signature[:32] + public_key + message).digest()
    challenge = int.from_bytes(digest, "little") % _L
    # R = [S]B - [k]A, compared as bytes: another spelling of R is another signature.
    negative = (-key[0] % _P, key[1], key[2], -key[3] % _P)
    return _encode(_multiply_both(scalar, _BASE, challenge, negative)) == signature[:32]


@lru_cache(maxsize=8)
def _decode_key(public_key: bytes) -> _Point | None:
    if len(public_key) != KEY_BYTES:
        return None
    point = _decode(public_key)
    if point is None:
        return None
    eightfold = _double(_double(_double(point)))
    return None if _encode(eightfold) == _encode(_NEUTRAL) else point


def _decode(encoded: bytes) -> _Point | None:
    """Section 5.1.3."""
    number = int.from_bytes(encoded, "little")
    sign, y = number >> 255, number & (1 << 255) - 1
    if y >= _P:
        return None
    x = _recover_x(y, sign)
    return None if x is None else (x, y, 1, x * y % _P)


def _recover_x(y: int, sign: int) -> int | None:
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    if square == 0:
        return None if sign else 0
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _SQRT_MINUS_ONE % _P
    if (x * x - square) % _P:
        return None
    return _P - x if x & 1 != sign else x


def _encode(point: _Point) -> bytes:
    x, y, z, _ = point
    inverse = pow(z, -1, _P)
    x, y = x * inverse % _P, y * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _add(p: _Point, q: _Point) -> _Point:
    a = (p[1] - p[0]) * (q[1] - q[0]) % _P
    b = (p[1] + p[0]) * (q[1] + q[0]) % _P
    c = 2 * p[3] * q[3] * _D % _P
    d = 2 * p[2] * q[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _double(p: _Point) -> _Point:
    a, b = p[0] * p[0] % _P, p[1] * p[1] % _P
    c = 2 * p[2] * p[2] % _P
    h = a + b
    e = h - (p[0] + p[1]) ** 2 % _P
    g = a - b
    f = c + g
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _multiply_both(m: int, p: _Point, n: int, q: _Point) -> _Point:
    """[m]P + [n]Q, sharing the doublings (Shamir's trick)."""
    both = _add(p, q)
    result = _NEUTRAL
    for bit in range(max(m.bit_length(), n.bit_length()) - 1, -1, -1):
        result = _double(result)
        in_m, in_n = m >> bit & 1, n >> bit & 1
        if in_m and in_n:
            result = _add(result, both)
        elif in_m:
            result = _add(result, p)
        elif in_n:
            result = _add(result, q)
    return result


_BASE_Y = 4 * pow(5, -1, _P) % _P
_BASE_X = _recover_x(_BASE_Y, 0) or 0
_BASE: _Point = (_BASE_X, _BASE_Y, 1, _BASE_X * _BASE_Y % _P)

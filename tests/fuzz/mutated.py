"""Hypothesis strategy: a seed, damaged here and there; or bytes of no shape at all."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

# What has broken readers before: ends of grammars, of numbers, of Unicode and of C strings.
_SPICE = (
    b'"', b"'", b"\\", b"\0", b"\n", b"\r", b"\t", b"{", b"}", b"{{", b"}}", b"[", b"]", b"<", b">",
    b"&", b"<!DOCTYPE a [", b"]]>", b":", b",", b".", b"-", b"+", b"*", b"?", b"${", b"#", b"!!",
    b"&a ", b"*a", b"<<:", b"%00", b"|", b"0", b"-1", b"1e999", b"NaN", b"9" * 400, b"\xff",
    b"\xed\xa0\x80",
    b"\xe2\x80\xa8", b"\xef\xbb\xbf", "\u212a".encode(), "\uff11".encode(), b"=", b"../",
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.sampled_from((0, 0, 1, 2, 7, 40)))
        piece = draw(
            st.one_of(
                st.sampled_from(_SPICE),
                st.binary(max_size=6),
                st.integers(0, max(len(data) - 1, 0)).map(lambda n: bytes(data[n : n + 30])),
            )
        )
        data[at : at + length] = piece * draw(st.sampled_from((1, 1, 1, 2, 300)))
    return bytes(data)

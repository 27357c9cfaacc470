"""The browser's half of a login attempt, and what follows from it."""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode

from hypothesis import given
from hypothesis import strategies as st

from broker.identity.login import LoginBinding


def test_everything_derived_from_a_binding_is_distinct_and_stable():
    binding = LoginBinding.new()
    again = LoginBinding.parse(binding.cookie_value)
    assert again is not None
    derived = [binding.state, binding.nonce, binding.code_verifier, binding.code_challenge]
    assert derived == [again.state, again.nonce, again.code_verifier, again.code_challenge]
    assert len({binding.cookie_value, *derived}) == 5
    assert binding.hash == hashlib.sha256(binding.cookie_value.encode()).digest()
    digest = hashlib.sha256(binding.code_verifier.encode()).digest()
    assert binding.code_challenge == urlsafe_b64encode(digest).decode().rstrip("=")
    assert 43 <= len(binding.code_verifier) <= 128


def test_a_binding_gives_the_same_answers_in_every_version():
    """Logins on their way go on over an update, and over replicas of two versions."""

    def derived(label: bytes) -> str:
        digest = hmac.digest(b"A" * 43, label, "sha256")
        return urlsafe_b64encode(digest).decode().rstrip("=")

    binding = LoginBinding("A" * 43)
    assert binding.state == derived(b"broker login state")
    assert binding.nonce == derived(b"broker login nonce")
    assert binding.code_verifier == derived(b"broker login code_verifier")
    assert len(LoginBinding.new().cookie_value) == 43
    assert repr(binding) == "LoginBinding(…)"


@given(st.text(max_size=60))
def test_only_43_url_safe_characters_are_a_binding(text):
    binding = LoginBinding.parse(text)
    assert (binding is None) == (
        len(text) != 43 or not all(c.isascii() and (c.isalnum() or c in "-_") for c in text)
    )

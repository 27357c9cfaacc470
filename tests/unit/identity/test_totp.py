from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyotp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.identity import totp

SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"  # 20 bytes
NOW = datetime(2026, 11, 24, 12, 0, 5, tzinfo=UTC)
STEP = int(NOW.timestamp()) // 30


def code_at(step: int) -> str:
    return pyotp.TOTP(SECRET).generate_otp(step)


# RFC 6238 appendix B, SHA-1, cut to six digits.
@pytest.mark.parametrize(
    ("unix", "code"),
    [(59, "287082"), (1111111109, "081804"), (1234567890, "005924"), (20000000000, "353130")],
)
def test_the_rfc_vectors_match_their_step(unix, code):
    secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
    now = datetime.fromtimestamp(unix, UTC)
    assert totp.matching_step(secret, code, now, -1) == unix // 30


@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_the_neighbouring_steps_are_accepted(offset):
    assert totp.matching_step(SECRET, code_at(STEP + offset), NOW, -1) == STEP + offset


@pytest.mark.parametrize("offset", [-2, 2, -3, 100])
def test_steps_further_away_are_not(offset):
    assert totp.matching_step(SECRET, code_at(STEP + offset), NOW, -1) is None


def test_no_code_of_the_last_step_or_an_earlier_one_is_accepted_again():
    for used in (STEP - 1, STEP, STEP + 1):
        for step in range(STEP - 1, used + 1):
            assert totp.matching_step(SECRET, code_at(step), NOW, used) is None
    assert totp.matching_step(SECRET, code_at(STEP + 1), NOW, STEP) == STEP + 1


def test_a_clock_that_goes_back_does_not_bring_old_codes_back():
    earlier = NOW - timedelta(minutes=5)
    step = int(earlier.timestamp()) // 30
    assert totp.matching_step(SECRET, code_at(step), earlier, STEP) is None


def test_the_start_of_unix_time_has_no_step_before_it():
    assert totp.matching_step(SECRET, code_at(0), datetime.fromtimestamp(3, UTC), -1) == 0


def mangled(code: str) -> list[str]:
    full_width = code.translate({ord("0") + i: 0xFF10 + i for i in range(10)})
    arabic = code.translate({ord("0") + i: 0x0660 + i for i in range(10)})
    return [
        full_width,
        arabic,
        full_width[0] + code[1:],
        f" {code}",
        f"{code} ",
        f"{code}\n",
        f"{code[:3]} {code[3:]}",
        f"+{code[1:]}",
        f"{code}\0",
        code[:5],
        code + "0",
        f"0{code}",
        "",
    ]


@pytest.mark.parametrize("variant", range(len(mangled("123456"))))
def test_only_six_ascii_digits_are_a_code(variant):
    assert totp.matching_step(SECRET, mangled(code_at(STEP))[variant], NOW, -1) is None


@given(st.text(max_size=12))
def test_no_text_breaks_the_check(text):
    step = totp.matching_step(SECRET, text, NOW, -1)
    assert (step is not None) == (text in {code_at(STEP + o) for o in (-1, 0, 1)})


def test_secrets_have_160_bits_and_differ():
    secrets = {totp.new_secret() for _ in range(50)}
    assert len(secrets) == 50
    assert all(len(pyotp.TOTP(s).byte_secret()) == 20 for s in secrets)


def test_the_otpauth_uri_is_what_apps_read():
    parsed = pyotp.parse_uri(totp.otpauth_uri(SECRET, account="ada@example.com", label="broker"))
    assert isinstance(parsed, pyotp.TOTP)
    assert (parsed.secret, parsed.name, parsed.issuer) == (SECRET, "ada@example.com", "broker")
    assert len(totp.new_secret()) == 32
    assert (parsed.digits, parsed.interval, parsed.digest().name) == (6, 30, "sha1")


def test_backoff_starts_at_the_fifth_failure_and_doubles_to_a_quarter_of_an_hour():
    assert [totp.backoff(n) for n in range(5)] == [None] * 5
    waits = [totp.backoff(n) for n in range(5, 20)]
    seconds = [w.total_seconds() for w in waits if w is not None]
    assert seconds == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900, 900, 900]


def test_the_hundredth_failure_locks_until_an_admin_resets():
    assert totp.backoff(99) == timedelta(minutes=15)
    assert totp.backoff(100) == totp.backoff(10**9) == timedelta.max
    years_later = NOW + timedelta(days=4000)
    assert totp.locked_for(100, NOW, years_later) == totp.HARD_STOP_RETRY_AFTER


def test_a_lock_counts_down_in_whole_seconds_and_ends():
    assert totp.locked_for(4, NOW, NOW) is None
    assert totp.locked_for(7, NOW, NOW) == 4
    assert totp.locked_for(7, NOW, NOW + timedelta(milliseconds=3001)) == 1
    assert totp.locked_for(7, NOW, NOW + timedelta(seconds=4)) is None


def test_guessing_for_a_year_through_the_locks_tries_under_a_hundred_codes():
    """The reason for the hard stop: a million codes, three of which are right at any time."""
    now, failures = NOW, 0
    while now < NOW + timedelta(days=365):
        wait = totp.backoff(failures) or timedelta()
        if wait == timedelta.max:
            break
        now += wait
        failures += 1
    assert failures == totp.HARD_STOP_FAILURES

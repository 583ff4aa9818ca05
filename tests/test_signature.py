"""Deliveries are believed only with Close's signature over the very bytes that were received."""

import hashlib
import hmac
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.signature import Refused, SignatureKey, Verified, verify

SAMPLES = Path(__file__).parent / "samples"
MANIFEST = json.loads((SAMPLES / "manifest.json").read_text())
SAMPLE_KEY = SignatureKey.parse(MANIFEST["signature_key_hex_TEST_ONLY"])
OTHER_KEY = SignatureKey.parse("ab" * 32)

# Close's scheme, computed by hand: api facts, section 3.
VECTOR_KEY = SignatureKey.parse("058bfb6a3d8cfdc4da7c3be5901b16ae11da982b46a25fb2cd7016e97a140a1c")
VECTOR_TIME = b"1756970837"
VECTOR_BODY = b'{"subscription_id": "whsub_test", "event": {"id": "ev_test"}}'
VECTOR_HASH = b"9ef68565b7216eeb74bf321c43621d5a3bc152fa699629130157d9ac852790c2"
VECTOR_HEADERS = [(b"close-sig-hash", VECTOR_HASH), (b"close-sig-timestamp", VECTOR_TIME)]


def judge(
    *, headers=VECTOR_HEADERS, body=VECTOR_BODY, keys=(VECTOR_KEY,), now=1756970837.0, max_age_seconds=None
):
    return verify(headers=headers, body=body, keys=keys, now=now, max_age_seconds=max_age_seconds)


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_the_documented_vector_is_verified_with_its_age():
    assert judge(now=1756970838.5) == Verified(key_index=0, age_seconds=1.5)


@pytest.mark.parametrize("name", MANIFEST["files"])
def test_every_sample_delivery_is_verified(name):
    facts = MANIFEST["files"][name]
    headers = [
        (b"Close-Sig-Hash", facts["close_sig_hash"].encode()),
        (b"Close-Sig-Timestamp", facts["close_sig_timestamp"].encode()),
    ]
    body = (SAMPLES / name).read_bytes()
    verdict = judge(headers=headers, body=body, keys=(SAMPLE_KEY,), now=float(facts["close_sig_timestamp"]))
    assert verdict == Verified(key_index=0, age_seconds=0.0)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"Close-Sig-Hash", VECTOR_HASH), (b"CLOSE-SIG-TIMESTAMP", VECTOR_TIME)],
        [(b"close-sig-hash", VECTOR_HASH.upper()), (b"close-sig-timestamp", VECTOR_TIME)],
        [(b"host", b"x"), (b"\xff\xfe", b"\xff"), *VECTOR_HEADERS],
        {"Close-Sig-Hash": VECTOR_HASH.decode(), "close-sig-timestamp": VECTOR_TIME.decode(), "é": "ü"},
    ],
    ids=["names in any case", "hash in upper case", "strange other headers", "a mapping"],
)
def test_headers_are_read_however_they_are_written(headers):
    assert judge(headers=headers) == Verified(key_index=0, age_seconds=0.0)


def test_headers_that_can_be_read_once_are_enough():
    assert judge(headers=iter(VECTOR_HEADERS)) == Verified(key_index=0, age_seconds=0.0)


@pytest.mark.parametrize(
    ("keys", "index"),
    [((VECTOR_KEY, OTHER_KEY), 0), ((OTHER_KEY, VECTOR_KEY), 1), ((OTHER_KEY, VECTOR_KEY, VECTOR_KEY), 1)],
)
def test_the_first_matching_key_of_several_is_named(keys, index):
    assert judge(keys=keys) == Verified(key_index=index, age_seconds=0.0)


def test_every_key_is_compared_even_after_one_matched(monkeypatch):
    compared = []

    def compare(left, right):
        compared.append(left == right)
        return left == right

    monkeypatch.setattr("service.signature.hmac.compare_digest", compare)
    judge(keys=(VECTOR_KEY, OTHER_KEY, OTHER_KEY))
    assert compared == [True, False, False]


@pytest.mark.parametrize("keys", [(), (OTHER_KEY,)])
def test_without_the_right_key_a_delivery_is_refused(keys):
    assert judge(keys=keys) == Refused("the signature matches no key")


def test_the_keys_digits_are_not_the_key():
    digits = VECTOR_KEY.key.hex().encode()
    wrong = hmac.new(digits, VECTOR_TIME + VECTOR_BODY, hashlib.sha256).hexdigest().encode()
    headers = [(b"close-sig-hash", wrong), (b"close-sig-timestamp", VECTOR_TIME)]
    assert judge(headers=headers) == Refused("the signature matches no key")


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([], "close-sig-hash is missing"),
        (VECTOR_HEADERS[1:], "close-sig-hash is missing"),
        (VECTOR_HEADERS[:1], "close-sig-timestamp is missing"),
        ([*VECTOR_HEADERS, VECTOR_HEADERS[0]], "close-sig-hash is given more than once"),
        ([*VECTOR_HEADERS, (b"Close-Sig-Timestamp", b"1")], "close-sig-timestamp is given more than once"),
    ],
)
def test_a_missing_or_repeated_header_is_refused(headers, reason):
    assert judge(headers=headers) == Refused(reason)


@pytest.mark.parametrize(
    "value",
    [b"", b"9ef6", VECTOR_HASH + b"00", b"g" * 64, b"\xff" * 64, VECTOR_HASH + b"\n", b" " + VECTOR_HASH],
)
def test_an_ill_formed_hash_is_refused(value):
    headers = [(b"close-sig-hash", value), VECTOR_HEADERS[1]]
    assert judge(headers=headers) == Refused("close-sig-hash is not 64 hex digits")


@pytest.mark.parametrize(
    "value", [b"", b"-1", b"+1", b"1.5", b"1e9", b"1" * 21, "١٢٣".encode(), b"1756970837\n", b"0x10", b"\xff"]
)
def test_an_ill_formed_timestamp_is_refused(value):
    headers = [VECTOR_HEADERS[0], (b"close-sig-timestamp", value)]
    assert judge(headers=headers) == Refused("close-sig-timestamp is not Unix seconds")


def test_digits_of_another_script_in_a_mapping_are_refused():
    headers = {"close-sig-hash": VECTOR_HASH.decode(), "close-sig-timestamp": "١٢٣"}
    assert judge(headers=headers) == Refused("close-sig-timestamp is not Unix seconds")


@pytest.mark.parametrize(
    ("age_seconds", "max_age_seconds", "verdict"),
    [
        (300.0, 300.0, Verified(key_index=0, age_seconds=300.0)),
        (-300.0, 300.0, Verified(key_index=0, age_seconds=-300.0)),
        (300.5, 300.0, Refused("close-sig-timestamp is too old")),
        (-300.5, 300.0, Refused("close-sig-timestamp lies in the future")),
        (259_200.0, None, Verified(key_index=0, age_seconds=259_200.0)),
        (-259_200.0, None, Verified(key_index=0, age_seconds=-259_200.0)),
    ],
)
def test_age_is_judged_only_when_a_bound_is_given(age_seconds, max_age_seconds, verdict):
    assert judge(now=1756970837 + age_seconds, max_age_seconds=max_age_seconds) == verdict


def test_a_forged_old_delivery_learns_nothing_about_the_allowed_age():
    verdict = judge(keys=(OTHER_KEY,), now=2e9, max_age_seconds=1.0)
    assert verdict == Refused("the signature matches no key")


def test_a_timestamp_of_twenty_digits_is_judged_like_any_other():
    stamp = b"9" * 20
    digest = hmac.new(VECTOR_KEY.key, stamp + VECTOR_BODY, hashlib.sha256).hexdigest().encode()
    headers = [(b"close-sig-hash", digest), (b"close-sig-timestamp", stamp)]
    assert judge(headers=headers, max_age_seconds=1.0) == Refused("close-sig-timestamp lies in the future")


@given(st.integers(0, len(VECTOR_BODY) * 8 - 1))
def test_one_flipped_bit_in_the_body_is_refused(bit):
    assert isinstance(judge(body=flipped(VECTOR_BODY, bit)), Refused)


@given(st.integers(0, len(VECTOR_TIME) * 8 - 1))
def test_one_flipped_bit_in_the_timestamp_is_refused(bit):
    headers = [VECTOR_HEADERS[0], (b"close-sig-timestamp", flipped(VECTOR_TIME, bit))]
    assert isinstance(judge(headers=headers), Refused)


@given(st.integers(0, len(VECTOR_HASH) * 8 - 1))
def test_one_flipped_bit_in_the_hash_is_refused_unless_it_only_changes_the_case(bit):
    changed = flipped(VECTOR_HASH, bit)
    headers = [(b"close-sig-hash", changed), VECTOR_HEADERS[1]]
    expected = Verified if changed.lower() == VECTOR_HASH else Refused
    assert isinstance(judge(headers=headers), expected)


@given(st.binary(max_size=300), st.binary(min_size=16, max_size=40), st.integers(0, 10**20 - 1))
def test_whatever_is_signed_with_our_key_is_verified(body, key, timestamp):
    stamp = str(timestamp).encode()
    digest = hmac.new(key, stamp + body, hashlib.sha256).hexdigest().encode()
    headers = [(b"close-sig-hash", digest), (b"close-sig-timestamp", stamp)]
    verdict = judge(headers=headers, body=body, keys=(SignatureKey(key),), now=float(timestamp))
    assert isinstance(verdict, Verified)


@given(
    st.lists(st.tuples(st.binary(max_size=30), st.binary(max_size=80)), max_size=6), st.binary(max_size=100)
)
def test_no_headers_raise_or_are_believed(headers, body):
    assert isinstance(judge(headers=headers, body=body), Refused)


@pytest.mark.parametrize(
    "text", ["", "ab" * 15, "abc" * 11, "zz" * 16, " " + "ab" * 16, "ab" * 16 + "\n", "\u0660" * 32]
)
def test_an_ill_formed_key_is_refused_without_repeating_it(text):
    with pytest.raises(
        ValueError, match="a signature key is an even number of hex digits, at least 32"
    ) as caught:
        SignatureKey.parse(text)
    assert not text.strip() or text.strip() not in str(caught.value)


def test_a_key_is_read_in_either_case_and_never_shown():
    key = SignatureKey.parse("AB" * 16)
    assert key == SignatureKey.parse("ab" * 16)
    assert repr(key) == "SignatureKey()"

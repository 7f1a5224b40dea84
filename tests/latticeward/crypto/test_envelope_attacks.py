import hashlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latticeward import canonical
from latticeward.crypto.body import CHUNK_BYTES, FRONT_BYTES, TAG_BYTES
from latticeward.crypto.envelope import (
    open_body,
    parse_envelope,
    seal_body,
)
from latticeward.crypto.signing import Purpose
from latticeward.crypto.suites import benchmark_context
from latticeward.errors import (
    DecryptionError,
    InvalidSignatureError,
    LatticewardError,
    MalformedMessageError,
    ProtocolError,
    UnsupportedSuiteError,
)
from tests.latticeward.crypto.samples import (
    ROUND,
    Sample,
    flipped,
    put_together,
    refuse,
    taken_apart,
    two_recipients,
)

SERVICE = ["hybrid", "high", "constrained"]


@pytest.mark.parametrize("suite", SERVICE)
def test_every_flipped_byte_is_refused(suite: str) -> None:
    # One recipient, so every byte matters to the one who opens: the stanza too, which no signature covers. Three
    # thousand bytes of signature are sampled; ``test_signing`` flips them one by one.
    sample = Sample(suite=suite)
    raw = sample.seal()
    signature_start = len(raw) - len(taken_apart(raw)[3])
    step = 1 if suite == "hybrid" else 5
    for place in (*range(0, signature_start, step), *range(signature_start, len(raw), 97), len(raw) - 1):
        refuse(sample, flipped(raw, place))


def test_every_changed_header_field_is_refused() -> None:
    sample = Sample()
    header, stanzas, body, signature = taken_apart(sample.seal())
    value = canonical.decode(header, limit_bytes=2048)
    for name, old in value.items():
        other = flipped(old, 0) if isinstance(old, bytes) else old + (1 if isinstance(old, int) else "x")
        changed = {**value, name: other}
        refusal = refuse(sample, put_together(canonical.encode(changed), stanzas, body, signature))
        if name in ("message_type", "federation_id", "round_id", "plan_digest", "base_model_digest", "created_at"):
            assert refusal is InvalidSignatureError
        missing = canonical.encode({other: item for other, item in value.items() if other != name})
        assert refuse(sample, put_together(missing, stanzas, body, signature)) is MalformedMessageError
    extra = canonical.encode({**value, "note": ""})
    assert refuse(sample, put_together(extra, stanzas, body, signature)) is MalformedMessageError


@pytest.mark.parametrize("suite", SERVICE)
def test_truncation_and_extension_are_refused_at_every_boundary(suite: str) -> None:
    sample = Sample(suite=suite, plaintext=bytes(2 * CHUNK_BYTES + 5))
    raw = sample.seal()
    prefix_end = 12 + int.from_bytes(raw[8:12], "big")
    chunk = CHUNK_BYTES + TAG_BYTES
    marks = {0, 1, 6, 8, 11, 12, prefix_end, prefix_end + 24, prefix_end + FRONT_BYTES, len(raw)}
    marks |= {prefix_end + FRONT_BYTES + chunk * n for n in (1, 2)}
    marks |= {len(raw) - len(taken_apart(raw)[3])}
    for mark in marks:
        for end in (mark - 1, mark, mark + 1):
            if 0 <= end < len(raw):
                refuse(sample, raw[:end])
    for tail in (b"\0", raw, raw[-3373:]):
        refuse(sample, raw + tail)


@pytest.mark.parametrize("suite", SERVICE)
def test_swapped_doubled_and_dropped_chunks_are_refused_by_signature_and_by_body(suite: str) -> None:
    sample = Sample(suite=suite, plaintext=bytes(3 * CHUNK_BYTES + 100))
    header, stanzas, body, signature = taken_apart(sample.seal())
    front, chunks = body[:FRONT_BYTES], body[FRONT_BYTES:]
    size = CHUNK_BYTES + TAG_BYTES
    first, second, third, last = (chunks[place : place + size] for place in range(0, len(chunks), size))
    orders = [second + first + third + last, first + first + third + last, first + second + third + first[: len(last)]]
    for order in orders:
        assert refuse(sample, put_together(header, stanzas, front + order, signature)) is InvalidSignatureError
    # Without the signature in front, as for models: the stream itself must see it.
    sealed = seal_body(sample.plaintext, header=sample.header)
    front, chunks = sealed.body[:FRONT_BYTES], sealed.body[FRONT_BYTES:]
    first, second, third, last = (chunks[place : place + size] for place in range(0, len(chunks), size))
    wrong = [second + first + third + last, first + first + third + last, first + second + last, first + second + third]
    wrong += [first + second + third + last + b"\0", first + second + third + last + last]
    for order in wrong:
        with pytest.raises(DecryptionError):
            open_body(header_bytes=sealed.header_bytes, body=front + order, content_key=sealed.content_key)


@pytest.mark.parametrize("suite", SERVICE)
def test_every_flipped_byte_of_a_body_is_refused_without_a_signature(suite: str) -> None:
    sealed = seal_body(b"x" * 40, header=Sample(suite=suite, plaintext=b"x" * 40).header)
    opened = open_body(header_bytes=sealed.header_bytes, body=sealed.body, content_key=sealed.content_key)
    assert opened == b"x" * 40
    for place in range(len(sealed.body)):
        with pytest.raises(DecryptionError):
            open_body(
                header_bytes=sealed.header_bytes, body=flipped(sealed.body, place), content_key=sealed.content_key
            )


def test_swapped_repeated_missing_and_foreign_stanzas_are_refused() -> None:
    sample = Sample()
    header, stanzas, body, signature = taken_apart(sample.seal(*two_recipients(sample)))
    for order in (stanzas[::-1], [stanzas[0], stanzas[0]], []):
        assert refuse(sample, put_together(header, order, body, signature)) is MalformedMessageError
    # The key ids stay where they are and what is sealed changes places.
    first, second = (canonical.decode(stanza, limit_bytes=2048) for stanza in stanzas)
    crossed = [
        canonical.encode({**first, "sealed": second["sealed"]}),
        canonical.encode({**second, "sealed": first["sealed"]}),
    ]
    assert refuse(sample, put_together(header, crossed, body, signature)) is DecryptionError
    # A stanza for the same recipient, from another envelope of the same sender.
    foreign = taken_apart(replace(sample, plaintext=sample.plaintext[::-1]).seal())[1]
    assert refuse(sample, put_together(header, foreign, body, signature)) is DecryptionError
    other_round = taken_apart(replace(sample, round_id=ROUND[:-1] + "9").seal())[1]
    assert refuse(sample, put_together(header, other_round, body, signature)) is DecryptionError


def test_the_header_of_another_round_is_refused() -> None:
    sample = Sample()
    _, stanzas, body, signature = taken_apart(sample.seal())
    other = taken_apart(replace(sample, round_id=ROUND[:-1] + "9").seal())
    assert refuse(sample, put_together(other[0], stanzas, body, signature)) is InvalidSignatureError
    assert refuse(sample, put_together(other[0], stanzas, body, other[3])) is InvalidSignatureError


@pytest.mark.parametrize("weaker", ["constrained", "classical", "pq-only"])
def test_a_downgraded_suite_is_refused(weaker: str) -> None:
    sample = Sample()
    header, stanzas, body, signature = taken_apart(sample.seal())
    changed = canonical.encode({**canonical.decode(header, limit_bytes=2048), "suite": weaker})
    refusal = refuse(sample, put_together(changed, stanzas, body, signature))
    assert refusal is (InvalidSignatureError if weaker == "constrained" else UnsupportedSuiteError)
    with benchmark_context(), pytest.raises(LatticewardError):
        sample.open(put_together(changed, stanzas, body, signature))


def test_a_forged_ml_kem_ciphertext_is_one_silent_refusal() -> None:
    sample = Sample()
    header, stanzas, body, signature = taken_apart(sample.seal())
    stanza = canonical.decode(stanzas[0], limit_bytes=2048)
    messages = set()
    for place in (0, 700, 1087, 1100, 1120, 1167):
        forged = canonical.encode({**stanza, "sealed": flipped(stanza["sealed"], place)})
        with pytest.raises(DecryptionError) as caught:
            sample.open(put_together(header, [forged], body, signature))
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_a_composite_with_one_good_half_is_refused() -> None:
    sample = Sample()
    header, stanzas, body, signature = taken_apart(sample.seal())
    again = taken_apart(sample.seal())[3]
    for mixed in (signature[:3309] + again[3309:], again[:3309] + signature[3309:], signature[:3309], signature[3309:]):
        assert refuse(sample, put_together(header, stanzas, body, mixed)) is InvalidSignatureError


def test_a_thief_cannot_sign_anothers_body_as_his_own() -> None:
    sample, thief = Sample(), Sample(sender=1)
    _, stanzas, body, _ = taken_apart(sample.seal())
    header, _, _, _ = taken_apart(thief.seal())
    from latticeward.crypto.envelope_format import signed_payload
    from latticeward.crypto.signing import sign

    payload = signed_payload(hashlib.sha256(header).digest(), hashlib.sha256(body).digest())
    stolen = put_together(header, stanzas, body, sign(payload, purpose=Purpose.UPDATE, key=thief.signer))
    assert refuse(thief, stolen) is DecryptionError


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_noise_after_the_magic_is_refused(tail: bytes) -> None:
    raw = b"LWENV\x00\x01\x00" + max(len(tail) - 4, 0).to_bytes(4, "big") + tail
    for noise in (tail, raw):
        with pytest.raises(ProtocolError):
            parse_envelope(noise, limit_bytes=1 << 20)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_prefix_of_the_right_shape_and_wrong_content_is_refused(data: st.DataObject) -> None:
    item = st.binary(max_size=40) | st.integers() | st.text(max_size=5) | st.none()
    prefix = data.draw(st.lists(st.one_of(item, st.lists(item, max_size=3)), max_size=4))
    try:
        raw = canonical.encode(prefix)
    except MalformedMessageError:
        return
    with pytest.raises(MalformedMessageError):
        parse_envelope(b"LWENV\x00\x01\x00" + len(raw).to_bytes(4, "big") + raw, limit_bytes=1 << 20)

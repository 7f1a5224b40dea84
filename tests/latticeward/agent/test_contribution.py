"""The loop with a real contributor: what leaves the hospital opens at the round, and only there."""

from pathlib import Path

import numpy as np

from latticeward.agent.contribution import SiteContributor, find_job
from latticeward.agent.state import Stage
from latticeward.crypto.envelope import open_envelope, parse_envelope, verify_envelope
from latticeward.crypto.signing import Purpose
from latticeward.updates.encoding import FixedPointCodec
from tests.latticeward.agent.fakes import ROUND_KEY, FakeServer, Life
from tests.latticeward.peers import SITE, device_keys


def test_a_real_submission_is_what_the_round_can_open(tmp_path: Path) -> None:
    job = find_job("heart")
    contributor = SiteContributor(
        job=job, data=job.load_site(SITE), signing_key=device_keys().signing, local_seed=b"l" * 32
    )
    server = FakeServer()
    life = Life(tmp_path, server, contributor=contributor)
    round_id = server.open_round(1)
    life.once()
    server.see(round_id, state="collecting")
    life.once()
    assert life.state.rounds[round_id].stage is Stage.SENT

    parsed = parse_envelope(server.submitted[0][1], limit_bytes=100_000)
    assert parsed.signed_digest.hex() == life.state.rounds[round_id].submission_digest
    verified = verify_envelope(parsed, purpose=Purpose.UPDATE, verify_key=device_keys().signing.verify_key)
    opened = open_envelope(verified, role="round", subject_id=round_id, epoch=1, decapsulation_key=ROUND_KEY)
    plan = server.plan
    codec = FixedPointCodec(
        clip_norm=plan.clip_norm,
        weight_cap=plan.weight_cap,
        cohort_bound=plan.cohort_bound,
        ring_bits=plan.ring_bits,
        size=plan.layout.size,
        metric_size=plan.metric_size,
    )
    vector = codec.from_bytes(opened.plaintext)
    codec.validate_ring(vector)
    assert np.count_nonzero(vector) > plan.layout.size / 2

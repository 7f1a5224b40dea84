"""What one enrolment costs in cryptography alone, both ends together: the limit that no server code gets under."""

import os
import time
from typing import Final

from latticeward.crypto.certificate_keys import CertificateSigningKey
from latticeward.crypto.hpke import hpke_open, hpke_seal
from latticeward.crypto.keys import CompositeSigningKey
from latticeward.crypto.signing import Purpose, sign, verify
from latticeward.device_keys import DeviceKeys

RUNS: Final = 200
_MESSAGE: Final = os.urandom(64)


def bare_milliseconds() -> float:
    """Milliseconds of processor time for the signatures and the one sealed challenge of an enrolment.

    ======================  ====================  ======================
    of                      device                server
    ======================  ====================  ======================
    trust bundle            2 composite verified
    certificate request     ML-DSA signed         ML-DSA verified
    challenge               opened                sealed
    four keys' proofs       3 signed              3 verified
    question for the        ML-DSA and Ed25519    ML-DSA and Ed25519
    certificate             signed                verified
    certificate             chain of 2 verified   ML-DSA signed
    key statement           composite verified    composite signed
    status answers                                2 ML-DSA signed
    ======================  ====================  ======================
    """
    device, server = DeviceKeys.generate(), CompositeSigningKey.generate(DeviceKeys.generate().signing.algorithm)
    root, issuing = (CertificateSigningKey.generate(name).private for name in ("ml-dsa-87", "ml-dsa-65"))
    public = device.public
    started = time.process_time()
    for _ in range(RUNS):
        for _ in range(3):  # certificate request, proof, question
            public.authentication.verify(device.authentication.sign(_MESSAGE), _MESSAGE)
        for _ in range(2):  # proof, question
            public.classical.verify(device.classical.sign(_MESSAGE), _MESSAGE)
        verify(
            sign(_MESSAGE, purpose=Purpose.ENROL, key=device.signing),
            _MESSAGE,
            purpose=Purpose.ENROL,
            key=public.signing,
        )
        hpke_open(hpke_seal(_MESSAGE, key=public.encapsulation, info=b""), key=device.decapsulation, info=b"")
        statement = sign(_MESSAGE, purpose=Purpose.KEY_STATEMENT, key=server)
        for _ in range(3):  # trust statement, receipt key's statement, device's statement
            verify(statement, _MESSAGE, purpose=Purpose.KEY_STATEMENT, key=server.verify_key)
        issuing.public_key().verify(issuing.sign(_MESSAGE), _MESSAGE)
        for _ in range(2):  # the answers of OCSP, signed ahead: one a digest that tools ask with
            issuing.sign(_MESSAGE)
    spent = time.process_time() - started
    above = root.sign(_MESSAGE)
    started = time.process_time()
    for _ in range(RUNS):  # the issuing authority's certificate, which was signed once for all
        root.public_key().verify(above, _MESSAGE)
    return 1000 * (spent + time.process_time() - started) / RUNS

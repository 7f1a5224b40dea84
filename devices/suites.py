"""Which suite a device's keys are to be made for: what federation, class and device all accept."""

from django.conf import settings

from devices.models import DeviceClass
from latticeward.crypto.suites import SUITES, Suite, negotiate, strongest
from latticeward.enrolment_messages import EnrolmentTranscript
from latticeward.errors import UnsupportedSuiteError


def choose_suite(transcript: EnrolmentTranscript, device_class: DeviceClass) -> Suite:
    """The default of the class where everybody accepts it, else the best; never below anybody's floor.

    Raises:
        UnsupportedSuiteError: nothing in common, or the keys are made for another suite than those that are offered.
    """
    keys = transcript.keys
    made_for = (keys.encapsulation.algorithm, keys.signing.algorithm, keys.authentication.algorithm)
    offered = [SUITES[name] for name in transcript.suites if name in SUITES]
    fit = [suite.id for suite in offered if (suite.kem, suite.signature, suite.authentication) == made_for]
    if offered and not fit:
        raise UnsupportedSuiteError("the device's keys are not made for any suite that it offers")
    floor = strongest((settings.SUITE_FLOOR, device_class.suite_floor, transcript.floor))
    return negotiate(fit, settings.ACCEPTED_SUITES, floor, default=device_class.default_suite)

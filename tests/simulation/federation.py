"""FederationSimulator: a whole federation in one process, with real agents and the real server, and virtual faults.

Every device runs the product's own agent (enrolment, loop, state on a disk, verification, training on its hospital's
rows) over a wire in memory. Every worker's task is the product's own, run when a test lets time go by. Nothing waits
for a clock, so hundreds of devices take part in seconds, and a test says in which order things go wrong.

    simulator.enrol(4)
    training = simulator.train(rounds=2)
    simulator.devices[0].kill()
    simulator.run()                       # until nothing changes any more
    simulator.time_passes(minutes=5)      # everything that has happened is five minutes ago
    simulator.run()
    simulator.audit()                     # every published round is worked out again, to the same bits
"""

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID

from django.apps import apps
from django.core.cache import cache as django_cache
from django.core.management import call_command
from django.db.models import DateTimeField, F

from devices import authentication, services
from devices.claims import create_claim
from devices.models import Federation, Site
from devices.services import found_federation
from devices.sites import create_site
from devices.tasks import issue_devices
from devices.tasks import sweep as sweep_devices
from keys.rotation import server_address
from keys.services import forget_loaded_keys
from keys.tasks import sequence_ledger
from latticeward.agent.assembly import assemble
from latticeward.agent.config import AgentConfig
from latticeward.agent.contribution import SiteContributor
from latticeward.agent.enrol import EnrolmentRequest, enrol
from latticeward.agent.floor import Floor
from latticeward.agent.identity import Identity, load_or_make_secrets
from latticeward.agent.interruption import Interruption
from latticeward.agent.jobs import JOBS
from latticeward.agent.jobs.job import SiteData
from latticeward.agent.loop import AgentLoop
from latticeward.agent.state import STATE_FILE, AgentState
from latticeward.errors import LatticewardError, PermanentTransportError, TransientTransportError
from rounds import tasks
from rounds.models import Round, Training
from rounds.services import trainings
from rounds.services.plans import plan_for
from tests.simulation.broker import Broker
from tests.simulation.wire import Fault, Killed, Web, memory_transport

logger = logging.getLogger(__name__)

OPERATOR = "user:1"


@cache
def rows_of(job: str, site: str) -> SiteData:
    return JOBS[job].load_site(site)


@dataclass
class SimulatedDevice:
    """One agent with its disk and its clock.

    Attributes:
        clock_offset: how far its clock is ahead of the server's.
        asleep: it is switched on and does nothing: a straggler.
        ended: what ended the agent, if something did.
    """

    name: str
    site: str
    home: Path
    web: Web
    job: str = "heart"
    clock_offset: timedelta = timedelta(0)
    asleep: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    ended: LatticewardError | None = None
    transients: int = 0
    _loop: AgentLoop | None = None

    def now(self) -> datetime:
        return datetime.now(UTC) + self.clock_offset

    @property
    def config(self) -> AgentConfig:
        return AgentConfig(home=self.home, job=self.job, poll_seconds=0, **{"floor": Floor(), **self.settings})

    @property
    def id(self) -> UUID:
        return UUID(self.identity.device_id)

    @property
    def identity(self) -> Identity:
        found = Identity.load(self.home)
        assert found is not None
        return found

    @property
    def state(self) -> AgentState:
        """What is on its disk."""
        return AgentState.load(self.home)

    @property
    def memory(self) -> bytes:
        """The bytes of that, to see whether anything has changed."""
        path = self.home / STATE_FILE
        return path.read_bytes() if path.exists() else b""

    def enrol(self, site: Site, approve: Callable[[], None]) -> None:
        """Turn a claim code into an identity, as ``latticeward-agent enrol`` does."""
        _, code = create_claim(site=site, device_class="workstation", auto_approve=True, actor=OPERATOR)
        secrets = load_or_make_secrets(self.home)
        transport = memory_transport(self.web, self.name, self.config, secrets.keys, self.now)
        enrol(
            EnrolmentRequest(claim=code, server=f"http://{server_address()}", name=self.name),
            home=self.home,
            secrets=secrets,
            transport=_Approving(transport, approve),  # type: ignore[arg-type]
            authority=transport.authority,
            clock=self.now,
            poll_seconds=0,
        )

    def start(self) -> None:
        """Begin a life; what an earlier one did not write down is lost."""
        self.ended = None
        identity = self.identity.forget_earlier(self.home, now=self.now())
        self._loop = assemble(
            config=self.config,
            identity=identity,
            contributor=SiteContributor(
                job=JOBS[self.job],
                data=rows_of(self.job, self.site),
                signing_key=identity.secrets.keys.signing,
                local_seed=identity.secrets.local_seed,
            ),
            transport_for=lambda keys: memory_transport(self.web, self.name, self.config, keys, self.now),
            interruption=Interruption(),
            clock=self.now,
        )

    def kill(self) -> None:
        """End its process without a word."""
        self._loop = None

    @property
    def is_running(self) -> bool:
        return self._loop is not None

    def step(self) -> None:
        """Ask once for work and do it, as the agent does between two pauses."""
        if self._loop is None or self.asleep:
            return
        try:
            if self._loop.run_once():
                self.start()  # new keys: as after a restart
        except Killed:
            self.kill()
        except TransientTransportError:
            self.transients += 1
        except PermanentTransportError as error:
            if error.server_code != "not_permitted":  # suspended: the loop asks again later
                self.ended, self._loop = error, None
        except LatticewardError as error:
            self.ended, self._loop = error, None


class _Approving:
    """The enrolment's transport; between two questions for the certificate the authority does its work."""

    def __init__(self, transport: Any, approve: Callable[[], None]) -> None:
        self._transport = transport
        self._approve = approve

    def __getattr__(self, name: str) -> Any:
        if name == "collect_certificate":
            self._approve()
        return getattr(self._transport, name)


class FederationSimulator:
    """A server, its workers, and devices; use it inside ``running``."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.web = Web()
        self.broker = Broker()
        self.devices: list[SimulatedDevice] = []
        self.federation: Federation | None = None

    @classmethod
    @contextmanager
    def running(cls, home: Path) -> Iterator["FederationSimulator"]:
        """A simulator whose enqueued messages come to its own broker."""
        simulator = cls(home)
        try:
            # Processes die here, and the power never fails: half of the time would be waiting for the disk.
            with simulator.broker.connected(), patch("os.fsync"):
                yield simulator
        finally:
            simulator.web.close()

    # --- people ------------------------------------------------------------------------------------------------------

    def enrol(self, count: int, *, job: str = "heart", **named: Any) -> list[SimulatedDevice]:
        """Let so many machines in, spread over the job's hospitals, and start them."""
        self.federation = self.federation or found_federation(slug="heart", name="Heart federation")
        slugs = JOBS[job].sites
        added = []
        for number in range(len(self.devices), len(self.devices) + count):
            slug = slugs[number % len(slugs)]
            site = Site.objects.filter(slug=slug).first() or create_site(
                federation=self.federation, slug=slug, name=slug.title(), actor=OPERATOR
            )
            device = SimulatedDevice(
                name=f"{slug}-{number}", site=slug, home=self.home / f"{number}", web=self.web, job=job, **named
            )
            device.enrol(site, self._issue)
            device.start()
            added.append(device)
        self.devices += added
        return added

    def _issue(self) -> None:
        issue_devices.delay()
        self.broker.drain()

    def train(self, *, job: str = "heart", start_from: UUID | None = None, **overrides: Any) -> Training:
        """An operator opens a training."""
        assert self.federation is not None
        plan = plan_for({"job": job, "plan": overrides, "start_from": start_from}, self.federation)
        training = trainings.open_training(federation=self.federation, plan=plan, actor=OPERATOR)
        tasks.sign_training.delay(str(training.id))
        return training

    def suspend(self, device: SimulatedDevice) -> None:
        services.suspend_device(device_id=device.id, actor=OPERATOR, why="lost")

    def reinstate(self, device: SimulatedDevice) -> None:
        services.reinstate_device(device_id=device.id, actor=OPERATOR)

    # --- time and trouble --------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Every device asks once, then the workers and their heartbeat do what there is to do."""
        for device in self.devices:
            device.step()
        if not self.web.down:
            self.beat()

    def beat(self) -> None:
        """One beat of the heart: the tasks of the schedule, and whatever they enqueue."""
        self.broker.drain()
        for task in (tasks.sweep, sequence_ledger, sweep_devices, tasks.seal_for_newcomers):
            task.run()
            self.broker.drain()

    def run(self, *, until: Callable[[], bool] | None = None, steps: int = 60) -> None:
        """Let time go by in small steps.

        Args:
            until: stop as soon as it holds, and fail if it never does; without it, stop when nothing changes.
            steps: at most.
        """
        seen = None
        for _ in range(steps):
            if until is not None and until():
                return
            self.step()
            now = self._picture()
            if until is None and now == seen:
                return
            seen = now
        if until is None or not until():
            raise AssertionError(f"not there after {steps} steps: {self._picture()[: -len(self.devices)]}")

    def _picture(self) -> list[Any]:
        rounds = Round.objects.order_by("training", "number")
        states = [
            (current.number, current.state, sorted(current.participants.values_list("state", "code")))
            for current in rounds
        ]
        memories = [device.memory for device in self.devices]
        return [*states, *Training.objects.values_list("state", flat=True), *memories]

    def time_passes(self, **span: float) -> None:
        """Move everything that has happened, or is due, into the past."""
        delta = timedelta(**span)
        for model in apps.get_app_config("rounds").get_models():
            times = [item.name for item in model._meta.get_fields() if isinstance(item, DateTimeField)]
            if times:
                model._default_manager.update(**{name: F(name) - delta for name in times})

    def restart_server(self) -> None:
        """Lose everything that lives in the server's memory: messages, nonces, loaded keys."""
        self.broker.lose_all()
        django_cache.clear()
        authentication._seen.clear()
        forget_loaded_keys()
        self.web.down = False

    def fault(self, kind: str, part: str, **named: Any) -> None:
        """See ``Fault``."""
        self.web.faults.append(Fault(kind, part, **named))

    # --- looking -----------------------------------------------------------------------------------------------------

    def rounds(self, training: Training) -> list[Round]:
        return list(Round.objects.filter(training=training).select_related("model").order_by("number"))

    def current(self, training: Training) -> Round:
        return self.rounds(training)[-1]

    def outcomes(self, current: Round) -> dict[str, str]:
        """Participant states by device name."""
        names = {device.id: device.name for device in self.devices}
        return {names[key]: state for key, state in current.participants.values_list("device_id", "state")}

    def state_of(self, training: Training) -> str:
        return str(Training.objects.values_list("state", flat=True).get(pk=training.pk))

    def audit(self) -> int:
        """The auditor's command on every published round; returns how many gave the same bits."""
        published = list(Round.objects.filter(state="published"))
        for current in published:
            said = io.StringIO()
            call_command("recompute_round", str(current.id), stdout=said)
            assert said.getvalue().startswith("Yes"), said.getvalue()
        return len(published)

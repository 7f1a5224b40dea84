"""The rounds that ``bench pipeline`` measures, once Django is set up: latencies, and the throughput of intake."""

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Final
from uuid import UUID

from bench.large_model import encoded_update, large_plan, sealed_update
from bench.pipeline_fleet import FleetDevice, enrol
from bench.processes import DemoError, Processes
from controlplane.celery import QUEUES, app
from devices.models import Federation
from latticeward.crypto.envelope import parse_envelope
from latticeward.crypto.kem import EncapsulationKey
from latticeward.lifecycle import RoundState
from latticeward.messages import Assignment
from latticeward.plan import RoundPlan
from latticeward.updates.encoding import EncodedUpdate
from rounds import ingress, tasks
from rounds.models import Contribution, Round, Submission
from rounds.services import coordination, trainings
from rounds.storage import BlobWriter

FLEET: Final = 100
ROUNDS_OF_THREE: Final = 12
ROUNDS_OF_TEN: Final = 8
ROUNDS_OF_ALL: Final = 4
# Six full batches, so that two workers can share them evenly.
INTAKE_DEVICES: Final = 96
INTAKE_ROUNDS: Final = 4
PATIENCE_SECONDS: Final = 120.0
# Encoding costs ten times what sealing does and is not measured here: a few vectors serve the whole fleet.
_VECTORS: Final = 4
_WORKERS: Final = {"intake-1": "intake", "intake-2": "intake", "aggregate": "aggregate", "authority": "authority"}
Finding = tuple[str, float, str]


def measure(parameters: int, *, port: int, home: Path) -> Iterator[Finding]:
    """Everything, one after the other."""
    _require_idle_broker()
    with Processes(logs=home / "logs", environment={}) as processes:
        server = _start(processes, port)
        federation = Federation.objects.get()
        fleet = [enrol(federation, number, server=server, home=home) for number in range(FLEET)]
        bench = PipelineBench(parameters, federation, fleet, processes)
        try:
            yield from bench.latencies()
            yield from bench.throughput()
        finally:
            app.control.purge()


class PipelineBench:
    """A federation whose devices send made-up updates."""

    def __init__(
        self, parameters: int, federation: Federation, fleet: Sequence[FleetDevice], processes: Processes
    ) -> None:
        self._parameters = parameters
        self._federation = federation
        self._fleet = {str(one.device.id): one for one in fleet}
        self._processes = processes
        self._encoded: dict[int, list[EncodedUpdate]] = {}

    def latencies(self) -> Iterator[Finding]:
        """From the last update to the published model, for cohorts of three, ten and all.

        Of three, all are sent in one go, so that the last one meets the others' work; of more, the others are accepted
        before the last is sent, since what is asked is whether the end of a round depends on the cohort.
        """
        found, peaks = {}, {}
        for count, rounds in ((3, ROUNDS_OF_THREE), (10, ROUNDS_OF_TEN), (FLEET, ROUNDS_OF_ALL)):
            found[count] = self._rounds_of(count, rounds, together=count == 3)
            peaks[count] = self._peaks_mib()
        for count, rows in found.items():
            name = "celery_3x1m_last" if count == 3 else f"last_of_{count}"
            # The first round of a training has no base model to open: it is not like the others.
            yield f"{name}_to_published_ms", 1000 * median(row["published"] for row in rows[1:]), "ms"
            yield f"{name}_request_to_published_ms", 1000 * median(row["request"] for row in rows[1:]), "ms"
            for stage in ("merge", "seal", "publish"):
                yield f"{name}_{stage}_ms", 1000 * median(row[stage] for row in rows[1:]), "ms"
        ten, everybody = (median(row["published"] for row in found[count][1:]) for count in (10, FLEET))
        yield "celery_100_over_10_devices", everybody / ten, "x"
        for worker in ("intake", "aggregate"):
            for count in (10, FLEET):
                yield f"{worker}_worker_peak_rss_{count}_devices_mib", peaks[count][worker], "MiB"

    def throughput(self) -> Iterator[Finding]:
        """Updates accepted per second by one intake worker and by two, in turn, from the same kind of backlog."""
        found: dict[int, list[float]] = {1: [], 2: []}
        intake = [name for name, queue in _WORKERS.items() if queue == "intake"]
        plan = self._open(INTAKE_DEVICES, 2 * INTAKE_ROUNDS)
        for number in range(1, 2 * INTAKE_ROUNDS + 1):
            workers = 1 + number % 2
            current = self._collecting(plan, number)
            # Both rest while the backlog is made: the sweep tells them of what waits long before it is complete.
            self._rest(intake)
            for identity, envelope in self._envelopes(plan, current).items():
                self._hand_in(current, identity, envelope)
            for submission in Submission.objects.filter(participant__round=current).values_list("id", flat=True):
                tasks.process_update.delay(str(submission))
            if _accepted(current):
                raise DemoError("an intake worker did not rest while the backlog was made")
            started = time.perf_counter()
            self._work(intake[:workers])
            _wait(lambda current=current: _accepted(current) >= INTAKE_DEVICES)  # type: ignore[misc]
            found[workers].append(INTAKE_DEVICES / (time.perf_counter() - started))
            self._work(intake[workers:])
            _wait(lambda current=current: _state(current) == RoundState.PUBLISHED)  # type: ignore[misc]
        one, two = (median(found[workers][1:]) for workers in (1, 2))
        yield "intake_one_worker_per_s", one, "1/s"
        yield "intake_two_workers_per_s", two, "1/s"
        yield "two_workers_over_one", two / one, "x"

    def _rounds_of(self, count: int, rounds: int, *, together: bool) -> list[dict[str, float]]:
        plan = self._open(count, rounds)
        return [self._round(plan, number, together=together) for number in range(1, rounds + 1)]

    def _round(self, plan: RoundPlan, number: int, *, together: bool) -> dict[str, float]:
        current = self._collecting(plan, number)
        envelopes = list(self._envelopes(plan, current).items())
        digests = {identity: parse_envelope(raw, limit_bytes=len(raw)).signed_digest for identity, raw in envelopes}
        for position, (identity, envelope) in enumerate(envelopes, 1):
            if position == len(envelopes) and not together:
                _wait(lambda: _accepted(current) == len(envelopes) - 1)
            sent_at = time.time()
            self._fleet[identity].line.submit(str(current.id), envelope, submission_digest=digests[identity])
        _wait(lambda: _state(current) in (RoundState.PUBLISHED, RoundState.FAILED))
        current.refresh_from_db()
        if current.published_at is None or current.last_update_at is None:
            raise DemoError(f"round {number} of {len(envelopes)} devices failed: {current.failure_code}")
        return {
            "published": (current.published_at - current.last_update_at).total_seconds(),
            "request": current.published_at.timestamp() - sent_at,
            **current.stage_seconds,
        }

    def _peaks_mib(self) -> dict[str, float]:
        """The most that a worker of each role had resident since its start."""
        peaks: dict[str, float] = {}
        for child in self._processes.children:
            if queue := _WORKERS.get(child.name):
                peaks[queue] = max(peaks.get(queue, 0.0), _peak_mib(child.process.pid))
        return peaks

    def _open(self, devices: int, rounds: int) -> RoundPlan:
        plan = large_plan(
            parameters=self._parameters, devices=devices, rounds=rounds, federation_id=str(self._federation.id)
        )
        trainings.open_training(federation=self._federation, plan=plan, actor="bench")
        tasks.sign_training.delay(plan.training_id)
        self._encoded = {0: [encoded_update(plan, seed) for seed in range(_VECTORS)]}
        return plan

    def _collecting(self, plan: RoundPlan, number: int) -> Round:
        rows = Round.objects.filter(training_id=UUID(plan.training_id), number=number)
        self._patiently(lambda: rows.filter(state=RoundState.RECRUITING).exists())
        current = rows.get()
        for participant in current.participants.values_list("device_id", flat=True):
            coordination.join_round(round_id=current.id, device=self._fleet[str(participant)].device)
        tasks.advance_round.delay(str(current.id))
        self._patiently(lambda: rows.filter(state=RoundState.COLLECTING).exists())
        return current

    def _patiently(self, holds: Callable[[], bool]) -> None:
        self._processes.require_alive()
        _wait(holds)

    def _envelopes(self, plan: RoundPlan, current: Round) -> dict[str, bytes]:
        assignment = Assignment.from_bytes(bytes(current.assignment))
        recipient = EncapsulationKey.from_raw(assignment.recipient_key, assignment.recipient_algorithm)
        return {
            str(identity): sealed_update(
                plan,
                self._encoded[0][position % _VECTORS],
                round_id=assignment.round_id,
                base_model_digest=assignment.base_model_digest,
                recipient=recipient,
                signing_key=self._fleet[str(identity)].keys.signing,
            )
            for position, identity in enumerate(current.participants.values_list("device_id", flat=True))
        }

    def _hand_in(self, current: Round, identity: str, envelope: bytes) -> None:
        """What the door does with whole bytes, without telling the workers."""
        digest = parse_envelope(envelope, limit_bytes=len(envelope)).signed_digest.hex()
        with BlobWriter() as writer:
            writer.write(envelope)
            ingress.accept(
                round_id=current.id,
                device=self._fleet[identity].device,
                writer=writer,
                declared_digest=digest,
                via="bench",
            )

    def _rest(self, workers: Sequence[str]) -> None:
        self._tell("cancel_consumer", workers)

    def _work(self, workers: Sequence[str]) -> None:
        self._tell("add_consumer", workers)

    def _tell(self, command: str, workers: Sequence[str]) -> None:
        if not workers:
            return
        names = [f"{worker}@bench" for worker in workers]
        said = app.control.broadcast(
            command, arguments={"queue": "intake"}, destination=names, reply=True, timeout=PATIENCE_SECONDS
        )
        if len(said) < len(names):
            raise DemoError(f"a worker of {', '.join(names)} does not answer")


def _start(processes: Processes, port: int) -> str:
    """Web server, workers by role and heartbeat, each a process of its own; returns the server's address."""
    address = f"http://127.0.0.1:{port}"
    quiet = ["--log-level", "warning", "--no-access-log"]
    web = ["-m", "uvicorn", "controlplane.asgi:application", "--port", str(port), "--lifespan", "on", *quiet]
    processes.start("web", [*web, "--ws", "websockets-sansio"])
    celery = ["-m", "celery", "-A", "controlplane.celery"]
    for name, queue in _WORKERS.items():
        options = ["-n", f"{name}@bench", "-c", "1", "-l", "WARNING", "--without-gossip", "--without-mingle"]
        processes.start(name, [*celery, "worker", "-Q", queue, *options])
    processes.start("beat", [*celery, "beat", "-l", "WARNING", "-S", "celery.beat:Scheduler"])
    _wait(lambda: _answers(f"{address}/healthz"))
    processes.require_alive()
    return address


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _require_idle_broker() -> None:
    with app.connection_for_write() as connection:
        channel = connection.default_channel
        for queue in QUEUES:
            declared = channel.queue_declare(queue, durable=True, auto_delete=False)
            if declared.consumer_count:
                raise DemoError("somebody works on this virtual host of the broker: give the bench one of its own")
            channel.queue_purge(queue)


def _peak_mib(pid: int) -> float:
    """The largest high-water mark of a process and its children: a worker's tasks run in a child."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    own = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return max([own, *(_peak_mib(int(child)) for child in children)])


def _state(current: Round) -> str:
    return str(Round.objects.values_list("state", flat=True).get(pk=current.pk))


def _accepted(current: Round) -> int:
    return Contribution.objects.filter(partial__round=current).count()


def _wait(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise DemoError(f"nothing happened for {PATIENCE_SECONDS:.0f} s")
        time.sleep(0.025)  # asking costs the processors that are measured; the times are the database's own

"""The main job, end to end: a control plane, one agent process for each hospital, one training, and what it was worth.

``./ward demo`` runs this. It knows nothing that an operator's tool could not know: it signs in by a one-time link and
speaks REST. Only the comparison at the end looks at all hospitals' rows, which a demonstration may and a server never
does. A second start goes on where the first stopped; everything lies in ``./var`` (or ``LATTICEWARD_VAR``).
"""

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
import time
import webbrowser
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final
from urllib.parse import urlsplit

from bench.board import Board, Scene, name_of, result_console
from bench.operator_api import OperatorApi
from bench.outcome import compare, medians, newest_model, print_comparison
from bench.processes import ROOT, Child, DemoError, Processes, rss_mib, start_server
from latticeward.errors import LatticewardError
from latticeward.jobs import JOB_SPECS
from latticeward.updates.tensors import FloatVector

FOLDERS: Final = ("db", "blobs", "vault", "agents", "logs")
POLL_SECONDS: Final = 0.5
ENROLMENT_SECONDS: Final = 90.0
MODEL_SECONDS: Final = 30.0
LEDGER_SECONDS: Final = 5.0
_UNFINISHED: Final = ("draft", "signing", "running")


class Demo:
    """One run of the demonstration."""

    def __init__(self, options: argparse.Namespace, var: Path, board: Board, processes: Processes) -> None:
        self._options = options
        self._job = JOB_SPECS[options.job]
        self._var = var
        self._board = board
        self._processes = processes
        self._agents: list[Child] = []
        self._first_published: float | None = None

    def run(self) -> dict[str, Any]:
        """From nothing, or from where an earlier run stopped, to the end of a training; returns the summary."""
        ready = self._start_server()
        api = OperatorApi(ready["address"])
        api.sign_in(ready["tool_sign_in"])
        self._refuse_other_job(api)
        self._enrol(api)
        self._start_agents(api)
        training = self._open_training(api)
        scene = self._watch(api, training)
        return self._conclude(api, scene)

    def stay(self) -> None:
        """Keep everything running until Ctrl-C."""
        self._board.say("\nThe pages stay live. Ctrl-C ends everything.")
        while True:
            time.sleep(1)
            self._processes.require_alive()

    def _home(self, site: str) -> Path:
        return self._var / "agents" / site

    def _enrolled_at(self) -> int | None:
        """The port that enrolled agents know: their trust is bound to that address."""
        for site in self._job.sites:
            with contextlib.suppress(OSError, ValueError, KeyError):
                identity = json.loads((self._home(site) / "identity.json").read_text(encoding="utf-8"))
                return urlsplit(str(identity["server"])).port
        return None

    def _start_server(self) -> dict[str, Any]:
        port: int | None = self._options.port
        enrolled_at = self._enrolled_at()
        if enrolled_at is not None and port not in (None, enrolled_at):
            raise DemoError(f"the hospitals here know port {enrolled_at}: leave out --port, or add --fresh")
        with self._board.step("starting the control plane"):
            ready = start_server(self._processes, port=port or enrolled_at)
        wanted = urlsplit(ready["address"]).port
        if port is None and wanted not in (enrolled_at, 8750):
            self._board.say(f"  · port 8750 is in use by another program: taking {wanted}")
        self._board.announce(f"Address    {ready['address']}", f"Sign in    {ready['sign_in']}   (one use, 10 minutes)")
        if self._wants_browser():
            webbrowser.open(ready["sign_in"])
        return ready

    def _wants_browser(self) -> bool:
        shown = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        return bool(shown) and not (self._options.no_browser or self._options.once)

    def _refuse_other_job(self, api: OperatorApi) -> None:
        others = {device["site"] for device in api.rows("/api/v1/devices?page_size=200")} - set(self._job.sites)
        if others:
            raise DemoError(
                f"{self._var} holds another job ({', '.join(sorted(map(name_of, others)))}). "
                "Add --fresh to begin anew, or set LATTICEWARD_VAR to another folder."
            )

    def _enrol(self, api: OperatorApi) -> None:
        missing = [site for site in self._job.sites if not (self._home(site) / "identity.json").exists()]
        if not missing:
            self._board.say(f"  · {len(self._job.sites)} hospitals are enrolled already")
            return
        with self._board.step(f"enrolling {len(missing)} hospitals: four keys each, made and proven on the device"):
            known = {row["slug"] for row in api.rows("/api/v1/sites?page_size=200")}
            for site in missing:
                if site not in known:
                    api.post("/api/v1/sites", {"slug": site, "name": name_of(site)})
                claim = api.post("/api/v1/claims", {"site": site, "device_class": "edge-server", "auto_approve": True})
                arguments = ["enrol", "--home", str(self._home(site)), "--name", f"{site}-1"]
                self._agents.append(self._start_agent(site, arguments, stdin=f"{claim['uri']}\n".encode()))
            deadline = time.monotonic() + ENROLMENT_SECONDS
            for child in self._agents:
                while (status := child.process.poll()) is None:
                    if time.monotonic() > deadline:
                        raise DemoError(f"{child.name} not enrolled within {ENROLMENT_SECONDS:.0f} s: see {child.log}")
                    self._processes.children[0].require_alive()
                    time.sleep(0.02)
                if status != 0:
                    child.require_alive()
                self._processes.forget(child)
            self._agents.clear()

    def _start_agent(self, site: str, arguments: Sequence[str], *, stdin: bytes | None = None) -> Child:
        return self._processes.start(f"agent-{site}", ["-m", "latticeward.agent", *arguments], stdin=stdin)

    def _start_agents(self, api: OperatorApi) -> None:
        with self._board.step(f"starting {len(self._job.sites)} agents, one process a hospital"):
            for site in self._job.sites:
                self._agents.append(
                    self._start_agent(site, ["run", "--home", str(self._home(site)), "--job", self._job.name])
                )
            deadline = time.monotonic() + ENROLMENT_SECONDS
            while True:
                active = {row["site"] for row in api.rows("/api/v1/devices?page_size=200") if row["state"] == "active"}
                if set(self._job.sites) <= active:
                    return
                if time.monotonic() > deadline:
                    waiting = ", ".join(sorted(map(name_of, set(self._job.sites) - active)))
                    raise DemoError(f"not active after {ENROLMENT_SECONDS:.0f} s: {waiting}")
                self._processes.require_alive()
                time.sleep(0.1)

    def _open_training(self, api: OperatorApi) -> str:
        trainings = api.rows(f"/api/v1/trainings?job={self._job.name}")
        unfinished = next((row for row in trainings if row["state"] in _UNFINISHED), None)
        if unfinished is not None:
            done, total = unfinished["rounds_done"], unfinished["rounds_max"]
            self._board.say(f"  · going on with the training that was under way: {done} of {total} rounds are done")
            return str(unfinished["id"])
        if trainings:
            self._board.say("  · the last training here is finished: starting a new one")
        rounds = self._options.rounds or self._job.default_plan["rounds"]
        opened = api.post("/api/v1/trainings", {"job": self._job.name, "rounds": rounds})
        return str(opened["id"])

    def _watch(self, api: OperatorApi, training: str) -> Scene:
        started = time.monotonic()
        with self._board.watching():
            while True:
                scene = Scene(
                    training=api.get(f"/api/v1/trainings/{training}"),
                    rounds=sorted(
                        api.rows(f"/api/v1/rounds?page_size=200&training={training}"),
                        key=lambda row: int(row["number"]),
                    ),
                )
                if self._first_published is None and scene.training["rounds_done"]:
                    self._first_published = time.monotonic()
                self._board.show(scene, seconds=time.monotonic() - started)
                if scene.training["state"] not in _UNFINISHED:
                    break
                self._processes.require_alive()
                time.sleep(POLL_SECONDS)
        if scene.training["state"] != "completed":
            codes = ", ".join(sorted({row["failure_code"] for row in scene.rounds if row["failure_code"]}))
            state = scene.training["state"]
            raise DemoError(f"the training is {state} ({codes or 'no code'}); see {self._var / 'logs'}")
        return scene

    def _conclude(self, api: OperatorApi, scene: Scene) -> dict[str, Any]:
        training = scene.training
        numbers = [row["number"] for row in scene.rounds if row["kind"] == "training" and row["state"] == "published"]
        vector = self._final_model(str(training["id"]), max(numbers))
        memory = self._memory()
        with self._board.step("training the references: each hospital alone, and all rows in one place"):
            comparison = compare(self._job.name, vector)
        api.put(f"/api/v1/trainings/{training['id']}/comparison", comparison)
        print_comparison(result_console(to_stderr=self._options.json), comparison, rounds=training["rounds_done"])
        ledger = self._settled_ledger(api)
        began = self._options.started_at
        return {
            "job": self._job.name,
            "metric": comparison["metric"],
            "rounds": training["rounds_done"],
            "hospitals": list(self._job.sites),
            "pooled": comparison["pooled"],
            "central": comparison["central"],
            "single": comparison["single"],
            "by_site": comparison["by_site"],
            "pooled_by_round_binned": [round(value, 4) for value in scene.measured],
            "seconds_total": round(time.monotonic() - began, 3),
            "seconds_to_first_round": round((self._first_published or time.monotonic()) - began, 3),
            **medians(scene),
            "submissions_accepted": scene.accepted,
            "ledger_size": ledger["size"],
            "ledger_root": ledger["root"],
            "suite": training["suite"],
            "plan_digest": training["plan_digest"],
            **memory,
        }

    def _final_model(self, training: str, number: int) -> FloatVector:
        """The last model as every hospital holds it; they must hold the same one."""
        deadline = time.monotonic() + MODEL_SECONDS
        while True:
            held = [newest_model(self._home(site), training=training) for site in self._job.sites]
            vectors = [model[1] for model in held if model is not None and model[0] == number]
            if len(vectors) == len(held) or (vectors and time.monotonic() > deadline):
                break
            if time.monotonic() > deadline:
                raise DemoError(f"no hospital has stored model {number} of the training; see {self._var / 'logs'}")
            time.sleep(0.1)
        if any(vector.tobytes() != vectors[0].tobytes() for vector in vectors):
            raise DemoError("the hospitals hold different models under one number: the server must have lied to some")
        return vectors[0]

    def _settled_ledger(self, api: OperatorApi) -> dict[str, Any]:
        """The newest tree head, once every entry has its number; entries are numbered about once a second."""
        deadline = time.monotonic() + LEDGER_SECONDS
        while True:
            head: dict[str, Any] = api.get("/api/v1/ledger")
            if not head["waiting"] or time.monotonic() > deadline:
                return head
            time.sleep(0.1)

    def _memory(self) -> dict[str, float]:
        return {
            "server_rss_mib": round(rss_mib(self._processes.children[0].process.pid), 1),
            "agent_rss_mib": round(max(rss_mib(agent.process.pid) for agent in self._agents), 1),
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 0 at the end or after Ctrl-C, 1 if the job failed."""
    options = _parser().parse_args(arguments)
    var = Path(os.environ.get("LATTICEWARD_VAR") or ROOT / "var").absolute()
    board = Board()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)  # SIGINT too: a shell script's background jobs inherit it ignored
    try:
        with _only_one(var):
            if options.fresh:
                for folder in FOLDERS:
                    shutil.rmtree(var / folder, ignore_errors=True)
            with Processes(logs=var / "logs", environment={"LATTICEWARD_VAR": str(var)}) as processes:
                demo = Demo(options, var, board, processes)
                summary = demo.run()
                if not options.once:
                    if options.json:
                        print(json.dumps(summary), flush=True)
                    demo.stay()
        if options.json:
            print(json.dumps(summary), flush=True)
    except KeyboardInterrupt:
        board.say("\nStopped. The next start goes on from here.")
        return 130 if options.once else 0
    except (DemoError, LatticewardError) as error:
        board.say(f"\n✗ {error}", style="red")
        return 1
    return 0


@contextlib.contextmanager
def _only_one(var: Path) -> Iterator[None]:
    var.mkdir(parents=True, exist_ok=True)
    with (var / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            said = f"a demonstration runs in {var} already; LATTICEWARD_VAR names a folder for a second one"
            raise DemoError(said) from error
        yield


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ward demo", description="The main job: four hospitals train one model.")
    parser.add_argument("--job", choices=sorted(JOB_SPECS), default="heart")
    parser.add_argument("--rounds", type=_positive, help="default: the job's own number")
    parser.add_argument("--once", action="store_true", help="end after the training")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--port", type=_positive, help="default 8750, or the next free one")
    parser.add_argument("--fresh", action="store_true", help="forget database, blobs, vault, agents and logs first")
    parser.add_argument("--no-browser", action="store_true", help="do not open the page")
    parser.add_argument("--started-at", type=float, default=time.monotonic(), help=argparse.SUPPRESS)
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


if __name__ == "__main__":
    sys.exit(main())

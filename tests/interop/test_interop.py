"""Devices that share only docs/protocol.md with the product take part in a training of the real server, over HTTP."""

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.operator_api import OperatorApi
from bench.processes import Processes, start_server
from tests.architecture.test_imports import imported_roots
from tests.interop import wire
from tests.interop.client import Device
from tests.interop.plans import assigned, contribution, starting_weights, version_zero
from tests.interop.proofs import proven_entry
from tests.interop.records import recorded_model, round_record
from tests.interop.signed_http import JSON, Problem

HERE = Path(__file__).parent
SITES = ("north", "east", "south", "west")
PATIENCE_SECONDS = 60.0


def start(processes: Processes) -> OperatorApi:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    ready = start_server(processes, port=port)
    api = OperatorApi(ready["address"])
    api.sign_in(ready["tool_sign_in"])
    return api


def claim(api: OperatorApi, site: str) -> str:
    api.post("/api/v1/sites", {"slug": site, "name": site.title()})
    made = api.post("/api/v1/claims", {"site": site, "device_class": "workstation", "auto_approve": True})
    return str(made["uri"])


@pytest.fixture(scope="module", autouse=True)
def plain_environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as changed:
        for name in list(os.environ):
            if name.startswith("LATTICEWARD_") and not name.startswith("LATTICEWARD_TEST_"):
                changed.delenv(name)
        yield


def processes_in(var: Path) -> Processes:
    settings = {"LATTICEWARD_VAR": str(var), "DJANGO_SETTINGS_MODULE": "controlplane.settings"}
    return Processes(logs=var / "logs", environment=settings)


@pytest.fixture(scope="module")
def processes(plain_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with processes_in(tmp_path_factory.mktemp("var")) as running:
        yield running


@pytest.fixture(scope="module")
def api(processes: Processes) -> OperatorApi:
    return start(processes)


@pytest.fixture(scope="module")
def devices(api: OperatorApi) -> list[Device]:
    enrolled = [Device(claim(api, site), name=site) for site in SITES]
    for device in enrolled:
        device.enrol()
    return enrolled


def work(device: Device, *, wait: float = 0, after: str = "") -> Any:
    return device.ask_json("/api/v1/work", f"wait={wait}&after={after}")[1]


def join(device: Device, round_id: str) -> Any:
    return json.loads(device.ask("POST", f"/api/v1/rounds/{round_id}/join", body=b"{}", content_type=JSON)[2])


def floats(weights: bytes) -> np.ndarray:
    return np.frombuffer(weights, "<f4")


def next_round(device: Device, training: str, number: int) -> dict[str, Any]:
    """Wait for a round of this training as a device does, by long polls."""
    token, deadline = "", time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        told = work(device, wait=5, after=token)
        token = told["token"]
        for row in told["rounds"]:
            if (row["training"], row["number"]) == (training, number):
                return dict(row)
    raise AssertionError(f"round {number} did not come")


def reach(device: Device, round_id: str, state: str) -> None:
    """Wait until a round is in a state."""
    token, deadline = "", time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        told = work(device, wait=5, after=token)
        token = told["token"]
        if any((row["round"], row["state"]) == (round_id, state) for row in told["rounds"]):
            return
    raise AssertionError(f"the round did not become {state}")


def counts_of(seed: int) -> list[int]:
    return [int(number) for number in np.random.default_rng(seed).integers(0, 3, 512)]


def pooled_auc(histograms: list[list[int]]) -> float:
    """The share of pairs of a sick and a healthy patient whose scores are in the right order; a tie is half."""
    negatives, positives = np.split(np.sum(histograms, axis=0), 2)
    pairs = product(enumerate(negatives), enumerate(positives))
    right = sum(n * p * (1.0 if high > low else 0.5 if high == low else 0.0) for (low, n), (high, p) in pairs)
    return float(right / (negatives.sum() * positives.sum()))


def test_the_client_needs_two_packages_and_nothing_of_the_product() -> None:
    allowed = sys.stdlib_module_names | {"cryptography", "cbor2", "tests"}
    parts = [path for path in HERE.glob("*.py") if not path.name.startswith("test_")]
    assert {path.stem for path in parts} >= {"client", "wire", "signed_http", "plans", "records", "proofs"}
    for path in parts:
        assert imported_roots(path) <= allowed
        lines = path.read_text(encoding="utf-8").splitlines()
        ours = [line for line in lines if line.startswith(("from tests", "import tests"))]
        assert all(line.startswith("from tests.interop") for line in ours)


def test_a_training_from_the_first_contribution_to_the_last_proof(api: OperatorApi, devices: list[Device]) -> None:
    training = api.post("/api/v1/trainings", {"job": "heart", "rounds": 1})["id"]
    current = next_round(devices[0], training, 1)["round"]
    updates, histograms, receipts = [], [], []
    examples = (120, 300, 250, 900)  # the last is held at the plan's cap of 400

    for number, device in enumerate(devices):
        plan, assignment = assigned(device, current)
        assert (plan["job"], assignment["kind"], assignment["base_model"]) == ("heart", "training", None)
        assert join(device, current)["participant"] == "joined"
        updates.append(np.random.default_rng(number).normal(size=36).astype(np.float32) * (0.1 + number))
        histograms.append(counts_of(number))
    reach(devices[0], current, "collecting")
    base = version_zero(plan)
    assert wire.digest("latticeward/weights/v1", base) == assignment["base_model_digest"]
    for device, update, weight, histogram in zip(devices, updates, examples, histograms, strict=True):
        plaintext = contribution(plan, "training", update.tolist(), weight, histogram)
        receipts.append(device.submit(assignment, plaintext))
    for device, receipt in zip(devices, receipts, strict=True):
        outcome = device.ask_json(f"/api/v1/submissions/{receipt['submission_id']}", "wait=20")[1]
        assert (outcome["state"], outcome["code"]) == ("accepted", None)

    reach(devices[0], current, "published")
    records = [
        round_record(device, assignment, receipt["submission_digest"])
        for device, receipt in zip(devices, receipts, strict=True)
    ]
    record = records[0]
    assert all(other == record for other in records)
    assert (record["accepted"], [row["outcome"] for row in record["participants"]]) == (4, ["accepted"] * 4)
    assert record["metric"] == {
        "name": "auc",
        "value": pytest.approx(pooled_auc(histograms), abs=1e-9),
        "hospitals": 4,
        "patients": sum(map(sum, histograms)),
    }
    models = [recorded_model(device, record) for device in devices]
    assert all(model == models[0] for model in models)
    assert np.allclose(floats(models[0]), floats(base) + expected_mean(plan, updates, examples), atol=1e-6)

    evaluated = next_round(devices[0], training, 2)
    assert evaluated["base_model"] == record["model_id"]
    for device in devices:
        _, evaluation = assigned(device, evaluated["round"])
        assert (evaluation["kind"], evaluation["base_model_digest"]) == ("evaluation", record["weights_digest"])
        join(device, evaluated["round"])
    reach(devices[0], evaluated["round"], "collecting")
    for device, weight, histogram in zip(devices, examples, histograms, strict=True):
        last_receipt = device.submit(evaluation, contribution(plan, "evaluation", [0.0] * 36, weight, histogram))
    reach(devices[0], evaluated["round"], "published")
    last = round_record(devices[-1], evaluation, last_receipt["submission_digest"])
    assert (last["model_id"], last["weights_digest"], last["metric"]) == (None, None, record["metric"])

    for device, receipt in zip(devices, receipts, strict=True):
        entry = proven_entry(device, receipt["submission_id"], receipt["submission_digest"])
        assert entry["actor"] == f"device:{device.id}"
        assert entry["feed"] == f"round:{current}"


def test_a_training_that_starts_from_a_version_of_another(api: OperatorApi, devices: list[Device]) -> None:
    examples = (100, 100, 100, 100)
    updates = [np.random.default_rng(number).normal(size=36).astype(np.float32) for number in range(4)]
    opening: dict[str, Any] = {"job": "heart", "rounds": 1, "plan": {"evaluate_last": False}}
    version, weights = None, b""
    for _ in range(2):
        training = api.post("/api/v1/trainings", {**opening, **({"start_from": version} if version else {})})
        current = next_round(devices[0], training["id"], 1)["round"]
        for device in devices:
            plan, assignment = assigned(device, current)
            assert assignment["base_model"] == version == training["start_from"]
            base = starting_weights(device, plan)
            assert version is None or base == weights
            join(device, current)
        reach(devices[0], current, "collecting")
        for number, device in enumerate(devices):
            plaintext = contribution(plan, "training", updates[number].tolist(), examples[number], counts_of(number))
            receipt = device.submit(assignment, plaintext)
        reach(devices[0], current, "published")
        record = round_record(devices[-1], assignment, receipt["submission_digest"])
        version, weights = record["model_id"], recorded_model(devices[-1], record)
        assert np.allclose(floats(weights), floats(base) + expected_mean(plan, updates, examples), atol=1e-6)


def expected_mean(plan: dict[str, Any], updates: list[np.ndarray], examples: tuple[int, ...]) -> np.ndarray:
    clipped = [update * min(1.0, plan["clip_norm"] / np.linalg.norm(update)) for update in updates]
    shares = [min(number, plan["weight_cap"]) for number in examples]
    return np.average(clipped, axis=0, weights=shares)


def test_a_claim_code_works_once(api: OperatorApi) -> None:
    used = claim(api, SITES[0])
    Device(used).enrol()
    with pytest.raises(Problem) as caught:
        Device(used).enrol()
    assert (caught.value.status, caught.value.code) == (403, "claim_refused")


def test_a_device_cannot_sign_for_another(devices: list[Device]) -> None:
    own, other = devices[0].keys, devices[1].keys
    impostor = Device.__new__(Device)
    impostor.__dict__.update(devices[0].__dict__)
    impostor.keys = wire.Keys()
    impostor.keys.authentication, impostor.keys.classical = other.authentication, other.classical
    impostor.keys.public = own.public
    with pytest.raises(Problem) as caught:
        work(impostor)
    assert (caught.value.status, caught.value.code) == (403, "invalid_signature")


def test_an_upload_over_the_limit_is_refused_while_its_body_is_still_at_home(devices: list[Device]) -> None:
    path = "/api/v1/rounds/00000000-0000-4000-8000-000000000000/submissions"
    headers = devices[0].signed("POST", path, "", b"", {"idempotency-key": "0" * 64})
    lines = [f"POST {path} HTTP/1.1", f"host: {devices[0].authority}", f"content-length: {2**40}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    host, _, port = devices[0].authority.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = line.recv(4096)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in answer


def test_a_stopping_server_lets_waiting_devices_go(tmp_path: Path) -> None:
    with processes_in(tmp_path) as running:
        device = Device(claim(start(running), SITES[0]))
        device.enrol()
        token = work(device)["token"]
        answers: list[Any] = []
        waiting = threading.Thread(target=lambda: answers.append(work(device, wait=25, after=token)))
        waiting.start()
        time.sleep(0.5)
        started = time.monotonic()
        server = running.children[0].process
        server.send_signal(signal.SIGTERM)
        waiting.join(20)
        assert [answer["token"] for answer in answers] == [token]
        assert server.wait(20) == 0
        assert time.monotonic() - started < 15

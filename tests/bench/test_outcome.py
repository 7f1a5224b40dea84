"""What the demonstration says at the end: medians of the right rounds, and a table with its warning."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from bench.board import Board, Scene
from bench.outcome import medians, newest_model, print_comparison


def a_round(number: int, **changes: Any) -> dict[str, Any]:
    participants = [
        {"device": site, "site": site, "state": "accepted", "code": None, "stage_seconds": {"verify": 0.001 * number}}
        for site in ("cleveland", "hungary")
    ]
    return {
        "number": number,
        "kind": "training",
        "state": "published",
        "quorum": 2,
        "invited": 2,
        "accepted": 2,
        "participants": participants,
        "metric": {"name": "auc", "value": 0.8},
        "failure_code": None,
        "stage_seconds": {"merge": 0.002},
        "seconds": float(number),
        "seconds_last_update_to_published": 0.1 * number,
        **changes,
    }


def a_scene(*rounds: dict[str, Any]) -> Scene:
    training = {
        "title": "Heart disease",
        "suite": "hybrid",
        "state": "running",
        "metric": "auc",
        "rounds_done": len(rounds),
        "rounds_max": 15,
        "metrics": [{"value": 0.8}],
    }
    return Scene(training=training, rounds=rounds)


def test_medians_count_published_training_rounds_only() -> None:
    scene = a_scene(
        a_round(1), a_round(2), a_round(3), a_round(40, kind="evaluation"), a_round(50, state="failed", seconds=None)
    )
    found = medians(scene)
    assert found["seconds_per_round_median"] == 2.0
    assert found["seconds_last_update_to_published_median"] == 0.2
    assert found["stage_milliseconds_median"] == {"merge": 2.0, "verify": 2.0}


def test_without_a_published_round_there_is_no_median() -> None:
    assert medians(a_scene())["seconds_per_round_median"] is None


def test_a_model_of_another_training_is_not_taken(tmp_path: Path) -> None:
    assert newest_model(tmp_path, training="t1") is None
    np.savez(tmp_path / "model.npz", vector=np.zeros(3, np.float32), number=np.int64(4), training_id=np.str_("t1"))
    found = newest_model(tmp_path, training="t1")
    assert found is not None
    assert found[0] == 4
    assert newest_model(tmp_path, training="t2") is None


def test_a_small_sample_carries_its_warning() -> None:
    text = io.StringIO()
    comparison = {
        "metric": "auc",
        "pooled": 0.9,
        "central": 0.91,
        "single": {"cleveland": 0.87, "switzerland": 0.75},
        "by_site": {
            "cleveland": {"value": 0.92, "small_sample": False, "examples": 91},
            "switzerland": {"value": 0.8, "small_sample": True, "examples": 37},
        },
    }
    print_comparison(Console(file=text, width=120), comparison, rounds=15)
    said = text.getvalue()
    assert "Switzerland alone" in said
    assert "-0.150" in said
    assert "Switzerland 0.800 (small sample" in said
    assert "Cleveland 0.920;" in said


def test_without_a_terminal_each_round_is_told_once() -> None:
    board = Board()
    board.console = Console(file=io.StringIO(), width=200)
    scene = a_scene(a_round(1), a_round(2, state="collecting", seconds=None))
    for _ in range(2):
        board.show(scene, seconds=1.0)
    said = board.console.file.getvalue()  # type: ignore[attr-defined]
    assert said.count("round 1 published") == 1
    assert "round 2" not in said


def test_on_a_terminal_the_board_names_hospitals_quorum_and_phase() -> None:
    board = Board()
    board.console = Console(file=io.StringIO(), width=100, force_terminal=True)
    with board.watching():
        board.show(a_scene(a_round(1, state="collecting", accepted=1)), seconds=3.0)
    said = board.console.file.getvalue()  # type: ignore[attr-defined]
    for part in ("Cleveland", "collecting", "1 of 2 updates accepted, quorum 2", "1 of 15 rounds"):
        assert part in said

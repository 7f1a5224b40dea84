"""The curves as pictures: complete, apart from each other, readable in both themes, and those of the documents."""

import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path

import pytest

from bench.chart import HEIGHT, Curve, draw
from latticeward.jobs import JOB_SPECS

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"
CURVES = [
    Curve("federated", "federated", [0.5, 0.8, 0.9]),
    Curve("central", "central", [0.6, 0.85, 0.9]),
    Curve("A & B alone", "single", [0.5, 0.6, 0.899]),
]


def test_every_curve_has_a_line_and_a_label_of_its_last_value() -> None:
    root = ElementTree.fromstring(draw(CURVES, title="Heart <3", unit="AUC"))
    lines = root.findall(f"{SVG}polyline")
    assert sorted(line.attrib["class"] for line in lines) == ["central", "federated", "single"]
    assert all(len(line.attrib["points"].split()) == 3 for line in lines)
    said = [text.text for text in root.findall(f"{SVG}text")]
    assert {"federated 0.900", "central 0.900", "A & B alone 0.899", "Heart <3"} <= set(said)
    described = root.find(f"{SVG}desc")
    assert described is not None and described.text is not None and "after 3 rounds" in described.text


@pytest.mark.parametrize("last", [0.5, 0.7, 0.95])
def test_labels_of_equal_values_do_not_lie_on_each_other(last: float) -> None:
    curves = [Curve(f"curve {number}", "single", [0.5, last]) for number in range(6)]
    curves.append(Curve("top", "federated", [0.5, 0.95]))
    root = ElementTree.fromstring(draw(curves, title="t", unit="AUC"))
    labels = [text for text in root.findall(f"{SVG}text") if text.attrib.get("class") in ("single", "federated")]
    heights = sorted(float(text.attrib["y"]) for text in labels)
    assert all(below - above >= 14.9 for above, below in pairwise(heights))
    assert heights[0] > 0 and heights[-1] < HEIGHT


def test_a_dark_page_gets_its_own_colours() -> None:
    assert "prefers-color-scheme: dark" in draw(CURVES, title="t", unit="AUC")


@pytest.mark.parametrize("job", sorted(JOB_SPECS))
def test_the_document_shows_every_job_s_picture(job: str) -> None:
    assert f"(img/curve-{job}.svg)" in (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    picture = ElementTree.parse(ROOT / "docs" / "img" / f"curve-{job}.svg").getroot()
    assert len(picture.findall(f"{SVG}polyline")) == 2 + len(JOB_SPECS[job].sites)

"""The documents against the code: tables copied from it, names that must exist, words that must be explained."""

import dataclasses
import re
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

from controlplane.environment import Environment
from controlplane.errors import PROBLEMS
from controlplane.urls import urlpatterns
from latticeward import messages
from latticeward.agent.config import AgentConfig
from latticeward.agent.floor import Floor
from latticeward.crypto.envelope_header import EnvelopeHeader
from latticeward.crypto.signing import Purpose
from latticeward.crypto.suites import SUITES
from latticeward.encipherment import EnciphermentAnswer
from latticeward.enrolment_messages import EnrolmentAnswer
from latticeward.plan import RoundPlan
from latticeward.statements import KeyStatement
from latticeward.trust import TrustStatement
from rounds.endpoints import ROUTES
from tests.architecture.worked_values import worked_values

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "adr").glob("*.md")])
ADRS = sorted((ROOT / "docs" / "adr").glob("*.md"))
SECTIONS = ["Problem", "Drivers", "Options", "Decision", "Consequences"]
# The words that have one meaning here; the glossary explains each.
WORDS = """
federation, site, device, agent, authority, door,
enrolment, claim code, certificate, key statement, trust anchor, trust statement, trust store, purpose, epoch, revoke,
suspend, training, round, plan, cohort, participant, assignment, example, update, tensor layout, clip norm, encode,
protection, view, mask, submission, receipt, submission receipt, quorum, k-minimum, straggler, dropped, accumulate,
finalize, partial, aggregate, noise multiplier, privacy budget, evaluation round, model version, alias, manifest,
round record, floor, envelope, stanza, suite, encapsulation key, signing key, vault, inventory, audit entry, ledger,
checkpoint, inclusion proof, consistency proof, feed
"""
_NAMED_PATH = re.compile(
    r"`((?:bench|controlplane|devices|docs|frontend|keys|latticeward|rounds|tests)/[\w./-]+?(?:/|\.\w+))`"
)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def between(text: str, name: str) -> str:
    begin, end = f"<!-- {name}: begin -->\n", f"\n<!-- {name}: end -->"
    return text[text.index(begin) + len(begin) : text.index(end)]


def load_ward() -> ModuleType:
    loader = SourceFileLoader("ward", str(ROOT / "ward"))
    spec = spec_from_loader("ward", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def codes_table() -> str:
    rows = ["| code | status | retryable | sentence |", "|---|---|---|---|"]
    for error, (status, sentence) in sorted(PROBLEMS.items(), key=lambda row: (row[1][0], row[0].code)):
        rows.append(f"| `{error.code}` | {status} | {'yes' if error.retryable else 'no'} | {sentence} |")
    return "\n".join(rows)


def test_the_table_of_codes_is_that_of_the_code() -> None:
    assert between(read("docs/api.md"), "codes") == codes_table()


def test_the_worked_values_are_what_the_code_computes() -> None:
    lines = [f"{name}\n    {value}" for name, value in worked_values()]
    assert between(read("docs/protocol.md"), "worked values") == "\n".join(["```", *lines, "```"])


def test_the_glossary_explains_every_word() -> None:
    explained = set(re.findall(r"\*\*([^*]+)\*\*", read("docs/glossary.md")))
    words = {word.strip() for word in WORDS.split(",")}
    assert words <= explained, words - explained


def test_the_decisions_are_numbered_without_gaps() -> None:
    assert [int(path.name[:4]) for path in ADRS] == list(range(len(ADRS)))


@pytest.mark.parametrize("path", ADRS, ids=lambda path: path.stem)
def test_a_decision_has_its_sections_on_one_page(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"# {path.name[:4]}. ")
    assert re.search(r"^\*Status: ", text, re.MULTILINE)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    assert len(text.splitlines()) <= 60


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_of_a_document_exists(path: Path) -> None:
    used = set(re.findall(r"\./ward ([a-z]+)", path.read_text(encoding="utf-8")))
    assert used <= set(load_ward().COMMANDS)


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_that_a_document_names_exists(path: Path) -> None:
    missing = [name for name in _NAMED_PATH.findall(path.read_text(encoding="utf-8")) if not (ROOT / name).exists()]
    assert not missing


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_document_leads_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    anchors = {anchor_of(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        if name:
            assert (path.parent / name).exists(), target
        else:
            assert anchor in anchors, target


def anchor_of(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_operations_names_every_environment_variable_with_its_default() -> None:
    text = read("docs/operations.md")
    for name, field in Environment.model_fields.items():
        found = re.search(rf"^\| `LATTICEWARD_{name.upper()}` \| (.+?) \|", text, re.MULTILINE)
        assert found, name
        if field.default not in ("", None):
            assert found[1] == f"`{field.default}`"


def test_operations_names_every_system_check() -> None:
    code = "".join(read(name) for name in ("controlplane/checks.py", "keys/checks.py"))
    text = read("docs/operations.md")
    assert not [number for number in re.findall(r"latticeward\.[EW]\d+", code) if f"`{number}`" not in text]


@pytest.mark.parametrize("kind", [AgentConfig, Floor])
def test_the_agent_document_names_every_setting(kind: type) -> None:
    named = set(re.findall(r"^\| `(\w+)` \|", read("docs/agent.md"), re.MULTILINE))
    settings = {field.name for field in dataclasses.fields(kind)} - {"home", "floor"}
    assert settings <= named, settings - named


MESSAGES = (
    messages.Assignment,
    messages.SubmissionReceipt,
    messages.ModelManifest,
    messages.RoundRecord,
    RoundPlan,
    EnvelopeHeader,
    EnrolmentAnswer,
    EnciphermentAnswer,
    KeyStatement,
    TrustStatement,
)


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_the_protocol_names_every_field_of_a_message(kind: type) -> None:
    named = set(re.findall(r"`(\w+)`", read("docs/protocol.md")))
    wanted = {field.name for field in dataclasses.fields(kind)}
    assert wanted <= named, wanted - named


def test_the_protocol_names_every_purpose_and_suite() -> None:
    text = read("docs/protocol.md")
    assert not [purpose for purpose in Purpose if f"`{purpose.value}`" not in text]
    assert not [suite for suite in SUITES if f"`{suite}`" not in text]


def test_every_address_of_the_api_is_documented() -> None:
    text = read("docs/api.md")
    paths = [entry.pattern.pattern.removesuffix(r"\Z") for entry in ROUTES]
    paths += [str(entry.pattern) for entry in urlpatterns if str(entry.pattern).startswith("api/")]
    plain: Callable[[str], str] = lambda path: re.sub(r"\(\?P<id>.*\)|<\w+:\w+>", "{id}", path).lstrip("/")  # noqa: E731
    assert not [path for path in map(plain, paths) if f"/{path}" not in text]

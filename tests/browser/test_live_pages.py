"""The pages in a real browser: signing in, moving by themselves, catching up after a break, and open to everybody."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from frontend import vendor
from tests.browser.conftest import ControlPlane

pytestmark = pytest.mark.e2e

WAIT_MS = 5_000
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 800}
TOO_WIDE = """[...document.querySelectorAll('.table-responsive')]
    .filter(frame => frame.scrollWidth > frame.clientWidth).map(frame => frame.getAttribute('aria-labelledby'))"""


@pytest.fixture(scope="module")
def ids(plane: ControlPlane) -> Iterator[dict[str, str]]:
    set_up = plane.do("scene")
    yield set_up
    plane.do("mend")


def expect(locator: Any) -> Any:
    from playwright.sync_api import expect as playwright_expect

    return playwright_expect(locator)


def test_a_link_signs_in_once(page: Any, plane: ControlPlane) -> None:
    address = f"/sign-in/{plane.do('link')['token']}/"
    page.goto(address)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    expect(page.locator("#live")).to_have_text("Nothing to follow yet")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_the_training_page_moves_with_every_update_and_into_the_next_round(
    signed_in: Any, plane: ControlPlane, ids: dict[str, str]
) -> None:
    page = signed_in
    page.goto(f"/trainings/{ids['training']}/")
    expect(page.locator("#live")).to_have_text("Live")
    sentence = page.locator(".sentence-big")
    expect(sentence).to_contain_text("Round 3: 0 of 4 updates, quorum 3 not yet reached")
    plane.do("count", round=ids["round"], hospital="Cleveland")
    expect(sentence).to_contain_text("Round 3: 1 of 4 updates", timeout=WAIT_MS)
    for hospital in ("Hungary", "Switzerland", "VA Long Beach"):
        plane.do("count", round=ids["round"], hospital=hospital)
    # The last of a quick row of events is shown too.
    expect(sentence).to_contain_text("Round 3: 4 of 4 updates, quorum 3 reached", timeout=WAIT_MS)
    expect(page.locator("#metric-table tbody tr")).to_have_count(2)
    plane.do("publish", round=ids["round"], value=0.8)
    expect(page.locator("#metric-table tbody tr")).to_have_count(3, timeout=WAIT_MS)
    expect(page.locator("#metric-canvas .u-legend")).to_contain_text("0.800")
    assert page.locator("#metric-canvas canvas").count() == 1
    ids["round"] = plane.do("open", training=ids["training"])["round"]
    expect(sentence).to_contain_text("Round 4: 0 of 4 hospitals joined", timeout=WAIT_MS)
    plane.do("join", round=ids["round"])
    expect(sentence).to_contain_text("Round 4: 0 of 4 updates", timeout=WAIT_MS)


def test_after_a_broken_line_the_page_catches_up(signed_in: Any, plane: ControlPlane, ids: dict[str, str]) -> None:
    page = signed_in
    page.goto(f"/trainings/{ids['training']}/")
    badge = page.locator("#live")
    expect(badge).to_have_text("Live")
    page.evaluate("addEventListener('live:event', (event) => (window.heard ??= []).push(event.detail.seq), true)")
    plane.do("drop")
    expect(badge).to_contain_text("Reconnecting", timeout=WAIT_MS)
    plane.do("count", round=ids["round"], hospital="Cleveland")
    plane.do("count", round=ids["round"], hospital="Hungary")
    expect(badge).to_contain_text("Not live since", timeout=WAIT_MS)
    expect(page.locator(".sentence-big")).to_contain_text("0 of 4 updates")
    plane.do("mend")
    expect(badge).to_have_text("Live", timeout=20_000)
    expect(page.locator(".sentence-big")).to_contain_text("2 of 4 updates", timeout=WAIT_MS)
    heard = page.evaluate("window.heard")
    assert len(heard) == 4 and heard == sorted(set(heard))


def test_a_paused_page_stands_still_until_it_is_resumed(
    signed_in: Any, plane: ControlPlane, ids: dict[str, str]
) -> None:
    page = signed_in
    page.goto(f"/trainings/{ids['training']}/")
    expect(page.locator("#live")).to_have_text("Live")
    before = page.locator(".sentence-big").text_content()
    page.get_by_role("button", name="Pause updates").click()
    expect(page.locator("#live")).to_contain_text("Paused at")
    plane.do("count", round=ids["round"], hospital="Switzerland")
    page.wait_for_timeout(600)
    assert page.locator(".sentence-big").text_content() == before
    page.get_by_role("button", name="Resume updates").click()
    expect(page.locator(".sentence-big")).to_contain_text("3 of 4 updates", timeout=WAIT_MS)


def test_a_device_that_asks_appears_and_is_let_in(signed_in: Any, plane: ControlPlane, ids: dict[str, str]) -> None:
    page = signed_in
    page.goto("/")
    expect(page.locator("#live")).to_have_text("Live")
    expect(page.get_by_text("Nothing waits for a person.")).to_be_visible()
    device = plane.do("ask", site="Hungary")["device"]
    page.get_by_role("link", name="Compare and decide").click(timeout=WAIT_MS)
    page.get_by_label("The device shows the same fingerprint").check()
    # What a person ticked or typed survives the fragment's replacement.
    page.locator(f"#reason-{device}").fill("not ours")
    page.evaluate("document.body.dispatchEvent(new CustomEvent('live:all'))")
    page.wait_for_timeout(400)
    expect(page.get_by_label("The device shows the same fingerprint")).to_be_checked()
    expect(page.locator(f"#reason-{device}")).to_have_value("not ours")
    page.get_by_role("button", name="Decline").click()
    expect(page.get_by_text("edge-new of Hungary was declined.")).to_be_visible()


def test_the_chart_is_read_by_arrow_keys(signed_in: Any, ids: dict[str, str]) -> None:
    page = signed_in
    page.goto(f"/trainings/{ids['training']}/")
    page.locator("#metric-canvas").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#announcer")).to_have_text("Version 2: AUC 0.800")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#announcer")).to_have_text("Version 1: AUC 0.710")


def test_the_keyboard_reaches_the_content_and_the_menu(signed_in: Any, ids: dict[str, str]) -> None:
    page = signed_in
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#content")).to_be_focused()
    page.set_viewport_size(PHONE)
    menu = page.get_by_role("button", name="Menu")
    expect(page.get_by_role("link", name="Ledger", exact=True)).to_be_hidden()
    menu.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Ledger", exact=True)).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("link", name="Ledger", exact=True)).to_be_hidden()
    expect(menu).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
def test_every_page_is_accessible_and_fits(
    signed_in: Any, plane: ControlPlane, ids: dict[str, str], scheme: str, viewport: dict[str, int]
) -> None:
    page = signed_in
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(viewport)
    finished = plane.do("finish")
    addresses = {
        "overview": "/",
        "trainings": "/trainings/",
        "training": f"/trainings/{ids['training']}/",
        "finished": f"/trainings/{finished['training']}/",
        "account": f"/rounds/{finished['measured']}/account/",
        "failed-round": f"/rounds/{plane.do('fail')['round']}/",
        "devices": "/devices/",
        "no-device": "/devices/?credential=suspended",
        "ledger": "/ledger/",
    }
    models = plane.do("registry")
    addresses |= {
        "models": "/models/",
        "model": f"/models/{models['second']}/",
        "model-kept": f"/models/{models['first']}/",
        "model-difference": f"/model-differences/{models['difference']}/",
    }
    plane.do("ask", site="Cleveland")
    _examine(page, addresses, f"{scheme}-{viewport['width']}")


@pytest.fixture(scope="module")
def authority(plane: ControlPlane, ids: dict[str, str]) -> dict[str, str]:
    return plane.do("authority")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
def test_the_pages_about_who_may_take_part_are_accessible_and_fit(
    signed_in: Any, authority: dict[str, str], scheme: str, viewport: dict[str, int]
) -> None:
    page = signed_in
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(viewport)
    addresses = {
        "claims": "/claims/",
        "sites": "/sites/",
        "site": f"/sites/{authority['site']}/",
        "device-classes": "/device-classes/",
        "device-class": f"/device-classes/{authority['class']}/",
    }
    name = f"{scheme}-{viewport['width']}"
    _examine(page, addresses, name)
    page.goto("/claims/")
    page.get_by_text("Make a code").click()
    page.get_by_role("button", name="Make the code and show it").click()
    expect(page.get_by_role("heading", name="1 new claim code")).to_be_visible()
    _examine(page, {"claim-handout": ""}, name)


def test_a_code_is_shown_once_saved_and_printed(signed_in: Any, authority: dict[str, str], tmp_path: Path) -> None:
    page = signed_in
    page.goto("/claims/")
    page.get_by_text("Make many codes from CSV").click()
    page.get_by_label("or its lines").fill("site,device_class,count\nhungary,gateway,2\n")
    page.get_by_role("button", name="Make the codes and show them").click()
    expect(page.locator(".handout")).to_have_count(2)
    typed = page.locator(".claim-code").first.inner_text()
    with page.expect_download() as saved:
        page.get_by_role("link", name="Save all as CSV").click()
    saved.value.save_as(tmp_path / "codes.csv")
    assert typed in (tmp_path / "codes.csv").read_text(encoding="utf-8")
    page.emulate_media(media="print")
    expect(page.get_by_role("link", name="Save all as CSV")).to_be_hidden()
    expect(page.locator(".qr svg").first).to_be_visible()
    page.emulate_media(media="screen")
    page.goto("/claims/")
    assert typed not in page.content()


def test_the_sign_in_pages_are_accessible(page: Any) -> None:
    _examine(page, {"sign-in": "/sign-in/", "link": "/sign-in/anything/"}, "light-1280")


def _examine(page: Any, addresses: dict[str, str], name: str) -> None:
    axe = (vendor.FRONTEND / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
    pictures = os.environ.get("LATTICEWARD_TEST_PICTURES")
    found = []
    for label, address in addresses.items():
        if address:
            page.goto(address)
        if page.locator("#live").count():
            expect(page.locator("#live")).to_have_text("Live")
        for details in page.locator("main details").all():
            details.evaluate("element => (element.open = true)")
        page.evaluate(axe)
        result = page.evaluate("axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa']})")
        found += [
            f"{label}: {violation['id']}: {violation['nodes'][0]['html'][:200]}" for violation in result["violations"]
        ]
        width = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        found += [f"{label}: {width} px wider than the window"] if width > 0 else []
        if page.viewport_size == PHONE:
            found += [f"{label}: a table scrolls sideways: {name}" for name in page.evaluate(TOO_WIDE)]
        if pictures:
            page.screenshot(path=str(Path(pictures) / f"{label}-{name}.png"), full_page=True)
    assert found == []

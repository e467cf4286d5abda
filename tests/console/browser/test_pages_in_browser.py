"""Every page in a real browser: nothing that axe finds serious, nothing that the browser complains about."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.serving.console.pages import Page
from cluster.tokens import TokenRegister
from tests.console.browser.chromium import complaints, resize, serious
from tests.console.browser.conftest import Desk

pytestmark = pytest.mark.browser

WIDE, NARROW = (1440, 1000), (390, 844)


def _paths(desk: Desk) -> list[str]:
    routes: Any = desk.world.client.app.state.console  # type: ignore[attr-defined]
    pages = (each for each in routes if isinstance(each, Page) and each.method == "GET" and "officer" in each.roles)
    paths = [each.path.replace("{shard}", "0").replace("{request_id}", "er-1") for each in pages]
    return [
        path for path in paths if not path.endswith(("/live", "/progress", "/receipt"))
    ]  # a stream, a part of a page, a file to keep


@pytest.mark.parametrize(("scheme", "sizes"), [("light", (WIDE, NARROW)), ("dark", (NARROW,))])
def test_pages_are_for_everybody(desk: Desk, scheme: str, sizes: tuple[tuple[int, int], ...]) -> None:
    """No page has what axe calls serious, scrolls sideways, or makes the browser complain, wide or narrow."""
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    desk.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    desk.open("/sign-in")
    assert serious(desk.browser) == []
    desk.sign_in()
    for path in (*_paths(desk), "/nothing"):
        for width, height in sizes:
            resize(desk.browser, width, height)
            desk.open(path)
            assert serious(desk.browser) == [], (path, width, scheme)
            assert desk.browser.execute_script("return document.documentElement.scrollWidth") <= width, (path, width)
            assert [said for said in complaints(desk.browser) if path != "/nothing"] == [], path
    resize(desk.browser, *WIDE)


def test_the_federation_is_live(desk: Desk) -> None:
    """A page that is open shows an erasure without being loaded again, and says so when its token is revoked."""
    token = TokenRegister(desk.world.home.objects, desk.world.service.clock).create("audit", days=1)
    desk.open("/sign-in")
    desk.find("#token").send_keys(token.text)
    desk.find("main button").click()
    desk.open("/federation")
    desk.until(lambda: "Live: " in desk.find("#live").text)
    before = desk.find("#shown").text
    desk.world.erase("secret-person-004", key="er-live")
    desk.world.until_idle()
    desk.until(lambda: desk.find("#shown").text != before)
    TokenRegister(desk.world.home.objects, desk.world.service.clock).revoke(token.record.token_id)
    desk.until(lambda: "the token was revoked" in desk.find("#live").text)


def test_nothing_stays_in_the_browser(desk: Desk) -> None:
    """Scripts see no cookie, and pages keep nothing in the browser's stores."""
    desk.sign_in()
    for path in _paths(desk):
        desk.open(path)
        kept = "return [document.cookie, localStorage.length, sessionStorage.length, location.search]"
        assert desk.browser.execute_script(kept) == ["", 0, 0, ""], path


def test_a_page_works_by_keyboard_and_without_scripts(desk: Desk) -> None:
    """The first Tab leads to the content; without scripts, forms are answered as well."""
    from selenium.webdriver.common.keys import Keys

    desk.sign_in("predict")
    desk.find("body").send_keys(Keys.TAB)
    assert desk.browser.switch_to.active_element.text == "Skip to the content"
    desk.browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert desk.browser.switch_to.active_element.get_attribute("id") == "content"
    desk.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        desk.open("/try")
        for place in range(16):
            desk.find(f"#f{place}").send_keys(str(place))
        desk.find("main form button").click()
        assert "The answer is" in desk.find("#answer").text
    finally:
        desk.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})

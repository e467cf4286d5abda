"""The officer's five minutes in a real browser: from an e-mail address to a printed letter."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from tests.console.browser.chromium import complaints, resize, serious
from tests.console.browser.conftest import Desk
from tests.doubles.user_folder import MARKED
from tests.serving.world import PATIENCE_SECONDS, World

pytestmark = pytest.mark.browser

PERSON = "secret-person-011"
ATTACK = "<script>window.hit = 1</script><img src=x onerror='window.hit = 2'>"
MOST_TABS = 40
_NAMED = """
const element = document.activeElement;
const label = element.labels && element.labels.length ? element.labels[0].textContent : element.textContent;
return label.trim().replace(/\\s+/g, ' ');
"""


@pytest.fixture
def seated(desk: Desk) -> Iterator[Desk]:
    """A browser in which nobody is signed in; windows that the test opens are closed after it."""
    desk.open()
    complaints(desk.browser)
    yield desk
    for window in desk.browser.window_handles[1:]:
        desk.browser.switch_to.window(window)
        desk.browser.close()
    desk.browser.switch_to.window(desk.browser.window_handles[0])


def press(browser: Any, *keys: str) -> None:
    """Press keys, wherever the focus is."""
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def tab_to(browser: Any, name: str) -> None:
    """Move the focus with the Tab key to what has this label or text."""
    from selenium.webdriver.common.keys import Keys

    for _ in range(MOST_TABS):
        if browser.execute_script(_NAMED).startswith(name):
            return
        press(browser, Keys.TAB)
    pytest.fail(f"the Tab key does not lead to {name!r} within {MOST_TABS} steps")


def until(browser: Any, text: str) -> None:
    """Return once the page has this text: live parts change by themselves."""
    from selenium.webdriver.support.wait import WebDriverWait

    def shows(_: Any) -> bool:
        return text in browser.execute_script("return document.body.innerText")

    WebDriverWait(browser, PATIENCE_SECONDS, poll_frequency=0.05).until(shows, f"the page never says {text!r}")


def sign_in(browser: Any, world: World) -> None:
    """Sign in as an officer, by keyboard: the token's field has the focus."""
    press(browser, world.tokens["officer"], "\ue007")
    until(browser, "All requests")


def check_page(browser: Any) -> None:
    """Check that a page is accessible, fits a telephone, and that the browser had nothing to complain about."""
    assert serious(browser) == [], browser.current_url
    resize(browser, 390, 844)
    widths = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    resize(browser, 1440, 1000)
    assert widths[0] <= widths[1], browser.current_url
    assert complaints(browser) == [], browser.current_url


def test_from_an_email_address_to_a_printed_letter(seated: Desk) -> None:
    """By keyboard alone: sign in, look up, submit, watch it become complete, write the letter, print it."""
    chromium = seated.browser
    sign_in(chromium, seated.world)
    check_page(chromium)
    tab_to(chromium, "Names, one on each line")
    press(chromium, MARKED)
    tab_to(chromium, "Look up")
    press(chromium, "\ue007")
    until(chromium, "4 data points of this person are held.")
    check_page(chromium)
    tab_to(chromium, "Submit the erasure request")
    press(chromium, "\ue007")
    until(chromium, "Keep this secret number (salt) now")
    salt = chromium.find_element("id", "salt").text
    until(chromium, "Yes, the data is gone.")
    check_page(chromium)
    assert MARKED not in chromium.page_source
    tab_to(chromium, "Salutation")
    press(chromium, "Dear Ms Marked")
    tab_to(chromium, "Open the letter to print it")
    press(chromium, "\ue007")
    wait_for_window(chromium)
    until(chromium, "Yes, your data is erased.")
    body = chromium.execute_script("return document.body.innerText")
    assert "Dear Ms Marked," in body
    assert salt in body
    check_page(chromium)
    printed = base64.b64decode(chromium.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert printed.startswith(b"%PDF-")
    chromium.close()
    chromium.switch_to.window(chromium.window_handles[0])
    tab_to(chromium, "Read and check the receipt")
    press(chromium, "\ue007")
    until(chromium, "The receipt is genuine.")
    check_page(chromium)
    assert MARKED not in chromium.execute_script(
        "return location.href + document.title + JSON.stringify({...localStorage, ...sessionStorage})"
    )


def wait_for_window(browser: Any) -> None:
    """Switch to the window that a form has opened."""
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, PATIENCE_SECONDS, poll_frequency=0.05).until(lambda _: len(browser.window_handles) > 1)
    browser.switch_to.window(browser.window_handles[-1])


def test_nothing_that_people_type_runs(seated: Desk) -> None:
    """A name and reasons that are markup are shown as they are, on every page that has them."""
    chromium = seated.browser
    seated.world.erase(PERSON, key="er-attack", hold=ATTACK)
    sign_in(chromium, seated.world)
    tab_to(chromium, "Names, one on each line")
    press(chromium, ATTACK)
    tab_to(chromium, "Look up")
    press(chromium, "\ue007")
    until(chromium, ATTACK)
    check_page(chromium)
    tab_to(chromium, "Where are the data? Trace them")
    press(chromium, "\ue007")
    until(chromium, "Requests that named")
    check_page(chromium)
    for path in ("/requests/er-attack", "/requests/er-attack/letter"):
        seated.open(path)
        until(chromium, ATTACK)
        check_page(chromium)
    assert chromium.execute_script("return window.hit") is None

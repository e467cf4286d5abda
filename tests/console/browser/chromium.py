"""The distribution's Chromium, driven without a window; nothing is downloaded for it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Final

import pytest

REQUIRED: Final = "SISA_BROWSER_REQUIRED"
"""An environment variable: where it is set, a missing browser fails the tests that need it."""

_AXE: Final = Path(__file__).parent / "axe.min.js"


def find_chromium() -> tuple[str, str]:
    """Return the paths of Chromium and its driver; skip the test, or fail it, where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
    if found[0] and found[1]:
        return found[0], found[1]
    reason = "there is no Chromium with its driver: 'apt-get install chromium chromium-driver'"
    if os.environ.get(REQUIRED):
        pytest.fail(reason)
    pytest.skip(reason)


def open_chromium(*, width: int = 1440, height: int = 1000, is_dark: bool = False) -> Any:
    """Return a browser with a page of this size, in pixels; the caller quits it."""
    program, driver = find_chromium()
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service as DriverService

    options = webdriver.ChromeOptions()
    options.binary_location = program
    dark = ("--force-dark-mode", "--blink-settings=preferredColorScheme=0") if is_dark else ()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *dark):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=DriverService(executable_path=driver))
    resize(browser, width, height)
    return browser


def resize(browser: Any, width: int, height: int) -> None:
    """Give the page this size, in pixels: narrower than a window may be."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def serious(browser: Any) -> list[str]:
    """Return what axe finds on the page that is serious or worse, each with the elements that it is about."""
    browser.execute_script(_AXE.read_text(encoding="utf-8"))
    found = browser.execute_async_script(
        "const done = arguments[0];"
        " axe.run(document, {resultTypes: ['violations']}).then(done, (e) => done({error: `${e}`}))"
    )
    assert "error" not in found, found
    return [
        f"{each['id']}: {', '.join(node['html'][:200] for node in each['nodes'][:3])}"
        for each in found["violations"]
        if each["impact"] in {"serious", "critical"}
    ]


def complaints(browser: Any) -> list[str]:
    """Return what the browser complained about since the last call, such as what the content policy forbids."""
    return [each["message"] for each in browser.get_log("browser") if each["level"] in {"SEVERE", "WARNING"}]

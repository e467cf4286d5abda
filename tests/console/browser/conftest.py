"""A federation with people in it, served in this process, and a browser that opens its console."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn

import cluster.training.workers
from cluster.config.specification import read_specification
from cluster.tokens import Role
from tests.console.browser.chromium import complaints, open_chromium
from tests.doubles.user_folder import UserFolder
from tests.doubles.workers.local_workers import LocalWorkers
from tests.serving.world import World, coordinator_of, open_world


@dataclass(slots=True)
class Desk:
    """A browser, and the console that it opens."""

    browser: Any
    world: World
    url: str

    def open(self, path: str = "") -> None:
        """Open a page beneath /console, and discard what the browser said about earlier ones."""
        complaints(self.browser)
        self.browser.get(f"{self.url}/console{path}")

    def sign_in(self, role: Role = "officer") -> None:
        """Sign in as a person would."""
        self.browser.delete_all_cookies()
        self.open("/sign-in")
        self.find("#token").send_keys(self.world.tokens[role])
        self.find("main button").click()

    def find(self, selector: str) -> Any:
        """Return the first element that the selector fits."""
        return self.browser.find_element("css selector", selector)

    def until(self, what: Any) -> Any:
        """Return what ``what`` returns once it is true, for a browser's work of a moment."""
        from selenium.webdriver.support.wait import WebDriverWait

        return WebDriverWait(self.browser, 60).until(lambda _: what())


@pytest.fixture(scope="session")
def _chromium() -> Iterator[Any]:
    browser = open_chromium()
    yield browser
    browser.quit()


@pytest.fixture(scope="session")
def _served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, str]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
        patch.setattr(cluster.training.workers, "join_ray", lambda _: False)
        home = UserFolder(tmp_path_factory.mktemp("desk")).fill(
            data__holdout=0.4,
            erasure__batch_window_seconds=0.0,
            erasure__alarm_margin=1e-9,
            serve__refresh_seconds=0.05,
            serve__lookups_per_minute=1_000,
        )
        resident = coordinator_of(read_specification(home.config))
        world = open_world(home, resident)
        world.erase("secret-person-001", key="er-1")
        world.until_idle()
        listening = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(world.client.app, log_level="critical", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        yield world, f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.force_exit = server.should_exit = True  # streams may be open
        thread.join()
        listening.close()
        world.service.close()
        resident.stop()


@pytest.fixture
def desk(_chromium: Any, _served: tuple[World, str]) -> Desk:
    """A browser in which nobody is signed in."""
    _chromium.delete_all_cookies()
    return Desk(browser=_chromium, world=_served[0], url=_served[1])

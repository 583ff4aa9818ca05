"""A real browser for tests: Debian's Chromium, driven by Playwright, and all that goes wrong in it."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import (
        Browser,
        BrowserContext,
        ConsoleMessage,
        Locator,
        Request,
        Response,
        ViewportSize,
    )

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_MS = 60_000
"""How long a page may take on a busy machine."""

START_MS = 180_000

WIDE: ViewportSize = {"width": 1280, "height": 900}
NARROW: ViewportSize = {"width": 390, "height": 844}


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How a page is looked at.

    Attributes:
        colours: what the browser prefers.
        window: its size.
        axe: what is left out of axe's rules, or taken alone: finding all colours takes it longest.
    """

    colours: Literal["light", "dark"] = "light"
    window: ViewportSize
    axe: dict[str, Any] = field(default_factory=dict)


LOOKS = {
    "light": Look(window=WIDE),
    "dark": Look(window=WIDE, colours="dark", axe={"runOnly": ["color-contrast"]}),
    "narrow": Look(window=NARROW, axe={"rules": {"color-contrast": {"enabled": False}}}),
}
"""Ways to look at each page, by name."""

LEFT = "net::ERR_ABORTED"
"""What the browser says of a request that it gave up itself, as its page was left."""

_AXE = Axe().axe_script
_NAMED = """
(one) => [one.tagName, one.getAttribute('href') ?? one.name ?? '', one.ariaLabel ?? one.textContent.trim()]
"""
_FOCUSABLE = f"""
() => [...document.querySelectorAll('a, button, input:not([type=hidden]), select, textarea, [tabindex="0"]')]
  .filter((one) => one.checkVisibility()).map({_NAMED})
"""
_FOCUSED = f"""
() => {{
  const one = document.activeElement;
  if (!one || one === document.body) return null;
  const style = getComputedStyle(one);
  const ring = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0;
  return {{ what: ({_NAMED})(one), ring }};
}}
"""


def chromium() -> str | None:
    """Where the browser is; None where there is none."""
    return next((found for one in PROGRAMS if (found := shutil.which(one))), None)


@contextlib.contextmanager
def running_browser(program: str) -> Iterator[Browser]:
    """A browser without a window.

    Args:
        program: where it is.
    """
    with sync_playwright() as playwright:
        # tests run as root in containers, where Chromium's sandbox cannot be set up
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"], timeout=START_MS)
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A page of the browser that notes all that goes wrong on it.

    Args:
        context: of the browser, with a session or without.
        origin: the only one that pages may speak with.
    """

    def __init__(self, context: BrowserContext, *, origin: str) -> None:
        self.troubles: list[str] = []
        self.requested: list[str] = []
        self._origin = origin
        self._expected: set[tuple[int, str]] = set()
        context.set_default_timeout(PATIENCE_MS)
        context.on("request", self._on_request)
        context.on("requestfailed", self._on_failure)
        context.on("response", self._on_response)
        self.page = context.new_page()
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.troubles.append(f"script: {error}"))

    def expects(self, status: int, path: str) -> None:
        """Let a path be answered with a failure."""
        self._expected.add((status, path))

    def open(self, path: str) -> None:
        """Go to a page by its address."""
        self.page.goto(self._origin + path)

    @property
    def path(self) -> str:
        """Where the page is, without its query."""
        return urlsplit(self.page.url).path

    def link(self, name: str) -> Locator:
        """The link that reads so."""
        return self.page.get_by_role("link", name=name, exact=True)

    def button(self, name: str) -> Locator:
        """The button that reads so."""
        return self.page.get_by_role("button", name=name, exact=True)

    def loaded(self) -> None:
        """Wait until the page is there to its end, for what is counted on it at once."""
        self.page.wait_for_load_state()

    def rows(self, table: str) -> Locator:
        """The rows of the table in a region with this name, without its head."""
        return self.page.get_by_role("region", name=table).locator("tbody tr")

    def wear(self, look: str) -> None:
        """Show the page in one of the `LOOKS`."""
        self.page.emulate_media(color_scheme=LOOKS[look].colours)
        self.page.set_viewport_size(LOOKS[look].window)

    def picture(self, path: Path) -> None:
        """Keep what the page looks like, down to its end."""
        self.page.screenshot(path=path, full_page=True, animations="disabled")

    def barriers(self, look: str) -> list[str]:
        """What axe finds in one of the `LOOKS` that keeps people from using the page, in its words."""
        self.page.evaluate(f"() => {{ if (!window.axe) {{ {_AXE} }} }}")
        options = {"resultTypes": ["violations"], "preload": False, **LOOKS[look].axe}
        found = self.page.evaluate("(options) => axe.run(options)", options)["violations"]
        return [
            f"{one['impact']}: {one['id']}: {one['help']}: {node['html'][:200]}: {node['failureSummary']}"
            for one in found
            for node in one["nodes"]
        ]

    def overhang(self) -> int:
        """How many pixels the page is wider than its window."""
        root = "document.documentElement"
        return int(self.page.evaluate(f"{root}.scrollWidth - {root}.clientWidth"))

    def walk(self) -> tuple[list[Any], list[Any], list[Any]]:
        """Go through the page with the Tab key.

        Returns:
            All that can be acted on; what the key came by; what of it did not show that it was there.
        """
        wanted = self.page.evaluate(_FOCUSABLE)
        came_by, unseen = [], []
        for _ in range(2 * len(wanted)):
            self.page.keyboard.press("Tab")
            found = self.page.evaluate(_FOCUSED)
            if found is None:
                break
            came_by.append(found["what"])
            if not found["ring"]:
                unseen.append(found["what"])
        return wanted, came_by, unseen

    def _on_request(self, request: Request) -> None:
        self.requested.append(request.url)
        if not request.url.startswith(f"{self._origin}/"):
            self.troubles.append(f"asked somebody else: {request.url}")

    def _on_failure(self, request: Request) -> None:
        # a page that is left ends its stream, and whatever else it has not got yet
        if urlsplit(request.url).path != "/live" and request.failure != LEFT:
            self.troubles.append(f"no answer: {request.url}: {request.failure}")

    def _on_response(self, response: Response) -> None:
        path = urlsplit(response.url).path
        if response.status >= 400 and (response.status, path) not in self._expected:
            self.troubles.append(f"answered {response.status}: {path}")

    def _on_console(self, message: ConsoleMessage) -> None:
        # of a status the response itself tells
        told = message.text.startswith("Failed to load resource: the server responded with a status of")
        if message.type in {"error", "warning"} and not told:
            self.troubles.append(f"console: {message.text}")

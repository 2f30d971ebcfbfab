"""A person at a browser: headless Chromium over its own DevTools protocol, which clicks and types as a hand would."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.chromium import QUIET

PATIENCE_SECONDS = 120
FLAGS = (*QUIET, "--window-size=1280,1600", "--remote-debugging-port=0")
VISIBLE = """(() => {
  const says = node => TEXT === null || (node.innerText || node.ariaLabel || '').trim() === TEXT;
  const found = [...document.querySelectorAll(SELECTOR)].filter(node => node.getClientRects().length && says(node));
  if (!found.length) return null;
  const node = found[found.length - 1]; node.scrollIntoView({block: 'center'});
  const box = node.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
})()"""


class Page:
    """One tab."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._count = 0
        self.call("Page.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """One call of the DevTools protocol."""
        self._count += 1
        self._connection.send(json.dumps({"id": self._count, "method": method, "params": parameters}))
        while (answer := json.loads(self._connection.recv(timeout=60))).get("id") != self._count:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def evaluate(self, script: str) -> Any:
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    @property
    def text(self) -> str:
        """What can be read on the page."""
        return self.evaluate("document.body ? document.body.innerText : ''") or ""

    def wait_for(self, words: str) -> None:
        self._until(lambda: words in self.text, words)

    def wait_until_gone(self, selector: str) -> None:
        self._until(lambda: not self.evaluate(f"!!document.querySelector({json.dumps(selector)})"), f"end of {selector}")

    def click(self, selector: str, text: str | None = None) -> None:
        """Press the last visible element that the selector finds, its text or label being exactly `text`."""
        script = VISIBLE.replace("SELECTOR", json.dumps(selector)).replace("TEXT", json.dumps(text))
        seen: list[Any] = [None]

        def at_rest() -> Any:
            """Where it is, once it has stopped moving."""
            seen.append(self.evaluate(script))
            return seen[-1] if seen[-1] == seen[-2] else None

        x, y = self._until(at_rest, f"{selector} {text or ''}")
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, selector: str, text: str) -> None:
        """Click into a field and type."""
        self.click(selector)
        self.call("Input.insertText", text=text)

    def fields(self, selector: str) -> list[str]:
        """A selector for each field that the selector finds, in their order."""
        return [f"#{name}" for name in self._until(lambda: self.evaluate(
            f"[...document.querySelectorAll({json.dumps(selector)})].map(node => CSS.escape(node.id))"), selector)]

    def picture(self, path: Path) -> None:
        import base64

        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def _until(self, what: Any, name: str) -> Any:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (found := what()):
            assert time.monotonic() < deadline, f"no {name!r} on the page:\n{self.text[:3000]}"
            time.sleep(0.2)
        return found


@contextmanager
def browsing(program: str, profile: Path) -> Iterator[Page]:
    """A browser with a profile of its own, its only tab open."""
    from websockets.sync.client import connect

    said = (profile / "chromium.log").open("wb")
    browser = subprocess.Popen([program, *FLAGS, f"--user-data-dir={profile / 'profile'}", "about:blank"], stdout=said,
                               stderr=said)
    try:
        port = _port(profile / "profile" / "DevToolsActivePort", browser)
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
            tab = next(one for one in json.load(answer) if one["type"] == "page")
        with connect(tab["webSocketDebuggerUrl"], max_size=None, proxy=None) as connection:
            yield Page(connection)
    finally:
        browser.terminate()
        with suppress(subprocess.TimeoutExpired):
            browser.wait(10)
        browser.kill()
        said.close()


def _port(path: Path, browser: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (path.exists() and path.read_text().strip()):
        assert browser.poll() is None, "the browser ended"
        assert time.monotonic() < deadline, "the browser did not open its port"
        time.sleep(0.1)
    return int(path.read_text().split()[0])

"""Check a report in a browser: nothing on the console, everything visible, nothing too wide.

``python -m rf8.report.check DIR [--screenshot FILE]`` loads ``DIR/index.html`` in headless Chromium
at the width of a phone and of a desktop, in light and in dark. The browser is driven through its
DevTools protocol, over a pair of pipes, which needs no further package.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rf8.errors import DataError
from rf8.files import replaced_file
from sim.toolchain import ToolMissing, require

WIDTHS = (390, 1280)
SCHEMES = ("light", "dark")
TIMEOUT = 60.0
"""Seconds that the browser has for any one thing."""

# Everything that is to be seen, and what is wrong with it if it is not. A layout that is wider than
# the screen makes the page scroll sideways.
PROBE = """(width => {
  const wrong = [];
  const seen = [...document.querySelectorAll('figure, table, svg, img')];
  for (const element of seen) {
    const box = element.getBoundingClientRect();
    const named = element.closest('[id]') ?? element.querySelector('[id]');
    const name = named?.id ?? element.textContent.trim();
    const what = `${element.tagName.toLowerCase()} ${name.slice(0, 40)}`;
    if (box.width < 1 || box.height < 1 || !element.checkVisibility({opacityProperty: true,
        visibilityProperty: true})) wrong.push(`${what} is not visible`);
    else if (box.left < 0 || box.left >= width) wrong.push(`${what} lies outside the page`);
    if (element.tagName === 'IMG' && !element.naturalWidth) wrong.push(`${what} is broken`);
  }
  if (!seen.length) wrong.push('the page shows no figure and no table');
  const wide = document.documentElement.scrollWidth;
  if (wide > width) wrong.push(`the page is ${wide} pixels wide`);
  return wrong;
})"""


class Browser:
    """A headless Chromium with one page.

    Raises
    ------
    ToolMissing
        Where Chromium is not installed.
    DataError
        Where it does not start, or does not answer.
    """

    def __init__(self) -> None:
        require("chromium")
        self._profile = tempfile.TemporaryDirectory(prefix="rf8-chromium-")
        self._number = 0
        self._buffer = b""
        self.events: list[dict[str, Any]] = []
        self._process = _start(self._profile.name)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._calls, self._answers = self._process.stdin, self._process.stdout
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
            self._session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.page(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the browser and remove its profile."""
        self._calls.close()  # the browser ends when its pipe does
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()
        # Helper processes may still be writing.
        for _ in range(50):
            with contextlib.suppress(OSError):
                self._profile.cleanup()
                return
            time.sleep(0.1)

    def call(self, method: str, *, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result; events pile up in ``events``."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        try:
            self._calls.write(json.dumps(message).encode() + b"\0")
        except BrokenPipeError as error:
            raise DataError("chromium ended at once: try `chromium --headless=new`") from error
        for answer in self._messages():
            if answer.get("id") != self._number:
                self.events.append(answer)
            elif "error" in answer:
                raise DataError(f"chromium refused {method}: {answer['error']['message']}")
            else:
                result: dict[str, Any] = answer["result"]
                return result
        raise AssertionError("unreachable")

    def page(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The same, of the page."""
        return self.call(method, session=self._session, **parameters)

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        found = self.page("Runtime.evaluate", expression=script, returnByValue=True)
        return found["result"].get("value")

    def open(self, url: str) -> None:
        """Load a page, and forget the events of the one before."""
        self.events.clear()
        answer = self.page("Page.navigate", url=url)
        if "errorText" in answer:
            raise DataError(f"chromium cannot open {url}: {answer['errorText']}")
        if not any(event["method"] == "Page.loadEventFired" for event in self.events):
            for event in self._messages():
                self.events.append(event)
                if event["method"] == "Page.loadEventFired":
                    break

    def _messages(self) -> Iterator[dict[str, Any]]:
        until = time.monotonic() + TIMEOUT
        while True:
            while b"\0" in self._buffer:
                message, self._buffer = self._buffer.split(b"\0", 1)
                yield json.loads(message)
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._answers], [], [], left)[0]:
                raise DataError(f"chromium did not answer within {TIMEOUT:.0f} seconds")
            data = self._answers.read(1 << 16)
            if not data:
                raise DataError("chromium ended at once: try `chromium --headless=new`")
            self._buffer += data


def _start(profile: str) -> subprocess.Popen[bytes]:
    """Start the browser, its calls on standard input and its answers on standard output."""
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += ["--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking"]
    command += ["--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
    # The protocol's pipes are the descriptors 3 and 4.
    shell = ["sh", "-c", 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null', "sh", *command]
    pipe = subprocess.PIPE
    return subprocess.Popen(shell, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, bufsize=0)


def check(folder: Path, screenshot: Path | None = None) -> list[str]:
    """What is wrong with ``folder/index.html``: one line for each thing, none if all is well.

    With ``screenshot``, writes a PNG of each view: for ``a.png``, ``a-390-light.png`` and so on.

    Raises
    ------
    DataError
        Where the page or Chromium is missing.
    """
    page = folder.absolute() / "index.html"
    if not page.is_file():
        raise DataError(f"{page} is missing: make it with `python -m rf8.report -o {folder}`")
    wrong = []
    with Browser() as browser:
        for width in WIDTHS:
            for scheme in SCHEMES:
                wrong += inspect(browser, page.as_uri(), width, scheme)
                if screenshot is not None:
                    target = screenshot.with_name(f"{screenshot.stem}-{width}-{scheme}.png")
                    shot = browser.page("Page.captureScreenshot", captureBeyondViewport=True)
                    with replaced_file(target) as temporary:
                        temporary.write_bytes(base64.b64decode(shot["data"]))
    return wrong


def inspect(browser: Browser, url: str, width: int, scheme: str) -> list[str]:
    """What is wrong with a page in one view, which the browser then still shows."""
    phone = width < 600
    browser.page(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=844 if phone else 800,
        deviceScaleFactor=2 if phone else 1,
        mobile=phone,
    )
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.page("Emulation.setEmulatedMedia", features=[feature])
    browser.open(url)
    found = browser.evaluate(f"{PROBE}({width})") + _complaints(browser.events)
    return [f"{width} pixels, {scheme}: {what}" for what in found]


def _complaints(events: list[dict[str, Any]]) -> list[str]:
    """Errors on the console, and whatever the page wanted to load from elsewhere."""
    found = []
    for event in events:
        about = event.get("params", {})
        match event["method"]:
            case "Runtime.exceptionThrown":
                details = about["exceptionDetails"]
                text = details.get("exception", {}).get("description", details["text"])
                found.append(f"console error: {text.splitlines()[0]}")
            case "Runtime.consoleAPICalled" if about["type"] in ("error", "assert"):
                values = [str(a.get("value", a.get("description", ""))) for a in about["args"]]
                found.append(f"console error: {' '.join(values)}")
            case "Log.entryAdded" if about["entry"]["level"] == "error":
                found.append(f"console error: {about['entry']['text']}")
            case "Network.requestWillBeSent":
                url = about["request"]["url"]
                if not url.startswith(("data:", "blob:")) and about.get("type") != "Document":
                    found.append(f"not self-contained: it loads {url[:80]}")
    return found


def main(arguments: list[str] | None = None) -> int:
    """The command: 0 if all is well, else 1 and one line on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m rf8.report.check",
        description="Load a report in headless Chromium, as a phone and as a desktop see it.",
        epilog="Example: python -m rf8.report.check build/report --screenshot build/report.png",
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="holds index.html")
    parser.add_argument("--screenshot", metavar="FILE", type=Path, help="PNG, one for each view")
    options = parser.parse_args(arguments)
    try:
        wrong = check(options.folder, options.screenshot)
    except (DataError, ToolMissing) as error:
        wrong = [str(error)]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        print(f"rf8.report.check: {wrong[0]}{more}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

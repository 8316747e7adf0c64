"""report.html in a real browser: Chromium without a window, driven over its own protocol."""

import itertools
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import time

import pytest

from calib_jax.reports.page.render import render
from calib_jax.reports.views import measurement

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # which root may not have
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--hide-scrollbars",
    # Chromium asks its maker for the time and for updates, whatever page is open: not from here.
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
# Chromium reads commands from descriptor 3 and answers on 4.
LAUNCH = (
    "import fcntl, os, sys; r, w = (fcntl.fcntl(int(f), fcntl.F_DUPFD, 64) for f in sys.argv[1:3]);"
    "os.dup2(r, 3); os.dup2(w, 4); os.execvp(sys.argv[3], sys.argv[3:])"
)


class Browser:
    """One page of one Chromium, with everything that it logged or asked the network for."""

    def __init__(self, profile: pathlib.Path):
        here_r, there_w = os.pipe()
        there_r, here_w = os.pipe()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", LAUNCH, str(there_r), str(there_w), CHROMIUM, *FLAGS),
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            pass_fds=(there_r, there_w),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(there_r)
        os.close(there_w)
        self.reader, self.writer = here_r, here_w
        self.buffer, self.session, self.events = b"", None, []
        self.numbers = itertools.count(1)
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(t["targetId"] for t in targets if t["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _message(self, deadline: float) -> dict:
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.reader], [], [], max(0, deadline - time.monotonic()))
            chunk = os.read(self.reader, 1 << 20) if ready else b""
            if not chunk:
                raise TimeoutError("Chromium does not answer")
            self.buffer += chunk
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def call(self, method: str, **params):
        number, deadline = next(self.numbers), time.monotonic() + 60
        command = {"id": number, "method": method, "params": params}
        if self.session:
            command["sessionId"] = self.session
        os.write(self.writer, json.dumps(command).encode() + b"\0")
        while (message := self._message(deadline)).get("id") != number:
            self.events.append(message)
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']}")
        return message["result"]

    def open(self, path: pathlib.Path, width: int = 1280, height: int = 900, dark: bool = False):
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 640,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=path.as_uri())
        deadline = time.monotonic() + 60
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self._message(deadline))

    def run(self, expression: str):
        """The value of a JavaScript expression on the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def click(self, selector: str):
        """A real click of the mouse in the middle of the element."""
        x, y = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center', inline: 'center'});"
            "const r = e.getBoundingClientRect(); return [r.x + r.width/2, r.y + r.height/2] })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str, code: int, text: str = ""):
        """A real key, where the focus is."""
        about = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def complaints(self) -> list:
        """Errors and warnings of the console, and exceptions, since `open`."""
        wanted = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [e for e in self.events if e.get("method") in wanted]

    def requests(self) -> list[str]:
        """Addresses asked for since `open`, the page itself among them."""
        sent = [e for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [e["params"]["request"]["url"] for e in sent]

    def close(self):
        self.session = None
        try:
            self.call("Browser.close")
            self.process.wait(20)
        except (OSError, TimeoutError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        os.close(self.reader)
        os.close(self.writer)


def _with_subjects(result):
    """The summary with figures by subject, one of which could not be computed."""
    values = {"history": 0.2, "algebra": 0.05, "zoology": 0.9, "botany": None}
    groups = [
        {"group": name, "n": 10 * (i + 1), "conf_ece": value, "accuracy": 0.5}
        for i, (name, value) in enumerate(values.items())
    ]
    states = {s: dict(result[s]) for s in ("before", "after")}
    for rows in states.values():
        rows["near"] = rows["near"] | {"groups": groups}
    return result | states


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome here")
@pytest.mark.slow
def test_in_chromium(tmp_path, run):
    page = tmp_path / "report.html"
    summary = _with_subjects(run[0])
    view = measurement.view(summary, run[1], num_bins=10, edges="right")
    page.write_text(render(view, summary, {"seed": 1}, "python -m x"), encoding="utf-8")
    browser = Browser(tmp_path / "profile")
    try:
        _check(browser, page)
    finally:
        browser.close()


def _check(browser, page):
    for dark in (False, True):
        for width in (1280, 390, 360):
            browser.open(page, width, dark=dark)
            assert browser.complaints() == []
            assert browser.requests() == [page.as_uri()]
            # The page itself never scrolls sideways; tables scroll within themselves.
            assert browser.run("document.documentElement.scrollWidth") <= width
            ground = browser.run("getComputedStyle(document.body).backgroundColor")
            assert (ground == "rgb(255, 255, 255)") is not dark
            text = browser.run("getComputedStyle(document.querySelector('svg text')).fill")
            assert text != ground

    browser.open(page)
    table = "table.sortable"
    shown = f"[...document.querySelectorAll('{table} tbody th')].map(x => x.textContent)"
    marks = f"[...document.querySelectorAll('{table} thead th')].map(x => x.ariaSort)"
    assert browser.run(shown) == ["algebra", "botany", "history", "zoology"]
    assert set(browser.run(marks)) == {None}
    header = f"{table} thead th:nth-child(3) button"
    browser.click(header)  # conf-ECE, before
    assert browser.run(shown) == ["zoology", "history", "algebra", "botany"]
    assert browser.run(marks)[2] == "descending"
    browser.click(header)
    assert browser.run(shown) == ["algebra", "history", "zoology", "botany"]
    assert browser.run(marks)[2] == "ascending"
    # The same by keyboard: back to the header of the questions, then Enter.
    browser.run(f"document.querySelector('{header}').focus()")
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="Shift", code="ShiftLeft")
    for kind in ("keyDown", "keyUp"):
        browser.call(
            "Input.dispatchKeyEvent",
            type=kind,
            key="Tab",
            code="Tab",
            windowsVirtualKeyCode=9,
            modifiers=8,
        )
    browser.press("Enter", 13, "\r")
    assert browser.run(shown) == ["botany", "zoology", "algebra", "history"]
    assert browser.run(marks)[1:3] == ["descending", None]
    browser.click(f"{table} thead th:first-child button")
    assert browser.run(shown) == ["algebra", "botany", "history", "zoology"]
    assert browser.complaints() == []
    # What this test listens to does speak, and the page's policy keeps even a rogue request in.
    browser.run("new Image().src = 'http://127.0.0.1:9/outside.png'; 0")
    time.sleep(0.3)
    browser.run("0")
    assert browser.complaints() != []

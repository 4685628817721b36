"""A headless Chromium, driven over two pipes in its DevTools protocol: no driver program, no port, no package."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PACKAGE = "chromium"
SECONDS = 60
FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # root in a container has none
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)


def find_chromium() -> str | None:
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Chromium:
    """The browser, with one tab. A context manager."""

    def __enter__(self) -> Chromium:
        program = find_chromium()
        if program is None:
            raise FileNotFoundError(f"there is no Chromium (apt: {PACKAGE})")
        self.folder = tempfile.mkdtemp(prefix="chromium-")
        self.last, self.buffer = 0, b""
        self.events: list[dict[str, Any]] = []
        self.problems: list[str] = []
        """Errors and warnings on the console, exceptions, and what the browser itself complains of"""
        self.requests: list[str] = []
        """Addresses that pages asked for, but for the data: ones"""
        commands, self.commands = os.pipe()
        self.answers, answers = os.pipe()
        self.process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={self.folder}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,  # Python's own files are not inherited anyway
            preexec_fn=at_three_and_four(commands, answers),
        )
        os.close(commands)
        os.close(answers)
        self.session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.commands)  # which ends it
        os.close(self.answers)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.send(method, parameters)
        answer = self.wait_for(lambda received: received.get("id") == self.last)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def send(self, method: str, parameters: dict[str, Any]) -> None:
        self.last += 1
        message: dict[str, Any] = {"id": self.last, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        end = time.monotonic() + SECONDS
        while True:
            received = self.receive(end)
            self.note(received)
            if wanted(received):
                return received

    def receive(self, end: float) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            ready = select.select([self.answers], [], [], max(0, end - time.monotonic()))[0]
            data = os.read(self.answers, 1 << 16) if ready else b""
            if not data:
                raise TimeoutError("Chromium has ended" if ready else f"Chromium said nothing for {SECONDS} s")
            self.buffer += data
        message, _, self.buffer = self.buffer.partition(b"\0")
        received: dict[str, Any] = json.loads(message)
        return received

    def note(self, received: dict[str, Any]) -> None:
        method, values = received.get("method"), received.get("params", {})
        if method == "Runtime.consoleAPICalled" and values["type"] in ("error", "warning", "assert"):
            self.problems.append(f"console {values['type']}: {values['args']}")
        elif method == "Runtime.exceptionThrown":
            self.problems.append(f"exception: {values['exceptionDetails']}")
        elif method == "Log.entryAdded" and values["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"log: {values['entry']['text']}")
        elif method == "Network.requestWillBeSent" and not values["request"]["url"].startswith("data:"):
            self.requests.append(values["request"]["url"])

    def show(self, file: Path, width: int, height: int = 800, dark: bool = False, media: str = "screen") -> None:
        """Opens a file from disk in a window of this size and waits until it is loaded."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.send("Page.navigate", {"url": file.absolute().as_uri()})
        self.wait_for(lambda received: received.get("method") == "Page.loadEventFired")

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression. Raises RuntimeError if it throws."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"]))
        return found["result"].get("value")

    def screenshot(self, file: Path, selector: str = "html") -> None:
        """Of the whole element that the CSS selector names, as PNG."""
        box = self.evaluate(
            f"(b => ({{x: b.x + scrollX, y: b.y + scrollY, width: b.width, height: b.height}}))"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        picture = self.call(
            "Page.captureScreenshot", format="png", captureBeyondViewport=True, clip={**box, "scale": 1}
        )
        file.write_bytes(base64.b64decode(picture["data"]))


def at_three_and_four(commands: int, answers: int) -> Callable[[], None]:
    """What runs in the child: Chromium reads commands from file 3 and writes answers to file 4."""

    def place() -> None:
        high = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, 10) for file in (commands, answers)]
        for number, file in zip((3, 4), high, strict=True):
            os.dup2(file, number)

    return place

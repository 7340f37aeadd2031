"""A headless Chromium, driven over pipes with the DevTools protocol: no driver, no port, no library."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATIENCE = 60.0  # seconds for one answer; a busy machine starts a browser slowly


def find_chromium() -> str | None:
    """The browser's command; None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((found for name in names if (found := shutil.which(name))), None)


@dataclass
class Page:
    """One tab. ``events`` are all that the browser told of it, in order."""

    reading: int
    writing: int
    session: str | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    _sent: int = 0
    _received: bytes = b""

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self._sent += 1
        message: dict[str, Any] = {"id": self._sent, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.writing, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._sent:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._received:
            ready, _, _ = select.select([self.reading], [], [], max(0, end - time.monotonic()))
            assert ready, f"Chromium said nothing for {PATIENCE} s"
            chunk = os.read(self.reading, 1 << 16)
            assert chunk, "Chromium ended"
            self._received += chunk
        message, _, self._received = self._received.partition(b"\0")
        return dict(json.loads(message))

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; promises are waited for."""
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script: str) -> None:
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.run(script):
            assert time.monotonic() < end, f"{script} was not true within {PATIENCE} s"
            time.sleep(0.02)

    def open(self, url: str) -> None:
        """Load a page and wait until it is there."""
        self.call("Page.navigate", url=url)
        self.wait(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    def resize(self, width: int, height: int = 900) -> None:
        """Give the window other sides, in CSS pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def press(self, key: str, code: int) -> None:
        """Strike a key where the focus is."""
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)

    def told(self, *methods: str) -> list[dict[str, Any]]:
        """The parameters of the events of these kinds so far."""
        return [event["params"] for event in self.events if event.get("method") in methods]


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are out of the way of the descriptors that the browser takes."""
    low = os.pipe()
    reading, writing = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in low)
    for end in low:
        os.close(end)
    return reading, writing


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A browser with one empty tab that tells of its console, its errors and its requests.

    Args:
        profile: an empty folder of its own.
    """
    command = find_chromium()
    assert command is not None, "there is no Chromium here; install one, for instance with apt-get install chromium"
    (their_in, our_out), (our_in, their_out) = _pipe(), _pipe()
    # the browser reads from descriptor 3 and writes to 4; only bash moves descriptors of two digits
    shell = ["bash", "-c", f'exec "$@" 3<&{their_in}- 4>&{their_out}-', "bash"]
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe"]
    process = subprocess.Popen(
        [*shell, command, *flags, f"--user-data-dir={profile}", "about:blank"],
        pass_fds=(their_in, their_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(their_in)
    os.close(their_out)
    try:
        page = Page(our_in, our_out)
        target = page.call("Target.createTarget", url="about:blank")["targetId"]
        page.session = page.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.resize(1280)
        yield page
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(our_in)
        os.close(our_out)

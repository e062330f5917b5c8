"""A headless Chromium, driven through its debugging pipe: no driver, no port, no network."""

import base64
import io
import itertools
import json
import os
import shutil
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from PIL import Image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu-sandbox", "--remote-debugging-pipe", "--no-first-run"),
    *("--disable-background-networking", "--disable-extensions", "--disable-dev-shm-usage", "--mute-audio"),
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--host-resolver-rules=MAP * ~NOTFOUND"),
)
KEYS = {"Enter": 13, "Tab": 9, "ArrowUp": 38, "ArrowDown": 40, "ArrowLeft": 37, "ArrowRight": 39}


class Page:
    """A page in the browser.

    Attributes:
        errors: messages of the console and violations of the page's policy.
        requests: addresses that were asked for, but data and blob URLs.
    """

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._buffer = write, os.fdopen(read, "rb", buffering=0), b""
        self._numbers, self._session = itertools.count(1), None
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._loaded = False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Calls a method of the protocol."""
        number = next(self._numbers)
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": number, "method": method, "params": params} | session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != number:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = self._read.read(1 << 16)
            if not part:
                raise RuntimeError("Chromium has ended")
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        kind, params = event.get("method"), event.get("params", {})
        if kind == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif kind == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(" ".join(str(each.get("value", each)) for each in params["args"]))
        elif kind == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(params["entry"]["text"])
        elif kind == "Network.requestWillBeSent" and not params["request"]["url"].startswith(("data:", "blob:")):
            self.requests.append(params["request"]["url"])
        self._loaded |= kind == "Page.loadEventFired"

    def open(self, path: Path, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Opens a file in a window of a size, and waits until it is loaded."""
        self.errors, self.requests, self._loaded = [], [], False
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not self._loaded:
            self._note(self._next())

    def run(self, script: str) -> Any:
        """The value of an expression; promises are awaited."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def wait_for(self, script: str, seconds: float = 20) -> None:
        """Waits until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(script):
            if time.monotonic() > end:
                raise TimeoutError(f"{script}; console: {self.errors}")
            time.sleep(0.05)

    def colours(self, selector: str) -> set[Any]:
        """The colours that the element shows on the screen."""
        box = self.run(
            f"(() => {{ const e = document.querySelector('{selector}'); e.scrollIntoView({{block: 'center'}}); "
            "return e.getBoundingClientRect().toJSON(); })()"
        )
        clip = {name: box[name] for name in ("x", "y", "width", "height")} | {"scale": 1}
        clip["y"] += self.run("scrollY")
        shot = base64.b64decode(self.call("Page.captureScreenshot", format="png", clip=clip)["data"])
        return {colour for _, colour in Image.open(io.BytesIO(shot)).convert("RGB").getcolors(1 << 24) or ()}

    def press(self, key: str) -> None:
        """Presses a key."""
        text = {"text": "\r"} if key == "Enter" else {}
        code = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
        self.call("Input.dispatchKeyEvent", type="keyDown", **code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **code)


@contextmanager
def chromium(profile: Path):
    """A page of a browser that is started for it.

    Args:
        profile: folder for the browser's own files.
    """
    to_browser, from_here = os.pipe()
    to_here, from_browser = os.pipe()

    def name_pipes() -> None:  # which the browser expects as 3 and 4
        read, write = os.dup(to_browser), os.dup(from_browser)
        os.dup2(read, 3)
        os.dup2(write, 4)

    command = [str(CHROMIUM), *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
    with subprocess.Popen(
        command, close_fds=False, preexec_fn=name_pipes, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        page = Page(from_here, to_here)
        try:
            yield page
        finally:
            with suppress(RuntimeError, OSError):
                page._session = None
                page.call("Browser.close")
            page._read.close()
            os.close(from_here)
            process.kill()

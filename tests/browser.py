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
WITHOUT_WEBGL = ("--disable-gpu", "--disable-3d-apis")
KEYS = {"Enter": 13, "Tab": 9, "Space": 32, "Backspace": 8}
KEYS |= {"ArrowUp": 38, "ArrowDown": 40, "ArrowLeft": 37, "ArrowRight": 39}
TEXTS = {"Enter": "\r", "Space": " "}  # that these keys write
LOOKS = {"wide": (1200, False), "wide-dark": (1200, True), "narrow": (375, False), "narrow-dark": (375, True)}
LEAST_CONTRAST = 4.5  # of text, by the Web Content Accessibility Guidelines
# Texts whose colour differs too little from that behind them, as "contrast: text".
PALE_TEXTS = """(() => {
  const parts = (text) => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = (colour) => parts(colour).slice(0, 3)
    .map((each) => each / 255 <= 0.04045 ? each / 255 / 12.92 : ((each / 255 + 0.055) / 1.055) ** 2.4)
    .reduce((sum, each, place) => sum + each * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor;
      if ((parts(colour)[3] ?? 1) > 0) return light(colour);
    }
    return matchMedia("(prefers-color-scheme: dark)").matches ? 0 : 1;
  };
  const found = [];
  for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].filter((each) => each.nodeType === 3).map((each) => each.data).join("").trim();
    if (!own || !element.checkVisibility() || element.closest("script, style, option")) continue;
    const style = getComputedStyle(element), text = light(element instanceof SVGElement ? style.fill : style.color);
    const [low, high] = [text, behind(element)].sort((a, b) => a - b), contrast = (high + 0.05) / (low + 0.05);
    if (contrast < LEAST) found.push(`${contrast.toFixed(1)}: ${own.slice(0, 40)}`);
  }
  return found;
})()""".replace("LEAST", str(LEAST_CONTRAST))
SCREENSHOTS = Path(os.environ.get("FRUGALSEG_SCREENSHOTS") or Path(__file__).parents[1] / "screenshots")


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

    def look_at(self, path: Path, name: str, ready: str = "true") -> list[str]:
        """Opens a file in a wide and in a narrow window, light and dark, and saves screenshots of two of these.

        Args:
            path: of the page.
            name: of the screenshots.
            ready: expression that is true as soon as the page is complete.

        Returns:
            What is wrong: errors, requests, pages that scroll sideways, illegible texts.
        """
        wrong = []
        for look, (width, dark) in LOOKS.items():
            self.open(path, width=width, dark=dark)
            self.wait_for(ready)
            if look in ("wide", "narrow-dark"):  # all four would be slow
                self.save_screenshot(f"{name}-{look}")
            found = self.run("document.documentElement.scrollWidth")
            wrong += [f"{look}: {found} px wide"] if found > width else []
            wrong += [f"{look}: {each}" for each in self.errors + self.run(PALE_TEXTS)]
            wrong += [f"{look}: asks for {each}" for each in self.requests if each != path.resolve().as_uri()]
        return wrong

    def save_screenshot(self, name: str, whole: bool = True) -> None:
        """Saves the page as a PNG in `SCREENSHOTS`; whole: also what is outside the window."""
        self.run("Promise.all([...document.images].map((each) => { each.loading = 'eager'; return each.decode(); }))")
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {name: size[name] for name in ("x", "y", "width", "height")} | {"scale": 1}
        options = {"clip": clip, "captureBeyondViewport": True} if whole else {}
        shot = self.call("Page.captureScreenshot", format="png", **options)
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        (SCREENSHOTS / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))

    def press(self, key: str, times: int = 1) -> None:
        """Presses a key."""
        text = {"text": TEXTS[key]} if key in TEXTS else {}
        code = {"key": TEXTS.get(key, key).replace("\r", key), "code": key, "windowsVirtualKeyCode": KEYS[key]}
        for _ in range(times):
            self.call("Input.dispatchKeyEvent", type="keyDown", **code, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", **code)

    def write(self, text: str) -> None:
        """Writes a text where the focus is, letter by letter."""
        for letter in text:
            self.call("Input.dispatchKeyEvent", type="char", text=letter)

    def click(self, element: str) -> None:
        """Clicks the middle of an element, a JavaScript expression, with the mouse."""
        x, y = self.run(
            f"(() => {{ const e = {element}; e.scrollIntoView({{block: 'center'}}); "
            "const box = e.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


@contextmanager
def chromium(profile: Path, *options: str):
    """A page of a browser that is started for it.

    Args:
        profile: folder for the browser's own files.
        options: of the browser, such as `WITHOUT_WEBGL`.
    """
    to_browser, from_here = os.pipe()
    to_here, from_browser = os.pipe()

    def name_pipes() -> None:  # which the browser expects as 3 and 4
        read, write = os.dup(to_browser), os.dup(from_browser)
        os.dup2(read, 3)
        os.dup2(write, 4)

    command = [str(CHROMIUM), *OPTIONS, *options, f"--user-data-dir={profile}", "about:blank"]
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

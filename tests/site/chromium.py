"""A Chromium that is driven by the DevTools protocol over its pipe: pages as a reader has them, at any width, light or dark."""

import base64
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

from tests.browser import browser

_OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe",
)  # fmt: skip


class Chromium:
    """One page of a browser without a screen; a context manager."""

    def __enter__(self):
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_browser, self._commands = os.pipe()
        self._answers, from_browser = os.pipe()

        def hand_over():  # the browser reads commands from descriptor 3 and answers on 4
            high = [os.dup(to_browser), os.dup(from_browser)]
            spare = [os.dup(descriptor) for descriptor in high]
            os.dup2(spare[0], 3)
            os.dup2(spare[1], 4)

        self._process = subprocess.Popen(
            [browser(), *_OPTIONS, f"--user-data-dir={self._profile.name}", "about:blank"],
            preexec_fn=hand_over, close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        self._buffer, self._number, self._session = b"", 0, None
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self("Page.enable")
        self("Page.setBypassCSP", enabled=True)  # a page's policy lets no script run but its own
        self.resize(1280)
        return self

    def __exit__(self, *error):
        os.close(self._commands)
        self._process.terminate()
        self._process.wait()
        os.close(self._answers)
        self._profile.cleanup()

    def __call__(self, method, **parameters):
        """What the browser answers to one command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def resize(self, width, *, height=900, dark=False):
        """Take a width in pixels, a phone's below 500, and the reader's preference of dark pages."""
        self(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)

    def open(self, page):
        """Go to a file and wait until it is laid out and its scripts have begun."""
        uri = page.as_uri() if isinstance(page, Path) else page
        self.value("location.protocol == 'file:' && localStorage.clear()")  # the site remembers a choice of colours
        self("Page.navigate", url=uri)
        self.wait("document.readyState == 'complete'")
        time.sleep(0.2)

    def value(self, expression):
        """The value of a JavaScript expression, awaited if it is a promise."""
        answer = self("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"])[:500])
        return answer["result"].get("value")

    def wait(self, expression, seconds=20.0):
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + seconds
        while not self.value(expression):
            if time.monotonic() > end:
                raise TimeoutError(expression)
            time.sleep(0.05)

    def photograph(self, path):
        """Write what the window shows as a PNG file."""
        path.write_bytes(base64.b64decode(self("Page.captureScreenshot", format="png")["data"]))

    def _read(self):
        while b"\0" not in self._buffer:
            more = os.read(self._answers, 1 << 20)
            if not more:
                raise RuntimeError("the browser has ended")
            self._buffer += more
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

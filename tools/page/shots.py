#!/usr/bin/env python3
"""Looks at the live page in headless Chromium: pictures, and what must hold.

    tools/page/shots.py --server target/debug/aeris-server --out DIR

Starts a server with a monitor port and a load, opens the page in light and dark, wide and narrow,
waits until it has shown a few snapshots, and takes a picture of each. It fails if the page logged
an error, asked for anything from elsewhere, is wider than its window, or shows no figures.

Needs chromium (a package of Debian). Chromium is steered over its DevTools protocol, of which this
file has what it needs: a WebSocket, requests with an id, events.
"""

import argparse
import base64
import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

LIMIT = 30  # seconds for each step


def wait_for(what, check):
    """Calls `check` until it returns something; its errors mean "not yet"."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        try:
            found = check()
        except (OSError, ValueError):
            found = None
        if found:
            return found
        time.sleep(0.1)
    sys.exit(f"{what}: not within {LIMIT} s")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class DevTools:
    """A page of Chromium: calls, and the events that came in between."""

    def __init__(self, url):
        host, _, path = url.removeprefix("ws://").partition("/")
        name, _, port = host.partition(":")
        self.socket = socket.create_connection((name, int(port)), LIMIT)
        key = base64.b64encode(os.urandom(16)).decode()
        head = (
            f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        self.socket.sendall(head.encode())
        reply = b""
        while not reply.endswith(b"\r\n\r\n"):
            reply += self.socket.recv(1)
        assert b" 101 " in reply, reply
        self.next_id = 0
        self.events = []

    def _exactly(self, count):
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise ConnectionError("chromium closed the connection")
            data += piece
        return data

    def _send(self, text):
        data, mask = text.encode(), os.urandom(4)
        size = struct.pack("!BH", 0xFE, len(data)) if len(data) < 65536 else struct.pack("!BQ", 0xFF, len(data))
        self.socket.sendall(b"\x81" + size + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))

    def _receive(self):
        """One message, of any number of frames."""
        data = b""
        while True:
            first, size = self._exactly(2)
            if size == 126:
                (size,) = struct.unpack("!H", self._exactly(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", self._exactly(8))
            data += self._exactly(size)
            if first & 0x80:
                return json.loads(data)

    def call(self, method, **params):
        self.next_id += 1
        self._send(json.dumps({"id": self.next_id, "method": method, "params": params}))
        while True:
            message = self._receive()
            if message.get("id") == self.next_id:
                if "error" in message:
                    sys.exit(f"{method}: {message['error']}")
                return message["result"]
            self.events.append(message)

    def value(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return result["result"].get("value")


def problems_of(page, monitor):
    """What the events of the page say against it."""
    found = []
    for event in page.events:
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            found.append(str(params["exceptionDetails"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            # A browser asks for an icon that the page does not name.
            if not params["entry"].get("url", "").endswith("/favicon.ico"):
                found.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith(monitor):
                found.append(f"a request to {url}")
    return found


def look(page, monitor, dark, width, script, out):
    """Opens the page once; returns what is wrong with it."""
    page.events.clear()
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    page.call("Emulation.setEmulatedMedia", features=[scheme])
    page.call("Emulation.setScriptExecutionDisabled", value=not script)
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    page.call("Page.navigate", url=f"{monitor}/")
    if script:
        wait_for("figures on the page", lambda: page.value("typeof turns === 'object' && turns.length > 50 && last !== null"))
        wait_for("rates", lambda: page.value("document.querySelectorAll('#bar span').length") == 4)
        wait_for("memory by type", lambda: page.value("document.querySelectorAll('#memory tr').length === 5"))
        wait_for("slow turns", lambda: page.value("document.querySelectorAll('#slowest tr').length > 3"))
    else:
        time.sleep(1)
    # Without script nothing can be asked, and the pictures show it.
    found = problems_of(page, monitor)
    if script and page.value("document.documentElement.scrollWidth") > width:
        found.append(f"wider than its {width} pixels")
    picture = page.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
    name = f"{'dark' if dark else 'light'}-{width}{'' if script else '-without-script'}.png"
    (out / name).write_bytes(base64.b64decode(picture["data"]))
    return [f"{name}: {problem}" for problem in found]


def load(port, parent):
    """Some commands for each type, while the parent process lives."""
    with socket.create_connection(("127.0.0.1", port), LIMIT) as s:
        lines = ["SET a:{0} x", "GET a:{0}", "LPUSH list {0}", "LTRIM list 0 99", "HSET h f{0} v", "ZADD z {0} m{0}"]
        n = 0
        while os.getppid() == parent:
            n = (n + 1) % 100
            s.sendall("".join(line.format(n) + "\r\n" for line in lines * 5).encode())
            s.recv(65536)
            time.sleep(0.002)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--server", required=True, type=pathlib.Path)
    options.add_argument("--out", required=True, type=pathlib.Path)
    args = options.parse_args()
    chromium = shutil.which("chromium") or sys.exit("chromium is missing (apt-get install chromium)")
    args.out.mkdir(parents=True, exist_ok=True)
    port, monitor_port, devtools_port = free_port(), free_port(), free_port()
    monitor = f"http://127.0.0.1:{monitor_port}"
    started = []
    with tempfile.TemporaryDirectory() as scratch:
        try:
            settings = ["--port", port, "--monitor-port", monitor_port, "--save", "", "--appendonly", "yes"]
            settings += ["--hotkeys-tracking", "yes", "--hotkeys-sample-ratio", "1", "--bigkeys-tracking", "yes"]
            server = subprocess.Popen([args.server.resolve(), *map(str, settings)], cwd=scratch, stdout=subprocess.DEVNULL)
            started.append(server)
            wait_for("the server", lambda: urllib.request.urlopen(f"{monitor}/healthz").status == 200)
            parent = os.getpid()
            loader = os.fork()
            if loader == 0:
                try:
                    load(port, parent)
                finally:
                    os._exit(0)
            browser = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={scratch}/profile"]
            browser += [f"--remote-debugging-port={devtools_port}", "about:blank"]
            started.append(subprocess.Popen([chromium, *browser], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            pages = f"http://127.0.0.1:{devtools_port}/json/list"
            targets = wait_for("chromium", lambda: [t for t in json.load(urllib.request.urlopen(pages)) if t["type"] == "page"])
            page = DevTools(targets[0]["webSocketDebuggerUrl"])
            for domain in ("Page", "Runtime", "Log", "Network"):
                page.call(f"{domain}.enable")
            problems = []
            for dark in (False, True):
                for width in (1200, 400):
                    problems += look(page, monitor, dark, width, True, args.out)
            problems += look(page, monitor, False, 1200, False, args.out)
            os.kill(loader, 9)
            os.waitpid(loader, 0)
        finally:
            for process in reversed(started):
                process.terminate()
                process.wait()
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problems, 5 pictures in {args.out}")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()

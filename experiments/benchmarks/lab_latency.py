"""How long the lab takes to answer in the browser, tab by tab: from a key pressed on a slider to the new picture.

Starts the lab, opens it in a headless Chromium and presses the arrow key on a slider of every tab, and on the handle of
those with a canvas; the clock is the browser's. `first` is from the click on the tab to its pictures, with programs
that are still to be compiled, or in the compilation cache.
"""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")
FLAGS += ("--disable-background-networking", "--disable-component-update", "--disable-sync")
# Resolves to the milliseconds from the next key press to the first frame with other numbers in a picture.
WATCH = """() => {
  // The pictures are in shadow trees, which a selector does not enter.
  const inside = root => [...root.querySelectorAll("*")].flatMap(
    node => [node, ...(node.shadowRoot ? inside(node.shadowRoot) : [])]);
  const plots = inside(document.querySelector(".lab")).filter(n => n.classList.contains("js-plotly-plot"));
  const seen = () => JSON.stringify(plots.map(p => p.layout.meta));
  const before = seen();
  window.answered = new Promise((done, fail) => addEventListener("keydown", () => {
    const begun = performance.now();
    const look = () => {
      if (seen() !== before) done(performance.now() - begun);
      else if (performance.now() - begun > 30000) fail("no picture has changed for 30 seconds");
      else requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
  }, { capture: true, once: true }));
}"""


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured."""

    tabs: tuple[str, ...] = ("Catastrophe", "Cliff", "Descent", "Rules", "Omega", "Growth", "Bifurcations")
    """Not Training, which answers to its button with a run of its own."""
    presses: int = 30
    warm: int = 3
    """Presses before those that count: programs compile, caches fill."""


class Result(NamedTuple):
    """Milliseconds by tab and control."""

    metrics: dict[str, Any]
    rows: list[tuple[str, ...]]


@contextlib.contextmanager
def served() -> Iterator[str]:
    """The address of a lab on a free port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "marimo", "-q", "run", "experiments/lab.py", "--headless", "--no-token"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(240):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            time.sleep(0.25)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


def press(page: Any, control: Any, config: Config) -> list[float]:
    """Milliseconds from each press of the right arrow to its answer."""
    times = []
    for k in range(config.warm + config.presses):
        control.focus()
        page.evaluate(WATCH)
        # To and fro: at an end of its range a slider would not answer.
        page.keyboard.press("ArrowRight" if k % 4 < 2 else "ArrowLeft")
        times.append(round(page.evaluate("window.answered"), 1))
        page.wait_for_timeout(100)
    return times[config.warm :]


def run(config: Config, say: Any = print) -> Result:
    """Open every tab, press, and count."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise RuntimeError("no browser is installed: apt-get install chromium")
    metrics: dict[str, Any] = {}
    rows: list[tuple[str, ...]] = [("tab: control", "median, worst of the answers (ms); first picture (s)")]
    with served() as address, sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(180_000)
        page.goto(address)
        for tab in config.tabs:
            page.get_by_role("tab", name=tab).wait_for()
            begun = time.perf_counter()
            page.get_by_role("tab", name=tab).click()
            module = {"Rules": "clipping"}.get(tab, tab.lower())
            page.wait_for_selector(f".lab[data-tab={module}] .js-plotly-plot .xaxislayer-above text")
            first = time.perf_counter() - begun
            controls = {"slider": page.locator(".lab .controls").get_by_role("slider").first}
            if page.locator(".pad .handle").count():
                controls["handle"] = page.locator(".pad .handle")
            for name, control in controls.items():
                times = press(page, control, config)
                found = {"milliseconds": times, "median": float(np.median(times)), "worst": max(times), "first": first}
                metrics[f"{tab}: {name}"] = found
                rows.append((f"{tab}: {name}", f"{found['median']:.0f}, {found['worst']:.0f}; {first:.1f}"))
                say(" ".join(rows[-1]))
        browser.close()
    machine = {"cores": os.cpu_count(), "load_average": os.getloadavg()[0], "chromium": version(chromium)}
    return Result({"controls": metrics, **machine}, rows)


def version(chromium: str) -> str:
    """What the browser calls itself."""
    return subprocess.run([chromium, "--version"], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from experiments import runner

    runner.main(__file__)

"""experiments/lab.py in a browser: every tab loads, answers with the library's numbers, asks for nothing else."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
from experiments.lab import clipping, descent

ROOT = pathlib.Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
TABS = ("Catastrophe", "Cliff", "Descent", "Rules", "Omega", "Growth", "Training", "Bifurcations")
# The pictures are in shadow trees, which a selector does not enter.
PLOTS = """(() => {
    const inside = root => [...root.querySelectorAll('*')].flatMap(
        node => [node, ...(node.shadowRoot ? inside(node.shadowRoot) : [])]);
    return inside(document.querySelector('.lab')).filter(n => n.classList.contains('js-plotly-plot'));
})()"""
# The numbers that each picture says it shows.
META = f"() => {PLOTS}.map(plot => plot.layout.meta)"


def cliff_numbers(meta):
    """The law of the one-unit map at w = 5: 1.81847 m^T and 0.16121 m^-T."""
    growth = meta["multiplier"] ** meta["T"]
    np.testing.assert_allclose([meta["peak"] / growth, meta["wide"] * growth], [1.81847, 0.16121], rtol=0.02)


def bifurcation_numbers(meta):
    """Fixed points of x = w s(x) + b, with the multiplier w s(x) (1 - s(x))."""
    x, s = np.array(meta["fixed"]), 1 / (1 + np.exp(-np.array(meta["fixed"])))
    np.testing.assert_allclose(x, meta["w"] * s + meta["b"], atol=1e-9)
    np.testing.assert_allclose(meta["multipliers"], meta["w"] * s * (1 - s), rtol=1e-7)


def catastrophe_numbers(meta):
    """One run at chance (log 4 nats), one that has learned."""
    assert meta["end"][0] > 1.2
    assert meta["end"][1] < 0.05


def omega_numbers(meta):
    """The penalty lowers what it penalises, and the steepest place of the surface with it."""
    assert meta["omega"][1] < meta["omega"][0]
    assert meta["steepest"][1] < meta["steepest"][0]


SAYS = {
    "Cliff": cliff_numbers,
    "Bifurcations": bifurcation_numbers,
    "Catastrophe": catastrophe_numbers,
    "Omega": omega_numbers,
}


OF_MARIMO = "_redrawFromAutoMarginCount"
"""marimo's plot element logs it when it is taken away while plotly is about to draw again; nothing is lost."""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The lab, served on a free port of this machine."""
    pytest.importorskip("marimo", reason="marimo is not installed: pip install '.[lab]'")
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no browser is installed: apt-get install chromium")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = tmp_path_factory.mktemp("lab") / "server.log"
    command = [sys.executable, "-m", "marimo", "-q", "run", "experiments/lab.py", "--headless", "--no-token"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    url = f"http://127.0.0.1:{port}"
    with file.open("w") as log, subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log) as server:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=1).close()
                break
            except OSError:
                assert server.poll() is None, file.read_text()
                time.sleep(0.25)
        yield url
        server.terminate()


@pytest.fixture(scope="module")
def chromium(address):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, address):
    """Opens the lab; afterwards no error may have been logged, and no request made to another machine."""
    errors, requests, pages = [], [], []

    def open_page(width=1280, dark=False):
        page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
        page.set_default_timeout(120_000)
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.on("websocket", lambda socket: requests.append(socket.url.replace("ws:", "http:")))
        page.goto(address)
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not [error for error in errors if OF_MARIMO not in error]
    assert not [url for url in requests if not url.startswith((address, "data:", "blob:"))]


def show(page, tab):
    """Chooses a tab and waits for its pictures."""
    page.get_by_role("tab", name=tab).click()
    module = {"Training": "training_run", "Rules": "clipping"}.get(tab, tab.lower())
    page.wait_for_selector(f".lab[data-tab={module}] .js-plotly-plot .xaxislayer-above text")
    return page.evaluate(META)


def test_integration_every_tab_loads_in_both_themes_and_nothing_is_cut(opened, tmp_path):
    for width, dark in ((1280, False), (390, True)):
        page = opened(width, dark)
        for tab in TABS:
            metas = show(page, tab)
            assert metas
            assert all(metas), tab
            if tab in SAYS:
                SAYS[tab](metas[0])
            assert page.evaluate("document.documentElement.scrollWidth") <= width, tab
            cut = page.evaluate(
                f"""() => {PLOTS}.flatMap(plot => [...plot.querySelectorAll('text')].filter(text => {{
                    const t = text.getBoundingClientRect(), s = plot.getBoundingClientRect();
                    return t.width && (t.left < s.left - 1 || t.right > s.right + 1 || t.bottom > s.bottom + 1);
                }}).map(text => text.textContent))"""
            )
            assert not cut, (tab, cut)
            page.screenshot(path=tmp_path / f"lab_{tab}_{width}_{'dark' if dark else 'light'}.png", full_page=True)


def test_integration_a_run_is_drawn_while_it_goes_on_and_diagnosed(opened):
    page = opened()
    show(page, "Training")
    page.wait_for_function(f"() => ({META})()[0].updates === 1000")
    assert page.evaluate(META)[0]["findings"]
    page.get_by_label("clipping strategy").select_option("none")
    page.get_by_role("button", name="Train").click()
    page.wait_for_function(f"() => ({META})()[0].strategy === 'none' && ({META})()[0].updates > 0")
    page.wait_for_function(f"() => ({META})()[0].updates === 1000")
    said = page.inner_text(".lab .told")
    assert all(name in said for name in page.evaluate(META)[0]["findings"])


def test_integration_a_slider_changes_the_numbers_to_the_librarys(opened):
    page = opened()
    before = show(page, "Descent")[0]
    slider = page.locator(".lab .controls").get_by_role("slider").first
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.wait_for_function(f"() => ({META})()[0].threshold > {before['threshold']} * 1.9")
    meta = page.evaluate(META)[0]
    w, b = meta["start"]
    found = descent.compute(w, b, meta["threshold"], meta["rate"])
    np.testing.assert_allclose(meta["longest"], [path.longest for path in found.paths], rtol=1e-9)
    np.testing.assert_allclose(meta["end"], [[path.w[-1], path.b[-1]] for path in found.paths], rtol=1e-9)


def test_integration_a_drag_and_the_arrow_keys_move_the_gradient(opened):
    page = opened()
    before = show(page, "Rules")[0]
    handle = page.locator(".pad .handle")
    grip = handle.bounding_box()
    x, y = grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 60, y - 40, steps=6)
    page.mouse.up()
    page.wait_for_function(f"() => ({META})()[0].gradient[0] < {before['gradient'][0]} - 0.3")
    handle.focus()
    page.keyboard.press("Shift+ArrowDown")
    page.wait_for_timeout(1000)
    meta = page.evaluate(META)[0]
    bias, weight = meta["gradient"]
    found = clipping.compute(bias, weight, meta["threshold"], meta["usual"], meta["multiplier"])
    for name, outcome in found.outcomes.items():
        np.testing.assert_allclose(list(meta[name].values()), outcome, rtol=1e-9, atol=1e-12)
    grip = handle.bounding_box()
    assert abs(grip["x"] + grip["width"] / 2 - (x - 60)) < 2

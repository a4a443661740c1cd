"""docs/explorer.html in a browser: it loads from disk, answers with the library's numbers, and asks for nothing."""

import importlib.util
import json
import os
import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.untyped import present

from cliffs import landscape
from cliffs.recurrent import OneUnitParams, one_unit_cost

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explorer.html"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


def test_property_the_page_is_one_small_file_that_names_no_other():
    text = PAGE.read_text(encoding="utf-8")
    assert len(text.encode()) < 1.5e6
    assert re.findall(r"https?://[\w./]+", text) == ["http://www.w3.org/2000/svg"]  # the name of SVG's elements
    assert not re.search(r"<script[^>]*\bsrc=|<link[^>]*stylesheet|@import|url\((?!#)|fetch\(|XMLHttpRequest", text)


def test_parity_the_numbers_on_the_page_are_those_of_the_results():
    spec = present(importlib.util.spec_from_file_location("explorer_data", ROOT / "docs" / "explorer_data.py"))
    module = importlib.util.module_from_spec(spec)
    present(spec.loader).exec_module(module)
    text = PAGE.read_text(encoding="utf-8")
    found = json.loads(module.BLOCK.search(text)[0].split("\n")[1])
    assert found == module.summaries(), "run: python docs/explorer_data.py"
    record = json.loads((ROOT / "results" / "training" / "clipping_strategies" / "metrics.json").read_text())[
        "metrics"
    ]["strategies"]
    for rule in found["success"]["rules"][1:]:
        assert [r["solved"] for r in rule["results"]] == [r["solved"] for r in record[rule["rule"]]]
    assert np.array(found["stability"]["left_share"]).shape == (21, len(found["stability"]["thresholds"]))


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    if CHROMIUM is None:
        pytest.skip("no browser is installed: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium):
    """Opens the page; afterwards no error may have been logged, and no request made but that of the file itself."""
    errors, requests, pages = [], [], []

    def open_page(address="", width=1280, dark=False):
        page = chromium.new_page(viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light")
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(PAGE.as_uri() + address)
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not errors
    assert {url.split("#")[0] for url in requests} <= {PAGE.as_uri(), "data:,"}


def numbers(page):
    # Two frames: the page draws in the next one.
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return page.evaluate("({ state: { ...explorer.state }, ...explorer.data() })")


def check(found):
    """What the page shows against the library: cost, gradient, and the first steps of the clipped descent."""
    state = found["state"]
    with jax.enable_x64(True):
        params = OneUnitParams(jnp.float64(state["w"]), jnp.float64(state["b"]))
        cost = lambda p: one_unit_cost(p, num_steps=state["T"])  # noqa: E731
        error, grads = jax.value_and_grad(cost)(params)
        np.testing.assert_allclose([found["error"], found["dw"], found["db"]], [error, grads.w, grads.b], rtol=1e-11)
        optimizer = optax.chain(optax.clip_by_global_norm(state["threshold"]), optax.sgd(state["rate"]))
        path = landscape.descend(cost, params, optimizer, 10)
        for name in ("w", "b"):
            np.testing.assert_allclose(found["clipped"][name][:11], getattr(path.params, name), rtol=1e-10)


def test_integration_the_page_opens_at_the_papers_start(opened):
    page = opened()
    found = numbers(page)
    assert found["state"] == {"w": 5, "b": -2.3, "rate": 0.1, "threshold": 0.1, "T": 50, "updates": 80}
    check(found)
    # The numbers of results/error_surface: plain descent makes one step of 15.7 and ends at (12.8, 11.0).
    record = json.loads((ROOT / "results" / "figures" / "error_surface" / "metrics.json").read_text())["metrics"][
        "paths"
    ]
    np.testing.assert_allclose(found["unclipped"]["longest"], record["unclipped"]["longest_step"], rtol=1e-6)
    np.testing.assert_allclose([found["unclipped"][k][-1] for k in "wb"], record["unclipped"]["end"], rtol=1e-6)
    np.testing.assert_allclose(found["clipped"]["longest"], record["clipped"]["longest_step"], rtol=1e-6)
    assert "longest step 16" in page.inner_text("#told-u")
    assert "longest step 0.01" in page.inner_text("#told-c")
    assert "thrown out at update 53" in page.inner_text("#surface")


def test_integration_the_page_says_when_the_threshold_is_never_met(opened):
    page = opened("#threshold=1000&updates=60")
    found = numbers(page)
    assert found["clipped"] == found["unclipped"]
    assert "both: thrown out at update 53" in page.inner_text("#surface")
    assert page.inner_text("#told-u") == page.inner_text("#told-c")
    calm = opened("#rate=0.01&updates=20")
    assert "thrown out" not in calm.inner_text("#surface")


def test_integration_a_slider_and_the_keyboard_change_the_numbers_to_the_librarys(opened):
    page = opened()
    page.locator("#in-threshold").fill(str(np.log10(0.02)))
    page.locator("#in-T").fill("40")
    page.locator("#in-w").fill("5.37")
    found = numbers(page)
    assert (found["state"]["T"], found["state"]["w"]) == (40, 5.37)
    np.testing.assert_allclose(found["state"]["threshold"], 10 ** np.round(np.log10(0.02), 2), rtol=1e-9)
    check(found)
    page.locator("#in-rate").focus()
    page.keyboard.press("ArrowRight")
    assert numbers(page)["state"]["rate"] == pytest.approx(0.1 * 10**0.01)
    page.locator("#plane .handle").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowUp")
    moved = numbers(page)
    np.testing.assert_allclose([moved["state"]["w"], moved["state"]["b"]], [5.36, -2.2], atol=1e-9)
    check(moved)
    page.locator("#reset").click()
    assert numbers(page)["state"]["w"] == 5


@pytest.mark.parametrize("width", [1280, 390])
def test_integration_a_drag_in_one_picture_moves_all(opened, width):
    page = opened(width=width)
    for name, part in (("surface", "w"), ("plane", "w"), ("diagram", "b"), ("stability", "rate")):
        page.locator(f"#{name}").scroll_into_view_if_needed()
        before = numbers(page)["state"]
        grip = page.locator(f"#{name} .handle .dot").bounding_box()
        x, y = grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 20, y + 10, steps=4)
        page.mouse.up()
        found = numbers(page)
        assert found["state"][part] > before[part]
        check(found)
        # The handle is under the pointer, at the place that the new numbers have in the picture.
        if name != "diagram":
            grip = page.locator(f"#{name} .handle .dot").bounding_box()
            np.testing.assert_allclose(
                [grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2], [x + 20, y + 10], atol=1.5
            )
        shown = float(page.inner_text("label[for=in-w] + input + output").replace("\u2212", "-"))
        assert shown == pytest.approx(found["state"]["w"], rel=6e-3)


def test_integration_the_address_holds_the_state(opened):
    page = opened("#w=-6&b=3&rate=0.5&threshold=2&T=30&updates=12&theme=dark")
    found = numbers(page)
    assert found["state"] == {"w": -6, "b": 3, "rate": 0.5, "threshold": 2, "T": 30, "updates": 12}
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert len(found["flips"]) == 2
    page.locator("#in-b").fill("2.5")
    page.wait_for_function("location.hash.includes('b=2.5')")
    other = opened(page.evaluate("location.hash"))
    assert numbers(other)["state"] == numbers(page)["state"]
    wrong = opened("#w=abc&b=&rate=1e99&T=-4&updates=2.7")
    assert numbers(wrong)["state"] == {"w": 5, "b": -2.3, "rate": 10, "threshold": 0.1, "T": 1, "updates": 3}


def test_integration_a_finger_drags_the_start_too(chromium):
    context = chromium.new_context(viewport={"width": 390, "height": 800}, has_touch=True)
    page = context.new_page()
    page.goto(PAGE.as_uri())
    before = numbers(page)["state"]
    grip = page.locator("#surface .handle .dot").bounding_box()
    x, y = grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2
    touch = context.new_cdp_session(page)
    for kind, move in (("touchStart", 0), ("touchMove", 15), ("touchMove", 30), ("touchMove", 40)):
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x + move, "y": y - move / 2}]})
        numbers(page)
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    found = numbers(page)
    grip = page.locator("#surface .handle .dot").bounding_box()
    np.testing.assert_allclose(grip["x"] + grip["width"] / 2, x + 40, atol=1.5)
    assert found["state"]["w"] > before["w"]
    assert found["state"]["b"] > before["b"]
    check(found)
    context.close()


VIEWS = [
    (1280, False, ""),
    (1280, True, ""),
    (390, False, ""),
    (390, True, ""),
    (390, False, "#w=-6&b=3&rate=1"),
    (390, False, "#w=6.4&b=-3.1&rate=5&threshold=1000"),
    (390, False, "#w=0&b=8&T=1"),
    (1280, False, "#w=-9&b=-8&updates=1"),
    (1280, False, "#w=9&b=-4.5&T=150&updates=300&threshold=0.01&rate=0.001"),
]


@pytest.mark.parametrize(("width", "dark", "address"), VIEWS)
def test_integration_nothing_is_cut_or_overlaps(opened, tmp_path, width, dark, address):
    page = opened(address, width=width, dark=dark)
    numbers(page)
    assert page.evaluate("document.documentElement.dataset.theme") == ("dark" if dark else "light")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cut = page.evaluate(
        """() => [...document.querySelectorAll('svg text')].filter(text => {
            const t = text.getBoundingClientRect(), s = text.ownerSVGElement.getBoundingClientRect();
            return t.left < s.left - 0.5 || t.right > s.right + 0.5 || t.top < s.top - 0.5 || t.bottom > s.bottom + 0.5;
        }).map(text => text.textContent)"""
    )
    assert not cut
    overlaps = page.evaluate(
        """() => [...document.querySelectorAll('.plot svg')].flatMap(svg => {
            const boxes = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
            const meet = (p, q) => p.left < q.right - 1 && q.left < p.right - 1
                && p.top < q.bottom - 2 && q.top < p.bottom - 2;
            return boxes.flatMap(([a, p], i) => boxes.slice(i + 1).filter(([, q]) => meet(p, q)).map(([b]) => [a, b]));
        })"""
    )
    assert not overlaps
    # Text stands out from its ground (WCAG AA: 4.5 to 1), soft text included.
    for selector in ("h1", ".lead b", ".soft", "button", ".controls label", "td .cell span"):
        ratio = page.evaluate(CONTRAST, selector)
        assert ratio >= 4.5, (selector, ratio)
    page.screenshot(path=tmp_path / f"explorer_{width}_{'dark' if dark else 'light'}.png", full_page=True)


CONTRAST = """selector => {
    const linear = v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const light = text => {
        const [r, g, b] = text.match(/[\\d.]+/g).map(v => linear(Number(v) / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    return Math.min(...[...document.querySelectorAll(selector)].map(element => {
        let ground = element;
        while (getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
        const colors = [getComputedStyle(element).color, getComputedStyle(ground).backgroundColor];
        const [a, b] = colors.map(light).sort((p, q) => q - p);
        return (a + 0.05) / (b + 0.05);
    }));
}"""


def test_integration_a_slider_answers_at_once(opened):
    if os.getloadavg()[0] > (os.cpu_count() or 1):
        pytest.skip("the machine is too busy to time a browser")
    page = opened()
    numbers(page)
    spent = page.evaluate(
        """() => {
            const times = [];
            for (let k = 0; k < 12; k++) {
                const from = performance.now();
                state.w = 4.5 + 0.1 * k;
                state.T = 40 + k;
                render();
                times.push(performance.now() - from);
            }
            return times.sort((a, b) => a - b)[6];
        }"""
    )
    assert spent < 300  # milliseconds, with the whole surface computed anew
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint').map(e => e.startTime)")
    assert not paint or paint[0] < 1000

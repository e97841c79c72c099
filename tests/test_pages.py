"""The pages in a real browser: `make test-browser`. Screenshots lie in results/browser."""

import os
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from data import demo as demo_data
from scripts import all_expt, demo, report
from scripts.run import demo as demo_run
from tests import miniature
from weights.networks import BACKBONES

sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.browser

ROOT = Path(__file__).parent.parent
SHOTS = ROOT / "results/browser"
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
HOSTILE = "<img src=x onerror=\"document.title='broken in'\">$x$ &amp; ☃.bmp"
LOOKS = [(size, scheme) for size in SIZES for scheme in ("light", "dark")]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The demo's page and the report of a sweep, one of whose images has a hostile name."""
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        kept = list(demo_data.PHOTOGRAPHS)[:5]
        patch.setattr(demo_data, "PHOTOGRAPHS", {name: demo_data.PHOTOGRAPHS[name] for name in kept})
        few = [
            one
            for one in demo_data.versions(demo_data.FAULTS["light"])
            if one.name.endswith(("_00.png", "_09.png"))
        ]
        patch.setattr(demo_run, "versions", lambda fault: iter(few))
        assert demo.main(["--out", str(folder / "demo"), "--seeds", "2", "--device", "cpu"]) == 0
    with pytest.MonkeyPatch.context() as patch:
        for name, backbone in BACKBONES.items():
            patch.setitem(BACKBONES, name, miniature.small(backbone))
        miniature.build(folder)
        results, out = folder / "results <b>&", folder / "report"
        some = ("--backbones", "tres", "metaiqa", "--seeds", "2")
        assert all_expt.main(miniature.options(folder, results, *some)) == 0
        for scores in results.rglob("scores.csv"):
            text = scores.read_text(encoding="utf-8")
            quoted = '"' + HOSTILE.replace('"', '""') + '"'
            scores.write_text(text.replace("jpeg/img1.bmp", quoted), encoding="utf-8")
        assert report.main([str(results), "--out", str(out), "--data-root", str(folder / "data")]) == 0
    return {"demo": folder / "demo/index.html", "report": out / "index.html"}


@pytest.fixture(scope="module")
def browser():
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_api.sync_playwright() as playwright:
        # Chromium's own sandbox does not run as root, as which containers run tests.
        found = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def opened(browser, pages):
    """Opens a page; what its console complains of is an error at the end."""
    complaints, open_pages = [], []

    def show(name, size="desktop", scheme="light"):
        width, height = SIZES[size]
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.on("console", lambda said: said.type == "error" and complaints.append(said.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(pages[name].as_uri())
        open_pages.append(page)
        return page

    yield show
    for page in open_pages:
        page.close()
    assert not complaints


@pytest.mark.parametrize("name", ["demo", "report"])
@pytest.mark.parametrize("size, scheme", LOOKS)
def test_a_page_fits_and_is_readable(opened, name, size, scheme):
    """No sideways scroll of the page, text that stands out from what is behind it; what is folded too."""
    page = opened(name, size, scheme)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}-{size}-{scheme}.png", full_page=True)
    wide = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide[0] <= wide[1]
    light = (
        "c => { const [r, g, b] = getComputedStyle(document.body)[c].match(/[0-9.]+/g); return +r + +g + +b }"
    )
    text, ground = (page.evaluate(light, which) for which in ("color", "backgroundColor"))
    assert abs(text - ground) > 300 and (ground > text) == (scheme == "light")


@pytest.mark.parametrize("size", SIZES)
def test_what_is_too_wide_scrolls_alone_and_says_so(opened, size):
    """Whatever scrolls sideways has a shadow at its edge, and can be reached by the keyboard."""
    page = opened("report", size)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    scrolling = page.evaluate(
        """[...document.querySelectorAll('body *')]
        .filter(one => one.scrollWidth > one.clientWidth + 1 && one.clientWidth > 0
            && ['auto', 'scroll'].includes(getComputedStyle(one).overflowX))
        .map(one => ({html: one.outerHTML.slice(0, 200), tab: one.tabIndex,
            shadow: getComputedStyle(one).backgroundAttachment.includes('local')}))"""
    )
    assert size == "desktop" or scrolling
    assert [one["html"] for one in scrolling if not one["shadow"] or one["tab"] != 0] == []


def test_a_hostile_name_is_shown_as_text(opened):
    page = opened("report")
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert HOSTILE in page.evaluate("document.body.textContent") + "".join(
        page.evaluate("[...document.querySelectorAll('[title],[alt]')].map(one => one.title + one.alt)")
    )
    page.wait_for_timeout(200)
    assert page.title() != "broken in"
    assert page.evaluate("document.querySelectorAll('[onerror], script, iframe, object').length") == 0


@pytest.mark.parametrize("name", ["demo", "report"])
def test_every_link_leads_somewhere(opened, pages, name):
    page = opened(name)
    links = page.evaluate("[...document.querySelectorAll('a[href]')].map(one => one.href)")
    here = pages[name].as_uri()
    for link in links:
        address, _, anchor = link.partition("#")
        if address == here:
            assert page.evaluate("name => !!document.getElementById(name)", unquote(anchor)), link
        elif urlsplit(link).scheme == "file":
            assert Path(unquote(urlsplit(link).path)).is_file(), link
    if name == "report":
        assert sum(link.endswith(("result.json", "scores.csv")) for link in links) > 20

"""The HTML report in a headless Chromium: what it loads, its filters by keyboard, its looks, and axe-core."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("playwright")
pytest.importorskip("axe_playwright_python")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
]

EXAMPLES = Path(__file__).parents[2] / "examples"
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
SERIOUS = ("serious", "critical")
NOTEBOOK = (
    '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Notebook</title></head>{}</html>'
)


def bottlenecks():
    """A network of 50 layers with weights, where torchvision is not there."""
    from torch import nn

    class Bottleneck(nn.Module):
        def __init__(self, inner, outer, stride):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(inner, outer // 4, 1, bias=False), nn.BatchNorm2d(outer // 4)
            self.conv2 = nn.Conv2d(outer // 4, outer // 4, 3, stride, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(outer // 4)
            self.conv3, self.bn3 = nn.Conv2d(outer // 4, outer, 1, bias=False), nn.BatchNorm2d(outer)
            self.relu = nn.ReLU()
            self.downsample = None
            if inner != outer:
                layer = nn.Conv2d(inner, outer, 1, stride, bias=False)
                self.downsample = nn.Sequential(layer, nn.BatchNorm2d(outer))

        def forward(self, x):
            y = self.relu(self.bn1(self.conv1(x)))
            y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))
            return self.relu(y + (x if self.downsample is None else self.downsample(x)))

    layers = [nn.Conv2d(3, 64, 7, 2, padding=3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)]
    width = 64
    for stage, depth in enumerate((3, 4, 6, 3)):
        for place in range(depth):
            layers.append(Bottleneck(width, 256 << stage, 2 if stage and not place else 1))
            width = 256 << stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1000))


def resnet50():
    try:
        from torchvision.models import resnet50
    except (ImportError, RuntimeError):  # not there, or built for another torch
        return bottlenecks()
    return resnet50()


def narrow(inner):
    from torch import nn

    return nn.Conv2d(inner, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()


def measured():
    """A training that is watched, with batches that are too small."""
    import torch
    from torch import nn

    import normdoctor

    torch.manual_seed(0)
    model = nn.Sequential(*narrow(3), *narrow(8), *narrow(8), nn.Flatten(), nn.Linear(512, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with normdoctor.watch(model, optimizer, every=1, on_finding="ignore") as watched:
        for _ in range(6):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(torch.randn(2, 3, 8, 8)), torch.tensor([0, 1])).backward()
            optimizer.step()
            watched.step()
    return watched.report()


@pytest.fixture(scope="session")
def pages(tmp_path_factory):
    """Files of reports, and of pieces of notebooks on light and on dark paper."""
    import torch

    import normdoctor

    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(EXAMPLES)
        faulty = normdoctor.check("faulty_net.py", data="synthetic", batch_size=4)
        small = normdoctor.check(
            resnet50(), torch.zeros(2, 3, 64, 64), data="synthetic", batches=2, batch_size=2
        )
        converted = normdoctor.convert(
            torch.nn.Sequential(*narrow(3)), "batch->group", inputs=torch.ones(2, 3, 8, 8)
        )
        texts = {
            "faulty": faulty.to_html(),
            "measured": measured().to_html(),
            "resnet50": small.to_html(),
            "conversion": converted.to_html(),
        }
        pieces = faulty._repr_html_() + converted._repr_html_()
    for name, colours in (("light", "#fff;color:#000"), ("dark", "#111;color:#d4d4d4")):
        cells = "<main><h1>Notebook</h1><h2>One</h2>{}<h2>Two</h2>{}</main>"
        body = f'<body style="background:{colours}">{cells}</body>'
        texts[f"notebook-{name}"] = NOTEBOOK.format(body.format(pieces, small._repr_html_()))
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in texts}


REPORTS = ("faulty", "measured", "resnet50", "conversion")
ALL = (*REPORTS, "notebook-light", "notebook-dark")


@pytest.fixture(scope="session")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, pages):
    """Opens a page; at the end nothing may have been said or asked for but the page itself."""
    opened = []

    def open_page(name, *, viewport=DESKTOP, scheme="light", script=True):
        context = chromium.new_context(
            viewport=viewport, color_scheme=scheme, java_script_enabled=script, reduced_motion="reduce"
        )
        page = context.new_page()
        said, asked = [], []
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(pages[name].as_uri())
        opened.append((context, said, asked, pages[name].as_uri()))
        return page

    yield open_page
    for context, said, asked, address in opened:
        context.close()
        assert said == []
        assert asked == [address]


def open_all(page):
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")


def violations(page):
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        (one["id"], node["target"], node.get("failureSummary", ""))
        for one in found
        if one["impact"] in SERIOUS
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(visit, name, scheme):
    page = visit(name, scheme=scheme)
    if name != "resnet50":  # its tables are long, and like those of the others
        open_all(page)
    assert violations(page) == []


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_wider_than_a_phone(visit, name):
    page = visit(name, viewport=PHONE)
    for _ in range(2):
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        open_all(page)


@pytest.mark.parametrize("name", REPORTS)
def test_size(pages, name):
    assert pages[name].stat().st_size < 2 * 2**20


def shown(page):
    return page.locator("#cards > .card:visible").count()


def status(page):
    return page.get_by_role("status").inner_text()


def tab_to(page, name):
    """Press Tab until the control with this name has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if (
            page.evaluate("document.activeElement.getAttribute('name') || document.activeElement.type")
            == name
        ):
            return
    raise AssertionError(f"Tab does not lead to {name}")


def test_filters_by_keyboard(visit):
    page = visit("faulty")
    count = page.locator("#cards > .card").count()
    errors = page.locator("#cards > .nd-error").count()
    assert count >= 4
    assert status(page) == f"All {count} findings shown"
    tab_to(page, "level")  # errors come first
    page.keyboard.press("Space")
    assert shown(page) == count - errors
    assert status(page) == f"{count - errors} of {count} findings shown"
    page.keyboard.press("Space")
    assert shown(page) == count
    tab_to(page, "rule")
    page.keyboard.type("ND310")
    assert shown(page) == 1
    assert page.locator(".card:visible").get_attribute("data-rule") == "ND310"
    tab_to(page, "text")
    page.keyboard.type("logits")
    assert shown(page) == 1
    page.keyboard.type(" nowhere")
    assert shown(page) == 0
    assert status(page) == f"0 of {count} findings shown"
    page.keyboard.press("Enter")  # sends nothing
    tab_to(page, "reset")
    page.keyboard.press("Enter")
    page.wait_for_function(f"document.getElementById('status').textContent.startsWith('All {count}')")
    assert shown(page) == count
    assert page.url.startswith("file:")


def test_a_link_to_a_filtered_finding_shows_it(visit):
    page = visit("faulty")
    page.get_by_label("Text").fill("no such thing")
    assert shown(page) == 0
    link = page.locator(".nd-links a").first
    link.click()
    page.wait_for_function("document.querySelectorAll('#cards > .card:not([hidden])').length > 1")
    assert page.locator(link.get_attribute("href")).is_visible()


def test_the_skip_link_is_first_and_leads_to_the_content(visit):
    page = visit("faulty")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_a_link_to_a_rule_opens_its_text(visit):
    page = visit("faulty")
    page.locator(".card .rule a").first.click()
    page.wait_for_function("document.querySelector('.fold:has(> .about)[open]') !== null")


def back(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_light_and_dark(visit):
    light, dark = back(visit("faulty")), back(visit("faulty", scheme="dark"))
    assert light != dark
    for scheme, start, other in (("light", light, dark), ("dark", dark, light)):
        page = visit("faulty", scheme=scheme)
        button = page.get_by_role("button", name="Dark theme")
        assert button.get_attribute("aria-pressed") == str(scheme == "dark").lower()
        button.press("Enter")
        assert back(page) == other
        assert button.get_attribute("aria-pressed") == str(scheme == "light").lower()
        button.press("Enter")
        assert back(page) == start
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.querySelector('.card')).color") == "rgb(27, 34, 44)"


@pytest.mark.parametrize("name", ["faulty", "resnet50"])
def test_without_script_everything_is_there(visit, name):
    page = visit(name, script=False)
    assert page.locator("#filters:visible, #theme:visible").count() == 0
    assert page.locator(".card:visible").count() == page.locator(".card").count()
    page.locator("#pictures summary").first.click()
    assert page.locator("#pictures table:visible").count() == 1


def test_every_picture_has_its_numbers(visit):
    kinds = set()
    for name in REPORTS:
        page = visit(name)
        pictures = page.locator("svg.nd-chart")
        open_all(page)
        for one in pictures.all():
            kinds.add(one.get_attribute("class").split()[1].removeprefix("nd-"))
            table = one.locator("xpath=ancestor::*[self::figure or self::details][1]//table")
            assert table.locator("tbody tr").count() >= 1
    assert kinds >= {"signal", "gradients", "activity", "batch-noise", "neighbourhood", "conversion"}

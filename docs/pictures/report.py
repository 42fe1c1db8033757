"""Makes the example of the HTML report, and the pictures of it, with a headless Chromium.

    pip install playwright
    python docs/pictures/report.py

It writes docs/_static/example-report.html and docs/_static/report-{light,dark,phone}.png.
"""

import os
import shutil
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

import normdoctor

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "docs" / "_static"
EXAMPLE = STATIC / "example-report.html"
DESKTOP, PHONE = {"width": 1200, "height": 900}, {"width": 390, "height": 844}
#: Name of a picture to the size of the window, the theme, and what stands at its top.
SHOTS = {
    "light": (DESKTOP, "light", "body"),
    "dark": (DESKTOP, "dark", "#pictures"),
    "phone": (PHONE, "light", "body"),
}


def example() -> str:
    """The report of examples/faulty_net.py, with measurements on made-up batches."""
    os.chdir(ROOT)
    report = normdoctor.check("examples/faulty_net.py", data="synthetic", batch_size=4)
    return report.to_html()


def show(page: Page, top: str) -> None:
    """Scroll so that an element stands at the top."""
    page.goto(EXAMPLE.as_uri())
    page.evaluate("(top) => document.querySelector(top).scrollIntoView({behavior: 'instant'})", top)


def main() -> None:
    """Write the example and its pictures."""
    EXAMPLE.write_text(example(), encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (viewport, scheme, top) in SHOTS.items():
            page = browser.new_page(viewport=viewport, color_scheme=scheme)
            show(page, top)
            page.screenshot(path=STATIC / f"report-{name}.png")
        browser.close()


if __name__ == "__main__":
    main()

"""Opens the page in a browser without WebGL and prints its status line: ``no_webgl.py URL``."""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from browser_harness import CHROMIUM


def main() -> None:
    flags = ["--no-sandbox", "--disable-gpu", "--disable-software-rasterizer"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=flags,
            ignore_default_args=["--enable-unsafe-swiftshader"],
        )
        page = browser.new_page()
        page.goto(sys.argv[1])
        page.wait_for_function(
            "document.querySelector('[role=status]').dataset.level === 'error'", timeout=60_000
        )
        print(page.get_by_role("status").inner_text())
        browser.close()


if __name__ == "__main__":
    main()

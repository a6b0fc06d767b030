"""The report page in headless Chromium: a driver, and what tests ask of a page."""

import shutil
from contextlib import contextmanager

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Chromium: apt-get install chromium chromium-driver"
)


@contextmanager
def chromium():
    """A driver of a browser without a window."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def opened(browser, run, width=1200):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for log in ("browser", "performance"):
        browser.get_log(log)  # what earlier pages left there
    browser.get(run.report_path.as_uri())
    assert browser.execute_script("return document.documentElement.dataset.drawn") == "true"
    return browser


def complaints(browser):
    return [entry["message"] for entry in browser.get_log("browser")]


def css(browser, selector):
    return browser.find_elements("css selector", selector)


def set_value(browser, name, value, event="input"):
    code = "const at = document.getElementById(arguments[0]); at.value = arguments[1];"
    browser.execute_script(code + "at.dispatchEvent(new Event(arguments[2]));", name, str(value), event)


def answer(browser):
    return css(browser, "#answer")[0].get_attribute("data-digest")


def selected(browser):
    return css(browser, "#selected")[0].text


def budget(browser):
    """The bounded metric, and the bound in its own unit."""
    metric, shown = (css(browser, name)[0].get_property("value") for name in ("#metric", "#limit"))
    factor = browser.execute_script(
        "return JSON.parse(document.getElementById('data').textContent).units[arguments[0]].factor", metric
    )
    return metric, float(shown) * factor * (1 + 1e-12)


CUT = """
const found = new Set(), width = document.documentElement.clientWidth;
const say = (words, one) => found.add(`${words}: ${one.tagName} #${one.id} ${one.textContent.trim().slice(0, 40)}`);
if (document.documentElement.scrollWidth > width) say("scrolls", document.body);
for (const one of document.querySelectorAll("body *")) {
  if (one.closest(".hidden, .skip, [hidden]") || !one.getClientRects().length) continue;
  const box = one.getBoundingClientRect(), svg = one.ownerSVGElement?.getBoundingClientRect();
  if (one.tagName === "text") {
    const isIn = box.left > svg.left - 1 && box.right < svg.right + 1 && box.top > svg.top - 1 && box.bottom < svg.bottom + 1;
    if (!isIn) say("leaves its drawing", one);
  } else if (svg) continue;
  else if (box.right > width + 1) say("leaves the page", one);
  else if (one.clientWidth && one.scrollWidth > one.clientWidth + 1) say("scrolls", one);
}
return [...found];
"""  # noqa: E501


def cut_off(browser):
    """What of the page does not show, or only when it is scrolled sideways: a line each."""
    return browser.execute_script(CUT)

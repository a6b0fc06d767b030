"""The page in a real browser: it draws, answers, can be used without a mouse, and asks the network for nothing."""

import json
from dataclasses import replace

import factories
import pytest
from report_browser import answer, budget, complaints, css, needs_browser, opened, selected, set_value
from report_runs import lost_trials, made_trials, make_run, retrained, trusted

from nas.report.page.file import write_report
from nas.runs.front import ParetoFront
from nas.runs.point import FrontPoint
from nas.runs.trial import Trial

pytestmark = [needs_browser, pytest.mark.slow]
MANY = 5_000


def test_the_page_is_drawn_without_a_complaint_or_a_request(page, run):
    assert complaints(page) == []
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert {url for url in asked if not url.startswith("data:")} == {run.report_path.as_uri()}
    assert page.execute_script("return performance.getEntriesByType('resource').length") == 0
    points = len(ParetoFront.from_run(run.path).points)
    assert [len(css(page, f"#{chart} .point")) for chart in ("by-macs", "by-latency")] == [points, points]
    assert len(css(page, "#layers .row")) == len(css(page, "#parallel .line")) == points
    assert len(css(page, "#curve .curve")) == 1
    assert "2 failed" in css(page, "#trade-note")[0].text


@pytest.mark.parametrize("metric", ["macs", "latency_ms", "params"])
def test_the_slider_names_what_the_front_says_is_best(page, run, metric):
    front = ParetoFront.from_run(run.path)
    set_value(page, "metric", metric, "change")
    named = []
    for position in (400, 399, 300, 171, 60, 1, 0):
        set_value(page, "budget", position)
        bounded, limit = budget(page)
        assert bounded == metric
        best = front.within(metric, maximum=limit).pick("top1")
        assert answer(page) == selected(page) == best.digest
        assert f"--pick {best.digest} --to {best.digest}" in css(page, "#answer-commands code")[0].text
        named.append(best.digest)
    assert len(set(named)) > 2
    assert complaints(page) == []


def test_a_typed_budget_below_everything_names_nothing_and_no_budget_names_the_best(page, run):
    set_value(page, "limit", 1e-9)
    assert answer(page) == ""
    assert "Nothing on the front" in css(page, "#answer")[0].text
    assert css(page, "#answer-commands code") == []
    css(page, "#no-limit")[0].click()
    assert answer(page) == ParetoFront.from_run(run.path).pick("top1").digest


def test_equal_accuracies_are_told_apart_as_pick_does(browser, tmp_path):
    pairs = zip([(80, 3e6, 5.0), (80, 2e6, 6.0), (70, 1e6, 7.0)], made_trials(3), strict=True)
    trials = [
        factories.trial(i, t.architecture, measurement=factories.measurement(*v)) for i, (v, t) in enumerate(pairs)
    ]
    run = make_run(tmp_path / "r", trials)
    write_report(run)
    best = ParetoFront.from_run(run.path).pick("top1")
    assert best.measurement.values["macs"] == 2e6
    assert answer(opened(browser, run)) == best.digest


@pytest.mark.parametrize("chart", ["by-macs", "by-latency"])
def test_a_click_selects_a_point_everywhere_on_the_page(page, chart):
    from selenium.webdriver import ActionChains

    for point in css(page, f"#{chart} .point")[::7]:
        wanted = point.get_attribute("data-digest")
        ActionChains(page).scroll_to_element(point).perform()
        page.execute_script("arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true}))", point)
        assert selected(page) == wanted
        assert css(page, "input[name=pick]:checked")[0].get_property("value") == wanted
        assert css(page, "#layers .row.selected")[0].get_attribute("data-digest") == wanted
        assert css(page, "#parallel .line.selected")[0].get_attribute("data-digest") == wanted
    words = css(page, "#detail")[0].text
    assert "MFLOPs/image" in words
    assert "ms / 64 images" in words


def test_a_real_click_on_a_point_and_on_a_grey_dot_selects_them(page, run):
    from selenium.webdriver import ActionChains

    top = ParetoFront.from_run(run.path).pick("top1").digest
    ActionChains(page).click(css(page, f'#by-latency .point[data-digest="{top}"]')[0]).perform()
    assert selected(page) == top
    spot = page.execute_script(
        "const grid = document.querySelector('#by-macs canvas'), pen = grid.getContext('2d');"
        "const points = [...document.querySelectorAll('#by-macs .point')];"
        "const far = points.map((point) => [+point.getAttribute('cx'), +point.getAttribute('cy')]);"
        "const {data} = pen.getImageData(0, 0, grid.width, grid.height);"
        "for (let i = 3; i < data.length; i += 4) if (data[i] > 150) {"
        "  const x = ((i - 3) / 4) % grid.width, y = Math.floor((i - 3) / 4 / grid.width);"
        "  if (far.every(([a, b]) => Math.hypot(a - x, b - y) > 15)) return [x, y]; }"
    )
    svg = css(page, "#by-macs svg")[0]
    from_centre = [round(spot[i] - svg.size[("width", "height")[i]] / 2) for i in (0, 1)]
    ActionChains(page).move_to_element_with_offset(svg, *from_centre).click().perform()
    assert "not on the front" in css(page, "#detail")[0].text
    assert selected(page) not in {point.digest for point in ParetoFront.from_run(run.path).points}


def test_keys_alone_walk_along_the_front_and_down_the_table(page, run):
    from selenium.webdriver import Keys

    front = ParetoFront.from_run(run.path)
    by_macs = [point.digest for point in sorted(front.points, key=lambda p: p.measurement.values["macs"])]
    stops = css(page, "#by-macs .point[tabindex='0']")
    assert [stop.get_attribute("data-digest") for stop in stops] == [front.knee().digest]
    page.execute_script("arguments[0].focus()", stops[0])
    at = by_macs.index(front.knee().digest)
    for key, step in ((Keys.ARROW_RIGHT, 1), (Keys.ARROW_RIGHT, 1), (Keys.ARROW_LEFT, -1)):
        page.switch_to.active_element.send_keys(key)
        at += step
        assert selected(page) == page.switch_to.active_element.get_attribute("data-digest") == by_macs[at]
    page.execute_script("document.querySelector('input[name=pick]:checked').focus()")
    page.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    assert selected(page) == by_macs[at + 1]


def test_every_control_has_a_name(page):
    nameless = page.execute_script(
        "return [...document.querySelectorAll('button, input, select, [role=button], svg[role]')].filter((one) =>"
        " !(one.getAttribute('aria-label') || one.textContent.trim() || one.closest('label')?.textContent.trim()))"
        ".map((one) => one.outerHTML.slice(0, 80))"
    )
    assert nameless == []


def test_the_heat_map_shows_what_is_asked_for(page, run):
    front = ParetoFront.from_run(run.path)
    layers = sum(point.architecture.depth for point in front.points)
    for quantity in ("tokens", "reducer", "heads", "mlp_ratio", "macs_share", "latency_share", "kind"):
        css(page, f"#layer-switch input[value={quantity}]")[0].click()
        assert len(css(page, "#layers .row rect:not(.frame)")) == layers, quantity
        assert len(css(page, "#layers .row.selected")) == 1
    assert complaints(page) == []


def test_the_copy_button_says_that_it_copied(page):
    from selenium.webdriver.support.ui import WebDriverWait

    button = css(page, "#detail .command button")[0]
    page.execute_script(  # it says so for a moment only
        "window.said = []; const button = arguments[0];"
        "new MutationObserver(() => window.said.push(button.textContent))"
        ".observe(button, { childList: true, characterData: true, subtree: true });",
        button,
    )
    button.click()
    WebDriverWait(page, 60).until(lambda _: "Copied" in page.execute_script("return window.said"))


@pytest.mark.parametrize("preferred", ["light", "dark"])
def test_colours_follow_the_system_until_they_are_switched(browser, run, preferred):
    scheme = {"features": [{"name": "prefers-color-scheme", "value": preferred}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
    opened(browser, run)

    def colours():
        return browser.execute_script(
            "const style = getComputedStyle(document.body); return [style.backgroundColor, style.color]"
        )

    def brightness(colour):
        return sum(int(part) for part in colour.strip("rgb()").split(","))

    back, ink = map(brightness, colours())
    assert (back > ink) == (preferred == "light")
    css(browser, "#theme")[0].click()
    back, ink = map(brightness, colours())
    assert (back > ink) == (preferred == "dark")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_thousands_of_trials_are_all_drawn(browser, tmp_path):
    run = make_run(tmp_path / "r", made_trials(MANY))
    write_report(run)
    assert run.report_path.stat().st_size < 3_000_000
    opened(browser, run)
    front = len(ParetoFront.from_run(run.path).points)
    assert len(css(browser, "#by-macs .point")) == front
    dots = [css(browser, f"#{chart} canvas")[0].get_attribute("data-dots") for chart in ("by-macs", "by-latency")]
    assert dots == [str(MANY - front)] * 2
    assert complaints(browser) == []


def without_intervals(trial: Trial) -> Trial:
    latency = {name: replace(timed, interval=None) for name, timed in trial.measurement.latency.items()}
    return replace(trial, measurement=replace(trial.measurement, top1_interval=None, latency=latency))


CASES = {
    "no latency": lambda path: make_run(path, made_trials(30, with_latency=False), objectives=factories.OBJECTIVES[:2]),
    "one point": lambda path: make_run(path, made_trials(1)),
    "no trials of its own": lambda path: without_trials(make_run(path, made_trials(12))),
    "a search that goes on": lambda path: make_run(path, made_trials(12), is_final=False),
    "an old run": lambda path: make_run(path, [without_intervals(trial) for trial in made_trials(12)]),
    "trust": lambda path: trusted(make_run(path, made_trials(12))),
    "retrain": lambda path: retrained(make_run(path, made_trials(12))),
}


def without_trials(run):
    (run.path / "trials.jsonl").unlink()
    return run


@pytest.mark.parametrize("case", CASES)
def test_runs_at_the_edge_are_drawn_and_answer(browser, tmp_path, case):
    run = CASES[case](tmp_path / "r")
    write_report(run)
    opened(browser, run)
    assert complaints(browser) == []
    front = ParetoFront.from_run(run.path)
    assert selected(browser) == front.knee().digest
    set_value(browser, "budget", 200)
    best = front.within(*budget(browser)[:1], maximum=budget(browser)[1]).pick("top1")
    assert answer(browser) == best.digest
    words = css(browser, "main")[0].text
    assert ("No latency was measured" in words) == (case == "no latency")
    assert ("The search has not ended" in css(browser, "#summary")[0].text) == (case == "a search that goes on")
    found = run.findings()
    assert ("was not measured in this run" in words) == ("trust.json" not in found)
    if case == "trust":
        verdict, (low, high) = found["trust.json"]["verdict"], found["trust.json"]["kendall_tau_ci"]
        assert verdict[1:] in words
        assert f"{found['trust.json']['kendall_tau']:.2f} [{low:.2f}, {high:.2f}]" in words
        assert len(css(browser, "#trust .pair")) == 12
    assert ("70.00 79.00 ± 1.41 68.50 77.50 ± 1.41" in words) == (case == "retrain")


def test_a_name_full_of_markup_is_text(browser, tmp_path):
    name = "a\"b'<img src=x onerror=document.title=1>&amp;"
    error = "</script><script>document.title = 'broken'</script>"
    run = make_run(tmp_path / name, [*made_trials(6), *lost_trials(1, 6, error)])
    write_report(run)
    opened(browser, run)
    assert css(browser, "h1")[0].text == name
    assert browser.title == f"{name}: Pareto front"
    assert error in css(browser, "#trade-note")[0].text
    assert css(browser, "img") == []
    assert complaints(browser) == []


def test_a_point_of_the_front_is_the_same_architecture_in_the_command(page, run):
    found = ParetoFront.from_run(run.path).knee()
    assert isinstance(found, FrontPoint)
    commands = [code.text for code in css(page, "#detail code")]
    assert f"nas show {run.name} {found.digest}" in commands
    assert "x y" in commands

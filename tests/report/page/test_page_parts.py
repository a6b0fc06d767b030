"""The page by hand: ranges, the heat map by keys, several targets, what was trained alone, several supernets."""

import pytest
from report_browser import answer, budget, complaints, css, cut_off, needs_browser, opened, selected, set_value
from report_runs import made_trials, make_run, retrained, supernets_run, training_log, trusted

from nas.report.page.file import write_report
from nas.runs.front import ParetoFront
from nas.runs.results import plain_vits, results_of
from nas.runs.supernets import supernet_trials
from nas.space.designs import is_plain

pytestmark = [needs_browser, pytest.mark.slow]


# --- ranges on the parallel coordinates --------------------------------------------------------------------


def handles(page, name):
    """The lower and the upper handle of an axis."""
    return [css(page, f"#parallel .handle[aria-label='{name}, {end}']")[0] for end in ("lowest", "highest")]


def kept(page, selector):
    return {one.get_attribute("data-digest") for one in css(page, f"{selector}:not(.filtered)")}


def kept_everywhere(page):
    """Digests that no part of the page has dimmed; they are the same in all parts."""
    parts = ("#by-macs .point", "#by-latency .point", "#parallel .line", "#layers .row", "#front-table tbody tr")
    found = [kept(page, part) for part in parts]
    assert all(one == found[0] for one in found)
    return found[0]


def dots(page, chart="by-macs"):
    return int(css(page, f"#{chart} canvas")[0].get_attribute("data-dots"))


def test_a_drag_along_an_axis_filters_every_part_of_the_page_and_escape_clears_it(page, run):
    from selenium.webdriver import ActionChains, Keys

    front = ParetoFront.from_run(run.path)
    everything, grey = {point.digest for point in front.points}, dots(page)
    strip = css(page, "#parallel .strip")[-1]  # of top-1, the last axis
    ActionChains(page).scroll_to_element(strip).perform()
    half = strip.size["height"] // 2
    pointer = ActionChains(page).move_to_element_with_offset(strip, 0, -half + 2).click_and_hold()
    pointer.move_by_offset(0, 60).move_by_offset(0, half - 62).release().perform()
    values = [float(handle.get_attribute("aria-valuenow")) for handle in handles(page, "top-1")]
    inside = {p.digest for p in front.points if values[0] <= p.measurement.values["top1"] <= values[1]}
    assert kept_everywhere(page) == inside
    assert 0 < len(inside) < len(everything)
    trials = {t.architecture.digest: t.measurement for t in run.trials() if t.measurement is not None}
    others = [m.values["top1"] for digest, m in trials.items() if digest not in everything]
    assert dots(page) == sum(values[0] <= top1 <= values[1] for top1 in others) < grey
    assert f"{len(inside)} of {len(everything)} on the front" in css(page, "#ranges")[0].text
    assert answer(page) in inside
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert kept_everywhere(page) == everything
    assert (dots(page), css(page, "#ranges")[0].text) == (grey, "")
    assert complaints(page) == []


def test_a_click_on_an_axis_clears_its_range_and_the_button_all(page, run):
    from selenium.webdriver import ActionChains, Keys

    everything = len(ParetoFront.from_run(run.path).points)
    for name in ("top-1", "MACs"):
        handles(page, name)[0].send_keys(Keys.ARROW_UP)
    first = kept_everywhere(page)
    ActionChains(page).click(css(page, "#parallel .strip")[-1]).perform()
    assert len(first) <= len(kept_everywhere(page)) == everything - 1
    css(page, "#no-ranges")[0].click()
    assert len(kept_everywhere(page)) == everything
    assert not css(page, "#no-ranges")[0].is_enabled()


def test_keys_alone_draw_a_range_and_the_slider_keeps_it(page, run):
    from selenium.webdriver import Keys

    front = ParetoFront.from_run(run.path)
    (stop,) = css(page, "#parallel .handle[tabindex='0']")
    page.execute_script("arguments[0].focus()", stop)
    for _ in range(len(css(page, "#parallel .handle"))):
        page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    last = page.switch_to.active_element
    assert last.get_attribute("aria-label") == "top-1, highest"
    values = sorted({point.measurement.values["top1"] for point in front.points})
    for _ in range(3):
        last.send_keys(Keys.ARROW_DOWN)
    assert float(last.get_attribute("aria-valuenow")) == values[-4]
    inside = {p.digest for p in front.points if p.measurement.values["top1"] <= values[-4]}
    assert kept_everywhere(page) == inside
    set_value(page, "budget", 400)
    assert answer(page) in inside
    last.send_keys(Keys.HOME)
    lowest = min(trial.measurement.values["top1"] for trial in run.trials() if trial.measurement is not None)
    assert float(last.get_attribute("aria-valuenow")) == pytest.approx(lowest, rel=1e-4)
    assert kept_everywhere(page) == {p.digest for p in front.points if p.measurement.values["top1"] <= lowest}
    last.send_keys(Keys.DELETE)
    assert len(kept_everywhere(page)) == len(front.points)


def test_a_range_survives_what_draws_the_page_anew(page):
    from selenium.webdriver import Keys

    handles(page, "MACs")[1].send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    before = kept_everywhere(page)
    css(page, "#log")[0].click()
    css(page, "#layer-switch input[value=tokens]")[0].click()
    assert kept_everywhere(page) == before


def test_every_trial_is_a_line_that_can_be_chosen(page, run):
    from selenium.webdriver import ActionChains

    front = {point.digest for point in ParetoFront.from_run(run.path).points}
    canvas, svg = (css(page, f"#parallel {name}")[0] for name in ("canvas", "svg"))
    trials = {trial.architecture.digest for trial in run.trials() if trial.measurement is not None}
    assert int(canvas.get_attribute("data-lines")) == len(trials - front)
    assert page.execute_script("return getComputedStyle(arguments[0]).pointerEvents", canvas) == "none"
    ActionChains(page).scroll_to_element(svg).perform()
    spot = page.execute_script(  # a pixel of a thin line, where no thick one is
        "const [canvas, svg] = arguments, box = svg.getBoundingClientRect(), {width, height} = canvas;"
        "const {data} = canvas.getContext('2d').getImageData(0, 0, width, height);"
        "for (let x = 80; x < width; x += 7) for (let y = 70; y < 300; y++)"
        "  if (data[4 * (y * width + x) + 3] > 60"
        "    && document.elementFromPoint(box.left + x, box.top + y) === svg) return [x, y];",
        canvas,
        svg,
    )
    from_centre = [round(spot[i] - svg.size[("width", "height")[i]] / 2) for i in (0, 1)]
    ActionChains(page).move_to_element_with_offset(svg, *from_centre).perform()
    assert "not on the front" in css(page, "#tip")[0].text
    ActionChains(page).click().perform()
    assert selected(page) in trials - front
    for chart in ("by-macs", "by-latency"):
        assert css(page, f"#{chart} .ring")[0].get_attribute("visibility") == "visible"
    assert css(page, "#parallel .chosen")[0].get_attribute("d").startswith("M")
    assert css(page, "#front-table tr.selected") == []
    assert complaints(page) == []


# --- the heat map by keys ----------------------------------------------------------------------------------


def test_arrow_keys_walk_over_the_heat_map_and_enter_selects(page, run):
    from selenium.webdriver import Keys

    front = ParetoFront.from_run(run.path)
    by_macs = sorted(front.points, key=lambda p: p.measurement.values["macs"])
    (stop,) = css(page, "#layers .cell[tabindex='0']")
    page.execute_script("arguments[0].focus()", stop)
    for key in (Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ARROW_UP):
        page.switch_to.active_element.send_keys(key)
    here = page.switch_to.active_element
    words = here.get_attribute("aria-label")
    assert words.startswith(f"{by_macs[1].digest[:8]}, layer 1, ")
    assert by_macs[1].architecture.layers[1].attention in words
    stroke = page.execute_script("return getComputedStyle(arguments[0]).strokeWidth", here)
    assert stroke == "3.5px"
    assert words.split(",")[0] in css(page, "#tip")[0].text
    assert len(css(page, "#layers .cell[tabindex='0']")) == 1
    here.send_keys(Keys.ENTER)
    assert selected(page) == by_macs[1].digest
    page.switch_to.active_element.send_keys(Keys.END)
    depth = by_macs[1].architecture.depth
    assert f"layer {depth - 1}, " in page.switch_to.active_element.get_attribute("aria-label")
    assert complaints(page) == []


# --- latency on several targets, doubts about it -----------------------------------------------------------


@pytest.fixture(scope="module")
def doubted(tmp_path_factory):
    run = trusted(retrained(make_run(tmp_path_factory.mktemp("runs") / "targets", made_trials(80), targets=2)))
    training_log(run, 300)
    write_report(run)
    return run


def test_noisy_points_are_marked_and_a_selected_one_shows_what_it_is_tied_with(browser, doubted):
    opened(browser, doubted)
    points = ParetoFront.from_run(doubted.path).points
    noisy = {point.digest for point in points if point.measurement.latency["latency_ms"].noisy}
    for chart in ("by-latency", "by-macs"):
        marked = {one.get_attribute("data-digest") for one in css(browser, f"#{chart} .noisy")}
        assert marked == (noisy if chart == "by-latency" else set())
    tied = points[0]
    row = css(browser, f"#front-table input[value='{tied.digest}']")[0]
    browser.execute_script("arguments[0].click()", row)
    assert (len(css(browser, "#by-latency .tie")), len(css(browser, "#by-macs .tie"))) == (1, 0)
    assert f"not told apart from {points[1].digest[:8]}" in css(browser, "#detail")[0].text
    assert "repeats with tau 0.93" in css(browser, "#trade-note")[0].text
    assert "latency noisy" in css(browser, "#legend")[0].text
    assert complaints(browser) == []


def test_every_target_can_be_drawn_bounded_and_read_in_the_table(browser, doubted):
    opened(browser, doubted)
    points = ParetoFront.from_run(doubted.path).points
    heads = [head.text for head in css(browser, "#front-table th")]
    assert sum("latency" in head for head in heads) == 2
    assert any("latency on onnxruntime-cpu (ms / 1 image)" in " ".join(head.split()) for head in heads)
    set_value(browser, "target", "latency_ms_2", "change")
    assert "latency on onnxruntime-cpu" in css(browser, "#by-latency svg")[0].get_attribute("aria-label")
    assert len(css(browser, "#by-latency .point")) == len(points)
    assert dots(browser, "by-latency") == 0  # what is not on the front was not measured there
    set_value(browser, "metric", "latency_ms_2", "change")
    set_value(browser, "budget", 100)
    _, limit = budget(browser)
    second = {p.digest: p.measurement.latency["latency_ms_2"].ms for p in points}
    inside = [point for point in points if second[point.digest] <= limit]
    assert answer(browser) == max(inside, key=lambda p: p.measurement.values["top1"]).digest
    rows = [row.text for row in css(browser, "#noise tbody tr")]
    assert "torch-cpu:batch=64 0.93" in rows[0]
    assert "too few" in rows[1]
    assert complaints(browser) == []


def test_what_was_trained_alone_is_marked_with_the_test_split_apart(browser, doubted):
    opened(browser, doubted)
    marks = css(browser, "#by-macs g.alone")
    assert len(marks) == 2
    assert all(len(mark.find_elements("css selector", ".test")) == 2 for mark in marks)  # before and after
    assert "trained alone, TEST split" in css(browser, "#legend")[0].text
    search, test = (css(browser, f"#by-macs g.alone .{split}")[-1] for split in ("search", "test"))
    assert search.value_of_css_property("fill") != test.value_of_css_property("fill")
    css(browser, "#alone")[0].click()
    assert css(browser, "#by-macs g.alone") == []
    assert complaints(browser) == []


CHOOSERS = (
    "#plain button",
    "#alone-table button",
    "#layers .row text",
    "#parallel .line",
    "#picks button",
    "#by-macs .search",
)


@pytest.mark.parametrize("place", CHOOSERS)
def test_a_network_is_chosen_wherever_it_is_named(browser, doubted, place):
    from selenium.webdriver import Keys

    opened(browser, doubted)
    one = css(browser, place)[-1]
    wanted = browser.execute_script("return arguments[0].closest('[data-digest]').dataset.digest", one)
    assert selected(browser) != wanted
    if one.tag_name == "button":
        one.send_keys(Keys.ENTER)
        assert one.get_attribute("aria-pressed") == "true"
    else:
        browser.execute_script("arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true}))", one)
    assert selected(browser) == wanted
    (row,) = css(browser, "#front-table tr.selected")
    assert row.get_attribute("data-digest") == wanted
    line = css(browser, f"#parallel .line[data-digest='{wanted}']")[0]
    assert css(browser, "#parallel .chosen")[0].get_attribute("d") == line.get_attribute("d")
    assert complaints(browser) == []


def test_plain_vits_are_a_line_of_their_own_with_a_table_and_what_the_front_gains(page, run):
    plain = plain_vits(results_of(run))
    assert plain.points
    for chart in ("by-macs", "by-latency"):
        assert len(css(page, f"#{chart} .plain-stairs")) == 1
        assert len(css(page, f"#{chart} .plain-mark")) == len(plain.points)
    assert "plain ViTs of this space" in css(page, "#legend")[0].text
    rows = [row.text.split() for row in css(page, "#plain tbody tr")]
    assert [row[0] for row in rows] == [point.digest for point in plain.points]
    words = css(page, "#plain .note")[0].text
    assert f"{plain.num_measured} plain ViT" in words
    told = "By inherited weights: trained alone, networks may rank otherwise." in words
    assert told == bool(plain.gains)  # a front's own plain ViTs are not compared with themselves


def test_a_run_without_plain_vits_says_nothing_of_them(browser, tmp_path):
    trials = [trial for trial in made_trials(40) if not is_plain(trial.architecture)]
    run = make_run(tmp_path / "r", trials)
    write_report(run)
    page = opened(browser, run)
    assert not css(page, "#plain-section")[0].is_displayed()
    assert css(page, ".plain-mark, .plain-stairs") == []


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    run = supernets_run(tmp_path_factory.mktemp("runs") / "several", 40)
    write_report(run)
    return run


def test_points_of_several_supernets_say_which_is_theirs(browser, several):
    run = several
    opened(browser, run)
    assert complaints(browser) == []
    rows = [row.text for row in css(browser, "#supernets tbody tr")]
    assert len(rows) == 3
    assert "failed: loss is not finite" in rows[2]
    assert "of supernet" in css(browser, "#detail")[0].text
    heads = [head.text for head in css(browser, "#front-table th")]
    at = heads.index("supernet")
    numbers = {row.find_elements("css selector", "td")[at].text for row in css(browser, "#front-table tbody tr")}
    assert numbers == {"0", "1"}
    handles(browser, "supernet")[0].send_keys("\ue013")  # arrow up
    assert kept_everywhere(browser) == {
        p.digest for p in ParetoFront.from_run(run.path).points if p.details["supernet_run"].endswith(key_of(run, 1))
    }
    assert "Trials of all supernets" in css(browser, "#curve-note")[0].text


def key_of(run, number):
    return next(trial.key for trial in supernet_trials(run) if trial.number == number)


def test_a_summary_on_top_says_data_time_best_and_verdict(browser, doubted):
    opened(browser, doubted)
    front = ParetoFront.from_run(doubted.path)
    cards = {name: css(browser, f"#card-{name}")[0] for name in ("data", "time", "best", "verdict")}
    assert all(card.location["y"] < css(browser, "main")[0].location["y"] for card in cards.values())
    assert "10 classes" in cards["data"].text
    assert "to the first trial" in cards["time"].text
    assert "knee, trained alone: 77.50 ± 1.41 % on the test split" in cards["best"].text
    assert "best plain ViT" in cards["verdict"].text
    top, knee = cards["best"].find_elements("css selector", "button")
    assert (top.text, knee.text) == (front.pick("top1").digest, front.knee().digest)
    top.click()
    assert selected(browser) == front.pick("top1").digest


def test_the_losses_of_the_training_are_drawn(browser, tmp_path):
    run = make_run(tmp_path / "r", made_trials(12))
    training_log(run, 40)
    write_report(run)
    opened(browser, run)
    assert len(css(browser, "#losses .curve")) == 3
    assert "smallest subnet 41.00" in css(browser, "#losses > svg")[0].get_attribute("aria-label")
    assert complaints(browser) == []


@pytest.mark.parametrize("width", [360, 768, 1280, 1920])
def test_nothing_is_cut_or_has_to_be_scrolled_sideways(browser, doubted, several, width):
    for run in (doubted, several):
        opened(browser, run, width=width)
        assert cut_off(browser) == []
        for quantity in ("tokens", "latency_share"):
            css(browser, f"#layer-switch input[value={quantity}]")[0].click()
        css(browser, "details summary")[0].click()
        assert cut_off(browser) == []
    assert complaints(browser) == []

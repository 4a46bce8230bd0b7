"""Figures are judged as drawn: what overlaps, what is labelled, what is on them."""

import itertools
import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.style
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from actlab.data.target import LOG, LOG1P, PLAIN
from actlab.report.drawing import PAPER, Row, look, robust_range, short, style
from actlab.report.finished import FinishedRun, read_finished
from actlab.report.page import RECIPES, draw, svg, write_figures
from actlab.report.score_figures import repeats_of
from actlab.report.training_figures import out_of_fold
from actlab.report.words import at_most, figure_texts, short_number
from synthetic_runs import NEVER_ENTERED, ORDER, make_run

OF_SEARCHES = ("importances", "slices")
# learning rates beyond those of the sweep
FURTHER = (0.3, 0.9, 1e-4, 3e-5, 1e-5, 3e-6)
NAMES = [recipe.name for recipe in RECIPES if recipe.name not in OF_SEARCHES]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return read_finished(make_run(tmp_path_factory.mktemp("runs") / "large", 24, 6))


@pytest.fixture(scope="module")
def large_figures(large: FinishedRun) -> dict[str, Figure]:
    return draw(large)


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts whose boxes share more than a pixel."""
    with style():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        renderer = canvas.get_renderer()
    shown = []
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        is_tick = any(text is label for axes in figure.axes for label in hidden_labels(axes))
        if text.get_visible() and text.get_text().strip() and not is_tick:
            shown.append((text.get_text(), text.get_window_extent(renderer)))
    return [
        (a, b)
        for (a, one), (b, two) in itertools.combinations(shown, 2)
        if min(one.x1, two.x1) - max(one.x0, two.x0) > 1 and min(one.y1, two.y1) - max(one.y0, two.y0) > 1
    ]


def hidden_labels(axes: Any) -> list[Text]:
    """Tick labels that are switched off or beyond the limits: matplotlib keeps them and does not draw them."""
    found: list[Text] = [] if axes.get_visible() else list(axes.findobj(Text))
    for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        low, high = min(limits), max(limits)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            is_out = not low - 1e-9 <= tick.get_loc() <= high + 1e-9
            found += [label for label in (tick.label1, tick.label2) if is_out or not label.get_visible()]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_no_labels_overlap_with_24_activations(large_figures: dict[str, Figure], name: str) -> None:
    assert overlapping(large_figures[name]) == []


@pytest.mark.parametrize("n_activations", [1, 13])
def test_no_labels_overlap_with_fewer_activations(tmp_path: Path, n_activations: int) -> None:
    figures = draw(read_finished(make_run(tmp_path / "run", n_activations, 5)))
    assert {name: found for name, figure in figures.items() if (found := overlapping(figure))} == {}


def test_an_overlap_is_found() -> None:
    figure = Figure()
    figure.text(0.5, 0.5, "one")
    figure.text(0.5, 0.5, "two")
    assert overlapping(figure) == [("one", "two")]


@pytest.mark.parametrize("name", ["ranking", "learning_rates", "differences", "curves", "predictions"])
def test_axes_name_their_units(large_figures: dict[str, Figure], name: str) -> None:
    texts = " ".join(text.get_text() for text in large_figures[name].findobj(Text))
    assert "log-RMSE" in texts or "predicted price" in texts


def test_every_activation_is_named_in_every_figure_of_activations(large_figures: dict[str, Figure]) -> None:
    for name in ("ranking", "learning_rates", "curves", "health"):
        texts = {text.get_text() for text in large_figures[name].findobj(Text)}
        # one diverged at every learning rate of the sweep, and has no networks to look into
        assert set(ORDER) - ({ORDER[NEVER_ENTERED]} if name == "health" else set()) <= texts, name


def drawn(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    """Note on the right of each row of a forest plot, and the points of what is drawn there, markers and lines."""
    axes, notes = figure.axes[:2]
    found: dict[str, list[tuple[float, float]]] = {}
    for y, label in enumerate(notes.get_yticklabels()):
        lines = [line for line in axes.lines if set(np.round(line.get_ydata(), 3)) == {y} and len(line.get_xdata())]
        found[f"{axes.get_yticklabels()[y].get_text()}: {label.get_text()}"] = [
            (float(min(line.get_xdata())), float(max(line.get_xdata()))) for line in lines
        ]
    return found


def test_differences_show_every_interval_with_its_word_in_percent_of_the_best(tmp_path: Path) -> None:
    run = read_finished(make_run(tmp_path / "run", 6, 3))
    figure = draw(run)["differences"]
    best, rows = run.ranking_rows[0], {row["b"]: row for row in run.summary["comparisons"] if row["against"] == "best"}
    lines = drawn(figure)
    assert lines[f"relu: best, at most {at_most(best['cost_at_most'])}"] == [(0.0, 0.0)]
    for name in ("sigmoid", "tanh", "leaky_relu"):
        one = rows[name]
        cost = f", at most {at_most(one['cost_at_most'])}" if one["cost_at_most"] else ""
        interval, point = lines[f"{name}: {one['verdict']}{cost}"]
        assert interval == pytest.approx((100 * one["ci_low"], 100 * one["ci_high"]))
        assert point == pytest.approx((100 * one["difference"],) * 2)
    assert lines["silu: diverged"] == []
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert "diverged" in texts
    assert figure.axes[0].get_xlabel() == "log-RMSE worse than that of relu, %"
    (band,) = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    assert (band.get_x(), band.get_width()) == pytest.approx((-2, 4))


def test_one_that_is_far_off_does_not_press_those_in_question_together(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 6, 3)
    run = read_finished(path)
    found = {row["b"]: row for row in run.summary["comparisons"] if row["against"] == "best"}
    found["maxout"].update(difference=0.93, ci_low=0.79, ci_high=1.07)
    figure = draw(run)["differences"]
    left, right = figure.axes[0].get_xlim()
    highest = max(100 * found[name]["ci_high"] for name in ("sigmoid", "tanh", "leaky_relu"))
    assert highest < right < 1.1 * highest + 0.5
    assert left < min(100 * found[name]["ci_low"] for name in ("sigmoid", "tanh"))
    assert "at 93.0" in [text.get_text() for text in figure.findobj(Text)]
    # where everybody else is far off, the nearest are shown
    for name in ("sigmoid", "tanh", "leaky_relu"):
        found[name].update(verdict="worse", difference=0.5, ci_low=0.4, ci_high=0.6)
    assert draw(run)["differences"].axes[0].get_xlim()[1] == pytest.approx(60 + 0.04 * 62)


def test_what_is_not_settled_is_hollow_and_a_word_against_another_names_it(tmp_path: Path) -> None:
    run = read_finished(make_run(tmp_path / "run", 6, 3))
    for row in run.summary["comparisons"]:
        if (row["against"], row["b"]) == ("best", "leaky_relu"):
            row["shown_against"] = "sigmoid"
    figure = draw(run)["differences"]
    assert "leaky_relu: worse here than sigmoid" in drawn(figure)
    faces = {
        place: line.get_markerfacecolor()
        for line in figure.axes[0].lines
        if len(line.get_xdata()) == 1 and (place := round(float(line.get_ydata()[0]))) < 4
    }
    assert [face == PAPER for _, face in sorted(faces.items())] == [False, False, True, False]


def test_the_ranking_has_repeats_and_no_intervals(tmp_path: Path) -> None:
    run = read_finished(make_run(tmp_path / "run", 3, 3))
    figure = draw(run)["ranking"]
    for name, (dots, point) in zip(run.order, [*drawn(figure).values()][:3], strict=True):
        scores = repeats_of(run)[name]
        assert dots == pytest.approx((min(scores), max(scores)))
        assert point == pytest.approx((run.ranking_rows[run.order.index(name)]["mean"],) * 2)
    # dots are no line: nothing between them is drawn
    assert {line.get_linestyle() for line in figure.axes[0].lines if len(line.get_xdata()) > 2} == {"None"}


def heat(run: FinishedRun) -> tuple[list[str], dict[tuple[int, int], str], set[tuple[int, int]]]:
    """Labels of the learning rates, texts of the cells, and framed cells, each by column and row."""
    figure = draw(run)["learning_rates"]
    axes = figure.axes[0]
    texts = {(round(x), round(y)): t.get_text() for t in axes.texts for x, y in [t.get_position()]}
    frames = {(round(p.get_x() + 0.46), round(p.get_y() + 0.44)) for p in axes.patches if not p.get_fill()}
    return [label.get_text() for label in axes.get_xticklabels()], texts, frames


def test_learning_rates_frame_the_one_that_was_raced_and_name_the_stopped_and_the_added(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 3, 4)
    members = pd.read_csv(path / "members.csv")
    is_stopped = (members.activation == "tanh") & (members.learning_rate == 3e-4)
    members.loc[is_stopped, ["pruned", "test_score"]] = [True, math.nan]
    # as where the sweep went on from 0.003 for relu alone
    members = members[(members.learning_rate < 5e-3) | (members.activation == "relu")]
    members.to_csv(path / "members.csv", index=False)
    run = read_finished(path)
    run.config["compare"] = {"learning_rates": [3e-4, 1e-3, 3e-3]}
    labels, texts, frames = heat(run)
    assert labels == ["0.0003", "0.001", "0.003", "+0.01"]
    order = run.order
    assert frames == {(2, y) for y in range(3)}
    assert texts[0, order.index("tanh")] == "stopped"
    assert {place for place in texts if place[0] == 3} == {(3, order.index("relu"))}
    swept = members[(members.repeat == 0) & (members.activation == "relu") & (members.learning_rate == 1e-3)]
    assert texts[1, order.index("relu")] == short_number(swept.val_score.mean())
    caption, _ = figure_texts("learning_rates", run)
    assert "in the sweep" in caption
    assert caption.endswith("Grey: training was stopped early. A + marks rates beyond those asked for.")


def test_12_learning_rates_of_13_activations_do_not_overlap_where_some_are_added_stopped_and_lost(
    tmp_path: Path,
) -> None:
    run = read_finished(make_run(tmp_path / "run", 13, 6))
    members = run.members
    members["pruned"] |= (members.repeat == 0) & (members.learning_rate == 3e-4) & (members.fold % 2 == 0)
    further = members[(members.repeat == 0) & (members.learning_rate == 0.1)]
    more = [further.assign(learning_rate=rate, trial=further.trial + 10_000 * n) for n, rate in enumerate(FURTHER, 1)]
    more[0]["diverged"] = True
    more[1].loc[more[1].fold < 2, "diverged"] = True
    (run.directory.members).unlink()
    pd.concat([members, *more]).to_csv(run.directory.members, index=False)
    again = read_finished(run.directory.path)
    again.config["compare"] = {"learning_rates": [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]}
    figure = draw(again)["learning_rates"]
    assert overlapping(figure) == []
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"diverged", "2/5\ndiverged"} <= set(texts)


def test_captions_say_what_is_in_the_picture_and_no_more(tmp_path: Path) -> None:
    run = read_finished(make_run(tmp_path / "run", 6, 3))
    caption, alternative = figure_texts("differences", run)
    assert "How much worse each activation scores than relu, in percent" in caption
    assert "Shaded: within 2.0 %" in caption
    assert caption.endswith("against the best of all.")
    assert alternative.startswith("Forest plot of differences from relu: sigmoid as good")
    assert "silu diverged" in alternative
    caption, _ = figure_texts("learning_rates", run)
    assert caption.endswith("Framed: the rate that the comparison is about.")
    grid = read_finished(make_run(tmp_path / "grid", 2, 2, protocol="grid"))
    assert "sweep" not in figure_texts("learning_rates", grid)[0]
    assert "the differences above tell them apart" in figure_texts("ranking", run)[0]
    search = read_finished(make_run(tmp_path / "search", 2, 2, command="search"))
    assert "differences" not in figure_texts("ranking", search)[0]


def test_24_activations_have_24_looks_and_a_strange_one_always_the_same() -> None:
    assert len(set(map(look, ORDER))) == len({(look(n).colour, look(n).marker) for n in ORDER}) == len(ORDER)
    assert look("my.package.Bump") == look("my.package.Bump")


def test_an_activation_has_its_colour_whatever_else_is_in_the_run(tmp_path: Path) -> None:
    colours = []
    for n in (2, 5):
        figure = draw(read_finished(make_run(tmp_path / str(n), n, 2)))["curves"]
        panel = next(axes for axes in figure.axes if axes.get_title() == "sigmoid")
        colours.append(panel.lines[-1].get_color())
    assert colours == [look("sigmoid").colour] * 2


def test_files_are_written_whole_and_stale_ones_go(tmp_path: Path) -> None:
    run = read_finished(make_run(tmp_path / "run", 3, 2))
    write_figures(run, draw(run))
    written = {path.name for path in run.directory.figures.iterdir()}
    assert written == {f"{name}.{suffix}" for name in NAMES for suffix in ("png", "svg")}
    run.directory.health.unlink()
    again = read_finished(run.directory.path)
    write_figures(again, draw(again))
    assert {path.name for path in run.directory.figures.iterdir()} == written - {"health.png", "health.svg"}


def test_the_same_numbers_give_the_same_bytes(large: FinishedRun) -> None:
    assert svg(draw(large)["ranking"]) == svg(draw(large)["ranking"])


def test_the_callers_own_settings_stay(tmp_path: Path) -> None:
    with mpl.rc_context({"font.size": 31.0, "text.parse_math": True}):
        before = dict(mpl.rcParams)
        run = read_finished(make_run(tmp_path / "run", 2, 2))
        write_figures(run, draw(run))
        assert dict(mpl.rcParams) == before


def test_a_column_with_dollars_and_tags_in_its_name_is_drawn_as_it_is(tmp_path: Path) -> None:
    run = read_finished(make_run(tmp_path / "run", 2, 2, target="$x^$ <b>&"))
    assert "predicted $x^$ &lt;b&gt;&amp;" in svg(draw(run)["predictions"])


def test_a_run_where_everything_diverged_is_drawn(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", 3, 2)
    run = read_finished(path)
    members = run.members.assign(val_score=math.nan, test_score=math.nan, diverged=True)
    members.to_csv(run.directory.members, index=False)
    for row in run.summary["ranking"]:
        row.update(mean=None, sd=None, ci_low=None, ci_high=None)
    run.summary.update(winner=None, comparisons=[])
    figures = draw(FinishedRun(run.directory, run.summary))
    assert "differences" not in figures
    texts = [text.get_text() for text in figures["ranking"].findobj(Text)]
    assert texts.count("no usable score") == 3
    assert "diverged" in [text.get_text() for text in figures["learning_rates"].findobj(Text)]


@pytest.mark.parametrize(("n_activations", "n_rates"), [(5, 1), (24, 6)])
def test_a_search_is_drawn_as_dots_and_has_no_differences(tmp_path: Path, n_activations: int, n_rates: int) -> None:
    figures = draw(read_finished(make_run(tmp_path / "run", n_activations, n_rates, command="search")))
    assert "differences" not in figures
    assert not any(text.get_text().isdigit() for text in figures["learning_rates"].axes[0].texts)
    for name in ("learning_rates", *OF_SEARCHES):
        assert overlapping(figures[name]) == []


def test_a_search_shows_each_parameter_that_differs_and_each_trial_in_its_activations_look(tmp_path: Path) -> None:
    run = read_finished(make_run(tmp_path / "run", 5, 3, command="search"))
    figures = draw(run)
    panels = [axes for axes in figures["slices"].axes if axes.get_visible()]
    assert [axes.get_xlabel() for axes in panels] == ["learning rate", "hidden layers", "dropout", "weight decay"]
    for axes in panels:
        marks = {str(dots.get_label()): dots for dots in axes.collections}
        assert sum(len(dots.get_offsets()) for dots in marks.values()) == len(run.summary["trials"]) == 15
        for name, dots in marks.items():
            assert mpl.colors.same_color(dots.get_facecolor()[0][:3], look(name).colour)
    dropouts = [own["dropout"] for own in run.summary["trials"] if own["activation"] == "tanh"]
    drawn = next(dots for dots in panels[2].collections if dots.get_label() == "tanh")
    assert drawn.get_offsets()[:, 0].tolist() == pytest.approx(dropouts)
    texts = [text.get_text() for text in figures["importances"].findobj(Text)]
    assert {"70%", "20%", "10%", "hidden layers"} <= set(texts)


def test_figures_do_not_depend_on_the_callers_style(large: FinishedRun) -> None:
    expected = svg(draw(large)["ranking"])
    with mpl.style.context("ggplot"):
        assert svg(draw(large)["ranking"]) == expected


def test_variants_have_their_activations_colour_and_markers_of_their_own() -> None:
    dropouts = ("dropout=0.0", "dropout=0.1", "dropout=0.2")
    for levels in (("init=auto", "init=torch"), dropouts, ("hidden=64-32", "hidden=256")):
        variants = [look(f"relu [{level}]") for level in levels]
        assert {variant.colour for variant in variants} == {look("relu").colour}
        assert len({variant.marker for variant in variants}) == len(levels)


def test_one_bad_row_does_not_press_the_others_together() -> None:
    rows = [Row("", value, value - 0.01, value + 0.01, look("relu"), "") for value in (0.12, 0.13, 0.14, 0.15, 12.0)]
    low, high = robust_range(rows)
    assert low < 0.11
    assert 0.16 < high < 0.3


def test_out_of_fold_averages_repeats_and_puts_the_worst_first() -> None:
    frame = pd.DataFrame(
        {"row": [0, 1, 0, 1], "id": ["a", "b", "a", "b"], "repeat": [0, 0, 1, 1], "actual": [10.0, 20.0, 10.0, 20.0]}
    ).assign(predicted=[10.0, 5.0, 40.0, 20.0])
    logs = out_of_fold(frame, LOG)
    assert logs.predicted.tolist() == pytest.approx([20.0, 10.0])
    assert logs.residual.tolist() == pytest.approx([math.log(0.5), math.log(2)])
    counts = out_of_fold(frame.assign(actual=[0.0, 20.0, 0.0, 20.0], predicted=[0.0, 5.0, 3.0, 20.0]), LOG1P)
    assert counts.predicted.tolist() == pytest.approx([1.0, math.sqrt(6 * 21) - 1])
    assert counts.residual.tolist() == pytest.approx([-math.log(2), math.log(21 / 6) / 2])
    plain = out_of_fold(frame, PLAIN)
    assert plain[["id", "residual"]].to_numpy().tolist() == [["a", -15.0], ["b", 7.5]]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12719, "0.127"), (12.345, "12.3"), (35000.0, "3.5e4"), (0.0, "0.000"), (math.nan, "–"), (2e-5, "2.0e-5")],
)
def test_numbers_stay_short(value: float, text: str) -> None:
    assert short_number(value) == text


def test_a_dotted_path_is_named_by_its_class() -> None:
    assert short("my.package.Bump") == "Bump"
    assert short("relu [dropout=0.1]") == "relu [dropout=0.1]"
    assert len(short("x" * 60)) == 24


def test_many_rows_are_drawn_as_an_image(tmp_path: Path) -> None:
    run = read_finished(make_run(tmp_path / "run", 2, 2))
    n = 20_000
    actual = np.exp(np.random.default_rng(0).normal(12, 1, n))
    frame = pd.DataFrame({"row": range(n), "id": range(n), "repeat": 0, "fold": 0, "actual": actual})
    frame.assign(predicted=actual * 1.1).to_csv(run.directory.predictions, index=False)
    assert len(svg(draw(read_finished(run.directory.path))["predictions"])) < 400_000

"""Pictures of scores and of stage sharing, as SVG text that takes its colours from the page.

It draws what `report.tables` computed and computes no statistic of its own; matplotlib is imported
inside the functions, and neither a clock nor a random number shapes the bytes.
`report.html` puts the pictures beneath its tables.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from adapterxlt.report import svg
from adapterxlt.report.pivots import Column, Line, Pivot
from adapterxlt.report.summaries import Summary
from adapterxlt.report.tables import BASELINE, column_name, percent, score_text, trivial_answer

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
WIDEST_TARGETS = 30
MOST_TILES = 900


@dataclass(frozen=True)
class Picture:
    """A drawing: `svg` is safe to put into a page as it is; `caption` says what is drawn."""

    title: str
    caption: str
    svg: str


def shots_picture(data: Pivot, prefix: str) -> Picture:
    """Score against shots, a line a regime, a panel a resource class and one over all targets.

    `prefix` makes the ids inside the SVG unique in a page; the same holds for every picture.
    """
    panels = [i for i, c in enumerate(data.columns) if c.kind in ("class", "overall")]
    ticks = sorted({line.shots for line in data.lines})
    names = _names(data)

    def paint(figure: Any) -> None:
        axes = _grid(figure, len(panels))
        for place, (ax, i) in enumerate(zip(axes, panels, strict=True)):
            for rank, name in enumerate(names):
                _curve(ax, [line for line in data.lines if line.label == name], i, rank, ticks)
            if (floor := data.baseline[i]) is not None:
                ax.axhline(100 * floor, color=svg.INK, linewidth=0.8, linestyle=(0, (1, 3)))
            ax.set_title(_panel_name(data.columns[i]))
            ax.set_xticks(range(len(ticks)), [str(shots) for shots in ticks])
            ax.set_xlim(-0.4, len(ticks) - 0.6)
            ax.set_xlabel("shots")
            if place % 3 == 0:
                ax.set_ylabel(f"{short(data.metric)} x 100")
        legend(figure, axes)

    rows = -(-len(panels) // 3)
    height = 2.9 * rows + 0.25 * (-(-len(names) // 3)) + 0.2
    caption = (
        f"Mean {data.metric} over the target languages of a class, against shots (evenly spaced). "
        "Bands and bars: one standard deviation of single runs to each side, as under ± in the "
        f"table. Zero-shot scores are carried across as a thin dashed line; dotted: a {BASELINE}, "
        f"{trivial_answer(data.task, data.metric)}."
        + _bound_words(data, " Dashed lines with hollow marks: upper bounds.")
    )
    return _picture(f"{data.task}: score against shots", caption, data, prefix, 9.0, height, paint)


def heat_picture(data: Pivot, prefix: str) -> Picture | None:
    """Mean score of every target by regime, a block for each number of shots; None above
    `MOST_TILES` of them."""
    shown = [i for i, c in enumerate(data.columns) if c.kind in ("target", "overall")]
    blocks = [[line for line in data.lines if line.shots == shots] for shots in _shots(data)]
    if len(shown) * len(data.lines) > MOST_TILES:
        return None
    # Upper bounds are no results, so they do not stretch the colours of those that are.
    ranked = [line for line in data.lines if not line.upper_bound] or data.lines
    means = [m for line in ranked for i in shown if (m := line.cells[i].mean) is not None]
    low, high = min(means, default=0.0), max(means, default=1.0)

    def paint(figure: Any) -> None:
        heights = [len(block) for block in blocks]
        axes = figure.subplots(len(blocks), 1, squeeze=False, height_ratios=heights)[:, 0]
        for ax, block in zip(axes, blocks, strict=True):
            for y, line in enumerate(block):
                for x, i in enumerate(shown):
                    _tile(ax, x, y, line.cells[i], low, high, bound=line.upper_bound)
            ax.set_xlim(-0.5, len(shown) - 0.5)
            ax.set_ylim(len(block) - 0.5, -0.5)
            ax.set_title(_shots_name(block[0].shots), loc="left")
            ax.set_yticks(range(len(block)), [short(line.label) for line in block])
            ax.set_xticks(range(len(shown)), [short(column_name(data.columns[i])) for i in shown])
            ax.tick_params(length=0)
            ax.grid(False)
            ax.spines[:].set_visible(False)
            if len(shown) > 14:
                ax.tick_params(axis="x", rotation=60)

    tall = 0.26 * sum(map(len, blocks)) + 0.62 * len(blocks) + 0.2
    wide = max(9.0, 2.6 + 0.46 * len(shown))
    caption = (
        f"Mean {data.metric} x 100 by regime and target. The darkest tile is the lowest mean of "
        f"the picture ({percent(low)}), the lightest the highest ({percent(high)}); – has no "
        "score, * lacks some."
        + _bound_words(data, " Upper bounds stand apart: framed by dashes, left out of the range.")
    )
    return _picture(f"{data.task}: targets by regimes", caption, data, prefix, wide, tall, paint)


def spread_picture(data: Pivot, prefix: str) -> Picture | None:
    """One dot for every run of a target and regime; None above `WIDEST_TARGETS` targets."""
    shown = [i for i, c in enumerate(data.columns) if c.kind == "target"]
    if len(shown) > WIDEST_TARGETS:
        return None
    names, shots = _names(data), _shots(data)
    densest = max(sum(line.shots == number for line in data.lines) for number in shots)

    def paint(figure: Any) -> None:
        axes = _grid(figure, len(shots), sharex=True)
        for ax, number in zip(axes, shots, strict=True):
            block = [line for line in data.lines if line.shots == number]
            for place, line in enumerate(block):
                dodge = (place - (len(block) - 1) / 2) * 0.8 / densest
                cells = [line.cells[i] for i in shown]
                _dots(ax, cells, dodge, names.index(line.label), line)
            ax.set_yticks([i + 0.5 for i in range(len(shown) - 1)], minor=True)
            ax.grid(axis="y", which="minor", alpha=0.8)
            ax.grid(visible=False, axis="y", which="major")
            ax.tick_params(axis="y", which="minor", length=0)
            ax.set_title(_shots_name(number))
            ax.set_yticks(range(len(shown)), [short(data.columns[i].name) for i in shown])
            ax.set_ylim(len(shown) - 0.4, -0.6)
            ax.set_xlabel(f"{short(data.metric)} x 100")
        legend(figure, axes)

    rows = -(-len(shots) // 3)
    tall = rows * (0.9 + len(shown) * max(0.3, 0.08 * densest)) + 0.25 * (-(-len(names) // 3))
    caption = (
        f"One dot a run (draw and seed) of a target: {data.metric} x 100. Dots far apart on one "
        "height mean that the score hangs on the draw of shots or on the seed of training."
        + _bound_words(data, " Hollow: upper bounds.")
    )
    return _picture(f"{data.task}: spread of the runs", caption, data, prefix, 9.0, tall, paint)


def sharing_picture(
    kinds: Sequence[tuple[str, tuple[int, int, int]]], state: str, prefix: str, lab: bool
) -> Picture:
    """Bars for each (kind, (stages if nothing were shared, distinct stages, those in `state`))."""
    labels = ("needed by cells, nothing shared", "distinct stages", state)
    most = max((max(counts) for _, counts in kinds), default=1)

    def paint(figure: Any) -> None:
        ax = figure.subplots()
        for rank, label in enumerate(labels):
            values = [counts[rank] for _, counts in kinds]
            heights = [place + 0.27 * (rank - 1) for place in range(len(kinds))]
            ax.barh(heights, values, height=0.24, color=colour(rank), label=label)
            for y, value in zip(heights, values, strict=True):
                ax.text(value + 0.01 * most, y, f"{value:,}", va="center", fontsize=8)
        ax.set_yticks(range(len(kinds)), [kind for kind, _ in kinds])
        ax.set_ylim(len(kinds) - 0.45, -0.55)
        ax.set_xlim(0, 1.1 * max(most, 1))
        ax.set_xlabel("stages")
        ax.grid(False, axis="y")
        legend(figure, [ax])

    caption = (
        "Stages of each kind: as many as the result cells ask for, as many as are distinct, and "
        f"as many of those as are in the state: {state}."
    )
    tall = 1.0 + 0.62 * max(len(kinds), 1)
    title = "What sharing saved"
    return Picture(
        title,
        caption,
        svg.draw(f"{title}{' (lab)' if lab else ''}", caption, prefix, 9.0, tall, paint),
    )


def _picture(
    title: str,
    caption: str,
    data: Pivot,
    prefix: str,
    width: float,
    height: float,
    paint: Callable[[Any], None],
) -> Picture:
    title = f"{title} (lab)" if data.lab else title
    return Picture(title, caption, svg.draw(title, caption, prefix, width, height, paint))


def _curve(ax: Any, lines: Sequence[Line], column: int, rank: int, ticks: Sequence[int]) -> None:
    known = [(ticks.index(line.shots), line.cells[column], line) for line in lines]
    known = [entry for entry in known if entry[1].mean is not None]
    if not known:
        return
    tint = colour(rank)
    xs = [x for x, _, _ in known]
    means = [100 * (cell.mean or 0.0) for _, cell, _ in known]
    sds = [100 * (cell.sd or 0.0) for _, cell, _ in known]
    first = known[0][2]
    looks = _looks(rank, first) | {"linestyle": "--" if first.upper_bound else "-"}
    ax.plot(xs, means, markersize=4.5, label=first.label, **looks)
    lower = [mean - sd for mean, sd in zip(means, sds, strict=True)]
    upper = [mean + sd for mean, sd in zip(means, sds, strict=True)]
    if len(xs) > 1:
        ax.fill_between(xs, lower, upper, color=tint, alpha=0.14, linewidth=0)
    else:
        ax.vlines(xs, lower, upper, color=tint, linewidth=1.2)
        if xs == [0] and ticks[0] == 0 and len(ticks) > 1 and not first.upper_bound:
            ax.axhline(means[0], color=tint, linewidth=0.7, linestyle=(0, (4, 4)), alpha=0.7)


def _dots(ax: Any, cells: Sequence[Summary], dodge: float, rank: int, line: Line) -> None:
    xs = [100 * score for cell in cells for score in cell.scores]
    ys = [place + dodge for place, cell in enumerate(cells) for _ in cell.scores]
    if not xs:
        return
    looks = _looks(rank, line) | {"linestyle": "none"}
    ax.plot(xs, ys, markersize=3.4, alpha=0.75, label=line.label, **looks)


def _looks(rank: int, line: Line) -> dict[str, Any]:
    """Colour and marker of a regime; an upper bound's marker is hollow."""
    looks: dict[str, Any] = {"color": colour(rank), "marker": MARKERS[rank % len(MARKERS)]}
    return looks | ({"markerfacecolor": "none"} if line.upper_bound else {})


def _bound_words(data: Pivot, words: str) -> str:
    return words if any(line.upper_bound for line in data.lines) else ""


def _tile(ax: Any, x: int, y: int, cell: Summary, low: float, high: float, *, bound: bool) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    if cell.mean is None:
        ax.text(x, y, score_text(cell), ha="center", va="center")
        return
    place = min(max((cell.mean - low) / (high - low), 0.0), 1.0) if high > low else 0.5
    # cividis reads the same with and without colour vision, on a light and on a dark page.
    red, green, blue, _ = colormaps["cividis"](place)
    light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
    tile = Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=(red, green, blue), linewidth=0)
    tile.set_clip_on(False)
    ax.add_patch(tile)
    ink = "#000000" if light else "#ffffff"
    if bound:
        frame = Rectangle((x - 0.46, y - 0.43), 0.92, 0.86, fill=False, edgecolor=ink)
        frame.set_linestyle((0, (3, 2)))
        ax.add_patch(frame)
    ax.text(x, y, score_text(cell), ha="center", va="center", fontsize=8, color=ink)


def _grid(figure: Any, count: int, *, sharex: bool = False) -> list[Any]:
    """`count` axes, three a row, the empty places of the last row removed."""
    wide = max(1, min(3, count))
    grid = figure.subplots(-(-count // wide) or 1, wide, squeeze=False, sharex=sharex, sharey=True)
    axes = list(grid.flat)
    for ax in axes[count:]:
        ax.remove()
    return axes[:count]


def legend(figure: Any, axes: Sequence[Any]) -> None:
    """One legend for all axes, beneath them."""
    found: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if found:
        names = [short(label) for label in found]
        figure.legend(list(found.values()), names, loc="outside lower left", ncols=3)


def _names(data: Pivot) -> list[str]:
    """The regimes' labels, each once, in the order that fixes their colours."""
    return list(dict.fromkeys(line.label for line in data.lines))


def _shots(data: Pivot) -> list[int]:
    return list(dict.fromkeys(line.shots for line in data.lines))


def colour(rank: int) -> str:
    """The stand-in of a series colour; see `report.svg`."""
    return f"#0a0b0{rank % len(svg.SERIES)}"


def _panel_name(column: Column) -> str:
    return "all targets" if column.kind == "overall" else f"class {short(column.name)}"


def short(name: str, most: int = 36) -> str:
    """A name cut in its middle, so that a long one leaves room to draw and keeps "upper bound"."""
    shown = "".join(letter if letter.isprintable() else "\ufffd" for letter in name)
    half = most // 2
    return shown if len(shown) <= most else f"{shown[: half - 1]}…{shown[-half:]}"


def _shots_name(shots: int) -> str:
    return "zero-shot" if shots == 0 else f"{shots} shots"

"""Pictures of differences between regimes, of cost against score, and of a study's stages.

They draw what `report.comparisons`, `report.pivots` and `report.flow` found, like `report.plots`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from adapterxlt.report import svg
from adapterxlt.report.comparisons import Comparison
from adapterxlt.report.flow import Flow, Group
from adapterxlt.report.overviews import behind
from adapterxlt.report.pivots import Pivot
from adapterxlt.report.plots import MARKERS, Picture, colour, legend, short
from adapterxlt.report.summaries import Row, mean_of

#: More lines than this would be a picture that nobody reads.
MOST_LINES = 60
_KINDS = ("adopt", "pretrain", "language adapter", "task adapter", "merge", "evaluate")


def forest_picture(
    name: str, found: Sequence[Comparison], first: str, prefix: str, lab: bool
) -> Picture | None:
    """Differences with their intervals, a line each; None of none or of too many."""
    if not found or len(found) > MOST_LINES:
        return None
    shots = list(dict.fromkeys(one.shots for one in found))
    # A gap where the shots change.
    heights = [place + shots.index(one.shots) * 0.7 for place, one in enumerate(found)]

    def paint(figure: Any) -> None:
        ax = figure.subplots()
        ax.axvline(0, color=svg.INK, linewidth=0.9)
        for y, one in zip(heights, found, strict=True):
            tint = colour(shots.index(one.shots))
            dots = [100 * value for _, value in one.effect.by_language]
            ax.plot(dots, [y] * len(dots), ".", color=tint, markersize=3, alpha=0.55)
            if one.effect.low is not None and one.effect.high is not None:
                ends = [100 * one.effect.low, 100 * one.effect.high]
                ax.plot(ends, [y, y], color=tint, linewidth=1.6)
            marker = MARKERS[shots.index(one.shots) % len(MARKERS)]
            fill = {"markerfacecolor": "none"} if one.upper_bound else {}
            ax.plot([100 * one.effect.value], [y], marker, color=tint, markersize=6, **fill)
        ax.set_yticks(heights, [short(one.label) for one in found])
        ax.set_ylim(max(heights) + 0.7, -0.7)
        ax.set_xlabel(f"points over {short(first)}")
        ax.grid(False, axis="y")

    caption = (
        f"Each regime less {first} in the same runs: mean over languages (large mark) with its "
        "95 % interval, and each language (dots). Right of the line it is ahead. An interval that "
        "crosses the line leaves open which is better."
    )
    return _drawn(
        f"{name}: differences to {first}", caption, prefix, 1.1 + 0.24 * max(heights), paint, lab
    )


def cost_picture(data: Pivot, rows: Sequence[Row], prefix: str) -> Picture | None:
    """Mean score against the operations of its trainings; None where these are not known."""
    place = next(i for i, column in enumerate(data.columns) if column.kind == "overall")
    spent = behind(rows, data)
    points = []
    for line in data.lines:
        costs = [row["flops"] for row in spent.get((line.regime, line.source, line.shots), ())]
        mean = line.cells[place].mean
        known = costs and mean is not None and all(cost is not None for cost in costs)
        if known and mean_of(costs) > 0:
            points.append((mean_of(costs) / 1e12, 100 * float(mean or 0), line))
    if len(points) < 2:
        return None
    names = list(dict.fromkeys(line.label for _, _, line in points))
    numbers = list(dict.fromkeys(line.shots for _, _, line in points))
    front = _front([(cost, score) for cost, score, line in points if not line.upper_bound])

    def paint(figure: Any) -> None:
        from matplotlib.ticker import FuncFormatter

        ax = figure.subplots()
        ax.plot(
            [x for x, _ in front],
            [y for _, y in front],
            color=svg.INK,
            linewidth=0.8,
            drawstyle="steps-post",
        )
        for cost, score, line in points:
            rank = names.index(line.label)
            fill = {"markerfacecolor": "none"} if line.upper_bound else {}
            ax.plot(
                [cost], [score], MARKERS[rank % len(MARKERS)], color=colour(rank),
                markersize=5 + 2 * numbers.index(line.shots), label=line.label, **fill,
            )  # fmt: skip
            ax.annotate(
                str(line.shots),
                (cost, score),
                textcoords="offset points",
                xytext=(6, 3),
                fontsize=7,
            )
        ax.set_xscale("log")
        for axis_part in (ax.xaxis.set_major_formatter, ax.xaxis.set_minor_formatter):
            axis_part(FuncFormatter(_ticks))
        ax.set_xlabel("TFLOPs of the trainings behind a score")
        ax.set_ylabel(f"mean {short(data.metric)} x 100")
        legend(figure, [ax])

    caption = (
        f"Mean {data.metric} over the targets against the operations of all trainings on tasks "
        "that a score depends on, each in full. The number beside a mark is its shots. The line "
        "joins those that nothing cheaper reaches; upper bounds are hollow and not on it."
    )
    height = 3.3 + 0.25 * (-(-len(names) // 3))
    return _drawn(f"{data.task}: cost against score", caption, prefix, height, paint, data.lab)


def _ticks(value: float, place: int | None = None) -> str:
    """1, 2 and 5 of each power of ten."""
    digit = f"{value:.0e}"
    return f"{value:g}" if digit[0] in "125" and math.isclose(float(digit), value) else ""


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points above all that cost no more, by cost."""
    found: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if not found or score > found[-1][1]:
            found.append((cost, score))
    return found


def flow_picture(flow: Flow, prefix: str, lab: bool) -> Picture | None:
    """Groups of alike stages, from the backbone on the left to the evaluations, and what feeds
    what; None of fewer than two groups or of more than `MOST_LINES`."""
    if not 1 < len(flow.groups) <= MOST_LINES:
        return None
    columns: dict[int, list[Group]] = {}
    for group in flow.groups:
        columns.setdefault(group.level, []).append(group)
    tallest = max(len(those) for those in columns.values())
    places = {
        group.name: (level, (tallest - len(those)) / 2 + row)
        for level, those in columns.items()
        for row, group in enumerate(those)
    }

    def paint(figure: Any) -> None:
        from matplotlib.patches import FancyBboxPatch

        ax = figure.subplots()
        for one, other, count in flow.edges:
            (x, y), (u, v) = places[one], places[other]
            ax.annotate(
                "", (u - 0.42, v), (x + 0.42, y),
                arrowprops={
                    "arrowstyle": "-|>", "color": svg.RULE, "shrinkA": 0, "shrinkB": 0,
                    "linewidth": round(0.6 + 0.35 * math.log10(count), 1),
                    "connectionstyle": f"arc3,rad={0.0 if u - x == 1 else 0.12}",
                },
            )  # fmt: skip
        for group in flow.groups:
            x, y = places[group.name]
            tint = colour(_KINDS.index(group.kind) if group.kind in _KINDS else len(_KINDS))
            ax.add_patch(
                FancyBboxPatch(
                    (x - 0.4, y - 0.34), 0.8, 0.68, boxstyle="round,pad=0.02,rounding_size=0.06",
                    fill=False, edgecolor=tint, linewidth=1.4,
                    linestyle="-" if group.done == group.stages else (0, (3, 2)),
                )
            )  # fmt: skip
            said = (
                f"{group.done} of {group.stages}"
                if group.done < group.stages
                else f"{group.stages}"
            )
            ax.text(x, y - 0.1, short(group.name, 24), ha="center", va="center", fontsize=8)
            shared = f", for {group.uses}" if group.uses > group.stages else ""
            ax.text(x, y + 0.14, said + shared, ha="center", va="center", fontsize=7.5)
        ax.set_xlim(-0.55, max(columns) + 0.55)
        ax.set_ylim(tallest - 0.4, -0.6)
        ax.axis("off")

    caption = (
        "The plan: boxes are kinds of stage with how many distinct ones there are and, where cells "
        "share them, for how many uses; arrows are what a stage is computed from. Dashed boxes are "
        "not all done. What is adopted was trained elsewhere."
    )
    wide = max(9.0, 1.75 * (max(columns) + 1))
    title = "What was trained, shared and adopted"
    tall = 0.5 + 0.62 * tallest
    return _drawn(title, caption, prefix, tall, paint, lab, wide)


def _drawn(
    title: str, caption: str, prefix: str, height: float, paint: Any, lab: bool, width: float = 9.0
) -> Picture:
    title = f"{title} (lab)" if lab else title
    return Picture(title, caption, svg.draw(title, caption, prefix, width, height, paint))

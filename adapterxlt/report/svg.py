"""SVG text for the inside of a page, out of what matplotlib draws.

It takes the page's colours, strips what a page does not need and makes ids unique. matplotlib is
imported inside; neither a clock nor a random number shapes the bytes. Called by `report.plots`.
"""

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from io import StringIO
from typing import Any

# (light, dark) of each series: the hues of Okabe and Ito (2008), darkened or lightened until they
# reach a contrast of 3:1 against the page; marker shapes tell the series apart without colour.
SERIES = (
    ("#0072b2", "#56b4e9"),
    ("#c44e00", "#ff9a4d"),
    ("#00805c", "#2fcf9f"),
    ("#a8437d", "#f0a3cf"),
    ("#8f6500", "#f0cf52"),
    ("#5b4bb5", "#b3a7ff"),
    ("#5c5c5c", "#c4c4c4"),
)

# Stand-ins that matplotlib can draw with; `_restyle` turns them into colours of the page.
INK, RULE = "#0a0bf0", "#0a0bf1"
_STANDINS = {INK: "currentColor", RULE: "var(--rule,#9a9a9a)"}
_STANDINS |= {f"#0a0b0{i}": f"var(--s{i},{light})" for i, (light, _) in enumerate(SERIES)}
_REFERENCE = re.compile(r"(?:href=\"#|url\(#)([^\")]+)")
_INLINE_STYLE = re.compile(r' style="([^"]*)"')
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.edgecolor": RULE,
    "grid.color": RULE,
    "grid.alpha": 0.35,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "legend.frameon": False,
}


def palette_css(place: int) -> str:
    """CSS declarations of the series colours: `place` 0 for a light page, 1 for a dark one."""
    return "".join(f"--s{i}:{pair[place]};" for i, pair in enumerate(SERIES))


def draw(
    title: str,
    description: str,
    prefix: str,
    width: float,
    height: float,
    paint: Callable[[Any], None],
) -> str:
    """Draw on a `width` x `height` inch figure and return SVG fit for the inside of a page."""
    with _style(prefix):
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure)
        out = StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return _restyle(out.getvalue(), title, description, prefix)


@contextmanager
def _style(prefix: str) -> Iterator[None]:
    import matplotlib

    with warnings.catch_warnings(), matplotlib.rc_context():
        # Text stays text, so a glyph that matplotlib's own font lacks is the browser's to find.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        # The user's matplotlibrc must not shape the page.
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        matplotlib.rcParams["svg.hashsalt"] = prefix
        yield


def _restyle(svg: str, title: str, description: str, prefix: str) -> str:
    """Strip what a page does not need, take over the page's colours, make the ids unique."""
    width, height = (float(v) for v in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0])
    inside = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    for unwanted in (r"<metadata>.*?</metadata>", r"<style.*?</style>", r"<!--.*?-->"):
        inside = re.sub(unwanted, "", inside, flags=re.DOTALL)
    names = {name: f"{prefix}-{i}" for i, name in enumerate(_unique(_REFERENCE, inside))}
    styles = {text: f"{prefix}s{i}" for i, text in enumerate(_unique(_INLINE_STYLE, inside))}

    def rename(found: re.Match[str]) -> str:
        return f' id="{names[found[1]]}"' if found[1] in names else ""

    def mend(match: re.Match[str]) -> str:
        tag = match.group(0).replace("xlink:href", "href")
        tag = re.sub(r' transform="rotate\(-?0 [^"]*"', "", tag)
        tag = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number.group(0)):.2f}", tag)
        tag = _REFERENCE.sub(lambda found: found[0].replace(found[1], names[found[1]]), tag)
        tag = _INLINE_STYLE.sub(lambda found: f' class="{styles[found[1]]}"', tag)
        return re.sub(r' id="([^"]+)"', rename, tag)

    inside = re.sub(r"<[^>]+>", mend, inside)
    inside = re.sub(r"\s*\n\s*", "\n", inside).strip()
    # A rule for each distinct style instead of its text at every dot: a third of the bytes.
    rules = "".join(f".{name}{{{_colours(text)}}}" for text, name in styles.items())
    size = f"width:100%;min-width:{width:.0f}px;max-width:{1.6 * width:.0f}px"
    return (
        f'<svg role="img" aria-labelledby="{prefix}-t {prefix}-d" '
        f'viewBox="0 0 {width:g} {height:g}" '
        f'style="{size};font-family:system-ui,sans-serif;stroke-linejoin:round;stroke-linecap:butt">\n'
        f'<title id="{prefix}-t">{escape(title)}</title>\n'
        f'<desc id="{prefix}-d">{escape(description)}</desc>\n'
        f"<style>{rules}</style>\n{inside}\n</svg>"
    )


def _unique(pattern: re.Pattern[str], text: str) -> list[str]:
    tags = re.findall(r"<[^>]+>", text)
    return list(dict.fromkeys(found for tag in tags for found in pattern.findall(tag)))


def _colours(style: str) -> str:
    """The style with the page's font and colours instead of matplotlib's font and the stand-ins."""
    style = re.sub(r"font-family: [^;]*; ", "", style)
    for standin, colour in _STANDINS.items():
        style = style.replace(standin, colour)
    return style.replace(": ", ":").replace("; ", ";")

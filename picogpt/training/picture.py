"""Pictures of runs: loss.png, the loss of one run step by step, and what came of each run of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from picogpt import files
from picogpt.training.run import Run

NAME = "loss.png"
SPREAD = 0.24  # the part of the distance of two values that lines through the same value share


def draw(run: Run) -> None:
    """Draw the log of a run. Without matplotlib, say so on stderr and leave it."""
    path = run.directory / NAME
    if (figure := new_figure(path, 8, 4.5)) is None:
        return
    steps = [row["step"] for row in run.rows]
    axes = figure.subplots()
    axes.plot(steps, [row["loss"] for row in run.rows], label="training")
    axes.plot(steps, [row["held_out_loss"] for row in run.rows], label="held out")
    axes.set(xlabel="step", ylabel="loss, nats per token")
    axes.grid(alpha=0.3)
    axes.legend()
    save(figure, path)


def draw_sweep(rows: list[dict[str, Any]], names: list[str], loss: str, path: Path) -> None:
    """Draw runs as lines through parallel axes, one for each setting and one for the loss, the best first.

    Lines through the same value lie side by side, the best at the bottom, so that each can be followed. Without
    matplotlib, say so on stderr and leave it.
    """
    if not rows or (figure := new_figure(path, 2.2 * (len(names) + 1) + 1, 5)) is None:
        return
    from matplotlib import colormaps

    axes, (least, most) = figure.subplots(), (rows[0][loss], rows[-1][loss])
    heights = [places([row[name] for row in rows]) for name in names]
    heights.append([(row[loss] - least) / ((most - least) or 1) for row in rows])
    for i in reversed(range(len(rows))):
        color = colormaps["viridis"](0.92 * heights[-1][i])
        width, order = (3.5, 3) if i == 0 else (1.3, 2)
        axes.plot([column[i] for column in heights], color=color, linewidth=width, zorder=order)
    for x, name in enumerate([*names, loss]):
        axes.axvline(x, color="black", linewidth=0.8, zorder=1)
        ticks = (
            ordered(row[name] for row in rows) if x < len(names) else [least + (most - least) * i / 4 for i in range(5)]
        )
        for i, value in enumerate(ticks):
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
            y = place(i, len(ticks)) if x < len(names) else i / 4
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
            side = {"x": x - 0.03, "ha": "right"} if x < len(names) else {"x": x + 0.03, "ha": "left"}
            axes.text(**side, y=y, s=text, va="center", zorder=4, bbox=box)
    axes.set_xticks(range(len(names) + 1), [*names, loss.replace("_", " ")])
    axes.set(yticks=[], ylim=(-0.16, 1.16), xlim=(-0.4, len(names) + 0.3))
    axes.spines[:].set_visible(False)
    best = ", ".join(f"{name} {rows[0][name]}" for name in names)
    axes.set_title(f"best (thick): {best}: {least:.4g}", fontsize="medium")
    save(figure, path)


def ordered(values: Any) -> list[Any]:
    """Different values, numbers in their order, as they stand on an axis."""
    return sorted(set(values), key=lambda value: (isinstance(value, str), value))


def place(number: int, count: int) -> float:
    """The height of a value, or the middle if it is the only one.

    >>> [place(i, 3) for i in range(3)], place(0, 1)
    ([0.0, 0.5, 1.0], 0.5)
    """
    return number / (count - 1) if count > 1 else 0.5


def places(values: list[Any]) -> list[float]:
    """The heights of lines on an axis. Those through the same value are spread around it, in their order.

    >>> places(["a", "b", "b"])
    [0.0, 0.88, 1.12]
    """
    axis, seen = ordered(values), dict.fromkeys(values, 0)
    spread = SPREAD / max(len(axis) - 1, 1)
    heights = []
    for value in values:
        n = values.count(value)
        heights.append(place(axis.index(value), len(axis)) + spread * (place(seen[value], n) - 0.5))
        seen[value] += 1
    return heights


def new_figure(path: Path, width: float, height: float) -> Any:
    """A figure, or None and a line on stderr if there is no matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        files.note(f'no {path.name}: it needs matplotlib: pip install "picogpt-numpy[train]"')
        return None
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Any, path: Path) -> None:
    """Write a picture completely or not at all. Raises UserError."""
    unfinished = path.with_name(f".{path.name}.new")
    with files.explained(path.parent, "make room there, and go on with --resume"):
        figure.savefig(unfinished, format="png", dpi=120)
        unfinished.replace(path)

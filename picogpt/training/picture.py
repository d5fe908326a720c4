"""loss.png: the loss of a run on both parts of the text, step by step."""

from __future__ import annotations

from picogpt import files
from picogpt.training.run import Run

NAME = "loss.png"


def draw(run: Run) -> None:
    """Draw the log of a run. Without matplotlib, say so on stderr and leave it."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        files.note(f'no {NAME}: it needs matplotlib: pip install "picogpt-numpy[train]"')
        return
    steps = [row["step"] for row in run.rows]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, [row["loss"] for row in run.rows], label="training")
    axes.plot(steps, [row["held_out_loss"] for row in run.rows], label="held out")
    axes.set(xlabel="step", ylabel="loss, nats per token")
    axes.grid(alpha=0.3)
    axes.legend()
    unfinished = run.directory / f".{NAME}.new"
    with files.explained(run.directory):
        figure.savefig(unfinished, format="png", dpi=120)
        unfinished.replace(run.directory / NAME)

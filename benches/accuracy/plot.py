"""Curves of training runs: validation IoU at the best threshold after each epoch.

    python plot.py OUT.png NAME=HISTORY.csv[,HISTORY.csv…] …     (matplotlib 3)

Each NAME is a colour: thin lines are its runs, the thick one is their mean. Prints a table of the same runs.
"""

import csv
import statistics
import sys

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot, ticker

# Okabe and Ito's colours, which stay apart for colour-blind readers.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7"]


def scores(path):
    with open(path) as file:
        return [float(row["score"]) for row in csv.DictReader(file)]


assert len(sys.argv) - 2 <= len(COLOURS), f"{len(COLOURS)} names at most"
figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
print("| run | best epoch | mean of the last ten epochs |\n|---|---|---|")
for colour, argument in zip(COLOURS, sys.argv[2:], strict=False):
    name, paths = argument.split("=")
    runs = [scores(path) for path in paths.split(",")]
    mean = [statistics.mean(values) for values in zip(*runs)]
    for number, run in enumerate(runs, 1):
        if len(runs) > 1:
            axes.plot(range(1, len(run) + 1), run, color=colour, linewidth=0.8, alpha=0.5)
        print(f"| {name}, run {number} | {max(run):.3f} | {statistics.mean(run[-10:]):.3f} |")
    axes.plot(range(1, len(mean) + 1), mean, color=colour, linewidth=2.5, label=name)
axes.set(xlabel="epoch", ylabel="validation IoU, at the best threshold", ylim=(0, None))
axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
axes.grid(alpha=0.3)
axes.legend()
figure.savefig(sys.argv[1], dpi=100)

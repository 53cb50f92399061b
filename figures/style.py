"""Sizes, colours and type for figures in a two-column paper.

Matplotlib's global settings stay as they are: `styled` applies these while a
figure is built, as `@styled` on the function that builds it.
"""

import matplotlib as mpl

COLUMN_WIDTH = 3.25  # inches
PAGE_WIDTH = 6.9

# Okabe and Ito's palette: distinguishable under the common colour blindnesses.
BLUE = "#0072B2"
ORANGE = "#D55E00"
GREEN = "#009E73"
PURPLE = "#CC79A7"
GREY = "#6E6E6E"
BLACK = "#000000"

SEQUENTIAL = "viridis"  # both perceptually ordered, and in grey as well
MAGNITUDE = "YlOrRd"  # light enough below its end for black lines and type

styled = mpl.rc_context(
    {
        "font.size": 8,
        "axes.titlesize": 8,
        "axes.labelsize": 8,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "legend.fontsize": 7,
        "legend.frameon": False,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.minor.width": 0.4,
        "ytick.minor.width": 0.4,
        "lines.linewidth": 1.2,
        "lines.markersize": 3.5,
        "errorbar.capsize": 0,
    }
)

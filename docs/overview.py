"""Draw ``docs/overview.png``, the picture of the README, from the tiny study.

    python docs/overview.py

What is not computed yet is computed first: PatchCore on the clean images of each category, and its
anomaly maps of the test images and of their shifted twins.
"""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

import matplotlib  # noqa: E402, the project's root comes first

matplotlib.use("Agg")

import numpy as np  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from nbhelpers.figures.images import MAP_COLORS, image_grid, load_thumbnail, show_image  # noqa: E402
from nbhelpers.figures.style import use_style  # noqa: E402
from nbhelpers.files import replacing  # noqa: E402
from nbhelpers.study import Study, open_study  # noqa: E402

METHOD = "patchcore"
#: Which test images are shown: one defect that is large enough to be seen in a small picture.
SHOWN = {"hazelnut": "crack", "carpet": "color", "zipper": "broken_teeth"}
ROWS = ("clean\nimage", "its anomaly\nmap", "shifted\nimage", "its anomaly\nmap")


def draw(study: Study) -> Figure:
    """A good and a defect image of each category: clean, its map, its shifted twin, that one's map.

    The colour scale of a category runs from the median of the good clean pixels to the highest
    value on its clean test images, so that a shifted map that is bright all over means false
    alarms.
    """
    figure, axes = image_grid(len(ROWS), 2 * len(SHOWN), cell=1.45)
    figure.set_figwidth(figure.get_figwidth() + 0.85)  # the rows' names
    for place, (category, defect_type) in enumerate(SHOWN.items()):
        asked = {"fitted_on": "clean", "split": "test"}
        maps = {
            domain: study.predictions(METHOD, category, domain=domain, **asked)
            for domain in ("clean", "shift")
        }
        clean = maps["clean"]
        low = float(np.median(clean.anomaly_maps[clean.labels == 0]))
        high = float(np.percentile(clean.anomaly_maps.max(axis=(1, 2)), 90))
        twins = {
            study.source_ids(category, [sample.id])[0]: sample
            for sample in study.split(category, "shift")["test"]
        }
        for side, kind in enumerate(("good", defect_type)):
            sample = next(s for s in study.split(category)["test"] if s.defect_type == kind)
            column = 2 * place + side
            for row, shown, domain in ((0, sample, "clean"), (2, twins[sample.id], "shift")):
                index = maps[domain].ids.index(shown.id)
                image, mask = load_thumbnail(shown)
                title = f"{category}, {'good' if kind == 'good' else 'defect'}" if row == 0 else ""
                show_image(axes[row, column], image, mask, title)
                axes[row + 1, column].imshow(
                    maps[domain].anomaly_maps[index], cmap=MAP_COLORS, vmin=low, vmax=high
                )
    for row, name in enumerate(ROWS):
        axes[row, 0].set_ylabel(name, fontsize=9, rotation=0, ha="right", va="center", labelpad=6)
    for axis in axes[0]:
        axis.set_title(axis.get_title(), fontsize=9, pad=5)
    return figure


if __name__ == "__main__":
    use_style()
    picture = draw(open_study("tiny"))
    with replacing(DOCS / "overview.png") as temporary:  # of fewer pixels than a notebook's figure
        picture.savefig(temporary, dpi=100, metadata={"Software": None})
    print("docs/overview.png")

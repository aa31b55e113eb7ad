# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 08 · What breaks when the domain shifts?
#
# **Question.** The detector and its threshold stay as they were; camera and light do not. Does the ranking break, or
# only the operating point?
#
# **Reads** stored predictions (fits what is missing). **Writes** `shifted_no_adaptation_results.json`, its rows of
# `metrics.csv` and a degradation table to `outputs/<profile>/results/`.
#
# **Takes** seconds on stored predictions; no GPU. **Before this:** 03 to 07. **After:** 09.
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/anomaly-shift-study/blob/v0.1.0/notebooks/08_evaluation_shift_no_adaptation.ipynb)

# %% tags=["parameters"]
profile = "tiny"  # a file in configs/: tiny, folder (your own images) or mvtec
overrides = {}  # settings to change, e.g. {"shift.severity": "severe"}
method = "patchcore"  # whose curves and pictures are shown; the tables hold all methods
drive_folder = ""  # Colab: a folder of your Google Drive to keep data and outputs in

# %% tags=["bootstrap"]
import os
import subprocess
import sys
from pathlib import Path

REPO_URL = os.environ.get("STUDY_REPO_URL", "https://github.com/OWNER/anomaly-shift-study")
REPO_REF = "v0.1.0"  # a tag, so that this notebook and the helpers it needs stay together
here = Path.cwd()
places = (here, *here.parents, Path(sys.prefix).parent, here / "anomaly-shift-study")
ROOT = next((p for p in places if (p / "nbhelpers" / "__init__.py").is_file()), None)
if ROOT is None:  # opened alone, as in Colab
    ROOT = here / "anomaly-shift-study"
    subprocess.run(["git", "clone", "-q", "--depth", "1", "-b", REPO_REF, REPO_URL, str(ROOT)], check=True)
    needs = str(ROOT / "requirements-colab.txt")
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-r", needs], check=True)
if drive_folder:  # Colab only: data and outputs outlive the machine
    from google.colab import drive

    drive.mount("/content/drive")
    os.environ["STUDY_WORKSPACE"] = f"/content/drive/MyDrive/{drive_folder}"
sys.path.insert(0, str(ROOT))
os.chdir(ROOT)

# %%
from nbhelpers.notebook import open_notebook

note = open_notebook("08_evaluation_shift_no_adaptation", profile, overrides)
study, method = note.study, note.chosen(method)

# %% [markdown]
# ## The protocol
#
# Fitted on clean train, threshold from clean val, tested on the shifted twins of the test images. Nothing is adapted.

# %%
from nbhelpers.analyses.all import run_scenario
from nbhelpers.results import views

before, after = run_scenario(study, "clean"), run_scenario(study, "no_adaptation")
note.show(views.with_intervals(after, ["image_auroc", "f1", "recall", "specificity", "aupro"]), "metrics")

# %% [markdown]
# Read it beside the first table of notebook 07, which has the same test images before the shift. A recall near 1
# together with a specificity near 0 means that nearly everything is called a defect.
#
# ## What did the shift cost?
#
# Each shifted image has its clean twin, so differences are taken pair by pair: both are redrawn together.

# %%
from nbhelpers.analyses.differences import difference

change = difference(study, "clean", "no_adaptation")
note.write(change, "degradation")
note.show(views.with_intervals(change, ["image_auroc", "f1", "recall", "specificity", "aupro"]), "degradation_wide")

# %% [markdown]
# Shifted minus clean; negative is a loss. An interval that excludes 0 is a change; one that contains it is not
# evidence that nothing changed. Compare the first number column with the fourth: AUROC needs no threshold,
# specificity does.

# %%
import pandas as pd

from nbhelpers.figures import images, scores

both = pd.concat([before, after])
both = both[both.method == method]
there = [name for name in ("image_auroc", "recall", "specificity", "aupro") if name in set(both.metric)]
note.save(scores.plot_scenario_change(both, there, ["clean", "no_adaptation"]), f"{method}_clean_to_shift")

# %% [markdown]
# Each line is a category and the thick black one their mean. A line that falls is a loss; where all fall by about the
# same, the shift hurts every category.
#
# ## The same parts in both worlds
#
# Two defects of each category, clean and shifted, with their anomaly maps on one colour scale per category.

# %%
clean, shifted = note.tested("clean")[method], note.tested("no_adaptation")[method]
limits = note.limits(method, "clean", "no_adaptation")
tests = {name: study.split(name, "shift")["test"] for name in study.categories}
twin_of = {clean_id: twin for name in tests for clean_id, twin in zip(clean[name].ids, tests[name], strict=True)}
pairs = [(sample, clean[name], twin_of[sample.id], shifted[name], limits[name])
         for name in study.categories for sample in images.one_of_each(study.split(name)["test"], 2)]
note.save(images.plot_worlds(pairs), f"{method}_both_worlds")

# %% [markdown]
# From top to bottom: the clean image, its map, the shifted twin, its map. Where a shifted map glows outside the
# outline, the shift looks like a defect; a mirrored border is part of the shift.
#
# ## Why: scores move, the threshold does not

# %%
thresholds = note.thresholds("no_adaptation")
note.save({name: scores.plot_scores({f"{name}, clean test": clean[name], f"{name}, shifted test": shifted[name]},
                                    thresholds[method][name]) for name in study.categories}, f"{method}_scores")

# %% [markdown]
# In each figure the upper row is clean and the lower one shifted. If both colours move to the right together, only
# the threshold is wrong, and notebook 09 can move it. If they also move into each other, the ranking is lost, and no
# threshold gives it back.
#
# ## Ranking and operating point under the shift

# %%
note.save(scores.plot_roc_pr(note.tested("no_adaptation"), thresholds), "roc_pr")
note.save(scores.plot_confusions(shifted, thresholds[method]), f"{method}_confusions")

# %% [markdown]
# A curve that comes near the diagonal ranks no better than chance. Dots in the upper right corner are thresholds that
# call everything a defect. The tables count the decisions of one method.
#
# ## The false alarms
#
# Shifted good images with the highest scores, on the colour scale of the clean ones.

# %%
note.save(note.hardest("no_adaptation", method, label=0, scale=("clean", "no_adaptation")), f"{method}_false_alarms")

# %% [markdown]
# Where do these good images glow? At the mirrored border, in the shadow of an uneven light, or all over? That is the
# part of the shift that looks like a defect.
#
# ## The misses
#
# Shifted defects with the lowest scores.

# %%
note.save(note.hardest("no_adaptation", method, label=1, scale=("clean", "no_adaptation")), f"{method}_misses")
print("\n".join(f"{name}: {(~part.pixel_valid).sum()} of {len(part)} images are left out of the pixel metrics, since "
                "their defect left the frame or has no mask" for name, part in shifted.items()))

# %% [markdown]
# A black title is a defect that is still flagged: with a threshold that calls everything a defect, there are no
# misses, which is not a success.
#
# ## What we found
#
# Computed from `metrics.csv` of this run and of the study on real images. First the ranking, then the operating
# point:

# %%
from nbhelpers.report import sentences

note.tell(sentences.change, "clean", "no_adaptation", "image_auroc")
note.tell(sentences.change, "clean", "no_adaptation", "specificity")
note.beside("no_adaptation", ["image_auroc", "aupro", "recall", "specificity"], against="clean")

# %% [markdown]
# The table holds differences. Where the specificity falls further than the AUROC, a part of the loss is the
# threshold's, which can be moved back; a lost ranking cannot.

# %%
assert (before.n_images[before.metric == "image_auroc"].tolist()
        == after.n_images[after.metric == "image_auroc"].tolist()), "not the same test images"

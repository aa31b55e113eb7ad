# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 07 · How good are they where they were trained?
#
# **Question.** How well does each detector find and locate defects when nothing has shifted, and how sure can we be?
#
# **Reads** stored predictions (fits what is missing). **Writes** `clean_results.json`, its rows of `metrics.csv`,
# per-image decisions and thresholds to `outputs/<profile>/results/`.
#
# **Takes** seconds on stored predictions; no GPU. **Before this:** 04, 05, 06. **After:** 08, 11.
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/anomaly-shift-study/blob/v0.1.0/notebooks/07_evaluation_clean.ipynb)

# %% tags=["parameters"]
profile = "tiny"  # a file in configs/: tiny, folder (your own images) or mvtec
overrides = {}  # settings to change, e.g. {"evaluation.bootstrap_draws": 5000}
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

note = open_notebook("07_evaluation_clean", profile, overrides)
study, method = note.study, note.chosen(method)

# %% [markdown]
# ## The protocol
#
# Fitted on clean train, threshold from clean val, tested on clean test. Intervals are bootstrap percentiles: images
# are redrawn within the good ones and within the defects, those that calibrate the threshold included. For pixel
# metrics the pixels of an image stay together.

# %%
from nbhelpers.analyses.all import run_scenario
from nbhelpers.results import views

results = run_scenario(study, "clean")
note.show(views.with_intervals(results, ["image_auroc", "image_ap", "f1", "recall", "specificity"]), "image_metrics")

# %% [markdown]
# One row per method and category; `macro` is the mean over the categories. Each cell is a value and its 95 %
# interval. AUROC and AP say how well images are ranked, the others what the threshold made of the ranking: recall is
# the share of defects that are flagged, specificity the share of good images that are not. Two intervals that overlap
# widely are not a difference.
#
# F1 alone flatters: calling everything a defect already reaches `trivial_f1`. `f1_max` is what the best threshold on
# the test images would have given.

# %%
note.show(views.with_intervals(results, ["trivial_f1", "f1", "f1_max"]), "f1")

# %% [markdown]
# An `f1` whose interval contains `trivial_f1` is not shown to be better than no detector at all. The gap from `f1` to
# `f1_max` is the price of calibrating on few images.
#
# ## Do they point at the defect?
#
# AUPRO gives every defect region the same weight, however small, up to a false positive rate of 0.3 (and of 0.05).
# AUPIMO is each defect image's recall at false positive rates from 1e-5 to 1e-4, set by the good images alone; here
# its mean.

# %%
note.show(views.with_intervals(results, ["pixel_auroc", "pixel_ap", "aupro", "aupro_005", "aupimo"]), "pixel_metrics",
          empty="no category has masks")

# %% [markdown]
# From left to right the columns become stricter. A pixel AUROC near 1 is easy to reach, since nearly all pixels are
# good and far from any defect; the last column allows one false pixel in ten thousand. A category without masks has
# no row.

# %%
from nbhelpers.figures import scores

there = [name for name in ("image_auroc", "f1", "pixel_auroc", "aupro") if name in set(results.metric)]
note.save(scores.plot_metric_bars(results, there), "metrics")

# %% [markdown]
# The same numbers as bars; the whiskers are the intervals. Where they are long, the test set is small.
#
# ## Ranking and operating point
#
# The curves rank images; the dots are what the thresholds from validation make of them.

# %%
tested, thresholds = note.tested("clean"), note.thresholds("clean")
note.save(scores.plot_roc_pr(tested, thresholds), "roc_pr")
note.save(scores.plot_confusions(tested[method], thresholds[method]), f"{method}_confusions")

# %% [markdown]
# A dot in the upper left corner of a ROC curve is a good threshold on a good ranking. A dot far down the curve has a
# good ranking and a threshold that does not use it. The tables below the curves count the same decisions for one
# method.
#
# ## Is one method better?
#
# Tests on the same images: DeLong's (ranking), sign flips of AUPIMO image by image (localisation), and McNemar's
# (decisions); the p values are adjusted by Holm over the categories. The difference is the first method minus the
# second.

# %% tags=["trained"]
from nbhelpers.analyses.method_tests import compare

if len(study.config.methods) > 1:
    pairs = views.printed(compare(study, "clean"))
    pairs = pairs[pairs.metric.isin(["image_auroc", "p_delong_holm", "p_permutation_holm", "p_mcnemar_holm"])]
    note.show(pairs.pivot(index=["method", "category"], columns="metric", values="value"), "method_tests")

# %% [markdown]
# A p value below 0.05 is a difference that chance does not explain; above it, no difference is shown, which is not
# the same as being equal. The first number column is how much the image AUROC differs.
#
# ## Are scores probabilities?
#
# Raw scores are distances. A sigmoid that is fitted on validation (Platt) turns them into probabilities at the test
# split's share of defects.

# %%
from nbhelpers.evaluation.calibration import platt, reliability_table

val = {name: {c: study.predictions(name, c, fitted_on="clean", domain="clean", split="val") for c in study.categories}
       for name in tested}
sigmoids = {name: {c: platt(part.labels, part.image_scores) for c, part in own.items()} for name, own in val.items()}
said = {name: {c: sigmoids[name][c].probabilities(part.image_scores, prior=part.labels.mean())
               for c, part in own.items()} for name, own in tested.items()}
bins = {name: {c: reliability_table(part.labels, said[name][c], bins=5) for c, part in own.items()}
        for name, own in tested.items()}
note.save(scores.plot_reliability(bins), "reliability")
note.show(views.with_intervals(results, ["ece"]), "ece")

# %% [markdown]
# A point on the diagonal is a bin whose defects are as frequent as its probability says. With some dozens of images a
# bin holds few of them, as its whiskers show. ECE is the mean distance from the diagonal: 0 is perfect.
#
# ## Scores
#
# How far apart good and defect images lie, for each category on its own, since their units differ.

# %%
import pandas as pd

from nbhelpers.evaluation.bootstrap import score_summary

summary = {name: score_summary(part.labels, part.image_scores) for name, part in tested[method].items()}
columns = ["good_n", "good_mean", "good_std", "defect_n", "defect_mean", "defect_std", "separation", "ks"]
note.show(pd.DataFrame(summary).T.rename_axis("category")[columns], f"{method}_scores", digits=1)
note.save({name: scores.plot_scores({f"{name}, clean test": part}, thresholds[method][name])
           for name, part in tested[method].items()}, f"{method}_scores")

# %% [markdown]
# `separation` is the distance of the two means in standard deviations, and `ks` the largest gap between the two
# distributions, 1 at most. In the figures, look whether the defects left of the line form a group of their own: then
# a type of defect is missed, and notebook 12 says which.
#
# ## The hardest images
#
# The defects with the lowest scores, then the good images with the highest. A red title is a wrong decision.

# %%
note.save(note.hardest("clean", method, label=1), f"{method}_hardest_defects")

# %% [markdown]
# A missed defect whose map is dark inside the outline was not seen at all; one whose map is bright there was seen,
# and its threshold is too high.

# %%
note.save(note.hardest("clean", method, label=0), f"{method}_hardest_good")

# %% [markdown]
# In good images, a bright spot is a normal part that the training images do not have.
#
# ## What we found
#
# Computed from `metrics.csv` of this run and of the study on real images:

# %%
from nbhelpers.report import sentences

note.tell(sentences.levels, "clean", "image_auroc", "Where it was trained,")
note.beside("clean", ["image_auroc", "aupro", "f1", "specificity"])

# %% [markdown]
# Two methods whose intervals overlap are not ranked by this study. Where the real images give narrower intervals than
# this run, believe them.

# %%
auroc = results[(results.metric == "image_auroc") & (results.method == method) & ~results.macro]
assert (auroc.ci_high > 0.5).all(), "surely worse than chance on clean images: are the labels flipped?"
assert (auroc.ci_low <= auroc.ci_high).all(), "an interval is upside down"

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
# **Takes** seconds on stored predictions; no GPU. **Before this:** 04, 05. **After:** 08, 11.
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
import pandas as pd

from nbhelpers.analyses.all import run_scenario, write_metrics
from nbhelpers.analyses.method_tests import compare
from nbhelpers.analyses.scenarios import evaluate_cell, tested
from nbhelpers.evaluation.bootstrap import score_summary
from nbhelpers.evaluation.calibration import platt, reliability_table
from nbhelpers.figures.images import hardest, plot_anomaly_maps, shared_limits
from nbhelpers.figures.scores import (
    plot_confusions,
    plot_metric_bars,
    plot_reliability,
    plot_roc_pr,
    plot_scores,
)
from nbhelpers.figures.style import save_figure, use_style
from nbhelpers.results.views import printed, with_intervals
from nbhelpers.study import open_study

NOTEBOOK, SCENARIO = "07_evaluation_clean", "clean"
study = open_study(profile, overrides)
method = method if method in study.config.methods else study.config.methods[0]
use_style()
study.describe()

# %% [markdown]
# ## The protocol
#
# Fitted on clean train, threshold from clean val, tested on clean test. Intervals are bootstrap percentiles: images
# are redrawn within good and within defect, those that calibrate the threshold too; for pixel metrics an image's pixels
# stay together.

# %%
results = run_scenario(study, SCENARIO)
cells = {name: evaluate_cell(study, SCENARIO, method, name) for name in study.categories}
print(with_intervals(results, ["image_auroc", "image_ap", "f1", "recall", "specificity"]).to_string())

# %% [markdown]
# F1 alone flatters: calling everything anomalous already reaches `trivial_f1`. `f1_max` is what the best threshold
# on the test images would have given; the gap to `f1` is the price of calibrating on few images.

# %%
print(with_intervals(results, ["trivial_f1", "f1", "f1_max"]).to_string())

# %% [markdown]
# ## Do they point at the defect?
#
# AUPRO weighs every defect region alike, however small, up to a false positive rate of 0.3 (and 0.05). AUPIMO is each
# defect image's recall at false positive rates from 1e-5 to 1e-4, set by the good images alone; here its mean.

# %%
print(with_intervals(results, ["pixel_auroc", "pixel_ap", "aupro", "aupro_005", "aupimo"]).to_string())
print("\n".join(f"{name}: pixel metrics skipped, {cell['pixel_skipped']}" for name, cell in cells.items()
                if cell["pixel_skipped"]) or "every category has masks")

# %%
metrics = [name for name in ("image_auroc", "f1", "pixel_auroc", "aupro") if name in set(results.metric)]
fig = plot_metric_bars(results, metrics)
_ = save_figure(fig, study.figure_path(NOTEBOOK, "metrics"))

# %% [markdown]
# ## Ranking and operating point
#
# The curves rank images; the dots are what the thresholds from validation make of them.

# %%
parts = {m: {name: tested(study, SCENARIO, m, name) for name in study.categories}
         for m in study.config.methods}
deployed = {m: {name: evaluate_cell(study, SCENARIO, m, name)["threshold"]["value"] for name in study.categories}
            for m in study.config.methods}
tested, thresholds = parts[method], deployed[method]
fig = plot_roc_pr(parts, deployed)
_ = save_figure(fig, study.figure_path(NOTEBOOK, "roc_pr"))

# %%
fig = plot_confusions(tested, thresholds)
_ = save_figure(fig, study.figure_path(NOTEBOOK, f"{method}_confusions"))

# %% [markdown]
# ## Is one method better?
#
# Tests on the same images: DeLong (ranking), sign flips of AUPIMO image by image (localisation), McNemar (decisions);
# p values adjusted by Holm over the categories. The difference is the first method minus the second.

# %% tags=["trained"]
tests = compare(study, SCENARIO) if len(study.config.methods) > 1 else None
if tests is not None:
    shown = printed(tests)
    shown = shown[shown.metric.isin(["image_auroc", "p_delong_holm", "p_permutation_holm", "p_mcnemar_holm"])]
    print(shown.pivot(index=["method", "category"], columns="metric", values="value").round(2).to_string())

# %% [markdown]
# ## Are scores probabilities?
#
# Raw scores are distances. A sigmoid fitted on validation (Platt) turns them into probabilities at the test split's
# share of defects; a point on the diagonal is a bin whose defects are as frequent as was said. With some dozens of
# images a bin holds few, as its whiskers show.

# %%
tables = {}
for m, own in parts.items():
    vals = {name: study.predictions(m, name, fitted_on="clean", domain="clean", split="val") for name in own}
    said = {name: platt(vals[name].labels, vals[name].image_scores).probabilities(part.image_scores,
            prior=part.labels.mean()) for name, part in own.items()}
    tables[m] = {name: reliability_table(part.labels, said[name], bins=5) for name, part in own.items()}
fig = plot_reliability(tables)
_ = save_figure(fig, study.figure_path(NOTEBOOK, "reliability"))
print(with_intervals(results, ["ece"]).to_string())

# %% [markdown]
# ## Scores
#
# How far apart good and defect images lie, per category (never pooled: units differ from category to category).

# %%
scores = {name: score_summary(part.labels, part.image_scores) for name, part in tested.items()}
print(pd.DataFrame(scores).T.round(1).to_string())

# %%
figures = {name: plot_scores({f"{name}, clean test": part}, thresholds[name]) for name, part in tested.items()}
_ = [save_figure(fig, study.figure_path(NOTEBOOK, f"{method}_{name}_scores")) for name, fig in figures.items()]

# %% [markdown]
# ## The hardest images
#
# The defects with the lowest scores, and the good images with the highest. A red title is a wrong decision.

# %%
limits = {name: shared_limits(part) for name, part in tested.items()}
tests = {name: study.split(name)["test"] for name in study.categories}
figures = {name: plot_anomaly_maps(hardest(tests[name], part, thresholds[name], 6, label=1), part, limits[name],
                                   thresholds[name]) for name, part in tested.items()}
_ = [save_figure(fig, study.figure_path(NOTEBOOK, f"{method}_{name}_hardest_defects")) for name, fig in figures.items()]

# %%
figures = {name: plot_anomaly_maps(hardest(tests[name], part, thresholds[name], 6, label=0), part, limits[name],
                                   thresholds[name]) for name, part in tested.items()}
_ = [save_figure(fig, study.figure_path(NOTEBOOK, f"{method}_{name}_hardest_good")) for name, fig in figures.items()]

# %% [markdown]
# ## What we found
#
# Read from the table, with intervals; two categories whose intervals overlap are not ranked by this study.

# %%
write_metrics(study)
auroc = results[(results.metric == "image_auroc") & (results.method == method) & ~results.macro]
print("\n".join(f"{r.category}: image AUROC {r.value:.2f} [{r.ci_low:.2f}, {r.ci_high:.2f}] on {r.n_images} images"
                for r in auroc.itertuples()))
assert (auroc.ci_high > 0.5).all(), "surely worse than chance on clean images: are the labels flipped?"
assert (auroc.ci_low <= auroc.ci_high).all(), "an interval is upside down"

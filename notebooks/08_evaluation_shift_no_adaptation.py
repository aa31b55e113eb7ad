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
# **Takes** seconds on stored predictions; no GPU. **Before this:** 03, 04, 05, 07.
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
import pandas as pd

from nbhelpers.analyses.all import run_scenario, write_metrics
from nbhelpers.analyses.differences import difference
from nbhelpers.analyses.scenarios import evaluate_cell, tested
from nbhelpers.figures.images import (
    hardest,
    one_of_each,
    plot_anomaly_maps,
    plot_worlds,
    shared_limits,
)
from nbhelpers.figures.scores import plot_confusions, plot_roc_pr, plot_scenario_change, plot_scores
from nbhelpers.figures.style import save_figure, use_style
from nbhelpers.files import write_csv
from nbhelpers.results.views import with_intervals
from nbhelpers.study import open_study

NOTEBOOK, SCENARIO = "08_evaluation_shift_no_adaptation", "no_adaptation"
study = open_study(profile, overrides)
method = method if method in study.config.methods else study.config.methods[0]
use_style()
study.describe()

# %% [markdown]
# ## The protocol
#
# Fitted on clean train, threshold from clean val, tested on the shifted twins of the test images. Nothing is adapted.

# %%
before, after = run_scenario(study, "clean"), run_scenario(study, SCENARIO)
print(with_intervals(after, ["image_auroc", "f1", "recall", "specificity", "pixel_auroc", "aupro"]).to_string())

# %% [markdown]
# ## What did the shift cost?
#
# Each shifted image has its clean twin, so differences are taken pair by pair: both are redrawn together. An interval
# that excludes 0 is a change; one that does not is not evidence of none.

# %%
change = difference(study, "clean", SCENARIO)
write_csv(study.config.output_dir / "results" / NOTEBOOK / "degradation.csv", change)
print(with_intervals(change, ["image_auroc", "f1", "recall", "specificity", "aupro"]).to_string())

# %%
both = pd.concat([before, after])
both = both[both.method == method]
metrics = [name for name in ("image_auroc", "recall", "specificity", "aupro") if name in set(both.metric)]
fig = plot_scenario_change(both, metrics, ["clean", SCENARIO])
_ = save_figure(fig, study.figure_path(NOTEBOOK, f"{method}_clean_to_shift"))

# %% [markdown]
# ## The same parts in both worlds
#
# Two defects of each category, clean and shifted, with their anomaly maps on one colour scale a category. Where a
# shifted map glows outside the outline, the shift looks like a defect; a mirrored border is part of the shift.

# %%
clean = {name: tested(study, "clean", method, name) for name in study.categories}
shifted = {name: tested(study, SCENARIO, method, name) for name in study.categories}
cells = {name: evaluate_cell(study, SCENARIO, method, name) for name in study.categories}
thresholds = {name: cell["threshold"]["value"] for name, cell in cells.items()}
tests = {name: study.split(name, "shift")["test"] for name in study.categories}
limits = {name: shared_limits(clean[name], shifted[name]) for name in study.categories}
twins = {name: dict(zip(clean[name].ids, tests[name], strict=True)) for name in study.categories}
shown = [(sample, clean[name], twins[name][sample.id], shifted[name], limits[name])
         for name in study.categories for sample in one_of_each(study.split(name)["test"], 2)]
fig = plot_worlds(shown)
_ = save_figure(fig, study.figure_path(NOTEBOOK, f"{method}_both_worlds"))

# %% [markdown]
# ## Why: scores move, the threshold does not

# %%
figures = {name: plot_scores({f"{name}, clean test": clean[name], f"{name}, shifted test": shifted[name]},
                             thresholds[name]) for name in study.categories}
_ = [save_figure(fig, study.figure_path(NOTEBOOK, f"{method}_{name}_scores")) for name, fig in figures.items()]

# %% [markdown]
# ## Ranking and operating point under the shift

# %%
parts = {m: {name: tested(study, SCENARIO, m, name) for name in study.categories}
         for m in study.config.methods}
deployed = {m: {name: evaluate_cell(study, SCENARIO, m, name)["threshold"]["value"] for name in study.categories}
            for m in study.config.methods}
fig = plot_roc_pr(parts, deployed)
_ = save_figure(fig, study.figure_path(NOTEBOOK, "roc_pr"))

# %%
fig = plot_confusions(shifted, thresholds)
_ = save_figure(fig, study.figure_path(NOTEBOOK, f"{method}_confusions"))

# %% [markdown]
# ## The false alarms
#
# Shifted good images with the highest scores, on the colour scale of the clean ones: where does the shift look like a
# defect?

# %%
figures = {name: plot_anomaly_maps(hardest(tests[name], part, thresholds[name], 6, label=0), part, limits[name],
                                   thresholds[name]) for name, part in shifted.items()}
_ = [save_figure(fig, study.figure_path(NOTEBOOK, f"{method}_{name}_false_alarms")) for name, fig in figures.items()]

# %% [markdown]
# ## The misses
#
# Shifted defects with the lowest scores.

# %%
figures = {name: plot_anomaly_maps(hardest(tests[name], part, thresholds[name], 6, label=1), part, limits[name],
                                   thresholds[name]) for name, part in shifted.items()}
_ = [save_figure(fig, study.figure_path(NOTEBOOK, f"{method}_{name}_misses")) for name, fig in figures.items()]

# %% [markdown]
# Defects that the shift pushed out of the frame are left out of the pixel metrics, and counted here.

# %%
print({name: len(cell["left_out"]) for name, cell in cells.items()})

# %% [markdown]
# ## What we found
#
# Compare the loss in ranking (AUROC) with the loss at the operating point (specificity): a threshold can be moved
# back, a lost ranking cannot.

# %%
write_metrics(study)
own = change[(change.method == method) & change.metric.isin(["image_auroc", "specificity"]) & ~change.macro]
print("\n".join(f"{r.category}: {r.metric} {r.value:+.2f} [{r.ci_low:+.2f}, {r.ci_high:+.2f}]"
                for r in own.itertuples()))
assert (before.n_images[before.metric == "image_auroc"].tolist()
        == after.n_images[after.metric == "image_auroc"].tolist()), "not the same test images"

# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 10 · How much does refitting recover?
#
# **Question.** The model is fitted again on shifted images, and its threshold calibrated on shifted validation images.
# How much of what the shift cost comes back, beyond what a new threshold gave, and what stays lost?
#
# **Reads** stored predictions (fits what is missing). **Writes** `shift_with_adaptation_results.json`, its rows of
# `metrics.csv` and the recovery tables to `outputs/<profile>/results/`.
#
# **Takes** seconds on stored predictions; no GPU. **Before this:** 04, 05, 09. **After:** 12.
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/anomaly-shift-study/blob/v0.1.0/notebooks/10_full_adaptation.ipynb)

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
from nbhelpers.analyses.differences import difference, recovered
from nbhelpers.analyses.method_tests import compare
from nbhelpers.analyses.scenarios import evaluate_cell, tested
from nbhelpers.figures.comparisons import SHIFT_PATH, plot_differences, plot_scenario_lines
from nbhelpers.figures.images import one_of_each, plot_before_and_after, shared_limits
from nbhelpers.figures.scores import plot_roc_pr
from nbhelpers.figures.style import save_figure, use_style
from nbhelpers.files import write_csv
from nbhelpers.results.numbers import Results
from nbhelpers.results.views import printed, qualified, with_intervals
from nbhelpers.scenarios import COMPARISONS
from nbhelpers.study import open_study

NOTEBOOK, SCENARIO = "10_full_adaptation", "full_adaptation"
study = open_study(profile, overrides)
method = method if method in study.config.methods else study.config.methods[0]
use_style()
study.describe()

# %% [markdown]
# ## The protocol
#
# Fitted on shifted train, threshold from shifted val, tested on the shifted twins of the test images: all that can be
# done with labels of the new domain.

# %%
results = {name: run_scenario(study, name) for name in SHIFT_PATH}
print(with_intervals(results[SCENARIO], ["image_auroc", "f1", "recall", "specificity", "aupro"]).to_string())

# %% [markdown]
# ## From scenario to scenario
#
# Bands are bootstrap intervals. Between `no adaptation` and `threshold only` the ranking cannot move.

# %%
metrics = [name for name in ("image_auroc", "aupro", "recall", "specificity")
           if name in set(results[SCENARIO].metric)]
fig = plot_scenario_lines(Results(pd.concat(results.values())), metrics)
_ = save_figure(fig, study.figure_path(NOTEBOOK, "scenarios"))

# %% [markdown]
# ## Degradation, contributions, and what stays lost
#
# Paired: every image and its shifted twin are redrawn together. A whisker that crosses 0 leaves it open whether there
# is a difference.

# %%
steps = [pair for pair in COMPARISONS if set(pair) <= set(SHIFT_PATH)]
changes = pd.concat([difference(study, *pair) for pair in steps])
write_csv(study.config.output_dir / "results" / NOTEBOOK / "differences.csv", changes)
for metric in ("image_auroc", "specificity"):
    fig = plot_differences(Results(pd.concat([*results.values(), changes])), metric)
    _ = save_figure(fig, study.figure_path(NOTEBOOK, f"differences_{metric}"))

# %%
model = changes[(changes.scenario == SCENARIO) & (changes.against == "threshold_only")]
print(with_intervals(model, ["image_auroc", "f1", "specificity", "balanced_accuracy", "aupro"]).to_string())

# %% [markdown]
# ## What share of the loss comes back?
#
# Given only where the loss is one (its paired interval lies below 0): a share of a loss that may be none means nothing.
# 1 is all of it, 0 nothing, below 0 it got worse.

# %% tags=["nbval-ignore-output"]
shares = recovered(study)
write_csv(study.config.output_dir / "results" / NOTEBOOK / "recovered.csv", shares)
table = qualified(shares, "metric", ["recovered_share"], interval=True)
print(table.pivot(index=["method", "category", "metric"], columns="scenario", values="recovered_share")
      .fillna("-").to_string() if len(table) else "nothing was surely lost, so there is nothing to recover")
ranking = (shares.detail_value == "image_auroc") & (shares.scenario == "threshold_only")
assert (shares[ranking].value == 0).all(), "a threshold moved the ranking"

# %% [markdown]
# ## Is one method better than another?
#
# On the same images: DeLong's test of the ranking, sign flips of AUPIMO image by image, McNemar's test of the
# decisions; p values adjusted by Holm over all categories. Below 0.05 the methods differ there; above it this study
# does not tell them apart.

# %% tags=["trained"]
tests = compare(study, *SHIFT_PATH) if len(study.config.methods) > 1 else None
if tests is not None:
    write_csv(study.config.output_dir / "results" / NOTEBOOK / "method_tests.csv", tests)
    shown = printed(tests)
    shown = shown[shown.metric.isin(["image_auroc", "p_delong_holm", "p_permutation_holm", "p_mcnemar_holm"])]
    print(shown.pivot(index=["method", "scenario", "category"], columns="metric", values="value")
          .reindex(SHIFT_PATH, level="scenario").round(2).to_string())

# %% [markdown]
# ## Ranking and operating point after refitting

# %%
cells = {m: {name: evaluate_cell(study, SCENARIO, m, name) for name in study.categories}
         for m in study.config.methods}
parts = {m: {name: tested(study, SCENARIO, m, name) for name in study.categories} for m in study.config.methods}
fig = plot_roc_pr(parts, {m: {n: cell["threshold"]["value"] for n, cell in own.items()} for m, own in cells.items()})
_ = save_figure(fig, study.figure_path(NOTEBOOK, "roc_pr"))

# %% [markdown]
# ## The same shifted parts, before and after
#
# Two defects of each category: the shifted image, the clean model's map, the refitted model's map. Each model has its
# own colour scale a category, since its scores have their own unit.

# %%
old = {name: tested(study, "no_adaptation", method, name) for name in study.categories}
limits = {name: [shared_limits(old[name]), shared_limits(parts[method][name])] for name in study.categories}
columns = [(sample, old[name], limits[name][0], parts[method][name], limits[name][1]) for name in study.categories
           for sample in one_of_each(study.split(name, "shift")["test"], 2)]
fig = plot_before_and_after(columns)
_ = save_figure(fig, study.figure_path(NOTEBOOK, f"{method}_before_and_after"))

# %% [markdown]
# ## What we found
#
# What refitting adds beyond a new threshold, and what even refitting leaves lost.

# %%
write_metrics(study)
for before, after in (("threshold_only", SCENARIO), ("clean", SCENARIO)):
    own = changes[(changes.scenario == after) & (changes.against == before) & changes.macro
                  & (changes.metric == "image_auroc")]
    print("\n".join(f"{COMPARISONS[before, after]}: {r.method} {r.value:+.2f} [{r.ci_low:+.2f}, {r.ci_high:+.2f}] "
                    "image AUROC on average over categories" for r in own.itertuples()))
auroc = changes[changes.metric == "image_auroc"]
total = auroc.pivot(index=["method", "category"], columns=["against", "scenario"], values="value")
gap = total[steps[:3]].sum(axis=1) - total["clean", SCENARIO]
assert gap.abs().max() < 1e-9, "the steps do not add up"

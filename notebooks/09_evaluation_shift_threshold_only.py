# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 09 · How much was only the threshold?
#
# **Question.** The model stays as it was; its threshold is calibrated again on shifted validation images. How much of
# the loss does that give back, which rule is best, and which promises about false alarms hold?
#
# **Reads** stored predictions (fits what is missing).
# **Writes** `shift_threshold_only_results.json`, its rows of `metrics.csv` and the threshold tables to
# `outputs/<profile>/results/`.
#
# **Takes** seconds on stored predictions; no GPU. **Before this:** 04, 05, 08.
# **After:** 10.
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/anomaly-shift-study/blob/v0.1.0/notebooks/09_evaluation_shift_threshold_only.ipynb)

# %% tags=["parameters"]
profile = "tiny"  # a file in configs/: tiny, folder (your own images) or mvtec
overrides = {}  # settings to change, e.g. {"evaluation.threshold_rule": "mad"}
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

from nbhelpers.analyses import thresholds
from nbhelpers.analyses.all import run_scenario, write_metrics
from nbhelpers.analyses.differences import difference
from nbhelpers.analyses.scenarios import evaluate_cell, tested
from nbhelpers.evaluation.thresholds.conformal import min_calibration
from nbhelpers.evaluation.thresholds.rules import CALIBRATED_RULES, RULES
from nbhelpers.figures.comparisons import (
    plot_promised_and_realised,
    plot_recalibration,
    plot_rules,
    plot_threshold_transfer,
)
from nbhelpers.figures.scores import plot_scores
from nbhelpers.figures.style import save_figure, use_style
from nbhelpers.files import write_csv
from nbhelpers.results.numbers import Results
from nbhelpers.results.views import qualified, with_intervals
from nbhelpers.study import open_study

NOTEBOOK, SCENARIO = "09_evaluation_shift_threshold_only", "threshold_only"
study = open_study(profile, overrides)
method = method if method in study.config.methods else study.config.methods[0]
use_style()
study.describe()

# %% [markdown]
# ## The protocol
#
# Fitted on clean train, threshold from *shifted* val, tested on the shifted twins of the test images. The scores are
# those of 08, so whatever needs no threshold is the same to the last digit, and that is asserted.

# %%
before, after = run_scenario(study, "no_adaptation"), run_scenario(study, SCENARIO)
free = ["image_auroc", "image_ap", "f1_max", "pixel_auroc", "pixel_ap", "pixel_f1", "aupro", "aupro_005", "aupimo"]
same = [table[table.metric.isin(free)].set_index(["method", "category", "metric"])[["value", "ci_low", "ci_high"]]
        for table in (before, after)]
assert same[0].equals(same[1]), "a threshold-free metric differs though the scores are the same"
print(with_intervals(after, ["f1", "recall", "specificity", "balanced_accuracy"]).to_string())

# %% [markdown]
# ## What does a new threshold give back?
#
# Pair by pair on the same images; both calibration sets and the test set are redrawn. An interval that excludes 0 is a
# change; one that does not is not evidence of none.

# %%
change = difference(study, "no_adaptation", SCENARIO)
write_csv(study.config.output_dir / "results" / NOTEBOOK / "threshold_contribution.csv", change)
print(with_intervals(change, ["f1", "recall", "specificity", "balanced_accuracy"]).to_string())

# %%
cells = {name: [evaluate_cell(study, s, method, name) for s in ("no_adaptation", SCENARIO)]
         for name in study.categories}
shown = {name: tested(study, SCENARIO, method, name) for name in study.categories}
figures = {name: plot_scores({f"{name}, shifted test": part}, cells[name][1]["threshold"]["value"],
                             cells[name][0]["threshold"]["value"]) for name, part in shown.items()}
_ = [save_figure(fig, study.figure_path(NOTEBOOK, f"{method}_{name}_scores")) for name, fig in figures.items()]

# %% [markdown]
# ## The threshold-transfer matrix
#
# A threshold calibrated on one domain, applied in the other: false alarms on the left, misses on the right. AUROC does
# not see any of this.

# %%
transfer = thresholds.transfer_part(study).rows()
write_csv(study.config.output_dir / "results" / NOTEBOOK / "threshold_transfer.csv", transfer)
fig = plot_threshold_transfer(Results(transfer), "transfer")
_ = save_figure(fig, study.figure_path(NOTEBOOK, "threshold_transfer"))

# %% [markdown]
# ## Twenty ways to a threshold
#
# What each rule needs, in its own words. Rules for good images need no defects to be calibrated; `otsu` needs no labels
# and splits anything in two; `youden` and `balanced_accuracy` are one rule under two names.

# %%
print("\n".join(f"{name:<18} {RULES[name].needs:<10} {RULES[name].description}" for name in CALIBRATED_RULES))

# %%
judged = {name: thresholds.rules(study, name) for name in study.config.scenarios}
fig = plot_rules(Results(pd.concat(judged.values())))
_ = save_figure(fig, study.figure_path(NOTEBOOK, "rules"))

# %% [markdown]
# Balanced accuracy on test, mean over categories; an empty cell is a rule that refused (conformal ones refuse when the
# good calibration images are too few for their promise). In figures, for this scenario: all rules on test, and how
# many categories they are degenerate in (all good images flagged, no defect found, or no better than chance on val).

# %%
own = judged[SCENARIO]
table = qualified(own[own.macro], "rule", ["balanced_accuracy", "f1", "recall", "specificity"])
print(table.drop(columns="category").round(2).to_string(index=False))

# %%
flags = qualified(own[~own.macro], "rule", ["degenerate"])
flags = flags[(flags.degenerate > 0) & (flags.method == method)]
print(flags.groupby("rule").category.agg(list).to_string() if len(flags) else "no rule is degenerate")

# %% [markdown]
# Three recommendations from all rules together: the 75th, 50th and 25th percentile of their thresholds.

# %%
advice = {name: thresholds.recommended(study, SCENARIO, method, name) for name in study.categories}
print(pd.concat(advice, names=["category"]).droplevel(1).drop(columns="threshold").round(2).to_string())

# %% [markdown]
# ## False alarms: promised and realised
#
# A conformal threshold promises a false alarm rate, for images like those that calibrated it. Split conformal uses the
# good validation images; CV+ uses every good training image as well, each scored by a refit that did not see it, and so
# can promise less. The promise needs at least 1/rate - 1 images. Bars are Clopper-Pearson intervals on the good test
# images; a shift breaks the promise, whatever calibrated it.

# %%
print({f"{target:.0%}": f"at least {min_calibration(target)} good images" for target in
       study.config.evaluation.target_fprs})
promises = thresholds.promises(study, *(name for name in study.config.scenarios if "global" not in name))
fig = plot_promised_and_realised(Results(promises))
_ = save_figure(fig, study.figure_path(NOTEBOOK, "promised_and_realised"))

# %% [markdown]
# How many good images of the new domain mend it? Drawn again and again from the shifted validation images; 0 keeps the
# clean threshold.

# %%
mending = thresholds.mending_part(study).rows()
fig = plot_recalibration(Results(mending))
_ = save_figure(fig, study.figure_path(NOTEBOOK, "recalibration"))

# %% [markdown]
# ## A threshold for each zone of the image?
#
# Pixel F1 with 3 x 3 thresholds, one a zone, against one for the whole image: the same percentile of the good
# validation pixels.

# %%
zones = qualified(thresholds.zones_part(study, SCENARIO).rows(), "thresholds", ["pixel_f1"])
print(zones.pivot(index=["method", "category"], columns="thresholds", values="pixel_f1").round(2).to_string()
      if len(zones) else "no masks, so no pixel F1")

# %% [markdown]
# ## What we found
#
# A threshold can be moved back, a lost ranking cannot: where recall and specificity cannot both be had, no rule helps.

# %%
write_metrics(study)
own = change[change.macro & change.metric.isin(["specificity", "recall"])]
print("\n".join(f"{r.method}: {r.metric} {r.value:+.2f} [{r.ci_low:+.2f}, {r.ci_high:+.2f}] on average over categories"
                for r in own.itertuples()))
assert (change[change.metric == "image_auroc"].value == 0).all(), "the ranking changed without a new model"

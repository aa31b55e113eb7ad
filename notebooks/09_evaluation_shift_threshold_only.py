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
# **Reads** stored predictions (fits what is missing). **Writes** `shift_threshold_only_results.json`, its rows of
# `metrics.csv` and the threshold tables to `outputs/<profile>/results/`.
#
# **Takes** seconds on stored predictions; no GPU. **Before this:** 04, 05, 06, 08. **After:** 10.
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
from nbhelpers.notebook import open_notebook

note = open_notebook("09_evaluation_shift_threshold_only", profile, overrides)
study, method = note.study, note.chosen(method)

# %% [markdown]
# ## The protocol
#
# Fitted on clean train, threshold from *shifted* val, tested on the shifted twins of the test images. The scores are
# those of notebook 08, so whatever needs no threshold must be the same to the last digit.

# %%
from nbhelpers.analyses.all import run_scenario
from nbhelpers.results import views

before, after = run_scenario(study, "no_adaptation"), run_scenario(study, "threshold_only")
free = ["image_auroc", "image_ap", "f1_max", "pixel_auroc", "pixel_ap", "pixel_f1", "aupro", "aupro_005", "aupimo"]
same = [table[table.metric.isin(free)].set_index(["method", "category", "metric"])[["value", "ci_low", "ci_high"]]
        for table in (before, after)]
assert same[0].equals(same[1]), "a threshold-free metric differs though the scores are the same"
note.show(views.with_intervals(after, ["f1", "recall", "specificity", "balanced_accuracy"]), "metrics")

# %% [markdown]
# Balanced accuracy is the mean of recall and specificity; 0.5 is what a coin reaches.
#
# ## What does a new threshold give back?
#
# Pair by pair on the same images; both calibration sets and the test set are redrawn.

# %%
from nbhelpers.analyses.differences import difference

change = difference(study, "no_adaptation", "threshold_only")
note.write(change, "threshold_contribution")
note.show(views.with_intervals(change, ["f1", "recall", "specificity", "balanced_accuracy"]),
          "threshold_contribution_wide")

# %% [markdown]
# New threshold minus old one. A threshold that moves up wins specificity and loses recall, so look at the last
# column: it rises only where the exchange was worth it. An interval that contains 0 leaves that open.

# %%
from nbhelpers.figures import comparisons, scores

old, new = note.thresholds("no_adaptation")[method], note.thresholds("threshold_only")[method]
note.save({name: scores.plot_scores({f"{name}, shifted test": part}, new[name], old[name])
           for name, part in note.tested("threshold_only")[method].items()}, f"{method}_scores")

# %% [markdown]
# The dotted line is the threshold before, the dashed one after. Where good and defect images lie on top of each
# other, the line can be put anywhere and will cut both groups.
#
# ## The threshold-transfer matrix
#
# A threshold that was calibrated on one domain, applied in the other: false alarms on the left, misses on the right.

# %%
from nbhelpers.analyses import thresholds
from nbhelpers.results.numbers import Results

transfer = thresholds.transfer_part(study).rows()
note.write(transfer, "threshold_transfer")
note.save(comparisons.plot_threshold_transfer(Results(transfer), "transfer"), "threshold_transfer")

# %% [markdown]
# Cells on the diagonal are at home. The cell for the clean threshold on shifted images is what happens when nobody
# recalibrates. AUROC does not see any of this.
#
# ## Twenty ways to a threshold
#
# What each rule needs and does. Rules for good images need no defects to be calibrated.

# %%
import pandas as pd

from nbhelpers.evaluation.thresholds import conformal, rules

described = pd.DataFrame([(name, rules.RULES[name].needs, rules.RULES[name].description)
                          for name in rules.CALIBRATED_RULES], columns=["rule", "needs", "what it does"])
note.write(described, "rules_described")
note.show(described[described.needs == "good"])

# %% [markdown]
# The others need defects as well, or take images without labels:

# %%
note.show(described[described.needs != "good"])

# %% [markdown]
# `otsu` needs no labels and splits anything in two, also images that are all good; `youden` and `balanced_accuracy`
# are one rule under two names. The next figure has the balanced accuracy on test of every rule in every scenario,
# mean over categories. An empty cell is a rule that refused: conformal ones refuse when the good calibration images
# are too few for their promise.

# %%
judged = {name: thresholds.rules(study, name) for name in study.config.scenarios}
note.save(comparisons.plot_rules(Results(pd.concat(judged.values()))), "rules")

# %% [markdown]
# Look along a row: a rule that is dark in all columns can be trusted in both worlds. In figures, for this scenario
# and one method, the best first; the CSV has all methods.

# %%
own = judged["threshold_only"]
wide = views.qualified(own[own.macro], "rule", ["balanced_accuracy", "f1", "recall", "specificity"])
note.write(wide, "rules")
best = wide[wide.method == method].drop(columns=["method", "category"])
note.show(best.sort_values("balanced_accuracy", ascending=False, kind="stable").head(10))

# %% [markdown]
# They were ranked on test images, so the first is not a recommendation. Rules that are degenerate somewhere, with the
# categories: all good images flagged, no defect found, or no better than chance on validation.

# %%
flags = views.qualified(own[~own.macro], "rule", ["degenerate"])
flags = flags[(flags.degenerate > 0) & (flags.method == method)]
note.show(flags.groupby("rule", sort=False).category.agg(", ".join), f"{method}_degenerate",
          empty="no rule is degenerate")

# %% [markdown]
# A rule that is degenerate in one category cannot be deployed unseen. Three recommendations that were made without
# test images are the 75th, 50th and 25th percentile of the thresholds of all rules:

# %%
advice = {name: thresholds.recommended(study, "threshold_only", method, name) for name in study.categories}
note.show(pd.concat(advice, names=["category"]).droplevel(1).drop(columns="threshold"), f"{method}_advice")

# %% [markdown]
# From conservative to aggressive, recall rises and specificity falls. How steep the exchange is depends on the
# ranking.
#
# ## False alarms: promised and realised
#
# A conformal threshold promises a false alarm rate, for images like those that calibrated it. Split conformal uses
# the good validation images; CV+ uses every good training image as well, each scored by a refit that did not see it,
# and so can promise less. The promise needs at least 1/rate - 1 images.

# %%
targets = study.config.evaluation.target_fprs
print("\n".join(f"{target:.0%} needs at least {conformal.min_calibration(target)} good images" for target in targets))
promises = thresholds.promises(study, *(name for name in study.config.scenarios if "global" not in name))
note.save(comparisons.plot_promised_and_realised(Results(promises)), "promised_and_realised")

# %% [markdown]
# Bars are Clopper-Pearson intervals on the good test images. A promise is contradicted where the whole bar lies above
# the dashed line. Clean images should keep it; shifted ones are not like those that calibrated it, and nothing was
# promised for them. How many good images of the new domain repair it? They are drawn again and again from the shifted
# validation images; 0 keeps the clean threshold.

# %%
repaired = thresholds.recalibration_part(study).rows()
note.save(comparisons.plot_recalibration(Results(repaired)), "recalibration")

# %% [markdown]
# A curve that falls to the dashed line has recovered what was promised. It needs no defects, only good images.
#
# ## A threshold for each zone of the image?
#
# Pixel F1 with 3 x 3 thresholds, one per zone, against one for the whole image: the same percentile of the good
# validation pixels.

# %%
zones = views.qualified(thresholds.zones_part(study, "threshold_only").rows(), "thresholds", ["pixel_f1"])
note.show(zones.pivot(index=["method", "category"], columns="thresholds", values="pixel_f1") if len(zones) else zones,
          "zones", empty="no masks, so no pixel F1")

# %% [markdown]
# Zones pay where normal images vary much more in one part of the picture than in another. They divide the calibration
# images among nine thresholds, so with few images they cost more than they give.
#
# ## What we found
#
# Computed from `metrics.csv` of this run and of the study on real images:

# %%
from nbhelpers.report import sentences

note.tell(sentences.change, "no_adaptation", "threshold_only", "specificity")
note.tell(sentences.change, "no_adaptation", "threshold_only", "balanced_accuracy")
note.beside("threshold_only", ["recall", "specificity", "balanced_accuracy"], against="no_adaptation")
assert (change[change.metric == "image_auroc"].value == 0).all(), "the ranking changed without a new model"

# %% [markdown]
# The table holds differences. A threshold can be moved back, a lost ranking cannot: where balanced accuracy shows no
# change, the new threshold exchanged misses for false alarms and won nothing.

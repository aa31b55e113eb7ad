# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 12 · Which defects are missed, and why?
#
# **Question.** Which images are judged wrongly? Are the missed defects of some type, small, near the border or pale?
# And which of them does no method find?
#
# **Reads** stored predictions (fits what is missing) and the masks. **Writes** all errors to
# `outputs/<profile>/results/errors/<scenario>.csv` and the tables below to `results/12_error_analysis/`.
#
# **Takes** seconds on stored predictions; no GPU. **Before this:** 07 to 11. **After:** 16.
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/anomaly-shift-study/blob/v0.1.0/notebooks/12_error_analysis.ipynb)

# %% tags=["parameters"]
profile = "tiny"  # a file in configs/: tiny, folder (your own images) or mvtec
overrides = {}  # settings to change, e.g. {"shift.severity": "severe"}
scenario = "threshold_only"  # whose errors are looked at: a row of the protocol, e.g. clean
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

note = open_notebook("12_error_analysis", profile, overrides)
study = note.study
method = study.config.methods[0]  # whose details are shown; the CSVs hold all methods

# %% [markdown]
# ## What goes wrong at the deployed threshold?
#
# A recall means little without the false alarms it costs, so both stand side by side.

# %%
from nbhelpers.analyses import misses

decisions, wrong = misses.decisions(study, scenario), misses.errors(study, scenario)
counts = decisions.groupby(["method", "category", "label"], sort=False).size().unstack()
counts = counts.rename(columns={0: "good", 1: "defect"}).rename_axis(columns=None)
kinds = wrong.groupby(["method", "category", "kind"]).size().unstack(fill_value=0)
counts = counts.join(kinds.reindex(counts.index, columns=["false_positive", "false_negative"], fill_value=0))
note.show(counts, f"{scenario}_counts")

# %% [markdown]
# `good` and `defect` are images, `false_positive` counts good ones that are flagged, `false_negative` defects that
# are missed. A threshold that calls everything defective misses nothing. The worst error of each kind, with its
# distance from the threshold as a share of the threshold:

# %% tags=["nbval-ignore-output"]
worst = wrong.groupby(["method", "category", "kind"], sort=False).head(1)
worst = worst.assign(share=worst.margin / (worst.score - worst.margin))
note.show(worst[["method", "category", "kind", "defect_type", "share"]], f"{scenario}_worst", digits=1)
assert ((wrong.margin >= 0) == (wrong.kind == "false_positive")).all(), "an error on the wrong side of its threshold"

# %% [markdown]
# A share near 0 is a near miss, which another calibration set would have decided otherwise; a share of 1 and more is
# an image that the method finds strange whatever the threshold. All errors are in `errors/<scenario>.csv`.
#
# ## Which types of defect?
#
# Recall of each type in each scenario, with Clopper-Pearson intervals.

# %%
import pandas as pd

from nbhelpers.figures import misses as plots

names = list(dict.fromkeys([*study.config.scenarios, scenario]))
recall = pd.concat([misses.errors_part(study, name).rows() for name in names])
note.write(recall, "recall")
note.save(plots.plot_recall_by_type(recall, names), "recall_by_type")

# %% [markdown]
# Compare a type across the panels of its category: does it get lost in the shift, and does an adaptation bring it
# back? With a handful of images per type the intervals are wide, and two that overlap do not show a difference. The
# scores behind it:

# %%
note.save(plots.plot_scores_by_type(decisions), f"{scenario}_scores_by_type")

# %% [markdown]
# Each tick is an image. A type is lost where its ticks lie among those of the good images, wherever the threshold
# stands. The same as numbers, at no threshold: the image AUROC of each type against the good images of its category
# (0.5 is chance), and how far the two distributions lie apart. The hardest types of one method, the hardest first:

# %%
separated = misses.separations(study, scenario)
note.write(separated, f"{scenario}_separation")
own = separated[separated.method == method].sort_values("image_auroc", kind="stable").head(10)
columns = [name for name in own if not name.endswith(("_low", "_high", "_pvalue")) and name != "method"]
note.show(own[columns])

# %% [markdown]
# Categories are never mixed, for their scores have no common scale. A type with an AUROC near 0.5 is not seen; one
# far below 0.5 looks more normal to the method than good images do. `ks` is the largest gap between the two
# distributions. `cliffs_delta` is the AUROC on a scale from -1 to 1, `hedges_g` the distance of the two means in
# standard deviations, and `overlap` the share that the two distributions have in common. Their intervals, and all
# types and methods, are in the CSV.
#
# ## Small, pale, near the border?
#
# Bins are made on the clean defects and kept in every scenario. Size and contrast: thirds of a category's defects.
# Border: the defect's pixel nearest to the image border, where up to 0.2 of half the side is near and beyond 0.6 is
# far.

# %%
from nbhelpers.evaluation import misses as tables

facts = pd.concat([misses.defect_facts(study, name) for name in study.categories])
limits = tables.bin_limits(facts)
note.write(facts, "defects")
note.show(limits, "bin_limits", empty="no masks, so no sizes")
note.save(plots.plot_recall_by_property(recall, scenario), f"{scenario}_recall_by_property")

# %% [markdown]
# The table has the limits between the bins: size in percent of the image, border as a share, contrast as a colour
# difference. In the figure, a row that rises from left to right says that small, pale or border defects are missed
# more often. Bins throw away what lies between them. Below, each defect is a point: how far its score lies above the
# threshold, against its area.

# %%
found = misses.defects(study, scenario)
note.save(plots.plot_margin_area(found), f"{scenario}_margin_area")

# %% [markdown]
# Crossed points are misses. If size explained them, they would stand on the left.
#
# ## Which of these patterns are more than chance?
#
# Rank correlation of the margin with area, border distance and contrast, and a rank test over the types; here for one
# method, with all in the CSV.

# %% tags=["trained"]
tests = misses.margin_tests(study, scenario)
note.write(tests, f"{scenario}_margin_tests")
note.show(tests[tests.method == method], f"{scenario}_margin_tests_{method}")

# %% [markdown]
# Many questions are asked at once, so read `p_holm`, which is adjusted for all of them. A small one is a pattern; a
# large one does not prove that nothing is there.
#
# ## Hard cases
#
# Who misses what: defects by type and by the methods that miss them.

# %% tags=["nbval-ignore-output"]
cases = misses.hard_cases(study, scenario)
note.write(cases, f"{scenario}_hard_cases")
agreement = tables.agreement(cases.missed_by, cases.category + ", " + cases.defect_type)
note.show(agreement, f"{scenario}_missed_by")
assert agreement.sum().sum() == len(cases), "each defect is in one cell"

# %% [markdown]
# Defects in the first column are found by all. Those that only one method misses would be found by two methods
# together; those that all miss need another idea, not another threshold. They come first in the next figure, then
# those that stand out least from the good images.

# %%
from nbhelpers.scenarios import SCENARIOS

domain = SCENARIOS[scenario].test_domain
sample_of = {sample.id: sample for name in study.categories for sample in study.split(name, domain)["test"]}
hard = [sample_of[name] for name in cases.id[:8]]
note.save(plots.plot_hard_cases(hard, note.tested(scenario), note.thresholds(scenario)), f"{scenario}_hard_cases")

# %% [markdown]
# One colour scale for each method and category. Would you have found these? Some have left the frame or are hidden in
# a shadow; then the miss says something about the images and nothing about the method.
#
# ## What we found
#
# Computed from this run:

# %%
from nbhelpers.results.numbers import label

print("\n".join(f"{label(name)}, {category}: misses {row.false_negative} of {row.defect} defects, calls "
                f"{row.false_positive} of {row.good} good images defective"
                for (name, category), row in counts.iterrows()))

# %% [markdown]
# Read the misses beside the false alarms. The types with the lowest recall, here and on real images, for the scenario
# with a new threshold:

# %% tags=["nbval-ignore-output"]
from nbhelpers.report import sentences

note.tell(sentences.weakest_types, ["threshold_only"])
note.tell(sentences.missed, ["threshold_only"])

# %% [markdown]
# A type that is weakest in both methods is hard; one that is weakest in only one is a matter of the method. The
# checks hold the parts to the whole: what is said of types and bins must add up to what the protocol says of all.

# %% tags=["trained"]
asked, answered = tests.p.notna().sum(), (tests.p_holm <= 0.05).sum()
print(f"missed by every method: {cases.missed_by_all.sum()} of {len(cases)} defects")
print(f"{answered} of {asked} rank tests with an adjusted p of at most 0.05")
by_type = recall[(recall.scenario == scenario) & (recall.detail == "defect_type")]
whole = 1 - counts.false_negative / counts.defect
parts = (by_type.value * by_type.n_images).groupby([by_type.method, by_type.category]).sum() / counts.defect
assert (parts - whole).abs().max() < 1e-9, "types do not add up to all"
assert len(wrong) == (decisions.decision != decisions.label).sum(), "an error is missing from the table"
by_size = recall[(recall.scenario == scenario) & (recall.detail == "size")]
assert by_size.n_images.sum() == found.area_percent.notna().sum(), "a masked defect is in no bin"

# %% [markdown]
# With a few images per type nearly every pattern is compatible with chance, and the second line says so in a number.
# Larger test sets answer more of these questions.

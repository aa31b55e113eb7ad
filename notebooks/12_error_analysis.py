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
# `outputs/<profile>/results/errors/<scenario>.csv`, the tables below to `results/12_error_analysis/`.
#
# **Takes** seconds on stored predictions; no GPU. **Before this:** 07 to 11.
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
import pandas as pd

from nbhelpers.analyses.all import write_metrics
from nbhelpers.analyses.misses import (
    decisions,
    defect_facts,
    defects,
    errors,
    errors_part,
    hard_cases,
    margin_tests,
    separations,
)
from nbhelpers.analyses.scenarios import evaluate_cell
from nbhelpers.evaluation.misses import agreement, bin_limits
from nbhelpers.figures.misses import (
    plot_hard_cases,
    plot_margin_area,
    plot_recall_by_property,
    plot_recall_by_type,
    plot_scores_by_type,
)
from nbhelpers.figures.style import save_figure, use_style
from nbhelpers.files import write_csv
from nbhelpers.scenarios import SCENARIOS
from nbhelpers.study import open_study

# %%
NOTEBOOK = "12_error_analysis"
study = open_study(profile, overrides)
folder = study.config.output_dir / "results" / NOTEBOOK
use_style()
study.describe()

# %% [markdown]
# ## What goes wrong at the deployed threshold?
#
# A recall means little without the false alarms it costs, so both stand side by side: a threshold that calls everything
# defective misses nothing.

# %%
table, wrong = decisions(study, scenario), errors(study, scenario)
counts = table.groupby(["method", "category", "label"], sort=False).size().unstack()
counts = counts.rename(columns={0: "good", 1: "defect"}).rename_axis(columns=None)
kinds = wrong.groupby(["method", "category", "kind"]).size().unstack(fill_value=0)
counts = counts.join(kinds.reindex(counts.index, columns=["false_positive", "false_negative"], fill_value=0))
print(counts.to_string())

# %% [markdown]
# The worst of each kind, with its margin as share of the threshold; the rest is in the csv, with what is known of each
# defect.

# %% tags=["nbval-ignore-output"]
worst = wrong.groupby(["method", "category", "kind"], sort=False).head(1)
worst = worst.assign(share=worst.margin / (worst.score - worst.margin))
print(worst[["method", "category", "kind", "defect_type", "share"]].round(1).to_string(index=False))
assert ((wrong.margin >= 0) == (wrong.kind == "false_positive")).all(), "an error on the wrong side of its threshold"

# %% [markdown]
# ## Which types of defect?
#
# Recall of each type in each scenario. With a handful of images a type the intervals (Clopper and Pearson) are wide:
# two that overlap are no evidence of a difference.

# %%
names = list(dict.fromkeys([*study.config.scenarios, scenario]))
recall = pd.concat([errors_part(study, name).rows() for name in names])
fig = plot_recall_by_type(recall, names)
_ = save_figure(fig, study.figure_path(NOTEBOOK, "recall_by_type"))

# %% [markdown]
# The scores behind it. Each tick is an image; a type is lost where its ticks lie among those of the good images,
# wherever the threshold stands.

# %%
fig = plot_scores_by_type(table)
_ = save_figure(fig, study.figure_path(NOTEBOOK, f"{scenario}_scores_by_type"))

# %% [markdown]
# The same as numbers, at no threshold: the image AUROC of each type against the good images of its category (0.5 is
# chance), and the Kolmogorov-Smirnov test of the two distributions. Categories are never mixed: their scores have no
# common scale.

# %%
separated = separations(study, scenario)
print(separated.round(2).to_string(index=False))

# %% [markdown]
# ## Small, pale, near the border?
#
# Bins are made on the clean defects and kept in every scenario. Size and contrast: thirds of a category's defects.
# Border: the defect's pixel nearest to the image border, up to 0.2 of half the side is near, beyond 0.6 far.

# %%
facts = pd.concat([defect_facts(study, name) for name in study.categories])
limits = bin_limits(facts)
print(limits.round(2).to_string(index=False))

# %%
fig = plot_recall_by_property(recall, scenario)
_ = save_figure(fig, study.figure_path(NOTEBOOK, f"{scenario}_recall_by_property"))

# %% [markdown]
# Bins throw away what lies between them. Below, each defect is a point: how far its score lies above the threshold,
# against its area.

# %%
found = defects(study, scenario)
fig = plot_margin_area(found)
_ = save_figure(fig, study.figure_path(NOTEBOOK, f"{scenario}_margin_area"))

# %% [markdown]
# ## Which of these patterns are more than chance?
#
# Rank correlation of the margin with area, border distance and contrast, and a rank test over the types. Many questions
# are asked at once, so read `p_holm`; a large one is no proof that nothing is there.

# %% tags=["trained"]
tests = margin_tests(study, scenario)
print(tests.round(2).to_string(index=False))

# %% [markdown]
# ## Hard cases
#
# Who misses what: defects by type and by the methods that miss them. Those that all methods miss need another idea, not
# another threshold.

# %% tags=["nbval-ignore-output"]
cases = hard_cases(study, scenario)
shared = agreement(cases.missed_by, cases.category + ", " + cases.defect_type)
print(shared.to_string())
assert shared.sum().sum() == len(cases), "each defect is in one cell"

# %% [markdown]
# The hardest of all, those that every method misses first; then those that stand out least from the good images. One
# colour scale a method and category.

# %%
asked = SCENARIOS[scenario].tests
predictions = {method: {name: study.predictions(method, name, **asked) for name in study.categories}
               for method in study.config.methods}
thresholds = {method: own.groupby("category").threshold.first().to_dict() for method, own in table.groupby("method")}
tested = {sample.id: sample for name in study.categories for sample in study.split(name, asked["domain"])["test"]}
fig = plot_hard_cases([tested[identity] for identity in cases.id[:8]], predictions, thresholds)
_ = save_figure(fig, study.figure_path(NOTEBOOK, f"{scenario}_hard_cases"))

# %% [markdown]
# ## Written for later

# %%
write_metrics(study)
for name, result in (("recall", recall), ("defects", facts), ("bin_limits", limits)):
    write_csv(folder / f"{name}.csv", result)
for name, result in (("separation", separated), ("margin_tests", tests), ("hard_cases", cases)):
    write_csv(folder / f"{scenario}_{name}.csv", result)

# %% [markdown]
# ## What we found
#
# Read the misses beside the false alarms above, and call a pattern real only where its adjusted p is small. The checks
# hold the parts to the whole: what is said of types and bins must add up to what the protocol says of all.

# %%
print("\n".join(f"{method}, {name}: misses {row.false_negative} of {row.defect} defects, calls {row.false_positive} "
                f"of {row.good} good images defective" for (method, name), row in counts.iterrows()))

# %% tags=["trained"]
print(f"missed by every method: {cases.missed_by_all.sum()} of {len(cases)} defects")
asked, answered = tests.p.notna().sum(), (tests.p_holm <= 0.05).sum()
print(f"{answered} of {asked} rank tests with an adjusted p of at most 0.05")
by_type = recall[(recall.scenario == scenario) & (recall.detail == "defect_type")]
for (method, name), own in by_type.groupby(["method", "category"]):
    whole = evaluate_cell(study, scenario, method, name)["metrics"]["recall"]["value"]
    assert abs((own.value * own.n_images).sum() / own.n_images.sum() - whole) < 1e-9, "types do not add up to all"
assert len(wrong) == (table.decision != table.label).sum(), "an error is missing from the table"
by_size = recall[(recall.scenario == scenario) & (recall.detail == "size")]
assert by_size.n_images.sum() == found.area_percent.notna().sum(), "a masked defect is in no bin"

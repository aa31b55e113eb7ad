# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 16 · The whole study in tables and figures: the report
#
# **Question.** What does the whole study say, method by method and scenario by scenario, and how sure is it?
#
# **Reads** stored results and predictions (evaluates a scenario that is missing). **Writes** `report/report.html`,
# one page that stands alone, every table as CSV, Markdown and LaTeX, and every figure as PNG and PDF to
# `outputs/<profile>/report/`.
#
# **Takes** about a minute on stored results; no GPU. **Before this:** 07 to 12.
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/anomaly-shift-study/blob/v0.1.0/notebooks/16_results_visualization.ipynb)

# %% tags=["parameters"]
profile = "tiny"  # a file in configs/: tiny, folder (your own images) or mvtec
overrides = {}  # settings to change, e.g. {"evaluation.bootstrap_draws": 5000}
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

note = open_notebook("16_results_visualization", profile, overrides)
study = note.study

# %% [markdown]
# ## Is everything there?
#
# The report stands on the results that the notebooks before this one left. What was made from other settings or
# images is not used: here it is evaluated again; `scripts/generate_report_tables.py` refuses it.

# %%
from nbhelpers.report import build
from nbhelpers.results.numbers import label

build.complete(study)
stored = build.stored_results(study)
results = stored.results
print("scenarios:", ", ".join(map(label, results.scenarios)))
print("methods:", ", ".join(map(label, results.methods)))

# %% [markdown]
# These are in the report. A scenario or a method that is missing was not configured.
#
# ## Who ranks best, and is it shown?
#
# Macro averages with their intervals, first on clean images.

# %% tags=["nbval-ignore-output"]
from nbhelpers.report.tables import compare_models

ranked = compare_models(results)
note.write(ranked, "compare_models")
first = ranked[ranked.scenario == results.scenarios[0]].sort_values("method")
note.show(first.drop(columns=["rank", "n_images"]))
assert not ranked.duplicated(["scenario", "method"]).any(), "a method is ranked twice"
assert ranked.image_auroc.between(ranked.ci_low, ranked.ci_high).all(), "a value lies outside its interval"

# %% [markdown]
# A difference is claimed only where DeLong's test, corrected by Holm, names a category; a rank alone claims nothing.
# The CSV has every scenario.
#
# ## Every table
#
# A family of results that was not computed has no table; here are those that there are.

# %%
tables = build.write_tables(study, stored)
print("\n".join(f"{table.name}: {table.caption}" for table in tables.values()))

# %% [markdown]
# Each of them is written as CSV (to compute with), Markdown (to paste) and LaTeX (to print).
#
# ## Methods, categories, scenarios

# %%
from nbhelpers.figures import comparisons

note.save(comparisons.plot_heatmaps(results, "image_auroc", (0.5, 1.0)), "heatmap_image_auroc")

# %% [markdown]
# One colour scale for all panels: 0.5 is chance and 1 is perfect. Compare a cell with the same cell of the next
# panel.
#
# ## From scenario to scenario

# %%
lines = [name for name in ("image_auroc", "aupro", "balanced_accuracy") if name in set(results.table.metric)]
note.save(comparisons.plot_scenario_lines(results, lines), "scenario_lines")

# %% [markdown]
# Bands are the intervals of each value. Whether a change is one is a question for the paired differences, whose
# images are redrawn together:

# %%
if "differences" in tables:
    note.save(comparisons.plot_differences(results, "image_auroc"), "differences_image_auroc")

# %% [markdown]
# A whisker that does not cross the line is a change that the images of this run show.
#
# ## Ranking against localisation

# %%
if "aupro" in lines:
    note.save(comparisons.plot_image_against_pixel(results), "image_against_pixel")

# %% [markdown]
# A method in the lower right of a panel calls the right images and points at the wrong places.
#
# ## False alarms: promised, realised, carried elsewhere

# %%
if "conformal" in tables:
    note.save(comparisons.plot_promised_and_realised(results), "promised_and_realised")
if "transfer_domains" in tables:
    note.save(comparisons.plot_threshold_transfer(results, "transfer"), "threshold_transfer")

# %% [markdown]
# In the first figure, blue dots on the dashed line are promises that were kept, and orange ones are what the shift
# made of them. The second has false alarms and misses with a threshold from the other domain.
#
# ## Where the methods are surest, right and wrong
#
# One category under the shift, with the threshold as it was.

# %%
from nbhelpers.figures.surest import plot_best_and_worst
from nbhelpers.scenarios import SCENARIOS

scenario = "no_adaptation" if "no_adaptation" in results.scenarios else results.scenarios[0]
category = study.categories[0]
parts, thresholds = build.tested(study, scenario)
limits = {method: note.limits(method, scenario)[category] for method in study.config.methods}
samples = study.split(category, SCENARIOS[scenario].test_domain)["test"]
note.save(plot_best_and_worst(samples, {method: part[category] for method, part in parts.items()},
                              {method: own[category] for method, own in thresholds.items()}, limits, count=6), "surest")

# %% [markdown]
# The number is the score minus the threshold; green outlines the true defect. Maps are laid over the images, the
# denser the hotter, on one scale per method. The sure errors are the interesting ones: no threshold would have
# avoided them.
#
# ## The report
#
# All of it again, and what this notebook leaves out, on one page. Every number in it names the row of `metrics.csv`
# that it was read from.

# %%
path = build.write_report(study)
print(path.relative_to(study.config.workspace_dir))

# %% [markdown]
# Open it in a browser; it needs no other file.
#
# ## What we found
#
# The whole study in a few sentences, computed from `metrics.csv` of this run and of the study on real images:

# %%
from nbhelpers.report import sentences

note.tell(sentences.summary)

# %% [markdown]
# A change or a difference is claimed only where its interval excludes 0. Where this run and the real images disagree,
# believe the one with more test images.

# %%
import pandas as pd

from nbhelpers.results.table import plain

page, keys = path.read_text(encoding="utf-8"), ["scenario", "method", "category", "macro"]
written = pd.read_csv(path.parent / "tables" / "results.csv", dtype={"category": str}, keep_default_na=False,
                      na_values={"image_auroc": [""]}).set_index(keys)
rows = plain(results.table)
rows = rows[rows.scenario.isin(results.scenarios) & (rows.metric == "image_auroc")].set_index(keys)
gaps = (written.image_auroc - rows.value).abs()
print(f"{len(tables)} tables; their numbers are those of metrics.csv: {'yes' if (gaps < 1e-5).all() else 'no'}")
assert len(gaps) == len(rows) and (gaps < 1e-5).all(), "a table of the report is not the table of results"
assert "<script" not in page and page.count("<img") > 0, "the page does not stand alone"
assert all(f">{label(method)}<" in page for method in results.methods), "a method is not in the report"

# %% [markdown]
# The last line and its checks hold the report to the table of results: no number in it is typed in.

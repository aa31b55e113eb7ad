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
# **Reads** stored results and predictions (evaluates a scenario that is missing). **Writes** `report/report.html`, one
# page that stands alone, every table as CSV, Markdown and LaTeX, and every figure as PNG and PDF to
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
import pandas as pd

from nbhelpers.figures.comparisons import (
    plot_differences,
    plot_heatmaps,
    plot_image_against_pixel,
    plot_promised_and_realised,
    plot_scenario_lines,
    plot_threshold_transfer,
)
from nbhelpers.figures.images import shared_limits
from nbhelpers.figures.style import use_style
from nbhelpers.figures.surest import plot_best_and_worst
from nbhelpers.report.build import complete, stored_results, tested, write_report, write_tables
from nbhelpers.report.tables import compare_models
from nbhelpers.results.numbers import label
from nbhelpers.results.table import plain
from nbhelpers.scenarios import SCENARIOS
from nbhelpers.study import open_study

study = open_study(profile, overrides)
use_style()
study.describe()

# %% [markdown]
# ## Is everything there?
#
# The report stands on the results that the notebooks before this one left. What was made from other settings or images
# is not used: it is evaluated again here, or, by `scripts/generate_report_tables.py`, refused.

# %%
complete(study)
stored = stored_results(study)
results = stored.results
print("scenarios:", ", ".join(map(label, results.scenarios)))
print("methods:", ", ".join(map(label, results.methods)))

# %% [markdown]
# ## Who ranks best, and is it shown?
#
# Macro averages with their intervals. A difference is claimed only where DeLong's test, Holm-corrected, names a
# category; the report ranks methods by these values, and a rank alone claims nothing.

# %% tags=["nbval-ignore-output"]
ranked = compare_models(results).sort_values(["scenario", "method"])
print(ranked.drop(columns=["rank", "n_images"]).round(2).to_string(index=False))
assert not ranked.duplicated(["scenario", "method"]).any(), "a method is ranked twice"
assert ranked.image_auroc.between(ranked.ci_low, ranked.ci_high).all(), "a value lies outside its interval"

# %% [markdown]
# ## Every table
#
# A family of results that was not computed has no table; here are the ones there are.

# %%
tables = write_tables(study, stored)
print("\n".join(f"{table.name}: {table.caption}" for table in tables.values()))

# %% [markdown]
# ## Methods, categories, scenarios
#
# One colour scale: 0.5 is chance, 1 is perfect.

# %%
fig = plot_heatmaps(results, "image_auroc", (0.5, 1.0))

# %% [markdown]
# ## From scenario to scenario
#
# Bands are the intervals of each value. Whether a change is one is for the paired differences below: their images are
# redrawn together.

# %%
lines = [name for name in ("image_auroc", "aupro", "balanced_accuracy") if name in set(results.table.metric)]
fig = plot_scenario_lines(results, lines)

# %%
if "differences" in tables:
    fig = plot_differences(results, "image_auroc")

# %% [markdown]
# ## Ranking against localisation
#
# A method in the lower right calls the right images, and points at the wrong places.

# %%
if "aupro" in lines:
    fig = plot_image_against_pixel(results)

# %% [markdown]
# ## False alarms: promised, realised, carried elsewhere
#
# Blue dots on the dashed line are kept promises; orange ones are what the shift made of them.

# %%
if "conformal" in tables:
    fig = plot_promised_and_realised(results)

# %%
if "transfer_domains" in tables:
    fig = plot_threshold_transfer(results, "transfer")

# %% [markdown]
# ## Where the methods are surest, right and wrong
#
# One category under the shift, the threshold as it was. The number is the score minus the threshold; green outlines the
# true defect. Maps are laid over the images, the denser the hotter, on one scale a method.

# %%
scenario = "no_adaptation" if "no_adaptation" in results.scenarios else results.scenarios[0]
category = study.categories[0]
parts, thresholds = tested(study, scenario)
own = {method: parts[method][category] for method in study.config.methods}
samples = study.split(category, SCENARIOS[scenario].test_domain)["test"]
fig = plot_best_and_worst(samples, own, {method: thresholds[method][category] for method in own},
                          {method: shared_limits(part) for method, part in own.items()}, count=6)

# %% [markdown]
# ## The report
#
# All of it again, and what this notebook leaves out, on one page. Every number in it names the row of `metrics.csv`
# that it was read from.

# %%
path = write_report(study)
print(path.relative_to(study.config.workspace_dir))

# %% [markdown]
# ## What we found
#
# The written tables hold the numbers of `metrics.csv` and no other.

# %%
page = path.read_text(encoding="utf-8")
keys = ["scenario", "method", "category", "macro"]
written = pd.read_csv(path.parent / "tables" / "results.csv", dtype={"category": str}, keep_default_na=False,
                      na_values={"image_auroc": [""]}).set_index(keys)
rows = plain(results.table)
rows = rows[rows.scenario.isin(results.scenarios) & (rows.metric == "image_auroc")].set_index(keys)
gaps = (written.image_auroc - rows.value).abs()
print(f"{len(tables)} tables, numbers as in metrics.csv: {(gaps < 1e-5).all()}")
assert len(gaps) == len(rows) and (gaps < 1e-5).all(), "a table of the report is not the table of results"
assert "<script" not in page and page.count("<img") > 0, "the page does not stand alone"
assert all(f">{label(method)}<" in page for method in results.methods), "a method is not in the report"

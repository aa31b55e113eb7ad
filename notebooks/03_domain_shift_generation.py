# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 03 · What does the shifted world look like, and do its masks still fit?
#
# **Question.** What changes when the camera is moved and the light is not the same, and is every defect still where
# its mask says?
#
# **Reads** the clean split of one category. **Writes** its shifted twin, images and masks, to
# `data/shifted/<profile>/<severity>/<category>/{train,val,test}/`, with a manifest of every sampled value.
#
# **Takes** seconds on the tiny set, about a minute a category on MVTec AD; no GPU. **Before this:** 02. **After:** 04.
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/anomaly-shift-study/blob/v0.1.0/notebooks/03_domain_shift_generation.ipynb)

# %% tags=["parameters"]
profile = "tiny"  # a file in configs/: tiny, folder (your own images) or mvtec
overrides = {}  # settings to change, e.g. {"shift.severity": "severe", "shift.only": ["rotation"]}
category = "hazelnut"  # one category of the data root
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
import numpy as np

from nbhelpers.data.images import read_image, resize_image
from nbhelpers.data.shift.parameters import PARTS, SEVERITIES
from nbhelpers.data.shift.twins import shift_sample
from nbhelpers.figures.data import plot_shift_parameters
from nbhelpers.figures.images import one_of_each, plot_images, plot_pairs, plot_samples, spread
from nbhelpers.figures.style import save_figure, use_style
from nbhelpers.study import open_study

NOTEBOOK = "03_domain_shift_generation"
study = open_study(profile, overrides)
use_style()
study.describe()

# %% [markdown]
# ## One shifted twin an image
#
# Each image gets its own draw, seeded by a hash of its name: rotation, crop and translation in one warp at full
# resolution (the mask goes through the same warp), then brightness, contrast, saturation, blur, noise, and on about
# half of the images an uneven illumination.

# %%
manifest = study.shifted(category)
clean, shifted = study.split(category), study.split(category, "shift")
applied = manifest.assign(blurred=manifest.blur_kernel > 0, noisy=manifest.noise_sigma > 0,
                          unevenly_lit=manifest.illumination_kind != "none")
shown = ["rotation_degrees", "brightness", "contrast", "blurred", "noisy", "unevenly_lit", "defect_lost"]
print(applied.groupby("split", sort=False)[shown].mean().round(2).to_string())

# %% [markdown]
# What was sampled, over all images: ranges as configured, no value favoured.

# %%
fig = plot_shift_parameters(manifest, ["rotation_degrees", "crop_scale", "translation_x", "brightness", "contrast",
                                       "saturation", "noise_sigma", "gain_min"])
_ = save_figure(fig, study.figure_path(NOTEBOOK, f"{category}_parameters"))

# %% [markdown]
# ## Clean and shifted, side by side

# %%
twin_of = {row.source_id: row.id for row in manifest.itertuples()}
shifted_by_id = {sample.id: sample for split in shifted.values() for sample in split}
chosen = spread(clean["test"], 8)
fig = plot_pairs(chosen, [shifted_by_id[twin_of[sample.id]] for sample in chosen], masks=False)
_ = save_figure(fig, study.figure_path(NOTEBOOK, f"{category}_clean_and_shifted"))

# %% [markdown]
# ## Do the masks still fit?
#
# The outlines must have moved with the defects.

# %%
chosen = one_of_each(clean["test"], 8)
fig = plot_pairs(chosen, [shifted_by_id[twin_of[sample.id]] for sample in chosen])
_ = save_figure(fig, study.figure_path(NOTEBOOK, f"{category}_mask_alignment"))

# %% [markdown]
# A defect near the border can leave the frame. Its image stays anomalous by label, is flagged, and is left out of
# pixel metrics.

# %%
masked = manifest[manifest.mask_pixels_before > 0]
kept = masked.mask_pixels_after / masked.mask_pixels_before
print(f"{len(masked)} masked defects, {int(masked.defect_lost.sum())} left the frame; "
      f"median share of the mask's pixels kept: {kept.median():.2f}" if len(masked) else "no masks")

# %% [markdown]
# ## Uneven light
#
# The gradient's darkest gain is the sampled strength, exactly; its brightest is 1.

# %%
lit = applied[applied.unevenly_lit].sort_values("gain_min")
fig = plot_samples({"uneven light": [shifted_by_id[identity] for identity in lit.id[:8]]}, masks=False)
_ = save_figure(fig, study.figure_path(NOTEBOOK, f"{category}_illumination"))
print(f"{len(lit)} of {len(manifest)} images; gains from {lit.gain_min.min():.2f} to {lit.gain_max.max():.2f}")

# %% [markdown]
# ## Three severities of the same draw
#
# Mild halves every range, severe widens it by half; the draw itself is the same. Shown on an image whose draw has
# blur, noise and uneven light, or as many of them as there are.

# %%
test = applied[applied.split == "test"]
fullest = test.loc[test[["blurred", "noisy", "unevenly_lit"]].sum(axis=1).idxmax()]
sample = next(s for s in clean["test"] if s.id == fullest.source_id)
levels = {name: study.config.shift.model_copy(update={"severity": name}) for name in SEVERITIES}
ladder = {name: shift_sample(sample, "test", config, study.config.seed)[0] for name, config in levels.items()}
original = read_image(sample.image, sample.reading)
fig = plot_images({"clean": resize_image(original, 192)} | {k: resize_image(v, 192) for k, v in ladder.items()})
_ = save_figure(fig, study.figure_path(NOTEBOOK, f"{category}_severities"))

# %% [markdown]
# ## One part at a time
#
# The same draw with all parts but one switched off: the parts do not disturb each other.

# %%
alone = {part: levels["severe"].model_copy(update={"only": (part,)}) for part in PARTS}
alone = {part: shift_sample(sample, "test", config, study.config.seed)[0] for part, config in alone.items()}
fig = plot_images({part: resize_image(image, 192) for part, image in alone.items()}, columns=5)
_ = save_figure(fig, study.figure_path(NOTEBOOK, f"{category}_single_parts"))

# %% [markdown]
# ## What we found
#
# A second world with the same defects, in which nothing is where or as bright as it was.

# %%
change = {name: float(np.abs(image.astype(float) - original).mean()) for name, image in ladder.items()}
print("mean change of a pixel, grey levels:", {name: round(value) for name, value in change.items()})
assert len(manifest) == sum(len(part) for part in clean.values()), "an image has no twin"
assert manifest.image.is_unique, "two twins share a file"
assert list(change.values()) == sorted(change.values()), "a harsher severity changes less"

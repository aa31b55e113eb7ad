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
# **Question.** What changes when the camera is moved and the light is another one, and is every defect still where
# its mask says?
#
# **Reads** the clean split of one category. **Writes** its shifted twin, images and masks, to
# `data/shifted/<profile>/<severity>/<category>/{train,val,test}/`, with a manifest of every sampled value.
#
# **Takes** seconds on the tiny set, about a minute per category on MVTec AD; no GPU. **Before this:** 02. **After:**
# 04.
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
from nbhelpers.notebook import open_notebook

note = open_notebook("03_domain_shift_generation", profile, overrides)
study = note.study

# %% [markdown]
# ## One shifted twin per image
#
# Each image gets its own draw, seeded by a hash of its name: rotation, crop and translation in one warp at full
# resolution (the mask goes through the same warp), then brightness, contrast, saturation, blur, noise, and on about
# half of the images an uneven illumination.

# %%
manifest = study.shifted(category)
clean, shifted = study.split(category), study.split(category, "shift")
applied = manifest.assign(blurred=manifest.blur_kernel > 0, noisy=manifest.noise_sigma > 0,
                          unevenly_lit=manifest.illumination_kind != "none")
columns = ["rotation_degrees", "brightness", "contrast", "blurred", "noisy", "unevenly_lit", "defect_lost"]
note.show(applied.groupby("split", sort=False)[columns].mean())

# %% [markdown]
# Each row is a split, each number a mean over its images. Rotations go both ways and average near 0, brightness and
# contrast average near 1, and the last four columns are shares of images. The training, validation and test images
# are shifted by the same rule, so the rows differ by chance alone, and most where a split is small.

# %%
from nbhelpers.figures import data, images

note.save(data.plot_shift_parameters(manifest, ["rotation_degrees", "crop_scale", "translation_x", "brightness",
                                                "contrast", "saturation", "noise_sigma", "gain_min"]),
          f"{category}_parameters")

# %% [markdown]
# The histograms fill the configured ranges, and no value is favoured. The last two have a tall bar for the images
# that get no noise, or no uneven light.
#
# ## Clean and shifted, side by side

# %%
twin_of = dict(zip(manifest.source_id, manifest.id, strict=True))
shifted_by_id = {sample.id: sample for split in shifted.values() for sample in split}
some = images.spread(clean["test"], 8)
note.save(images.plot_pairs(some, [shifted_by_id[twin_of[sample.id]] for sample in some], masks=False),
          f"{category}_clean_and_shifted")

# %% [markdown]
# The object is the same, its place and its light are not. A person would not call any of the lower images defective
# for that reason. Where the camera moved beyond the edge of the image, its border is mirrored.
#
# ## Do the masks still fit?
#
# One defect of each type, with its mask outlined.

# %%
masked_ones = images.one_of_each(clean["test"], 8)
note.save(images.plot_pairs(masked_ones, [shifted_by_id[twin_of[sample.id]] for sample in masked_ones]),
          f"{category}_mask_alignment")

# %% [markdown]
# The outlines moved with the defects. A defect near the border can leave the frame: then its image stays anomalous by
# its label, is flagged in the manifest, and is left out of pixel metrics.

# %%
masked = manifest[manifest.mask_pixels_before > 0]
kept = masked.mask_pixels_after / masked.mask_pixels_before
print(f"{len(masked)} masked defects, of which {int(masked.defect_lost.sum())} left the frame; "
      f"median share of the mask's pixels that is kept: {kept.median():.2f}" if len(masked) else "no masks")

# %% [markdown]
# A share above 1 is possible: a crop enlarges what it keeps.
#
# ## Uneven light
#
# The gradient's darkest gain is the sampled strength, exactly, and its brightest is 1.

# %%
lit = applied[applied.unevenly_lit].sort_values("gain_min")
note.save(images.plot_samples({"uneven light": [shifted_by_id[name] for name in lit.id[:8]]}, masks=False),
          f"{category}_illumination")
print(f"{len(lit)} of {len(manifest)} images; gains from {lit.gain_min.min():.2f} to {lit.gain_max.max():.2f}")

# %% [markdown]
# The images are sorted by their darkest gain, the darkest first. This part of the shift is the one that changes most
# pixels by a little, and the geometric part the one that changes few pixels by much.
#
# ## Three severities of the same draw
#
# Mild halves every range and severe widens it by half; the draw itself is the same. They are shown on an image whose
# draw has blur, noise and uneven light, or as many of them as there are.

# %%
from nbhelpers.data.images import read_image, resize_image
from nbhelpers.data.shift import parameters, twins

test = applied[applied.split == "test"]
fullest = test.loc[test[["blurred", "noisy", "unevenly_lit"]].sum(axis=1).idxmax()]
sample = next(s for s in clean["test"] if s.id == fullest.source_id)
levels = {name: study.config.shift.model_copy(update={"severity": name}) for name in parameters.SEVERITIES}
ladder = {name: twins.shift_sample(sample, "test", level, study.config.seed)[0] for name, level in levels.items()}
original = read_image(sample.image, sample.reading)
small = {name: resize_image(image, 192) for name, image in {"clean": original, **ladder}.items()}
note.save(images.plot_images(small), f"{category}_severities")

# %% [markdown]
# From left to right the same change grows. The study uses the severity of its configuration; the other two are a
# setting away.
#
# ## One part at a time
#
# The same draw with all parts but one switched off.

# %%
alone = {part: levels["severe"].model_copy(update={"only": (part,)}) for part in parameters.PARTS}
alone = {part: twins.shift_sample(sample, "test", level, study.config.seed)[0] for part, level in alone.items()}
note.save(images.plot_images({part: resize_image(image, 192) for part, image in alone.items()}, columns=5),
          f"{category}_single_parts")

# %% [markdown]
# Each part does what it does in the full shift: switching others off does not change its draw.
#
# ## What we found
#
# Computed from the shifted images:

# %%
import numpy as np

change = {name: float(np.abs(image.astype(float) - original).mean()) for name, image in ladder.items()}
print(f"{category}: {len(manifest)} images have a twin; mean change of a pixel in grey levels:",
      ", ".join(f"{name} {value:.0f}" for name, value in change.items()))
assert len(manifest) == sum(len(part) for part in clean.values()), "an image has no twin"
assert manifest.image.is_unique, "two twins share a file"
assert list(change.values()) == sorted(change.values()), "a harsher severity changes less"

# %% [markdown]
# It is a second world with the same defects, in which nothing is where it was or as bright as it was. What that costs
# the detectors is the question of notebook 08. On real images, the same shift had these consequences for the ranking
# of images (a difference, shifted minus clean, with its 95 % interval):

# %%
note.beside("no_adaptation", ["image_auroc"], against="clean", this_run=False)

# %% [markdown]
# An interval that lies below 0 is a loss. None of these images has become harder for a person.

# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 06 · What can reconstruction see?
#
# **Question.** A network that has learned to reconstruct good images cannot reconstruct a defect, or so the idea
# goes. How far does it hold for this architecture, and how much depends on how image and reconstruction are compared?
#
# **Reads** each category's splits. **Writes** the trained networks, their predictions, and rows of scenario
# `reconstruction`, to `outputs/<profile>/`.
#
# **Takes** about a minute per category on the tiny set, minutes at 128 px on a CPU (preset `cpu`); full size needs a
# GPU. **Before this:** 03. **After:** 07. Run once for each architecture.
#
# Plain autoencoders are the weak end of the field: with a pixel residual the published one reaches a pixel AUROC of
# 0.59 on carpet (Bergmann et al., 2019). What lifts them is to compare in the space of pretrained features. The first
# half of this notebook follows one image through the network and through each comparison, in plain tensor operations.
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/anomaly-shift-study/blob/v0.1.0/notebooks/06_autoencoder.ipynb)

# %% tags=["parameters"]
profile = "tiny"  # a file in configs/: tiny, folder (your own images) or mvtec
overrides = {}  # settings to change, e.g. {"preset": "cpu"} or {"autoencoder.training.epochs": 200}
architecture = "cnn"  # cnn, resnet, vit, unet_lite, unet, reversed or diffusion
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

note = open_notebook("06_autoencoder", profile, overrides)
study, method = note.study, f"ae_{architecture}"

# %% [markdown]
# ## The idea
#
# An *autoencoder* is two networks: an encoder $E$, which turns an image into something smaller, and a decoder $D$,
# which makes an image of that again. Both are trained on good images only, so that the reconstruction
# $\hat x = D(E(x))$ is like the image $x$. The hope is that what is smaller has room for normal images and for
# nothing else: a defect would be lost on the way, and would show where $x$ and $\hat x$ differ. Three things can go
# wrong:
#
# * the network does not learn even normal images, and everything differs;
# * the network learns to copy, and nothing differs (the *identity shortcut*);
# * the difference is there, and the way of measuring it does not see it.
#
# A share of the training images is held out: their loss decides when training stops and which weights are kept.
# Neither validation, which will calibrate thresholds, nor test is looked at. A training that was killed continues at
# its last epoch.

# %% tags=["trained"]
import pandas as pd

detectors = {name: study.detector(method, name) for name in study.categories}
trained = pd.DataFrame({name: detector.stats for name, detector in detectors.items()}).T.rename_axis("category")
note.show(trained[["n_images", "n_held_out", "n_parameters", "epochs"]], f"{architecture}_trained", digits=0)

# %% [markdown]
# One network per category, with the number of images it was trained on and of those that were held out, the number of
# its weights, and for how many epochs it was trained.

# %%
from nbhelpers.figures import images, reconstructions

category = study.categories[0]
detector = detectors[category]
note.save(reconstructions.plot_history(detector.history), f"{architecture}_history")

# %% [markdown]
# The loss of the held-out images is the one to watch. As long as it falls with that of the training images, the
# network learns what good images have in common; where it rises again, it learns the training images by heart. If the
# best epoch is the last one, a longer training would still help.
#
# ## Step 1, by hand: encode and decode
#
# One defect image of the validation split.

# %%
import torch

split = study.split(category)
shown = images.one_of_each(split["val"], 1)[0]
x = next(detector.batches([shown], "one image", "test")).images  # (1, 3, H, W)
with torch.no_grad():
    latent = detector.network.encode(x.to(detector.device))
    bottleneck, *skips = latent if isinstance(latent, tuple) else (latent,)
    found = detector.network.decode(latent).cpu()  # (1, 3, H, W)
print(f"image {tuple(x.shape)} -> latent {tuple(bottleneck.shape)} -> reconstruction {tuple(found.shape)}")
print(f"{x.numel()} numbers went in, {bottleneck.numel()} passed through the narrowest place, and "
      f"{sum(len(maps) for maps in skips)} maps went around it")

# %% [markdown]
# All pixels lie between -1 and 1, in the image and in the reconstruction. The latent is what the decoder sees of the
# image. The smaller it is, the less can be copied; but what is large can still be unable to copy, if the network has
# learned to use it for something else. Maps that go around the narrowest place are *skip connections*, of which only
# U-Nets have any: through them a network can copy its input.

# %%
from nbhelpers.figures import steps
from nbhelpers.models.autoencoders.detector import to_pixels

assert abs(found.numpy() - detector.reconstruct([shown])[1]).max() < 1e-3, "the detector reconstructs otherwise"
picture, again = to_pixels(x.numpy())[0], to_pixels(found.numpy())[0]
note.save(steps.plot_stages({"image": picture, "reconstruction": again}), f"{architecture}_one_image")

# %% [markdown]
# Ask three questions of this pair. Do you recognise the object? Is the surface as sharp as in the image? And is the
# defect still there? The first should be answered yes and the last no. A blurred surface is the usual price: fine
# texture is hard to predict, and every pixel of it will differ as if it were a defect.
#
# ## Step 2, by hand: the residual, pixel by pixel
#
# The simplest comparison is the squared difference at each pixel $p$, averaged over the three colours $c$:
#
# $$e_{L2}(p) = \frac{1}{3} \sum_{c=1}^{3} \bigl(x_c(p) - \hat x_c(p)\bigr)^2 .$$

# %% tags=["trained"]
import numpy as np

from nbhelpers.models.autoencoders import heads, similarity

squared = (x - found).square().mean(dim=1)  # (1, H, W)
assert torch.allclose(squared, heads.pixel_l2(x, found)), "by hand and by the head, the squared differences differ"
size, margin = x.shape[-1], similarity.WINDOW // 2
mask = images.load_thumbnail(shown, size)[1]
inside = np.argwhere(mask if mask.any() else np.ones_like(mask))  # rows and columns of the defect's pixels
row, column = inside[len(inside) // 2].clip(margin, size - 1 - margin)
print(f"in the defect {squared[0, row, column]:.3f}; mean of the image {squared.mean():.3f}, "
      f"largest {squared.max():.2f}")

# %% [markdown]
# The first number is that of one pixel in the middle of the defect. The largest one need not lie in the defect at
# all: a squared difference is large where brightness differs much, such as along the outline of an object that was
# reconstructed a little too small. A pale scratch hardly changes the brightness, and does not show.
#
# ## Step 3, by hand: structural similarity
#
# The second comparison looks at a window of 11 x 11 pixels around each pixel, weighted by a Gaussian, and compares
# three things in it: the means $\mu$, the variances $\sigma^2$, and whether both go up and down together, which is
# the covariance $\sigma_{x\hat x}$ (Wang et al., 2004, eq. 13):
#
# $$\mathrm{SSIM} = \frac{(2 \mu_x \mu_{\hat x} + C_1)(2 \sigma_{x\hat x} + C_2)}
# {(\mu_x^2 + \mu_{\hat x}^2 + C_1)(\sigma_x^2 + \sigma_{\hat x}^2 + C_2)}, \qquad
# C_1 = (0.01 L)^2, \; C_2 = (0.03 L)^2,$$
#
# where $L = 2$ is the range of the pixels. It is 1 where both windows are equal. The head measures
# $(1 - \mathrm{SSIM}) / 2$.

# %% tags=["trained"]
bell = np.exp(-np.square(np.arange(-margin, margin + 1)) / (2 * 1.5**2))
window = np.outer(bell, bell) / bell.sum() ** 2
a, b = (part[0, 1, row - margin:row + margin + 1, column - margin:column + margin + 1].double().numpy()
        for part in (x, found))  # the green channel
mean_a, mean_b = (window * a).sum(), (window * b).sum()
variance_a, variance_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
together = (window * (a - mean_a) * (b - mean_b)).sum()
c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
ssim = ((2 * mean_a * mean_b + c1) * (2 * together + c2)
        / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)))
print(f"means {mean_a:.2f} and {mean_b:.2f}, SSIM {ssim:.2f} around the same pixel")
assert abs(ssim - float(similarity.ssim_map(x, found)[0, 1, row, column])) < 1e-2, "SSIM differs from the head's"

# %% [markdown]
# SSIM does not mind how bright a scratch is, only that its pattern is not in the reconstruction. It also does not
# forgive a blurred texture: where the image has a pattern and the reconstruction has none, the covariance is near 0.
#
# ## Step 4, by hand: what a pretrained network sees
#
# The third comparison does not look at pixels. It sends the image and the reconstruction through the ImageNet network
# of notebooks 04 and 05, and compares the two feature vectors $f$ and $\hat f$ at each cell by the angle between
# them:
#
# $$e_{feature} = 1 - \frac{f \cdot \hat f}{\lVert f \rVert \, \lVert \hat f \rVert} .$$

# %% tags=["trained"]
from torch.nn import functional as F

residual, both = detector.residual("feature"), [part.to(detector.device) for part in (x, found)]
with torch.no_grad():
    pairs = list(zip(*map(residual.features, both), strict=True))  # for each layer (1, C, h, w) twice
    layer_maps = [1 - F.cosine_similarity(*pair, dim=1, eps=1e-12).cpu() for pair in pairs]  # (1, h, w) each
    enlarged = [F.interpolate(part[None], size=(size, size), mode="bilinear") for part in layer_maps]
    feature_map = torch.cat(enlarged).mean(dim=0)  # (1, H, W)
print("; ".join(f"{tuple(one.shape)} on average {part.mean():.2f}"
                for (one, _), part in zip(pairs, layer_maps, strict=True)))
assert torch.allclose(feature_map, residual(*both).cpu(), atol=1e-3), "the feature distances differ from the head's"

# %% [markdown]
# One line for all layers: the shape of the features, and the mean distance, from 0 (same direction) to 2 (opposite).
# Features tolerate a shift by a pixel or a small change of brightness, and they react to textures that are missing.
# The three comparisons of one and the same pair, side by side:

# %%
maps = {"squared difference": squared[0].numpy(), "SSIM distance": heads.ssim_distance(x, found)[0].numpy(),
        "feature distance": feature_map[0].numpy()}
note.save(steps.plot_stages({"image": picture, "reconstruction": again, **maps}), f"{architecture}_by_hand")

# %% [markdown]
# Each map has its own scale, for the units cannot be compared. Which of them is brightest at the defect, and how
# bright is the rest? The detector smooths its map as the other methods do, and takes the image score from it.
#
# ## The identity shortcut
#
# How do you tell a network that knows the object from one that copies whatever it is given? Show it something that it
# has never seen. Below, the network of the first category gets a good image of each category.

# %% tags=["trained"]
strangers = [next(s for s in study.split(name)["val"] if not s.label) for name in study.categories]
given, made = detector.reconstruct(strangers)
rows = {f"{name} {what}": part for what, parts in (("given", given), ("made", made))
        for name, part in zip(study.categories, to_pixels(parts), strict=True)}
note.save(images.plot_images(rows, columns=len(strangers)), f"{architecture}_strangers")
errors = np.square(given - made).mean(axis=(1, 2, 3))
print("\n".join(f"{name}: mean squared error {error:.3f}"
                for name, error in zip(study.categories, errors, strict=True)))

# %% [markdown]
# The first column is what the network was trained for. If the other columns come back well, the network copies, and
# it will copy defects, too. If they come back as a poor version of the first category, it has learned that category
# and nothing else, which is what the idea needs. The same question, asked of the validation images: is a defect
# reconstructed worse than a good image?

# %% tags=["trained"]
from nbhelpers.analyses import reconstruction

quality = reconstruction.quality_table(study, architecture)
note.show(quality, f"{architecture}_quality")

# %% [markdown]
# MSE and L1 are 0 for a perfect reconstruction, SSIM is 1. If the two rows of a category hardly differ, defects come
# back as well as normal parts do, or the whole image is reconstructed so loosely that a small defect does not change
# the mean.
#
# ## Predict once
#
# The configured head scores all validation and test images; where this autoencoder is one of the study's methods, all
# that the scenarios need of it is stored now.

# %%
val_of = {name: study.predictions(method, name, fitted_on="clean", domain="clean", split="val")
          for name in study.categories}
if method in study.config.methods:
    stored = {name: note.predict(method, name, fitted_on="clean") for name in study.categories}
print(f"the configured head is {detector.choice.head}; {sum(map(len, val_of.values()))} validation images are scored")

# %% [markdown]
# The head is part of the configuration. It is chosen before test images are looked at.
#
# ## What does it reconstruct?
#
# Image, reconstruction and anomaly map, on one colour scale for all. A defect that comes back unharmed is one that a
# pixel residual cannot see.

# %%
val = val_of[category]
chosen = [*images.one_of_each(split["val"], 4), *images.spread([s for s in split["val"] if not s.label], 2)]
seen, remade = map(to_pixels, detector.reconstruct(chosen))
limits = images.shared_limits(val)
note.save(reconstructions.plot_reconstructions(chosen, seen, remade, val, limits), f"{architecture}_reconstructions")

# %% [markdown]
# Look first at the last two columns, which are good images: whatever glows there is what a threshold must tolerate.
#
# ## One network, several heads
#
# The same reconstructions, compared pixel by pixel, by local structure, and by features. Each row has its own scale.

# %%
by_head = detector.predict_heads(split["val"], reconstruction.HEADS)
note.save(reconstructions.plot_heads(chosen, by_head), f"{architecture}_heads")

# %% [markdown]
# A good head is dark in the last two columns and bright inside of the outlines. On clean test images, beside the
# methods that need no training of their own; this judges, and nothing is chosen by it:

# %%
compared = reconstruction.heads_table(study, architecture)
note.show(compared, f"{architecture}_heads")
note.save(reconstructions.plot_head_scores(compared), f"{architecture}_head_scores")

# %% [markdown]
# The head often matters more than the network. Where the feature head is best, it is the pretrained network that
# finds the defects, and the autoencoder only supplies a normal image to compare with.
#
# ## From map to mask
#
# A pixel is marked where it exceeds a high percentile of the pixels of good validation images: one threshold for all
# images. What is smaller than a few pixels is dropped. Scaled image by image, every good image would show a defect.

# %%
from nbhelpers.evaluation.pixel_masks import pixel_threshold

scoring = study.config.autoencoder.scoring
limit = pixel_threshold(val.anomaly_maps[val.labels == 0], scoring.pixel_percentile)
note.save(reconstructions.plot_triplets(chosen, val, limit, limits, scoring.min_area), f"{architecture}_masks")

# %% [markdown]
# White is what would be reported as a defect; the outline is the truth. A mask that follows the object's outline
# instead shows a reconstruction that is not aligned.
#
# ## What does attention look at?
#
# Only a vision transformer has an answer. Where the study has one, it is shown here for every architecture: how much
# of the last block's attention each patch receives, and where one patch looks.

# %%
if "vit" in study.config.architectures:
    weights = study.detector("ae_vit", category).attention(chosen)  # (N, heads, P, P)
    note.save(reconstructions.plot_attention(chosen, seen, weights), "vit_attention")

# %% [markdown]
# An even share is 1. Attention is spread widely in a network that was trained for minutes, so read it as a question
# and not as an explanation.
#
# ## What does it cost?
#
# All architectures that are trained so far with these settings; a forward pass is the reconstruction of one image, on
# the configured device and threads.

# %% tags=["nbval-ignore-output"]
note.show(reconstruction.costs(study), "costs")

# %% [markdown]
# Seconds belong to this machine. The number of weights does not, and it does not measure quality: compare it with
# `mse_good` in the same row.
#
# ## What we found
#
# Computed from this run: the image AUROC of each head, on average over the categories.

# %%
from nbhelpers.results.numbers import label

own = compared[compared.method == method].groupby("head").image_auroc.mean()
print(f"{label(method)}:", ", ".join(f"{label(head)} {value:.2f}" for head, value in own.items()))
note.beside("reconstruction", ["image_auroc"], by_category=True, methods=[method], this_run=False, head="")

# %% [markdown]
# The table has the same heads on real images, if this architecture was trained there. Differences of a few hundredths
# are chance. If all heads are near 0.5, the network is too small, was trained too shortly, or copies; the figures
# above say which.

# %%
histories = {name: [row["held_out_loss"] for row in detector.history] for name, detector in detectors.items()}
assert all(min(losses) < losses[0] for losses in histories.values()), "training did not lower the held-out loss"
assert method in set(note.results.table.method[note.results.table.scenario == "reconstruction"])

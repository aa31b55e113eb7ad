"""Names of the files that a training leaves in its folder."""

WEIGHTS = "weights.safetensors"  # written last: where it is, the training is done
HISTORY = "history.json"
RECIPE = "recipe.json"
ORIGIN = (
    "created",
    "git",
    "python",
    "packages",
    "platform",
    "device",
)  # what is known as a training starts

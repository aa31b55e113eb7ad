"""A vision transformer as autoencoder: patches to tokens, transformer blocks, tokens back to
patches.
"""

from __future__ import annotations

import torch
from timm.layers import PatchEmbed, build_sincos2d_pos_embed
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from nbhelpers.errors import ConfigError
from nbhelpers.models.autoencoders.networks.base import BaseAutoencoder
from nbhelpers.models.autoencoders.pixels import PIXELS


class VitAutoencoder(BaseAutoencoder):
    """Encoder and decoder of pre-normalised blocks (Dosovitskiy et al. 2021) on a token a patch.

    Attention runs over the tokens of one image. Positions are the fixed sines and
    cosines of MAE (He et al. 2022), added before the encoder and again before the decoder. A token
    of the default width holds as many numbers as its patch has values, so a patch can be copied.

    Args:
        image_size: Side of the images, pixels; a multiple of ``patch``.
        patch: Side of a patch, pixels.
        dim: Width of a token; a multiple of 4 and of ``heads``.
        depth: Blocks of the encoder.
        decoder_depth: Blocks of the decoder.
        heads: Of each attention.
        mlp_ratio: Hidden units of a block's perceptron in widths of a token.
        dropout: Of the tokens, the attention and the perceptrons while training.

    Raises:
        ConfigError: a width that heads or positions do not divide.
    """

    name = "vit"

    def __init__(
        self,
        image_size: int,
        patch: int = 16,
        dim: int = 768,
        depth: int = 6,
        decoder_depth: int = 3,
        heads: int = 8,
        mlp_ratio: float = 4.0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(image_size, multiple=patch)
        if dim % heads or dim % 4:
            raise ConfigError(
                f"autoencoder {self.name} dim: expected a multiple of 4 and of heads={heads}, found {dim}"
                "; change dim or heads"
            )

        def blocks(count: int) -> nn.Sequential:
            return nn.Sequential(
                *(
                    Block(
                        dim, heads, mlp_ratio, qkv_bias=True, proj_drop=dropout, attn_drop=dropout
                    )
                    for _ in range(count)
                ),
                nn.LayerNorm(dim),
            )

        self.patch, self.side = patch, image_size // patch
        self.embed = PatchEmbed(image_size, patch, 3, dim)
        self.register_buffer(
            "positions", build_sincos2d_pos_embed([self.side, self.side], dim), persistent=False
        )
        self.dropout = nn.Dropout(dropout)
        self.encoder, self.decoder = blocks(depth), blocks(decoder_depth)
        self.head = nn.Linear(dim, 3 * patch**2)
        self.activation = PIXELS.activation()

    def _tokens(self, images: Tensor) -> Tensor:
        return self.dropout(self.embed(images) + self.positions)

    def encode(self, images: Tensor) -> Tensor:
        """Tokens ``(B, N, dim)``, row by row."""
        return self.encoder(self._tokens(images))

    def decode(self, latent: Tensor) -> Tensor:
        values = self.activation(
            self.head(self.decoder(latent + self.positions))
        )  # (B, N, 3 * patch^2)
        return F.fold(values.mT, self.image_size, self.patch, stride=self.patch)

    @torch.no_grad()
    def attention(self, images: Tensor, layer: int = -1) -> Tensor:
        """How much each token of the encoder looks at each other one, in evaluation mode.

        Args:
            images: ``(B, 3, H, W)`` in [-1, 1].
            layer: Block of the encoder, from 0; negative from the last.

        Returns:
            ``(B, heads, N, N)``; a row (the token that looks) sums to 1.

        Raises:
            ConfigError: no such block.
        """
        self.check(images)
        blocks = self.encoder[:-1]  # the last is a normalisation
        if not -len(blocks) <= layer < len(blocks):
            raise ConfigError(
                f"layer: expected {-len(blocks)} to {len(blocks) - 1}, found {layer}; the encoder has "
                f"{len(blocks)} blocks"
            )
        training = self.training
        try:
            self.eval()
            block = blocks[layer]
            tokens = block.norm1(blocks[: layer % len(blocks)](self._tokens(images)))
            return attention_weights(block.attn, tokens)
        finally:
            self.train(training)


def attention_weights(attention: nn.Module, tokens: Tensor) -> Tensor:
    """Weights ``(B, heads, N, N)`` that timm's ``Attention`` gives ``(B, N, dim)`` tokens; it does
    not return them.
    """
    batch, count, _ = tokens.shape
    queries, keys, _ = (
        attention.qkv(tokens)
        .reshape(batch, count, 3, attention.num_heads, -1)
        .permute(2, 0, 3, 1, 4)
    )
    queries, keys = attention.q_norm(queries), attention.k_norm(keys)
    return (queries @ keys.mT * attention.scale).softmax(dim=-1)

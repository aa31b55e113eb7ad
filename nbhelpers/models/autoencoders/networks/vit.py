"""A vision transformer as an autoencoder: patches become tokens, and tokens become patches."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import PatchEmbed, build_sincos2d_pos_embed
from timm.models.vision_transformer import Attention, Block
from torch import Tensor, nn
from torch.nn import functional as F

from nbhelpers.errors import ConfigError
from nbhelpers.models.autoencoders.networks.base import BaseAutoencoder
from nbhelpers.models.autoencoders.pixels import PIXELS


class VitAutoencoder(BaseAutoencoder):
    """An encoder and a decoder of transformer blocks, with one token per patch.

    The blocks normalise their input (Dosovitskiy et al. 2021), and attention runs over the tokens
    of one image. The positions are the fixed sines and cosines of MAE (He et al. 2022); they are
    added before the encoder and again before the decoder. A token of the default width holds as
    many numbers as its patch has pixel values, so the network can copy a patch.

    Args:
        image_size: Side of the images, in pixels; a multiple of ``patch``.
        patch: Side of a patch, in pixels.
        dim: Width of a token; a multiple of 4 and of ``heads``.
        depth: Number of blocks of the encoder.
        decoder_depth: Number of blocks of the decoder.
        heads: Number of heads of each attention.
        mlp_ratio: Number of hidden units of a block's perceptron, in units of ``dim``.
        dropout: Share of the tokens' values, of the attention and of the perceptrons' outputs that
            is dropped while training, in [0, 1).

    Raises:
        ConfigError: If ``dim`` is not a multiple of 4 and of ``heads``.
    """

    name = "vit"
    positions: Tensor

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
                f"autoencoder {self.name} dim: expected a multiple of 4 and of heads={heads}, "
                f"found {dim}; change dim or heads"
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

        self.patch = patch
        self.embed = PatchEmbed(image_size, patch, 3, dim)
        side = image_size // patch
        self.register_buffer(
            "positions", build_sincos2d_pos_embed([side, side], dim), persistent=False
        )
        self.dropout = nn.Dropout(dropout)
        self.encoder, self.decoder = blocks(depth), blocks(decoder_depth)
        self.head = nn.Linear(dim, 3 * patch**2)
        self.activation = PIXELS.activation()

    def _tokens(self, images: Tensor) -> Tensor:
        """Turn images into tokens ``(B, N, dim)``, N = (image_size / patch)^2, row by row."""
        return self.dropout(self.embed(images) + self.positions)

    def encode(self, images: Tensor) -> Tensor:
        """Compute the encoded tokens ``(B, N, dim)``, row by row."""
        return self.encoder(self._tokens(images))

    def decode(self, latent: Tensor) -> Tensor:
        """Turn encoded tokens into images ``(B, 3, H, W)`` in [-1, 1]."""
        tokens = self.decoder(latent + self.positions)  # (B, N, dim)
        values = self.activation(self.head(tokens))  # (B, N, 3 * patch^2)
        return F.fold(values.mT, self.image_size, self.patch, stride=self.patch)

    @torch.no_grad()
    def attention(self, images: Tensor, layer: int = -1) -> Tensor:
        """Compute how much each token of the encoder attends to each other token.

        The network is in evaluation mode meanwhile.

        Args:
            images: ``(B, 3, H, W)`` in [-1, 1].
            layer: Number of the encoder's block, from 0; a negative one counts from the last.

        Returns:
            ``(B, heads, N, N)``. Each row, the weights of one attending token, sums to 1.

        Raises:
            ConfigError: If there is no such block.
            ModelError: If the images have another shape.
        """
        self.check(images)
        blocks = self.encoder[:-1]  # the last is a normalisation
        if not -len(blocks) <= layer < len(blocks):
            raise ConfigError(
                f"layer: expected {-len(blocks)} to {len(blocks) - 1}, found {layer}; choose one "
                f"of the encoder's {len(blocks)} blocks"
            )
        training = self.training
        try:
            self.eval()
            block: Any = blocks[layer]  # one of timm's; nn.Module does not declare its attributes
            tokens = block.norm1(blocks[: layer % len(blocks)](self._tokens(images)))
            return attention_weights(block.attn, tokens)
        finally:
            self.train(training)


def attention_weights(attention: Attention, tokens: Tensor) -> Tensor:
    """Compute the weights that timm's ``Attention`` uses but does not return.

    Args:
        attention: The attention of a block.
        tokens: ``(B, N, dim)``, the input of the attention.

    Returns:
        ``(B, heads, N, N)``; each row sums to 1.
    """
    batch, count, _ = tokens.shape
    queries, keys, _ = (
        attention.qkv(tokens)
        .reshape(batch, count, 3, attention.num_heads, -1)
        .permute(2, 0, 3, 1, 4)
    )
    queries, keys = attention.q_norm(queries), attention.k_norm(keys)
    return (queries @ keys.mT * attention.scale).softmax(dim=-1)

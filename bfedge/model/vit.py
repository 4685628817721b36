"""The vision transformer: patch embedding, pre-LayerNorm blocks, head (ButterflyViT Algorithm 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bfedge.config import ViTConfig
from bfedge.model import exact
from bfedge.model.experts import FEED_FORWARD, Routing
from bfedge.model.layers import Attention, LayerNorm, Quantised, QuantisedLinear, fake_quantise, quantise_rows


class PatchEmbedding(Quantised):
    """Pixels 0..255 [images, height, width, channels] to tokens [images, tokens, d_model] (NUMERICS.md, section 4).

    The normalisation (p / 255 - mean) / std is folded into weight and bias, so that uint8 pixels enter without
    rounding.
    """

    gain: Tensor
    shift: Tensor

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.weight = nn.Parameter(torch.empty(config.d_model, config.patch_columns))
        self.bias = nn.Parameter(torch.zeros(config.d_model))
        self.position = nn.Parameter(torch.randn(config.tokens, config.d_model) * 0.02)
        self.class_token = nn.Parameter(torch.zeros(config.d_model)) if config.pooling == "class" else None
        nn.init.xavier_uniform_(self.weight)
        mean = torch.tensor(config.pixel_mean, dtype=torch.float64).expand(config.channels)
        std = torch.tensor(config.pixel_std, dtype=torch.float64).expand(config.channels)
        repeats = config.patch_size * config.patch_size
        self.register_buffer("gain", (1 / (255 * std)).repeat(repeats), persistent=False)
        self.register_buffer("shift", ((128 / 255 - mean) / std).repeat(repeats), persistent=False)

    def folded_weight(self) -> Tensor:
        """[d_model, patch columns], to be multiplied with pixel - 128."""
        return self.weight * self.gain.float()

    def folded_position(self) -> Tensor:
        """[tokens, d_model]: position, patch bias, pixel shift and class token in one table."""
        bias = self.bias + (self.weight.double() @ self.shift).float()
        if self.class_token is None:
            return self.position + bias
        return torch.cat([(self.position[0] + self.class_token)[None], self.position[1:] + bias])

    def forward(self, images: Tensor) -> Tensor:
        count, height, width, channels = images.shape
        p = self.patch_size
        patches = images.float().view(count, height // p, p, width // p, p, channels).transpose(2, 3)
        centred = patches.reshape(count, -1, p * p * channels) - 128
        weight = self.folded_weight()
        if self.exact:
            values, scales = quantise_rows(weight)
            y = exact.integer_product(centred, values.T) * scales[:, 0]
        else:
            y = centred @ (fake_quantise(weight)[0] if self.quantised else weight).T
        position = self.folded_position()
        if self.class_token is None:
            return y + position
        return torch.cat([position[:1].expand(count, 1, -1), y + position[1:]], 1)


class Block(nn.Module):
    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.norm1 = LayerNorm(config.d_model)
        self.attention = Attention(config.d_model, config.heads, config.projection_weights)
        self.norm2 = LayerNorm(config.d_model)
        self.experts = FEED_FORWARD[config.feed_forward](config)

    def forward(self, z: Tensor) -> tuple[Tensor, Routing | None]:
        z = z + self.attention(self.norm1(z))
        out, routing = self.experts(self.norm2(z))
        return z + out, routing


class ViT(nn.Module):
    """Logits [images, classes] of images [images, height, width, channels] with pixels 0..255."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = PatchEmbedding(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = LayerNorm(config.d_model)
        self.head = QuantisedLinear(config.d_model, config.classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_with_routing(images)[0]

    def forward_with_routing(self, images: Tensor) -> tuple[Tensor, list[Routing]]:
        """The logits, and each layer's routing (none for dense feed-forward layers)."""
        z = self.embedding(images)
        routings = []
        for block in self.blocks:
            z, routing = block(z)
            if routing is not None:
                routings.append(routing)
        return self.head(self.pool(z)), routings

    def pool(self, z: Tensor) -> Tensor:
        y: Tensor = self.norm(z[:, 0] if self.config.pooling == "class" else z)
        if self.config.pooling == "class":
            return y
        if not self.norm.exact:
            return y.mean(1)
        total = torch.zeros_like(y[:, 0])
        for token in range(y.shape[1]):  # the order that NUMERICS.md states
            total = total + y[:, token]
        return total * float(exact.divide(1, y.shape[1]))

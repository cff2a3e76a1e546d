"""Vision transformer: pictures to maps of features."""

from typing import Any

import flax.linen as nn
import jax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jhand.nn.attention import Encoder


class ViT(nn.Module):
    """Vision transformer (Dosovitskiy et al., ICLR 2021) without a class token: (b, H, W, 3) to (b, h, w, C).

    A patch becomes a token, learned positions are added, blocks follow, then a norm. Positions belong to pictures of
    `image_size`; for others they are interpolated (bicubic).

    Attributes:
        channels: C.
        layers: how many blocks.
        heads: of the attention.
        patch: pixels a side.
        image_size: height and width that the positions are made for; they need not be equal.
        padding: zeros around the picture. ViTPose has 2 (and HaMeR, WiLoR and Hamba after it), which changes where
            patches lie and not how many there are.
        mlp_ratio: hidden channels of the MLPs over C.
        drop_path: how often the last block's branches are left out in training; less before it.
        remat: whether the gradient computes each block again, which saves memory.
        dtype: of the computation.
    """

    channels: int
    layers: int
    heads: int
    patch: int = 16
    image_size: tuple[int, int] = (256, 192)
    padding: int = 0
    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    remat: bool = False
    dtype: DTypeLike | None = None

    @classmethod
    def tiny(cls, **changes: Any) -> "ViT":
        """0.5 M parameters, for pictures of 64 x 64 on a CPU; `changes` replace attributes."""
        return cls(**dict[str, Any](channels=96, layers=4, heads=3, patch=8, image_size=(64, 64)) | changes)

    @classmethod
    def small(cls, **changes: Any) -> "ViT":
        """ViT-S/16, 22 M parameters; `changes` replace attributes."""
        return cls(**dict[str, Any](channels=384, layers=12, heads=6) | changes)

    @classmethod
    def paper(cls, **changes: Any) -> "ViT":
        """ViTPose-H's backbone (Xu et al., NeurIPS 2022), 630 M parameters, for crops of 256 x 192; `changes` replace
        attributes.
        """
        return cls(
            **dict[str, Any](channels=1280, layers=32, heads=16, padding=2, drop_path=0.55, remat=True) | changes
        )

    @nn.compact
    def __call__(self, images: Array, *, deterministic: bool = True) -> Float[Array, "b h w c"]:
        p, around = self.patch, 2 * self.padding
        if min(images.shape[1:3]) + around < p:
            raise ValueError(f"pictures are (b, H, W, 3) of at least one patch of {p} pixels, got {images.shape}")
        x = nn.Conv(
            self.channels,
            (p, p),
            strides=p,
            padding=[(self.padding, self.padding)] * 2,
            dtype=self.dtype,
            name="patches",
        )(images)
        grid = tuple((n + around - p) // p + 1 for n in self.image_size)
        places = self.param("places", nn.initializers.normal(0.02), (*grid, self.channels))
        if x.shape[1:3] != grid:
            places = jax.image.resize(places, x.shape[1:], "bicubic")
        x = x + places.astype(x.dtype)
        encoder = Encoder(
            self.layers,
            self.heads,
            self.mlp_ratio,
            drop_path=self.drop_path,
            remat=self.remat,
            dtype=self.dtype,
            name="encoder",
        )
        return encoder(x.reshape(x.shape[0], -1, self.channels), deterministic=deterministic).reshape(x.shape)

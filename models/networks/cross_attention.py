"""Attention between the feature maps of several tasks."""

from collections.abc import Sequence
from itertools import permutations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from models.networks.rows import EVERY, Rows, select_rows
from util.errors import ConfigError

WINDOW = 16  # features a side
N_HEADS = 4
MLP_RATIO = 4
TABLE_SD = 0.02  # of the initial position biases


class PairAttention(nn.Module):
    """What one task's map takes from another's, within windows: attention, then a perceptron, each with a residual.

    Source: PSSNet (Pattern Recognition 2024), released code; windows and position biases as in Swin (ICCV 2021).
    """

    position_index: Tensor

    def __init__(self, channels: int, window: int = WINDOW, n_heads: int = N_HEADS) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm = nn.LayerNorm(channels)  # of both maps
        self.query, self.key_value = nn.Linear(channels, channels), nn.Linear(channels, 2 * channels)
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, n_heads))
        nn.init.normal_(self.relative_position_bias_table, std=TABLE_SD)
        self.register_buffer("position_index", _position_index(window), persistent=False)
        self.projection = nn.Linear(channels, channels)
        hidden = MLP_RATIO * channels
        self.perceptron = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels)
        )

    def forward(
        self,
        own: Float[Tensor, "B N L C"],
        other: Float[Tensor, "B N L C"],
        window: tuple[int, int],
        exists: Bool[Tensor, "N L"] | None = None,
    ) -> Float[Tensor, "B N L C"]:
        """The task's own map, and what it found in the other's.

        Args:
            own: N windows of L features of each image, which ask.
            other: the windows of the other task, which answer.
            window: rows and columns of a window, L = rows * columns, up to the module's own.
            exists: whether a feature is part of the map, not of its padding, which never answers; None: all are.
        """
        query = self._split(self.query(self.norm(own)))
        key, value = (self._split(each) for each in self.key_value(self.norm(other)).chunk(2, -1))
        bias = self._bias(window, exists, len(own)).to(query.dtype)
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)  # (B * N, heads, L, C / heads)
        joined = own + self.projection(found.transpose(1, 2).reshape(own.shape))
        return joined + self.perceptron(joined)

    def _split(self, features: Float[Tensor, "B N L C"]) -> Float[Tensor, "BN heads L c"]:
        return features.flatten(0, 1).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)

    def _bias(
        self, window: tuple[int, int], exists: Bool[Tensor, "N L"] | None, n_images: int
    ) -> Float[Tensor, "_ heads L L"]:
        """What is added to the similarities of each window: by the distance of two features, -inf for padding."""
        rows, columns = window
        index, length = self.position_index[:rows, :columns, :rows, :columns], rows * columns
        bias = self.relative_position_bias_table[index.flatten()].unflatten(0, (length, length))
        bias = bias.permute(2, 0, 1)[None]  # (1, heads, L, L)
        if exists is None:
            return bias
        return bias.masked_fill(~exists[:, None, None], -torch.inf).repeat(n_images, 1, 1, 1)


class CrossTaskAttention(nn.Module):
    """Adds to the map of each task what it finds in those of all others; with a single task, the map as it is.

    It is the identity, exactly, where weight and bias of the norm in every entry of `joins` are 0, and also as long as
    the convolution before it is 0 and the norm has its initial bias.

    Source: PSSNet (Pattern Recognition 2024), released code (cross-task attention module).
    Note: maps are padded to multiples of the window, or of their own side where it is smaller; features of the padding
    are left out of the attention.
    """

    def __init__(self, n_tasks: int, channels: int, window: int = WINDOW, n_heads: int = N_HEADS) -> None:
        """Builds a block for every ordered pair of tasks.

        Raises:
            ConfigError: the channels cannot be divided among the heads.
        """
        super().__init__()
        if channels % n_heads:
            raise ConfigError(f"network.channels={channels}: attention has {n_heads} heads; expected a multiple of it.")
        self.n_tasks, self.window = n_tasks, window
        self.pairs = nn.ModuleDict(
            {
                f"{own}_{other}": PairAttention(channels, window, n_heads)
                for own, other in permutations(range(n_tasks), 2)
            }
        )
        n_joins = n_tasks if n_tasks > 1 else 0
        self.joins = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d((n_tasks - 1) * channels, channels, 1, bias=False), nn.GroupNorm(1, channels), nn.ReLU(True)
            )
            for _ in range(n_joins)
        )

    def forward(
        self, maps: Sequence[Float[Tensor, "B C h w"]], rows: Sequence[Rows] | None = None
    ) -> list[Float[Tensor, "_ C h w"]]:
        """The map of each task with what it found in the others'.

        Args:
            maps: of each task, of the same images.
            rows: of each task, the images that are wanted; None: all.
        """
        wanted = [EVERY] * self.n_tasks if rows is None else rows
        chosen = [select_rows(each, images) for each, images in zip(maps, wanted, strict=True)]
        if self.n_tasks == 1:
            return chosen
        size = tuple(maps[0].shape[-2:])
        window = min(self.window, size[0]), min(self.window, size[1])
        windows, exists = [to_windows(each, window) for each in maps], _exists(maps[0], window)
        found = []
        for number, (own, images) in enumerate(zip(chosen, wanted, strict=True)):
            asking = select_rows(windows[number], images)
            answers = [
                self.pairs[f"{number}_{other}"](asking, select_rows(windows[other], images), window, exists)
                for other in range(self.n_tasks)
                if other != number
            ]
            joined = from_windows(torch.cat(answers, -1), size, window)
            found.append(own + self.joins[number](joined))
        return found


def _exists(like: Float[Tensor, "B C h w"], window: tuple[int, int]) -> Bool[Tensor, "N L"] | None:
    """Which features of the windows are part of the map; None: all."""
    height, width = like.shape[-2:]
    if height % window[0] == 0 and width % window[1] == 0:
        return None
    return to_windows(like.new_ones(1, 1, height, width), window)[0, ..., 0] > 0


def to_windows(maps: Float[Tensor, "B C h w"], window: tuple[int, int]) -> Float[Tensor, "B N L C"]:
    """Windows row by row, of features row by row; maps are padded with 0 at the bottom and the right."""
    height, width = maps.shape[-2:]
    padded = F.pad(maps, (0, -width % window[1], 0, -height % window[0]))
    cut = padded.unflatten(3, (-1, window[1])).unflatten(2, (-1, window[0]))  # (B, C, rows, y, columns, x)
    return cut.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2)


def from_windows(
    windows: Float[Tensor, "B N L C"], size: tuple[int, ...], window: tuple[int, int]
) -> Float[Tensor, "B C h w"]:
    """The inverse of `to_windows`, for maps of this height and width."""
    rows, columns = -(-size[0] // window[0]), -(-size[1] // window[1])
    cut = windows.unflatten(2, window).unflatten(1, (rows, columns)).permute(0, 5, 1, 3, 2, 4)
    return cut.flatten(4, 5).flatten(2, 3)[..., : size[0], : size[1]]


def _position_index(window: int) -> Int[Tensor, "y x y x"]:
    """Row of the table for each two features of a window: by the difference of their rows and of their columns."""
    place = torch.arange(window)
    difference = place[:, None] - place + window - 1
    return (2 * window - 1) * difference[:, None, :, None] + difference[None, :, None, :]

from __future__ import annotations

import pytest
import torch

from internimage.layers.attention_pool import AttentionPool


def test_equals_the_written_out_form() -> None:
    pool = AttentionPool(16, num_heads=4, out_channels=6).double()
    tokens = torch.randn(3, 10, 16, dtype=torch.float64)
    q = pool.q(pool.norm_q(tokens.mean(1)))
    k, v = pool.k(pool.norm_k(tokens)), pool.v(pool.norm_v(tokens))
    heads = []
    for h in range(4):
        part = slice(4 * h, 4 * h + 4)
        weights = (torch.einsum("nc,ntc->nt", q[:, part], k[:, :, part]) * 4**-0.5).softmax(-1)
        heads.append(torch.einsum("nt,ntc->nc", weights, v[:, :, part]))
    torch.testing.assert_close(pool(tokens), pool.proj(torch.cat(heads, dim=-1)))


def test_heads_must_divide_channels() -> None:
    with pytest.raises(ValueError, match="num_heads must divide channels"):
        AttentionPool(10, num_heads=4, out_channels=2)

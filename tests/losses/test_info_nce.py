"""InfoNCE against transformers' CLIP loss."""

import numpy as np
import pytest
import torch

import numpy_impl.losses.info_nce as by_hand
import torch_impl.losses.info_nce as twin


def test_symmetric_is_clip_s_loss():
    clip = pytest.importorskip("transformers.models.clip.modeling_clip")
    rng = np.random.default_rng(0)
    text, image = rng.standard_normal((2, 6, 4))
    loss = getattr(clip, "image_text_contrastive_loss", None) or clip.clip_loss  # its name in version 5, and before
    want = loss(torch.tensor(text @ image.T / 0.5)).item()
    assert by_hand.info_nce(text, image, temperature=0.5, symmetric=True)[0] == pytest.approx(want, rel=1e-12)
    assert twin.info_nce(*map(torch.tensor, (text, image)), temperature=0.5, symmetric=True).item() == pytest.approx(want, rel=1e-12)

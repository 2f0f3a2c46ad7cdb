"""Patch embedding against the embedding of transformers' vision transformer."""

import numpy as np
import pytest

from numpy_impl.ops.patch_embedding import patch_embedding, patch_embedding_conv


@pytest.mark.parametrize("embed", [patch_embedding, patch_embedding_conv])
def test_agrees_with_transformers(embed):
    torch = pytest.importorskip("torch")
    vit = pytest.importorskip("transformers.models.vit.modeling_vit")
    config = pytest.importorskip("transformers").ViTConfig(image_size=12, patch_size=4, num_channels=3, hidden_size=10)
    theirs = vit.ViTPatchEmbeddings(config).double()
    images = np.random.default_rng(0).standard_normal((2, 3, 12, 12))
    weight, bias = (p.detach().numpy() for p in (theirs.projection.weight, theirs.projection.bias))
    with torch.no_grad():
        want = theirs(torch.from_numpy(images)).numpy()
    y, _ = embed(images, weight, bias, patch=4)
    np.testing.assert_allclose(y, want, rtol=0, atol=1e-12)

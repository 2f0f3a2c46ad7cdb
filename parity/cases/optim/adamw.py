"""What AdamW is fed: moments that remember much, little or nothing, gradients down to ε, options by group; and what it refuses."""

from parity.cases import case, flag, left_out, one_of
from parity.cases.optim.trajectory import bench, moments, refused, refused_by_all, resumes, trajectory

_GROUPS = [
    [{"pattern": "*.bias", "weight_decay": 0.0}],
    [{"pattern": "attn.*", "lr_scale": 0.1, "betas": (0.5, 0.9)}, {"pattern": "*", "weight_decay": 0.3, "eps": 1e-3}],
]


@case("optim.AdamW", kind="optimizer", bench=bench(), also=[resumes("optim.AdamW"), moments("optim.AdamW")], refuses=[*refused_by_all(),
                                               refused({"betas": (1.0, 0.999)}),
                                               refused({"betas": (0.9, 1.0)}),
                                               refused({"betas": (-0.1, 0.9)}),
                                               refused({"betas": (0.9, 0.99, 0.999)}),
                                               refused({"betas": 0.9}),
                                               refused({"eps": -1e-8}),
                                               refused({"eps": float("nan")}),
                                               refused({"groups": [{"pattern": "w", "betas": (0.9,)}]})])
def adamw(draw):
    options = {
        "betas": left_out(one_of((0.9, 0.999), (0.9, 0.95), (0.0, 0.5), (0.5, 0.0))),
        "eps": left_out(one_of(1e-8, 1e-3)),
        "weight_decay": left_out(one_of(0.0, 0.1)),
        "maximize": left_out(flag()),
        "groups": left_out(one_of(None, *_GROUPS)),
    }
    return trajectory(draw, options, grad_scale=one_of(1.0, 1e-8))

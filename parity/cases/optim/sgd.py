"""What SGD is fed: every combination of momentum, dampening and look-ahead, options by group; and what it refuses."""

from parity.cases import case, flag, left_out, one_of
from parity.cases.optim.trajectory import bench, refused, refused_by_all, resumes, trajectory

_GROUPS = [
    [{"pattern": "*.bias", "weight_decay": 0.0}],
    [{"pattern": "attn.*", "lr_scale": 0.1, "momentum": 0.5}, {"pattern": "*", "weight_decay": 0.3, "momentum": 0.0, "nesterov": False}],
]


@case("optim.SGD", kind="optimizer", bench=bench(momentum=0.9), also=[resumes("optim.SGD")], refuses=[*refused_by_all(),
                                              refused({"momentum": -0.1}),
                                              refused({"dampening": -0.1, "momentum": 0.9}),
                                              refused({"dampening": 1.1, "momentum": 0.9}),
                                              refused({"nesterov": True}),
                                              refused({"nesterov": True, "momentum": 0.9, "dampening": 0.1}),
                                              refused({"nesterov": 2, "momentum": 0.9}),
                                              refused({"nesterov": True, "momentum": 0.9,
                                                       "groups": [{"pattern": "w", "momentum": 0.0}]})])
def sgd(draw):
    form = draw(one_of(
        {},
        {"momentum": 0.0},
        {"momentum": 0.9},
        {"momentum": 0.8, "nesterov": True},
        {"momentum": 0.8, "nesterov": False, "dampening": 0.0},
        {"momentum": 0.9, "dampening": 0.3},
    ))
    decay = {"weight_decay": left_out(one_of(0.0, 0.1)), "maximize": left_out(flag())}
    return trajectory(draw, form | decay | {"groups": left_out(one_of(None, *_GROUPS))})

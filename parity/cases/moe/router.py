"""What the router is fed: every option, ties and −∞ among the logits, one expert and many, groups that confine; and what it refuses."""

import dataclasses

import numpy as np

from parity.cases import array, case, dims, flag, integer, left_out, number, one_of
from parity.cases.moe.top_k import crowded
from parity.values import Filled, key_rng


@dataclasses.dataclass(frozen=True)
class decided(Filled):
    """Logits (or what is "given" to choose by) whose choice no rounding can turn: rows in which two scores with their bias, or two sums of
    two, come close are drawn again."""

    score: str = "softmax"
    bias: tuple[float, ...] | None = None
    groups: int = 1

    def make(self, rng, hostility):
        rows = rng.standard_normal(self.shape).astype(np.float32).astype(np.float64).reshape(-1, self.shape[-1])
        for _ in range(100):
            close = self._margin(rows) < 1e-4
            rows[close] = rng.standard_normal(rows[close].shape).astype(np.float32)
        return rows.reshape(self.shape)

    def _margin(self, rows):
        e = np.exp(rows)
        by = {"given": rows, "sigmoid": e / (1 + e), "softmax": e / e.sum(-1, keepdims=True)}[self.score]
        by = by if self.bias is None else by + np.array(self.bias)
        grouped = np.sort(by.reshape(len(rows), self.groups, by.shape[-1] // self.groups), -1)
        of_groups = np.sort(grouped[..., -2:].sum(-1), -1)
        of_experts = np.sort(by, -1)
        return np.minimum(*(np.diff(z, axis=-1).min(-1, initial=np.inf) for z in (of_groups, of_experts)))


def scoring_first_and_sharing_is_scoring_the_chosen(
    side, logits, *, k, score="softmax", by=None, bias=None, groups=1, group_score="max", **options
):
    """softmax(all)[ids] / Σ softmax(all)[ids] = softmax(logits[ids]), in values and in the gradient."""
    if score == "sigmoid" or by is not None or bias is not None or group_score == "top2":
        return      # a chosen softmax may underflow there
    options |= dict(k=k, groups=groups)
    first = _run(side, logits, **options | dict(before=True, renormalise=True))
    then = _run(side, logits, **options | dict(before=False, renormalise=False))
    for label in first:
        yield label, first[label], then[label]


def choices_stay_in_the_top_groups(side, logits, *, groups=1, top_groups=None, **options):
    """No token has experts of more than top_groups groups, even where it must take one whose logit is −∞."""
    size = logits.shape[-1] // groups
    some = key_rng("barred", logits.shape).random(logits.shape) < 0.7
    some[..., -1] = False      # one expert must be left
    for barred in (np.zeros_like(some), some):
        z = side.array(np.where(barred, -np.inf, side.numpy(logits)))
        routes = side.get("moe.router")(z, groups=groups, top_groups=top_groups, **options)
        ids = side.numpy((routes[0] if side.name == "numpy" else routes).ids).reshape(-1, options["k"])
        several = np.array([len(set(row)) for row in (ids // size).tolist()])
        yield "groups too many", (several > (top_groups or groups)).sum(), 0
        yield "experts chosen twice", (np.diff(np.sort(ids, -1), axis=-1) == 0).sum(), 0


def saturated_scores_choose_as_their_logits(side, logits, *, by=None, bias=None, groups=1, group_score="max", **options):
    """Where many scores are rounded to 0 or to 1, the experts with the largest logits are chosen nevertheless."""
    if by is None and bias is None and (groups == 1 or group_score == "max"):
        options |= dict(groups=groups, group_score=group_score)
        yield "ids", _run(side, logits * 4096.0, **options)["ids"], _run(side, logits, **options)["ids"]


def the_best_group_is_the_stated_one(side, logits, **options):
    """Of three groups one has the best expert, one the best two and one the best three."""
    scores = np.array([0.9, 0.1, 0.1, 0.7, 0.0, 0.8, 0.6, 0.75, 0.6])
    for group_score, best in (("max", 0), ("top2", 5)):
        routed = _run(side, side.array(scores), k=1, score="sigmoid", groups=3, top_groups=1, group_score=group_score)
        yield f"the best by {group_score}", routed["ids"], np.array([best])


def vanishing_scores_share_less_than_everything(side, logits, **options):
    """Three sigmoids of 1e-20 are a quarter each, not a third: so much is added to what divides them."""
    routed = _run(side, side.array(np.full((2, 3), np.log(1e-20))), k=3, score="sigmoid", renormalise=True)
    yield "weights", routed["weights"], np.full((2, 3), 0.25)


def _run(side, logits, **options):
    """weights, ids, and dlogits of a cotangent on the weights."""
    if side.name == "numpy":
        routes, backward = side.get("moe.router")(logits, **options)
        dweights = key_rng("dweights", routes.weights.shape).standard_normal(routes.weights.shape)
        return dict(weights=routes.weights, ids=routes.ids, dlogits=backward(dweights, np.zeros_like(routes.scores)))
    z = logits.detach().requires_grad_()
    routes = side.get("moe.router")(z, **options)
    dweights = key_rng("dweights", tuple(routes.weights.shape)).standard_normal(tuple(routes.weights.shape))
    routes.weights.backward(side.array(np.asarray(dweights)))
    return dict(weights=routes.weights, ids=routes.ids, dlogits=z.grad)


@case(
    "moe.router",
    bench=dict(logits=array(4096, 64), k=8),
    also=[
        scoring_first_and_sharing_is_scoring_the_chosen,
        choices_stay_in_the_top_groups,
        saturated_scores_choose_as_their_logits,
        the_best_group_is_the_stated_one,
        vanishing_scores_share_less_than_everything,
    ],
    equivalent={
        "top_groups < groups -> top_groups <= groups": "where every group stays, none is shut",
        "np.sort(grouped, -1)[..., -best:].sum(-1) -> np.sort(grouped, -1)[..., -best:].mean(-1)": "the groups rank alike",
    },
    fixed={"bias": "it only chooses; balance_bias moves it", "by": "it only chooses"},
    refuses=[
        dict(logits=array(), k=1),
        dict(logits=array(2, 3), k=0),
        dict(logits=array(2, 3), k=4),
        dict(logits=array(2, 0), k=1),
        dict(logits=array(2, 3), k=1.0),
        dict(logits=np.array([[0.0, np.nan]]), k=1),
        dict(logits=np.array([[0.0, np.inf]]), k=1),
        dict(logits=np.array([[-np.inf, -np.inf]]), k=1),
        dict(logits=np.array([[0, 1]]), k=1),
        dict(logits=array(2, 3), k=1, score="softplus"),
        dict(logits=array(2, 4), k=1, groups=2, group_score="top3"),
        dict(logits=array(2, 3), k=1, scale=0.0),
        dict(logits=array(2, 3), k=1, scale=float("nan")),
        dict(logits=array(2, 3), k=1, bias=array(2)),
        dict(logits=array(2, 3), k=1, bias=array(1, 3)),
        dict(logits=array(2, 3), k=1, bias=np.array([0.0, np.nan, 1.0])),
        dict(logits=array(2, 3), k=1, bias=np.array([0, 1, 2])),
        dict(logits=array(2, 3), k=1, by=array(3)),
        dict(logits=array(1, 2), k=1, by=np.array([[0.0, np.nan]])),
        dict(logits=array(2, 6), k=1, groups=4),
        dict(logits=array(2, 6), k=1, groups=0),
        dict(logits=array(2, 6), k=1, groups=3, top_groups=4),
        dict(logits=array(2, 6), k=1, groups=3, top_groups=0),
        dict(logits=array(2, 6), k=3, groups=3, top_groups=1),
    ],
)
def router(draw):
    *lead, _ = draw(dims(1, 3))
    way = draw(one_of("plain", "groups", "groups", "bias", "both"))
    groups = 1 if way in ("plain", "bias") or draw.edges else draw(one_of(2, 3, 4))
    e = draw(one_of(1, 2, 3, 4, 5, 8)) if groups == 1 else groups * draw(one_of(1, 2, 3, 4, 5))
    top_groups = draw(integer(1, groups))
    score, group_score = draw(one_of("softmax", "sigmoid")), draw(one_of("max", "top2"))
    bias = tuple(draw(number(-1, 1)) for _ in range(e)) if way in ("bias", "both") else None
    if bias is None and (groups == 1 or group_score == "max"):     # chosen by the logits themselves: ties, −∞ and any size will do
        logits = array(*lead, e)
        by = draw(left_out(one_of(None, crowded((*lead, e)))))
        if not draw.ordinary and not isinstance(by, crowded):      # nobody should be sent where no logit is finite
            logits = draw(one_of(logits, crowded((*lead, e), scores=True)))
    elif draw(one_of(False, False, True)):
        logits, by = array(*lead, e), decided((*lead, e), "given", bias, groups)
    else:
        logits, by = decided((*lead, e), score, bias, groups), draw(left_out(None))
    return dict(
        logits=logits,
        k=draw(integer(1, top_groups * (e // groups))),
        score=draw(left_out("softmax")) if score == "softmax" else score,
        before=draw(left_out(flag())),
        renormalise=draw(left_out(flag())),
        scale=draw(left_out(one_of(1.0, 2.5, 0.25))),
        by=by,
        bias=draw(left_out(None)) if bias is None else np.array(bias),
        groups=draw(left_out(1)) if groups == 1 else groups,
        top_groups=draw(left_out(None)) if top_groups == groups and draw(flag()) else top_groups,
        group_score=draw(left_out("max")) if group_score == "max" else group_score,
    )

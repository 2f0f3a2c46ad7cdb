"""What a model's training loss adds for the sake of its routers."""

import dataclasses

from byhand.checks import choice, demand, in_range


@dataclasses.dataclass(frozen=True)
class RoutingLoss:
    """balance · load_balance + z · z_loss, summed over the layers that route.

    Parameters
    ----------
    balance : float       weight of the load-balance loss: 0.01 in the Switch Transformer, 0.02 in Mixtral
    z : float             weight of the router's z-loss: 0.001 in ST-MoE
    jointly : bool        whether all layers count as one that saw the tokens of all (transformers' way); else each has a loss of its own
    per_sequence : bool   whether every sequence is to be balanced by itself (DeepSeek-V2 and V3)
    score : str           "softmax" or "sigmoid": what makes probabilities of a router's logits; sigmoids are divided by their sum

    Raises
    ------
    ValueError   if a weight is negative or not finite, the score is unknown, or jointly and per_sequence are both asked for

    Examples
    --------
    >>> RoutingLoss(balance=0.02, jointly=True).z
    0.0
    """

    balance: float = 0.0
    z: float = 0.0
    jointly: bool = False
    per_sequence: bool = False
    score: str = "softmax"

    def __post_init__(self) -> None:
        in_range("RoutingLoss", 0, 1e9, balance=self.balance, z=self.z)
        choice("RoutingLoss", ("softmax", "sigmoid"), score=self.score)
        for name in ("jointly", "per_sequence"):
            demand("RoutingLoss", isinstance(getattr(self, name), bool), f"{name} as True or False", **{name: getattr(self, name)})
        demand("RoutingLoss", not (self.jointly and self.per_sequence), "layers taken jointly or sequences apart, not both",
               jointly=self.jointly, per_sequence=self.per_sequence)

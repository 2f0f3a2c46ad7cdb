"""What no law can see in the base of the causal models."""

_UNSEEN = "no sample shows so small a change of the deviation"

EQUIVALENT = {
    "blocks=True -> blocks=False": "the default serves a block by itself, whose names do not begin with 'blocks.'",
    "0.02 / math.sqrt(2 * self.config.n_layers) -> 0.02002 / math.sqrt(2 * self.config.n_layers)": _UNSEEN,
    "0.02 / math.sqrt(2 * self.config.n_layers) -> 0.02000002 / math.sqrt(2 * self.config.n_layers)": _UNSEEN,
    "fill_normal(array, rng, 0.02) -> fill_normal(array, rng, 0.02002)": _UNSEEN,
    "fill_normal(array, rng, 0.02) -> fill_normal(array, rng, 0.02000002)": _UNSEEN,
}

"""What no law can see of the hypotheses of a beam search."""

EQUIVALENT = {
    "1 + len(config.eos) -> 2 + len(config.eos)": "candidates that are not needed rank behind those that are",
}

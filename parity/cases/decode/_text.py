"""What no law can see of texts that grow several tokens at a time."""

EQUIVALENT = {
    "int(kept.max()) + 1 -> int(kept.max()) + 2": "what stands behind the tokens that are kept is masked",
}

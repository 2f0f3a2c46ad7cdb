"""What no law can see in evenly spaced numbers."""

EQUIVALENT = {
    "2 * k < parts -> 2 * k <= parts": "counted from either end, the middle of the intervals that tables are made of is the same float32",
}

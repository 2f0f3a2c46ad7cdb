"""What no law can see in the truncated decomposition."""

_MARGIN = "what rounding makes of a singular value that is 0 lies below the bound in either case, unless the matrix is large"
_TIE = "no entry of a vector lies so near to 1 % below the largest"

EQUIVALENT = {
    "s > max(matrix.shape) * np.finfo(s.dtype).eps * s.max(initial=0) -> s >= max(matrix.shape) * np.finfo(s.dtype).eps * s.max(initial=0)":
        "they differ where s is 0, and 0 is put in its place",
    "max(matrix.shape) * np.finfo(s.dtype).eps -> np.finfo(s.dtype).eps": _MARGIN,
    "max(matrix.shape) -> min(matrix.shape)": _MARGIN,
    "magnitude >= 0.99 * magnitude.max(0, initial=0) -> magnitude > 0.99 * magnitude.max(0, initial=0)": _TIE,
    "0.99 * magnitude.max(0, initial=0) -> 0.99099 * magnitude.max(0, initial=0)": _TIE,
    "0.99 * magnitude.max(0, initial=0) -> 0.99000099 * magnitude.max(0, initial=0)": _TIE,
    "(u * first).sum(0) -> (u * first).mean(0)": "only the sign counts",
}

"""What no law can see in memory that is lent."""

EQUIVALENT = {
    "aligned(1, size, self.dtype) -> aligned(2, size, self.dtype)": "a second row that nobody uses",
    "self.buffers[name].size < size -> self.buffers[name].size <= size": "memory is fetched anew that could have served again",
}

"""What no law can see in memory that is lent."""

EQUIVALENT = {
    "-memory.ctypes.data -> memory.ctypes.data": "where memory begins is a matter of speed",
    "self.buffers[name].size < size -> self.buffers[name].size <= size": "memory is fetched anew that could have served again",
}

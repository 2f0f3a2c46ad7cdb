"""What a process needs in its environment for other libraries to keep to a number of threads."""


def environment(threads: int) -> dict[str, str]:
    """Variables to set before the process starts: every library reads its own, once, when it is loaded.

    XLA's CPU client makes as many threads as PJRT_NPROC says. The flags that are often named for it, --xla_cpu_multi_thread_eigen=false and
    intra_op_parallelism_threads, no longer limit it: with them two threads still shared the work of a jitted product (jax 0.10), with
    PJRT_NPROC=1 one did all of it, by the CPU times in /proc/self/task. (With 2 and more the thread that calls takes a small part, too.)
thinc multiplies by one thread, however many it is given.
    """
    count = str(threads)
    return {
        "OMP_NUM_THREADS": count,                   # torch, bitsandbytes
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,              # NumPy under autograd and numpy-ml
        "BLIS_NUM_THREADS": count,                  # thinc's own products
        "PJRT_NPROC": count,                        # jax
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": "0",
        "HF_HUB_OFFLINE": "1",                      # models are built here: nothing is fetched
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
    }

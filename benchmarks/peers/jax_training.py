"""A GPT's training step by jax.jit on the CPU: value_and_grad and AdamW in one compiled function, whose arguments it may overwrite."""

from typing import Any

from benchmarks.peers._training import BETAS, gpt, numbers
from benchmarks.peers.jax_components import attention, cross_entropy, layer_norm
from benchmarks.peers.jax_workloads import adamw_update
from benchmarks.workload import Work, peer


@peer("jax.jit", of="GPT training step", needs="jax")
def gpt_step(**options: Any) -> Work:
    """The blocks are unrolled, which XLA runs faster than a scan over them."""
    import jax

    model, ids = gpt(**options)
    heads, layers, eps = model.config.n_heads, model.config.n_layers, model.config.norm_eps
    params = {name: jax.device_put(array) for name, array in model.state_dict().items()}
    state = [params, *({name: jax.numpy.zeros_like(array) for name, array in params.items()} for _ in range(2)), jax.numpy.zeros(())]
    tokens = jax.device_put(ids.astype("int32"))

    @jax.value_and_grad
    def loss_and_grads(params: Any, ids: Any) -> Any:
        return _loss(jax, params, ids, heads, layers, eps)

    def update(params: Any, m: Any, v: Any, steps: Any, ids: Any) -> Any:
        loss, grads = loss_and_grads(params, ids)
        return loss, *adamw_update(jax, params, m, v, steps, grads)

    compiled = jax.jit(update, donate_argnums=(0, 1, 2, 3))

    def run() -> Any:
        loss, *state[:] = jax.block_until_ready(compiled(*state, tokens))
        return loss

    def told() -> Any:
        loss = run()
        return loss, {name: m / (1 - BETAS[0]) for name, m in state[1].items()}      # after one step m = (1 − β₁) g

    return Work(run, numbers=lambda: numbers(told))


def _loss(jax: Any, params: Any, ids: Any, heads: int, layers: int, eps: float) -> Any:
    given, wanted = ids[:, :-1], ids[:, 1:]
    b, t = given.shape

    def linear(x: Any, name: str) -> Any:
        return x @ params[f"{name}.weight"].T + params[f"{name}.bias"]

    def norm(x: Any, name: str) -> Any:
        return layer_norm(jax, x, params[f"{name}.weight"], params[f"{name}.bias"], eps)

    def attended(x: Any, name: str) -> Any:
        query, key, value = (linear(x, f"{name}.{part}_proj").reshape(b, t, heads, -1).swapaxes(1, 2) for part in "qkv")
        y = attention(jax, query, key, value, causal=True)
        return linear(y.swapaxes(1, 2).reshape(b, t, -1), f"{name}.o_proj")

    x = params["tokens.weight"][given] + params["positions.weight"][:t]
    for i in range(layers):
        block = f"blocks.{i}"
        x = x + attended(norm(x, f"{block}.norm1"), f"{block}.attn")
        hidden = jax.nn.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.up_proj"), approximate=True)
        x = x + linear(hidden, f"{block}.mlp.down_proj")
    logits = norm(x, "norm") @ params["tokens.weight"].T
    return cross_entropy(jax, logits, wanted)

"""Parameters and optimiser state after a step, from its gradients; both as they were if not finite.

Moments are read and written once a step, so they may wait for it in the memory of the devices'
hosts (`mesh.moments="host"`, see `layout.py`). Each array that does is updated in a loop over its
leading axis, the layers of a scan or the rows of a kernel: a turn fetches one slice of its moments,
updates that slice of the parameters, and puts the moments back. Outside a loop compilers start
copies as early as they can, and all moments would be on the device at once.

Source: Ren et al. 2021 (ZeRO-Offload, arXiv 2101.06840), here with the arithmetic on the device.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from unclip_jax.core import trees
from unclip_jax.core.memories import HOST, on_device
from unclip_jax.stages.stage import Constrain
from unclip_jax.training.guard import keep_if_finite
from unclip_jax.training.optimizer import Optimizer
from unclip_jax.training.state import TrainState

Flat = dict[str, Any]
Update = Callable[[Any, Any, Any, Bool[Array, ""]], tuple[Any, Any, Float[Array, ""]]]
"""(gradients, optimiser state, parameters, whether all is finite) -> (parameters, optimiser state,
norm of the update)."""


def make_update(tx: Optimizer, layout: TrainState, constrain: Constrain | None) -> Update:
    """The update of a state that lies so.

    Args:
      constrain: brings vectors among new parameters into their allowed range.
    """
    waiting = {
        path: where
        for moments in _open(layout.opt_state)[0]
        for path, where in moments.items()
        if where.memory_kind == HOST
    }
    if waiting:
        return _update_in_slices(tx, waiting, constrain)

    def update(grads: Any, opt_state: Any, params: Any, finite: Bool[Array, ""]) -> Any:
        updates, moved = tx.update(grads, opt_state, params)
        new = optax.apply_updates(params, updates)
        if constrain is not None:
            new = constrain(new)
        return *keep_if_finite(finite, (new, moved), (params, opt_state)), optax.tree.norm(updates)

    return update


def _update_in_slices(
    tx: Optimizer, waiting: dict[str, jax.sharding.NamedSharding], constrain: Constrain | None
) -> Update:
    """The update where the moments of `waiting` are on the host; all others are updated at once."""

    def update(grads: Any, opt_state: Any, params: Any, finite: Bool[Array, ""]) -> Any:
        gradients, old = trees.flatten(tx.clipped(grads, params)), trees.flatten(params)
        moments, build = _open(opt_state[-1])

        def by_rule(gradient: Flat, held: list[Flat], param: Flat) -> tuple[Flat, Any, Any]:
            """(parameters, optimiser state, sum of squares of the update) of some arrays."""
            before, nested = build(held), trees.unflatten(param)
            updates, after = tx.rule.update(trees.unflatten(gradient), before, nested)
            new = optax.apply_updates(nested, updates)
            new, after = keep_if_finite(finite, (new, after), (nested, before))
            return trees.flatten(new), after, optax.tree.norm(updates, squared=True)

        def here(tree: Flat) -> Flat:
            return {path: leaf for path, leaf in tree.items() if path not in waiting}

        new, after, squares = by_rule(here(gradients), [here(of) for of in moments], here(old))
        moved, build_after = _open(after)
        for path, where in waiting.items():
            theirs = [of[path] for of in moments]
            new[path], theirs, more = _slice_by_slice(
                by_rule, path, gradients[path], theirs, old[path], where
            )
            squares += more
            for of, array in zip(moved, theirs, strict=True):
                of[path] = array
        whole: Any = trees.unflatten(new)
        if constrain is not None:
            whole = keep_if_finite(finite, constrain(whole), whole)
        return whole, (*opt_state[:-1], build_after(moved)), jnp.sqrt(squares)

    return update


def _slice_by_slice(
    by_rule: Callable[[Flat, list[Flat], Flat], tuple[Flat, Any, Any]],
    path: str,
    gradient: Array,
    moments: list[Array],
    param: Array,
    where: jax.sharding.NamedSharding,
) -> tuple[Array, list[Array], Float[Array, ""]]:
    """(parameter, moments, sum of squares of the update) of one array, its moments on the host."""

    def turn(i: Any, carry: Any) -> Any:
        param, moments, squares = carry

        def cut(x: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(x, i, 1)

        def put(x: Array, part: Array) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(x, part, i, 0)

        held = [{path: jax.device_put(cut(x), on_device(where))} for x in moments]
        new, after, more = by_rule({path: cut(gradient)}, held, {path: cut(param)})
        moved = [jax.device_put(of[path], where) for of in _open(after)[0]]
        return put(param, new[path]), list(map(put, moments, moved)), squares + more

    begin = (param, moments, jnp.zeros((), jnp.float32))
    return jax.lax.fori_loop(0, len(gradient), turn, begin)


def _open(state: Any) -> tuple[list[Flat], Callable[[list[Flat]], Any]]:
    """An optimiser state's trees that are built as the parameters are, flat; and the way back.

    The way back takes counters and all else from `state`.
    """
    nodes, structure = jax.tree.flatten(state, is_leaf=lambda node: isinstance(node, dict))
    ours = [isinstance(node, dict) for node in nodes]

    def build(flat: list[Flat]) -> Any:
        rest = iter(flat)
        changed = [
            trees.unflatten(next(rest)) if mine else node
            for mine, node in zip(ours, nodes, strict=True)
        ]
        return jax.tree.unflatten(structure, changed)

    return [trees.flatten(n) for n, mine in zip(nodes, ours, strict=True) if mine], build

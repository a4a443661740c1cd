"""The fast ways of `unroll` against plain autodiff: gated rules, deferred products of any step, recomputation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from tests.untyped import present, untyped

from cliffs import recurrent

TIME, BATCH, FEATURES, HIDDEN = 7, 2, 3, 4


def normal(seed, *shape, dtype=jnp.float64):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def cell_problem(cell, dtype=jnp.float64, time=TIME, batch=(BATCH,)):
    params = cell.init(jax.random.key(0), FEATURES, dtype)
    params = jax.tree.map(lambda p: p + 0.1 * normal(1, *p.shape, dtype=dtype), params)  # biases too
    state = jax.tree.map(lambda x: x + 0.5 * normal(2, *x.shape, dtype=dtype), cell.initial_state(batch, dtype))
    return params, state, normal(3, time, *batch, FEATURES, dtype=dtype)


def leaky(params, state, inputs):
    """A bias used twice, once where it can be deferred and once where it cannot."""
    drive = state @ params["w"] + inputs @ params["w_in"] + params["b"]
    return 0.9 * state + 0.1 * jnp.tanh(drive) + params["b"] * state


def two_layers(params, state, inputs):
    """A matrix on the left, one matrix in two products and in another operation, a product of this step's result."""
    low, high = state["low"], state["high"]
    low = jnp.tanh(params["w"] @ low + jax.nn.relu(high @ params["w"]) + inputs @ params["w_in"])
    return {"low": low, "high": jnp.tanh(low @ params["w"].T + params["w"][0] * high)}


def heads(params, state, inputs):
    """Block-diagonal matrices: a product with a batch dimension of its own."""
    blocks = state.reshape(BATCH, 2, HIDDEN // 2)
    mixed = jnp.einsum("bkh,khj->bkj", blocks, params["w"]).reshape(BATCH, HIDDEN)
    return jnp.tanh(mixed + jnp.take(params["table"], inputs, axis=0))


def step_problem(name):
    w = {"w": 0.5 * normal(4, HIDDEN, HIDDEN), "w_in": normal(5, FEATURES, HIDDEN), "b": 0.3 * normal(6, HIDDEN)}
    inputs = normal(3, TIME, BATCH, FEATURES)
    if name == "leaky":
        return leaky, w, normal(7, BATCH, HIDDEN), inputs
    if name == "two_layers":
        state = {"low": normal(7, HIDDEN), "high": normal(8, HIDDEN)}
        return two_layers, {k: w[k] for k in ("w", "w_in")}, state, inputs[:, 0]
    params = {"w": 0.5 * normal(4, 2, HIDDEN // 2, HIDDEN // 2), "table": normal(5, 9, HIDDEN)}
    return heads, params, normal(7, BATCH, HIDDEN), jax.random.randint(jax.random.key(3), (TIME, BATCH), 0, 9)


def scalar(step, method="auto", **settings):
    def loss(params, state, inputs):
        states = recurrent.unroll(step, params, state, inputs, method=untyped(method), **settings)
        weights = [jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape) for x in jax.tree.leaves(states)]
        return sum(jnp.sum(c * jnp.sin(x)) for c, x in zip(weights, jax.tree.leaves(states)))

    return loss


def largest_difference(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(jnp.max(jnp.abs(x - y)) / jnp.maximum(jnp.max(jnp.abs(y)), 1e-30)) for x, y in pairs)


def derivatives(loss, params, state, inputs):
    """Value and gradients, and forward mode over both: the derivative of the value, Hessian-vector products."""
    floating = jnp.issubdtype(inputs.dtype, jnp.floating)
    arguments = (params, state, inputs) if floating else (params, state)

    def both(*a):
        return jax.value_and_grad(lambda *b: loss(*b) if floating else loss(*b, inputs), tuple(range(len(a))))(*a)

    return jax.jvp(both, arguments, arguments)


CELLS = {
    "simple": (recurrent.simple_cell, "deferred"),
    "lstm": (recurrent.lstm_cell, "lstm"),
    "gru": (recurrent.gru_cell, "gru"),
}


@pytest.mark.parametrize("name", ["simple", "lstm", "gru", "leaky", "two_layers", "heads"])
def test_parity_all_derivatives_equal_plain_autodiff(x64, name):
    if name in CELLS:
        step = CELLS[name][0](HIDDEN)
        params, state, inputs = cell_problem(step)
    else:
        step, params, state, inputs = step_problem(name)
    assert recurrent.unroll_method(step, params, state, inputs).name == CELLS.get(name, (None, "deferred"))[1]
    both = jax.jit(lambda *a: [derivatives(scalar(step, method), *a) for method in ("auto", "scan")])
    assert largest_difference(*both(params, state, inputs)) < 1e-11


@pytest.mark.parametrize("name", ["gru", "leaky"])
def test_parity_gradient_of_a_gradient(x64, name):
    if name in CELLS:
        step = CELLS[name][0](HIDDEN)
        params, state, inputs = cell_problem(step)
    else:
        step, params, state, inputs = step_problem(name)

    def of_gradient(method):
        gradient = jax.grad(scalar(step, method))
        return jax.grad(lambda p: sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient(p, state, inputs))))

    both = jax.jit(lambda p: [of_gradient(method)(p) for method in ("auto", "scan")])
    assert largest_difference(*both(params)) < 1e-11


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_parity_hidden_in_a_function_a_cell_is_found_by_its_products(x64, name):
    cell = CELLS[name][0](HIDDEN)
    problem = cell_problem(cell)

    def hidden(params, state, inputs):
        return cell(params, state, inputs)

    found = recurrent.unroll_method(hidden, *problem)
    assert found.name == "deferred"
    assert found.why.startswith("1 product" if name == "lstm" else "3 products")
    both = jax.jit(lambda *a: [jax.value_and_grad(scalar(s), (0, 1, 2))(*a) for s in (hidden, cell)])
    assert largest_difference(*both(*problem)) < 1e-12


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_parity_gated_rules_in_float32(name):
    cell = CELLS[name][0](HIDDEN)
    problem = cell_problem(cell, jnp.float32, time=40)
    both = jax.jit(lambda *a: [jax.grad(scalar(cell, method), (0, 1, 2))(*a) for method in ("auto", "scan")])
    assert largest_difference(*both(*problem)) < 1e-5


@pytest.mark.parametrize("name", ["lstm", "gru", "leaky"])
def test_parity_blocks_of_time_give_the_same_gradient(x64, monkeypatch, name):
    for module in ("_gated_rules", "_deferred"):
        monkeypatch.setattr(getattr(recurrent, module), "block_length", lambda steps, *_, **__: max(steps // 3, 1))
    if name in CELLS:
        step = CELLS[name][0](HIDDEN)
        params, state, inputs = cell_problem(step, time=9)
    else:
        step, params, state, _ = step_problem(name)
        inputs = normal(3, 9, BATCH, FEATURES)
    both = jax.jit(lambda *a: [jax.grad(scalar(step, method), (0, 1, 2))(*a) for method in ("auto", "scan")])
    assert largest_difference(*both(params, state, inputs)) < 1e-12


@pytest.mark.parametrize("name", ["lstm", "gru", "leaky"])
def test_invariance_vmap_over_networks_and_over_sequences(x64, name):
    if name in CELLS:
        step = CELLS[name][0](HIDDEN)
        params, state, inputs = cell_problem(step)
    else:
        step, params, state, inputs = step_problem(name)
    many = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x, -x]), (params, state, inputs))

    def both_ways(params, state, inputs):
        networks = [jax.vmap(jax.grad(scalar(step, m), (0, 1, 2)))(params, state, inputs) for m in ("auto", "scan")]
        one = jax.tree.map(lambda x: x[0], params)
        sequences = [
            jax.grad(lambda p, m=m: jnp.sum(jax.vmap(scalar(step, m), (None, 0, 0))(p, state, inputs)))(one)
            for m in ("auto", "scan")
        ]
        return networks, sequences

    networks, sequences = jax.jit(both_ways)(*many)
    assert largest_difference(*networks) < 1e-12
    assert largest_difference(*sequences) < 1e-12


def test_integration_gradients_under_shard_map():
    cell = recurrent.lstm_cell(HIDDEN)
    params, state, inputs = cell_problem(cell, jnp.float32)
    many = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x, 2 * x, -x]), (params, state, inputs))
    mesh = jax.make_mesh((2,), ("runs",), axis_types=(jax.sharding.AxisType.Auto,))
    gradient = jax.vmap(jax.grad(scalar(cell), (0, 1, 2)))
    sharded = jax.jit(jax.shard_map(gradient, mesh=mesh, in_specs=P("runs"), out_specs=P("runs")))
    assert largest_difference(sharded(*many), jax.jit(gradient)(*many)) < 1e-6


def test_property_the_backward_loop_has_no_weight_gradient_in_it(x64):
    # The deferred way leaves one product a step in the backward loop; plain autodiff has two.
    step, params, state, inputs = step_problem("leaky")

    def products_in_loops(method):
        jaxpr = jax.make_jaxpr(jax.grad(scalar(step, method)))(params, state, inputs)
        loops = [str(e.params["jaxpr"]) for e in jaxpr.eqns if e.primitive.name == "scan"]
        return [text.count("dot_general") for text in loops]

    assert products_in_loops("auto") == [1, 1]
    assert products_in_loops("scan")[1] >= 2


def test_property_a_product_of_the_inputs_alone_runs_once_for_all_steps(x64):
    step, params, state, inputs = step_problem("leaky")
    jaxpr = jax.make_jaxpr(lambda *a: recurrent.unroll(step, *a))(params, state, inputs)
    text = str(jaxpr)
    assert f"f64[{TIME},{BATCH},{HIDDEN}] = dot_general" in text


class TestFallsBack:
    """Steps in which nothing is found, or not everything."""

    def test_documented_no_product(self):
        found = recurrent.unroll_method(lambda p, x, u: p * x, jnp.array(0.5), jnp.ones(2), length=3)
        assert found == ("scan", "no product with parameters was found in the step")

    def test_documented_a_program_inside_the_step_is_named(self):
        def step(w, x, u):
            return jax.lax.fori_loop(0, 2, lambda _, y: jnp.tanh(y @ w), x) + u @ w

        def both(w, x, u):
            def loss(w, method):
                return jnp.sum(recurrent.unroll(step, w, x, u, method=method) ** 2)

            return [jax.grad(loss)(w, method) for method in ("auto", "scan")]

        w, x, u = 0.3 * normal(0, 3, 3, dtype=jnp.float32), jnp.ones((2, 3)), jnp.ones((4, 2, 3))
        found = recurrent.unroll_method(step, w, x, u)
        assert found.name == "scan"
        assert "scan" in found.why or "while" in found.why
        assert largest_difference(*jax.jit(both)(w, x, u)) < 1e-5

    def test_documented_side_effects(self):
        def step(w, x, u):
            jax.debug.callback(lambda _: None, x.sum())
            return jnp.tanh(x @ w)

        found = recurrent.unroll_method(step, jnp.eye(3), jnp.ones(3), length=3)
        assert found == ("scan", "the step has side effects")

    def test_documented_large_products(self, x64):
        step, params, _, _ = step_problem("leaky")
        found = recurrent.unroll_method(step, params, jnp.ones((1000, HIDDEN)), jnp.ones((5, 1000, FEATURES)))
        assert found == ("scan", "the products of one step are large already")

    def test_documented_a_state_that_changes_type(self):
        def step(w, x, u):
            return (x @ w).astype(jnp.float16)

        found = recurrent.unroll_method(step, jnp.eye(3), jnp.ones(3), length=3)
        assert "other types" in found.why

    def test_documented_a_cell_with_other_gates(self):
        import flax.linen as nn

        cell = recurrent.CellStep(nn.GRUCell(HIDDEN, gate_fn=nn.hard_sigmoid), HIDDEN)
        params = cell.init(jax.random.key(0), FEATURES)
        found = recurrent.unroll_method(cell, params, cell.initial_state((2,)), jnp.ones((5, 2, FEATURES)))
        assert found.name == "deferred"


def test_parity_state_with_counter_key_and_noise():
    # Integers and keys have no derivative; noise of the step must not change when the unroll does.
    def step(params, state, inputs):
        x, count = state
        noise = jax.random.normal(inputs["key"], x.shape)
        return jnp.tanh(x @ params["w"] + inputs["u"] @ params["w"]) + 0.1 * noise, count + 1

    params = {"w": 0.5 * normal(0, HIDDEN, HIDDEN, dtype=jnp.float32)}
    state = jnp.ones((BATCH, HIDDEN)), jnp.array(0)
    inputs = {"key": jax.random.split(jax.random.key(1), TIME), "u": jnp.ones((TIME, BATCH, HIDDEN))}
    assert recurrent.unroll_method(step, params, state, inputs).name == "deferred"

    def both(params):
        def loss(params, method):
            states, counts = recurrent.unroll(step, params, state, inputs, method=method)
            return jnp.sum(states**2), (states, counts)

        return [jax.grad(loss, has_aux=True)(params, method) for method in ("auto", "scan")]

    got, want = jax.jit(both)(params)
    assert got[1][1].tolist() == list(range(1, TIME + 1))
    assert largest_difference((got[0], got[1][0]), (want[0], want[1][0])) < 1e-5


def test_parity_weights_that_the_step_closes_over():
    state, inputs = jnp.ones((BATCH, HIDDEN)), jnp.ones((TIME, BATCH, FEATURES))

    def loss(params, method):
        def step(_, x, u):
            return jnp.tanh(x @ params["w"] + u @ params["w_in"])

        return jnp.sum(recurrent.unroll(step, None, state, inputs, method=method) ** 2)

    params = {"w": 0.4 * normal(0, HIDDEN, HIDDEN, dtype=jnp.float32), "w_in": jnp.ones((FEATURES, HIDDEN))}
    both = jax.jit(lambda p: [jax.grad(loss)(p, method) for method in ("auto", "scan")])
    assert largest_difference(*both(params)) < 1e-5


def test_integration_equinox_cell_is_deferred():
    eqx = pytest.importorskip("equinox")
    cell = eqx.nn.GRUCell(FEATURES, HIDDEN, key=jax.random.key(0))

    def step(cell, state, inputs):
        return cell(inputs, state)

    state, inputs = jnp.zeros(HIDDEN), normal(3, TIME, FEATURES, dtype=jnp.float32)
    assert recurrent.unroll_method(step, cell, state, inputs).name == "deferred"

    def loss(cell, method):
        return jnp.sum(recurrent.unroll(step, cell, state, inputs, method=method) ** 2)

    got, want = (eqx.filter_jit(eqx.filter_grad(loss))(cell, method) for method in ("auto", "scan"))
    assert largest_difference(got, want) < 1e-5


def test_parity_torch_lstm_and_gru():
    torch = pytest.importorskip("torch")
    for name, gates, kinds in (("lstm", "ifgo", torch.nn.LSTM), ("gru", "rzn", torch.nn.GRU)):
        cell = CELLS[name][0](HIDDEN)
        params, _, inputs = cell_problem(cell, jnp.float32)
        module = kinds(FEATURES, HIDDEN)
        with torch.no_grad():
            for side in "hi":
                kernel = np.concatenate([np.asarray(params[side + g]["kernel"]) for g in gates], axis=1).T
                biases = [np.asarray(params[side + g].get("bias", jnp.zeros(HIDDEN))) for g in gates]
                module.get_parameter(f"weight_{side}h_l0").copy_(torch.tensor(kernel))
                module.get_parameter(f"bias_{side}h_l0").copy_(torch.tensor(np.concatenate(biases)))
        out, _ = module(torch.tensor(np.asarray(inputs)))
        torch.sin(out).sum().backward()

        def loss(params, cell=cell, inputs=inputs):
            states = recurrent.unroll(cell, params, cell.initial_state((BATCH,)), inputs)
            return jnp.sum(jnp.sin(cell.features(states)))

        value, got = jax.jit(jax.value_and_grad(loss))(params)
        np.testing.assert_allclose(value, float(torch.sin(out).sum().detach()), rtol=1e-5)
        for side in "hi":
            want = module.get_parameter(f"weight_{side}h_l0").grad.numpy().T
            have = np.concatenate([np.asarray(got[side + g]["kernel"]) for g in gates], axis=1)
            np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)


class TestRecomputation:
    """`remat`: the same values and gradients from less memory."""

    @pytest.mark.parametrize("name", ["vanilla", "leaky"])
    @pytest.mark.parametrize("last_only", [False, True])
    def test_parity_gradients(self, x64, name, last_only):
        step, params, state, _ = step_problem("leaky")
        inputs = normal(3, 11, BATCH, FEATURES)  # a prime number of steps: no block divides it
        if name == "vanilla":
            step, params = recurrent.rnn_step(), recurrent.RNNParams(params["w"], params["w_in"], params["b"])
        plain, less = scalar(step, last_only=last_only), scalar(step, last_only=last_only, remat=True)
        both = jax.jit(lambda *a: [jax.value_and_grad(loss, (0, 1, 2))(*a) for loss in (plain, less)])
        assert largest_difference(*both(params, state, inputs)) < 1e-12

    def test_parity_forward_mode_and_autonomous(self, x64):
        def last(w, remat):
            return recurrent.unroll(lambda w, x, u: jnp.tanh(x @ w), w, jnp.ones(3), length=10, remat=remat)[-1]

        w = 0.5 * normal(0, 3, 3)
        both = jax.jit(lambda w: [jax.jacfwd(last)(w, remat) for remat in (False, True)])
        assert largest_difference(*both(w)) < 1e-12

    def test_documented_a_budget_sets_the_length_of_a_block(self):
        cell = recurrent.gru_cell(HIDDEN)
        params, state, inputs = cell_problem(cell, jnp.float32, time=400)

        def temporaries(remat):
            loss = scalar(cell, remat=remat, last_only=True)
            compiled = jax.jit(jax.grad(loss)).lower(params, state, inputs).compile()
            return present(compiled.memory_analysis()).temp_size_in_bytes

        least, little, whole = temporaries(True), temporaries(20_000), temporaries(False)
        assert least < little < whole / 3

    @pytest.mark.wrong_arguments
    def test_wrong_budget_names_what_is_needed(self, x64):
        step, params, state, _ = step_problem("leaky")
        with pytest.raises(ValueError, match="remat=10 bytes cannot be met: blocks of"):
            recurrent.unroll(step, params, state, jnp.ones((50, BATCH, FEATURES)), remat=10)

    @pytest.mark.parametrize("cell", ["vanilla", "lstm"])
    def test_documented_ten_thousand_steps_of_256_runs_within_two_gib(self, cell):
        # 50 units, batch 20, 256 networks side by side, compiled and not run: 10,000 states alone would be 10 GB.
        f32 = jnp.float32
        if cell == "vanilla":
            step = recurrent.rnn_step()
            params = recurrent.RNNParams(*(untyped(jax.ShapeDtypeStruct(s, f32)) for s in ((50, 50), (6, 50), (50,))))
            state = jax.ShapeDtypeStruct((20, 50), f32)
        else:
            step = recurrent.lstm_cell(50)
            params = jax.eval_shape(lambda k: step.init(k, 6), jax.random.key(0))
            state = jax.eval_shape(lambda: step.initial_state((20,)))
        many = jax.tree.map(lambda x: jax.ShapeDtypeStruct((256, *x.shape), x.dtype), (params, state))
        # The runs share their inputs here; with inputs of their own the loop copies those once (1.2 GB).
        inputs = jax.ShapeDtypeStruct((10_000, 20, 6), f32)

        def loss(params, state, inputs):
            last = recurrent.unroll(step, params, state, inputs, remat=True, last_only=True)
            return jnp.sum(jax.tree.leaves(last)[-1] ** 2)

        compiled = jax.jit(jax.vmap(jax.grad(loss), (0, 0, None))).lower(*many, inputs).compile()
        assert present(compiled.memory_analysis()).temp_size_in_bytes < 2 * 2**30

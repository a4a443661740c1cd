"""The comparison on a transformer: the language's floor, the noise, jump and recovery, and a run in small."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from experiments import runner
from experiments.training import _language, _transformer_report, _troubles, threshold_transfer, transformer
from tests.untyped import untyped

from cliffs.records import load_record
from cliffs.sweeps import SweepResult
from cliffs.training import StepMetrics

TINY = {
    "layers": 1,
    "width": 8,
    "heads": 2,
    "rows": 40,
    "test_rows": 4,
    "length": 8,
    "updates": 24,
    "bad_at": 12,
    "bad_updates": 2,
    "hot_updates": 4,
    "seeds": 2,
}


def test_analytic_floor_of_two_words_is_known_by_hand():
    """After "a" comes b or c, at odds of 3 to 1; all else is certain."""
    language = _language.Language(("ab ", "ac "), np.array([0.75, 0.25]))
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    np.testing.assert_allclose(_language.exact_floor(language, 7), [0, entropy, 0] * 2 + [0], atol=1e-12)
    np.testing.assert_allclose(language.entropy_rate, entropy / 3)
    a, b, c, space = (_language.SYMBOLS.index(x) for x in "abc ")
    nats = _language.nats_of_truth(language, np.array([[a, b, space, a, c]]))
    np.testing.assert_allclose(nats, [[0, -np.log(0.75), 0, 0, -np.log(0.25)]], atol=1e-12)


def test_analytic_truth_pays_the_floor_on_average_and_the_entropy_rate_in_the_long_run():
    language = _language.make_language(12, seed=3)
    assert len(set(language.words)) == 12
    nats = _language.nats_of_truth(language, _language.write_rows(language, 2000, 12, seed=4))
    floor = _language.exact_floor(language, 400)
    error = nats.std(0) / 2000**0.5
    assert (np.abs(nats.mean(0) - floor[:12]) <= 4 * error + 1e-9).all()
    np.testing.assert_allclose(floor[200:].mean(), language.entropy_rate, rtol=0.01)


def test_analytic_noise_has_the_norms_of_student_t():
    """`(norm / |noise|)^2 * degrees` is chi-square, whose quartiles are known."""
    import scipy.stats

    gaussian = jax.random.normal(jax.random.key(0), (4000,))

    def one(key):
        rule = _troubles.heavy_tailed_noise(_troubles.Noise(key, 3.0, 1.5, gaussian))
        updates, _ = rule.update(jnp.zeros(2000), rule.init(jnp.zeros(2000)))
        return jnp.linalg.norm(updates)

    norms = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), 1000)))
    shares = [((3.0 / norms) ** 2 * 1.5 < scipy.stats.chi2(1.5).ppf(q)).mean() for q in (0.25, 0.5, 0.75)]
    np.testing.assert_allclose(shares, [0.25, 0.5, 0.75], atol=0.06)


def test_analytic_jump_and_recovery_of_made_up_losses(monkeypatch):
    """A bump of 2 nats for 3 updates after the bad ones: back when 5 updates hold less than 0.1 of it on average."""
    config = transformer.Config(updates=30, bad_at=10, bad_updates=2, seeds=2)
    cases = transformer.grid(config, "none")
    losses = np.ones((8, 30), np.float32)
    losses[2:4, 10:12] = 9.0  # the rubbish itself
    losses[2:4, 12:15] = 3.0
    none = np.full(8, -1)
    metrics = StepMetrics(
        untyped(losses), untyped(losses), {"clipped": np.zeros((8, 30)), "norm": losses, "cosine": losses}
    )
    fake = SweepResult(cases, {}, metrics, {"loss": losses[:, -1:]}, none, none, np.full(8, 30))
    monkeypatch.setattr(transformer, "train", lambda *args: fake)
    text = _troubles.Corpus(np.zeros((1, 1)), np.zeros((1, 1)), 27, 0.25)
    found = transformer.compared_runs(config, text, "none")[float("inf")]
    np.testing.assert_allclose(found["bad batch"]["jump"], 3 * 2 / 5)
    np.testing.assert_array_equal(found["bad batch"]["recovery"], 3)
    np.testing.assert_allclose(found["hot warm-up"]["recovery"], 0)
    np.testing.assert_allclose(found["clean"]["final"], 0.75)


def test_integration_troubles_change_a_run_from_their_first_update_on(tmp_path):
    """Runs of one seed see the same rows: the same losses to the bit before the trouble, others after."""
    config = transformer.Config(**untyped(TINY), only=("clip_by_global_norm",), checkpoint=str(tmp_path / "kept"))
    result, folder = runner.execute("training/transformer", config, folder=tmp_path, report=False)
    arrays = load_record(folder).arrays
    losses = {t: arrays[f"none inf {t} loss"] for t in transformer.TROUBLES}
    first = {"bad batch": 12, "hot warm-up": 1, "heavy-tailed noise": 1}  # a loss is that before its update
    for trouble, step in first.items():
        np.testing.assert_array_equal(losses[trouble][:step], losses["clean"][:step])
        assert (losses[trouble][step:] != losses["clean"][step:]).all()
    cells = {(c["rule"], c["threshold"], c["trouble"]): c for c in result.metrics["cells"]}
    assert len(cells) == 4 * 4
    assert cells["none", float("inf"), "clean"]["clip_fraction"] == 0
    assert cells["clip_by_global_norm", 0.1, "clean"]["clip_fraction"] == 1
    assert result.metrics["recommendation"]["no_clipping"]["worst_regret"] >= 0
    assert (folder / "transformer.png").stat().st_size > 20_000
    again = transformer.run(config, say=lambda text: pytest.fail(text) if "compil" in text else None)
    assert again.metrics["cells"] == result.metrics["cells"]


def test_integration_a_suggested_threshold_is_compared_with_a_grid(tmp_path, monkeypatch):
    monkeypatch.setattr(threshold_transfer, "TROUBLES", ("bad batch", "heavy-tailed noise"))
    config = threshold_transfer.Config(**untyped(TINY), pilot=20, thresholds=(0.5, float("inf")))
    result, folder = runner.execute("training/threshold_transfer", config, folder=tmp_path, report=False)
    arrays = load_record(folder).arrays
    for trouble in threshold_transfer.TROUBLES:
        found = result.metrics[trouble]
        losses = arrays[f"{trouble} losses"]
        assert losses.shape == (3, 2)
        np.testing.assert_allclose(found["above_best"], losses[2].mean() / losses[:2].mean(1).min() - 1)
        assert found["within"] == (found["above_best"] <= 0.01)


def test_wrong_rule_is_named():
    with pytest.raises(ValueError, match=r"only must name some of .*'magic'"):
        transformer.rules(dataclasses.replace(transformer.Config(), only=("magic",)))


def test_documented_page_has_the_recorded_numbers():
    """The table of docs/which-clipping.md is that of the committed result."""
    record = load_record(runner.ROOT / "results/training/transformer")
    page = (runner.ROOT / "docs/which-clipping.md").read_text()
    assert _transformer_report.markdown(record.metrics) in page
    for name, reason in record.metrics["left_out"].items():
        assert f"`{name}` ({reason})" in page

"""Evaluation of generation and of the prior on embeddings whose answers are known."""

import jax.numpy as jnp
import numpy as np
import pytest

from unclip_jax.errors import UserError
from unclip_jax.evaluation import evaluate_generation, evaluate_prior
from unclip_jax.evaluation.questions import mean_cosine_of_others
from unclip_jax.evaluation.style_prompts import StylePrompts

RNG = np.random.default_rng(0)
CONCEPTS, STYLES, DIMENSIONS = 20, 3, 40
ROWS = [(concept, style) for concept in range(CONCEPTS) for style in range(STYLES)]
LABELS = {
    "captions": [f"thing {concept}, style {style}" for concept, style in ROWS],
    "styles": [f"style {style}" for _, style in ROWS],
    "concepts": [f"thing {concept}" for concept, _ in ROWS],
}
AXES = np.eye(DIMENSIONS)
SETS = ("fd_clip", "mmd_clip", "precision_clip", "coverage_clip")


def picture(concept: int, style: int, noise: float = 0.0) -> np.ndarray:
    """An axis for each concept, a weaker one for each style, and one for being a picture."""
    vector = AXES[concept] + 0.6 * AXES[CONCEPTS + style] + 0.5 * AXES[-1]
    return vector + noise * RNG.normal(size=DIMENSIONS)


TEXT = np.stack([AXES[c] + AXES[CONCEPTS + s] for c, s in ROWS])
REAL = np.stack([picture(c, s, 0.05) for c, s in ROWS])


def evaluate(generated, **options):
    return evaluate_generation(generated, REAL, TEXT, **(LABELS | options))


def values(report, split="all"):
    return {row.name: row.value for row in report.splits[split]}


def test_a_perfect_generator_reaches_the_ceiling():
    report = evaluate(3.0 * REAL)
    for row in report.splits["all"]:
        assert row.value == pytest.approx(row.ceiling, rel=1e-9), row.name
    assert values(report)["caption_recall@1"] == 1.0
    assert values(report)["clip_cosine_to_real"] == pytest.approx(1.0)


def test_chance_is_what_unrelated_pictures_get():
    trials = [values(evaluate(RNG.normal(size=REAL.shape))) for _ in range(12)]
    floor = {row.name: row.floor for row in evaluate(REAL).splits["all"]}
    for name in (
        "caption_recall@1",
        "caption_recall@5",
        "caption_mean_rank",
        "concept_accuracy",
        "concept_accuracy_same_style",
        "style_accuracy",
    ):
        found = [trial[name] for trial in trials]
        assert abs(np.mean(found) - floor[name]) < 5 * np.std(found) / 12**0.5 + 1e-9, name


def test_the_right_style_of_the_wrong_thing():
    wrong = np.stack([picture((c + 1) % CONCEPTS, s) for c, s in ROWS])
    found = values(evaluate(wrong))
    assert found["style_accuracy"] == 1.0
    assert found["concept_accuracy"] == found["concept_accuracy_same_style"] == 0.0
    assert found["caption_recall@1"] == 0.0


def test_the_right_thing_in_the_wrong_style():
    wrong = np.stack([picture(c, (s + 1) % STYLES) for c, s in ROWS])
    found = values(evaluate(wrong))
    assert found["style_accuracy"] == 0.0
    assert found["concept_accuracy"] == found["concept_accuracy_same_style"] == 1.0
    assert found["caption_recall@1"] == 0.0
    assert found["caption_recall@5"] == 1.0


def test_floors_by_plain_counting():
    floor = {row.name: row.floor for row in evaluate(REAL).splits["all"]}
    assert floor["caption_recall@1"] == pytest.approx(1 / 60)
    assert floor["caption_recall@5"] == pytest.approx(5 / 60)
    assert floor["caption_mean_rank"] == pytest.approx(30.5)
    assert floor["concept_accuracy"] == floor["concept_accuracy_same_style"] == 1 / CONCEPTS
    assert floor["style_accuracy"] == 1 / STYLES
    cosines = [
        REAL[i] @ TEXT[j] / np.linalg.norm(REAL[i]) / np.linalg.norm(TEXT[j])
        for i in range(60)
        for j in range(60)
        if i != j
    ]
    assert floor["clip_score"] == pytest.approx(np.mean(cosines), rel=1e-12)


def test_several_pictures_of_a_caption_are_all_right():
    twice = {name: labels * 2 for name, labels in LABELS.items()}
    report = evaluate_generation(
        np.tile(REAL, (2, 1)), np.tile(REAL, (2, 1)), np.tile(TEXT, (2, 1)), **twice
    )
    assert values(report)["caption_recall@1"] == 1.0
    assert report["all", "caption_recall@1"].floor == pytest.approx(1 / 60)
    assert report["all", "caption_recall@5"].floor == pytest.approx(5 / 60)  # each caption once


def test_concept_in_its_own_style_ignores_captions_of_other_styles():
    # Drawn in style 1, where no caption has thing 0: the nearest of all captions is another thing.
    keep = [row for row, pair in enumerate(ROWS) if pair != (0, 1)]
    labels = {name: [every[row] for row in keep] for name, every in LABELS.items()}
    generated = REAL[keep].copy()
    generated[0] = 0.3 * AXES[0] + AXES[CONCEPTS + 1]
    found = evaluate_generation(generated, REAL[keep], TEXT[keep], **labels)
    assert values(found)["caption_recall@1"] == pytest.approx(58 / 59)
    assert values(found)["concept_accuracy_same_style"] == 1.0


def test_intervals_resample_concepts():
    generated = REAL + 0.3 * RNG.normal(size=REAL.shape)
    row = evaluate(generated)["all", "clip_score"]
    assert row.low < row.value < row.high
    one_concept = evaluate(generated, concepts=["thing"] * 60)["all", "clip_score"]
    assert one_concept.low == one_concept.high == pytest.approx(row.value)


def test_mean_cosine_of_others_by_plain_loops():
    first, second = RNG.normal(size=(2, 12, 5))
    labels = [f"{index % 4}" for index in range(12)]
    cosines = [
        a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        for a, one in zip(first, labels, strict=True)
        for b, two in zip(second, labels, strict=True)
        if one != two
    ]
    assert mean_cosine_of_others(first, second, labels) == pytest.approx(np.mean(cosines))
    assert mean_cosine_of_others(first, second, ["same"] * 12) is None


def test_splits_are_measured_apart():
    splits = ["a" if concept < 8 else "b" for concept, _ in ROWS]
    generated = REAL + 0.3 * RNG.normal(size=REAL.shape)
    prompts = {f"style {style}": AXES[CONCEPTS + style] for style in range(STYLES)}
    noise = RNG.normal(size=REAL.shape)
    whole = evaluate(generated, splits=splits, style_embeddings=prompts, noise=noise)
    assert list(whole.splits) == ["a", "b"]
    rows = [index for index, split in enumerate(splits) if split == "b"]
    alone = evaluate_generation(
        generated[rows],
        REAL[rows],
        TEXT[rows],
        **{name: [labels[row] for row in rows] for name, labels in LABELS.items()},
        style_embeddings=prompts,
        noise=noise[rows],
    )
    assert whole.splits["b"] == alone.splits["all"]


def test_an_average_style_prompt_leaves_out_the_concept_asked_about():
    text = RNG.normal(size=TEXT.shape)
    prompts = StylePrompts.averaged(text, LABELS["styles"], LABELS["concepts"])
    for concept in ("thing 0", "thing 7"):
        expected = [
            np.sum(
                [
                    vector / np.linalg.norm(vector)
                    for vector, style, other in zip(
                        text, LABELS["styles"], LABELS["concepts"], strict=True
                    )
                    if style == wanted and other != concept
                ],
                axis=0,
            )
            for wanted in prompts.styles
        ]
        np.testing.assert_allclose(prompts.prompts - prompts.own[concept], expected, atol=1e-12)
    # Text that says nothing about style, of concepts with one style each: the own caption in the
    # prompt would give the style away.
    styles = [f"style {row % STYLES}" for row in range(CONCEPTS)]
    concepts = [f"thing {row}" for row in range(CONCEPTS)]
    styleless = AXES[:CONCEPTS]
    hits = StylePrompts.averaged(styleless, styles, concepts).hits(styleless, styles, concepts)
    assert hits.sum() == 0


def test_given_style_prompts_are_used():
    swapped = {f"style {style}": AXES[CONCEPTS + (style + 1) % STYLES] for style in range(STYLES)}
    assert values(evaluate(REAL, style_embeddings=swapped))["style_accuracy"] == 0.0
    with pytest.raises(UserError, match="no prompt for the style 'style 2'"):
        evaluate(REAL, style_embeddings={f"style {style}": AXES[0] for style in range(2)})


def test_distances_lie_between_their_anchors():
    report = evaluate(REAL + 0.15 * RNG.normal(size=REAL.shape))
    for name in ("fd_clip", "mmd_clip"):
        row = report["all", name]
        assert row.ceiling < row.value < row.floor
        assert row.low < row.value < row.high
        assert row.better == "lower"
    for name in ("precision_clip", "coverage_clip"):
        row = report["all", name]
        assert row.floor <= row.value <= row.ceiling
    # Other pictures, not the same ones again: even real pictures are some way from real ones.
    assert report["all", "fd_clip"].ceiling > 0.01
    assert {report["all", name].count for name in SETS} == {30}


def test_noise_pictures_are_the_floor_of_distances():
    report = evaluate(REAL, noise=REAL)
    for name in SETS:
        assert report["all", name].floor == report["all", name].ceiling
    assert evaluate(REAL)["all", "fd_clip"].floor > 2 * report["all", "fd_clip"].floor


def test_what_cannot_be_measured_is_left_out():
    few = {name: labels[:6] for name, labels in LABELS.items()}
    report = evaluate_generation(REAL[:6], REAL[:6], TEXT[:6], **few)
    assert not set(SETS) & set(values(report))
    assert "style_accuracy" in values(report)
    one_style = [row for row in range(60) if LABELS["styles"][row] == "style 0"]
    same = {name: [labels[row] for row in one_style] for name, labels in LABELS.items()}
    report = evaluate_generation(REAL[one_style], REAL[one_style], TEXT[one_style], **same)
    assert "style_accuracy" not in values(report)


def test_the_space_names_the_metrics_and_arrays_may_be_jax():
    report = evaluate(jnp.asarray(REAL, jnp.float32), space="siglip")
    assert {"siglip_score", "fd_siglip"} <= set(values(report))
    assert not [name for name in values(report) if "{" in name or "clip_" in name[:5]]


def test_mistakes_are_named():
    broken = REAL.copy()
    broken[3] = np.nan
    with pytest.raises(UserError, match="generated: 1 of 60 embeddings hold NaN"):
        evaluate(broken)
    with pytest.raises(ValueError, match="differ in size"):
        evaluate(REAL[:5])
    with pytest.raises(ValueError, match=r"60 embeddings, but .* \[59, 60, 60, 60\]"):
        evaluate(REAL, captions=LABELS["captions"][1:])


def prior_values(sampled, **options):
    return evaluate_prior(sampled, REAL, TEXT, groups=LABELS["concepts"], **options)


def test_a_perfect_prior():
    report = prior_values(REAL)
    assert report["all", "sampled_cosine_to_image"].value == pytest.approx(1.0)
    assert report["all", "sampled_image_recall@1"].value == 1.0
    assert report["all", "sampled_image_mean_rank"].value == 1.0
    assert report["all", "sampled_length_over_true_length"].value == 1.0
    cosine = [
        t @ i / np.linalg.norm(t) / np.linalg.norm(i) for t, i in zip(TEXT, REAL, strict=True)
    ]
    gain = report["all", "sampled_cosine_gain_over_text"]
    assert gain.value == pytest.approx(1 - np.mean(cosine))
    assert gain.low > 0
    for name in SETS:
        assert report["all", name].value == report["all", name].ceiling


def test_a_prior_that_returns_the_text_gains_nothing():
    report = prior_values(2 * TEXT)
    assert report["all", "sampled_cosine_gain_over_text"].value == pytest.approx(0, abs=1e-12)
    for row in report.splits["all"]:
        if row.name.startswith("sampled") and "length" not in row.name:
            assert row.value == pytest.approx(row.floor, abs=1e-12), row.name
    for name in SETS:
        assert report["all", name].value == report["all", name].floor
    ratio = 2 * np.linalg.norm(TEXT, axis=1) / np.linalg.norm(REAL, axis=1)
    assert report["all", "sampled_length_over_true_length"].value == pytest.approx(ratio.mean())


def test_chance_for_the_text_baseline():
    report = prior_values(REAL, splits=["a"] * 30 + ["b"] * 30)
    assert report["b", "text_image_recall@1"].floor == pytest.approx(1 / 30)
    assert report["b", "text_image_recall@5"].floor == pytest.approx(5 / 30)
    assert report["b", "text_image_mean_rank"].floor == pytest.approx(15.5)


def test_a_prior_of_another_size_is_refused():
    with pytest.raises(ValueError, match="sizes differ"):
        evaluate_prior(REAL[:, :5], REAL, TEXT)
    with pytest.raises(ValueError, match="60 rows, 60 splits, 3 groups"):
        evaluate_prior(REAL, REAL, TEXT, groups=["a"] * 3)

"""The editing operations: what is exact in each, and that each does what it is for."""

import numpy as np
import pytest

from unclip_jax.errors import UserError
from unclip_jax.generation.editing import fit, resize
from unclip_jax.generation.pca import principal_components
from unclip_jax.generation.text_diff import text_direction

PROMPTS = ("a red heart", "a blue fish")
BATCH = {"batch_size": 4}


@pytest.fixture(scope="module")
def pictures():
    """Two smooth pictures, since only those survive being made smaller."""
    y, x = np.mgrid[0:1:16j, 0:1:16j]
    first = np.stack([255 * x, 255 * y, 0 * x + 60], -1)
    second = np.stack([0 * x + 200, 255 * (1 - x), 200 * x * y], -1)
    return first.astype(np.uint8), second.astype(np.uint8)


def small(picture):
    return fit(picture, 8).astype(int)


def differ(a, b):
    return np.abs(np.asarray(a, int) - np.asarray(b, int)).max()


@pytest.fixture(scope="module")
def reconstructed(pipeline, pictures):
    """The first picture's inversion, decoded with eta 0 and 1."""
    return pipeline.variations(pictures[0], count=2, etas=(0.0, 1.0), iterations=20, **BATCH)


def test_inversion_without_noise_reconstructs(reconstructed, pictures):
    """To a grey level: the fixed point of each step is what DDIM undoes exactly."""
    assert differ(reconstructed.stages["decoder"][0], small(pictures[0])) <= 1


def test_noise_makes_variations(reconstructed):
    eta_0, eta_1 = reconstructed.stages["decoder"]
    assert differ(eta_0[0], eta_0[1]) == 0
    assert differ(eta_1[0], eta_1[1]) > 10
    assert reconstructed.rows == ("eta 0", "eta 1")


def test_more_iterations_reconstruct_better(pipeline, pictures):
    few = pipeline.variations(pictures[0], count=1, etas=(0.0,), iterations=1, **BATCH)
    assert differ(few.stages["decoder"][0], small(pictures[0])) > 3


def test_variations_of_the_embedding_are_draws_of_the_decoder(pipeline, pictures):
    drawn = pipeline.variations_of_embedding(pictures[0], count=2, seed=5, **BATCH)
    z = pipeline.embed_images(pictures[0][None]).repeat(2, axis=0)
    wanted = pipeline.decode(z, [None, None], pipeline.keys(1, 2, 5), **BATCH)
    np.testing.assert_array_equal(drawn.stages["decoder"][0], wanted)
    assert drawn.images.shape == (1, 2, 16, 16, 3)


def test_the_ends_of_an_interpolation_are_the_pictures(pipeline, pictures, reconstructed):
    way = pipeline.interpolate(*pictures, steps=3, iterations=20, **BATCH).stages["decoder"][0]
    assert differ(way[0], small(pictures[0])) <= 1
    assert differ(way[-1], small(pictures[1])) <= 1
    np.testing.assert_array_equal(way[0], reconstructed.stages["decoder"][0, 0])
    assert differ(way[1], way[0]) > 3
    assert differ(way[1], way[2]) > 3


def test_fixed_noise_is_one_draw_for_a_whole_row(pipeline, pictures):
    found = pipeline.interpolate(*pictures, steps=3, noise="fixed", rows=2, **BATCH)
    assert found.rows == ("noise 0", "noise 1")
    rows = found.stages["decoder"]
    same = pipeline.interpolate(pictures[0], pictures[0], steps=2, noise="fixed", rows=2, **BATCH)
    np.testing.assert_array_equal(same.stages["decoder"][:, 0], same.stages["decoder"][:, 1])
    np.testing.assert_array_equal(same.stages["decoder"][:, 0], rows[:, 0])
    assert differ(rows[0], rows[1]) > 10


def test_the_ends_between_prompts_are_draws_of_the_prompts(pipeline):
    found = pipeline.interpolate_prompts(*PROMPTS, steps=3, seed=2, **BATCH)
    keys = pipeline.keys(1, 1, 2)
    ddim = {"decoder": {"sampler": "ddim", "clip_range": None}}
    for prompt, end in zip(PROMPTS, (0, -1), strict=True):
        z = pipeline.draw_embeddings([prompt], keys, **BATCH)
        wanted = pipeline.decode(z, [None], keys, sampling=ddim, **BATCH)
        assert differ(found.stages["decoder"][0, end], wanted[0]) <= 1


def test_a_text_diff_of_theta_0_is_the_original(pipeline, pictures, reconstructed):
    found = pipeline.text_diff(
        pictures[0], PROMPTS[0], base="a photo", thetas=(0.0, 0.25, 0.5), iterations=20, **BATCH
    )
    way = found.stages["decoder"][0]
    np.testing.assert_array_equal(way[0], reconstructed.stages["decoder"][0, 0])
    assert differ(way[0], small(pictures[0])) <= 1
    assert differ(way[1], way[0]) > 0
    assert found.columns == ("0", "0.25", "0.5")


def test_a_text_diff_turns_towards_the_normalised_difference(pipeline):
    z = pipeline.embed_texts(PROMPTS).astype(np.float64)
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    wanted = unit[1] - unit[0]
    found = text_direction(pipeline, PROMPTS[1], PROMPTS[0])
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted), atol=1e-6)
    alone = text_direction(pipeline, PROMPTS[1], None)
    np.testing.assert_allclose(alone, unit[1], atol=1e-6)
    with pytest.raises(UserError, match="same embedding"):
        text_direction(pipeline, "a tree", "a tree")


def test_all_components_give_the_embedding_itself(pipeline, pictures):
    basis = principal_components(np.random.default_rng(0).normal(size=(40, 16)))
    found = pipeline.reconstruct(pictures, basis, components=(0, 16), **BATCH)
    rows = found.stages["decoder"]
    assert found.columns == ("0", "16", "all")
    assert differ(rows[:, 1], rows[:, 2]) <= 1
    np.testing.assert_array_equal(rows[0, 0], rows[1, 0])  # the mean, from the same noise
    assert differ(rows[0, 2], rows[1, 2]) > 0


def test_the_signals_of_an_ablation(pipeline):
    found = pipeline.ablate(PROMPTS, seed=4, **BATCH)
    keys = pipeline.keys(2, 1, 4)
    text = pipeline.embed_texts(PROMPTS)
    prior = pipeline.draw_embeddings(PROMPTS, keys, **BATCH)
    for column, z in enumerate((None, text, prior)):
        wanted = pipeline.decode(z, PROMPTS, keys, **BATCH)
        np.testing.assert_array_equal(found.stages["decoder"][:, column], wanted)
    assert differ(found.stages["decoder"][:, 0], found.stages["decoder"][:, 2]) > 3


def test_reranking_keeps_the_nearest_pictures(pipeline):
    drawn = pipeline(PROMPTS, images_per_prompt=4, seed=3, **BATCH)
    ranked = pipeline.rerank(drawn, 2)
    texts = pipeline.embed_texts(PROMPTS)
    for row in range(2):
        z = pipeline.embed_images(drawn.images[row])
        cosines = z @ texts[row] / np.linalg.norm(z, axis=1) / np.linalg.norm(texts[row])
        order = np.argsort(-cosines)[:2]
        np.testing.assert_array_equal(ranked.numbers[row], order)
        np.testing.assert_allclose(ranked.scores[row], cosines[order], atol=1e-5)
        np.testing.assert_array_equal(ranked.generated.images[row], drawn.images[row][order])
    with pytest.raises(UserError, match="keep: must be 1 to 4"):
        pipeline.rerank(drawn, 5)


def test_the_typographic_probe_gives_clips_probabilities(pipeline, pictures, cascade):
    named = dict(zip(("plain", "attacked"), pictures, strict=True))
    found = pipeline.typographic_probe(named, PROMPTS, template="a photo of {}", count=2, **BATCH)
    z = pipeline.embed_images(np.stack(pictures))
    texts = pipeline.embed_texts([f"a photo of {label}" for label in PROMPTS])
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (z, texts)]
    odds = np.exp(np.exp(cascade.clip.params["logit_scale"]) * unit[0] @ unit[1].T)
    for row, name in enumerate(named):
        got = [found.facts["probabilities"][name][label] for label in PROMPTS]
        np.testing.assert_allclose(got, odds[row] / odds[row].sum(), rtol=1e-4)
    assert found.images.shape[:2] == (2, 2)


def test_a_guidance_grid_changes_the_scale_only(pipeline):
    found = pipeline.guidance_grid(PROMPTS[0], scales=(1.5, 3.0), count=2, seed=6, **BATCH)
    for row, scale in enumerate((1.5, 3.0)):
        sampling = {"decoder": {"guidance_scale": scale}}
        wanted = pipeline(PROMPTS[0], images_per_prompt=2, seed=6, sampling=sampling, **BATCH)
        np.testing.assert_array_equal(found.images[row], wanted.images[0])
    assert found.rows == ("guidance 1.5", "guidance 3")


def test_image_to_image_keeps_more_at_less_strength(pipeline, pictures):
    distances = []
    for strength in (0.02, 0.3, 1.0):
        found = pipeline.image_to_image(
            pictures[0], PROMPTS[0], strength=strength, count=2, **BATCH
        )
        off = np.abs(found.stages["decoder"][0].astype(int) - small(pictures[0])[None])
        distances.append(off.mean())
    assert distances == sorted(distances)
    assert distances[0] < 0.5 * distances[-1]
    with pytest.raises(UserError, match="strength: must be above 0"):
        pipeline.image_to_image(pictures[0], PROMPTS[0], strength=0.0)


def test_a_negative_prompt_is_what_guidance_moves_away_from(pipeline):
    """Away from the prompt itself, guidance cancels: the picture at scale 1 of the same caption."""
    keys = pipeline.keys(1, 2, 0)
    same = pipeline.draw_embeddings([PROMPTS[0]] * 2, keys, negative=PROMPTS[0], **BATCH)
    unguided = {"prior": {"guidance_scale": 1.0}}
    plain = pipeline.draw_embeddings([PROMPTS[0]] * 2, keys, sampling=unguided, **BATCH)
    np.testing.assert_allclose(same, plain, atol=1e-5)
    other = pipeline.draw_embeddings([PROMPTS[0]] * 2, keys, negative=PROMPTS[1], **BATCH)
    without = pipeline.draw_embeddings([PROMPTS[0]] * 2, keys, **BATCH)
    assert np.abs(other - without).max() > 1e-3
    assert np.abs(other - same).max() > 1e-3


def test_weights_of_one_change_nothing_and_others_do(pipeline):
    keys = pipeline.keys(1, 2, 0)

    def draw(prompt):
        return pipeline.draw_embeddings([prompt, "a (tree:1.2)"], keys, **BATCH)

    plain = draw("a red heart")
    np.testing.assert_array_equal(draw("a (red:1.0) heart"), plain)
    np.testing.assert_array_equal(draw("a (red:2) heart")[1], plain[1])
    assert np.abs(draw("a (red:2) heart")[0] - plain[0]).max() > 1e-4  # rounding gives 1e-6


def test_pictures_are_cropped_and_resized_to_fit():
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 200
    np.testing.assert_array_equal(fit(wide, 8), np.full((8, 8, 3), 200, np.uint8))
    assert fit(wide, 4, 12).shape == (4, 12, 3)
    assert resize(wide, 8, 24) is wide
    with pytest.raises(UserError, match="a picture is uint8"):
        fit(wide.astype(float), 8)

/* test_stage_gradients.c - the gradient that a stage hands to the optimiser is that of the loss
 * that it reports: along random directions of all trained weights, against central differences.
 *
 * Each module's way back is checked in double elsewhere (test_gradients_modules.c,
 * test_decoder_gradients.c); here it is how stages put them together: shards, joins, batches of
 * items, users, pictures.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "ranker/training/trainer_private.h"
#include "tests/unit/training_fixture.h"

#define DIRECTIONS 4
#define BOUND      1e-2 /* of the derivative: the loss is a float's */

static char *world;

#define RANK_USER                                  \
    "  - {name: llm, from: '@/lm/llm'}\n"          \
    "  - {name: encoder, from: '@/enc/encoder'}\n" \
    "  - {name: item_projector, new: linear, scale: 4}\n"
#define USER                                                                                 \
    "  - {name: user, new: perceiver, layers: 1, heads: 2, ffn: 24, latents: 3, deviation: " \
    "0.2}\n"
#define STAGE_USER                                                          \
    "stage: user\nseed: 3\nbundle: '@/bundle.json'\nhistory: 4\nbatch: 6\n" \
    "data: {items: '@/items.jsonl', users: '@/users.jsonl'}\n"              \
    "losses: [{kind: sampled_softmax, temperature: 0.2}]\n"                 \
    "parts:\n  - {name: encoder, from: '@/enc/encoder'}\n" USER
#define STAGE_CAPTION                                               \
    "stage: caption\nseed: 3\nbatch: 6\nmax_tokens: 24\n"           \
    "data: {captions: '@/captions.jsonl'}\nparts:\n"                \
    "  - {name: llm, from: '@/lm/llm'}\n"                           \
    "  - {name: vision, from: data/clip/gelu-patch16, tokens: 4}\n" \
    "  - {name: image_projector, new: mlp}\n"

static const struct {
    const char *name;
    const mr_stage *stage;
    const char *piece[4];
} ways[] = {
    {"contrastive", &mr_stage_contrastive, {recipe_contrastive, "batch: 16\n"}},
    {"rank_joint",
     &mr_stage_rank,
     {RECIPE_RANK("bundle"), rank_parts, "losses: [{kind: listwise}, {kind: yes_no}]\nbatch: 6\n"}},
    {"rank_user",
     &mr_stage_rank,
     {RECIPE_RANK("bundle"), "parts:\n" RANK_USER USER,
      "losses: [{kind: listwise}]\nbatch: 6\nfreeze: ['encoder.*']\n"}},
    {"rank_user_joint",
     &mr_stage_rank,
     {RECIPE_RANK("bundle"), "parts:\n" RANK_USER USER "  - {name: user_projector, new: mlp}\n",
      "losses: [{kind: listwise}]\nbatch: 6\n"}},
    {"rank_encoder_below_user",
     &mr_stage_rank,
     {RECIPE_RANK("bundle"), "parts:\n" RANK_USER USER,
      "losses: [{kind: listwise}]\nbatch: 6\nfreeze: ['user.*', 'llm.*', 'item_projector.*']\n"}},
    {"user", &mr_stage_user, {STAGE_USER, "freeze: ['encoder.*']\n"}},
    {"user_joint", &mr_stage_user, {STAGE_USER}},
    {"encoder_below_user", &mr_stage_user, {STAGE_USER, "freeze: ['user.*']\n"}},
    {"caption_projector", &mr_stage_caption, {STAGE_CAPTION, "freeze: ['llm.*', 'vision.*']\n"}},
    {"caption_llm", &mr_stage_caption, {STAGE_CAPTION, "freeze: ['vision.*']\n"}},
    {"caption_tower", &mr_stage_caption, {STAGE_CAPTION}},
};

/* The loss of one batch; with its gradient in trainer->gradient[0] when that is wanted. */
static double loss_of(mr_trainer *t, const mr_stage *stage, void *state, bool learn)
{
    const mr_batch_place place = {.number = 3};
    mr_error err = {0};
    double loss = 0;
    for (size_t s = 0; s < t->n_shards; s++)
        assert_status(stage->forward(state, s, &place, &err), MR_OK, &err);
    if (stage->join)
        assert_status(stage->join(state, &place, &err), MR_OK, &err);
    for (size_t s = 0; s < t->n_shards; s++) {
        mr_shard_report report = {0};
        memset(t->gradient[s], 0, t->weights.total * sizeof(float));
        assert_status(
            stage->backward(state, s, &place, learn ? t->gradient[s] : NULL, &report, &err), MR_OK,
            &err);
        loss += report.loss;
        for (size_t i = 0; s > 0 && learn && i < t->weights.total; i++)
            t->gradient[0][i] += t->gradient[s][i];
    }
    return loss;
}

/* A direction over one part, or over all; of length 1 against the weights' own size. */
static double draw_direction(const mr_trainer *t, mr_rng *rng, size_t only, float *direction)
{
    double sum = 0;
    memset(direction, 0, t->weights.total * sizeof *direction);
    for (size_t p = 0; p < t->weights.n_parts; p++) {
        const mr_weights_part *part = &t->weights.part[p];
        for (size_t w = part->first; w < part->first + part->n; w++) {
            const mr_weight *weight = &t->weights.weight[w];
            for (size_t i = 0; i < weight->n && weight->trained && (only == p || only == SIZE_MAX);
                 i++) {
                direction[weight->offset + i] = (float)mr_rng_normal(rng);
                sum +=
                    (double)direction[weight->offset + i] * (double)direction[weight->offset + i];
            }
        }
    }
    for (size_t i = 0; i < t->weights.total; i++)
        direction[i] /= (float)sqrt(sum + 1e-30);
    return sum;
}

static void check_direction(mr_trainer *t, const char *name, const char *part,
                            const mr_stage *stage, void *state, const float *direction)
{
    const size_t n = t->weights.total;
    float *values = malloc(n * sizeof *values);
    assert_non_null(values);
    memcpy(values, t->values, n * sizeof *values);
    double along = 0, length = 0, side[2];
    loss_of(t, stage, state, true);
    for (size_t i = 0; i < n; i++) {
        along += (double)t->gradient[0][i] * (double)direction[i];
        length += (double)t->gradient[0][i] * (double)t->gradient[0][i];
    }
    const double h = 2e-2;
    for (int k = 0; k < 2; k++) {
        for (size_t i = 0; i < n; i++)
            t->values[i] = values[i] + (float)((k ? -h : h) * (double)direction[i]);
        side[k] = loss_of(t, stage, state, false);
    }
    memcpy(t->values, values, n * sizeof *values);
    free(values);
    const double want = (side[0] - side[1]) / (2 * h);
    /* A random direction sees a share of the gradient's length. */
    const double scale = fabs(want) + 0.01 * sqrt(length);
    if (!(fabs(along - want) <= BOUND * scale) || length == 0)
        fail_msg("%s, %s: the gradient says %g, differences %g (length %g)", name, part, along,
                 want, sqrt(length));
}

static void gradients_are_those_of_the_reported_loss(void **state)
{
    (void)state;
    for (size_t w = 0; w < COUNT(ways); w++) {
        const mr_stage *stage = ways[w].stage;
        mr_recipe *recipe = world_recipe(world, ways[w].piece[0], "steps: 9\n",
                                         ways[w].piece[1] ? ways[w].piece[1] : "",
                                         ways[w].piece[2] ? ways[w].piece[2] : "");
        const mr_train_options opt = {.out = "/nowhere", .threads = 1};
        mr_trainer trainer = {.recipe = recipe, .opt = &opt, .ops = mr_ops_select_f32()};
        void *stage_state = NULL;
        uint64_t examples = 0;
        mr_rng rng = mr_rng_seed(17 + w);
        mr_error err = {0};
        assert_status(mr_pool_new(&trainer.pool, 1, &err), MR_OK, &err);
        assert_status(mr_trainer_open_parts(&trainer, &err), MR_OK, &err);
        assert_status(stage->open(&trainer, &stage_state, &examples, &err), MR_OK, &err);
        float *direction = malloc(trainer.weights.total * sizeof *direction);
        assert_non_null(direction);
        for (size_t p = 0; p < trainer.weights.n_parts; p++)
            if (draw_direction(&trainer, &rng, p, direction) > 0)
                check_direction(&trainer, ways[w].name, trainer.weights.part[p].name, stage,
                                stage_state, direction);
        for (int d = 0; d < DIRECTIONS; d++) {
            draw_direction(&trainer, &rng, SIZE_MAX, direction);
            check_direction(&trainer, ways[w].name, "all parts", stage, stage_state, direction);
        }
        free(direction);
        stage->close(stage_state);
        mr_pool *pool = trainer.pool;
        mr_trainer_close_parts(&trainer);
        mr_pool_free(pool);
        mr_recipe_free(recipe);
    }
}

static int set_up(void **state)
{
    (void)state;
    static const char *const pictures[] = {"rgb-61x47.png", "rgba.png", "jpeg-420.jpg"};
    mr_strbuf out = {0};
    world = world_new();
    world_decoders(world);
    for (size_t i = 0; i < 9; i++) {
        const char *picture = pictures[i % COUNT(pictures)];
        char from[256], to[1024];
        mr_error err = {0};
        snprintf(from, sizeof from, "data/images/%s", picture);
        snprintf(to, sizeof to, "%s/%s", world, picture);
        assert_status(mr_file_copy(from, to, &err), MR_OK, &err);
        mr_strbuf_printf(&out, "{\"image\":\"%s\",\"text\":\"%s %s\"}\n", picture,
                         topic_words[i % 5][i % 6], topic_words[i % 4][i % 3]);
    }
    write_text(world, "captions.jsonl", &out);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_folder_free(world);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_are_those_of_the_reported_loss),
    };
    return cmocka_run_group_tests_name("stage_gradients", tests, set_up, tear_down);
}

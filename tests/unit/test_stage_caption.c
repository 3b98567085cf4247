/* test_stage_caption.c - LLaVA's training: the loss falls, it is the one that serving's engine
 * gives for the same picture and text, the same bits whatever the threads, frozen parts stay, what
 * is refused.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <unistd.h>

#include "encoders/image_encoder.h"
#include "encoders/projector.h"
#include "engine/session.h"
#include "ranker/training/caption_data.h"
#include "ranker/training/journal.h"
#include "tests/unit/training_fixture.h"

#define CLIP   "data/clip/gelu-patch16" /* pictures of 56, 3 x 3 patches */
#define TOKENS 4
#define STEPS  40
#define ROWS   130 /* one in 50 is the valid split */

static const char *const pictures[] = {"rgb-61x47.png",  "rgb-28x45.png",   "palette-8bit.png",
                                       "rgba.png",       "bmp24-47x35.bmp", "jpeg-420.jpg",
                                       "grey-alpha.png", "rgb-28x28.png",   "rgb-interlaced.png",
                                       "jpeg-grey.jpg",  "rgb-3x200.png"};

static char *world;

/* ---- A world with pictures ------------------------------------------------------------------- */

/* What a picture shows is its topic; every seventh row has no picture, every third a prompt. */
static void write_captions(void)
{
    mr_rng rng = mr_rng_seed(9);
    mr_strbuf out = {0};
    for (size_t i = 0; i < COUNT(pictures); i++) {
        char from[256], to[1024];
        mr_error err = {0};
        snprintf(from, sizeof from, "data/images/%s", pictures[i]);
        snprintf(to, sizeof to, "%s/pictures/%s", world, pictures[i]);
        assert_status(mr_file_copy(from, to, &err), MR_OK, &err);
    }
    for (size_t i = 0; i < ROWS; i++) {
        const size_t picture = i * 7 % COUNT(pictures);
        mr_strbuf_printf(&out, "{\"id\":\"c%zu\",\"text\":\"", i);
        put_words(&out, (int)(picture % N_TOPICS), 3 + (int)(i % 3), &rng);
        mr_strbuf_printf(&out, "\",\"image\":\"pictures/%s\"", pictures[picture]);
        if (i % 3 == 0)
            mr_strbuf_puts(&out, ",\"prompt\":\"key <image>\\nwhat <|item|>\"");
        mr_strbuf_puts(&out, "}\n");
        if (i % 7 == 0)
            mr_strbuf_printf(&out, "{\"id\":\"n%zu\",\"text\":\"nothing to see\"}\n", i);
    }
    write_text(world, "captions.jsonl", &out);
}

static const char base[] = "stage: caption\n"
                           "seed: 8\n"
                           "parts:\n"
                           "  - {name: llm, from: '@/lm/llm'}\n"
                           "  - {name: vision, from: " CLIP ", tokens: 4, feature_layer: -2}\n"
                           "  - {name: image_projector, new: mlp}\n"
                           "max_tokens: 24\n"
                           "batch: 6\n"
                           "shards: 4\n"
                           "valid_every: 8\n"
                           "steps: 40\n"
                           "optimizer: {rate: 1e-2, warm_up: 2, weight_decay: 0}\n";
static const char data[] = "data: {captions: '@/captions.jsonl'}\n";

/* The paper's two stages, and the tower as well. */
static const struct {
    const char *name, *freeze;
    bool llm, vision;
} ways[] = {{"stage1", "freeze: ['llm.*', 'vision.*']\n", false, false},
            {"stage2", "freeze: ['vision.*']\n", true, false},
            {"tower", "freeze: ['llm.model.embed*']\n", true, true}};

static mr_recipe *recipe_of(size_t way)
{
    return world_recipe(world, base, data, ways[way].freeze);
}

static const char *place(size_t way, const char *suffix)
{
    char name[64];
    snprintf(name, sizeof name, "%s_%s", ways[way].name, suffix);
    return test_path(world, name);
}

static int set_up(void **state)
{
    (void)state;
    world = world_new();
    /* A language model that knows its words: else there is nothing for a projector to ask of it. */
    mr_recipe *lm = world_recipe(world, recipe_next_token,
                                 "steps: 200\nbatch: 8\noptimizer: {rate: 1e-2, warm_up: 10}\n");
    train_ok(lm, test_path(world, "lm"), (run_options){.threads = 2});
    mr_recipe_free(lm);
    assert_int_equal(mkdir(test_path(world, "pictures"), 0700), 0);
    write_captions();
    for (size_t i = 0; i < COUNT(ways); i++) {
        mr_recipe *recipe = recipe_of(i);
        const mr_train_summary summary = train_ok(recipe, place(i, "a"), (run_options){0});
        mr_recipe_free(recipe);
        assert_true(summary.finished);
        assert_int_equal(summary.passed_over, (ROWS + 6) / 7);
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_folder_free(world);
    return 0;
}

/* ---- Learning -------------------------------------------------------------------------------- */

static void the_loss_falls(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(ways); i++) {
        mr_journal_rows rows = {0};
        mr_error err = {0};
        double before = 0, after = 0;
        assert_status(mr_journal_read(&rows, test_path(place(i, "a"), MR_JOURNAL_NAME), &err),
                      MR_OK, &err);
        assert_int_equal(rows.n, STEPS);
        for (size_t k = 0; k < 4; k++) {
            before += rows.row[k].loss / 4;
            after += rows.row[STEPS - 1 - k].loss / 4;
        }
        mr_journal_rows_free(&rows);
        if (!(after < 0.93 * before))
            fail_msg("%s: the loss is %g in the first steps and %g in the last", ways[i].name,
                     before, after);
    }
}

static void threads_and_stops_do_not_change_a_bit(void **state)
{
    (void)state;
    static const int64_t stops[] = {1, 9, 0};
    for (size_t i = 0; i < COUNT(ways); i++) {
        mr_recipe *recipe = recipe_of(i);
        train_ok(recipe, place(i, "3"), (run_options){.threads = 3});
        assert_same_run(place(i, "a"), place(i, "3"), STEPS);
        for (size_t s = 0; s < COUNT(stops); s++)
            train_ok(recipe, place(i, "stopped"),
                     (run_options){.threads = 1 + (int)s % 2, .stop_step = stops[s]});
        assert_same_run(place(i, "a"), place(i, "stopped"), STEPS);
        mr_recipe_free(recipe);
    }
}

static void what_is_frozen_stays_as_it_was_and_the_rest_moves(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(ways); i++) {
        assert_int_equal(same_bytes(test_path(world, "lm/llm/model.safetensors"),
                                    test_path(place(i, "a"), "llm/model.safetensors")),
                         !ways[i].llm);
        /* A frozen tower is where it came from, and is not written again. */
        assert_int_equal(mr_file_is_folder(test_path(place(i, "a"), "vision")), ways[i].vision);
        assert_false(
            same_bytes(test_path(place(i, "a"), "image_projector.safetensors"),
                       checkpoint_file(place(i, "stopped"), 9, "image_projector.safetensors")));
    }
    /* Of a trained tower what is beyond the feature layer is not touched. */
    static const struct {
        const char *name;
        bool same;
    } table[] = {{"vision_model.embeddings.patch_embedding.weight", false},
                 {"vision_model.encoder.layers.1.mlp.fc1.weight", false},
                 {"vision_model.encoder.layers.2.mlp.fc1.weight", true}};
    mr_safetensors *before = NULL, *after = NULL;
    mr_error err = {0};
    assert_status(mr_safetensors_open(&before, CLIP "/model.safetensors", &err), MR_OK, &err);
    assert_status(
        mr_safetensors_open(&after, test_path(place(2, "a"), "vision/model.safetensors"), &err),
        MR_OK, &err);
    for (size_t i = 0; i < COUNT(table); i++) {
        const mr_tensor *x = mr_safetensors_find(before, table[i].name),
                        *y = mr_safetensors_find(after, table[i].name);
        assert_true(x && y && x->bytes == y->bytes);
        if ((memcmp(x->data, y->data, x->bytes) == 0) != table[i].same)
            fail_msg("%s: the same bits %d, expected %d", table[i].name, !table[i].same,
                     table[i].same);
    }
    mr_safetensors_close(before);
    mr_safetensors_close(after);
}

/* ---- As it is served ------------------------------------------------------------------------- */

typedef struct {
    mr_image_encoder *encoder;
    mr_projector *projector;
    mr_model *model;
    mr_session *session;
    mr_tokenizer *tokenizer;
    void *scratch;
    size_t dim, C, V;
} served;

static void open_served(served *s, size_t way)
{
    mr_error err = {0};
    const mr_image_encoder_options opt = {
        .tokens = TOKENS, .feature_layer = -2, .gemm = MR_GEMM_SCORING};
    const mr_session_options session = {.max_prefix = 64, .max_rows = 64};
    const mr_model_options model = {.gemm = MR_GEMM_SCORING};
    char out[1024];
    snprintf(out, sizeof out, "%s", place(way, "a"));
    assert_status(mr_image_encoder_open(
                      &s->encoder, ways[way].vision ? test_path(out, "vision") : CLIP, &opt, &err),
                  MR_OK, &err);
    assert_status(
        mr_projector_open(&s->projector, test_path(out, "image_projector.safetensors"), 0, 0, &err),
        MR_OK, &err);
    assert_status(mr_model_open(&s->model, test_path(out, "llm"), &model, &err), MR_OK, &err);
    assert_status(mr_session_new(&s->session, s->model, &session, &err), MR_OK, &err);
    assert_status(mr_tokenizer_open(&s->tokenizer, test_path(out, "llm"), &err), MR_OK, &err);
    s->dim = mr_image_encoder_dim(s->encoder);
    s->C = mr_projector_out_dim(s->projector);
    s->V = (size_t)s->model->config.V;
    s->scratch = malloc(mr_projector_scratch_bytes(s->projector, TOKENS));
    assert_non_null(s->scratch);
}

static void close_served(served *s)
{
    mr_session_free(s->session);
    mr_model_close(s->model);
    mr_projector_close(s->projector);
    mr_image_encoder_close(s->encoder);
    mr_tokenizer_close(s->tokenizer);
    free(s->scratch);
}

static void encode(const served *s, const char *text, mr_ids *ids)
{
    mr_error err = {0};
    assert_status(
        mr_tokenizer_encode(s->tokenizer, mr_str_of(text), MR_TOKENIZE_PARSE_SPECIAL, ids, &err),
        MR_OK, &err);
}

/* -log p of a caption's text, summed; *n: its tokens. */
static double loss_of(served *s, size_t row, const char *text, size_t *n)
{
    mr_error err = {0};
    char path[256];
    float vectors[TOKENS * 64], projected[TOKENS * 64];
    size_t len;
    assert_true(s->dim <= 64 && s->C <= 64);
    snprintf(path, sizeof path, "data/images/%s", pictures[row * 7 % COUNT(pictures)]);
    char *file = test_file_read(path, &len);
    assert_status(mr_image_encoder_put(s->encoder, 0, path, (mr_bytes){file, len}, &err), MR_OK,
                  &err);
    free(file);
    assert_status(mr_image_encoder_run(s->encoder, 1, vectors, &err), MR_OK, &err);
    mr_projector_run(s->projector, mr_kernels_select(), NULL, s->scratch, vectors, TOKENS,
                     projected);

    mr_ids ids = {0};
    const int32_t slot = MR_ID_EMBED, eos = mr_tokenizer_token_id(s->tokenizer, "<|endoftext|>");
    if (row % 3 == 0)
        encode(s, "key ", &ids);
    for (size_t t = 0; t < TOKENS; t++)
        assert_status(mr_ids_append(&ids, &slot, 1, &err), MR_OK, &err);
    if (row % 3 == 0)
        encode(s, "\nwhat <|item|>", &ids);
    const size_t prompt = ids.n;
    encode(s, text, &ids);
    assert_status(mr_ids_append(&ids, &eos, 1, &err), MR_OK, &err);
    *n = ids.n - prompt;

    const mr_input input = {ids.data, ids.n, projected, TOKENS};
    const mr_batch batch = {.prefix = &input, .prefix_want = MR_WANT_ALL};
    float *hidden = calloc(ids.n * s->C, sizeof *hidden), *logits = calloc(s->V, sizeof *logits);
    assert_true(hidden && logits);
    mr_session_reset(s->session);
    assert_status(mr_session_run(s->session, &batch, hidden, &err), MR_OK, &err);
    double loss = 0;
    for (size_t r = prompt; r < ids.n; r++) {
        double sum = 0;
        mr_model_logits(s->model, NULL, hidden + (r - 1) * s->C, 1, logits);
        for (size_t v = 0; v < s->V; v++)
            sum += exp((double)logits[v]);
        loss += log(sum) - (double)logits[ids.data[r]];
    }
    free(hidden);
    free(logits);
    mr_ids_release(&ids);
    return loss;
}

static double last_valid_loss(size_t way)
{
    mr_journal_rows rows = {0};
    mr_error err = {0};
    assert_status(mr_journal_read(&rows, test_path(place(way, "a"), MR_JOURNAL_NAME), &err), MR_OK,
                  &err);
    const double loss = rows.row[rows.n - 1].valid;
    mr_journal_rows_free(&rows);
    return loss;
}

/* Rows 49 and 99 of those with a picture are the valid split; one batch holds both. */
static void the_loss_is_that_of_serving(void **state)
{
    (void)state;
    static const size_t valid[] = {49, 99};
    char *text = test_file_read(test_path(world, "captions.jsonl"), NULL);
    for (size_t i = 0; i < COUNT(ways); i++) {
        served s = {0};
        double loss = 0;
        size_t tokens = 0;
        open_served(&s, i);
        for (size_t k = 0; k < COUNT(valid); k++) {
            char id[32], caption[256];
            size_t n;
            snprintf(id, sizeof id, "{\"id\":\"c%zu\",\"text\":\"", valid[k]);
            const char *at = strstr(text, id);
            assert_non_null(at);
            at += strlen(id);
            snprintf(caption, sizeof caption, "%.*s", (int)strcspn(at, "\""), at);
            loss += loss_of(&s, valid[k], caption, &n);
            tokens += n;
        }
        close_served(&s);
        const double want = loss / (double)tokens, got = last_valid_loss(i);
        if (!(fabs(got - want) <= 1e-4))
            fail_msg("%s: the loss in training is %.7f, of the engine %.7f", ways[i].name, got,
                     want);
    }
    free(text);
}

/* ---- What is refused ------------------------------------------------------------------------- */

static void what_is_no_caption_is_refused_by_its_line(void **state)
{
    (void)state;
    static const struct {
        const char *rows;
        mr_status status;
        const char *message;
    } table[] = {
        {"{'text':'a'}\n{'text':'b','image':''}\n{'text':'c','image':null}\n", MR_INVALID,
         "has no row with a picture (3 without)"},
        {"", MR_INVALID, "has no row with a picture (0 without)"},
        {"{'image':'pictures/rgba.png'}\n", MR_INVALID, "line 1"},
        {"{'text':'a'}\n{'image':7,'text':'a'}\n", MR_INVALID, "line 2"},
        {"{'image':'../rgba.png','text':'a'}\n", MR_INVALID, "../rgba.png"},
        {"{'image':'pictures/none.png','text':'a'}\n", MR_NOT_FOUND, "none.png"},
        {"{'image':'captions.jsonl','text':'a'}\n", MR_UNSUPPORTED, "captions.jsonl"},
        {"{'image':'pictures/rgba.png','text':'a','prompt':'what'}\n", MR_INVALID,
         "line 1: 'prompt' has no '<image>', expected one"},
        {"{'image':'pictures/rgba.png','text':'a','prompt':'<image><image>'}\n", MR_INVALID,
         "line 1: 'prompt' has more than one '<image>', expected one"},
        {"{'image':'pictures/rgba.png','text':'a','prompt':'<image>red red red red red red red red "
         "red red red red red red red red red red red red red red red red red red red red'}\n",
         MR_INVALID, "which leaves none of max_tokens (24) to learn"},
    };
    for (size_t v = 0; v < 2; v++) {
        for (size_t i = 0; i < COUNT(table); i++) {
            mr_error err = {0};
            mr_train_summary summary = {0};
            write_json(world, "refused.jsonl", table[i].rows);
            mr_recipe *recipe = world_recipe(world, base, "data: {captions: '@/refused.jsonl'}\n",
                                             v ? "" : ways[0].freeze);
            assert_status(
                train(recipe, test_path(world, "refused"), (run_options){0}, &summary, &err),
                table[i].status, &err);
            assert_contains(err.message, table[i].message);
            mr_recipe_free(recipe);
        }
    }
}

static void towers_and_models_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *vision, *rest;
        mr_status status;
        const char *message;
    } table[] = {
        {"from: " CLIP ", tokens: 5", "", MR_INVALID, "part 'vision': 5 tokens of a picture"},
        {"from: " CLIP ", tokens: 16", "", MR_INVALID, "part 'vision': 16 tokens of a picture"},
        {"from: " CLIP ", feature_layer: 4", "", MR_INVALID, "part 'vision': feature layer 4"},
        {"from: data/clip", "", MR_NOT_FOUND, "data/clip"},
        {"from: " CLIP, "freeze: ['*']\n", MR_INVALID, "everything is frozen"},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        mr_error err = {0};
        mr_train_summary summary = {0};
        char part[256];
        snprintf(part, sizeof part, "  - {name: vision, %s}\n", table[i].vision);
        mr_recipe *recipe = world_recipe(world,
                                         "stage: caption\nsteps: 1\nbatch: 2\ndata: {captions: "
                                         "'@/captions.jsonl'}\nparts:\n"
                                         "  - {name: llm, from: '@/lm/llm'}\n"
                                         "  - {name: image_projector, new: linear}\n",
                                         part, table[i].rest);
        assert_status(train(recipe, test_path(world, "refused"), (run_options){0}, &summary, &err),
                      table[i].status, &err);
        assert_contains(err.message, table[i].message);
        mr_recipe_free(recipe);
    }
}

/* All patches, as LLaVA; a text that is too long loses its end. */
static void a_whole_grid_and_long_texts_are_taken(void **state)
{
    (void)state;
    mr_strbuf out = {0};
    for (int i = 0; i < 4; i++)
        mr_strbuf_puts(&out, "{\"image\":\"pictures/rgba.png\",\"text\":\"red paint red paint red "
                             "paint red paint red paint red paint\"}\n");
    write_text(world, "long.jsonl", &out);
    mr_recipe *recipe = world_recipe(world, "stage: caption\nsteps: 2\nbatch: 4\nshards: 1\n"
                                            "max_tokens: 5\n"
                                            "data: {captions: '@/long.jsonl'}\nparts:\n"
                                            "  - {name: llm, from: '@/lm/llm'}\n"
                                            "  - {name: vision, from: " CLIP "}\n"
                                            "  - {name: image_projector, new: linear}\n"
                                            "freeze: ['vision.*']\n");
    const mr_train_summary summary = train_ok(recipe, test_path(world, "long"), (run_options){0});
    mr_recipe_free(recipe);
    /* 9 patches and all but the last of 5 tokens, 4 rows, 2 steps */
    assert_int_equal(summary.tokens, 2 * 4 * (9 + 4));
    assert_int_equal(summary.passed_over, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_loss_falls),
        cmocka_unit_test(threads_and_stops_do_not_change_a_bit),
        cmocka_unit_test(what_is_frozen_stays_as_it_was_and_the_rest_moves),
        cmocka_unit_test(the_loss_is_that_of_serving),
        cmocka_unit_test(what_is_no_caption_is_refused_by_its_line),
        cmocka_unit_test(towers_and_models_that_do_not_fit_are_refused),
        cmocka_unit_test(a_whole_grid_and_long_texts_are_taken),
    };
    return cmocka_run_group_tests_name("stage_caption", tests, set_up, tear_down);
}

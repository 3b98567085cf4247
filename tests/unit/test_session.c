/* test_session.c - what a session computes for whom, what it refuses, and what it leaves alone.
 *
 * That the numbers are right is test_forward_reference.c's subject; here they are compared with
 * each other, bit for bit.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/engine_support.h"
#include "tests/support.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#    define SANITIZED 1
#elif defined(__has_feature)
#    if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#        define SANITIZED 1
#    endif
#endif

#define SHAPE  4 /* of test_shapes: qwen3, L 3, C 48, V 150, 512 positions */
#define WIDTH  48
#define VOCAB  150
#define LAYERS 3

static char *folder;
static mr_model *model;

static int open_model(void **state)
{
    (void)state;
    folder = test_folder_new();
    test_model_write(folder, &test_shapes[SHAPE]);
    model = test_model_open(folder, MR_GEMM_SCORING, NULL);
    return model->config.C == WIDTH && model->config.V == VOCAB && model->config.L == LAYERS ? 0
                                                                                             : -1;
}

static int close_model(void **state)
{
    (void)state;
    mr_model_close(model);
    test_folder_free(folder);
    return 0;
}

static void run(mr_session *session, const mr_batch *batch, float *hidden)
{
    mr_error err = {0};
    assert_status(mr_session_run(session, batch, hidden, &err), MR_OK, &err);
}

/* All rows of one input alone in a fresh session. */
static float *alone(const mr_input *input)
{
    mr_session *session = test_session_new(model, input->n, input->n, 0, NULL);
    float *hidden = malloc(input->n * WIDTH * sizeof *hidden);
    assert_non_null(hidden);
    run(session, &(mr_batch){.prefix = input, .prefix_want = MR_WANT_ALL}, hidden);
    mr_session_free(session);
    return hidden;
}

static void assert_rows(const char *what, const float *got, const float *want, size_t rows)
{
    test_assert_same_bits(what, got, want, rows, WIDTH);
}

/* ---- What comes out -------------------------------------------------------------------------- */

static void a_suffix_after_a_shared_prefix_gives_what_the_full_prompt_gives(void **state)
{
    (void)state;
    enum { PREFIX = 29, MOST = 13, N = 6 };
    static const size_t lengths[N] = {2, 5, 1, 13, 2, 3};
    mr_rng rng = mr_rng_seed(1);
    mr_input prefix = test_input_new(&rng, model, PREFIX, 9), suffixes[N];
    float hidden[(2 + 5 + 1 + 13 + 2 + 3) * WIDTH];
    for (size_t i = 0; i < N; i++)
        suffixes[i] = test_input_new(&rng, model, lengths[i], 2);
    mr_session *session = test_session_new(model, PREFIX, PREFIX + 26, MOST, NULL);
    run(session,
        &(mr_batch){
            .prefix = &prefix, .suffixes = suffixes, .n_suffixes = N, .suffix_want = MR_WANT_ALL},
        hidden);
    assert_int_equal(mr_session_length(session), PREFIX);

    const float *got = hidden;
    for (size_t i = 0; i < N; i++) {
        mr_input whole = test_input_join(model, &prefix, &suffixes[i]);
        float *want = alone(&whole);
        assert_floats_near(got, want + PREFIX * WIDTH, lengths[i] * WIDTH, 1e-5); /* the promise */
        assert_rows("suffix", got, want + PREFIX * WIDTH, lengths[i]);            /* what we keep */
        got += lengths[i] * WIDTH;
        free(want);
        test_input_free(&whole);
        test_input_free(&suffixes[i]);
    }
    test_input_free(&prefix);
    mr_session_free(session);
}

static void wanted_rows_come_out_in_order(void **state)
{
    (void)state;
    enum { PREFIX = 11, N = 3, MOST = 7, ROWS = PREFIX + 2 + 7 + 4 };
    static const size_t lengths[N] = {2, 7, 4};
    mr_rng rng = mr_rng_seed(2);
    mr_input prefix = test_input_new(&rng, model, PREFIX, 0), suffixes[N];
    float *want_prefix = alone(&prefix), *want_suffix[N];
    for (size_t i = 0; i < N; i++) {
        suffixes[i] = test_input_new(&rng, model, lengths[i], 3);
        mr_input whole = test_input_join(model, &prefix, &suffixes[i]);
        want_suffix[i] = alone(&whole);
        test_input_free(&whole);
    }

    static const mr_want wants[] = {MR_WANT_NONE, MR_WANT_LAST, MR_WANT_ALL};
    static const size_t passes[] = {7, 8, 9, 13, ROWS};
    for (size_t i = 0; i < 9 * 4 * sizeof passes / sizeof *passes; i++) {
        const mr_batch batch = {.prefix = &prefix,
                                .prefix_want = wants[i % 3],
                                .suffixes = suffixes,
                                .n_suffixes = N,
                                .suffix_want = wants[i / 3 % 3],
                                .n_last = 1 + i / 9 % 4};
        float want[ROWS * WIDTH], got[ROWS * WIDTH];
        size_t rows = 0;
        for (size_t s = 0; s <= N; s++) {
            const size_t n = s == 0 ? PREFIX : lengths[s - 1];
            const float *from = s == 0 ? want_prefix : want_suffix[s - 1] + PREFIX * WIDTH;
            const mr_want which = s == 0 ? batch.prefix_want : batch.suffix_want;
            const size_t last = n < batch.n_last ? n : batch.n_last;
            const size_t count = which == MR_WANT_ALL ? n : which == MR_WANT_LAST ? last : 0;
            memcpy(want + rows * WIDTH, from + (n - count) * WIDTH, count * WIDTH * sizeof *want);
            rows += count;
        }
        assert_int_equal(mr_batch_rows(&batch), rows);
        mr_session *session = test_session_new(model, PREFIX, passes[i / 36], MOST, NULL);
        run(session, &batch, got);
        assert_rows("wanted row", got, want, rows);
        mr_session_free(session);
    }

    free(want_prefix);
    test_input_free(&prefix);
    for (size_t i = 0; i < N; i++) {
        free(want_suffix[i]);
        test_input_free(&suffixes[i]);
    }
}

static void suffixes_need_no_prefix(void **state)
{
    (void)state;
    enum { N = 5 };
    mr_rng rng = mr_rng_seed(3);
    mr_input texts[N];
    float got[N * WIDTH];
    for (size_t i = 0; i < N; i++)
        texts[i] = test_input_new(&rng, model, 1 + 3 * i, 0);
    mr_session *session = test_session_new(model, 0, 20, 0, NULL);
    run(session,
        &(mr_batch){.suffixes = texts, .n_suffixes = N, .suffix_want = MR_WANT_LAST, .n_last = 1},
        got);
    assert_int_equal(mr_session_length(session), 0);
    for (size_t i = 0; i < N; i++) {
        float *want = alone(&texts[i]);
        assert_rows("text", got + i * WIDTH, want + (texts[i].n - 1) * WIDTH, 1);
        free(want);
        test_input_free(&texts[i]);
    }
    mr_session_free(session);
}

static void truncating_forgets_what_came_after(void **state)
{
    (void)state;
    mr_rng rng = mr_rng_seed(4);
    mr_input a = test_input_new(&rng, model, 9, 0), b = test_input_new(&rng, model, 12, 5);
    mr_input c = test_input_new(&rng, model, 4, 0), whole = test_input_join(model, &a, &c);
    float got[4 * WIDTH];
    mr_session *session = test_session_new(model, 30, 8, 0, NULL);
    run(session, &(mr_batch){.prefix = &a}, NULL);
    run(session, &(mr_batch){.prefix = &b}, NULL);
    assert_int_equal(mr_session_length(session), 21);
    mr_session_truncate(session, 100); /* nothing to forget */
    assert_int_equal(mr_session_length(session), 21);
    mr_session_truncate(session, 9);
    assert_int_equal(mr_session_length(session), 9);
    run(session, &(mr_batch){.prefix = &c, .prefix_want = MR_WANT_ALL}, got);
    float *want = alone(&whole);
    assert_rows("after truncate", got, want + 9 * WIDTH, 4);
    mr_session_reset(session);
    assert_int_equal(mr_session_length(session), 0);
    run(session, &(mr_batch){.prefix = &whole, .prefix_want = MR_WANT_LAST, .n_last = 4}, got);
    assert_rows("after reset", got, want + 9 * WIDTH, 4);
    free(want);
    mr_session_free(session);
    test_input_free(&a);
    test_input_free(&b);
    test_input_free(&c);
    test_input_free(&whole);
}

static void empty_batches_and_empty_prefixes_do_nothing(void **state)
{
    (void)state;
    const mr_input nothing = {0};
    mr_session *session = test_session_new(model, 8, 8, 0, NULL);
    run(session, &(mr_batch){0}, NULL);
    run(session, &(mr_batch){.prefix = &nothing, .prefix_want = MR_WANT_ALL}, NULL);
    assert_int_equal(mr_session_length(session), 0);
    assert_int_equal(mr_session_take_stats(session).rows, 0);
    mr_session_free(session);
    mr_session_free(NULL);
}

static void vectors_are_scattered_bit_for_bit(void **state)
{
    (void)state;
    /* -0, a subnormal and an odd mantissa: a copy keeps them, arithmetic might not. */
    float vectors[2 * WIDTH], out[4 * WIDTH], row[WIDTH];
    for (size_t i = 0; i < 2 * WIDTH; i++)
        vectors[i] = i % 3 == 0 ? -0.0f : i % 3 == 1 ? 1e-41f : 1.0f / 3.0f;
    const int32_t ids[] = {7, MR_ID_EMBED, MR_ID_EMBED, VOCAB - 1};
    const mr_input input = {ids, 4, vectors, 2};
    mr_error err = {0};
    assert_status(mr_input_embeds(model, &input, out, &err), MR_OK, &err);
    assert_memory_equal(out + WIDTH, vectors, sizeof vectors);
    mr_model_embed(model, 7, row);
    assert_memory_equal(out, row, sizeof row);
    mr_model_embed(model, VOCAB - 1, row);
    assert_memory_equal(out + 3 * WIDTH, row, sizeof row);
}

/* ---- What is refused ------------------------------------------------------------------------- */

static void a_refused_run_names_its_reason_and_leaves_the_timeline_alone(void **state)
{
    (void)state;
    static float vectors[2 * WIDTH], bad[2 * WIDTH], infinite[WIDTH];
    bad[WIDTH + 17] = NAN;
    infinite[0] = -INFINITY;
    static const int32_t good_ids[16] = {1, 2, 3}, high[] = {1, VOCAB}, negative[] = {-2};
    static const int32_t slots[] = {5, MR_ID_EMBED, MR_ID_EMBED, 6};
    const mr_input good = {.ids = good_ids, .n = 3};
    const mr_input long_prefix = {.ids = good_ids, .n = 9}, full = {.ids = good_ids, .n = 8};
    const mr_input suffix[4] = {good, {.ids = high, .n = 2}, {0}, {.ids = good_ids, .n = 6}};
    const mr_input too_few = {slots, 4, vectors, 1}, too_many = {slots, 2, vectors, 2};
    const mr_input no_vectors = {slots, 4, NULL, 2}, nan_vector = {slots, 4, bad, 2};
    const mr_input inf_vector = {slots, 2, infinite, 1}, stray = {.ids = good_ids, .n_embeds = 1};
    const mr_input negative_id = {.ids = negative, .n = 1}, no_ids = {.n = 3};
    float hidden[64 * WIDTH];
    const struct {
        mr_batch batch;
        float *hidden;
        mr_status status;
        const char *message;
    } row[] = {
        {{.prefix = &good, .suffixes = suffix, .n_suffixes = 2},
         hidden,
         MR_INVALID,
         "suffix 1: id 150 at position 1 is outside the vocabulary of 150"},
        {{.prefix = &negative_id}, hidden, MR_INVALID, "prefix: id -2 at position 0"},
        {{.prefix = &no_ids}, hidden, MR_INVALID, "prefix: 3 positions without ids"},
        {{.prefix = &good, .suffixes = suffix + 2, .n_suffixes = 1},
         hidden,
         MR_INVALID,
         "suffix 0 is empty"},
        {{.prefix = &too_few}, hidden, MR_INVALID, "prefix: 2 embedding slots, but 1 embedding"},
        {{.prefix = &too_many}, hidden, MR_INVALID, "prefix: 1 embedding slots, but 2 embedding"},
        {{.prefix = &stray}, hidden, MR_INVALID, "prefix: 0 embedding slots, but 1 embedding"},
        {{.suffixes = &no_vectors, .n_suffixes = 1},
         hidden,
         MR_INVALID,
         "suffix 0: 2 embedding slots without vectors"},
        {{.suffixes = &nan_vector, .n_suffixes = 1},
         hidden,
         MR_INVALID,
         "suffix 0: embedding vector 1 holds nan at component 17"},
        {{.prefix = &inf_vector},
         hidden,
         MR_INVALID,
         "prefix: embedding vector 0 holds -inf at component 0"},
        {{.prefix = &long_prefix},
         hidden,
         MR_EXHAUSTED,
         "a prefix of 9 positions after 3; the timeline holds 11 (max_prefix)"},
        {{.prefix = &good, .suffixes = suffix + 3, .n_suffixes = 1},
         hidden,
         MR_EXHAUSTED,
         "suffix 0 has 6 positions; the session takes max_suffix 5"},
        {{.prefix = &good, .prefix_want = MR_WANT_LAST},
         hidden,
         MR_INVALID,
         "n_last must be at least 1"},
        {{.suffixes = suffix, .n_suffixes = 1, .suffix_want = MR_WANT_LAST},
         hidden,
         MR_INVALID,
         "n_last must be at least 1"},
        {{.n_suffixes = 2}, hidden, MR_INVALID, "2 suffixes, but no list of them"},
        {{.prefix = &good, .prefix_want = MR_WANT_ALL},
         NULL,
         MR_INVALID,
         "3 rows are wanted, but there is nowhere to put them"},
    };

    mr_session *session = test_session_new(model, 11, 6, 5, NULL);
    float want[8 * WIDTH], got[8 * WIDTH];
    run(session, &(mr_batch){.prefix = &good}, NULL);
    run(session, &(mr_batch){.prefix = &full, .prefix_want = MR_WANT_ALL}, want);
    mr_session_truncate(session, 3);

    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_error err = {0};
        assert_status(mr_session_run(session, &row[i].batch, row[i].hidden, &err), row[i].status,
                      &err);
        assert_contains(err.message, row[i].message);
        assert_status(mr_session_run(session, &row[i].batch, row[i].hidden, NULL), row[i].status,
                      NULL);
        assert_int_equal(mr_session_length(session), 3);
        run(session, &(mr_batch){.prefix = &full, .prefix_want = MR_WANT_ALL}, got);
        assert_rows("after a refusal", got, want, 8);
        mr_session_truncate(session, 3);
    }
    mr_session_free(session);
}

static void positions_end_where_the_model_says(void **state)
{
    (void)state;
    mr_rng rng = mr_rng_seed(6);
    mr_input prefix = test_input_new(&rng, model, 500, 0),
             suffix = test_input_new(&rng, model, 12, 0);
    mr_input longer = test_input_new(&rng, model, 13, 0);
    float hidden[WIDTH];
    mr_error err = {0};
    mr_session *session = test_session_new(model, 512, 256, 20, NULL);
    const mr_batch fits = {.prefix = &prefix,
                           .suffixes = &suffix,
                           .n_suffixes = 1,
                           .suffix_want = MR_WANT_LAST,
                           .n_last = 1};
    run(session, &fits, hidden);
    const mr_batch beyond = {.suffixes = &longer, .n_suffixes = 1};
    assert_status(mr_session_run(session, &beyond, NULL, &err), MR_EXHAUSTED, &err);
    assert_contains(
        err.message,
        "500 positions before a suffix of 13; the session computes 512, and the model has "
        "max_position_embeddings 512");
    assert_int_equal(mr_session_length(session), 500);
    mr_session_free(session);
    test_input_free(&prefix);
    test_input_free(&suffix);
    test_input_free(&longer);
}

static void a_session_that_cannot_be_is_refused(void **state)
{
    (void)state;
    static const struct {
        mr_session_options opt;
        mr_status status;
        const char *message;
    } row[] = {
        {{.max_prefix = 4}, MR_INVALID, "max_rows 0"},
        {{.max_rows = 4, .max_suffix = 5}, MR_INVALID, "max_suffix 5 is over max_rows 4"},
        {{.max_prefix = 513, .max_rows = 4},
         MR_EXHAUSTED,
         "513 prefix and 0 suffix positions; the model has max_position_embeddings 512"},
        {{.max_rows = 600, .max_suffix = 513}, MR_EXHAUSTED, "max_position_embeddings 512"},
        {{.max_rows = SIZE_MAX / 64}, MR_NO_MEMORY, "ask for less"},
#ifndef SANITIZED /* which take a size beyond all bounds for a bug */
        {{.max_rows = (size_t)1 << 50}, MR_NO_MEMORY, "ask for less"},
#endif
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_session *session = NULL;
        mr_error err = {0};
        assert_status(mr_session_new(&session, model, &row[i].opt, &err), row[i].status, &err);
        assert_contains(err.message, row[i].message);
        assert_null(session);
    }
}

/* ---- What it costs --------------------------------------------------------------------------- */

static uint64_t expected_flops(size_t rows, size_t kept, size_t keys, size_t kept_keys)
{
    const mr_model_config *c = &model->config;
    const uint64_t D = (uint64_t)c->D, HD = (uint64_t)c->H * D, KD = (uint64_t)c->K * D;
    const uint64_t F = (uint64_t)c->F;
    const uint64_t fixed = 2 * 2 * WIDTH * KD, rest = 2 * 2 * WIDTH * HD + 3 * 2 * WIDTH * F;
    return rows * fixed * LAYERS + (rows * (LAYERS - 1) + kept) * rest +
           4 * HD * ((LAYERS - 1) * (uint64_t)keys + kept_keys);
}

static void the_last_layer_computes_wanted_rows_only(void **state)
{
    (void)state;
    enum { PREFIX = 10, N = 4, S = 3 };
    mr_rng rng = mr_rng_seed(7);
    mr_input prefix = test_input_new(&rng, model, PREFIX, 0), suffixes[N];
    for (size_t i = 0; i < N; i++)
        suffixes[i] = test_input_new(&rng, model, S, 0);
    mr_session *session = test_session_new(model, PREFIX, 64, S, NULL);
    float hidden[N * WIDTH];
    const mr_batch batch = {.prefix = &prefix,
                            .suffixes = suffixes,
                            .n_suffixes = N,
                            .suffix_want = MR_WANT_LAST,
                            .n_last = 1};
    run(session, &batch, hidden);
    mr_session_stats stats = mr_session_take_stats(session);
    const size_t keys = PREFIX * (PREFIX + 1) / 2 + N * (3 * PREFIX + 6);
    assert_int_equal(stats.rows, PREFIX + N * S);
    assert_int_equal(stats.pruned_rows, PREFIX + N * (S - 1));
    assert_int_equal(stats.flops, expected_flops(PREFIX + N * S, N, keys, N * (PREFIX + 3)));
    assert_true(stats.gemm_us >= 0 && stats.attention_us >= 0 && stats.other_us >= 0);

    /* Filling the cache alone: the last layer stops at K and V for all. */
    mr_session_reset(session);
    run(session, &(mr_batch){.prefix = &prefix}, NULL);
    stats = mr_session_take_stats(session);
    assert_int_equal(stats.rows, PREFIX);
    assert_int_equal(stats.pruned_rows, PREFIX);
    assert_int_equal(stats.flops, expected_flops(PREFIX, 0, PREFIX * (PREFIX + 1) / 2, 0));
    assert_int_equal(mr_session_take_stats(session).flops, 0); /* taking clears */

    mr_session_free(session);
    test_input_free(&prefix);
    for (size_t i = 0; i < N; i++)
        test_input_free(&suffixes[i]);
}

typedef struct {
    size_t calls[LAYERS + 1], rows[LAYERS + 1];
    float last[64 * WIDTH];
} seen;

static void watch(void *context, int layer, const float *rows, size_t n_rows)
{
    seen *s = context;
    if (layer == LAYERS)
        memcpy(s->last + s->rows[LAYERS] * WIDTH, rows, n_rows * WIDTH * sizeof *rows);
    s->calls[layer]++;
    s->rows[layer] += n_rows;
}

static void a_tap_sees_every_row_of_every_layer_and_changes_no_bit(void **state)
{
    (void)state;
    mr_rng rng = mr_rng_seed(8);
    mr_input prefix = test_input_new(&rng, model, 14, 4);
    const mr_batch batch = {.prefix = &prefix, .prefix_want = MR_WANT_LAST, .n_last = 3};
    float plain[3 * WIDTH], tapped[3 * WIDTH];
    mr_session *session = test_session_new(model, 14, 6, 0, NULL);
    run(session, &batch, plain);
    assert_int_equal(mr_session_take_stats(session).pruned_rows, 11);

    seen *s = calloc(1, sizeof *s);
    assert_non_null(s);
    mr_session_reset(session);
    mr_session_set_tap(session, watch, s);
    run(session, &batch, tapped);
    assert_rows("tapped", tapped, plain, 3);
    assert_int_equal(mr_session_take_stats(session).pruned_rows, 0);
    for (size_t l = 0; l <= LAYERS; l++) {
        assert_int_equal(s->calls[l], 3); /* passes of 6, 6 and 2 rows */
        assert_int_equal(s->rows[l], 14);
    }
    /* The tap's last layer is before the final norm; what comes out is after it. */
    float normed[WIDTH];
    model->kernels->rms_norm(normed, s->last + 13 * WIDTH, model->final_norm, WIDTH,
                             model->config.rms_eps);
    assert_rows("final norm", tapped + 2 * WIDTH, normed, 1);
    free(s);
    mr_session_free(session);
    test_input_free(&prefix);
}

static void memory_is_bounded_by_the_options(void **state)
{
    (void)state;
    const mr_model_config *c = &model->config;
    const size_t D = (size_t)c->D, HD = (size_t)c->H * D, KD = (size_t)c->K * D, F = (size_t)c->F;
    const size_t cache = 2 * (size_t)LAYERS * KD * 100 * sizeof(float);
    const size_t row =
        (2 * WIDTH + (2 * (HD + KD) > 2 * F ? 2 * (HD + KD) : 2 * F)) * sizeof(float);
    mr_session *small = test_session_new(model, 100, 50, 0, NULL);
    mr_session *more_prefix = test_session_new(model, 200, 50, 0, NULL);
    mr_session *more_rows = test_session_new(model, 100, 100, 50, NULL);
    const size_t base = mr_session_bytes(small);
    assert_in_range(base, cache + 50 * row, cache + 50 * row + 500 * 1024);
    assert_in_range(mr_session_bytes(more_prefix) - base, cache, cache + 100 * 1024);
    assert_in_range(mr_session_bytes(more_rows) - base, 50 * row, 50 * (row + 128) + 4096);
    mr_session_free(small);
    mr_session_free(more_prefix);
    mr_session_free(more_rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_suffix_after_a_shared_prefix_gives_what_the_full_prompt_gives),
        cmocka_unit_test(wanted_rows_come_out_in_order),
        cmocka_unit_test(suffixes_need_no_prefix),
        cmocka_unit_test(truncating_forgets_what_came_after),
        cmocka_unit_test(empty_batches_and_empty_prefixes_do_nothing),
        cmocka_unit_test(vectors_are_scattered_bit_for_bit),
        cmocka_unit_test(a_refused_run_names_its_reason_and_leaves_the_timeline_alone),
        cmocka_unit_test(positions_end_where_the_model_says),
        cmocka_unit_test(a_session_that_cannot_be_is_refused),
        cmocka_unit_test(the_last_layer_computes_wanted_rows_only),
        cmocka_unit_test(a_tap_sees_every_row_of_every_layer_and_changes_no_bit),
        cmocka_unit_test(memory_is_bounded_by_the_options),
    };
    return cmocka_run_group_tests_name("session", tests, open_model, close_model);
}

/* test_same_bits.c - a row's output depends on the model, the timeline and its own suffix alone.
 *
 * Receipts and replay stand on this: a candidate's margin is the same bits alone, in any slot, in
 * any batch, with any number of threads, with a prefix that was computed beside it, before it, or
 * piece by piece. Every comparison is of bits.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/engine_support.h"
#include "tests/support.h"

#define N       5 /* candidates; all 120 orders are tried */
#define PREFIX  23
#define LONGEST 9
static const size_t lengths[N] = {2, 9, 1, 4, 2};

#define MAX_THREADS 3
static mr_pool *pools[MAX_THREADS + 1]; /* by thread count; NULL for one */

static int open_pools(void **state)
{
    (void)state;
    mr_error err = {0};
    for (int threads = 2; threads <= MAX_THREADS; threads++) {
        if (mr_pool_new(&pools[threads], threads, &err) != MR_OK)
            return -1;
    }
    return 0;
}

static int close_pools(void **state)
{
    (void)state;
    for (int threads = 2; threads <= MAX_THREADS; threads++)
        mr_pool_free(pools[threads]);
    return 0;
}

typedef struct {
    const test_shape *shape;
    mr_model *model;
    size_t C;
    mr_input prefix;
    mr_input candidates[N];
    float *truth; /* [N][LONGEST][C]: each candidate alone, prefix in the same run, one thread */
} scene;

static void run(mr_session *session, const mr_batch *batch, float *hidden)
{
    mr_error err = {0};
    assert_status(mr_session_run(session, batch, hidden, &err), MR_OK, &err);
}

static void compare(const scene *s, const char *how, size_t candidate, const float *got)
{
    char what[160];
    snprintf(what, sizeof what, "%s, %s, candidate %zu", s->shape->name, how, candidate);
    test_assert_same_bits(what, got, s->truth + candidate * LONGEST * s->C, lengths[candidate],
                          s->C);
}

/* Runs candidates in an order over a session whose timeline is warm, or with the prefix beside. */
static void check_order(const scene *s, const char *how, mr_session *session,
                        const mr_input *prefix, const size_t *order, size_t n)
{
    mr_input suffixes[N];
    float *hidden = malloc(N * LONGEST * s->C * sizeof *hidden);
    assert_non_null(hidden);
    for (size_t i = 0; i < n; i++)
        suffixes[i] = s->candidates[order[i]];
    run(session,
        &(mr_batch){
            .prefix = prefix, .suffixes = suffixes, .n_suffixes = n, .suffix_want = MR_WANT_ALL},
        hidden);
    const float *got = hidden;
    for (size_t i = 0; i < n; i++) {
        compare(s, how, order[i], got);
        got += lengths[order[i]] * s->C;
    }
    free(hidden);
}

/* The next order, as counting does; false after the last. */
static bool next_order(size_t order[N])
{
    size_t i = N - 1;
    while (i > 0 && order[i - 1] > order[i])
        i--;
    if (i == 0)
        return false;
    size_t j = N - 1;
    while (order[j] < order[i - 1])
        j--;
    size_t swap = order[i - 1];
    order[i - 1] = order[j];
    order[j] = swap;
    for (size_t a = i, b = N - 1; a < b; a++, b--) {
        swap = order[a];
        order[a] = order[b];
        order[b] = swap;
    }
    return true;
}

static scene scene_new(const test_shape *shape, const char *folder, const mr_kernels *kernels)
{
    scene s = {.shape = shape};
    mr_rng rng = mr_rng_seed(99);
    s.model = test_model_open(folder, MR_GEMM_SCORING, kernels);
    s.C = (size_t)s.model->config.C;
    s.prefix = test_input_new(&rng, s.model, PREFIX, 7);
    s.truth = malloc(N * LONGEST * s.C * sizeof *s.truth);
    assert_non_null(s.truth);
    for (size_t i = 0; i < N; i++) {
        s.candidates[i] = test_input_new(&rng, s.model, lengths[i], 2);
        mr_session *session = test_session_new(s.model, PREFIX, PREFIX + LONGEST, 0, NULL);
        run(session,
            &(mr_batch){.prefix = &s.prefix,
                        .suffixes = &s.candidates[i],
                        .n_suffixes = 1,
                        .suffix_want = MR_WANT_ALL},
            s.truth + i * LONGEST * s.C);
        mr_session_free(session);
    }
    return s;
}

static void scene_free(scene *s)
{
    for (size_t i = 0; i < N; i++)
        test_input_free(&s->candidates[i]);
    test_input_free(&s->prefix);
    free(s->truth);
    mr_model_close(s->model);
}

/* Every shape with every kernel set. */
static void for_each_scene(void (*check)(const scene *s))
{
    const mr_kernels *list[MR_KERNELS_MAX];
    const size_t n_sets = mr_kernels_available(list);
    for (size_t i = 0; i < test_n_shapes; i++) {
        char *folder = test_folder_new();
        test_model_write(folder, &test_shapes[i]);
        for (size_t set = 0; set < n_sets; set++) {
            scene s = scene_new(&test_shapes[i], folder, list[set]);
            check(&s);
            scene_free(&s);
        }
        test_folder_free(folder);
    }
}

static void check_all_orders(const scene *s)
{
    for (int threads = 1; threads <= MAX_THREADS; threads++) {
        mr_session *session = test_session_new(s->model, PREFIX, 64, LONGEST, pools[threads]);
        run(session, &(mr_batch){.prefix = &s->prefix}, NULL);
        size_t order[N] = {0, 1, 2, 3, 4};
        char how[64];
        snprintf(how, sizeof how, "warm, %d threads", threads);
        for (size_t i = 0; i == 0 || next_order(order); i++) {
            /* All orders on two threads, some on one and on three. The whole order, and its head
             * as a smaller batch. */
            if (threads != 2 && i % 11 != 0)
                continue;
            check_order(s, how, session, NULL, order, N);
            check_order(s, how, session, NULL, order, 1 + order[0]);
        }
        mr_session_free(session);
    }
}

static void in_every_slot_of_every_batch_on_any_number_of_threads(void **state)
{
    (void)state;
    for_each_scene(check_all_orders);
}

static void check_cold_and_cut(const scene *s)
{
    static const size_t order[N] = {3, 1, 4, 0, 2};
    for (int threads = 1; threads <= MAX_THREADS; threads++) {
        for (size_t rows = LONGEST; rows <= PREFIX + 18; rows += threads == 2 ? 1 : 5) {
            mr_session *session = test_session_new(s->model, PREFIX, rows, LONGEST, pools[threads]);
            char how[80];
            snprintf(how, sizeof how, "cold, passes of %zu rows, %d threads", rows, threads);
            check_order(s, how, session, &s->prefix, order, N);
            snprintf(how, sizeof how, "warm, passes of %zu rows, %d threads", rows, threads);
            check_order(s, how, session, NULL, order, N);
            mr_session_free(session);
        }
    }
}

static void with_the_prefix_beside_it_before_it_or_cut_into_passes(void **state)
{
    (void)state;
    for_each_scene(check_cold_and_cut);
}

static void check_runs(const scene *s)
{
    static const size_t order[N] = {2, 0, 3, 4, 1};
    mr_session *session = test_session_new(s->model, PREFIX, 40, LONGEST, pools[2]);
    for (size_t cut = 1; cut < PREFIX; cut++) {
        /* Two runs make the prefix; the second one beside the candidates, or before them. */
        mr_input first = s->prefix, second = s->prefix;
        first.n = cut;
        first.n_embeds = 0;
        for (size_t i = 0; i < cut; i++)
            first.n_embeds += s->prefix.ids[i] == MR_ID_EMBED;
        second.ids += cut;
        second.n -= cut;
        second.embeds += first.n_embeds * s->C;
        second.n_embeds -= first.n_embeds;
        char how[64];
        snprintf(how, sizeof how, "prefix from runs of %zu and %zu", first.n, second.n);

        mr_session_reset(session);
        run(session, &(mr_batch){.prefix = &first}, NULL);
        check_order(s, how, session, &second, order, N);
        check_order(s, how, session, NULL, order, N);

        /* Another query after the shared instruction, forgotten again. */
        mr_session_truncate(session, cut);
        run(session, &(mr_batch){.prefix = &s->candidates[2]}, NULL);
        mr_session_truncate(session, cut);
        run(session, &(mr_batch){.prefix = &second}, NULL);
        check_order(s, how, session, NULL, order, N);
    }
    mr_session_free(session);
}

static void with_the_prefix_made_by_several_runs(void **state)
{
    (void)state;
    for_each_scene(check_runs);
}

/* Lengths at which scores, tiles of rows and vectors end at different places. */
static void check_prefix_lengths(const scene *s)
{
    mr_rng rng = mr_rng_seed(5);
    enum { MOST = 70, SUFFIX = 3 };
    mr_input longest = test_input_new(&rng, s->model, MOST, 6);
    mr_input suffix = test_input_new(&rng, s->model, SUFFIX, 2);
    mr_input other = test_input_new(&rng, s->model, LONGEST, 0);
    float *one = malloc(SUFFIX * s->C * sizeof *one);
    float *many = malloc((SUFFIX + 2 * LONGEST) * s->C * sizeof *many);
    float *whole = malloc((MOST + SUFFIX) * s->C * sizeof *whole);
    assert_true(one && many && whole);
    for (size_t n = 1; n <= MOST; n += n < 20 ? 1 : 7) {
        mr_input prefix = longest;
        prefix.n = n;
        prefix.n_embeds = (n + 5) / 6;
        mr_session *session = test_session_new(s->model, n + SUFFIX, 128, LONGEST, pools[3]);
        const mr_input crowd[] = {other, suffix, other};
        run(session,
            &(mr_batch){
                .prefix = &prefix, .suffixes = crowd, .n_suffixes = 3, .suffix_want = MR_WANT_ALL},
            many);
        run(session, &(mr_batch){.suffixes = &suffix, .n_suffixes = 1, .suffix_want = MR_WANT_ALL},
            one);
        test_assert_same_bits("in a crowd", one, many + LONGEST * s->C, SUFFIX, s->C);

        /* Sharing the prefix is not even rounded differently from the plain full prompt. */
        mr_input joined = test_input_join(s->model, &prefix, &suffix);
        mr_session_reset(session);
        run(session, &(mr_batch){.prefix = &joined, .prefix_want = MR_WANT_ALL}, whole);
        assert_floats_near(one, whole + n * s->C, SUFFIX * s->C, 1e-5);
        test_assert_same_bits("full prompt", one, whole + n * s->C, SUFFIX, s->C);
        test_input_free(&joined);
        mr_session_free(session);
    }
    free(one);
    free(many);
    free(whole);
    test_input_free(&longest);
    test_input_free(&suffix);
    test_input_free(&other);
}

static void after_a_prefix_of_any_length_and_as_the_plain_full_prompt(void **state)
{
    (void)state;
    for_each_scene(check_prefix_lengths);
}

static void check_wants(const scene *s)
{
    static const size_t order[N] = {0, 1, 2, 3, 4};
    mr_session *session = test_session_new(s->model, PREFIX, 64, LONGEST, pools[2]);
    float *hidden = malloc((PREFIX + N * LONGEST) * s->C * sizeof *hidden);
    assert_non_null(hidden);
    for (size_t last = 1; last <= LONGEST; last++) {
        for (int prefix_want = MR_WANT_NONE; prefix_want <= MR_WANT_ALL; prefix_want++) {
            const mr_batch batch = {.prefix = &s->prefix,
                                    .prefix_want = (mr_want)prefix_want,
                                    .suffixes = s->candidates,
                                    .n_suffixes = N,
                                    .suffix_want = MR_WANT_LAST,
                                    .n_last = last};
            mr_session_reset(session);
            run(session, &batch, hidden);
            const float *got = hidden;
            got += s->C * (prefix_want == MR_WANT_ALL    ? PREFIX
                           : prefix_want == MR_WANT_LAST ? last
                                                         : 0);
            for (size_t i = 0; i < N; i++) {
                const size_t n = lengths[order[i]] < last ? lengths[order[i]] : last;
                const float *want = s->truth + (order[i] * LONGEST + lengths[order[i]] - n) * s->C;
                test_assert_same_bits("wanted rows", got, want, n, s->C);
                got += n * s->C;
            }
        }
    }
    free(hidden);
    mr_session_free(session);
}

static void whatever_else_is_wanted_or_pruned(void **state)
{
    (void)state;
    for_each_scene(check_wants);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_every_slot_of_every_batch_on_any_number_of_threads),
        cmocka_unit_test(with_the_prefix_beside_it_before_it_or_cut_into_passes),
        cmocka_unit_test(with_the_prefix_made_by_several_runs),
        cmocka_unit_test(after_a_prefix_of_any_length_and_as_the_plain_full_prompt),
        cmocka_unit_test(whatever_else_is_wanted_or_pruned),
    };
    return cmocka_run_group_tests_name("a row gives the same bits", tests, open_pools, close_pools);
}

/* test_no_alloc.c - nothing allocates inside a forward pass.
 *
 * The build wraps malloc and its kin (alloc_guard.c); the engine brackets its passes with
 * core/guard.h. That the trap works is tested first, with an allocation planted inside a pass.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "core/guard.h"
#include "tests/engine_support.h"
#include "tests/support.h"

static void run(mr_session *session, const mr_batch *batch, float *hidden)
{
    mr_error err = {0};
    assert_status(mr_session_run(session, batch, hidden, &err), MR_OK, &err);
}

static void plant(void *context, int layer, const float *rows, size_t n_rows)
{
    (void)rows;
    (void)n_rows;
    void **planted = context;
    if (layer == 1)
        *planted = malloc(8);
}

static void an_allocation_planted_in_a_pass_is_caught(void **state)
{
    (void)state;
    const char *phase = NULL;
    char *folder = test_folder_new();
    test_model_write(folder, &test_shapes[0]);
    mr_model *model = test_model_open(folder, MR_GEMM_SCORING, NULL);
    mr_session *session = test_session_new(model, 8, 8, 0, NULL);
    const int32_t ids[] = {1, 2, 3};
    const mr_input input = {.ids = ids, .n = 3};
    void *planted = NULL;

    const size_t before = mr_guard_violations(&phase);
    mr_session_set_tap(session, plant, &planted);
    run(session, &(mr_batch){.prefix = &input}, NULL);
    assert_int_equal(mr_guard_violations(&phase), before + 1);
    assert_string_equal(phase, "forward");

    free(planted);
    mr_session_free(session);
    mr_model_close(model);
    test_folder_free(folder);
}

static void forward_passes_allocate_nothing(void **state)
{
    (void)state;
    const mr_kernels *list[MR_KERNELS_MAX];
    const size_t n_sets = mr_kernels_available(list);
    mr_pool *pool = NULL;
    mr_error err = {0};
    assert_status(mr_pool_new(&pool, 2, &err), MR_OK, &err);

    for (size_t i = 0; i < test_n_shapes; i++) {
        char *folder = test_folder_new();
        test_model_write(folder, &test_shapes[i]);
        for (size_t run_index = 0; run_index < n_sets * MR_GEMM_COUNT; run_index++) {
            mr_rng rng = mr_rng_seed(3);
            mr_model *model = test_model_open(folder, (mr_gemm_kind)(run_index / n_sets),
                                              list[run_index % n_sets]);
            mr_session *session = test_session_new(model, 40, 16, 6, pool);
            mr_input prefix = test_input_new(&rng, model, 37, 5), suffixes[9];
            for (size_t s = 0; s < 9; s++)
                suffixes[s] = test_input_new(&rng, model, 1 + s % 6, 2);
            const mr_batch batch = {.prefix = &prefix,
                                    .suffixes = suffixes,
                                    .n_suffixes = 9,
                                    .suffix_want = MR_WANT_LAST,
                                    .n_last = 1};
            float *hidden = malloc(mr_batch_rows(&batch) * (size_t)model->config.C * sizeof(float));
            assert_non_null(hidden);

            const size_t before = mr_guard_violations(NULL);
            run(session, &batch, hidden); /* cold, several passes */
            run(session, &(mr_batch){.suffixes = suffixes, .n_suffixes = 9}, NULL);
            mr_session_reset(session);
            run(session, &batch, hidden);
            assert_int_equal(mr_guard_violations(NULL), before);

            free(hidden);
            test_input_free(&prefix);
            for (size_t s = 0; s < 9; s++)
                test_input_free(&suffixes[s]);
            mr_session_free(session);
            mr_model_close(model);
        }
        test_folder_free(folder);
    }
    mr_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_allocation_planted_in_a_pass_is_caught),
        cmocka_unit_test(forward_passes_allocate_nothing),
    };
    return cmocka_run_group_tests_name("no allocation in a forward pass", tests, NULL, NULL);
}

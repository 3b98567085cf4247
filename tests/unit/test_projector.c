/* test_projector.c - projectors against torch's own results, and files that are no projector.
 *
 * Reference data: data/projectors, made by data/generator/projectors.py.
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

#include "core/bytes.h"
#include "core/guard.h"
#include "core/rng.h"
#include "encoders/projector.h"
#include "engine/safetensors.h"
#include "tests/support.h"

static const struct {
    const char *name, *kind;
} cases[] = {
    {"mlp-f32", "mlp"},
    {"mlp-bf16", "mlp"},
    {"linear-f32", "linear"},
    {"linear-nobias-bf16", "linear"},
};
#define N_CASES (sizeof cases / sizeof *cases)

static const char *case_path(size_t i, const char *name)
{
    char folder[64];
    snprintf(folder, sizeof folder, "data/projectors/%s", cases[i].name);
    return test_path(folder, name);
}

/* Through scratch of exactly the promised size. */
static void run(const mr_projector *projector, const mr_kernels *kernels, mr_pool *pool,
                const float *x, size_t n, float *y)
{
    void *scratch = malloc(mr_projector_scratch_bytes(projector, n) + 1);
    assert_non_null(scratch);
    mr_guard_begin("project");
    mr_projector_run(projector, kernels, pool, scratch, x, n, y);
    mr_guard_end();
    free(scratch);

    const char *phase = NULL;
    if (mr_guard_violations(&phase) != 0)
        fail_msg("running a projector allocated in phase '%s'", phase);
}

static mr_projector *open_projector(const char *path, size_t in_dim, size_t out_dim)
{
    mr_projector *projector = NULL;
    mr_error err = {0};
    assert_status(mr_projector_open(&projector, path, in_dim, out_dim, &err), MR_OK, &err);
    return projector;
}

static void results_are_those_of_torch(void **state)
{
    const mr_kernels *list[8];
    const size_t n_kernels = mr_kernels_available(list);
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        mr_projector *projector = open_projector(case_path(i, "projector.safetensors"), 24, 32);
        assert_string_equal(mr_projector_kind(projector), cases[i].kind);
        assert_int_equal(mr_projector_in_dim(projector), 24);
        assert_int_equal(mr_projector_out_dim(projector), 32);

        mr_safetensors *file = NULL;
        mr_tensor x, want;
        mr_error err = {0};
        assert_status(mr_safetensors_open(&file, case_path(i, "reference.safetensors"), &err),
                      MR_OK, &err);
        assert_status(mr_safetensors_need(file, "input", 2, (const int64_t[]){-1, 24}, &x, &err),
                      MR_OK, &err);
        const size_t rows = (size_t)x.shape[0];
        assert_true(rows > 0);
        assert_status(
            mr_safetensors_need(file, "output", 2, (const int64_t[]){x.shape[0], 32}, &want, &err),
            MR_OK, &err);
        float *input = malloc(rows * 24 * sizeof *input);
        float *expected = malloc(rows * 32 * sizeof *expected);
        float *got = malloc(rows * 32 * sizeof *got);
        mr_dtype_to_f32(input, x.data, x.dtype, rows * 24);
        mr_dtype_to_f32(expected, want.data, want.dtype, rows * 32);
        for (size_t k = 0; k < n_kernels; k++) {
            run(projector, list[k], NULL, input, rows, got);
            assert_floats_near(got, expected, rows * 32, 1e-6);
            /* Row by row too: the rows go from tiny to large, and the large ones hide the rest. */
            for (size_t r = 0; r < rows; r++)
                assert_floats_near(got + r * 32, expected + r * 32, 32, 1e-6);
        }
        free(got);
        free(expected);
        free(input);
        mr_safetensors_close(file);
        mr_projector_close(projector);
    }
}

static void a_row_does_not_depend_on_its_batch_or_the_threads(void **state)
{
    const size_t rows = 700; /* more than one block, and a rest */
    const mr_kernels *list[8];
    const size_t n_kernels = mr_kernels_available(list);
    mr_pool *pool = NULL;
    mr_error err = {0};
    (void)state;
    assert_status(mr_pool_new(&pool, 2, &err), MR_OK, &err);
    float *x = malloc(rows * 24 * sizeof *x);
    float *alone = malloc(rows * 32 * sizeof *alone);
    float *together = malloc(rows * 32 * sizeof *together);
    mr_rng rng = mr_rng_seed(3);
    for (size_t i = 0; i < rows * 24; i++)
        x[i] = (float)mr_rng_normal(&rng);

    for (size_t i = 0; i < N_CASES; i++) {
        mr_projector *projector = open_projector(case_path(i, "projector.safetensors"), 24, 32);
        for (size_t k = 0; k < n_kernels; k++) {
            for (size_t r = 0; r < rows; r++)
                run(projector, list[k], NULL, x + r * 24, 1, alone + r * 32);
            static const size_t sizes[] = {700, 699, 257, 256, 255, 17, 2};
            for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
                const size_t first = rows - sizes[s];
                memset(together, 0xff, rows * 32 * sizeof *together);
                run(projector, list[k], s % 2 ? NULL : pool, x + first * 24, sizes[s], together);
                if (memcmp(together, alone + first * 32, sizes[s] * 32 * sizeof *together) != 0)
                    fail_msg("%s, %s: %zu rows together differ from each alone", cases[i].name,
                             list[k]->name, sizes[s]);
            }
        }
        mr_projector_close(projector);
    }
    free(together);
    free(alone);
    free(x);
    mr_pool_free(pool);
}

static void scratch_does_not_grow_with_the_rows_for_ever(void **state)
{
    (void)state;
    mr_projector *projector = open_projector(case_path(0, "projector.safetensors"), 0, 0);
    assert_int_equal(mr_projector_scratch_bytes(projector, 1 << 30),
                     mr_projector_scratch_bytes(projector, 1000));
    mr_projector_close(projector);
}

static void without_a_file_vectors_pass_unchanged(void **state)
{
    static const size_t dims[][2] = {{3, 3}, {0, 3}, {3, 0}};
    const float x[] = {1, -2, 3, 4, 5, -6};
    (void)state;
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        mr_projector *projector = open_projector(NULL, dims[i][0], dims[i][1]);
        float y[6] = {0};
        assert_string_equal(mr_projector_kind(projector), "identity");
        assert_int_equal(mr_projector_in_dim(projector), 3);
        assert_int_equal(mr_projector_out_dim(projector), 3);
        run(projector, &mr_kernels_generic, NULL, x, 2, y);
        assert_memory_equal(x, y, sizeof x);
        run(projector, &mr_kernels_generic, NULL, NULL, 0, NULL);
        mr_projector_close(projector);
    }
}

/* A tensor of a file that a test makes; values are 0.5, or NaN at the last place. */
typedef struct {
    const char *name;
    mr_dtype dtype;
    int64_t shape[3];
    int n_dims;
    bool nan;
} made;

static const char *make_file(const char *folder, const made *list, size_t n)
{
    static float values[64];
    static float spoilt[64];
    mr_tensor tensors[8];
    assert_true(n <= 8);
    for (size_t i = 0; i < 64; i++)
        values[i] = spoilt[i] = 0.5F;
    for (size_t i = 0; i < n; i++) {
        size_t count = 1;
        tensors[i] =
            (mr_tensor){.name = list[i].name, .dtype = list[i].dtype, .n_dims = list[i].n_dims};
        for (int d = 0; d < list[i].n_dims; d++) {
            tensors[i].shape[d] = list[i].shape[d];
            count *= (size_t)list[i].shape[d];
        }
        assert_true(count <= 64);
        tensors[i].bytes = count * mr_dtype_size(list[i].dtype);
        if (list[i].nan)
            spoilt[count - 1] = NAN;
        tensors[i].data = list[i].nan ? spoilt : values;
    }
    const char *path = test_path(folder, "p.safetensors");
    mr_error err = {0};
    assert_status(mr_safetensors_write(path, tensors, n, NULL, &err), MR_OK, &err);
    return path;
}

#define F32(...)    \
    MR_DTYPE_F32,   \
    {               \
        __VA_ARGS__ \
    }

static void names_may_have_the_prefix_of_llava(void **state)
{
    static const made list[] = {
        {"language_model.linear_1.weight", F32(2, 2), 2, true},
        {"multi_modal_projector.linear_1.bias", F32(4), 1, false},
        {"multi_modal_projector.linear_1.weight", F32(4, 3), 2, false},
        {"multi_modal_projector.linear_2.weight", F32(2, 4), 2, false},
        {"vision_tower.x", F32(2), 1, false},
    };
    static const made newer[] = {
        {"model.language_model.norm.weight", F32(2), 1, false},
        {"model.multi_modal_projector.linear_1.weight", F32(4, 3), 2, false},
        {"model.multi_modal_projector.linear_2.weight", F32(2, 4), 2, false},
    };
    (void)state;
    char *folder = test_folder_new();
    mr_projector *projector = open_projector(make_file(folder, list, 5), 3, 2);
    assert_string_equal(mr_projector_kind(projector), "mlp");
    const float x[3] = {1, 1, 1};
    float y[2];
    run(projector, &mr_kernels_generic, NULL, x, 1, y);
    /* gelu(3 x 0.5 + 0.5) = gelu(2) = 1.95449974, and four of them halved. */
    const float want[2] = {3.90899947F, 3.90899947F};
    assert_floats_near(y, want, 2, 1e-6);
    mr_projector_close(projector);

    projector = open_projector(make_file(folder, newer, 3), 0, 0);
    assert_int_equal(mr_projector_in_dim(projector), 3);
    assert_int_equal(mr_projector_out_dim(projector), 2);
    mr_projector_close(projector);
    test_folder_free(folder);
}

static void files_that_are_no_projector_are_refused(void **state)
{
    static const struct {
        const char *what;
        made tensors[3];
        size_t n, in_dim, out_dim;
        mr_status status;
        const char *message;
    } row[] = {
        {"no layer",
         {{"weight", F32(2, 3), 2, false}},
         1,
         3,
         2,
         MR_NOT_FOUND,
         "no tensor 'linear_1.weight'"},
        {"in dim",
         {{"linear_1.weight", F32(2, 3), 2, false}},
         1,
         4,
         2,
         MR_MISMATCH,
         "'linear_1.weight' is [2, 3], expected [2, 4]"},
        {"out dim",
         {{"linear_1.weight", F32(2, 3), 2, false}},
         1,
         3,
         5,
         MR_MISMATCH,
         "'linear_1.weight' is [2, 3], expected [5, 3]"},
        {"dims of a vector",
         {{"linear_1.weight", F32(6), 1, false}},
         1,
         3,
         2,
         MR_MISMATCH,
         "'linear_1.weight' is [6]"},
        {"empty",
         {{"linear_1.weight", F32(0, 3), 2, false}},
         1,
         0,
         0,
         MR_MISMATCH,
         "'linear_1.weight' is [0, 3], expected dims of 1"},
        {"middle",
         {{"linear_1.weight", F32(4, 3), 2, false}, {"linear_2.weight", F32(2, 5), 2, false}},
         2,
         3,
         2,
         MR_MISMATCH,
         "'linear_2.weight' is [2, 5], expected [2, 4]"},
        {"out dim of the second",
         {{"linear_1.weight", F32(4, 3), 2, false}, {"linear_2.weight", F32(2, 4), 2, false}},
         2,
         3,
         4,
         MR_MISMATCH,
         "'linear_2.weight' is [2, 4], expected [4, 4]"},
        {"bias",
         {{"linear_1.bias", F32(3), 1, false}, {"linear_1.weight", F32(2, 3), 2, false}},
         2,
         3,
         2,
         MR_MISMATCH,
         "'linear_1.bias' is [3], expected [2]"},
        {"a bias alone",
         {{"linear_1.weight", F32(2, 3), 2, false}, {"linear_2.bias", F32(2), 1, false}},
         2,
         3,
         2,
         MR_NOT_FOUND,
         "has 'linear_2.bias' but no 'linear_2.weight'"},
        {"a third layer",
         {{"linear_1.weight", F32(3, 3), 2, false}, {"linear_3.weight", F32(3, 3), 2, false}},
         2,
         3,
         3,
         MR_UNSUPPORTED,
         "'linear_3.weight' is not part of a projector"},
        {"a norm under the prefix",
         {{"multi_modal_projector.linear_1.weight", F32(3, 3), 2, false},
          {"multi_modal_projector.norm.weight", F32(3), 1, false}},
         2,
         3,
         3,
         MR_UNSUPPORTED,
         "norm.weight' is not part of a projector"},
        {"integers",
         {{"linear_1.weight", MR_DTYPE_I32, {2, 3}, 2, false}},
         1,
         3,
         2,
         MR_MISMATCH,
         "is I32, expected F32, F16 or BF16"},
        {"nan",
         {{"linear_1.weight", F32(2, 3), 2, true}},
         1,
         3,
         2,
         MR_CORRUPT,
         "'linear_1.weight' holds nan at element 5"},
        {"nan bias",
         {{"linear_1.bias", F32(2), 1, true}, {"linear_1.weight", F32(2, 3), 2, false}},
         2,
         3,
         2,
         MR_CORRUPT,
         "'linear_1.bias' holds nan at element 1"},
    };
    (void)state;
    char *folder = test_folder_new();
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_projector *projector = NULL;
        mr_error err = {0};
        const char *path = make_file(folder, row[i].tensors, row[i].n);
        print_message("  %s\n", row[i].what);
        assert_status(mr_projector_open(&projector, path, row[i].in_dim, row[i].out_dim, &err),
                      row[i].status, &err);
        assert_contains(err.message, row[i].message);
        assert_contains(err.message, "p.safetensors");
        assert_null(projector);
    }
    test_folder_free(folder);
}

static void a_missing_file_and_dims_without_a_projector_are_refused(void **state)
{
    mr_projector *projector = NULL;
    mr_error err = {0};
    (void)state;
    assert_int_not_equal(mr_projector_open(&projector, "data/projectors/none", 3, 3, &err), MR_OK);
    assert_contains(err.message, "data/projectors/none");
    assert_status(mr_projector_open(&projector, NULL, 3, 4, &err), MR_MISMATCH, &err);
    assert_contains(err.message, "vectors of 3 dims where 4 are expected");
    assert_status(mr_projector_open(&projector, NULL, 0, 0, &err), MR_MISMATCH, &err);
    assert_null(projector);
    mr_projector_close(NULL);
}

static void a_file_cut_anywhere_is_refused(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    size_t len = 0;
    char *whole = test_file_read(case_path(3, "projector.safetensors"), &len);
    const char *path = test_path(folder, "cut.safetensors");
    for (size_t n = 0; n < len; n += n < 200 ? 1 : 97) {
        mr_projector *projector = NULL;
        mr_error err = {0};
        test_file_write(path, whole, n);
        mr_status status = mr_projector_open(&projector, path, 24, 32, &err);
        if (status == MR_OK)
            fail_msg("the first %zu of %zu bytes opened", n, len);
        assert_contains(err.message, "cut.safetensors");
    }
    free(whole);
    test_folder_free(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_are_those_of_torch),
        cmocka_unit_test(a_row_does_not_depend_on_its_batch_or_the_threads),
        cmocka_unit_test(scratch_does_not_grow_with_the_rows_for_ever),
        cmocka_unit_test(without_a_file_vectors_pass_unchanged),
        cmocka_unit_test(names_may_have_the_prefix_of_llava),
        cmocka_unit_test(files_that_are_no_projector_are_refused),
        cmocka_unit_test(a_missing_file_and_dims_without_a_projector_are_refused),
        cmocka_unit_test(a_file_cut_anywhere_is_refused),
    };
    return cmocka_run_group_tests_name("projector", tests, NULL, NULL);
}

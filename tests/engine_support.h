/* engine_support.h - small random decoders and inputs for tests of the engine.
 *
 * Include after cmocka.h. Part of the test, not of every test: add engine_support.c to its sources.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_ENGINE_SUPPORT_H
#define MR_TESTS_ENGINE_SUPPORT_H

#include "core/rng.h"
#include "engine/session.h"

/* Every family and option, in sizes that no vector length divides. */
typedef struct {
    const char *name;
    mr_model_config config;
    mr_dtype dtype;
} test_shape;
extern const test_shape test_shapes[];
extern const size_t test_n_shapes;

/* config.json and random weights, strong enough that attention is far from uniform. */
void test_model_write(const char *folder, const test_shape *shape);
mr_model *test_model_open(const char *folder, mr_gemm_kind gemm, const mr_kernels *kernels);

/* n positions of random ids; every `slot`-th one (0: none) takes a random vector. */
mr_input test_input_new(mr_rng *rng, const mr_model *model, size_t n, size_t slot);
void test_input_free(mr_input *input);
/* a, then b. */
mr_input test_input_join(const mr_model *model, const mr_input *a, const mr_input *b);

mr_session *test_session_new(const mr_model *model, size_t max_prefix, size_t max_rows,
                             size_t max_suffix, mr_pool *pool);

/* [rows][width] floats, bit for bit; shows the first that differs. */
void test_assert_same_bits(const char *what, const float *got, const float *want, size_t rows,
                           size_t width);

#endif

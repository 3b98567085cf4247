/* decoder_fixture.h - a training decoder over the weights of a model folder.
 *
 * Include after cmocka.h.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_DECODER_FIXTURE_H
#define MR_TESTS_DECODER_FIXTURE_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ranker/training/decoder.h"
#include "tests/support.h"

typedef struct {
    mr_model_config config;
    mr_weights weights; /* one part, "llm" */
    mr_decoder_layout layout;
    float *values;
} decoder_fixture;

static inline void decoder_open(decoder_fixture *f, const char *folder)
{
    mr_error err = {0};
    *f = (decoder_fixture){0};
    assert_status(mr_model_config_load(&f->config, test_path(folder, "config.json"), &err), MR_OK,
                  &err);
    mr_weights_begin_part(&f->weights, "llm");
    assert_status(mr_decoder_add(&f->layout, &f->config, false, &f->weights, &err), MR_OK, &err);
    f->values = calloc(f->weights.total, sizeof *f->values);
    assert_non_null(f->values);
    assert_status(mr_weights_load(&f->weights, &f->weights.part[0], folder, f->values, &err), MR_OK,
                  &err);
}

static inline void decoder_close(decoder_fixture *f)
{
    mr_weights_done(&f->weights);
    free(f->values);
}

/* Every set of steps in float that this machine runs. */
static inline size_t decoder_sets(const mr_ops_f32 *sets[2])
{
    sets[0] = &mr_ops_generic_f32;
    sets[1] = mr_ops_select_f32();
    return sets[1] == sets[0] ? 1 : 2;
}

/* max |got - want| / max |want| within the bound; shows the element that is farthest off. */
static inline void decoder_check(const char *where, const char *what, const float *got,
                                 const float *want, size_t n, double bound)
{
    size_t at = 0;
    const double error = test_relative_error(got, want, n);
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(got[i] - want[i]) <= fabsf(got[at] - want[at])))
            at = i;
    if (!(error <= bound))
        fail_msg("%s, %s: off by %.3g of the largest value, at most %.3g allowed; element %zu of "
                 "%zu is %.9g, expected %.9g",
                 where, what, error, bound, at, n, (double)got[at], (double)want[at]);
}

#endif

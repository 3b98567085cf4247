/* test_decoder_gradients.c - every weight and input of the decoder against central differences in
 * double, over families, shared prefixes, vectors in place of words, and wanted rows.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "ranker/training/decoder.h"
#include "ranker/training/losses.h"

#define MAX_ROWS 64

typedef struct {
    const char *name;
    mr_model_config config;
    bool headless;
} family_case;

#define SHAPE                                                                         \
    .L = 2, .C = 12, .D = 4, .F = 10, .V = 17, .rms_eps = 1e-5f, .max_positions = 64, \
    .rope_theta = 1e4, .rope_type = MR_ROPE_DEFAULT, .bos_id = -1, .eos_id = -1

static const family_case families[] = {
    {"Qwen3: q/k norm, grouped heads, tied",
     {.family = MR_FAMILY_QWEN3, SHAPE, .H = 4, .K = 2, .tied = true, .qk_norm = true},
     false},
    {"Qwen2: qkv bias, one kv head, untied",
     {.family = MR_FAMILY_QWEN2, SHAPE, .H = 3, .K = 1, .qkv_bias = true},
     false},
    {"Llama: all biases, as many kv heads as heads",
     {.family = MR_FAMILY_LLAMA,
      SHAPE,
      .H = 2,
      .K = 2,
      .qkv_bias = true,
      .o_bias = true,
      .mlp_bias = true},
     false},
    {"Qwen3 without a head: an encoder",
     {.family = MR_FAMILY_QWEN3, SHAPE, .H = 2, .K = 1, .tied = true, .qk_norm = true},
     true},
};
#define N_FAMILIES (sizeof families / sizeof *families)

/* A pack in short: spans "parent,rows", rows that take vectors, rows that are wanted. */
typedef struct {
    const char *name;
    mr_span span[8];
    size_t n_spans;
    const char *vectors; /* one letter per row: 'v' takes a vector */
    const char *wanted;  /* 'w'; NULL: all */
} shape_case;

static const shape_case shapes[] = {
    {"one text", {{0, 7, -1}}, 1, ".......", NULL},
    {"two texts, the last state of each", {{0, 5, -1}, {5, 3, -1}}, 2, "........", "....w..w"},
    {"a prefix with a user vector, candidates of vectors and a closing token",
     {{0, 5, -1}, {5, 2, 0}, {7, 3, 0}, {10, 2, 0}},
     4,
     "..v..v.vv.v.",
     "......w..w.w"},
    {"two lists, one with a long candidate",
     {{0, 3, -1}, {3, 11, 0}, {14, 2, 0}, {16, 4, -1}, {20, 3, 3}},
     5,
     ".....v.................",
     ".............w.w......w"},
    {"all rows of a list wanted", {{0, 4, -1}, {4, 3, 0}, {7, 3, 0}}, 3, "v.........", NULL},
};
#define N_SHAPES (sizeof shapes / sizeof *shapes)

typedef struct {
    mr_weights weights;
    mr_decoder_layout layout;
    mr_pack pack;
    int32_t ids[MAX_ROWS];
    bool wanted[MAX_ROWS];
    int32_t target[MAX_ROWS];
    size_t n_vectors, n_wanted;
    double *values, *gradients, *vectors, *d_vectors, *mix;
    mr_decoder_f64 *run;
} fixture;

static double *drawn(size_t n, uint64_t seed, double deviation, double mean)
{
    mr_rng rng = mr_rng_seed(seed);
    double *x = calloc(n + 1, sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = mean + deviation * mr_rng_normal(&rng);
    return x;
}

static void set_up(fixture *f, const family_case *family, const shape_case *shape)
{
    mr_error err = {0};
    *f = (fixture){0};
    mr_weights_begin_part(&f->weights, "llm");
    assert_int_equal(
        mr_decoder_add(&f->layout, &family->config, family->headless, &f->weights, &err), MR_OK);
    const size_t rows = strlen(shape->vectors);
    mr_rng rng = mr_rng_seed(rows);
    for (size_t r = 0; r < rows; r++) {
        f->ids[r] = shape->vectors[r] == 'v'
                        ? MR_ROW_VECTOR
                        : (int32_t)mr_rng_below(&rng, (uint64_t)family->config.V);
        f->wanted[r] = !shape->wanted || shape->wanted[r] == 'w';
        f->target[r] = r % 4 == 3 ? MR_LOSS_IGNORE : (int32_t)mr_rng_below(&rng, 17);
    }
    f->pack =
        (mr_pack){f->ids, rows, shape->span, shape->n_spans, shape->wanted ? f->wanted : NULL};
    assert_int_equal(mr_pack_check(&f->pack, &family->config, &f->n_vectors, &f->n_wanted, &err),
                     MR_OK);
    const size_t C = (size_t)family->config.C;
    f->values = drawn(f->weights.total, 1, 0.3, 0);
    for (size_t i = 0; i < f->weights.n; i++)
        if (f->weights.weight[i].kind == MR_WEIGHT_ONES)
            for (size_t k = 0; k < f->weights.weight[i].n; k++)
                f->values[f->weights.weight[i].offset + k] += 1;
    f->gradients = calloc(f->weights.total, sizeof(double));
    f->vectors = drawn(f->n_vectors * C, 2, 0.5, 0);
    f->d_vectors = calloc(f->n_vectors * C + 1, sizeof(double));
    f->mix = drawn(rows * C, 3, 1, 0);
    assert_int_equal(
        mr_decoder_new_f64(&f->run, &f->layout, &f->weights, mr_ops_select_f64(), MAX_ROWS, &err),
        MR_OK);
}

static void tear_down(fixture *f)
{
    mr_decoder_free_f64(f->run);
    mr_weights_done(&f->weights);
    free(f->values);
    free(f->gradients);
    free(f->vectors);
    free(f->d_vectors);
    free(f->mix);
}

/* A loss that every output takes part in: a fixed mix of the states, next tokens and margins. */
static double loss(fixture *f, bool back)
{
    const size_t C = (size_t)f->layout.config.C, n = f->n_wanted;
    double d_out[MAX_ROWS * 16], d_head[MAX_ROWS * 16], margin[MAX_ROWS], d_margin[MAX_ROWS];
    const double *out = mr_decoder_forward_f64(f->run, f->values, &f->pack, f->vectors);
    double total = 0;
    for (size_t i = 0; i < n * C; i++) {
        total += f->mix[i] * out[i];
        d_out[i] = f->mix[i];
    }
    if (f->layout.head != MR_NO_WEIGHT) {
        double *gradients = back ? f->gradients : NULL;
        total += 0.7 * mr_decoder_next_token_f64(f->run, f->values, out, f->target, n, 0.7, d_head,
                                                 gradients);
        for (size_t i = 0; i < n * C; i++)
            d_out[i] += d_head[i];
        mr_decoder_margins_f64(f->run, f->values, out, n, 3, 5, margin);
        for (size_t r = 0; r < n; r++) {
            total += margin[r] * margin[r];
            d_margin[r] = 2 * margin[r];
        }
        mr_decoder_margins_back_f64(f->run, f->values, out, n, 3, 5, d_margin, d_head, gradients);
        for (size_t i = 0; i < n * C; i++)
            d_out[i] += d_head[i];
    }
    if (back)
        mr_decoder_backward_f64(f->run, f->values, d_out, f->gradients, f->d_vectors);
    return total;
}

static double difference(fixture *f, double *at)
{
    const double h = 1e-5, was = *at;
    *at = was + h;
    const double more = loss(f, false);
    *at = was - h;
    const double less = loss(f, false);
    *at = was;
    return (more - less) / (2 * h);
}

static void check(fixture *f, double *at, double gradient, const char *what, size_t index,
                  const family_case *family, const shape_case *shape)
{
    const double expected = difference(f, at);
    const double bound = 1e-6 * (1 + fabs(expected));
    if (!(fabs(gradient - expected) <= bound))
        fail_msg("%s; %s: %s[%zu]: gradient %.10g, central difference %.10g", family->name,
                 shape->name, what, index, gradient, expected);
}

static void test_every_gradient_is_the_central_difference(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_FAMILIES; i++) {
        for (size_t j = 0; j < N_SHAPES; j++) {
            fixture f;
            set_up(&f, &families[i], &shapes[j]);
            loss(&f, true);
            for (size_t w = 0; w < f.weights.n; w++) {
                const mr_weight *weight = &f.weights.weight[w];
                for (size_t k = 0; k < weight->n; k += 1 + weight->n / 23)
                    check(&f, &f.values[weight->offset + k], f.gradients[weight->offset + k],
                          weight->name, k, &families[i], &shapes[j]);
            }
            for (size_t k = 0; k < f.n_vectors * (size_t)f.layout.config.C; k++)
                check(&f, &f.vectors[k], f.d_vectors[k], "vectors", k, &families[i], &shapes[j]);
            tear_down(&f);
        }
    }
}

static void test_frozen_weights_get_no_gradient_and_the_others_the_same(void **state)
{
    (void)state;
    static const char *const patterns[] = {
        "llm.model.layers.0.*", "llm/model.layers.0.*",    "llm.*",
        "llm.*.k_proj.weight",  "llm.model.embed_tokens*", "*norm.weight"};
    for (size_t p = 0; p < sizeof patterns / sizeof *patterns; p++) {
        fixture all, some;
        mr_error err = {0};
        set_up(&all, &families[1], &shapes[2]);
        set_up(&some, &families[1], &shapes[2]);
        const mr_status status = mr_weights_freeze(&some.weights, patterns[p], &err);
        if (p == 1) {
            assert_int_equal(status, MR_INVALID);
            assert_non_null(strstr(err.message, "matches no weight"));
        } else {
            assert_int_equal(status, MR_OK);
        }
        loss(&all, true);
        loss(&some, true);
        for (size_t w = 0; w < all.weights.n; w++) {
            const mr_weight *weight = &some.weights.weight[w];
            for (size_t k = weight->offset; k < weight->offset + weight->n; k++) {
                const double expected = weight->trained ? all.gradients[k] : 0;
                if (some.gradients[k] != expected)
                    fail_msg("%s: %s: gradient %g, expected %g", patterns[p], weight->name,
                             some.gradients[k], expected);
            }
        }
        tear_down(&all);
        tear_down(&some);
    }
}

static void test_packs_that_are_none_are_refused(void **state)
{
    (void)state;
    const mr_model_config *config = &families[0].config;
    const int32_t ids[4] = {1, 2, 3, 4}, bad_id[4] = {1, 2, 17, 4}, negative[4] = {1, -2, 3, 4};
    const struct {
        mr_pack pack;
        mr_span span[3];
        const char *message;
    } rows[] = {
        {{ids, 4, NULL, 1, NULL}, {{0, 3, -1}}, "spans cover 3 of 4 rows"},
        {{ids, 4, NULL, 2, NULL}, {{0, 2, -1}, {3, 1, -1}}, "expected to begin at 2"},
        {{ids, 4, NULL, 1, NULL}, {{0, 5, -1}}, "span 0 has rows 0 + 5 of 4"},
        {{ids, 4, NULL, 2, NULL}, {{0, 2, -1}, {2, 2, 1}}, "no earlier prefix"},
        {{ids, 4, NULL, 3, NULL}, {{0, 2, -1}, {2, 1, 0}, {3, 1, 1}}, "no earlier prefix"},
        {{ids, 4, NULL, 2, NULL}, {{0, 4, -1}, {4, 0, -1}}, "span 1 has rows 4 + 0"},
        {{bad_id, 4, NULL, 1, NULL}, {{0, 4, -1}}, "row 2 has token 17 of a vocabulary of 17"},
        {{negative, 4, NULL, 1, NULL}, {{0, 4, -1}}, "row 1 has token -2"},
        {{ids, 0, NULL, 0, NULL}, {{0, 0, 0}}, "spans cover 0 of 0 rows"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        mr_pack pack = rows[i].pack;
        mr_error err = {0};
        size_t a, b;
        pack.span = rows[i].span;
        assert_int_equal(mr_pack_check(&pack, config, &a, &b, &err), MR_INVALID);
        if (!strstr(err.message, rows[i].message))
            fail_msg("row %zu: '%s' lacks '%s'", i, err.message, rows[i].message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_gradient_is_the_central_difference),
        cmocka_unit_test(test_frozen_weights_get_no_gradient_and_the_others_the_same),
        cmocka_unit_test(test_packs_that_are_none_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

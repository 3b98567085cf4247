/* test_gradients_modules.c - every weight and input of the projector, the user encoder and the
 * vision tower against central differences in double; frozen weights; bad shapes.
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
#include "ranker/training/projector_train.h"
#include "ranker/training/user_encoder.h"
#include "ranker/training/vision.h"
#include "tests/support.h"

#define STEP  1e-5
#define BOUND 1e-6

/* One module with what it takes and gives; the loss is mix . out. */
typedef struct module module;
struct module {
    const char *name;
    mr_weights weights;
    size_t n_in, n_out;
    bool has_input_gradient;
    double *values, *gradients, *in, *d_in, *mix; /* owned */
    const double *(*forward)(module *m);
    void (*backward)(module *m, double *gradients, double *d_in);
    void (*release)(module *m);

    mr_projector_layout projector;
    mr_projector_train_f64 *projector_run;
    mr_user_layout user;
    mr_user_train_f64 *user_run;
    mr_vision_layout vision;
    mr_vision_train_f64 *vision_run;
    size_t rows_of[4], count; /* users and their rows, or pictures, or rows */
};

static double *drawn(size_t n, uint64_t seed, double deviation)
{
    mr_rng rng = mr_rng_seed(seed);
    double *x = calloc(n + 1, sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++)
        x[i] = deviation * mr_rng_normal(&rng);
    return x;
}

/* Weights and operands; gains around 1, and everything large enough to matter. */
static void fill(module *m)
{
    m->values = drawn(m->weights.total, 1, 0.3);
    for (size_t i = 0; i < m->weights.n; i++)
        if (m->weights.weight[i].kind == MR_WEIGHT_ONES)
            for (size_t k = 0; k < m->weights.weight[i].n; k++)
                m->values[m->weights.weight[i].offset + k] += 1;
    m->gradients = calloc(m->weights.total + 1, sizeof(double));
    m->in = drawn(m->n_in, 2, 0.7);
    m->d_in = calloc(m->n_in + 1, sizeof(double));
    m->mix = drawn(m->n_out, 3, 1);
}

static void release(module *m)
{
    m->release(m);
    mr_weights_done(&m->weights);
    free(m->values);
    free(m->gradients);
    free(m->in);
    free(m->d_in);
    free(m->mix);
}

/* ---- The modules ----------------------------------------------------------------------------- */

static const double *projector_forward(module *m)
{
    return mr_projector_train_forward_f64(m->projector_run, m->values, m->in, m->count);
}
static void projector_backward(module *m, double *gradients, double *d_in)
{
    mr_projector_train_backward_f64(m->projector_run, m->values, m->mix, gradients, d_in);
}
static void projector_release(module *m)
{
    mr_projector_train_free_f64(m->projector_run);
}

static void new_projector(module *m, const char *name, const mr_projector_shape *shape, size_t rows)
{
    mr_error err = {0};
    *m = (module){.name = name,
                  .has_input_gradient = true,
                  .n_in = rows * shape->in,
                  .n_out = rows * shape->out,
                  .count = rows,
                  .forward = projector_forward,
                  .backward = projector_backward,
                  .release = projector_release};
    mr_weights_begin_part(&m->weights, "item_projector");
    assert_status(mr_projector_train_add(&m->projector, shape, &m->weights, &err), MR_OK, &err);
    assert_status(mr_projector_train_new_f64(&m->projector_run, &m->projector, &m->weights,
                                             mr_ops_select_f64(), rows + 2, &err),
                  MR_OK, &err);
    fill(m);
}

static const double *user_forward(module *m)
{
    return mr_user_train_forward_f64(m->user_run, m->values, m->in, m->rows_of, m->count);
}
static void user_backward(module *m, double *gradients, double *d_in)
{
    mr_user_train_backward_f64(m->user_run, m->values, m->mix, gradients, d_in);
}
static void user_release(module *m)
{
    mr_user_train_free_f64(m->user_run);
}

/* Users with 1, 5 and 3 vectors. */
static void new_user(module *m, const char *name, const mr_user_config *config)
{
    mr_error err = {0};
    *m = (module){.name = name,
                  .has_input_gradient = true,
                  .rows_of = {1, 5, 3},
                  .count = 3,
                  .n_in = 9 * config->item_dim,
                  .n_out = 3 * config->latents * config->C,
                  .forward = user_forward,
                  .backward = user_backward,
                  .release = user_release};
    mr_weights_begin_part(&m->weights, "user");
    assert_status(mr_user_train_add(&m->user, config, &m->weights, &err), MR_OK, &err);
    assert_status(mr_user_train_new_f64(&m->user_run, &m->user, &m->weights, mr_ops_select_f64(),
                                        11, 4, &err),
                  MR_OK, &err);
    fill(m);
}

static const double *vision_forward(module *m)
{
    return mr_vision_train_forward_f64(m->vision_run, m->values, m->in, m->count);
}
static void vision_backward(module *m, double *gradients, double *d_in)
{
    (void)d_in;
    mr_vision_train_backward_f64(m->vision_run, m->values, m->mix, gradients);
}
static void vision_release(module *m)
{
    mr_vision_train_free_f64(m->vision_run);
}

static void new_vision(module *m, const char *name, const mr_vision_shape *shape, size_t pictures)
{
    mr_error err = {0};
    const size_t S = (size_t)shape->config.image_size;
    *m = (module){.name = name,
                  .count = pictures,
                  .n_in = pictures * 3 * S * S,
                  .n_out = pictures * (size_t)shape->tokens * (size_t)shape->config.C,
                  .forward = vision_forward,
                  .backward = vision_backward,
                  .release = vision_release};
    mr_weights_begin_part(&m->weights, "vision");
    assert_status(mr_vision_train_add(&m->vision, shape, &m->weights, &err), MR_OK, &err);
    assert_status(mr_vision_train_new_f64(&m->vision_run, &m->vision, &m->weights,
                                          mr_ops_select_f64(), pictures + 1, &err),
                  MR_OK, &err);
    fill(m);
}

/* ---- Differences ----------------------------------------------------------------------------- */

static double loss_of(module *m)
{
    const double *out = m->forward(m);
    double loss = 0;
    for (size_t i = 0; i < m->n_out; i++)
        loss += m->mix[i] * out[i];
    return loss;
}

static void check_values(module *m, const char *what, double *value, const double *gradient,
                         size_t n)
{
    double worst = 0, largest = 0;
    for (size_t i = 0; i < n; i++) {
        const double was = value[i];
        value[i] = was + STEP;
        const double above = loss_of(m);
        value[i] = was - STEP;
        const double below = loss_of(m);
        value[i] = was;
        const double want = (above - below) / (2 * STEP);
        worst = fmax(worst, fabs(gradient[i] - want));
        largest = fmax(largest, fabs(want));
    }
    if (!(worst <= 1e-9 + BOUND * largest))
        fail_msg("%s: %s: off by %g where the largest is %g", m->name, what, worst, largest);
    /* A key's bias adds the same to all scores of a query, which softmax takes out again; and the
     * class token's own row is dropped. */
    const bool may_be_idle = strstr(what, "k_proj.bias") ||
                             (m->vision_run && m->vision.layer == 0 && strstr(what, "class_emb"));
    if (largest == 0 && !may_be_idle)
        fail_msg("%s: %s: has no effect on the loss", m->name, what);
}

static void check_gradients(module *m)
{
    loss_of(m);
    m->backward(m, m->gradients, m->d_in);
    for (size_t i = 0; i < m->weights.n; i++) {
        const mr_weight *weight = &m->weights.weight[i];
        if (weight->trained)
            check_values(m, weight->name, m->values + weight->offset, m->gradients + weight->offset,
                         weight->n);
    }
    if (m->has_input_gradient)
        check_values(m, "the input", m->in, m->d_in, m->n_in);
}

/* With every second weight frozen: the others' gradients as before, theirs untouched; a second way
 * back adds as much again, and one without gradients touches nothing. */
static void check_frozen(module *m)
{
    loss_of(m);
    double *again = calloc(m->weights.total + 1, sizeof *again);
    double *d_in = calloc(m->n_in + 1, sizeof *d_in);
    for (size_t i = 0; i < m->weights.n; i += 2) {
        m->weights.weight[i].trained = false;
        for (size_t k = 0; k < m->weights.weight[i].n; k++)
            again[m->weights.weight[i].offset + k] = 7;
    }
    m->backward(m, again, d_in);
    loss_of(m);
    m->backward(m, again, d_in);
    for (size_t i = 0; i < m->weights.n; i++) {
        const mr_weight *weight = &m->weights.weight[i];
        for (size_t k = weight->offset; k < weight->offset + weight->n; k++) {
            const double want = i % 2 == 0 ? 7 : 2 * m->gradients[k];
            if (!(fabs(again[k] - want) <= 1e-12 * (1 + fabs(want))))
                fail_msg("%s: %s: %.17g, expected %.17g", m->name, weight->name, again[k], want);
        }
    }
    double *alone = calloc(m->n_in + 1, sizeof *alone);
    loss_of(m);
    m->backward(m, NULL, alone);
    if (m->has_input_gradient)
        assert_memory_equal(alone, d_in, m->n_in * sizeof *alone);
    m->backward(m, NULL, NULL);
    free(alone);
    free(again);
    free(d_in);
}

static void check_module(module *m)
{
    check_gradients(m);
    check_frozen(m);
    release(m);
}

/* ---- Tests ----------------------------------------------------------------------------------- */

static void projectors_agree_with_central_differences(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        mr_projector_shape shape;
        size_t rows;
    } cases[] = {
        {"mlp with biases", {MR_PROJECTOR_MLP, 5, 9, 7, {true, true}}, 4},
        {"mlp of one number", {MR_PROJECTOR_MLP, 1, 3, 1, {true, true}}, 3},
        {"mlp without biases, one row", {MR_PROJECTOR_MLP, 6, 4, 3, {false, false}}, 1},
        {"mlp with one bias", {MR_PROJECTOR_MLP, 3, 4, 5, {false, true}}, 2},
        {"linear with a bias", {MR_PROJECTOR_LINEAR, 7, 0, 3, {true, false}}, 5},
        {"linear", {MR_PROJECTOR_LINEAR, 2, 0, 6, {false, false}}, 5},
        {"identity", {MR_PROJECTOR_IDENTITY, 4, 0, 4, {false, false}}, 3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        module m;
        new_projector(&m, cases[i].name, &cases[i].shape, cases[i].rows);
        check_module(&m);
    }
}

#define USER_SHAPE .item_dim = 5, .C = 6, .F = 7, .max_history = 5, .eps = 1e-5f
static const struct {
    const char *name;
    mr_user_config config;
} user_cases[] = {
    {"a set, no blocks, one latent",
     {USER_SHAPE, .H = 2, .K = 2, .D = 3, .layers = 0, .cross_layers = 1, .latents = 1}},
    {"a set, one block, grouped heads wider than the model",
     {USER_SHAPE, .H = 4, .K = 2, .D = 3, .layers = 1, .cross_layers = 1, .latents = 3}},
    {"a sequence with learned positions, two blocks, two looks",
     {USER_SHAPE, .H = 3, .K = 1, .D = 2, .layers = 2, .cross_layers = 2, .latents = 2,
      .positions = MR_USER_POSITIONS_LEARNED}},
    {"a sequence with sinusoids, more latents than vectors",
     {USER_SHAPE, .H = 1, .K = 1, .D = 5, .layers = 1, .cross_layers = 2, .latents = 7,
      .positions = MR_USER_POSITIONS_SINUSOID}},
};
#define N_USER_CASES (sizeof user_cases / sizeof *user_cases)

static void user_encoders_agree_with_central_differences(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_USER_CASES; i++) {
        module m;
        new_user(&m, user_cases[i].name, &user_cases[i].config);
        check_module(&m);
    }
}

static void a_user_does_not_depend_on_the_others_of_a_pass(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_USER_CASES; i++) {
        module m;
        new_user(&m, user_cases[i].name, &user_cases[i].config);
        const size_t width = m.n_out / 3;
        double *together = calloc(m.n_out, sizeof *together);
        memcpy(together, m.forward(&m), m.n_out * sizeof *together);
        const size_t rows = 3; /* the last of the three */
        const double *alone = mr_user_train_forward_f64(
            m.user_run, m.values, m.in + 6 * m.user.config.item_dim, &rows, 1);
        for (size_t k = 0; k < width; k++)
            if (!(fabs(alone[k] - together[2 * width + k]) <= 1e-12))
                fail_msg("%s: element %zu is %.17g alone, %.17g in company", m.name, k, alone[k],
                         together[2 * width + k]);
        free(together);
        release(&m);
    }
}

static void the_order_of_a_set_does_not_matter_that_of_a_sequence_does(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_USER_CASES; i++) {
        module m;
        new_user(&m, user_cases[i].name, &user_cases[i].config);
        const size_t dim = m.user.config.item_dim;
        double *before = calloc(m.n_out, sizeof *before), difference = 0;
        memcpy(before, m.forward(&m), m.n_out * sizeof *before);
        for (size_t k = 0; k < dim; k++) { /* the first two vectors of the second user */
            const double was = m.in[dim + k];
            m.in[dim + k] = m.in[2 * dim + k];
            m.in[2 * dim + k] = was;
        }
        const double *after = m.forward(&m);
        for (size_t k = 0; k < m.n_out; k++)
            difference = fmax(difference, fabs(after[k] - before[k]));
        const bool set = m.user.config.positions == MR_USER_POSITIONS_NONE;
        if (set ? difference > 1e-12 : difference < 1e-3)
            fail_msg("%s: another order changes it by %g", m.name, difference);
        free(before);
        release(&m);
    }
}

/* Patches of a grid that the cells do not divide evenly, a picture with a rest that no patch sees.
 */
#define TOWER .L = 3, .C = 6, .F = 8, .image_size = 10, .patch_size = 3, .grid = 3, .eps = 1e-5f
static const struct {
    const char *name;
    mr_vision_shape shape;
    size_t pictures, trained; /* trained: weights that a gradient reaches */
} vision_cases[] = {
    {"quick GELU, LLaVA's layer, 4 tokens of a grid of 3",
     {{TOWER, .H = 2, .quick_gelu = true}, "vision_model.", true, -2, 4},
     2,
     37},
    {"GELU, the last block, a token a patch, no post_layernorm",
     {{TOWER, .H = 3}, "", false, -1, 9},
     1,
     53},
    {"one head, hidden state 1, one token",
     {{TOWER, .H = 1, .quick_gelu = true}, "vision_tower.vision_model.", true, 1, 1},
     3,
     21},
    {"hidden state 0: no block at all",
     {{TOWER, .H = 1, .quick_gelu = true}, "vision_model.", true, 0, 4},
     2,
     5},
};
#define N_VISION_CASES (sizeof vision_cases / sizeof *vision_cases)

static void vision_towers_agree_with_central_differences(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_VISION_CASES; i++) {
        module m;
        new_vision(&m, vision_cases[i].name, &vision_cases[i].shape, vision_cases[i].pictures);
        size_t trained = 0;
        for (size_t k = 0; k < m.weights.n; k++)
            trained += m.weights.weight[k].trained;
        if (trained != vision_cases[i].trained)
            fail_msg("%s: %zu trained weights, expected %zu", m.name, trained,
                     vision_cases[i].trained);
        check_gradients(&m);
        release(&m);
    }
}

/* Only what stands above the first trained weight is computed, and nothing below is touched. */
static void frozen_parts_of_a_tower_stay_as_they_are(void **state)
{
    (void)state;
    for (int upto = 0; upto <= 3; upto++) {
        module m;
        new_vision(&m, "frozen from below", &vision_cases[1].shape, 2);
        double *again = calloc(m.weights.total, sizeof *again);
        loss_of(&m);
        m.backward(&m, m.gradients, NULL);
        const size_t first = m.vision.block[upto == 3 ? 2 : upto].begin + (upto == 3 ? 5 : 0);
        for (size_t i = 0; i < first; i++)
            m.weights.weight[i].trained = false;
        loss_of(&m);
        m.backward(&m, again, NULL);
        for (size_t i = 0; i < m.weights.n; i++) {
            const mr_weight *weight = &m.weights.weight[i];
            for (size_t k = weight->offset; k < weight->offset + weight->n; k++) {
                const double want = i < first ? 0 : m.gradients[k];
                if (!(fabs(again[k] - want) <= 1e-12))
                    fail_msg("%zu frozen: %s: %g, expected %g", first, weight->name, again[k],
                             want);
            }
        }
        free(again);
        release(&m);
    }
}

static void shapes_that_cannot_be_are_refused(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_weights weights = {0};
    mr_projector_layout projector;
    mr_vision_layout vision;
    mr_weights_begin_part(&weights, "part");
    const mr_projector_shape changes = {.form = MR_PROJECTOR_IDENTITY, .in = 3, .out = 4};
    const mr_projector_shape empty = {.form = MR_PROJECTOR_MLP, .in = 3, .out = 4};
    assert_status(mr_projector_train_add(&projector, &changes, &weights, &err), MR_INVALID, &err);
    assert_contains(err.message, "vectors of 3 numbers where 4 are expected, and no projector");
    assert_status(mr_projector_train_add(&projector, &empty, &weights, &err), MR_INVALID, &err);
    assert_contains(err.message, "a projector from 3 to 4 numbers with 0 between");
    mr_vision_shape shape = vision_cases[0].shape;
    shape.feature_layer = 4;
    assert_status(mr_vision_train_add(&vision, &shape, &weights, &err), MR_INVALID, &err);
    assert_contains(err.message, "feature layer 4, but the tower has hidden states 0 to 3");
    shape.feature_layer = -2;
    shape.tokens = 16;
    assert_status(mr_vision_train_add(&vision, &shape, &weights, &err), MR_INVALID, &err);
    assert_contains(err.message,
                    "16 tokens of a picture, expected a square up to the tower's grid");
    shape.tokens = 5;
    assert_status(mr_vision_train_add(&vision, &shape, &weights, &err), MR_INVALID, &err);
    assert_int_equal(weights.n, 0);
    mr_weights_done(&weights);
}

static void room_that_cannot_be_had_is_an_error(void **state)
{
    (void)state;
    module m;
    mr_error err = {0};
    mr_user_train_f64 *user = NULL;
    new_user(&m, "too many", &user_cases[1].config);
    assert_status(mr_user_train_new_f64(&user, &m.user, &m.weights, mr_ops_select_f64(),
                                        SIZE_MAX / 64, 4, &err),
                  MR_NO_MEMORY, &err);
    assert_null(user);
    assert_contains(err.message, "history vectors of 4 users");
    release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(projectors_agree_with_central_differences),
        cmocka_unit_test(user_encoders_agree_with_central_differences),
        cmocka_unit_test(a_user_does_not_depend_on_the_others_of_a_pass),
        cmocka_unit_test(the_order_of_a_set_does_not_matter_that_of_a_sequence_does),
        cmocka_unit_test(vision_towers_agree_with_central_differences),
        cmocka_unit_test(frozen_parts_of_a_tower_stay_as_they_are),
        cmocka_unit_test(shapes_that_cannot_be_are_refused),
        cmocka_unit_test(room_that_cannot_be_had_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

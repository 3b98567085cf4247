/* test_training_reference.c - projector, user encoder and vision tower in float: outputs and all
 * gradients as PyTorch computes them, and the outputs that serving gives.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "encoders/projector.h"
#include "encoders/user_encoder.h"
#include "engine/kernels.h"
#include "ranker/training/projector_train.h"
#include "ranker/training/user_encoder.h"
#include "ranker/training/vision.h"
#include "tests/support.h"
#include "tests/vision_support.h"

#define BOUND 1e-5
#define USERS 3

/* The reference of a module, and its weights as the module added them. */
typedef struct {
    mr_safetensors *reference;
    float *input, *mix, *want; /* owned */
    size_t n_input, n_out;
    mr_weights weights;
    float *values, *gradients, *d_input; /* owned */
} fixture;

static const mr_ops_f32 *sets[2];
static size_t n_sets;

static void open_reference(fixture *f, const char *reference, const char *part)
{
    *f = (fixture){.reference = test_reference_open(reference)};
    f->input = test_reference_floats(f->reference, "input", &f->n_input);
    f->mix = test_reference_floats(f->reference, "mix", &f->n_out);
    f->want = test_reference_floats(f->reference, "output", NULL);
    f->d_input = calloc(f->n_input, sizeof *f->d_input);
    assert_non_null(f->d_input);
    mr_weights_begin_part(&f->weights, part);
}

static void load_weights(fixture *f, const char *path)
{
    mr_error err = {0};
    f->values = calloc(f->weights.total, sizeof *f->values);
    f->gradients = calloc(f->weights.total, sizeof *f->gradients);
    assert_non_null(f->values);
    assert_non_null(f->gradients);
    assert_status(mr_weights_load(&f->weights, &f->weights.part[0], path, f->values, &err), MR_OK,
                  &err);
}

static void check_gradients(fixture *f, bool input)
{
    size_t checked = 0;
    for (size_t i = 0; i < f->weights.n; i++) {
        const mr_weight *weight = &f->weights.weight[i];
        if (!weight->trained)
            continue;
        char name[160];
        snprintf(name, sizeof name, "gradient.%s", weight->name);
        size_t n = 0;
        float *want = test_reference_floats(f->reference, name, &n);
        assert_int_equal(n, weight->n);
        float *got = f->gradients + weight->offset;
        /* A key's bias has no gradient but for rounding: softmax takes it out. */
        if (!strstr(name, "k_proj.bias") && test_relative_error(got, want, n) > BOUND)
            fail_msg("%s is off by %g", name, test_relative_error(got, want, n));
        free(want);
        checked++;
    }
    /* The reference has no gradient that was not looked at. */
    for (size_t i = 0; i < mr_safetensors_count(f->reference); i++)
        checked -= strncmp(mr_safetensors_at(f->reference, i)->name, "gradient.", 9) == 0 &&
                   strcmp(mr_safetensors_at(f->reference, i)->name, "gradient.input") != 0;
    assert_int_equal(checked, 0);
    if (input) {
        float *want = test_reference_floats(f->reference, "gradient.input", NULL);
        assert_floats_near(f->d_input, want, f->n_input, BOUND);
        free(want);
    }
}

static void close_reference(fixture *f)
{
    mr_safetensors_close(f->reference);
    mr_weights_done(&f->weights);
    free(f->input);
    free(f->mix);
    free(f->want);
    free(f->values);
    free(f->gradients);
    free(f->d_input);
}

/* ---- Projector ------------------------------------------------------------------------------- */

static void a_projector_is_that_of_pytorch_and_of_serving(void **state)
{
    (void)state;
    static const char path[] = "data/training/projector/model.safetensors";
    for (size_t s = 0; s < n_sets; s++) {
        fixture f;
        mr_error err = {0};
        mr_projector_shape shape;
        mr_projector_layout layout;
        mr_projector_train_f32 *run = NULL;
        open_reference(&f, "data/training/reference-projector.safetensors", "item_projector");
        assert_status(mr_projector_train_shape(&shape, path, 9, &err), MR_OK, &err);
        assert_int_equal(shape.form, MR_PROJECTOR_MLP);
        assert_int_equal(shape.hidden, 14);
        assert_true(shape.bias[0] && shape.bias[1]);
        assert_status(mr_projector_train_add(&layout, &shape, &f.weights, &err), MR_OK, &err);
        load_weights(&f, path);
        assert_status(mr_projector_train_new_f32(&run, &layout, &f.weights, sets[s], 7, &err),
                      MR_OK, &err);
        const float *out = mr_projector_train_forward_f32(run, f.values, f.input, 7);
        assert_floats_near(out, f.want, f.n_out, BOUND);

        mr_projector *served = NULL;
        assert_status(mr_projector_open(&served, path, 9, 11, &err), MR_OK, &err);
        float served_out[7 * 11];
        void *scratch = calloc(1, mr_projector_scratch_bytes(served, 7));
        mr_projector_run(served, mr_kernels_select(), NULL, scratch, f.input, 7, served_out);
        assert_floats_near(out, served_out, f.n_out, BOUND);
        free(scratch);
        mr_projector_close(served);

        mr_projector_train_backward_f32(run, f.values, f.mix, f.gradients, f.d_input);
        check_gradients(&f, true);
        mr_projector_train_free_f32(run);
        close_reference(&f);
    }
}

static void the_shape_of_a_projector_is_read_from_its_file(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_projector_shape shape;
    assert_status(mr_projector_train_shape(&shape, NULL, 5, &err), MR_OK, &err);
    assert_int_equal(shape.form, MR_PROJECTOR_IDENTITY);
    assert_int_equal(shape.out, 5);
    const char *linear = "data/projectors/linear-nobias-bf16/projector.safetensors";
    assert_status(mr_projector_train_shape(&shape, linear, 24, &err), MR_OK, &err);
    assert_int_equal(shape.form, MR_PROJECTOR_LINEAR);
    assert_int_equal(shape.out, 32);
    assert_false(shape.bias[0]);
    assert_status(mr_projector_train_shape(&shape, linear, 23, &err), MR_MISMATCH, &err);
    assert_status(mr_projector_train_shape(&shape, "data/training/losses.safetensors", 23, &err),
                  MR_NOT_FOUND, &err);
    assert_contains(err.message, "not a projector");
}

/* ---- User encoder ---------------------------------------------------------------------------- */

static void check_user(const char *folder, const char *reference, const mr_ops_f32 *ops)
{
    fixture f;
    mr_error err = {0};
    mr_user_config config;
    mr_user_layout layout;
    mr_user_train_f32 *run = NULL;
    mr_user_encoder *served = NULL;
    open_reference(&f, reference, "user");
    assert_status(mr_user_config_load(&config, test_path(folder, "config.json"), &err), MR_OK,
                  &err);
    assert_status(mr_user_train_add(&layout, &config, &f.weights, &err), MR_OK, &err);
    load_weights(&f, folder);
    size_t rows_of[USERS], rows = 0, n_users = 0;
    int32_t *ids = test_reference_ids(f.reference, "rows", &n_users);
    assert_int_equal(n_users, USERS);
    for (size_t u = 0; u < USERS; u++)
        rows += rows_of[u] = (size_t)ids[u];
    assert_status(mr_user_train_new_f32(&run, &layout, &f.weights, ops, rows, USERS, &err), MR_OK,
                  &err);
    const float *out = mr_user_train_forward_f32(run, f.values, f.input, rows_of, USERS);
    assert_floats_near(out, f.want, f.n_out, BOUND);

    assert_status(mr_user_encoder_open(&served, folder, NULL, &err), MR_OK, &err);
    const size_t width = config.latents * config.C;
    float *served_out = calloc(width, sizeof *served_out);
    const float *from = f.input;
    for (size_t u = 0; u < USERS; from += rows_of[u++] * config.item_dim) {
        assert_status(mr_user_encoder_run(served, from, rows_of[u], served_out, &err), MR_OK, &err);
        assert_floats_near(out + u * width, served_out, width, BOUND);
    }
    mr_user_train_backward_f32(run, f.values, f.mix, f.gradients, f.d_input);
    check_gradients(&f, true);
    free(served_out);
    free(ids);
    mr_user_encoder_close(served);
    mr_user_train_free_f32(run);
    close_reference(&f);
}

static void user_encoders_are_those_of_pytorch_and_of_serving(void **state)
{
    (void)state;
    for (size_t s = 0; s < n_sets; s++) {
        check_user("data/training/user", "data/training/reference-user.safetensors", sets[s]);
        check_user("data/training/user-sequence",
                   "data/training/reference-user-sequence.safetensors", sets[s]);
    }
}

/* Drawn, saved, opened: the names of training are those of serving, whatever the shape. */
static void what_training_saves_is_served(void **state)
{
    (void)state;
    static const mr_user_config configs[] = {
        {.item_dim = 24,
         .C = 16,
         .H = 4,
         .K = 1,
         .D = 8,
         .F = 40,
         .layers = 2,
         .cross_layers = 2,
         .latents = 5,
         .max_history = 6,
         .positions = MR_USER_POSITIONS_LEARNED,
         .eps = 1e-6f},
        {.item_dim = 7,
         .C = 12,
         .H = 2,
         .K = 2,
         .D = 6,
         .F = 9,
         .layers = 0,
         .cross_layers = 1,
         .latents = 1,
         .max_history = 6,
         .positions = MR_USER_POSITIONS_NONE,
         .eps = 1e-6f},
    };
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        const mr_user_config *c = &configs[i];
        char *folder = test_folder_new();
        mr_error err = {0};
        mr_weights weights = {0};
        mr_user_layout layout;
        mr_user_train_f32 *run = NULL;
        mr_user_encoder *served = NULL;
        mr_weights_begin_part(&weights, "user");
        assert_status(mr_user_train_add(&layout, c, &weights, &err), MR_OK, &err);
        float *values = calloc(weights.total, sizeof *values);
        mr_weights_draw(&weights, &weights.part[0], 3, 0.3, values);
        assert_status(mr_weights_save(&weights, &weights.part[0],
                                      test_path(folder, "model.safetensors"), MR_DTYPE_F32, values,
                                      NULL, &err),
                      MR_OK, &err);
        assert_status(mr_user_config_save(c, test_path(folder, "config.json"), &err), MR_OK, &err);
        assert_status(mr_user_encoder_open(&served, folder, NULL, &err), MR_OK, &err);
        assert_status(mr_user_train_new_f32(&run, &layout, &weights, sets[0], 6, 1, &err), MR_OK,
                      &err);
        float items[6 * 24], out[5 * 16];
        for (size_t k = 0; k < 6 * 24; k++)
            items[k] = (float)(k * 37 % 101) / 50 - 1;
        for (size_t rows = 1; rows <= 6; rows++) {
            assert_status(mr_user_encoder_run(served, items, rows, out, &err), MR_OK, &err);
            assert_floats_near(out, mr_user_train_forward_f32(run, values, items, &rows, 1),
                               c->latents * c->C, BOUND);
        }
        mr_user_train_free_f32(run);
        mr_user_encoder_close(served);
        mr_weights_done(&weights);
        free(values);
        test_folder_free(folder);
    }
}

/* ---- Vision tower ---------------------------------------------------------------------------- */

static void a_vision_tower_is_that_of_pytorch_and_of_serving(void **state)
{
    (void)state;
    static const char folder[] = "data/training/vision";
    for (size_t s = 0; s < n_sets; s++) {
        fixture f;
        mr_error err = {0};
        mr_vision_shape shape;
        mr_vision_layout layout;
        mr_vision_train_f32 *run = NULL;
        open_reference(&f, "data/training/reference-vision.safetensors", "vision");
        assert_status(mr_vision_train_shape(&shape, folder, -2, 4, &err), MR_OK, &err);
        assert_int_equal(shape.config.grid, 3);
        assert_true(shape.post_norm);
        assert_status(mr_vision_train_add(&layout, &shape, &f.weights, &err), MR_OK, &err);
        load_weights(&f, folder);
        assert_status(mr_vision_train_new_f32(&run, &layout, &f.weights, sets[s], 2, &err), MR_OK,
                      &err);
        const float *out = mr_vision_train_forward_f32(run, f.values, f.input, 2);
        assert_floats_near(out, f.want, f.n_out, BOUND);

        mr_clip *clip = NULL;
        float features[2 * 9 * 12], served[2 * 4 * 12];
        const mr_clip_options opt = {.max_images = 2};
        const mr_clip_image_request request = {.feature_layer = -2, .features = features};
        assert_status(mr_clip_open(&clip, folder, &opt, &err), MR_OK, &err);
        assert_status(mr_clip_image(clip, f.input, 2, &request, &err), MR_OK, &err);
        for (size_t i = 0; i < 2; i++)
            mr_clip_pool_grid(features + i * 9 * 12, 3, 12, 2, served + i * 4 * 12);
        assert_floats_near(out, served, f.n_out, BOUND);
        mr_clip_close(clip);

        mr_vision_train_backward_f32(run, f.values, f.mix, f.gradients);
        check_gradients(&f, false);
        mr_vision_train_free_f32(run);
        close_reference(&f);
    }
}

int main(void)
{
    sets[n_sets++] = &mr_ops_generic_f32;
    if (mr_ops_select_f32() != sets[0])
        sets[n_sets++] = mr_ops_select_f32();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_projector_is_that_of_pytorch_and_of_serving),
        cmocka_unit_test(the_shape_of_a_projector_is_read_from_its_file),
        cmocka_unit_test(user_encoders_are_those_of_pytorch_and_of_serving),
        cmocka_unit_test(what_training_saves_is_served),
        cmocka_unit_test(a_vision_tower_is_that_of_pytorch_and_of_serving),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_losses.c - values and gradients of the training losses: PyTorch's, and central differences.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ranker/training/losses.h"
#include "tests/support.h"
#include "tests/vision_support.h"

#define CLASSES 11
#define MAX     128

/* cmocka's assert_float_equal compares as f32. */
static void assert_near(double got, double want, double bound)
{
    if (!(fabs(got - want) <= bound))
        fail_msg("%.17g, expected %.17g within %g", got, want, bound);
}

static int32_t ids[MAX]; /* targets of the cross-entropy */

static double cross_entropy(const float *x, const float *target, size_t n, float *gradient)
{
    (void)target;
    return mr_loss_cross_entropy(x, ids, n / CLASSES, CLASSES, gradient);
}

static double distill(const float *x, const float *target, size_t n, float *gradient)
{
    return mr_loss_distill(x, target, n, 2, gradient);
}

static const struct {
    const char *name;
    double (*loss)(const float *x, const float *target, size_t n, float *gradient);
} losses[] = {{"cross_entropy", cross_entropy},
              {"yes_no", mr_loss_yes_no},
              {"listwise", mr_loss_listwise},
              {"distill", distill},
              {"cosine", mr_loss_cosine}};
#define LOSSES (sizeof losses / sizeof *losses)

typedef struct {
    float *x, *target, *gradient;
    double loss;
    size_t n;
} reference;

static reference reference_of(const mr_safetensors *file, const char *name)
{
    char key[64];
    reference out = {0};
    size_t n = 0;
    snprintf(key, sizeof key, "%s.input", name);
    out.x = test_reference_floats(file, key, &out.n);
    assert_true(out.n <= MAX);
    snprintf(key, sizeof key, "%s.gradient", name);
    out.gradient = test_reference_floats(file, key, &n);
    assert_int_equal(n, out.n);
    snprintf(key, sizeof key, "%s.loss", name);
    memcpy(&out.loss, test_reference_find(file, key)->data, sizeof out.loss);
    snprintf(key, sizeof key, "%s.target", name);
    if (strcmp(name, "cross_entropy") == 0) {
        int32_t *target = test_reference_ids(file, key, &n);
        memcpy(ids, target, n * sizeof *ids);
        free(target);
    } else {
        out.target = test_reference_floats(file, key, NULL);
    }
    return out;
}

static void release(reference *r)
{
    free(r->x);
    free(r->target);
    free(r->gradient);
}

static void values_and_gradients_are_those_of_pytorch(void **state)
{
    mr_safetensors *file = test_reference_open("data/training/losses.safetensors");
    (void)state;
    for (size_t i = 0; i < LOSSES; i++) {
        float gradient[MAX];
        reference r = reference_of(file, losses[i].name);
        const double loss = losses[i].loss(r.x, r.target, r.n, gradient);
        if (!(fabs(loss - r.loss) <= 1e-12 * (1 + fabs(r.loss))))
            fail_msg("%s: %.17g, PyTorch %.17g", losses[i].name, loss, r.loss);
        assert_floats_near(gradient, r.gradient, r.n, 1e-6);
        release(&r);
    }
    mr_safetensors_close(file);
}

/* The inputs are f32, so the step is what they really moved by. */
static void gradients_are_central_differences(void **state)
{
    mr_safetensors *file = test_reference_open("data/training/losses.safetensors");
    (void)state;
    for (size_t i = 0; i < LOSSES; i++) {
        float gradient[MAX], ignored[MAX];
        reference r = reference_of(file, losses[i].name);
        losses[i].loss(r.x, r.target, r.n, gradient);
        for (size_t k = 0; k < r.n; k++) {
            const float x = r.x[k], above = x + 0x1p-8f, below = x - 0x1p-8f;
            r.x[k] = above;
            double difference = losses[i].loss(r.x, r.target, r.n, ignored);
            r.x[k] = below;
            difference -= losses[i].loss(r.x, r.target, r.n, ignored);
            r.x[k] = x;
            difference /= (double)above - (double)below;
            if (!(fabs(difference - (double)gradient[k]) <= 1e-5))
                fail_msg("%s, element %zu: gradient %.9g, difference %.9g", losses[i].name, k,
                         (double)gradient[k], difference);
        }
        release(&r);
    }
    mr_safetensors_close(file);
}

static void an_ignored_row_costs_nothing_and_moves_nothing(void **state)
{
    const float logits[4] = {1, 2, 700, -700};
    const int32_t one[2] = {1, MR_LOSS_IGNORE}, none[2] = {MR_LOSS_IGNORE, MR_LOSS_IGNORE};
    float alone[2], gradient[4];
    (void)state;
    const double want = mr_loss_cross_entropy(logits, one, 1, 2, alone);
    assert_near(mr_loss_cross_entropy(logits, one, 2, 2, gradient), want, 0);
    assert_memory_equal(gradient, alone, sizeof alone);
    assert_true(gradient[2] == 0 && gradient[3] == 0);
    assert_near(mr_loss_cross_entropy(logits, none, 2, 2, gradient), 0, 0);
    for (size_t i = 0; i < 4; i++)
        assert_true(gradient[i] == 0);
}

static void what_says_nothing_teaches_nothing(void **state)
{
    const float margins[3] = {1, 2, 3}, zeros[3] = {0, 0, 0};
    float gradient[3] = {9, 9, 9};
    (void)state;
    assert_near(mr_loss_listwise(margins, zeros, 3, gradient), 0, 0);
    assert_memory_equal(gradient, zeros, sizeof zeros);
    assert_near(mr_loss_distill(margins, margins, 3, 2, gradient), 0, 0);
    assert_memory_equal(gradient, zeros, sizeof zeros);
    gradient[0] = 9;
    assert_near(mr_loss_cosine(zeros, margins, 3, gradient), 1, 0);
    assert_memory_equal(gradient, zeros, sizeof zeros);
    assert_near(mr_loss_yes_no(margins, zeros, 0, gradient), 0, 0);
    assert_near(mr_loss_distill(margins, zeros, 0, 2, gradient), 0, 0);
    assert_near(mr_loss_cosine(margins, zeros, 0, gradient), 0, 0);
}

static void large_margins_stay_finite(void **state)
{
    const float margins[2] = {3e4f, -3e4f}, wrong[2] = {0, 1}, gains[2] = {0, 1};
    float gradient[2];
    (void)state;
    assert_near(mr_loss_yes_no(margins, wrong, 2, gradient), 3e4, 1e-9);
    assert_true(gradient[0] == 0.5f && gradient[1] == -0.5f);
    assert_near(mr_loss_listwise(margins, gains, 2, gradient), 6e4, 1e-9);
    assert_true(gradient[0] == 1 && gradient[1] == -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_gradients_are_those_of_pytorch),
        cmocka_unit_test(gradients_are_central_differences),
        cmocka_unit_test(an_ignored_row_costs_nothing_and_moves_nothing),
        cmocka_unit_test(what_says_nothing_teaches_nothing),
        cmocka_unit_test(large_margins_stay_finite)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

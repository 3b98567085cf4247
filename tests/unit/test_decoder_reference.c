/* test_decoder_reference.c - the decoder in float against transformers and PyTorch: losses, every
 * gradient, and 20 steps of AdamW, over data/training/decoder-* (data/README.md).
 *
 * PyTorch ran every candidate of a list as a sequence of its own; here they share their prefix.
 * Copies of the same in one pack have the same mean, and are worked on in several pieces.
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

#include "ranker/training/decoder.h"
#include "ranker/training/losses.h"
#include "ranker/training/optimizer.h"
#include "tests/support.h"
#include "tests/vision_support.h"

/* Of the loss, and of the largest value of a tensor's gradient. */
#define LOSS_BOUND     1e-5
#define GRADIENT_BOUND 1e-4
/* 20 steps amplify rounding: AdamW divides a gradient by its own size, and that of a list that is
 * nearly learnt is a small difference of close numbers. Losses and norms of their values, weights
 * of their largest one. What the steps do to a weight is some 5e-2. */
#define STEPS_LOSS_BOUND   1e-4
#define STEPS_NORM_BOUND   1e-3
#define STEPS_WEIGHT_BOUND 1e-4

#define STEPS              20
#define MAX_ROWS           512 /* more than attention and the head work on at a time */
#define MAX_SPANS          128
#define COPIES             15
#define MAX_WIDTH          32
#define MAX_PAIRS          8

/* As in generator/training_decoder.py. */
#define YES         5
#define NO          11
#define TEMPERATURE 0.05
#define RATE        3e-3
static const mr_adamw adamw = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.1};

static const char *const folders[] = {"data/training/decoder-qwen3", "data/training/decoder-qwen2",
                                      "data/training/decoder-llama"};
#define N_FOLDERS (sizeof folders / sizeof *folders)

static const mr_ops_f32 *sets[2];
static size_t n_sets;

/* Texts or a list of the reference as a pack. */
typedef struct {
    mr_pack pack;
    mr_span span[MAX_SPANS];
    bool wanted[MAX_ROWS];
    int32_t ids[MAX_ROWS];
    size_t copies, n_vectors, n_wanted;
} reference_pack;

typedef struct {
    const char *folder;
    const mr_ops_f32 *ops;
    mr_safetensors *reference;
    mr_weights weights;
    mr_decoder_layout layout;
    mr_decoder_f32 *run;
    float *values, *gradients, *vectors, *d_vectors; /* owned */
    reference_pack texts, list, pairs;
    float *gain; /* owned */
} fixture;

/* ---- The reference --------------------------------------------------------------------------- */

/* list: the first part is the prefix of the others. last: of each text or candidate the last row is
 * wanted, else all are. */
static void open_pack(reference_pack *out, const fixture *f, const char *name, size_t copies,
                      bool list, bool last)
{
    char key[64];
    size_t rows, n_spans, begin = 0;
    mr_error err = {0};
    snprintf(key, sizeof key, "%s.ids", name);
    int32_t *ids = test_reference_ids(f->reference, key, &rows);
    snprintf(key, sizeof key, "%s.lengths", name);
    int32_t *lengths = test_reference_ids(f->reference, key, &n_spans);
    assert_true(copies * rows <= MAX_ROWS && copies * n_spans <= MAX_SPANS);
    for (size_t i = 0; i < copies; i++) {
        memcpy(out->ids + i * rows, ids, rows * sizeof *ids);
        for (size_t s = 0; s < n_spans; s++) {
            const size_t n = (size_t)lengths[s];
            const bool has_parent = list && s > 0;
            out->span[i * n_spans + s] =
                (mr_span){begin, n, has_parent ? (int64_t)(i * n_spans) : -1};
            begin += n;
            out->wanted[begin - 1] = !list || has_parent;
        }
        assert_int_equal(begin, (i + 1) * rows);
    }
    out->copies = copies;
    out->pack =
        (mr_pack){out->ids, copies * rows, out->span, copies * n_spans, last ? out->wanted : NULL};
    free(ids);
    free(lengths);
    assert_status(
        mr_pack_check(&out->pack, &f->layout.config, &out->n_vectors, &out->n_wanted, &err), MR_OK,
        &err);
}

static void set_up(fixture *f, const char *folder, const mr_ops_f32 *ops, size_t copies)
{
    mr_error err = {0};
    mr_model_config config;
    size_t n;
    *f = (fixture){.folder = folder, .ops = ops};
    f->reference = test_reference_open(test_path(folder, "reference.safetensors"));
    assert_status(mr_model_config_load(&config, test_path(folder, "config.json"), &err), MR_OK,
                  &err);
    config.max_positions = MAX_ROWS; /* a limit that no number depends on */
    mr_weights_begin_part(&f->weights, "llm");
    assert_status(mr_decoder_add(&f->layout, &config, false, &f->weights, &err), MR_OK, &err);
    f->values = calloc(f->weights.total, sizeof *f->values);
    f->gradients = calloc(f->weights.total, sizeof *f->gradients);
    assert_true(f->values && f->gradients && config.C <= MAX_WIDTH);
    assert_status(mr_weights_load(&f->weights, &f->weights.part[0],
                                  test_path(folder, "model.safetensors"), f->values, &err),
                  MR_OK, &err);
    open_pack(&f->texts, f, "next_token", copies, false, false);
    open_pack(&f->list, f, "list", copies, true, true);
    open_pack(&f->pairs, f, "pairs", 1, false, true);
    float *vectors = test_reference_floats(f->reference, "list.vectors", &n);
    assert_int_equal(copies * n, f->list.n_vectors * (size_t)config.C);
    f->vectors = calloc(copies * n, sizeof *f->vectors);
    f->d_vectors = calloc(copies * n, sizeof *f->d_vectors);
    assert_true(f->vectors && f->d_vectors);
    for (size_t i = 0; i < copies; i++)
        memcpy(f->vectors + i * n, vectors, n * sizeof *vectors);
    free(vectors);
    f->gain = test_reference_floats(f->reference, "list.gains", &n);
    assert_int_equal(copies * n, f->list.n_wanted);
    assert_status(mr_decoder_new_f32(&f->run, &f->layout, &f->weights, ops, MAX_ROWS, &err), MR_OK,
                  &err);
}

static void tear_down(fixture *f)
{
    mr_decoder_free_f32(f->run);
    mr_weights_done(&f->weights);
    mr_safetensors_close(f->reference);
    free(f->values);
    free(f->gradients);
    free(f->vectors);
    free(f->d_vectors);
    free(f->gain);
}

static void read_doubles(const fixture *f, const char *name, double *out, size_t n)
{
    const mr_tensor *tensor = test_reference_find(f->reference, name);
    assert_int_equal(tensor->dtype, MR_DTYPE_F64);
    assert_int_equal(tensor->bytes, n * sizeof *out);
    memcpy(out, tensor->data, tensor->bytes);
}

/* ---- Losses: each adds its gradients --------------------------------------------------------- */

static double next_token_loss(fixture *f)
{
    const reference_pack *p = &f->texts;
    int32_t target[MAX_ROWS];
    float d_out[MAX_ROWS * MAX_WIDTH];
    const size_t rows = p->pack.rows, count = rows - p->pack.n_spans;
    for (size_t r = 0; r < rows; r++) /* wanted marks the last row of a text */
        target[r] = p->wanted[r] ? MR_LOSS_IGNORE : p->ids[r + 1];
    const float *out = mr_decoder_forward_f32(f->run, f->values, &p->pack, NULL);
    const double sum = mr_decoder_next_token_f32(f->run, f->values, out, target, rows,
                                                 1 / (float)count, d_out, f->gradients);
    mr_decoder_backward_f32(f->run, f->values, d_out, f->gradients, NULL);
    return sum / (double)count;
}

static double list_loss(fixture *f, float *margin)
{
    const reference_pack *p = &f->list;
    const size_t n = p->n_wanted / p->copies;
    float d_margin[MAX_SPANS], d_out[MAX_SPANS * MAX_WIDTH];
    double loss = 0;
    const float *out = mr_decoder_forward_f32(f->run, f->values, &p->pack, f->vectors);
    mr_decoder_margins_f32(f->run, f->values, out, p->n_wanted, YES, NO, margin);
    for (size_t i = 0; i < p->copies; i++)
        loss += mr_loss_listwise(margin + i * n, f->gain, n, d_margin + i * n);
    for (size_t i = 0; i < p->n_wanted; i++)
        d_margin[i] /= (float)p->copies;
    mr_decoder_margins_back_f32(f->run, f->values, out, p->n_wanted, YES, NO, d_margin, d_out,
                                f->gradients);
    mr_decoder_backward_f32(f->run, f->values, d_out, f->gradients, f->d_vectors);
    return loss / (double)p->copies;
}

/* Texts 2 i and 2 i + 1 are a pair; both directions. */
static double pairs_loss(fixture *f)
{
    const reference_pack *p = &f->pairs;
    const mr_ops_f32 *ops = f->ops;
    const size_t C = (size_t)f->layout.config.C, n = p->n_wanted / 2, ld = 2 * C;
    float u[2 * MAX_PAIRS * MAX_WIDTH], du[2 * MAX_PAIRS * MAX_WIDTH], length[2 * MAX_PAIRS];
    float logits[MAX_PAIRS * MAX_PAIRS], turned[MAX_PAIRS * MAX_PAIRS];
    int32_t target[MAX_PAIRS];
    const float inverse = (float)(1 / TEMPERATURE);
    assert_true(n > 0 && n <= MAX_PAIRS && p->n_wanted == 2 * n);
    const float *out = mr_decoder_forward_f32(f->run, f->values, &p->pack, NULL);
    ops->normalise(u, C, length, out, C, 2 * n, C);
    ops->gemm(false, true, n, n, C, inverse, u, ld, u + C, ld, 0, logits, n);
    for (size_t i = 0; i < n; i++) {
        target[i] = (int32_t)i;
        for (size_t j = 0; j < n; j++)
            turned[j * n + i] = logits[i * n + j];
    }
    double loss = mr_loss_cross_entropy(logits, target, n, n, logits);
    loss += mr_loss_cross_entropy(turned, target, n, n, turned);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            logits[i * n + j] += turned[j * n + i];
    ops->gemm(false, false, n, C, n, inverse / 2, logits, n, u + C, ld, 0, du, ld);
    ops->gemm(true, false, n, C, n, inverse / 2, logits, n, u, ld, 0, du + C, ld);
    ops->normalise_back(du, C, du, C, u, C, length, 2 * n, C);
    mr_decoder_backward_f32(f->run, f->values, du, f->gradients, NULL);
    return loss / 2;
}

/* ---- Comparing ------------------------------------------------------------------------------- */

static void check_number(const fixture *f, const char *name, double got, double want, double bound)
{
    if (!(fabs(got - want) <= bound * fabs(want)))
        fail_msg("%s (%s): %s is %.9g, expected %.9g within %g of it", f->folder, f->ops->name,
                 name, got, want, bound);
}

static void check_tensor(const fixture *f, const char *name, const float *got, size_t n,
                         double bound)
{
    size_t count, worst = 0;
    float *want = test_reference_floats(f->reference, name, &count);
    assert_int_equal(count, n);
    const double error = test_relative_error(got, want, n);
    for (size_t i = 0; i < n; i++)
        if (fabs((double)got[i] - (double)want[i]) > fabs((double)got[worst] - (double)want[worst]))
            worst = i;
    if (!(error <= bound))
        fail_msg("%s (%s): %s is off by %.3g of its largest value, at most %g allowed; "
                 "[%zu] is %.9g, expected %.9g",
                 f->folder, f->ops->name, name, error, bound, worst, (double)got[worst],
                 (double)want[worst]);
    free(want);
}

/* Weights that PyTorch gives no gradient must have none here; all that it gives are looked at. */
static void check_gradients(const fixture *f, const char *loss)
{
    char name[160], prefix[64];
    size_t compared = 0, there = 0;
    snprintf(prefix, sizeof prefix, "%s.gradient.", loss);
    for (size_t i = 0; i < f->weights.n; i++) {
        const mr_weight *weight = &f->weights.weight[i];
        const float *got = f->gradients + weight->offset;
        snprintf(name, sizeof name, "%s%s", prefix, weight->name);
        if (mr_safetensors_find(f->reference, name)) {
            check_tensor(f, name, got, weight->n, GRADIENT_BOUND);
            compared++;
            continue;
        }
        for (size_t k = 0; k < weight->n; k++)
            if (got[k] != 0)
                fail_msg("%s (%s): %s[%zu] is %g, expected none", f->folder, f->ops->name, name, k,
                         (double)got[k]);
    }
    for (size_t i = 0; i < mr_safetensors_count(f->reference); i++) {
        const char *key = mr_safetensors_at(f->reference, i)->name;
        there += strncmp(key, prefix, strlen(prefix)) == 0 && !strstr(key, ".vectors");
    }
    assert_true(compared > 0);
    assert_int_equal(compared, there);
}

static void check_loss(const fixture *f, const char *name, double got)
{
    double want;
    read_doubles(f, name, &want, 1);
    check_number(f, name, got, want, LOSS_BOUND);
}

/* ---- Tests ----------------------------------------------------------------------------------- */

/* body for every folder and every set of operations. */
static void for_all(size_t copies, void (*body)(fixture *f))
{
    for (size_t i = 0; i < N_FOLDERS; i++) {
        for (size_t s = 0; s < n_sets; s++) {
            fixture f;
            set_up(&f, folders[i], sets[s], copies);
            body(&f);
            tear_down(&f);
        }
    }
}

static void check_next_token(fixture *f)
{
    check_loss(f, "next_token.loss", next_token_loss(f));
    check_gradients(f, "next_token");
}

static void next_tokens_of_ragged_texts_are_learnt_as_pytorch_does(void **state)
{
    (void)state;
    for_all(1, check_next_token);
}

static void check_list(fixture *f)
{
    const size_t copies = f->list.copies, n = f->list.n_wanted / copies;
    const size_t width = f->list.n_vectors / copies * (size_t)f->layout.config.C;
    float margin[MAX_SPANS];
    check_loss(f, "list.loss", list_loss(f, margin));
    check_gradients(f, "list");
    for (size_t i = 0; i < copies * width; i++)
        f->d_vectors[i] *= (float)copies;
    for (size_t i = 0; i < copies; i++) {
        check_tensor(f, "list.margins", margin + i * n, n, LOSS_BOUND);
        check_tensor(f, "list.gradient.vectors", f->d_vectors + i * width, width, GRADIENT_BOUND);
    }
}

static void a_list_behind_a_shared_prefix_is_learnt_as_its_candidates_one_by_one(void **state)
{
    (void)state;
    for_all(1, check_list);
}

static void check_pairs(fixture *f)
{
    check_loss(f, "pairs.loss", pairs_loss(f));
    check_gradients(f, "pairs");
}

static void pairs_are_learnt_as_pytorch_does(void **state)
{
    (void)state;
    for_all(1, check_pairs);
}

/* Both in one buffer: what accumulating over batches relies on. */
static void check_sum(fixture *f)
{
    const size_t n = f->weights.total;
    float margin[MAX_SPANS];
    float *first = calloc(n, sizeof *first), *second = calloc(n, sizeof *second);
    assert_true(first && second);
    next_token_loss(f);
    memcpy(first, f->gradients, n * sizeof *first);
    memset(f->gradients, 0, n * sizeof *f->gradients);
    list_loss(f, margin);
    memcpy(second, f->gradients, n * sizeof *second);
    next_token_loss(f);
    for (size_t i = 0; i < n; i++)
        second[i] += first[i];
    assert_floats_near(f->gradients, second, n, 1e-6);
    free(first);
    free(second);
}

static void gradients_of_two_losses_add_up(void **state)
{
    (void)state;
    for_all(1, check_sum);
}

static void check_both(fixture *f)
{
    check_next_token(f);
    memset(f->gradients, 0, f->weights.total * sizeof *f->gradients);
    check_list(f);
}

static void many_texts_and_lists_in_one_pack_have_the_same_mean(void **state)
{
    (void)state;
    for_all(COPIES, check_both);
}

/* The loss and gradients of all but the last of MAX_ROWS tokens, in two spans when there is a
 * prefix. */
static double long_text(fixture *f, size_t prefix, float *gradients)
{
    static float d_out[MAX_ROWS * MAX_WIDTH];
    const mr_span spans[] = {{0, prefix ? prefix : MAX_ROWS, -1}, {prefix, MAX_ROWS - prefix, 0}};
    int32_t ids[MAX_ROWS], target[MAX_ROWS];
    const mr_pack pack = {ids, MAX_ROWS, spans, prefix ? 2 : 1, NULL};
    size_t n_vectors, n_wanted;
    mr_error err = {0};
    for (size_t r = 0; r < MAX_ROWS; r++)
        ids[r] = (int32_t)((r * r + r / 5) % (size_t)f->layout.config.V);
    for (size_t r = 0; r < MAX_ROWS; r++)
        target[r] = r + 1 < MAX_ROWS ? ids[r + 1] : MR_LOSS_IGNORE;
    assert_status(mr_pack_check(&pack, &f->layout.config, &n_vectors, &n_wanted, &err), MR_OK,
                  &err);
    const float *out = mr_decoder_forward_f32(f->run, f->values, &pack, NULL);
    const double loss = mr_decoder_next_token_f32(f->run, f->values, out, target, MAX_ROWS,
                                                  1 / (float)MAX_ROWS, d_out, gradients);
    mr_decoder_backward_f32(f->run, f->values, d_out, gradients, NULL);
    return loss / MAX_ROWS;
}

static void check_long_text(fixture *f)
{
    static const size_t prefixes[] = {1, 100, 128, 300, MAX_ROWS - 1};
    const double whole = long_text(f, 0, f->gradients);
    float *gradients = calloc(f->weights.total, sizeof *gradients);
    assert_non_null(gradients);
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        memset(gradients, 0, f->weights.total * sizeof *gradients);
        check_number(f, "a text in two spans", long_text(f, prefixes[i], gradients), whole,
                     LOSS_BOUND);
        for (size_t w = 0; w < f->weights.n; w++) {
            const mr_weight *weight = &f->weights.weight[w];
            assert_floats_near(gradients + weight->offset, f->gradients + weight->offset, weight->n,
                               GRADIENT_BOUND);
        }
    }
    free(gradients);
}

static void a_long_text_may_be_cut_into_a_prefix_and_what_follows(void **state)
{
    (void)state;
    for_all(1, check_long_text);
}

static void check_steps(fixture *f)
{
    const size_t n = f->weights.n;
    double losses[STEPS], norms[STEPS];
    float margin[MAX_SPANS];
    mr_parameter *p = calloc(n, sizeof *p);
    float *moment1 = calloc(f->weights.total, sizeof *moment1);
    float *moment2 = calloc(f->weights.total, sizeof *moment2);
    assert_true(p && moment1 && moment2);
    read_doubles(f, "steps.loss", losses, STEPS);
    read_doubles(f, "steps.norm", norms, STEPS);
    for (size_t i = 0; i < n; i++) {
        const mr_weight *weight = &f->weights.weight[i];
        const size_t at = weight->offset;
        p[i] = (mr_parameter){f->values + at, f->gradients + at, moment1 + at,
                              moment2 + at,   weight->n,         weight->kind == MR_WEIGHT_MATRIX};
    }
    for (int step = 0; step < STEPS; step++) {
        char name[32];
        memset(f->gradients, 0, f->weights.total * sizeof *f->gradients);
        const double loss = step % 2 == 0 ? next_token_loss(f) : list_loss(f, margin);
        const double norm = mr_gradient_norm(p, n);
        snprintf(name, sizeof name, "loss of step %d", step + 1);
        check_number(f, name, loss, losses[step], STEPS_LOSS_BOUND);
        snprintf(name, sizeof name, "norm of step %d", step + 1);
        check_number(f, name, norm, norms[step], STEPS_NORM_BOUND);
        mr_adamw_step(&adamw, step + 1, RATE, mr_clip_scale(norm, 1.0), p, n, NULL);
    }
    for (size_t i = 0; i < n; i++) {
        char name[160];
        snprintf(name, sizeof name, "after.%s", f->weights.weight[i].name);
        check_tensor(f, name, p[i].value, p[i].n, STEPS_WEIGHT_BOUND);
    }
    free(p);
    free(moment1);
    free(moment2);
}

static void twenty_steps_over_texts_and_lists_follow_pytorch(void **state)
{
    (void)state;
    for_all(1, check_steps);
}

int main(void)
{
    sets[n_sets++] = &mr_ops_generic_f32;
    if (mr_ops_select_f32() != sets[0])
        sets[n_sets++] = mr_ops_select_f32();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(next_tokens_of_ragged_texts_are_learnt_as_pytorch_does),
        cmocka_unit_test(a_list_behind_a_shared_prefix_is_learnt_as_its_candidates_one_by_one),
        cmocka_unit_test(pairs_are_learnt_as_pytorch_does),
        cmocka_unit_test(gradients_of_two_losses_add_up),
        cmocka_unit_test(many_texts_and_lists_in_one_pack_have_the_same_mean),
        cmocka_unit_test(a_long_text_may_be_cut_into_a_prefix_and_what_follows),
        cmocka_unit_test(twenty_steps_over_texts_and_lists_follow_pytorch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

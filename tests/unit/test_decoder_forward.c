/* test_decoder_forward.c - the decoder that learns is the decoder that serves: the same states from
 * the same folder, and what training saves is what the engine opens.
 *
 * Folders: data/models, see data/README.md.
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

#include "core/file.h"
#include "ranker/training/decoder.h"
#include "tests/engine_support.h"
#include "tests/support.h"
#include "tests/vision_support.h"

#define BOUND     1e-5
#define MAX_ROWS  256
#define MAX_SPANS 8

static const char *const cases[] = {
    "llama-mha-untied", "llama-gqa-tied", "llama3-rope-scaling", "llama3-rope-parameters",
    "llama-headdim",    "llama-bias",     "llama-f16",           "qwen2",
    "qwen2-untied",     "qwen3",          "qwen3-untied",        "qwen3-sharded",
    "qwen3-bf16",       "qwen3-noprefix", "qwen3-long",
};
#define N_CASES (sizeof cases / sizeof *cases)

static const mr_ops_f32 *sets[2];
static size_t n_sets;

/* A folder as training and as serving hold it. */
typedef struct {
    char folder[128];
    mr_model *model;
    mr_weights weights;
    mr_decoder_layout layout;
    float *values; /* owned */
} fixture;

static void load(fixture *f)
{
    mr_error err = {0};
    assert_status(mr_weights_load(&f->weights, &f->weights.part[0], f->folder, f->values, &err),
                  MR_OK, &err);
}

static void set_up(fixture *f, const char *name)
{
    mr_error err = {0};
    mr_model_config config;
    *f = (fixture){0};
    snprintf(f->folder, sizeof f->folder, "data/models/%s", name);
    f->model = test_model_open(f->folder, MR_GEMM_SCORING, NULL);
    assert_status(mr_model_config_load(&config, test_path(f->folder, "config.json"), &err), MR_OK,
                  &err);
    mr_weights_begin_part(&f->weights, "llm");
    assert_status(mr_decoder_add(&f->layout, &config, false, &f->weights, &err), MR_OK, &err);
    f->values = calloc(f->weights.total, sizeof *f->values);
    assert_non_null(f->values);
    load(f);
}

static void tear_down(fixture *f)
{
    mr_model_close(f->model);
    mr_weights_done(&f->weights);
    free(f->values);
}

/* ---- States ---------------------------------------------------------------------------------- */

/* For free(): [wanted rows][C]. */
static float *trained_states(const fixture *f, const mr_ops_f32 *ops, const mr_pack *pack,
                             const float *vectors, size_t n_vectors, size_t n_wanted)
{
    const size_t C = (size_t)f->layout.config.C;
    mr_decoder_f32 *run = NULL;
    mr_error err = {0};
    size_t vectors_of_pack, wanted_of_pack;
    assert_status(mr_pack_check(pack, &f->layout.config, &vectors_of_pack, &wanted_of_pack, &err),
                  MR_OK, &err);
    assert_int_equal(vectors_of_pack, n_vectors);
    assert_int_equal(wanted_of_pack, n_wanted);
    assert_status(mr_decoder_new_f32(&run, &f->layout, &f->weights, ops, pack->rows, &err), MR_OK,
                  &err);
    float *out = malloc(n_wanted * C * sizeof *out);
    assert_non_null(out);
    memcpy(out, mr_decoder_forward_f32(run, f->values, pack, vectors), n_wanted * C * sizeof *out);
    mr_decoder_free_f32(run);
    return out;
}

static float *served_states(const mr_model *model, const mr_batch *batch)
{
    mr_error err = {0};
    float *out = malloc(mr_batch_rows(batch) * (size_t)model->config.C * sizeof *out);
    mr_session *session = test_session_new(model, MAX_ROWS, MAX_ROWS, 0, NULL);
    assert_non_null(out);
    assert_status(mr_session_run(session, batch, out, &err), MR_OK, &err);
    mr_session_free(session);
    return out;
}

static void check_states(const char *case_name, const char *set, const char *what, const float *got,
                         const float *want, size_t n)
{
    const double error = test_relative_error(got, want, n);
    size_t worst = 0;
    for (size_t i = 0; i < n; i++)
        if (fabs((double)got[i] - (double)want[i]) > fabs((double)got[worst] - (double)want[worst]))
            worst = i;
    if (!(error <= BOUND))
        fail_msg("%s (%s): %s is off by %.3g of the largest value, at most %g allowed; [%zu] is "
                 "%.9g, expected %.9g",
                 case_name, set, what, error, BOUND, worst, (double)got[worst],
                 (double)want[worst]);
}

static void a_text_has_the_states_of_a_session_and_of_transformers(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        fixture f;
        set_up(&f, cases[i]);
        const size_t C = (size_t)f.layout.config.C;
        size_t n, n_last;
        char name[32];
        mr_safetensors *reference =
            test_reference_open(test_path(f.folder, "reference.safetensors"));
        int32_t *ids = test_reference_ids(reference, "input_ids", &n);
        snprintf(name, sizeof name, "hidden_states.%d", f.layout.config.L);
        float *last = test_reference_floats(reference, name, &n_last);
        assert_true(n <= MAX_ROWS && n_last == n * C);
        const mr_input text = {.ids = ids, .n = n};
        const mr_batch batch = {.prefix = &text, .prefix_want = MR_WANT_ALL};
        float *served = served_states(f.model, &batch);
        const mr_span span = {0, n, -1};
        const mr_pack pack = {ids, n, &span, 1, NULL};
        for (size_t s = 0; s < n_sets; s++) {
            float *trained = trained_states(&f, sets[s], &pack, NULL, 0, n);
            check_states(cases[i], sets[s]->name, "the session's states", trained, served, n * C);
            check_states(cases[i], sets[s]->name, name, trained, last, n * C);
            free(trained);
        }
        free(served);
        free(last);
        free(ids);
        mr_safetensors_close(reference);
        tear_down(&f);
    }
}

/* A prefix and its suffixes, for the engine and as one pack. */
typedef struct {
    mr_input prefix, suffix[MAX_SPANS];
    size_t n_suffixes;
    mr_pack pack;
    mr_span span[MAX_SPANS + 1];
    int32_t ids[MAX_ROWS];
    bool wanted[MAX_ROWS];
    float *vectors; /* owned */
    size_t n_vectors, n_wanted;
} list;

static void append(list *l, const mr_input *input, int64_t parent, size_t n_last, size_t C)
{
    const size_t at = l->pack.rows;
    assert_true(at + input->n <= MAX_ROWS && MR_ID_EMBED == MR_ROW_VECTOR);
    memcpy(l->ids + at, input->ids, input->n * sizeof *l->ids);
    memcpy(l->vectors + l->n_vectors * C, input->embeds, input->n_embeds * C * sizeof(float));
    l->n_vectors += input->n_embeds;
    for (size_t r = input->n - (n_last < input->n ? n_last : input->n); r < input->n; r++) {
        l->wanted[at + r] = true;
        l->n_wanted++;
    }
    l->span[l->pack.n_spans++] = (mr_span){at, input->n, parent};
    l->pack.rows += input->n;
}

/* Suffixes of 1, 4, 9 and 2 rows; some rows are vectors. */
static void draw_list(list *l, const mr_model *model, size_t prefix, size_t n_last)
{
    static const size_t rows[] = {1, 4, 9, 2};
    const size_t C = (size_t)model->config.C;
    mr_rng rng = mr_rng_seed(11);
    *l = (list){.n_suffixes = sizeof rows / sizeof *rows};
    l->vectors = calloc(MAX_ROWS * C, sizeof *l->vectors);
    assert_non_null(l->vectors);
    l->pack = (mr_pack){.ids = l->ids, .span = l->span, .wanted = l->wanted};
    l->prefix = test_input_new(&rng, model, prefix, 3);
    append(l, &l->prefix, -1, 0, C);
    for (size_t s = 0; s < l->n_suffixes; s++) {
        l->suffix[s] = test_input_new(&rng, model, rows[s], s % 2 ? 2 : 0);
        append(l, &l->suffix[s], 0, n_last, C);
    }
}

static void free_list(list *l)
{
    test_input_free(&l->prefix);
    for (size_t s = 0; s < l->n_suffixes; s++)
        test_input_free(&l->suffix[s]);
    free(l->vectors);
}

/* The second prefix is longer than attention works on at a time. */
static void a_list_has_the_states_of_a_session_with_suffixes(void **state)
{
    (void)state;
    static const struct {
        size_t prefix, n_last;
    } rows[] = {{11, 1}, {150, 3}};
    for (size_t i = 0; i < N_CASES * 2; i++) {
        const char *name = cases[i / 2];
        const size_t n_last = rows[i % 2].n_last;
        fixture f;
        list l;
        set_up(&f, name);
        draw_list(&l, f.model, rows[i % 2].prefix, n_last);
        const mr_batch batch = {.prefix = &l.prefix,
                                .suffixes = l.suffix,
                                .n_suffixes = l.n_suffixes,
                                .suffix_want = MR_WANT_LAST,
                                .n_last = n_last};
        assert_int_equal(mr_batch_rows(&batch), l.n_wanted);
        float *served = served_states(f.model, &batch);
        for (size_t s = 0; s < n_sets; s++) {
            float *trained =
                trained_states(&f, sets[s], &l.pack, l.vectors, l.n_vectors, l.n_wanted);
            check_states(name, sets[s]->name, "a list", trained, served,
                         l.n_wanted * (size_t)f.layout.config.C);
            free(trained);
        }
        free(served);
        free_list(&l);
        tear_down(&f);
    }
}

/* ---- Loading --------------------------------------------------------------------------------- */

/* By the formats' definitions, apart from engine/dtype.c. */
static float widen(const mr_tensor *tensor, size_t i)
{
    const unsigned char *at =
        (const unsigned char *)tensor->data + i * mr_dtype_size(tensor->dtype);
    float value;
    uint32_t bits;
    if (tensor->dtype == MR_DTYPE_F32) {
        memcpy(&value, at, sizeof value);
    } else if (tensor->dtype == MR_DTYPE_BF16) {
        bits = (uint32_t)at[0] << 16 | (uint32_t)at[1] << 24;
        memcpy(&value, &bits, sizeof value);
    } else {
        const int half = at[0] | at[1] << 8, exponent = half >> 10 & 31, fraction = half & 1023;
        value = exponent == 0 ? ldexpf((float)fraction, -24)
                              : ldexpf((float)(fraction + 1024), exponent - 25);
        value = half & 0x8000 ? -value : value;
    }
    return value;
}

static const mr_tensor *find_either(const mr_safetensors *file, const char *name)
{
    const mr_tensor *tensor = mr_safetensors_find(file, name);
    return tensor ? tensor : test_reference_find(file, name + strlen("model."));
}

static void loading_widens_every_file_exactly_and_leaves_other_parts_alone(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        fixture f;
        set_up(&f, cases[i]);
        const size_t before = f.weights.total;
        mr_decoder_layout other;
        mr_error err = {0};
        mr_weights_begin_part(&f.weights, "encoder");
        assert_status(mr_decoder_add(&other, &f.layout.config, true, &f.weights, &err), MR_OK,
                      &err);
        float *values = calloc(f.weights.total, sizeof *values);
        assert_non_null(values);
        assert_status(mr_weights_load(&f.weights, &f.weights.part[0], f.folder, values, &err),
                      MR_OK, &err);
        mr_safetensors *file = test_reference_open(f.folder);
        assert_int_equal(f.weights.part[0].n, mr_safetensors_count(file));
        for (size_t w = 0; w < f.weights.part[0].n; w++) {
            const mr_weight *weight = &f.weights.weight[w];
            const mr_tensor *tensor = find_either(file, weight->name);
            for (size_t k = 0; k < weight->n; k++)
                if (values[weight->offset + k] != widen(tensor, k))
                    fail_msg("%s: %s[%zu] is %.9g, expected %.9g", f.folder, weight->name, k,
                             (double)values[weight->offset + k], (double)widen(tensor, k));
        }
        for (size_t k = before; k < f.weights.total; k++)
            assert_true(values[k] == 0);
        /* An encoder of the same file: without the head. */
        assert_status(mr_weights_load(&f.weights, &f.weights.part[1], f.folder, values, &err),
                      MR_OK, &err);
        assert_memory_equal(values, values + before, (f.weights.total - before) * sizeof *values);
        mr_safetensors_close(file);
        free(values);
        tear_down(&f);
    }
}

/* A file of one tensor in a form that test_variant does not make. */
static void write_with(const char *path, const fixture *f, const char *name, mr_dtype dtype,
                       float first)
{
    mr_error err = {0};
    mr_safetensors *file = test_reference_open(f->folder);
    const size_t n = mr_safetensors_count(file);
    mr_tensor *tensors = calloc(n, sizeof *tensors);
    assert_non_null(tensors);
    void *changed = NULL;
    for (size_t i = 0; i < n; i++) {
        tensors[i] = *mr_safetensors_at(file, i);
        if (strcmp(tensors[i].name, name) != 0)
            continue;
        changed = malloc(tensors[i].bytes);
        assert_non_null(changed);
        memcpy(changed, tensors[i].data, tensors[i].bytes);
        memcpy(changed, &first, sizeof first);
        tensors[i].data = changed;
        tensors[i].dtype = dtype;
    }
    assert_non_null(changed);
    assert_status(mr_safetensors_write(path, tensors, n, NULL, &err), MR_OK, &err);
    free(changed);
    free(tensors);
    mr_safetensors_close(file);
}

static void check_refused(const fixture *f, const char *path, mr_status status,
                          const char *const *messages, size_t n)
{
    mr_error err = {0};
    float *values = calloc(f->weights.total, sizeof *values);
    assert_non_null(values);
    assert_status(mr_weights_load(&f->weights, &f->weights.part[0], path, values, &err), status,
                  &err);
    for (size_t i = 0; i < n && messages[i]; i++)
        assert_contains(err.message, messages[i]);
    free(values);
}

#define Q_PROJ "model.layers.1.self_attn.q_proj.weight"

static void a_folder_that_does_not_fit_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *model;
        test_variant variant;
        mr_status status;
        const char *messages[3];
    } rows[] = {
        {"qwen3", {.drop = Q_PROJ}, MR_NOT_FOUND, {"'" Q_PROJ "' is missing"}},
        {"qwen3", {.drop = "model.embed_tokens.weight"}, MR_NOT_FOUND, {"embed_tokens.weight"}},
        {"qwen3", {.drop = "model.layers.0.self_attn.k_norm.weight"}, MR_NOT_FOUND, {"k_norm"}},
        {"qwen2", {.drop = "model.layers.1.self_attn.v_proj.bias"}, MR_NOT_FOUND, {"v_proj.bias"}},
        {"llama-bias", {.drop = "model.layers.0.mlp.down_proj.bias"}, MR_NOT_FOUND, {"down_proj"}},
        {"qwen2-untied", {.drop = "lm_head.weight"}, MR_NOT_FOUND, {"'lm_head.weight' is missing"}},
        {"qwen3-sharded", {.drop = Q_PROJ}, MR_NOT_FOUND, {"'" Q_PROJ "' is missing"}},
        {"qwen3", {.transpose = Q_PROJ}, MR_MISMATCH, {Q_PROJ, "[32, 64], expected [64, 32]"}},
        {"qwen3", {.transpose = "model.embed_tokens.weight"}, MR_MISMATCH, {"expected [160, 32]"}},
        {"qwen3", {.spoil = Q_PROJ}, MR_CORRUPT, {Q_PROJ, "not finite"}},
        {"qwen3", {.spoil = "model.norm.weight"}, MR_CORRUPT, {"model.norm.weight", "not finite"}},
        {"qwen3-bf16", {.spoil = Q_PROJ}, MR_CORRUPT, {Q_PROJ, "not finite"}},
        {"llama-f16", {.spoil = "lm_head.weight"}, MR_CORRUPT, {"lm_head.weight", "not finite"}},
        {"qwen3",
         {.prefix = "model.", .new_prefix = "decoder."},
         MR_NOT_FOUND,
         {"'model.embed_tokens.weight' is missing"}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *folder = test_folder_new();
        fixture f;
        set_up(&f, rows[i].model);
        test_variant_write(folder, f.folder, &rows[i].variant);
        check_refused(&f, folder, rows[i].status, rows[i].messages, 3);
        tear_down(&f);
        test_folder_free(folder);
    }
}

static void other_types_infinities_and_cut_files_are_refused(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    const char *path = test_path(folder, "model.safetensors");
    fixture f;
    size_t len;
    set_up(&f, "qwen3");
    check_refused(&f, path, MR_NOT_FOUND, (const char *const[]){"model.safetensors"}, 1);
    check_refused(&f, folder, MR_NOT_FOUND, (const char *const[]){"model.safetensors"}, 1);
    write_with(path, &f, Q_PROJ, MR_DTYPE_F32, -INFINITY);
    check_refused(&f, folder, MR_CORRUPT, (const char *const[]){Q_PROJ, "not finite"}, 2);
    write_with(path, &f, Q_PROJ, MR_DTYPE_I32, 1);
    check_refused(&f, folder, MR_MISMATCH, (const char *const[]){"is I32, expected F32"}, 1);
    char *whole = test_file_read(test_path(f.folder, "model.safetensors"), &len);
    /* Every cut of the header's length and some beyond. */
    for (size_t cut = 0; cut < len; cut += cut < 64 ? 1 : len / 41) {
        test_file_write(path, whole, cut);
        check_refused(&f, folder, MR_CORRUPT, (const char *const[]){"model.safetensors"}, 1);
    }
    test_file_write(path, whole, len);
    check_refused(&f, folder, MR_OK, NULL, 0);
    free(whole);
    tear_down(&f);
    test_folder_free(folder);
}

/* ---- Saving ---------------------------------------------------------------------------------- */

/* To `bits` significant bits, ties to even, no finer than 2^lowest. */
static float rounded(float value, int bits, int lowest)
{
    int exponent;
    frexpf(value, &exponent);
    const int step = exponent - bits > lowest ? exponent - bits : lowest;
    return (float)ldexp(nearbyint(ldexp((double)value, -step)), step);
}

static const struct {
    mr_dtype dtype;
    int bits, lowest;
} stored[] = {{MR_DTYPE_F32, 24, -149}, {MR_DTYPE_BF16, 8, -133}, {MR_DTYPE_F16, 11, -24}};
#define N_STORED (sizeof stored / sizeof *stored)

/* The engine's own view: norms, biases and matrices as its layers hold them. */
static void check_bound(const mr_model *model, const fixture *f)
{
    const size_t C = (size_t)model->config.C;
    float *row = malloc(C * sizeof *row);
    assert_non_null(row);
    for (int32_t id = 0; id < model->config.V; id++) {
        mr_model_embed(model, id, row);
        assert_memory_equal(row, f->values + (size_t)id * C, C * sizeof *row);
    }
    free(row);
    for (int l = 0; l < model->config.L; l++) {
        const mr_decoder_layer *index = &f->layout.layer[l];
        const mr_layer *layer = &model->layers[l];
        const struct {
            size_t weight;
            const float *bound;
        } vectors[] = {
            {index->attention_norm, layer->attention_norm},
            {index->mlp_norm, layer->mlp_norm},
            {index->q_norm, layer->q_norm},
            {index->k_norm, layer->k_norm},
            {index->qkv_bias, layer->q.bias},
            {index->o_bias, layer->o.bias},
            {index->gate_up_bias, layer->gate.bias},
            {index->down_bias, layer->down.bias},
        };
        for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
            assert_int_equal(vectors[i].bound == NULL, vectors[i].weight == MR_NO_WEIGHT);
            if (vectors[i].bound)
                assert_memory_equal(vectors[i].bound,
                                    f->values + f->weights.weight[vectors[i].weight].offset,
                                    f->weights.weight[vectors[i].weight].n * sizeof(float));
        }
    }
}

/* f's values become those that the file holds. */
static void check_saved(fixture *f, const char *case_name, size_t type)
{
    static const char *const metadata[] = {"format", "pt", NULL};
    const mr_weights_part *part = &f->weights.part[0];
    char *folder = test_folder_new();
    mr_error err = {0};
    assert_status(mr_weights_save(&f->weights, part, test_path(folder, "model.safetensors"),
                                  stored[type].dtype, f->values, metadata, &err),
                  MR_OK, &err);
    assert_status(
        mr_file_copy(test_path(f->folder, "config.json"), test_path(folder, "config.json"), &err),
        MR_OK, &err);
    mr_model *model = test_model_open(folder, MR_GEMM_SCORING, NULL);
    assert_string_equal(mr_safetensors_metadata(model->file, "format"), "pt");
    assert_int_equal(mr_safetensors_count(model->file), part->n);
    for (size_t w = 0; w < part->n; w++) {
        const mr_weight *weight = &f->weights.weight[w];
        const mr_tensor *tensor = test_reference_find(model->file, weight->name);
        assert_int_equal(tensor->dtype, stored[type].dtype);
        for (size_t k = 0; k < weight->n; k++) {
            const float value = f->values[weight->offset + k];
            const float want = rounded(value, stored[type].bits, stored[type].lowest);
            if (widen(tensor, k) != want)
                fail_msg("%s as %s: %s[%zu] %.9g became %.9g, expected %.9g", case_name,
                         mr_dtype_name(stored[type].dtype), weight->name, k, (double)value,
                         (double)widen(tensor, k), (double)want);
            f->values[weight->offset + k] = want;
        }
    }
    check_bound(model, f);

    list l;
    draw_list(&l, model, 11, 1);
    const mr_batch batch = {.prefix = &l.prefix,
                            .suffixes = l.suffix,
                            .n_suffixes = l.n_suffixes,
                            .suffix_want = MR_WANT_LAST,
                            .n_last = 1};
    float *served = served_states(model, &batch);
    float *trained =
        trained_states(f, sets[n_sets - 1], &l.pack, l.vectors, l.n_vectors, l.n_wanted);
    check_states(case_name, mr_dtype_name(stored[type].dtype), "what was saved", trained, served,
                 l.n_wanted * (size_t)f->layout.config.C);
    free(trained);
    free(served);
    free_list(&l);
    mr_model_close(model);
    test_folder_free(folder);
}

static void what_is_saved_is_what_the_engine_opens(void **state)
{
    (void)state;
    /* Halfway between two values of bf16 or f16: down to even, up to even, and just beside. */
    static const float ties[] = {1.00390625f,       1.01171875f,      -1.00390625f, 1.00390637f,
                                 1.00048828125f,    1.00146484375f,   0x1.8p-24f,   0x1.8p-25f,
                                 0.99951171875002f, -0.000030517578f, 0.0f,         -0.0f};
    for (size_t i = 0; i < N_CASES; i++) {
        for (size_t type = 0; type < N_STORED; type++) {
            fixture f;
            set_up(&f, cases[i]);
            memcpy(f.values, ties, sizeof ties);
            check_saved(&f, cases[i], type);
            tear_down(&f);
        }
    }
}

static void a_part_that_cannot_be_saved_is_an_error(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    fixture f;
    mr_error err = {0};
    set_up(&f, "qwen3");
    assert_status(mr_weights_save(&f.weights, &f.weights.part[0],
                                  test_path(folder, "none/model.safetensors"), MR_DTYPE_F32,
                                  f.values, NULL, &err),
                  MR_NOT_FOUND, &err);
    assert_contains(err.message, "none/model.safetensors");
    tear_down(&f);
    test_folder_free(folder);
}

int main(void)
{
    sets[n_sets++] = &mr_ops_generic_f32;
    if (mr_ops_select_f32() != sets[0])
        sets[n_sets++] = mr_ops_select_f32();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_has_the_states_of_a_session_and_of_transformers),
        cmocka_unit_test(a_list_has_the_states_of_a_session_with_suffixes),
        cmocka_unit_test(loading_widens_every_file_exactly_and_leaves_other_parts_alone),
        cmocka_unit_test(a_folder_that_does_not_fit_is_refused_by_name),
        cmocka_unit_test(other_types_infinities_and_cut_files_are_refused),
        cmocka_unit_test(what_is_saved_is_what_the_engine_opens),
        cmocka_unit_test(a_part_that_cannot_be_saved_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_model.c - binding weights by name: every family, every dtype, every way to be wrong.
 *
 * Models are random ones in temporary folders; a test changes the list of tensors, writes it again
 * and looks at what opening it says.
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

#include "core/file.h"
#include "engine/model.h"
#include "engine/model_layout.h"
#include "engine/untrained.h"
#include "tests/support.h"

enum { MOST = 128 };

/* Families and options; all have L 2, C 32, H 4, F 48. */
static const struct {
    const char *what;
    mr_model_config config;
} kinds[] = {
    {"llama", {.family = MR_FAMILY_LLAMA, .K = 4, .D = 8, .tied = true}},
    {"llama with biases",
     {.family = MR_FAMILY_LLAMA,
      .K = 2,
      .D = 8,
      .qkv_bias = true,
      .o_bias = true,
      .mlp_bias = true}},
    {"qwen2", {.family = MR_FAMILY_QWEN2, .K = 2, .D = 8, .qkv_bias = true, .tied = true}},
    {"qwen3", {.family = MR_FAMILY_QWEN3, .K = 2, .D = 16, .qk_norm = true}},
    {"qwen3 with biases",
     {.family = MR_FAMILY_QWEN3,
      .K = 1,
      .D = 16,
      .qk_norm = true,
      .qkv_bias = true,
      .o_bias = true}},
};
#define N_KINDS (sizeof kinds / sizeof *kinds)

static mr_model_config config_of(size_t kind)
{
    mr_model_config c = kinds[kind].config;
    c.L = 2;
    c.C = 32;
    c.H = 4;
    c.F = 48;
    c.V = 130;
    c.rms_eps = 1e-6f;
    c.max_positions = 64;
    c.rope_theta = 10000;
    c.rope_factor = c.rope_low = c.rope_high = 1;
    c.bos_id = c.eos_id = -1;
    return c;
}

/* A model's tensors in memory, to be changed and written. */
typedef struct {
    char *folder;
    mr_model_config config;
    mr_safetensors *source;
    mr_tensor tensors[MOST];
    size_t n;
} fixture;

static fixture fixture_new(mr_model_config config, mr_dtype dtype)
{
    mr_error err = {0};
    fixture f = {.folder = test_folder_new(), .config = config};
    const mr_untrained_options opt = {
        .seed = 5, .deviation = 0.3, .norm_deviation = 0.2, .dtype = dtype};
    const char *from = test_path(f.folder, "source");
    assert_status(mr_untrained_write(from, &config, &opt, &err), MR_OK, &err);
    assert_status(mr_safetensors_open(&f.source, from, &err), MR_OK, &err);
    f.n = mr_safetensors_count(f.source);
    assert_true(f.n < MOST);
    for (size_t i = 0; i < f.n; i++)
        f.tensors[i] = *mr_safetensors_at(f.source, i);
    return f;
}

static void fixture_free(fixture *f)
{
    mr_safetensors_close(f->source);
    test_folder_free(f->folder);
}

static mr_tensor *tensor_of(fixture *f, const char *name)
{
    for (size_t i = 0; i < f->n; i++) {
        if (strcmp(f->tensors[i].name, name) == 0)
            return &f->tensors[i];
    }
    fail_msg("no tensor %s", name);
    return NULL;
}

static void drop(fixture *f, const char *name)
{
    *tensor_of(f, name) = f->tensors[f->n - 1];
    f->n--;
}

static void add(fixture *f, const char *name, const mr_tensor *like)
{
    f->tensors[f->n] = *like;
    f->tensors[f->n++].name = name;
}

static mr_status open_with(fixture *f, const mr_model_options *opt, mr_model **out, mr_error *err)
{
    const char *folder = test_path(f->folder, "changed");
    const char *source = test_path(f->folder, "source/config.json");
    size_t len;
    char *config = test_file_read(source, &len);
    assert_status(mr_file_make_folders(folder, err), MR_OK, err);
    test_file_write(test_path(folder, "config.json"), config, len);
    free(config);
    assert_status(
        mr_safetensors_write(test_path(folder, "model.safetensors"), f->tensors, f->n, NULL, err),
        MR_OK, err);
    return mr_model_open(out, folder, opt, err);
}

static mr_status open_changed(fixture *f, mr_model **out, mr_error *err)
{
    const mr_model_options opt = MR_MODEL_OPTIONS_DEFAULT;
    return open_with(f, &opt, out, err);
}

/* A vector of ours holds what the file holds, widened. */
static void assert_vector(const fixture *f, const char *name, const float *got)
{
    const mr_tensor *tensor = mr_safetensors_find(f->source, name);
    assert_non_null(tensor);
    float want[256];
    const size_t n = (size_t)tensor->shape[0];
    assert_true(n <= 256);
    mr_dtype_to_f32(want, tensor->data, tensor->dtype, n);
    assert_non_null(got);
    assert_memory_equal(got, want, n * sizeof *want);
}

static void every_family_binds_every_tensor(void **state)
{
    (void)state;
    static const mr_dtype dtypes[] = {MR_DTYPE_F32, MR_DTYPE_F16, MR_DTYPE_BF16};
    for (size_t k = 0; k < N_KINDS; k++) {
        for (size_t t = 0; t < 3; t++) {
            mr_error err = {0};
            mr_model *model = NULL;
            fixture f = fixture_new(config_of(k), dtypes[t]);
            const mr_model_options opt = MR_MODEL_OPTIONS_DEFAULT;
            assert_status(mr_model_open(&model, test_path(f.folder, "source"), &opt, &err), MR_OK,
                          &err);
            assert_vector(&f, "model.norm.weight", model->final_norm);
            for (int l = 0; l < f.config.L; l++) {
                for (size_t i = 0; i < MR_LAYER_SLOTS; i++) {
                    const mr_layer_slot *slot = &mr_layer_slots[i];
                    const bool there = mr_part_is_there(&f.config, slot->part);
                    const char *member = (const char *)&model->layers[l] + slot->offset;
                    const float *vector;
                    char name[128];
                    if (slot->linear) {
                        const mr_linear *linear = (const mr_linear *)member;
                        assert_int_equal(linear->N, mr_dim_value(&f.config, slot->rows));
                        assert_int_equal(linear->K, mr_dim_value(&f.config, slot->cols));
                        assert_int_equal(linear->weight.dtype, dtypes[t]);
                        snprintf(name, sizeof name, "model.layers.%d.%s.weight", l, slot->name);
                        assert_memory_equal(linear->weight.data,
                                            mr_safetensors_find(f.source, name)->data,
                                            linear->weight.bytes);
                        snprintf(name, sizeof name, "model.layers.%d.%s.bias", l, slot->name);
                        vector = linear->bias;
                    } else {
                        snprintf(name, sizeof name, "model.layers.%d.%s.weight", l, slot->name);
                        memcpy(&vector, member, sizeof vector);
                    }
                    if (there && !(slot->linear && slot->part == MR_PART_ALWAYS))
                        assert_vector(&f, name, vector);
                    else
                        assert_null(vector);
                }
            }
            assert_true(model->owned_bytes > 0);
            assert_true(mr_model_is_untrained(model));
            mr_model_close(model);
            fixture_free(&f);
        }
    }
    mr_model_close(NULL);
}

static void embedding_labels_and_logits_agree(void **state)
{
    (void)state;
    static const mr_dtype dtypes[] = {MR_DTYPE_F32, MR_DTYPE_F16, MR_DTYPE_BF16};
    for (size_t t = 0; t < 3; t++) {
        mr_error err = {0};
        mr_model *model = NULL;
        mr_pool *pool = NULL;
        fixture f = fixture_new(config_of(t + 1), dtypes[t]); /* tied and untied */
        assert_status(open_changed(&f, &model, &err), MR_OK, &err);
        assert_false(mr_model_is_untrained(model));
        assert_status(mr_pool_new(&pool, 2, &err), MR_OK, &err);

        enum { ROWS = 3, C = 32, V = 130 };
        float hidden[ROWS * C], row[C];
        static float logits[ROWS * V], alone[ROWS * V];
        int32_t ids[V];
        for (int r = 0; r < ROWS; r++)
            mr_model_embed(model, r == 0 ? 0 : r == 1 ? 77 : V - 1, hidden + r * C);
        mr_model_logits(model, pool, hidden, ROWS, logits);
        mr_model_logits(model, NULL, hidden, ROWS, alone);
        assert_memory_equal(logits, alone, sizeof logits);

        const mr_tensor *head = mr_safetensors_find(
            f.source, f.config.tied ? "model.embed_tokens.weight" : "lm_head.weight");
        for (int v = 0; v < V; v++)
            ids[v] = V - 1 - v;
        for (int r = 0; r < ROWS; r++) {
            float labels[V];
            mr_model_label_logits(model, hidden + r * C, ids, V, labels);
            for (int v = 0; v < V; v++) {
                double want = 0;
                mr_dtype_to_f32(row,
                                (const char *)head->data + (size_t)v * C * mr_dtype_size(dtypes[t]),
                                dtypes[t], C);
                for (int c = 0; c < C; c++)
                    want += (double)row[c] * (double)hidden[r * C + c];
                const float got = logits[r * V + v];
                if (!(fabs((double)got - want) < 1e-5))
                    fail_msg("row %d, token %d: %.9g, expected %.9g", r, v, (double)got, want);
                if (memcmp(&got, &labels[V - 1 - v], sizeof got) != 0)
                    fail_msg("row %d, token %d: %.9g alone, %.9g in the head", r, v,
                             (double)labels[V - 1 - v], (double)got);
            }
        }
        mr_pool_free(pool);
        mr_model_close(model);
        fixture_free(&f);
    }
}

static void a_missing_tensor_is_named(void **state)
{
    (void)state;
    for (size_t k = 0; k < N_KINDS; k++) {
        fixture f = fixture_new(config_of(k), MR_DTYPE_F32);
        for (size_t i = 0; i < f.n; i++) {
            mr_error err = {0};
            mr_model *model = NULL;
            const mr_tensor kept = f.tensors[i];
            f.tensors[i] = f.tensors[--f.n];
            assert_status(open_changed(&f, &model, &err), MR_NOT_FOUND, &err);
            assert_null(model);
            /* Without the first norm there is no telling which prefix was meant. */
            if (strcmp(kept.name, "model.layers.0.input_layernorm.weight") == 0)
                assert_contains(err.message, "holds no decoder");
            else
                assert_contains(err.message, kept.name);
            f.tensors[f.n++] = f.tensors[i];
            f.tensors[i] = kept;
        }
        fixture_free(&f);
    }
}

static void a_wrong_shape_names_tensor_found_and_expected(void **state)
{
    (void)state;
    for (size_t k = 0; k < N_KINDS; k++) {
        fixture f = fixture_new(config_of(k), MR_DTYPE_F32);
        for (size_t i = 0; i < f.n; i++) {
            const mr_tensor kept = f.tensors[i];
            for (int how = 0; how < 3; how++) {
                mr_error err = {0};
                mr_model *model = NULL;
                char found[MR_SHAPE_TEXT], expected[MR_SHAPE_TEXT];
                mr_tensor *t = &f.tensors[i];
                *t = kept;
                if (how == 0) { /* one row less */
                    t->bytes -= t->bytes / (size_t)t->shape[0];
                    t->shape[0]--;
                } else if (how == 1) { /* another number of dimensions */
                    t->shape[t->n_dims++] = 1;
                } else { /* rows and columns exchanged */
                    if (t->n_dims < 2 || t->shape[0] == t->shape[1])
                        continue;
                    t->shape[0] = kept.shape[1];
                    t->shape[1] = kept.shape[0];
                }
                mr_shape_text(t->n_dims, t->shape, found);
                mr_shape_text(kept.n_dims, kept.shape, expected);
                assert_status(open_changed(&f, &model, &err), MR_MISMATCH, &err);
                assert_null(model);
                assert_contains(err.message, kept.name);
                assert_contains(err.message, found);
                assert_contains(err.message, expected);
                assert_contains(err.message, "; config.json says ");
            }
            f.tensors[i] = kept;
        }
        fixture_free(&f);
    }
}

static void messages_point_at_the_line_of_the_config(void **state)
{
    (void)state;
    enum { QWEN3 = 3, QWEN2 = 2, LLAMA = 0 };
    static const struct {
        size_t kind;
        const char *tensor;
        int64_t shape[2];
        const char *message;
    } row[] = {
        {QWEN3,
         "model.layers.1.mlp.down_proj.weight",
         {32, 40},
         "tensor 'model.layers.1.mlp.down_proj.weight' is [32, 40], expected [32, 48]; config.json "
         "says intermediate_size 48"},
        {QWEN3,
         "model.embed_tokens.weight",
         {100, 32},
         "expected [130, 32]; config.json says "
         "vocab_size 130"},
        {QWEN3,
         "model.layers.0.self_attn.k_proj.weight",
         {8, 32},
         "config.json says num_key_value_heads 2 of head_dim 16"},
        {QWEN3,
         "model.layers.0.self_attn.q_proj.weight",
         {8, 16},
         "config.json says num_attention_heads 4 of head_dim 16 and hidden_size 32"},
        {LLAMA, "model.layers.1.mlp.up_proj.weight", {48, 16}, "config.json says hidden_size 32"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_error err = {0};
        mr_model *model = NULL;
        fixture f = fixture_new(config_of(row[i].kind), MR_DTYPE_F32);
        mr_tensor *t = tensor_of(&f, row[i].tensor);
        t->shape[0] = row[i].shape[0];
        t->shape[1] = row[i].shape[1];
        t->bytes = (size_t)(t->shape[0] * t->shape[1]) * sizeof(float);
        assert_status(open_changed(&f, &model, &err), MR_MISMATCH, &err);
        assert_contains(err.message, row[i].message);
        fixture_free(&f);
    }

    mr_error err = {0};
    mr_model *model = NULL;
    fixture f = fixture_new(config_of(QWEN2), MR_DTYPE_F32);
    drop(&f, "model.layers.0.self_attn.q_proj.bias");
    assert_status(open_changed(&f, &model, &err), MR_NOT_FOUND, &err);
    assert_contains(err.message,
                    "'model.layers.0.self_attn.q_proj.bias' is missing; config.json says "
                    "model_type qwen2");
    fixture_free(&f);

    f = fixture_new(config_of(QWEN3), MR_DTYPE_F32);
    drop(&f, "model.layers.1.input_layernorm.weight");
    assert_status(open_changed(&f, &model, &err), MR_NOT_FOUND, &err);
    assert_contains(err.message, "is missing; config.json says num_hidden_layers 2");
    fixture_free(&f);

    f = fixture_new(config_of(QWEN3), MR_DTYPE_F32);
    drop(&f, "lm_head.weight");
    assert_status(open_changed(&f, &model, &err), MR_NOT_FOUND, &err);
    assert_contains(err.message, "'lm_head.weight' is missing; config.json says "
                                 "tie_word_embeddings false");
    fixture_free(&f);
}

static void a_tensor_that_the_config_has_no_place_for_is_refused(void **state)
{
    (void)state;
    static const struct {
        size_t kind;
        const char *tensor, *like, *message;
    } row[] = {
        {0, "model.layers.1.self_attn.q_proj.bias", "model.norm.weight",
         "there is no place for it; config.json says attention_bias false"},
        {0, "model.layers.0.mlp.down_proj.bias", "model.norm.weight", "mlp_bias false"},
        {2, "model.layers.0.self_attn.o_proj.bias", "model.norm.weight", "model_type qwen2"},
        {2, "model.layers.0.self_attn.q_norm.weight", "model.norm.weight", "model_type qwen2"},
        {3, "model.layers.0.self_attn.v_proj.bias", "model.norm.weight", "attention_bias false"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_error err = {0};
        mr_model *model = NULL;
        fixture f = fixture_new(config_of(row[i].kind), MR_DTYPE_F32);
        add(&f, row[i].tensor, tensor_of(&f, row[i].like));
        assert_status(open_changed(&f, &model, &err), MR_MISMATCH, &err);
        assert_contains(err.message, row[i].tensor);
        assert_contains(err.message, row[i].message);
        fixture_free(&f);
    }
    /* What old Llama checkpoints carry along is no matter. */
    mr_error err = {0};
    mr_model *model = NULL;
    fixture f = fixture_new(config_of(0), MR_DTYPE_F32);
    add(&f, "model.layers.0.self_attn.rotary_emb.inv_freq", tensor_of(&f, "model.norm.weight"));
    assert_status(open_changed(&f, &model, &err), MR_OK, &err);
    mr_model_close(model);
    fixture_free(&f);
}

static void every_known_prefix_is_found(void **state)
{
    (void)state;
    static const struct {
        const char *decoder, *head;
    } row[] = {
        {"model.", "lm_head.weight"},
        {"", "lm_head.weight"},
        {"model.language_model.", "lm_head.weight"},
        {"language_model.model.", "language_model.lm_head.weight"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        static char names[MOST][128];
        mr_error err = {0};
        mr_model *model = NULL;
        fixture f = fixture_new(config_of(3), MR_DTYPE_BF16);
        for (size_t t = 0; t < f.n; t++) {
            const char *name = f.tensors[t].name;
            if (strcmp(name, "lm_head.weight") == 0)
                snprintf(names[t], sizeof names[t], "%s", row[i].head);
            else
                snprintf(names[t], sizeof names[t], "%s%s", row[i].decoder,
                         name + strlen("model."));
            f.tensors[t].name = names[t];
        }
        assert_status(open_changed(&f, &model, &err), MR_OK, &err);
        assert_string_equal(model->head.name, row[i].head);
        mr_model_close(model);
        fixture_free(&f);
    }
}

static void a_file_without_a_decoder_says_what_it_holds(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_model *model = NULL;
    fixture f = fixture_new(config_of(0), MR_DTYPE_F32);
    f.tensors[0].name = "vision.patch_embedding";
    f.n = 1;
    assert_status(open_changed(&f, &model, &err), MR_NOT_FOUND, &err);
    assert_contains(err.message, "holds no decoder");
    assert_contains(err.message, "(1 tensors, the first is 'vision.patch_embedding')");
    f.n = 0;
    assert_status(open_changed(&f, &model, &err), MR_NOT_FOUND, &err);
    assert_contains(err.message, "0 tensors");
    fixture_free(&f);
}

static void a_tied_head_may_be_stored_under_either_name_or_both(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_model *model = NULL;
    fixture f = fixture_new(config_of(0), MR_DTYPE_F32);
    add(&f, "lm_head.weight", tensor_of(&f, "model.embed_tokens.weight"));
    assert_status(open_changed(&f, &model, &err), MR_OK, &err);
    assert_ptr_equal(model->head.data, model->embedding.data);
    mr_model_close(model);

    float other[130 * 32];
    memcpy(other, tensor_of(&f, "lm_head.weight")->data, sizeof other);
    other[4000] += 1;
    tensor_of(&f, "lm_head.weight")->data = other;
    assert_status(open_changed(&f, &model, &err), MR_MISMATCH, &err);
    assert_contains(err.message, "'lm_head.weight' and 'model.embed_tokens.weight' differ, but "
                                 "config.json says tie_word_embeddings true");

    const mr_model_options headless = {.headless = true};
    model = NULL;
    assert_status(open_with(&f, &headless, &model, &err), MR_OK, &err);
    assert_null(model->head.data);
    mr_model_close(model);

    drop(&f, "model.embed_tokens.weight");
    model = NULL;
    assert_status(open_changed(&f, &model, &err), MR_OK, &err);
    assert_ptr_equal(model->head.data, model->embedding.data);
    assert_string_equal(model->embedding.name, "lm_head.weight");
    mr_model_close(model);
    fixture_free(&f);
}

static void a_headless_model_needs_no_head(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_model *model = NULL;
    const mr_model_options headless = {.headless = true};
    fixture f = fixture_new(config_of(3), MR_DTYPE_F32);
    drop(&f, "lm_head.weight");
    assert_status(open_with(&f, &headless, &model, &err), MR_OK, &err);
    assert_null(model->head.data);
    mr_model_close(model);
    fixture_free(&f);
}

static void a_vector_that_is_not_finite_is_refused(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_model *model = NULL;
    fixture f = fixture_new(config_of(0), MR_DTYPE_F32);
    float norm[32];
    memcpy(norm, tensor_of(&f, "model.norm.weight")->data, sizeof norm);
    norm[5] = NAN;
    tensor_of(&f, "model.norm.weight")->data = norm;
    assert_status(open_changed(&f, &model, &err), MR_CORRUPT, &err);
    assert_contains(err.message, "tensor 'model.norm.weight' holds nan at index 5");
    fixture_free(&f);
}

static void weights_of_another_dtype_are_refused(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_model *model = NULL;
    fixture f = fixture_new(config_of(0), MR_DTYPE_F32);
    tensor_of(&f, "model.layers.0.mlp.up_proj.weight")->dtype = MR_DTYPE_I32;
    assert_status(open_changed(&f, &model, &err), MR_MISMATCH, &err);
    assert_contains(err.message, "up_proj.weight' is I32, expected F32, F16 or BF16");
    assert_null(strstr(err.message, "config.json says"));
    fixture_free(&f);
}

static void the_numerics_id_tells_kernels_and_dtypes_apart(void **state)
{
    (void)state;
    static const struct {
        mr_gemm_kind gemm;
        mr_dtype dtype;
        bool mixed;
        const char *id;
    } row[] = {
        {MR_GEMM_SCORING, MR_DTYPE_F32, false, "scoring/generic/F32/r1"},
        {MR_GEMM_SCORING, MR_DTYPE_BF16, false, "scoring/generic/BF16/r1"},
        {MR_GEMM_BLAS, MR_DTYPE_F16, false, "blas/generic/F16/r1"},
        {MR_GEMM_SCORING, MR_DTYPE_BF16, true, "scoring/generic/mixed/r1"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_error err = {0};
        mr_model *model = NULL;
        char id[MR_NUMERICS_ID];
        fixture f = fixture_new(config_of(0), row[i].dtype);
        const mr_model_options opt = {.gemm = row[i].gemm, .kernels = &mr_kernels_generic};
        if (row[i].mixed)
            tensor_of(&f, "model.layers.1.mlp.up_proj.weight")->dtype = MR_DTYPE_F16;
        assert_status(open_with(&f, &opt, &model, &err), MR_OK, &err);
        mr_model_numerics_id(model, id, sizeof id);
        assert_string_equal(id, row[i].id);
        mr_model_close(model);
        fixture_free(&f);
    }
}

static void a_folder_that_lacks_a_file_says_which(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_model *model = NULL;
    const mr_model_options opt = MR_MODEL_OPTIONS_DEFAULT;
    char *folder = test_folder_new();
    assert_status(mr_model_open(&model, folder, &opt, &err), MR_NOT_FOUND, &err);
    assert_contains(err.message, "config.json");
    const mr_untrained_options random = MR_UNTRAINED_OPTIONS_DEFAULT;
    const mr_model_config config = config_of(0);
    assert_status(mr_untrained_write(folder, &config, &random, &err), MR_OK, &err);
    assert_int_equal(remove(test_path(folder, "model.safetensors")), 0);
    assert_status(mr_model_open(&model, folder, &opt, &err), MR_NOT_FOUND, &err);
    assert_contains(err.message, "model.safetensors");
    assert_null(model);
    test_folder_free(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family_binds_every_tensor),
        cmocka_unit_test(embedding_labels_and_logits_agree),
        cmocka_unit_test(a_missing_tensor_is_named),
        cmocka_unit_test(a_wrong_shape_names_tensor_found_and_expected),
        cmocka_unit_test(messages_point_at_the_line_of_the_config),
        cmocka_unit_test(a_tensor_that_the_config_has_no_place_for_is_refused),
        cmocka_unit_test(every_known_prefix_is_found),
        cmocka_unit_test(a_file_without_a_decoder_says_what_it_holds),
        cmocka_unit_test(a_tied_head_may_be_stored_under_either_name_or_both),
        cmocka_unit_test(a_headless_model_needs_no_head),
        cmocka_unit_test(a_vector_that_is_not_finite_is_refused),
        cmocka_unit_test(weights_of_another_dtype_are_refused),
        cmocka_unit_test(the_numerics_id_tells_kernels_and_dtypes_apart),
        cmocka_unit_test(a_folder_that_lacks_a_file_says_which),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_text_encoder.c - embedding tokens of texts against transformers' own hidden states.
 *
 * Reference data: data/mixed/encoder*, made by data/generator/mixed.py: a base model in bf16,
 * texts, and the states of their last 1, 4 and 50 positions after the final norm.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "encoders/text_encoder.h"
#include "engine/safetensors.h"
#include "tests/support.h"

#define FOLDER  "data/mixed/encoder"
#define DIM     32
#define MAX_T   MR_TEXT_ENCODER_MAX_TOKENS
#define N_MIXED 40

/* The texts of the reference have up to two segments and end with the token "<|endoftext|>", which
 * is not the config's end-of-sequence token. */
#define TEMPLATE "[{\"field\":\"lead\"},{\"field\":\"text\"},{\"token\":\"<|endoftext|>\"}]"

typedef struct {
    json_t *text;
    mr_text_encoder_options opt;
} setup;

static setup options(const char *json, int tokens, int max_tokens)
{
    setup s = {.opt = {.tokens = tokens, .max_tokens = max_tokens, .gemm = MR_GEMM_SCORING}};
    mr_error err = {0};
    if (json)
        assert_status(mr_json_parse(&s.text, json, mr_str_of(json), &err), MR_OK, &err);
    s.opt.text = s.text;
    return s;
}

static mr_text_encoder *open_encoder(setup *s)
{
    mr_text_encoder *encoder = NULL;
    mr_error err = {0};
    assert_status(mr_text_encoder_open(&encoder, FOLDER, &s->opt, &err), MR_OK, &err);
    json_decref(s->text); /* borrowed during open only */
    s->text = NULL;
    return encoder;
}

static void encode(mr_text_encoder *encoder, const mr_fields *items, size_t n, float *out,
                   uint16_t *tokens, mr_text_encoder_stats *stats)
{
    mr_error err = {0};
    assert_status(mr_text_encoder_run(encoder, items, n, out, tokens, stats, &err), MR_OK, &err);
}

/* The reference's texts as fields. */
typedef struct {
    json_t *root;
    mr_safetensors *file;
    mr_field field[16][2];
    mr_fields items[16];
    size_t n;
} reference;

static reference read_reference(void)
{
    static const char *const names[] = {"lead", "text"};
    reference r = {0};
    mr_error err = {0};
    assert_status(mr_json_load_file(&r.root, "data/mixed/encoder.json", MR_JSON_MAX_CONFIG, &err),
                  MR_OK, &err);
    assert_status(mr_safetensors_open(&r.file, "data/mixed/encoder.safetensors", &err), MR_OK,
                  &err);
    const json_t *texts = json_object_get(r.root, "texts");
    r.n = json_array_size(texts);
    assert_true(r.n >= 6 && r.n <= 16);
    for (size_t i = 0; i < r.n; i++) {
        const json_t *segments = json_object_get(json_array_get(texts, i), "segments");
        assert_true(json_array_size(segments) >= 1 && json_array_size(segments) <= 3);
        const size_t n_texts = json_array_size(segments) - 1;
        const json_t *end = json_object_get(json_array_get(segments, n_texts), "token");
        assert_string_equal(json_string_value(end), "<|endoftext|>");
        for (size_t k = 0; k < n_texts; k++) {
            const json_t *value = json_array_get(segments, k);
            assert_true(json_is_string(value));
            r.field[i][k] = (mr_field){mr_str_of(names[k]),
                                       {json_string_value(value), json_string_length(value)}};
        }
        r.items[i].n = n_texts;
    }
    return r;
}

/* The fields lie in the struct, which its owner has just received by value. */
static const mr_fields *items_of(reference *r)
{
    for (size_t i = 0; i < r->n; i++)
        r->items[i].field = r->field[i];
    return r->items;
}

static void close_reference(reference *r)
{
    json_decref(r->root);
    mr_safetensors_close(r->file);
}

static void states_are_those_of_transformers(void **state)
{
    static const int counts[] = {1, 4, 50};
    static const struct {
        mr_gemm_kind gemm;
        size_t batch_tokens;
    } ways[] = {{MR_GEMM_SCORING, 0}, {MR_GEMM_SCORING, 1}, {MR_GEMM_BLAS, 0}};
    (void)state;
    reference r = read_reference();
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
            const size_t T = (size_t)counts[c];
            setup s = options(TEMPLATE, counts[c], 400);
            s.opt.gemm = ways[w].gemm;
            s.opt.batch_tokens = ways[w].batch_tokens;
            mr_text_encoder *encoder = open_encoder(&s);
            assert_int_equal(mr_text_encoder_dim(encoder), DIM);
            assert_int_equal(mr_text_encoder_tokens(encoder), T);
            assert_int_equal(mr_text_encoder_model(encoder)->config.C, DIM);

            float *out = malloc(r.n * T * DIM * sizeof *out);
            uint16_t tokens[16];
            mr_text_encoder_stats stats = {0};
            memset(out, 0xff, r.n * T * DIM * sizeof *out);
            encode(encoder, items_of(&r), r.n, out, tokens, &stats);
            uint64_t positions = 0;
            for (size_t i = 0; i < r.n; i++) {
                char name[32];
                mr_tensor want;
                mr_error err = {0};
                snprintf(name, sizeof name, "%zu.last_%d", i, counts[c]);
                assert_status(
                    mr_safetensors_need(r.file, name, 2, (const int64_t[]){-1, DIM}, &want, &err),
                    MR_OK, &err);
                const size_t rows = (size_t)want.shape[0];
                float expected[MAX_T * DIM];
                assert_true(rows >= 1 && rows <= T);
                mr_dtype_to_f32(expected, want.data, want.dtype, rows * DIM);
                assert_int_equal(tokens[i], rows);
                assert_floats_near(out + i * T * DIM, expected, rows * DIM, 1e-5);
                for (size_t k = rows * DIM; k < T * DIM; k++)
                    assert_true(out[i * T * DIM + k] == 0); /* the rest is zeroed */
                const json_t *entry = json_array_get(json_object_get(r.root, "texts"), i);
                positions += json_array_size(json_object_get(entry, "ids"));
            }
            assert_int_equal(stats.text_tokens, positions);
            assert_int_equal(stats.truncated, 0);
            free(out);
            mr_text_encoder_close(encoder);
        }
    }
    close_reference(&r);
}

/* Texts of many lengths: item i has i words, item 7 has none. */
typedef struct {
    char text[N_MIXED][512];
    mr_field field[N_MIXED];
    mr_fields items[N_MIXED];
} mixed_texts;

static void make_mixed(mixed_texts *m)
{
    static const char *const words[] = {"red",   "kettle", "of",          "painted",
                                        "steel", "12",     "\u5546\u54c1"};
    for (size_t i = 0; i < N_MIXED; i++) {
        size_t used = 0;
        m->text[i][0] = '\0';
        for (size_t k = 0; k < i && i != 7; k++)
            used += (size_t)snprintf(m->text[i] + used, sizeof m->text[i] - used, " %s",
                                     words[(i * 3 + k) % 7]);
        assert_true(used < sizeof m->text[i]);
        m->field[i] = (mr_field){mr_str_of("text"), mr_str_of(m->text[i])};
        m->items[i] = (mr_fields){&m->field[i], 1};
    }
}

static void a_text_does_not_depend_on_its_batch(void **state)
{
    static const size_t batches[] = {0, 64, 150, 333};
    const size_t T = 4, item_size = T * DIM;
    static mixed_texts m;
    static float alone[N_MIXED * 4 * DIM], together[N_MIXED * 4 * DIM];
    uint16_t n_alone[N_MIXED], n_together[N_MIXED];
    mr_pool *pool = NULL;
    mr_error err = {0};
    (void)state;
    make_mixed(&m);
    assert_status(mr_pool_new(&pool, 2, &err), MR_OK, &err);

    for (int kind = 0; kind < MR_GEMM_COUNT; kind++) {
        setup s = options(NULL, (int)T, 64);
        s.opt.append_eos = true;
        s.opt.gemm = (mr_gemm_kind)kind;
        mr_text_encoder *encoder = open_encoder(&s);
        for (size_t i = 0; i < N_MIXED; i++)
            encode(encoder, &m.items[i], 1, alone + i * item_size, &n_alone[i], NULL);
        mr_text_encoder_close(encoder);

        for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
            s = options(NULL, (int)T, 64);
            s.opt.append_eos = true;
            s.opt.gemm = (mr_gemm_kind)kind;
            s.opt.batch_tokens = batches[b];
            s.opt.pool = b % 2 ? pool : NULL;
            encoder = open_encoder(&s);
            memset(together, 0xff, sizeof together);
            encode(encoder, m.items, N_MIXED, together, n_together, NULL);
            mr_text_encoder_close(encoder);
            assert_memory_equal(n_alone, n_together, sizeof n_alone);
            for (size_t i = 0; i < N_MIXED; i++) {
                const size_t used = n_alone[i] * (size_t)DIM;
                if (kind == MR_GEMM_BLAS)
                    assert_floats_near(together + i * item_size, alone + i * item_size, used, 1e-5);
                else if (memcmp(together + i * item_size, alone + i * item_size,
                                item_size * sizeof *alone) != 0)
                    fail_msg("item %zu differs in batches of %zu positions", i, batches[b]);
            }
        }
    }
    mr_pool_free(pool);
}

static void short_texts_have_fewer_tokens_and_empty_ones_none(void **state)
{
    static mixed_texts m;
    static float out[N_MIXED * MAX_T * DIM];
    uint16_t tokens[N_MIXED];
    (void)state;
    make_mixed(&m);
    setup s = options(NULL, MAX_T, 64);
    s.opt.append_eos = true;
    mr_text_encoder *encoder = open_encoder(&s);
    encode(encoder, m.items, 9, out, tokens, NULL);
    assert_int_equal(tokens[0], 0);
    assert_int_equal(tokens[7], 0);
    for (size_t i = 0; i < 9; i++) {
        if (i != 0 && i != 7 && (tokens[i] < 2 || tokens[i] > MAX_T))
            fail_msg("item %zu has %u tokens", i, (unsigned)tokens[i]);
    }
    assert_true(tokens[1] < tokens[6]);
    encode(encoder, m.items, 0, NULL, NULL, NULL);
    mr_text_encoder_close(encoder);
}

static void the_appended_token_is_the_configs(void **state)
{
    static const mr_field field = {{"text", 4}, {"the red kettle", 14}};
    const mr_fields item = {&field, 1};
    float appended[2 * DIM], spelled[2 * DIM];
    uint16_t tokens[2];
    (void)state;
    setup s = options(NULL, 2, 64);
    s.opt.append_eos = true;
    mr_text_encoder *encoder = open_encoder(&s);
    encode(encoder, &item, 1, appended, &tokens[0], NULL);
    mr_text_encoder_close(encoder);

    s = options("[{\"field\":\"text\"},{\"token\":\"<|im_end|>\"}]", 2, 64);
    encoder = open_encoder(&s);
    encode(encoder, &item, 1, spelled, &tokens[1], NULL);
    mr_text_encoder_close(encoder);
    assert_int_equal(tokens[0], 2);
    assert_int_equal(tokens[1], 2);
    assert_memory_equal(appended, spelled, sizeof appended);
}

static void long_texts_are_cut_from_the_right_before_the_end_token(void **state)
{
    /* Digits are tokens of one byte: the first 9 of 10, then the end. */
    static const mr_field field[] = {{{"text", 4}, {"1234567890", 10}},
                                     {{"text", 4}, {"123456789", 9}},
                                     {{"text", 4}, {"12345678", 8}}};
    static const mr_fields items[] = {{&field[0], 1}, {&field[1], 1}, {&field[2], 1}};
    float out[3 * 10 * DIM];
    uint16_t tokens[3];
    mr_text_encoder_stats stats = {.truncated = 99};
    (void)state;
    setup s = options(NULL, 10, 10);
    s.opt.append_eos = true;
    mr_text_encoder *encoder = open_encoder(&s);
    encode(encoder, items, 3, out, tokens, &stats);
    assert_int_equal(stats.truncated, 1);
    assert_int_equal(stats.text_tokens, 10 + 10 + 9);
    assert_int_equal(tokens[0], 10);
    assert_int_equal(tokens[1], 10);
    assert_int_equal(tokens[2], 9);
    assert_memory_equal(out, out + 10 * DIM, 10 * DIM * sizeof *out);
    mr_text_encoder_close(encoder);

    /* Text that is marked gives way before text that is not. */
    static const mr_field short_field = {{"text", 4}, {"12", 2}};
    const mr_fields short_item = {&short_field, 1};
    float cut[4 * DIM], whole[4 * DIM];
    s = options("[{\"field\":\"text\",\"truncate\":true},\"99\"]", 4, 4);
    encoder = open_encoder(&s);
    encode(encoder, items, 1, cut, tokens, &stats);
    assert_int_equal(stats.truncated, 1);
    encode(encoder, &short_item, 1, whole, tokens, &stats);
    assert_int_equal(stats.truncated, 0);
    assert_memory_equal(cut, whole, sizeof cut);
    mr_text_encoder_close(encoder);
}

static void an_item_with_bad_text_is_named(void **state)
{
    static const mr_field field[] = {{{"text", 4}, {"fine", 4}}, {{"text", 4}, {"ab\xff", 3}}};
    const mr_fields items[] = {{&field[0], 1}, {&field[0], 1}, {&field[1], 1}};
    float out[3 * DIM];
    uint16_t tokens[3];
    mr_text_encoder_stats stats = {.text_tokens = 99};
    mr_error err = {0};
    (void)state;
    setup s = options(NULL, 1, 64);
    mr_text_encoder *encoder = open_encoder(&s);
    assert_status(mr_text_encoder_run(encoder, items, 3, out, tokens, &stats, &err), MR_INVALID,
                  &err);
    assert_contains(err.message, "item 2: ");
    assert_contains(err.message, "field 'text' is not UTF-8: byte 0xff at offset 2 of 3");
    assert_int_equal(stats.text_tokens, 99);
    encode(encoder, items, 2, out, tokens, NULL); /* and the encoder goes on */
    assert_int_equal(tokens[1], 1);
    assert_memory_equal(out, out + DIM, DIM * sizeof *out);
    mr_text_encoder_close(encoder);
}

static void options_out_of_range_are_refused(void **state)
{
    static const struct {
        const char *text;
        int tokens, max_tokens;
        size_t batch_tokens;
        mr_status status;
        const char *message;
    } row[] = {
        {NULL, 0, 64, 0, MR_INVALID, "tokens is 0, expected 1 to 50"},
        {NULL, 51, 64, 0, MR_INVALID, "tokens is 51, expected 1 to 50"},
        {NULL, 1, 1, 0, MR_INVALID, "max_tokens is 1, expected 2 to 32768"},
        {NULL, 1, 32769, 0, MR_INVALID, "max_tokens is 32769"},
        {NULL, 9, 8, 0, MR_INVALID, "tokens is 9 and max_tokens 8"},
        {NULL, 1, 513, 0, MR_MISMATCH, "max_tokens is 513, config.json allows 512"},
        {NULL, 1, 64, SIZE_MAX, MR_INVALID, "batch_tokens is 18446744073709551615"},
        {"[{\"slot\":\"item\"}]", 1, 64, 0, MR_INVALID, "reads text alone, found slot 'item'"},
        {"[{\"field\":\"text\"},{\"slot\":\"image\",\"when\":\"image\"}]", 1, 64, 0, MR_INVALID,
         "found slot 'image'"},
        {"[{\"fild\":\"text\"}]", 1, 64, 0, MR_INVALID, "text[0]: unknown key 'fild'"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        setup s = options(row[i].text, row[i].tokens, row[i].max_tokens);
        mr_text_encoder *encoder = NULL;
        mr_error err = {0};
        s.opt.batch_tokens = row[i].batch_tokens;
        assert_status(mr_text_encoder_open(&encoder, FOLDER, &s.opt, &err), row[i].status, &err);
        assert_contains(err.message, row[i].message);
        assert_contains(err.message, "text encoder '" FOLDER "'");
        assert_null(encoder);
        json_decref(s.text);
    }
}

/* A copy of the encoder's folder, for one thing to go wrong in. */
static char *copy_folder(void)
{
    static const char *const names[] = {"config.json", "tokenizer.json", "model.safetensors"};
    char *folder = test_folder_new();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        mr_error err = {0};
        assert_status(mr_file_copy(test_path(FOLDER, names[i]), test_path(folder, names[i]), &err),
                      MR_OK, &err);
    }
    return folder;
}

static void change_config(const char *folder, const char *key, json_t *value)
{
    json_t *root = NULL;
    mr_error err = {0};
    const char *path = test_path(folder, "config.json");
    assert_status(mr_json_load_file(&root, path, MR_JSON_MAX_CONFIG, &err), MR_OK, &err);
    if (value)
        assert_int_equal(json_object_set_new(root, key, value), 0);
    else
        assert_int_equal(json_object_del(root, key), 0);
    assert_status(mr_json_save_file(root, path, &err), MR_OK, &err);
    json_decref(root);
}

static void expect_failure(const char *folder, bool append_eos, mr_status status,
                           const char *message)
{
    setup s = options(NULL, 1, 64);
    mr_text_encoder *encoder = NULL;
    mr_error err = {0};
    s.opt.append_eos = append_eos;
    assert_status(mr_text_encoder_open(&encoder, folder, &s.opt, &err), status, &err);
    assert_contains(err.message, message);
    assert_null(encoder);
}

static void folders_with_a_part_missing_or_foreign_are_refused(void **state)
{
    (void)state;
    expect_failure("data/mixed/none", false, MR_NOT_FOUND, "no folder 'data/mixed/none'");

    char *folder = copy_folder();
    assert_int_equal(remove(test_path(folder, "tokenizer.json")), 0);
    expect_failure(folder, false, MR_NOT_FOUND, "tokenizer.json' is missing");
    test_folder_free(folder);

    /* A model with fewer embeddings than the tokenizer has ids. */
    folder = copy_folder();
    json_t *root = NULL;
    mr_error err = {0};
    const char *path = test_path(folder, "tokenizer.json");
    assert_status(mr_json_load_file(&root, path, MR_JSON_MAX_TOKENIZER, &err), MR_OK, &err);
    json_t *added = json_object_get(root, "added_tokens");
    const json_t *last = json_array_get(added, json_array_size(added) - 1);
    for (json_int_t id = json_integer_value(json_object_get(last, "id")) + 1; id <= 640; id++) {
        char content[32];
        snprintf(content, sizeof content, "<|more %d|>", (int)id);
        json_t *token = json_deep_copy(last);
        assert_int_equal(json_object_set_new(token, "id", json_integer(id)), 0);
        assert_int_equal(json_object_set_new(token, "content", json_string(content)), 0);
        assert_int_equal(json_array_append_new(added, token), 0);
    }
    assert_status(mr_json_save_file(root, path, &err), MR_OK, &err);
    json_decref(root);
    expect_failure(folder, false, MR_MISMATCH,
                   "tokenizer.json has ids up to 640, the model has embeddings for 0 to 639");
    test_folder_free(folder);

    folder = copy_folder();
    change_config(folder, "eos_token_id", NULL);
    expect_failure(folder, true, MR_MISMATCH, "config.json has no eos_token_id");
    test_folder_free(folder);

    folder = copy_folder();
    test_file_write(test_path(folder, "model.safetensors"), "short", 5);
    setup s = options(NULL, 1, 64);
    mr_text_encoder *encoder = NULL;
    assert_int_not_equal(mr_text_encoder_open(&encoder, folder, &s.opt, &err), MR_OK);
    assert_contains(err.message, "model.safetensors");
    assert_null(encoder);
    test_folder_free(folder);
    mr_text_encoder_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(states_are_those_of_transformers),
        cmocka_unit_test(a_text_does_not_depend_on_its_batch),
        cmocka_unit_test(short_texts_have_fewer_tokens_and_empty_ones_none),
        cmocka_unit_test(the_appended_token_is_the_configs),
        cmocka_unit_test(long_texts_are_cut_from_the_right_before_the_end_token),
        cmocka_unit_test(an_item_with_bad_text_is_named),
        cmocka_unit_test(options_out_of_range_are_refused),
        cmocka_unit_test(folders_with_a_part_missing_or_foreign_are_refused),
    };
    return cmocka_run_group_tests_name("text_encoder", tests, NULL, NULL);
}

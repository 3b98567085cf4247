/* test_bundle_write.c - making bundles: whole or not at all, and known answers that guard them.
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
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "tests/ranker_support.h"
#include "tests/support.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static char *folder; /* of the test that runs */
static char path[4096];

static int make_folder(void **state)
{
    (void)state;
    folder = test_folder_new();
    snprintf(path, sizeof path, "%s/b", folder);
    return 0;
}

static int drop_folder(void **state)
{
    (void)state;
    test_folder_free(folder);
    return 0;
}

static void new_bundle(void)
{
    mr_error err = {0};
    assert_status(test_bundle_make(path, test_mixed_spec(2), NULL, &err), MR_OK, &err);
}

static void write_golden(size_t n)
{
    mr_error err = {0};
    assert_status(mr_bundle_write_golden(path, NULL, n, 1, &err), MR_OK, &err);
}

static json_t *load(const char *name)
{
    json_t *root = NULL;
    mr_error err = {0};
    assert_status(mr_json_load_file(&root, test_path(path, name), (size_t)1 << 24, &err), MR_OK,
                  &err);
    return root;
}

static void save(const char *name, json_t *root)
{
    mr_error err = {0};
    assert_status(mr_json_save_file(root, test_path(path, name), &err), MR_OK, &err);
    json_decref(root);
}

/* ---- create ---------------------------------------------------------------------------------- */

typedef struct {
    const char *what;
    const char *spec; /* NULL: a good one */
    mr_bundle_create_options opt;
    mr_status status;
    const char *message;
} create_case;

#define LLM     .llm = "data/mixed/llm"
#define ENCODER .item_encoder = "data/mixed/encoder"
#define EXTERNAL                                                                        \
    "{'format': 1, 'name': 'x', 'mode': 'mixed', 'prefix': ['a'], 'suffix': [{'slot': " \
    "'item'}], 'score': {'yes': 'yes', 'no': 'no'}, 'encoders': {'item': {'kind': "     \
    "'external', 'name': 'mini', 'dim': %s}}}"

static const create_case create_cases[] = {
    {"no llm there",
     NULL,
     {.llm = "data/nowhere", ENCODER},
     MR_NOT_FOUND,
     "model folder 'data/nowhere' is not there"},
    {"no item encoder", NULL, {LLM}, MR_INVALID, "no folder with its model was given"},
    {"an item encoder that nobody needs",
     "{'format': 1}",
     {LLM, ENCODER},
     MR_INVALID,
     "is no causal_last_n encoder"},
    {"a spec that is a list", "[]", {LLM}, MR_INVALID, "the spec is an array, expected an object"},
    {"an unknown key", "{'format': 1, 'nmae': 'x'}", {LLM}, MR_INVALID, "did you mean 'name'?"},
    {"an llm without a tokenizer",
     NULL,
     {.llm = "data/models/qwen3", ENCODER},
     MR_NOT_FOUND,
     "tokenizer.json"},
    {"an identity between widths that differ",
     "EXTERNAL 24",
     {LLM},
     MR_MISMATCH,
     "'projectors.item'"},
    {"a projector of other widths",
     NULL,
     {LLM, ENCODER, .item_projector = "data/projectors/mlp-f32/projector.safetensors"},
     MR_MISMATCH,
     "'projectors.item'"},
    {"a projector that is none",
     NULL,
     {LLM, ENCODER, .item_projector = "data/mixed/llm/model.safetensors"},
     MR_NOT_FOUND,
     "'projectors.item'"},
    {"a projector that is not there",
     NULL,
     {LLM, ENCODER, .user_projector = "nowhere.safetensors"},
     MR_NOT_FOUND,
     "nowhere.safetensors"},
};

static json_t *spec_of(const create_case *row)
{
    if (!row->spec)
        return test_mixed_spec(1);
    if (strncmp(row->spec, "EXTERNAL ", 9) == 0)
        return test_json(EXTERNAL, row->spec + 9);
    return test_json("%s", row->spec);
}

static void what_cannot_be_made_leaves_nothing_behind(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(create_cases); i++) {
        const create_case *row = &create_cases[i];
        mr_error err = {0};
        mr_bundle_create_options opt = row->opt;
        json_t *spec = spec_of(row);
        opt.spec = spec;
        const mr_status status = mr_bundle_create(path, &opt, &err);
        json_decref(spec);
        if (status != row->status || !strstr(err.message, row->message))
            fail_msg("%s: gave %s '%s', expected %s '%s'", row->what, mr_status_name(status),
                     err.message, mr_status_name(row->status), row->message);
        assert_contains(err.message, path);
        if (test_count_entries(folder) != 0)
            fail_msg("%s: left %zu entries behind", row->what, test_count_entries(folder));
    }
}

static void what_cannot_be_made_leaves_the_old_one_alone(void **state)
{
    (void)state;
    mr_error err = {0};
    new_bundle();
    write_golden(1);
    for (size_t i = 0; i < COUNT(create_cases); i++) {
        mr_bundle_create_options opt = create_cases[i].opt;
        json_t *spec = spec_of(&create_cases[i]);
        opt.spec = spec;
        opt.overwrite = true;
        assert_status(mr_bundle_create(path, &opt, &err), create_cases[i].status, &err);
        json_decref(spec);
    }
    assert_int_equal(test_count_entries(folder), 1);
    assert_status(mr_bundle_verify(path, &err), MR_OK, &err);
}

static void only_force_replaces_and_only_a_bundle(void **state)
{
    (void)state;
    mr_error err = {0};
    json_t *spec = test_mixed_spec(1);
    mr_bundle_create_options opt = {.spec = spec, LLM, ENCODER};
    new_bundle();
    write_golden(1);
    assert_status(mr_bundle_create(path, &opt, &err), MR_EXISTS, &err);
    assert_contains(err.message, "is already there; --force replaces it");
    opt.overwrite = true;
    assert_status(mr_bundle_create(path, &opt, &err), MR_OK, &err);
    assert_false(mr_file_exists(test_path(path, "golden.json"))); /* the old one's */
    assert_int_equal(test_count_entries(folder), 1);
    mr_bundle *bundle = test_bundle_open(path, 1);
    assert_int_equal(bundle->item.tokens, 1);
    mr_bundle_close(bundle);

    const char *other = test_path(folder, "mine");
    assert_status(mr_file_make_folders(other, &err), MR_OK, &err);
    test_file_write(test_path(other, "thesis.txt"), "x", 1);
    assert_status(mr_bundle_create(other, &opt, &err), MR_INVALID, &err);
    assert_contains(err.message, "only bundles are replaced");
    assert_true(mr_file_exists(test_path(other, "thesis.txt")));
    assert_status(mr_bundle_create("", &opt, &err), MR_INVALID, &err);
    json_decref(spec);
}

static void links_share_the_weights_and_a_copy_does_not(void **state)
{
    (void)state;
    mr_error err = {0};
    struct stat source, made;
    json_t *spec = test_mixed_spec(1);
    char from[4096];
    snprintf(from, sizeof from, "%s/llm", folder);
    assert_status(mr_file_make_folders(from, &err), MR_OK, &err);
    static const char *const files[] = {"config.json", "tokenizer.json", "model.safetensors"};
    for (size_t i = 0; i < COUNT(files); i++)
        assert_status(
            mr_file_copy(test_path("data/mixed/llm", files[i]), test_path(from, files[i]), &err),
            MR_OK, &err);
    test_file_write(test_path(from, "optimizer.pt"), "x", 1);
    assert_int_equal(stat(test_path(from, "model.safetensors"), &source), 0);
    for (int link = 0; link < 2; link++) {
        const mr_bundle_create_options opt = {
            .spec = spec, .llm = from, ENCODER, .link = link, .overwrite = true};
        assert_status(mr_bundle_create(path, &opt, &err), MR_OK, &err);
        assert_int_equal(stat(test_path(path, "llm/model.safetensors"), &made), 0);
        assert_int_equal(made.st_ino == source.st_ino, link);
        assert_false(mr_file_exists(test_path(path, "llm/optimizer.pt")));
    }
    json_decref(spec);
}

/* ---- verify ---------------------------------------------------------------------------------- */

static void flip(const char *file, size_t from_end, unsigned char mask)
{
    size_t len;
    char *bytes = test_file_read(file, &len);
    assert_true(from_end < len);
    bytes[len - 1 - from_end] = (char)(bytes[len - 1 - from_end] ^ mask);
    test_file_write(file, bytes, len);
    free(bytes);
}

static void verify_names_the_file_that_changed(void **state)
{
    static const char *const files[] = {"llm/model.safetensors",
                                        "llm/tokenizer.json",
                                        "llm/config.json",
                                        "encoder/model.safetensors",
                                        "encoder/tokenizer_config.json",
                                        "golden.json"};
    (void)state;
    mr_error err = {0};
    new_bundle();
    write_golden(2);
    for (size_t i = 0; i < COUNT(files); i++) {
        const char *file = test_path(path, files[i]);
        flip(file, 1, 1);
        assert_status(mr_bundle_verify(path, &err), MR_MISMATCH, &err);
        assert_contains(err.message, files[i]);
        assert_contains(err.message, "the file was changed or damaged");
        flip(file, 1, 1);
    }
    assert_status(mr_bundle_verify(path, &err), MR_OK, &err);
    assert_int_equal(unlink(test_path(path, "llm/generation_config.json")), 0);
    assert_status(mr_bundle_verify(path, &err), MR_NOT_FOUND, &err);
    assert_contains(err.message, "generation_config.json");
}

static void verify_wants_digests(void **state)
{
    (void)state;
    mr_error err = {0};
    new_bundle();
    json_t *root = load("bundle.json");
    json_object_del(root, "files");
    save("bundle.json", root);
    assert_status(mr_bundle_verify(path, &err), MR_INVALID, &err);
    assert_contains(err.message, "has no 'files' to verify");
}

/* ---- golden ---------------------------------------------------------------------------------- */

static void golden_requests_refuse_other_weights(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_bundle *bundle = NULL;
    new_bundle();
    write_golden(3);
    mr_bundle_close(test_bundle_open(path, 2));
    /* The high bytes of the last weights: signs turned round. */
    for (size_t i = 0; i < 64; i++)
        flip(test_path(path, "llm/model.safetensors"), 2 * i, 0x80);
    assert_status(mr_bundle_open(&bundle, path, NULL, &err), MR_MISMATCH, &err);
    assert_contains(err.message, "golden request 0, candidate 0: margin");
    assert_contains(err.message, "weights, tokenizer or build are not those of the bundle");
    assert_null(bundle);
    mr_bundle_options opt = MR_BUNDLE_OPTIONS_DEFAULT;
    opt.skip_golden = true;
    assert_status(mr_bundle_open(&bundle, path, &opt, &err), MR_OK, &err);
    mr_bundle_close(bundle);
}

/* A changed part of the bundle must not become right by writing golden requests. */
static void golden_requests_seal_nothing_but_themselves(void **state)
{
    (void)state;
    mr_error err = {0};
    new_bundle();
    flip(test_path(path, "encoder/model.safetensors"), 0, 1);
    write_golden(1);
    assert_status(mr_bundle_verify(path, &err), MR_MISMATCH, &err);
    assert_contains(err.message, "encoder/model.safetensors");
}

static void edit_golden(const char *patch)
{
    json_t *root = load("golden.json"), *change = test_json("%s", patch);
    json_object_update(root, change);
    json_decref(change);
    save("golden.json", root);
}

static void a_wrong_golden_json_is_one_clear_error(void **state)
{
    static const struct {
        const char *patch;
        mr_status status;
        const char *message;
    } row[] = {
        {"{'format': 2}", MR_INVALID, "golden.json: 'format' is the number 2"},
        {"{'requests': {}}", MR_INVALID, "'requests' is an object, expected an array"},
        {"{'requests': []}", MR_INVALID, "'requests' is empty"},
        {"{'tolerance': {}}", MR_INVALID, "golden.json: tolerance: 'f32' is missing"},
        {"{'tolerance': {'f32': 2}}", MR_INVALID, "'f32' is the number 2"},
        {"{'requests': [{'candidates': []}]}", MR_INVALID,
         "golden request 0 has 0 candidates, expected 1 to 1024"},
        {"{'requests': [{'fields': {'query': 3}, 'candidates': [{}]}]}", MR_INVALID,
         "field 'query' is the number 3, expected a string"},
        {"{'requests': [{'candidates': [{'vectors': [[1], [1, 2]]}]}]}", MR_INVALID,
         "a vector has 2 numbers, the first has 1"},
        {"{'requests': [{'candidates': [{'vectors': [['x']]}]}]}", MR_INVALID,
         "a vector holds the string \"x\", expected a number"},
        {"{'requests': [{'candidates': [{'vectors': [[1, 2]]}]}]}", MR_INVALID,
         "golden request 0, candidate 0: item vectors are 2 wide, the bundle's are 32"},
        {"{'requests': [{'candidates': [{}]}]}", MR_INVALID, "slot 'item' has no embedding tokens"},
        {"{'requests': [{'user': [[1]], 'candidates': [{}]}]}", MR_MISMATCH,
         "user vectors are 1 wide"},
    };
    (void)state;
    new_bundle();
    write_golden(1);
    size_t len;
    char *good = test_file_read(test_path(path, "golden.json"), &len);
    for (size_t i = 0; i < COUNT(row); i++) {
        mr_bundle *bundle = NULL;
        mr_error err = {0};
        edit_golden(row[i].patch);
        const mr_status status = mr_bundle_open(&bundle, path, NULL, &err);
        if (status != row[i].status || !strstr(err.message, row[i].message))
            fail_msg("%s: gave %s '%s', expected %s '%s'", row[i].patch, mr_status_name(status),
                     err.message, mr_status_name(row[i].status), row[i].message);
        test_file_write(test_path(path, "golden.json"), good, len);
    }
    free(good);
}

/* Two candidates that are the same, as golden requests of the bundle; returns golden.json. */
static json_t *golden_of_twins(void)
{
    mr_error err = {0};
    mr_strbuf line = {0};
    const char *file = test_path(folder, "requests.jsonl");
    mr_strbuf_puts(&line, "{\"fields\":{\"query\":\"red\"},\"candidates\":[");
    for (int i = 0; i < 2; i++) {
        mr_strbuf_puts(&line, i ? ",{\"vectors\":[[0.5" : "{\"vectors\":[[0.5");
        for (int c = 1; c < 32; c++)
            mr_strbuf_puts(&line, ",0.5");
        mr_strbuf_puts(&line, "]]}");
    }
    mr_strbuf_puts(&line, "]}\n");
    test_file_write(file, line.data, line.len);
    mr_strbuf_release(&line);
    assert_status(mr_bundle_write_golden(path, file, 0, 0, &err), MR_OK, &err);
    return load("golden.json");
}

static void golden_margins_are_held_to_their_tolerance_and_order(void **state)
{
    static const struct {
        const char *what;
        double first, second; /* what golden.json says, times what is right */
        double tolerance;
        mr_status status;
        const char *message;
    } row[] = {
        {"as they are", 1, 1, 0, MR_OK, ""},
        {"within the tolerance", 1.0005, 0.9995, 0.001, MR_OK, ""},
        {"outside it", 1.002, 1, 0.001, MR_MISMATCH, "golden request 0, candidate 0: margin"},
        {"the second outside it", 1, 1.002, 0.001, MR_MISMATCH, "golden request 0, candidate 1:"},
        {"one order", 1.5, 0.5, 0.5, MR_MISMATCH, "candidates 0 and 1 changed their order"},
        {"the other order", 0.5, 1.5, 0.5, MR_MISMATCH, "candidates 0 and 1 changed their order"},
    };
    (void)state;
    new_bundle();
    for (size_t i = 0; i < COUNT(row); i++) {
        mr_error err = {0};
        mr_bundle *bundle = NULL;
        json_t *root = golden_of_twins();
        json_t *margins =
            json_object_get(json_array_get(json_object_get(root, "requests"), 0), "margins");
        const double margin = json_real_value(json_array_get(margins, 0));
        assert_int_equal(json_array_size(margins), 2);
        assert_true(margin != 0 && margin == json_real_value(json_array_get(margins, 1)));
        json_array_set_new(margins, 0, json_real(margin * row[i].first));
        json_array_set_new(margins, 1, json_real(margin * row[i].second));
        json_object_set_new(json_object_get(root, "tolerance"), "f32", json_real(row[i].tolerance));
        save("golden.json", root);
        const mr_status status = mr_bundle_open(&bundle, path, NULL, &err);
        mr_bundle_close(bundle);
        if (status != row[i].status || !strstr(err.message, row[i].message))
            fail_msg("%s: gave %s '%s'", row[i].what, mr_status_name(status), err.message);
    }
}

static void golden_requests_of_a_file_are_checked(void **state)
{
    static const struct {
        const char *lines;
        mr_status status;
        const char *message;
    } row[] = {
        {"", MR_INVALID, "no golden requests to write"},
        {"{\"candidates\":[{}]}", MR_INVALID, "slot 'item' has no embedding tokens"},
        {"{\"candidates\":", MR_CORRUPT, "line 1 of"},
        {"[]", MR_CORRUPT, "line 1 of"},
    };
    (void)state;
    new_bundle();
    for (size_t i = 0; i < COUNT(row); i++) {
        mr_error err = {0};
        const char *file = test_path(folder, "r.jsonl");
        test_file_write(file, row[i].lines, strlen(row[i].lines));
        assert_status(mr_bundle_write_golden(path, file, 0, 0, &err), row[i].status, &err);
        assert_contains(err.message, row[i].message);
        assert_false(mr_file_exists(test_path(path, "golden.json")));
    }
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, drop_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(what_cannot_be_made_leaves_nothing_behind),
        IN_FOLDER(what_cannot_be_made_leaves_the_old_one_alone),
        IN_FOLDER(only_force_replaces_and_only_a_bundle),
        IN_FOLDER(links_share_the_weights_and_a_copy_does_not),
        IN_FOLDER(verify_names_the_file_that_changed),
        IN_FOLDER(verify_wants_digests),
        IN_FOLDER(golden_requests_refuse_other_weights),
        IN_FOLDER(golden_requests_seal_nothing_but_themselves),
        IN_FOLDER(a_wrong_golden_json_is_one_clear_error),
        IN_FOLDER(golden_margins_are_held_to_their_tolerance_and_order),
        IN_FOLDER(golden_requests_of_a_file_are_checked),
    };
    return cmocka_run_group_tests_name("bundle_write", tests, NULL, NULL);
}

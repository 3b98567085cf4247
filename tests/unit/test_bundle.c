/* test_bundle.c - opening bundles: what is in one, and every way in which one can be wrong.
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
#include <unistd.h>

#include "core/file.h"
#include "encoders/space.h"
#include "engine/untrained.h"
#include "ranker/model/untrained_bundle.h"
#include "tests/ranker_support.h"
#include "tests/support.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static char *folder; /* of the test that runs */

static int make_folder(void **state)
{
    (void)state;
    folder = test_folder_new();
    return 0;
}

static int drop_folder(void **state)
{
    (void)state;
    test_folder_free(folder);
    return 0;
}

/* A new bundle of 2 tokens under this name. */
static const char *new_bundle(const char *name)
{
    static char paths[16][4096];
    static unsigned next;
    mr_error err = {0};
    char *path = paths[next++ % COUNT(paths)];
    snprintf(path, sizeof *paths, "%s/%s", folder, name);
    assert_status(test_bundle_make(path, test_mixed_spec(2), NULL, &err), MR_OK, &err);
    return path;
}

/* Values of the patch over those of the object; null removes. */
static void merge(json_t *object, const json_t *patch)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)patch, key, value)
    {
        json_t *old = json_object_get(object, key);
        if (json_is_null(value))
            json_object_del(object, key);
        else if (json_is_object(value) && json_is_object(old))
            merge(old, value);
        else
            json_object_set(object, key, value);
    }
}

static void apply_patch(json_t *root, const void *context)
{
    json_t *patch = test_json("%s", (const char *)context);
    merge(root, patch);
    json_decref(patch);
}

/* ---- a good one ------------------------------------------------------------------------------ */

static void a_bundle_says_what_it_is(void **state)
{
    (void)state;
    mr_bundle *bundle = test_bundle_open(new_bundle("b"), 1);
    assert_string_equal(mr_bundle_name(bundle), "test");
    assert_string_equal(mr_bundle_version(bundle), "1");
    assert_true(mr_bundle_is_mixed(bundle));
    assert_false(mr_bundle_is_untrained(bundle));
    assert_true(mr_bundle_item_space(bundle) != 0);
    assert_true(mr_bundle_user_space(bundle) != 0);
    assert_true(mr_bundle_item_space(bundle) != mr_bundle_user_space(bundle));
    assert_contains(mr_bundle_numerics_id(bundle), "scoring/");
    assert_int_equal(bundle->yes_id, 569); /* tests/data/mixed/reference.json */
    assert_int_equal(bundle->no_id, 566);
    assert_int_equal(bundle->max_length, 200);
    mr_bundle_close(bundle);
}

static void a_space_is_what_decides_the_vectors_and_nothing_else(void **state)
{
    static const struct {
        const char *what, *patch;
        bool item_same, user_same;
    } row[] = {
        {"the bundle's name and prompt", "{'name': 'other', 'suffix': [{'slot': 'item'}]}", true,
         true},
        {"a default written out",
         "{'encoders': {'item': {'append_eos': true}, 'user': {'order': 'set'}}}", true, true},
        {"the text template", "{'encoders': {'item': {'text': [{'field': 'text'}]}}}", false,
         false},
        {"the number of tokens", "{'encoders': {'item': {'tokens': 3}}}", false, false},
        {"the longest text", "{'encoders': {'item': {'max_tokens': 63}}}", false, false},
        {"the closing token", "{'encoders': {'item': {'append_eos': false}}}", false, false},
        {"the history's length", "{'encoders': {'user': {'tokens': 5}}}", true, false},
        {"the history's order", "{'encoders': {'user': {'order': 'sequence'}}}", true, false},
    };
    (void)state;
    mr_bundle *first = test_bundle_open(new_bundle("first"), 1);
    for (size_t i = 0; i < COUNT(row); i++) {
        char name[16];
        mr_error err = {0};
        snprintf(name, sizeof name, "b%zu", i);
        json_t *spec = test_mixed_spec(2);
        apply_patch(spec, row[i].patch);
        assert_status(test_bundle_make(test_path(folder, name), spec, NULL, &err), MR_OK, &err);
        mr_bundle *other = test_bundle_open(test_path(folder, name), 1);
        if ((other->item.space == first->item.space) != row[i].item_same ||
            (other->user.space == first->user.space) != row[i].user_same)
            fail_msg("%s: item %016llx and %016llx, user %016llx and %016llx", row[i].what,
                     (unsigned long long)first->item.space, (unsigned long long)other->item.space,
                     (unsigned long long)first->user.space, (unsigned long long)other->user.space);
        mr_bundle_close(other);
    }
    mr_bundle_close(first);
}

static void a_score_is_the_sigmoid_of_the_scaled_margin(void **state)
{
    (void)state;
    json_t *spec = test_mixed_spec(1);
    mr_error err = {0};
    apply_patch(spec, "{'score': {'temperature': 2.0, 'bias': -1.0}}");
    assert_status(test_bundle_make(test_path(folder, "b"), spec, NULL, &err), MR_OK, &err);
    mr_bundle *bundle = test_bundle_open(test_path(folder, "b"), 1);
    assert_true(mr_bundle_score(bundle, 2.0) == 0.5);
    assert_true(fabs(mr_bundle_score(bundle, 6.0) - 1 / (1 + exp(-2.0))) < 1e-15);
    assert_true(mr_bundle_score(bundle, -1e9) >= 0 && mr_bundle_score(bundle, 1e9) <= 1);
    mr_bundle_close(bundle);
}

static void vectors_from_outside_go_through_their_projector(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_text_encoder *encoder = NULL;
    const char *path = test_path(folder, "b");
    json_t *spec = test_mixed_spec(1);
    apply_patch(spec, "{'encoders': {'item': null}}");
    apply_patch(spec, "{'encoders': {'item': {'kind': 'external', 'name': 'mini', 'dim': 24}}}");
    assert_status(
        test_bundle_make(path, spec, "data/projectors/mlp-f32/projector.safetensors", &err), MR_OK,
        &err);
    mr_bundle *bundle = test_bundle_open(path, 1);
    assert_string_equal(mr_projector_kind(bundle->item_projector), "mlp");
    assert_int_equal(bundle->item.dim, 24);
    assert_ptr_equal(bundle->user_projector, bundle->item_projector);
    assert_status(mr_bundle_open_item_encoder(bundle, MR_GEMM_SCORING, 0, &encoder, &err),
                  MR_MISMATCH, &err);
    assert_contains(err.message, "takes item vectors from outside");
    mr_bundle_close(bundle);
}

static void one_external_encoder_for_texts_and_pictures_is_refused(void **state)
{
    (void)state;
    mr_error err = {0};
    json_t *spec = test_mixed_spec(1);
    apply_patch(spec, "{'encoders': {'item': null}}");
    apply_patch(spec, "{'encoders': {'item': {'kind': 'external', 'name': 'mini', 'dim': 32},"
                      "              'image': {'kind': 'external', 'name': 'mini', 'dim': 32}}}");
    assert_status(test_bundle_make(test_path(folder, "one"), spec, NULL, &err), MR_INVALID, &err);
    assert_contains(err.message, "'encoders.item' and 'encoders.image' are one encoder");
}

/* ---- a bundle.json that is wrong ------------------------------------------------------------- */

typedef struct {
    const char *what, *patch;
    mr_status status;
    const char *message;
} json_case;

static const json_case json_cases[] = {
    {"unknown key", "{'prefx': []}", MR_INVALID,
     "bundle.json: unknown key 'prefx'; did you mean 'prefix'?"},
    {"unknown key of the score", "{'score': {'temprature': 1}}", MR_INVALID,
     "unknown key 'temprature'; did you mean 'temperature'?"},
    {"unknown encoder", "{'encoders': {'itm': {}}}", MR_INVALID,
     "bundle.json: encoders: unknown key 'itm'; did you mean 'item'?"},
    {"unknown key of an encoder", "{'encoders': {'item': {'max_token': 3}}}", MR_INVALID,
     "encoders.item: unknown key 'max_token'; did you mean 'max_tokens'?"},
    {"unknown projector", "{'projectors': {'users': 'x'}}", MR_INVALID,
     "projectors: unknown key 'users'; did you mean 'user'?"},
    {"unknown default", "{'defaults': {'instructions': 'x'}}", MR_INVALID,
     "did you mean 'instruction'?"},
    {"unknown key of a segment", "{'suffix': [{'slto': 'item'}]}", MR_INVALID,
     "did you mean 'slot'?"},
    {"a first phase", "{'phase1': {}}", MR_UNSUPPORTED, "'phase1' is not computed by this version"},
    {"pictures without a width", "{'encoders': {'image': {'kind': 'clip', 'path': 'vision/'}}}",
     MR_INVALID, "encoders.image: 'dim' is missing"},
    {"tokens of a picture that are no square",
     "{'encoders': {'image': {'kind': 'clip', 'path': 'vision/', 'dim': 32, 'tokens': 3}}}",
     MR_INVALID, "encoders.image: 'tokens' is 3, expected a square"},
    {"an image slot without an encoder", "{'suffix': [{'slot': 'item'}, {'slot': 'image'}]}",
     MR_INVALID, "there is no 'encoders.image' to fill it"},
    {"an image slot in the prefix", "{'prefix': [{'slot': 'image'}]}", MR_INVALID,
     "'prefix' has an image slot; it belongs in 'suffix'"},
    {"a later format", "{'format': 2}", MR_INVALID, "'format' is the number 2, expected"},
    {"no name", "{'name': null}", MR_INVALID, "'name' is missing, expected a string"},
    {"a name that is a number", "{'name': 3}", MR_INVALID, "'name' is the number 3"},
    {"an unknown mode", "{'mode': 'texts'}", MR_INVALID,
     "'mode' is 'texts', expected 'mixed' or 'text'"},
    {"text mode with an item slot", "{'mode': 'text'}", MR_INVALID,
     "'mode' is 'text', but 'suffix' has an item slot"},
    {"mixed mode without one", "{'suffix': ['x']}", MR_INVALID,
     "'mode' is 'mixed', but 'suffix' has no item slot"},
    {"an item slot in the prefix", "{'prefix': [{'slot': 'item'}]}", MR_INVALID,
     "'prefix' has an item slot; it belongs in 'suffix'"},
    {"a user slot in the suffix", "{'suffix': [{'slot': 'item'}, {'slot': 'user'}]}", MR_INVALID,
     "'suffix' has a user slot; it belongs in 'prefix'"},
    {"an item slot without an encoder", "{'encoders': null, 'spaces': null}", MR_INVALID,
     "there is no 'encoders.item' to fill it"},
    {"a user slot without an encoder", "{'encoders': {'user': null}, 'spaces': {'user': null}}",
     MR_INVALID, "there is no 'encoders.user' to fill it"},
    {"a history without items", "{'encoders': {'item': null}}", MR_INVALID,
     "a history is made of item vectors, but there is no 'encoders.item'"},
    {"a template that is no list", "{'prefix': 'Query'}", MR_INVALID, "'prefix' is the string"},
    {"a token that is two", "{'suffix': [{'slot': 'item'}, {'token': 'red kettle'}]}", MR_INVALID,
     "'suffix'"},
    {"a yes of several tokens", "{'score': {'yes': 'yes please'}}", MR_INVALID,
     "'score.yes' is 'yes please', which is "},
    {"labels that are one", "{'score': {'yes': 569, 'no': 569}}", MR_INVALID,
     "'score.yes' and 'score.no' are both token 569"},
    {"a label outside the vocabulary", "{'score': {'yes': 640}}", MR_INVALID,
     "'score.yes' is id 640, outside the vocabulary of 640"},
    {"a negative label", "{'score': {'no': -1}}", MR_INVALID, "'score.no' is id -1"},
    {"a label of another type", "{'score': {'yes': true}}", MR_INVALID,
     "'score.yes' is true, expected a token or its id"},
    {"no label", "{'score': {'no': null}}", MR_INVALID, "'score.no' is"},
    {"no score", "{'score': null}", MR_INVALID, "'score' is missing, expected an object"},
    {"an unknown score", "{'score': {'kind': 'softmax'}}", MR_UNSUPPORTED,
     "'score.kind' is 'softmax'; known is yes_no"},
    {"a temperature of nothing", "{'score': {'temperature': 0}}", MR_INVALID,
     "'temperature' is the number 0, expected a number from"},
    {"a short max_length", "{'max_length': 4}", MR_INVALID,
     "'max_length' is the number 4, expected an integer from 8"},
    {"an llm that leaves the folder", "{'llm': '../llm'}", MR_INVALID, "'llm'"},
    {"an llm by an absolute path", "{'llm': '/tmp/llm'}", MR_INVALID, "'llm'"},
    {"an llm that is not there", "{'llm': 'other/'}", MR_NOT_FOUND, "other"},
    {"an encoder that leaves the folder", "{'encoders': {'item': {'path': 'a/../../encoder'}}}",
     MR_INVALID, "encoder"},
    {"an encoder whose files are not listed", "{'encoders': {'item': {'path': 'other/'}}}",
     MR_INVALID, "'files' has none of its folder"},
    {"a projector that leaves the folder", "{'projectors': {'item': '../p.safetensors'}}",
     MR_INVALID, "'projectors'"},
    {"a projector that is not there", "{'projectors': {'item': 'p.safetensors'}}", MR_NOT_FOUND,
     "'projectors.item'"},
    {"a projector that is no name", "{'projectors': {'item': {'kind': 'mlp'}}}", MR_INVALID,
     "'projectors.item' is an object, expected a file name"},
    {"a projector without an encoder",
     "{'encoders': {'user': null}, 'spaces': {'user': null}, 'projectors': {'user': 'p'},"
     " 'prefix': [{'field': 'query'}]}",
     MR_INVALID, "'projectors.user' is given, but there is no 'encoders.user'"},
    {"golden requests that leave the folder", "{'golden': '../golden.json'}", MR_INVALID,
     "'golden'"},
    {"golden requests that are not there", "{'golden': 'golden.json'}", MR_NOT_FOUND,
     "golden.json"},
    {"an encoder of an unknown kind", "{'encoders': {'item': {'kind': 'clip'}}}", MR_UNSUPPORTED,
     "'kind' is 'clip'; known for it are causal_last_n and external"},
    {"a history as item encoder", "{'encoders': {'item': {'kind': 'history'}}}", MR_UNSUPPORTED,
     "'kind' is 'history'"},
    {"a text encoder as user encoder", "{'encoders': {'user': {'kind': 'causal_last_n'}}}",
     MR_UNSUPPORTED, "known for it are external and history"},
    {"a user encoder without a width", "{'encoders': {'user': {'path': 'user/'}}}", MR_INVALID,
     "'dim' is missing"},
    {"an unknown order", "{'encoders': {'user': {'order': 'random'}}}", MR_INVALID,
     "'order' is 'random', expected 'set' or 'sequence'"},
    {"more user tokens than a record holds",
     "{'encoders': {'item': {'tokens': 50}, 'user': {'tokens': 256}}}", MR_INVALID,
     "256 items of up to 50 tokens are more than the 1024"},
    {"51 embedding tokens", "{'encoders': {'item': {'tokens': 51}}}", MR_INVALID,
     "'tokens' is the number 51, expected an integer from 1 to 50"},
    {"no space", "{'spaces': {'item': null}}", MR_INVALID, "'spaces.item' is missing"},
    {"a space that is none", "{'spaces': {'item': '9F00000000000000'}}", MR_INVALID,
     "'spaces.item'"},
    {"another encoder's space", "{'spaces': {'item': '00000000000000ff'}}", MR_MISMATCH,
     "'spaces.item' is 00000000000000ff, but the encoder's description and files hash to"},
    {"a space of other settings", "{'encoders': {'item': {'max_tokens': 32}}}", MR_MISMATCH,
     "stored vectors of"},
    {"a space of other files", "{'files': {'encoder/model.safetensors': '00'}}", MR_MISMATCH,
     "'spaces.item' is"},
    {"a user space of other items", "{'spaces': {'user': '0000000000000001'}}", MR_MISMATCH,
     "'spaces.user' is"},
};

static void a_wrong_bundle_json_is_one_clear_error(void **state)
{
    (void)state;
    const char *path = new_bundle("b");
    size_t len;
    char *good = test_file_read(test_path(path, "bundle.json"), &len);
    for (size_t i = 0; i < COUNT(json_cases); i++) {
        const json_case *row = &json_cases[i];
        mr_bundle *bundle = NULL;
        mr_error err = {0};
        test_file_write(test_path(path, "bundle.json"), good, len);
        test_bundle_edit(path, apply_patch, row->patch);
        const mr_status status = mr_bundle_open(&bundle, path, NULL, &err);
        if (status != row->status || !strstr(err.message, row->message) || bundle)
            fail_msg("%s: gave %s '%s', expected %s '%s'", row->what, mr_status_name(status),
                     err.message, mr_status_name(row->status), row->message);
        assert_contains(err.message, path);
    }
    test_file_write(test_path(path, "bundle.json"), good, len);
    mr_bundle_close(test_bundle_open(path, 1));
    free(good);
}

static void a_bundle_json_cut_anywhere_is_refused(void **state)
{
    (void)state;
    const char *path = new_bundle("b"), *file = test_path(path, "bundle.json");
    size_t len;
    char *good = test_file_read(file, &len);
    for (size_t cut = 0; cut + 2 < len; cut += cut < 64 ? 1 : 37) {
        mr_bundle *bundle = NULL;
        mr_error err = {0};
        test_file_write(file, good, cut);
        assert_status(mr_bundle_open(&bundle, path, NULL, &err), MR_CORRUPT, &err);
        assert_contains(err.message, "bundle.json");
    }
    free(good);
}

/* ---- files that are wrong -------------------------------------------------------------------- */

static void expect_open(const char *path, mr_status status, const char *message)
{
    mr_bundle *bundle = NULL;
    mr_error err = {0};
    assert_status(mr_bundle_open(&bundle, path, NULL, &err), status, &err);
    assert_contains(err.message, message);
    assert_null(bundle);
}

static void a_file_that_is_missing_is_named(void **state)
{
    static const struct {
        const char *file;
        mr_status status;
        const char *message;
    } row[] = {
        {"bundle.json", MR_NOT_FOUND, "no bundle.json there; is it a bundle folder?"},
        {"llm/tokenizer.json", MR_NOT_FOUND, "llm/tokenizer.json"},
        {"llm/config.json", MR_NOT_FOUND, "llm/config.json"},
        {"llm/model.safetensors", MR_NOT_FOUND, "llm"},
        {"encoder/model.safetensors", MR_NOT_FOUND, "encoders.item"},
    };
    (void)state;
    expect_open(test_path(folder, "nowhere"), MR_NOT_FOUND, "no bundle.json there");
    for (size_t i = 0; i < COUNT(row); i++) {
        char name[16];
        snprintf(name, sizeof name, "b%zu", i);
        const char *path = new_bundle(name);
        assert_int_equal(unlink(test_path(path, row[i].file)), 0);
        expect_open(path, row[i].status, row[i].message);
    }
}

static void a_tokenizer_of_a_larger_model_is_refused(void **state)
{
    (void)state;
    json_t *root = NULL;
    mr_error err = {0};
    const char *path = new_bundle("b"), *file = test_path(path, "llm/tokenizer.json");
    assert_status(mr_json_load_file(&root, file, MR_JSON_MAX_TOKENIZER, &err), MR_OK, &err);
    for (int id = 633; id <= 640; id++)
        json_array_append_new(json_object_get(root, "added_tokens"),
                              test_json("{'id': %d, 'content': '<|more %d|>', 'single_word': false,"
                                        " 'lstrip': false, 'rstrip': false, 'normalized': false,"
                                        " 'special': true}",
                                        id, id));
    assert_status(mr_json_save_file(root, file, &err), MR_OK, &err);
    json_decref(root);
    expect_open(path, MR_MISMATCH, "tokenizer.json has ids up to 640, the model has embeddings");
}

static void an_encoder_cut_short_is_found_at_the_start(void **state)
{
    (void)state;
    const char *path = new_bundle("b"), *file = test_path(path, "encoder/model.safetensors");
    size_t len;
    char *good = test_file_read(file, &len);
    test_file_write(file, good, len - 1);
    expect_open(path, MR_CORRUPT, "encoders.item");
    free(good);
}

/* ---- untrained ------------------------------------------------------------------------------- */

static void an_untrained_bundle_says_so(void **state)
{
    (void)state;
    mr_error err = {0};
    const mr_untrained_shape *tiny = mr_untrained_find("tiny");
    mr_untrained_bundle_options opt = {
        .shape = tiny, .dtype = tiny->dtype, .seed = 3, .item_tokens = 4, .user_tokens = 3};
    const char *a = test_path(folder, "a"), *b = test_path(folder, "b/"),
               *c = test_path(folder, "c");
    assert_status(mr_untrained_bundle_write(a, &opt, &err), MR_OK, &err);
    assert_status(mr_untrained_bundle_write(b, &opt, &err), MR_OK, &err);
    opt.seed = 4;
    assert_status(mr_untrained_bundle_write(c, &opt, &err), MR_OK, &err);
    assert_int_equal(test_count_entries(folder), 3);
    assert_status(mr_bundle_verify(a, &err), MR_OK, &err);
    mr_bundle *one = test_bundle_open(a, 1), *two = test_bundle_open(b, 1),
              *other = test_bundle_open(c, 1);
    assert_true(mr_bundle_is_untrained(one));
    assert_int_equal(one->item.tokens, 4);
    assert_true(mr_bundle_item_space(one) == mr_bundle_item_space(two));
    assert_true(mr_bundle_item_space(one) != mr_bundle_item_space(other));
    mr_bundle_close(one);
    mr_bundle_close(two);
    mr_bundle_close(other);
    assert_status(mr_untrained_bundle_write(c, &opt, &err), MR_EXISTS, &err);
    assert_contains(err.message, "--force replaces it");
    opt.overwrite = true;
    assert_status(mr_untrained_bundle_write(c, &opt, &err), MR_OK, &err);
    assert_int_equal(test_count_entries(folder), 3);
}

/* The ranking model is trained, what made the items is not: the order means nothing all the same.
 */
static void an_untrained_encoder_makes_the_bundle_untrained(void **state)
{
    (void)state;
    mr_error err = {0};
    const char *encoder = test_path(folder, "encoder"), *path = test_path(folder, "b");
    mr_model_config config = mr_untrained_find("tiny")->config;
    config.C = 32;
    config.bos_id = config.eos_id = 630;
    mr_untrained_options weights = MR_UNTRAINED_OPTIONS_DEFAULT;
    assert_status(mr_untrained_write(encoder, &config, &weights, &err), MR_OK, &err);
    assert_status(mr_file_copy("data/mixed/encoder/tokenizer.json",
                               test_path(encoder, "tokenizer.json"), &err),
                  MR_OK, &err);
    json_t *spec = test_mixed_spec(1);
    const mr_bundle_create_options opt = {
        .spec = spec, .llm = "data/mixed/llm", .item_encoder = encoder, .link = true};
    assert_status(mr_bundle_create(path, &opt, &err), MR_OK, &err);
    json_decref(spec);
    mr_bundle *bundle = test_bundle_open(path, 1);
    assert_true(mr_bundle_is_untrained(bundle));
    mr_bundle_close(bundle);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, drop_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(a_bundle_says_what_it_is),
        IN_FOLDER(one_external_encoder_for_texts_and_pictures_is_refused),
        IN_FOLDER(a_space_is_what_decides_the_vectors_and_nothing_else),
        IN_FOLDER(a_score_is_the_sigmoid_of_the_scaled_margin),
        IN_FOLDER(vectors_from_outside_go_through_their_projector),
        IN_FOLDER(a_wrong_bundle_json_is_one_clear_error),
        IN_FOLDER(a_bundle_json_cut_anywhere_is_refused),
        IN_FOLDER(a_file_that_is_missing_is_named),
        IN_FOLDER(a_tokenizer_of_a_larger_model_is_refused),
        IN_FOLDER(an_encoder_cut_short_is_found_at_the_start),
        IN_FOLDER(an_untrained_bundle_says_so),
        IN_FOLDER(an_untrained_encoder_makes_the_bundle_untrained),
    };
    return cmocka_run_group_tests_name("bundle", tests, NULL, NULL);
}

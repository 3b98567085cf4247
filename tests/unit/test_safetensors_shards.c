/* test_safetensors_shards.c - folders, and indexes of shards that are right, wrong or hostile.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "engine/safetensors.h"
#include "tests/support.h"

static const float values[4] = {1, 2, 3, 4};
static const char *const note[] = {"note", "in the second", NULL};

/* one: a; two: b and spare. */
static char *sharded_folder(void)
{
    static const mr_tensor one[] = {{"a", values, MR_DTYPE_F32, 1, {4}, 16}};
    static const mr_tensor two[] = {{"b", values + 1, MR_DTYPE_F32, 1, {2}, 8},
                                    {"spare", values, MR_DTYPE_F32, 1, {1}, 4}};
    mr_error err = {0};
    char *folder = test_folder_new();
    assert_status(mr_safetensors_write(test_path(folder, "one.safetensors"), one, 1, NULL, &err),
                  MR_OK, &err);
    assert_status(mr_safetensors_write(test_path(folder, "two.safetensors"), two, 2, note, &err),
                  MR_OK, &err);
    return folder;
}

static const char *write_index(const char *folder, const char *text)
{
    const char *path = test_path(folder, "model.safetensors.index.json");
    test_file_write(path, text, strlen(text));
    return path;
}

static const char good_index[] = "{\"metadata\":{\"total_size\":24},\"weight_map\":{"
                                 "\"b\":\"two.safetensors\",\"a\":\"one.safetensors\"}}";

static void an_index_gives_the_tensors_that_it_names(void **state)
{
    (void)state;
    mr_error err = {0};
    char *folder = sharded_folder();
    const char *index = write_index(folder, good_index);
    const char *const paths[] = {folder, index};
    for (size_t i = 0; i < 2; i++) {
        mr_safetensors *file = NULL;
        assert_status(mr_safetensors_open(&file, paths[i], &err), MR_OK, &err);
        assert_int_equal(mr_safetensors_count(file), 2);
        assert_string_equal(mr_safetensors_at(file, 0)->name, "a");
        assert_string_equal(mr_safetensors_at(file, 1)->name, "b");
        assert_memory_equal(mr_safetensors_find(file, "b")->data, values + 1, 8);
        assert_null(mr_safetensors_find(file, "spare"));
        assert_string_equal(mr_safetensors_metadata(file, "note"), "in the second");

        struct stat one, two;
        assert_int_equal(stat(test_path(folder, "one.safetensors"), &one), 0);
        assert_int_equal(stat(test_path(folder, "two.safetensors"), &two), 0);
        assert_int_equal(mr_safetensors_bytes(file), one.st_size + two.st_size);
        mr_safetensors_close(file);
    }
    test_folder_free(folder);
}

static void an_index_is_found_from_its_own_folder(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_safetensors *file = NULL;
    char *folder = sharded_folder();
    write_index(folder, good_index);
    char *before = realpath(".", NULL);
    assert_int_equal(chdir(folder), 0);
    mr_status status = mr_safetensors_open(&file, "model.safetensors.index.json", &err);
    assert_int_equal(chdir(before), 0);
    assert_status(status, MR_OK, &err);
    assert_int_equal(mr_safetensors_count(file), 2);
    mr_safetensors_close(file);
    free(before);
    test_folder_free(folder);
}

static void a_single_file_wins_over_an_index(void **state)
{
    (void)state;
    static const mr_tensor only[] = {{"only", values, MR_DTYPE_F32, 1, {1}, 4}};
    mr_error err = {0};
    mr_safetensors *file = NULL;
    char *folder = sharded_folder();
    write_index(folder, good_index);
    assert_status(mr_safetensors_write(test_path(folder, "model.safetensors"), only, 1, NULL, &err),
                  MR_OK, &err);
    assert_status(mr_safetensors_open(&file, folder, &err), MR_OK, &err);
    assert_int_equal(mr_safetensors_count(file), 1);
    mr_safetensors_close(file);
    test_folder_free(folder);
}

static void wrong_indexes_are_refused_and_say_why(void **state)
{
    (void)state;
    static const struct {
        const char *index;
        mr_status status;
        const char *message;
    } row[] = {
        {"", MR_CORRUPT, "index.json"},
        {"[]", MR_CORRUPT, "'weight_map' is missing"},
        {"{}", MR_CORRUPT, "'weight_map' is missing"},
        {"{\"weight_map\":[]}", MR_CORRUPT, "'weight_map' is an array"},
        {"{\"weight_map\":{\"a\":1}}", MR_CORRUPT, "'a' is the number 1, expected a file name"},
        {"{\"weight_map\":{\"a\":\"one.safetensors\",\"a\":\"one.safetensors\"}}", MR_CORRUPT,
         "duplicate"},
        {"{\"weight_map\":{\"a\":\"\"}}", MR_CORRUPT, "plain file name"},
        {"{\"weight_map\":{\"a\":\".\"}}", MR_CORRUPT, "plain file name"},
        {"{\"weight_map\":{\"a\":\"..\"}}", MR_CORRUPT, "plain file name"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", MR_CORRUPT, "'/etc/passwd'"},
        {"{\"weight_map\":{\"a\":\"../one.safetensors\"}}", MR_CORRUPT, "plain file name"},
        {"{\"weight_map\":{\"a\":\"sub/one.safetensors\"}}", MR_CORRUPT, "plain file name"},
        {"{\"weight_map\":{\"a\":\"sub\\\\one.safetensors\"}}", MR_CORRUPT, "plain file name"},
        {"{\"weight_map\":{\"a\":\"one.safetensors\\u0000x\"}}", MR_CORRUPT, "plain file name"},
        {"{\"weight_map\":{\"a\":\"three.safetensors\"}}", MR_NOT_FOUND,
         "shard 'three.safetensors' is missing beside the index"},
        {"{\"weight_map\":{\"a\":\"two.safetensors\"}}", MR_CORRUPT,
         "tensor 'a' is said to be in shard 'two.safetensors', which does not hold it"},
        {"{\"weight_map\":{\"c\":\"one.safetensors\"}}", MR_CORRUPT, "tensor 'c'"},
        {"{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"broken.safetensors\"}}", MR_CORRUPT,
         "broken.safetensors: has 3 bytes"},
        {"{\"weight_map\":{\"a\":\"folder.safetensors\"}}", MR_INVALID, "folder.safetensors"},
    };
    char *folder = sharded_folder();
    test_file_write(test_path(folder, "broken.safetensors"), "xyz", 3);
    assert_int_equal(mkdir(test_path(folder, "folder.safetensors"), 0700), 0);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_error err = {0};
        mr_safetensors *file = NULL;
        print_message("%s\n", row[i].index);
        write_index(folder, row[i].index);
        assert_status(mr_safetensors_open(&file, folder, &err), row[i].status, &err);
        assert_null(file);
        assert_contains(err.message, row[i].message);
    }
    test_folder_free(folder);
}

static void an_empty_index_holds_nothing(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_safetensors *file = NULL;
    char *folder = test_folder_new();
    write_index(folder, "{\"weight_map\":{}}");
    assert_status(mr_safetensors_open(&file, folder, &err), MR_OK, &err);
    assert_int_equal(mr_safetensors_count(file), 0);
    assert_null(mr_safetensors_find(file, "a"));
    mr_safetensors_close(file);
    test_folder_free(folder);
}

static void a_shard_cut_at_any_length_names_the_shard(void **state)
{
    (void)state;
    char *folder = sharded_folder();
    const char *index = write_index(folder, good_index);
    const char *shard = test_path(folder, "two.safetensors");
    size_t len;
    char *bytes = test_file_read(shard, &len);
    for (size_t n = 0; n < len; n++) {
        mr_error err = {0};
        mr_safetensors *file = NULL;
        test_file_write(shard, bytes, n);
        assert_status(mr_safetensors_open(&file, index, &err), MR_CORRUPT, &err);
        assert_null(file);
        assert_contains(err.message, "two.safetensors");
    }
    free(bytes);
    test_folder_free(folder);
}

static void a_folder_without_weights_says_what_was_looked_for(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_safetensors *file = NULL;
    char *folder = test_folder_new();
    test_file_write(test_path(folder, "pytorch_model.bin"), "x", 1);
    assert_status(mr_safetensors_open(&file, folder, &err), MR_NOT_FOUND, &err);
    assert_contains(err.message,
                    "holds neither model.safetensors nor model.safetensors.index.json");
    assert_status(mr_safetensors_open(&file, test_path(folder, "none"), &err), MR_NOT_FOUND, &err);
    assert_contains(err.message, "none");
    assert_null(file);
    mr_safetensors_close(NULL);
    test_folder_free(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_index_gives_the_tensors_that_it_names),
        cmocka_unit_test(an_index_is_found_from_its_own_folder),
        cmocka_unit_test(a_single_file_wins_over_an_index),
        cmocka_unit_test(wrong_indexes_are_refused_and_say_why),
        cmocka_unit_test(an_empty_index_holds_nothing),
        cmocka_unit_test(a_shard_cut_at_any_length_names_the_shard),
        cmocka_unit_test(a_folder_without_weights_says_what_was_looked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

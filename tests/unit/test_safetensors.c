/* test_safetensors.c - reading and writing single files, and what hostile ones meet.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/file.h"
#include "engine/safetensors.h"
#include "tests/support.h"

/* Exactly as long as the file, so that the sanitizer sees one byte read too many. */
typedef struct {
    unsigned char *data;
    size_t len;
} blob;

static blob file_of(const char *header, size_t payload)
{
    const size_t n = strlen(header);
    blob b = {malloc(8 + n + payload), 8 + n + payload};
    assert_non_null(b.data);
    mr_store_u64le(b.data, n);
    memcpy(b.data + 8, header, n);
    for (size_t i = 0; i < payload; i++)
        b.data[8 + n + i] = (unsigned char)i;
    return b;
}

static blob first_bytes_of(blob whole, size_t len)
{
    blob b = {malloc(len ? len : 1), len};
    assert_non_null(b.data);
    memcpy(b.data, whole.data, len);
    return b;
}

static mr_status parse(mr_safetensors **out, blob b, mr_error *err)
{
    return mr_safetensors_parse(out, "w.safetensors", b.data, b.len, err);
}

/* Every byte of every tensor can be read. */
static unsigned touch(const mr_safetensors *file)
{
    unsigned sum = 0;
    for (size_t i = 0; i < mr_safetensors_count(file); i++) {
        const mr_tensor *tensor = mr_safetensors_at(file, i);
        for (size_t k = 0; k < tensor->bytes; k++)
            sum += ((const unsigned char *)tensor->data)[k];
        assert_ptr_equal(mr_safetensors_find(file, tensor->name), tensor);
    }
    return sum;
}

static const char good[] =
    "{\"__metadata__\":{\"format\":\"pt\",\"note\":\"two words\"},"
    "\"b\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[3,27]},"
    "\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},"
    "\"empty\":{\"dtype\":\"BF16\",\"shape\":[0,9000000000],\"data_offsets\":[3,3]},"
    "\"scalar\":{\"data_offsets\":[27,29],\"shape\":[],\"dtype\":\"F16\",\"extra\":[1]}}   ";

static void a_good_file_gives_its_tensors_by_name(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_safetensors *file = NULL;
    blob b = file_of(good, 29);
    assert_status(parse(&file, b, &err), MR_OK, &err);

    static const char *const names[] = {"a", "b", "empty", "scalar"};
    assert_int_equal(mr_safetensors_count(file), 4);
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(mr_safetensors_at(file, i)->name, names[i]);
    assert_null(mr_safetensors_at(file, 4));
    assert_null(mr_safetensors_find(file, "c"));

    const mr_tensor *matrix = mr_safetensors_find(file, "b");
    assert_int_equal(matrix->dtype, MR_DTYPE_F32);
    assert_int_equal(matrix->n_dims, 2);
    assert_int_equal(matrix->shape[0], 2);
    assert_int_equal(matrix->shape[1], 3);
    assert_int_equal(matrix->bytes, 24);
    assert_int_equal(*(const unsigned char *)matrix->data, 3); /* odd: no alignment promised */
    assert_int_equal(mr_safetensors_find(file, "scalar")->n_dims, 0);
    assert_int_equal(mr_safetensors_find(file, "empty")->bytes, 0);

    assert_string_equal(mr_safetensors_metadata(file, "note"), "two words");
    assert_null(mr_safetensors_metadata(file, "other"));
    assert_int_equal(mr_safetensors_bytes(file), b.len);
    assert_string_equal(mr_safetensors_name(file), "w.safetensors");
    mr_safetensors_close(file);
    free(b.data);
}

static void every_dtype_is_known_by_its_size(void **state)
{
    (void)state;
    for (int d = 0; d < MR_DTYPE_COUNT; d++) {
        char header[160];
        mr_error err = {0};
        mr_safetensors *file = NULL;
        const size_t size = mr_dtype_size((mr_dtype)d);
        snprintf(header, sizeof header,
                 "{\"x\":{\"dtype\":\"%s\",\"shape\":[5],\"data_offsets\":[0,%zu]}}",
                 mr_dtype_name((mr_dtype)d), 5 * size);
        blob b = file_of(header, 5 * size);
        assert_status(parse(&file, b, &err), MR_OK, &err);
        assert_int_equal(mr_safetensors_find(file, "x")->dtype, d);
        mr_safetensors_close(file);
        free(b.data);
    }
}

static void a_file_without_tensors_is_fine(void **state)
{
    (void)state;
    static const char *const headers[] = {"{}", "{}      ", "{\"__metadata__\":{}}"};
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        mr_error err = {0};
        mr_safetensors *file = NULL;
        blob b = file_of(headers[i], 0);
        assert_status(parse(&file, b, &err), MR_OK, &err);
        assert_int_equal(mr_safetensors_count(file), 0);
        assert_null(mr_safetensors_find(file, "x"));
        mr_safetensors_close(file);
        free(b.data);
    }
}

#define X(dtype, shape, offsets) \
    "\"x\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define Y(dtype, shape, offsets) \
    "\"y\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void hostile_headers_are_refused_and_say_why(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t payload;
        mr_status status;
        const char *message;
    } row[] = {
        {"[]", 0, MR_CORRUPT, "does not start with '{'"},
        {" {}", 0, MR_CORRUPT, "does not start with '{'"},
        {"\"x\"", 0, MR_CORRUPT, "does not start with '{'"},
        {"{", 0, MR_CORRUPT, "w.safetensors"},
        {"{} x", 0, MR_CORRUPT, "w.safetensors"},
        {"{\"x\":\"\xff\"}", 0, MR_CORRUPT, "UTF-8"},
        {"{\"x\":3}", 0, MR_CORRUPT, "tensor 'x' is the number 3, expected an object"},
        {"{\"x\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, MR_CORRUPT, "'x' has no 'dtype'"},
        {"{\"x\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, MR_CORRUPT, "has no 'shape'"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, MR_CORRUPT, "has no 'data_offsets'"},
        {"{" X("F99", "[1]", "[0,4]") "}", 4, MR_CORRUPT, "\"F99\", which is not known"},
        {"{" X("f32", "[1]", "[0,4]") "}", 4, MR_CORRUPT, "\"f32\", which is not known"},
        {"{" X("F32\\u0000", "[1]", "[0,4]") "}", 4, MR_CORRUPT, "which is not known"},
        {"{\"x\":{\"dtype\":32,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, MR_CORRUPT,
         "the number 32, which is not known"},
        {"{" X("F32", "{}", "[0,4]") "}", 4, MR_CORRUPT, "'shape' is an object"},
        {"{" X("F32", "[-1]", "[0,4]") "}", 4, MR_CORRUPT, "'shape' holds the number -1"},
        {"{" X("F32", "[1.0]", "[0,4]") "}", 4, MR_CORRUPT, "expected integers from 0"},
        {"{" X("F32", "[\"1\"]", "[0,4]") "}", 4, MR_CORRUPT, "the string \"1\""},
        {"{" X("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, MR_UNSUPPORTED,
         "has 9 dimensions, at most 8"},
        {"{" X("F32", "[1]", "[0]") "}", 4, MR_CORRUPT, "two integers"},
        {"{" X("F32", "[1]", "[0,4,8]") "}", 4, MR_CORRUPT, "two integers"},
        {"{" X("F32", "[1]", "[0,\"4\"]") "}", 4, MR_CORRUPT, "two integers"},
        {"{" X("F32", "[1]", "[0,4.0]") "}", 4, MR_CORRUPT, "two integers"},
        {"{" X("F32", "[1]", "[-4,0]") "}", 4, MR_CORRUPT, "not inside the file's 4 bytes"},
        {"{" X("F32", "[1]", "[4,0]") "}", 4, MR_CORRUPT, "bytes [4, 0) are not inside"},
        {"{" X("F32", "[1]", "[0,8]") "}", 4, MR_CORRUPT, "bytes [0, 8) are not inside"},
        {"{" X("F32", "[1]", "[0,18446744073709551620]") "}", 4, MR_CORRUPT,
         "integer that is too large"},
        {"{" X("F32", "[2]", "[0,4]") "}", 4, MR_CORRUPT,
         "tensor 'x' is F32 [2], 8 bytes, but its range has 4"},
        {"{" X("F32", "[4611686018427387905]", "[0,4]") "}", 4, MR_CORRUPT, "overflows"},
        {"{" X("U8", "[4294967296,4294967296]", "[0,0]") "}", 0, MR_CORRUPT, "overflows"},
        {"{" X("U8", "[9223372036854775807,9223372036854775807,0]", "[0,0]") "}", 0, MR_CORRUPT,
         "overflows"},
        {"{" X("U8", "[9223372036854775808]", "[0,0]") "}", 0, MR_CORRUPT,
         "integer that is too large"},
        {"{" X("U8", "[4]", "[0,4]") "," Y("U8", "[4]", "[2,6]") "}", 6, MR_CORRUPT,
         "tensor 'y' begins at byte 2, inside 'x', which ends at 4"},
        {"{" X("U8", "[4]", "[0,4]") "," Y("U8", "[4]", "[0,4]") "}", 4, MR_CORRUPT, "inside"},
        {"{" X("U8", "[4]", "[0,4]") "," Y("U8", "[0]", "[2,2]") "}", 4, MR_CORRUPT, "inside"},
        {"{" X("U8", "[4]", "[1,5]") "}", 5, MR_CORRUPT,
         "bytes 0 to 1, in front of tensor 'x', belong to no tensor"},
        {"{" X("U8", "[2]", "[0,2]") "," Y("U8", "[2]", "[3,5]") "}", 5, MR_CORRUPT,
         "bytes 2 to 3, in front of tensor 'y'"},
        {"{" X("U8", "[4]", "[0,4]") "}", 5, MR_CORRUPT,
         "end at byte 4, but the file has 5 bytes of data"},
        {"{}", 1, MR_CORRUPT, "end at byte 0, but the file has 1 bytes of data"},
        {"{" X("U8", "[1]", "[0,1]") "," X("U8", "[1]", "[1,2]") "}", 2, MR_CORRUPT, "duplicate"},
        {"{\"x\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
         MR_CORRUPT, "duplicate"},
        {"{\"__metadata__\":[]}", 0, MR_CORRUPT, "'__metadata__' is an array"},
        {"{\"__metadata__\":{\"a\":1}}", 0, MR_CORRUPT, "'a' is the number 1, expected a string"},
        {"{\"__metadata__\":{\"a\":null}}", 0, MR_CORRUPT, "'a' is null, expected a string"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, MR_CORRUPT, "duplicate"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_error err = {0};
        mr_safetensors *file = NULL;
        blob b = file_of(row[i].header, row[i].payload);
        print_message("%s\n", row[i].header);
        assert_status(parse(&file, b, &err), row[i].status, &err);
        assert_null(file);
        assert_contains(err.message, "w.safetensors");
        assert_contains(err.message, row[i].message);
        free(b.data);
    }
}

static void deep_nesting_is_refused(void **state)
{
    (void)state;
    enum { DEPTH = 100000 };
    char *header = calloc(1, DEPTH + 8);
    assert_non_null(header);
    memcpy(header, "{\"x\":", 5);
    memset(header + 5, '[', DEPTH);
    mr_error err = {0};
    mr_safetensors *file = NULL;
    blob b = file_of(header, 0);
    assert_status(parse(&file, b, &err), MR_CORRUPT, &err);
    assert_contains(err.message, "nested deeper");
    free(b.data);
    free(header);
}

static void a_file_cut_at_any_length_is_refused(void **state)
{
    (void)state;
    blob whole = file_of(good, 29);
    for (size_t len = 0; len < whole.len; len++) {
        mr_error err = {0};
        mr_safetensors *file = NULL;
        blob b = first_bytes_of(whole, len);
        assert_status(parse(&file, b, &err), MR_CORRUPT, &err);
        assert_null(file);
        assert_contains(err.message, "w.safetensors: ");
        free(b.data);
    }
    free(whole.data);
}

static void a_lying_header_length_is_refused(void **state)
{
    (void)state;
    static const struct {
        uint64_t length;
        const char *message;
    } row[] = {
        {0, "does not start with '{'"},
        {1, "w.safetensors"},
        {1000, "says that its header has 1000 bytes, but only"},
        {100000000, "is the file cut short?"},
        {100000001, "the format allows 100000000"},
        {UINT64_MAX, "the format allows 100000000"},
        {UINT64_MAX - 7, "the format allows 100000000"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_error err = {0};
        mr_safetensors *file = NULL;
        blob b = file_of(good, 29);
        mr_store_u64le(b.data, row[i].length);
        assert_status(parse(&file, b, &err), MR_CORRUPT, &err);
        assert_contains(err.message, row[i].message);
        free(b.data);
    }
}

static void any_changed_byte_is_refused_or_stays_in_bounds(void **state)
{
    (void)state;
    static const unsigned char values[] = {0, ' ', '"', '0', '9', ',', '[', '{', '}', 0x80, 0xff};
    blob b = file_of(good, 29);
    unsigned refused = 0, read = 0;
    for (size_t at = 0; at < b.len; at++) {
        const unsigned char old = b.data[at];
        for (size_t v = 0; v < sizeof values; v++) {
            mr_safetensors *file = NULL;
            b.data[at] = values[v];
            if (parse(&file, b, NULL) == MR_OK) {
                touch(file);
                read++;
            } else {
                assert_null(file);
                refused++;
            }
            mr_safetensors_close(file);
        }
        b.data[at] = old;
    }
    assert_true(refused > 0 && read > 0);
    free(b.data);
}

static void a_git_lfs_pointer_is_named_as_such(void **state)
{
    (void)state;
    static const char pointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:00\n";
    mr_error err = {0};
    mr_safetensors *file = NULL;
    assert_status(mr_safetensors_parse(&file, "w", pointer, sizeof pointer - 1, &err), MR_CORRUPT,
                  &err);
    assert_contains(err.message, "git lfs pull");
}

static void need_checks_presence_shape_and_dtype(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_safetensors *file = NULL;
    mr_tensor tensor = {0};
    blob b = file_of(good, 29);
    assert_status(parse(&file, b, &err), MR_OK, &err);

    static const struct {
        const char *name;
        int n_dims;
        int64_t shape[2];
        mr_status status;
        const char *message;
    } row[] = {
        {"b", 2, {2, 3}, MR_OK, ""},
        {"b", 2, {-1, 3}, MR_OK, ""},
        {"b", 2, {-1, -1}, MR_OK, ""},
        {"scalar", 0, {0, 0}, MR_OK, ""},
        {"b", 2, {3, 2}, MR_MISMATCH, "w.safetensors: tensor 'b' is [2, 3], expected [3, 2]"},
        {"b", 2, {-1, 4}, MR_MISMATCH, "tensor 'b' is [2, 3], expected [?, 4]"},
        {"b", 1, {6, 0}, MR_MISMATCH, "tensor 'b' is [2, 3], expected [6]"},
        {"a", 1, {3, 0}, MR_MISMATCH, "tensor 'a' is U8, expected F32, F16 or BF16"},
        {"c", 1, {3, 0}, MR_NOT_FOUND, "w.safetensors: tensor 'c' is missing"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        assert_status(
            mr_safetensors_need(file, row[i].name, row[i].n_dims, row[i].shape, &tensor, &err),
            row[i].status, &err);
        if (row[i].status == MR_OK)
            assert_string_equal(tensor.name, row[i].name);
        else
            assert_contains(err.message, row[i].message);
    }
    mr_safetensors_close(file);
    free(b.data);
}

static void a_long_shape_is_cut_and_not_overrun(void **state)
{
    (void)state;
    int64_t shape[MR_TENSOR_MAX_DIMS];
    char text[MR_SHAPE_TEXT];
    for (int d = 0; d < MR_TENSOR_MAX_DIMS; d++)
        shape[d] = INT64_MAX;
    mr_shape_text(MR_TENSOR_MAX_DIMS, shape, text);
    assert_true(strlen(text) < MR_SHAPE_TEXT);
    assert_int_equal(text[strlen(text) - 1], ']');
    mr_shape_text(0, shape, text);
    assert_string_equal(text, "[]");
}

static const float weights[6] = {1, -2, 3.5f, 0, 1e-30f, 6e20f};
static const uint16_t halves[2] = {0x3f80, 0xc000};
static const mr_tensor to_write[] = {
    {"z.weight", weights, MR_DTYPE_F32, 2, {3, 2}, sizeof weights},
    {"caf\xc3\xa9 \"quoted\"", halves, MR_DTYPE_BF16, 1, {2}, sizeof halves},
    {"none", NULL, MR_DTYPE_I64, 2, {0, 7}, 0},
    {"scalar", weights + 2, MR_DTYPE_F32, 0, {0}, sizeof(float)},
};
#define N_WRITTEN (sizeof to_write / sizeof *to_write)
static const char *const written_metadata[] = {"format", "pt", "mixrank", "yes", NULL};

static void what_is_written_reads_back_the_same(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_safetensors *file = NULL;
    char *folder = test_folder_new();
    const char *path = test_path(folder, "out.safetensors");
    assert_status(mr_safetensors_write(path, to_write, N_WRITTEN, written_metadata, &err), MR_OK,
                  &err);
    assert_status(mr_safetensors_open(&file, path, &err), MR_OK, &err);
    assert_int_equal(mr_safetensors_count(file), N_WRITTEN);
    for (size_t i = 0; i < N_WRITTEN; i++) {
        const mr_tensor *want = &to_write[i], *got = mr_safetensors_find(file, want->name);
        assert_non_null(got);
        assert_int_equal(got->dtype, want->dtype);
        assert_int_equal(got->n_dims, want->n_dims);
        for (int d = 0; d < want->n_dims; d++)
            assert_int_equal(got->shape[d], want->shape[d]);
        assert_int_equal(got->bytes, want->bytes);
        if (want->bytes)
            assert_memory_equal(got->data, want->data, want->bytes);
    }
    assert_string_equal(mr_safetensors_metadata(file, "mixrank"), "yes");
    mr_safetensors_close(file);

    size_t len;
    char *bytes = test_file_read(path, &len);
    assert_int_equal(mr_load_u64le(bytes) % 8, 0);
    assert_int_equal(bytes[8], '{');
    assert_int_equal(len, 8 + mr_load_u64le(bytes) + sizeof weights + sizeof halves + 4);
    free(bytes);
    test_folder_free(folder);
}

static void writing_piece_by_piece_gives_the_same_file(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_safetensors_writer *writer = NULL;
    char *folder = test_folder_new();
    const char *whole = test_path(folder, "whole"), *pieces = test_path(folder, "pieces");
    assert_status(mr_safetensors_write(whole, to_write, N_WRITTEN, written_metadata, &err), MR_OK,
                  &err);
    assert_status(
        mr_safetensors_writer_open(&writer, pieces, to_write, N_WRITTEN, written_metadata, &err),
        MR_OK, &err);
    for (size_t i = 0; i < N_WRITTEN; i++) {
        for (size_t at = 0; at < to_write[i].bytes; at++)
            assert_status(
                mr_safetensors_writer_append(writer, (const char *)to_write[i].data + at, 1, &err),
                MR_OK, &err);
    }
    assert_false(mr_file_exists(pieces));
    assert_status(mr_safetensors_writer_commit(writer, &err), MR_OK, &err);

    size_t n, m;
    char *a = test_file_read(whole, &n), *b = test_file_read(pieces, &m);
    assert_int_equal(n, m);
    assert_memory_equal(a, b, n);
    free(a);
    free(b);
    test_folder_free(folder);
}

static void a_writer_refuses_too_few_and_too_many_bytes(void **state)
{
    (void)state;
    mr_error err = {0};
    mr_safetensors_writer *writer = NULL;
    char *folder = test_folder_new();
    const char *path = test_path(folder, "out");

    assert_status(mr_safetensors_writer_open(&writer, path, to_write, 1, NULL, &err), MR_OK, &err);
    assert_status(mr_safetensors_writer_append(writer, weights, 20, &err), MR_OK, &err);
    assert_status(mr_safetensors_writer_append(writer, weights, 5, &err), MR_INVALID, &err);
    assert_contains(err.message, "25 bytes of data, the tensors have 24");
    assert_status(mr_safetensors_writer_commit(writer, &err), MR_INVALID, &err);
    assert_contains(err.message, "20 bytes of data, the tensors have 24");
    assert_false(mr_file_exists(path));

    assert_status(mr_safetensors_writer_open(&writer, path, to_write, 1, NULL, &err), MR_OK, &err);
    mr_safetensors_writer_abandon(writer);
    mr_safetensors_writer_abandon(NULL);
    assert_false(mr_file_exists(path));
    test_folder_free(folder);
}

static void impossible_tensors_are_not_written(void **state)
{
    (void)state;
    static const char *const bad_metadata[] = {"a", "\xff", NULL};
    static const struct {
        mr_tensor tensors[2];
        size_t n;
        const char *const *metadata;
        const char *message;
    } row[] = {
        {{{"a", weights, MR_DTYPE_F32, 1, {2}, 8}, {"a", weights, MR_DTYPE_F32, 1, {2}, 8}},
         2,
         NULL,
         "two tensors 'a'"},
        {{{"__metadata__", weights, MR_DTYPE_F32, 1, {2}, 8}}, 1, NULL, "'__metadata__'"},
        {{{"a", weights, MR_DTYPE_F32, 1, {3}, 8}}, 1, NULL, "holds 8 bytes, its shape needs 12"},
        {{{"a", weights, MR_DTYPE_F32, 1, {-3}, 8}}, 1, NULL, "impossible shape"},
        {{{"a", weights, MR_DTYPE_F32, 9, {1}, 8}}, 1, NULL, "impossible shape"},
        {{{"a", weights, MR_DTYPE_F32, 2, {INT64_MAX, INT64_MAX}, 8}}, 1, NULL, "impossible shape"},
        {{{"\xff", weights, MR_DTYPE_F32, 1, {2}, 8}}, 1, NULL, "not UTF-8"},
        {{{"a", weights, MR_DTYPE_F32, 1, {2}, 8}}, 1, bad_metadata, "not UTF-8"},
    };
    char *folder = test_folder_new();
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        mr_error err = {0};
        const char *path = test_path(folder, "out");
        assert_status(mr_safetensors_write(path, row[i].tensors, row[i].n, row[i].metadata, &err),
                      MR_INVALID, &err);
        assert_contains(err.message, row[i].message);
        assert_false(mr_file_exists(path));
    }
    mr_error err = {0};
    assert_status(
        mr_safetensors_write(test_path(folder, "no/where"), to_write, N_WRITTEN, NULL, &err),
        MR_NOT_FOUND, &err);
    test_folder_free(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_file_gives_its_tensors_by_name),
        cmocka_unit_test(every_dtype_is_known_by_its_size),
        cmocka_unit_test(a_file_without_tensors_is_fine),
        cmocka_unit_test(hostile_headers_are_refused_and_say_why),
        cmocka_unit_test(deep_nesting_is_refused),
        cmocka_unit_test(a_file_cut_at_any_length_is_refused),
        cmocka_unit_test(a_lying_header_length_is_refused),
        cmocka_unit_test(any_changed_byte_is_refused_or_stays_in_bounds),
        cmocka_unit_test(a_git_lfs_pointer_is_named_as_such),
        cmocka_unit_test(need_checks_presence_shape_and_dtype),
        cmocka_unit_test(a_long_shape_is_cut_and_not_overrun),
        cmocka_unit_test(what_is_written_reads_back_the_same),
        cmocka_unit_test(writing_piece_by_piece_gives_the_same_file),
        cmocka_unit_test(a_writer_refuses_too_few_and_too_many_bytes),
        cmocka_unit_test(impossible_tensors_are_not_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

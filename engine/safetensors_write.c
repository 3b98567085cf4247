/* safetensors_write.c - writing the format: all at once, or tensor by tensor.
 *
 * The header comes first and holds the offsets, so all names and shapes must be known at the start;
 * the data may then be produced in pieces of any size.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "engine/safetensors_private.h"

#define HEADER_ALIGN 8

struct mr_safetensors_writer {
    mr_file_writer file;
    size_t expected; /* bytes of data that the header promises */
    size_t written;
};

/* {"dtype", "shape", "data_offsets"} of a tensor at *at, which moves behind it. */
static mr_status describe(const mr_tensor *tensor, const char *path, size_t *at, json_t **out,
                          mr_error *err)
{
    size_t bytes, end;
    bool shape_is_fine = tensor->n_dims >= 0 && tensor->n_dims <= MR_TENSOR_MAX_DIMS;
    for (int d = 0; shape_is_fine && d < tensor->n_dims; d++)
        shape_is_fine = tensor->shape[d] >= 0;
    if (!shape_is_fine ||
        !mr_tensor_dense_bytes(tensor->dtype, tensor->n_dims, tensor->shape, &bytes) ||
        !mr_size_add(*at, bytes, &end) || end > INT64_MAX)
        return MR_FAIL(err, INVALID, "writing '%s': tensor '%.200s' has an impossible shape", path,
                       tensor->name);

    json_t *shape = json_array();
    for (int d = 0; shape && d < tensor->n_dims; d++) {
        if (json_array_append_new(shape, json_integer(tensor->shape[d])) != 0) {
            json_decref(shape);
            shape = NULL;
        }
    }
    *out = shape ? json_pack("{s:s, s:o, s:[I, I]}", "dtype", mr_dtype_name(tensor->dtype), "shape",
                             shape, "data_offsets", (json_int_t)*at, (json_int_t)end)
                 : NULL;
    if (!*out)
        return MR_FAIL(err, NO_MEMORY, "writing '%s': the header", path);
    *at = end;
    return MR_OK;
}

static mr_status add_metadata(json_t *root, const char *path, const char *const *metadata,
                              mr_error *err)
{
    if (!metadata || !metadata[0])
        return MR_OK;
    json_t *pairs = json_object();
    for (; pairs && metadata[0]; metadata += 2) {
        if (json_object_set_new(pairs, metadata[0], json_string(metadata[1])) != 0) {
            json_decref(pairs);
            return MR_FAIL(err, INVALID, "writing '%s': metadata '%.200s' is not UTF-8", path,
                           metadata[0]);
        }
    }
    if (json_object_set_new(root, "__metadata__", pairs) != 0)
        return MR_FAIL(err, NO_MEMORY, "writing '%s': the metadata", path);
    return MR_OK;
}

static mr_status build_header(const char *path, const mr_tensor *tensors, size_t n,
                              const char *const *metadata, char **text, size_t *data_bytes,
                              mr_error *err)
{
    size_t at = 0;
    json_t *root = json_object();
    if (!root)
        return MR_FAIL(err, NO_MEMORY, "writing '%s': the header", path);

    mr_status status = add_metadata(root, path, metadata, err);
    for (size_t i = 0; status == MR_OK && i < n; i++) {
        const char *name = tensors[i].name;
        json_t *entry = NULL;
        if (json_object_get(root, name) || strcmp(name, "__metadata__") == 0) {
            status =
                MR_FAIL(err, INVALID, "writing '%s': there are two tensors '%.200s'", path, name);
            break;
        }
        status = describe(&tensors[i], path, &at, &entry, err);
        if (status == MR_OK && json_object_set_new(root, name, entry) != 0)
            status = MR_FAIL(err, INVALID, "writing '%s': tensor name '%.200s' is not UTF-8", path,
                             name);
    }
    if (status == MR_OK) {
        *text = json_dumps(root, JSON_COMPACT);
        *data_bytes = at;
        if (!*text)
            status = MR_FAIL(err, NO_MEMORY, "writing '%s': the header", path);
    }
    json_decref(root);
    return status;
}

static mr_status put(mr_safetensors_writer *writer, const void *data, size_t len, mr_error *err)
{
    if (len && fwrite(data, 1, len, writer->file.stream) != len)
        return MR_FAIL(err, IO, "writing '%s': the disk is full or the file cannot be written",
                       writer->file.path);
    return MR_OK;
}

static mr_status put_header(mr_safetensors_writer *writer, const char *text, mr_error *err)
{
    static const char spaces[HEADER_ALIGN] = "        ";
    unsigned char length[SAFETENSORS_LENGTH_BYTES];
    const size_t len = strlen(text);
    const size_t padded = mr_size_round_up(len, HEADER_ALIGN);

    if (padded > MR_SAFETENSORS_MAX_HEADER)
        return MR_FAIL(err, INVALID, "writing '%s': the header would have %zu bytes, at most %zu",
                       writer->file.path, padded, MR_SAFETENSORS_MAX_HEADER);
    mr_store_u64le(length, padded);
    mr_status status = put(writer, length, sizeof length, err);
    if (status == MR_OK)
        status = put(writer, text, len, err);
    if (status == MR_OK)
        status = put(writer, spaces, padded - len, err);
    return status;
}

mr_status mr_safetensors_writer_open(mr_safetensors_writer **out, const char *path,
                                     const mr_tensor *tensors, size_t n,
                                     const char *const *metadata, mr_error *err)
{
    char *text = NULL;
    mr_safetensors_writer *writer = calloc(1, sizeof *writer);
    if (!writer)
        return MR_FAIL(err, NO_MEMORY, "writing '%s'", path);

    mr_status status = build_header(path, tensors, n, metadata, &text, &writer->expected, err);
    if (status != MR_OK)
        goto out;

    status = mr_file_writer_open(&writer->file, path, err);
    if (status != MR_OK)
        goto out;

    status = put_header(writer, text, err);
    if (status != MR_OK) {
        mr_file_writer_abandon(&writer->file);
        goto out;
    }
    *out = writer;
    writer = NULL;

out:
    free(writer);
    free(text);
    return status;
}

mr_status mr_safetensors_writer_append(mr_safetensors_writer *writer, const void *data, size_t len,
                                       mr_error *err)
{
    if (len > writer->expected - writer->written)
        return MR_FAIL(err, INVALID, "writing '%s': %zu bytes of data, the tensors have %zu",
                       writer->file.path, writer->written + len, writer->expected);
    mr_status status = put(writer, data, len, err);
    if (status == MR_OK)
        writer->written += len;
    return status;
}

mr_status mr_safetensors_writer_commit(mr_safetensors_writer *writer, mr_error *err)
{
    mr_status status;
    if (writer->written != writer->expected) {
        status = MR_FAIL(err, INVALID, "writing '%s': %zu bytes of data, the tensors have %zu",
                         writer->file.path, writer->written, writer->expected);
        mr_file_writer_abandon(&writer->file);
    } else {
        status = mr_file_writer_commit(&writer->file, err);
    }
    free(writer);
    return status;
}

void mr_safetensors_writer_abandon(mr_safetensors_writer *writer)
{
    if (!writer)
        return;
    mr_file_writer_abandon(&writer->file);
    free(writer);
}

mr_status mr_safetensors_write(const char *path, const mr_tensor *tensors, size_t n,
                               const char *const *metadata, mr_error *err)
{
    mr_safetensors_writer *writer = NULL;

    mr_status status = mr_safetensors_writer_open(&writer, path, tensors, n, metadata, err);
    for (size_t i = 0; status == MR_OK && i < n; i++) {
        size_t bytes;
        mr_tensor_dense_bytes(tensors[i].dtype, tensors[i].n_dims, tensors[i].shape, &bytes);
        if (bytes != tensors[i].bytes)
            status = MR_FAIL(err, INVALID,
                             "writing '%s': tensor '%.200s' holds %zu bytes, its shape needs %zu",
                             path, tensors[i].name, tensors[i].bytes, bytes);
        else
            status = mr_safetensors_writer_append(writer, tensors[i].data, bytes, err);
    }
    if (status == MR_OK)
        return mr_safetensors_writer_commit(writer, err);
    mr_safetensors_writer_abandon(writer);
    return status;
}

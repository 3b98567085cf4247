/* fuzz_config.c - a model folder with any config.json, or any index of shards: an error, or a model
 * whose dimensions the layout and the rotation can take.
 *
 * Input: one JSON text, tried as both. The weights beside it, made once, are of a config.json of 2
 * layers that the corpus has; the two shards hold one tensor each.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/utf8.h"
#include "engine/model.h"
#include "engine/model_layout.h"
#include "engine/untrained.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support.h"

#define INDEX_NAME     "model.safetensors.index.json"
#define MAX_TRIED      64         /* layers whose layout is listed */
#define MOST_HALF_HEAD (1024 / 2) /* engine/model_config.c */

static char *model_folder, *shards_folder;

static void require(int condition)
{
    if (!condition)
        abort();
}

static void remove_folders(void)
{
    test_folder_free(model_folder);
    test_folder_free(shards_folder);
}

static void make_folders(void)
{
    static const mr_model_config config = {.family = MR_FAMILY_LLAMA,
                                           .L = 2,
                                           .C = 8,
                                           .H = 2,
                                           .K = 1,
                                           .D = 4,
                                           .F = 12,
                                           .V = 20,
                                           .tied = true,
                                           .rms_eps = 1e-6f,
                                           .max_positions = 64,
                                           .rope_theta = 1e4,
                                           .rope_factor = 1,
                                           .rope_low = 1,
                                           .rope_high = 1,
                                           .bos_id = 1,
                                           .eos_id = 2};
    static const float values[2] = {1, 2};
    static const mr_tensor a = {"a", values, MR_DTYPE_F32, 1, {2}, sizeof values};
    static const mr_tensor b = {"b", values, MR_DTYPE_F32, 1, {2}, sizeof values};
    mr_error err = {0};
    model_folder = test_folder_new();
    shards_folder = test_folder_new();
    atexit(remove_folders);
    if (mr_untrained_write(model_folder, &config, &MR_UNTRAINED_OPTIONS_DEFAULT, &err) != MR_OK ||
        mr_safetensors_write(test_path(shards_folder, "one.safetensors"), &a, 1, NULL, &err) !=
            MR_OK ||
        mr_safetensors_write(test_path(shards_folder, "two.safetensors"), &b, 1, NULL, &err) !=
            MR_OK)
        fail_msg("%s", err.message);
}

static void check_failure(mr_status status, const mr_error *err)
{
    require(err->status == status && err->message[0] != '\0');
    require(mr_utf8_valid_prefix(err->message, strlen(err->message)) == strlen(err->message));
}

static void look_at_config(const mr_model_config *config)
{
    require(config->L > 0 && config->C > 0 && config->F > 0 && config->V > 0);
    require(config->K > 0 && config->H % config->K == 0 && config->D > 0 && config->D % 2 == 0);
    require(config->D / 2 <= MOST_HALF_HEAD && config->max_positions > 0);
    require(config->bos_id >= -1 && config->eos_id >= -1);

    double inverse[MOST_HALF_HEAD];
    mr_rope_frequencies(config, inverse);
    for (int i = 0; i < config->D / 2; i++)
        require(isfinite(inverse[i]) && inverse[i] >= 0);

    if (config->L <= MAX_TRIED) {
        mr_arena arena = {0};
        mr_tensor *tensors = NULL;
        size_t n = 0;
        require(mr_model_layout(config, MR_DTYPE_BF16, &arena, &tensors, &n, NULL) == MR_OK);
        for (size_t i = 0; i < n; i++)
            require(tensors[i].bytes > 0 && tensors[i].shape[0] > 0);
        mr_arena_done(&arena);
    }
}

/* What is written of a configuration reads as the same one. */
static void write_and_read(const mr_model_config *config)
{
    json_t *root = mr_model_config_to_json(config);
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    json_t *read = NULL;
    mr_model_config again = {0};
    mr_error err = {0};
    require(text != NULL);
    require(mr_json_parse(&read, "again", mr_str_of(text), &err) == MR_OK);
    if (mr_model_config_parse(&again, "again", read, &err) != MR_OK)
        fail_msg("%s from %s", err.message, text);
    json_t *second = mr_model_config_to_json(&again);
    if (!json_equal(root, second))
        fail_msg("what was written reads as another: %s", text);
    json_decref(second);
    json_decref(read);
    free(text);
    json_decref(root);
}

static void try_config(const uint8_t *data, size_t size)
{
    const char *path = test_path(model_folder, "config.json");
    test_file_write(path, data, size);
    mr_model_config config;
    mr_error err = {0};
    mr_status status = mr_model_config_load(&config, path, &err);
    if (status != MR_OK) {
        check_failure(status, &err);
    } else {
        look_at_config(&config);
        write_and_read(&config);
    }

    mr_model *model = NULL;
    const mr_model_options opt = MR_MODEL_OPTIONS_DEFAULT;
    mr_error second = {0};
    mr_status opened = mr_model_open(&model, model_folder, &opt, &second);
    if (opened != MR_OK) {
        require(!model);
        check_failure(opened, &second);
    } else {
        require(status == MR_OK && mr_model_is_untrained(model));
    }
    mr_model_close(model);
}

static void try_index(const uint8_t *data, size_t size)
{
    const char *path = test_path(shards_folder, INDEX_NAME);
    test_file_write(path, data, size);
    mr_safetensors *file = NULL;
    mr_error err = {0};
    mr_status status = mr_safetensors_open(&file, path, &err);
    if (status != MR_OK) {
        require(!file);
        check_failure(status, &err);
        return;
    }
    require(mr_safetensors_count(file) <= 2); /* the shards hold no more */
    for (size_t i = 0; i < mr_safetensors_count(file); i++) {
        const mr_tensor *tensor = mr_safetensors_at(file, i);
        require(mr_safetensors_find(file, tensor->name) == tensor);
        require(tensor->bytes == 2 * sizeof(float) && mr_load_f32le(tensor->data) == 1.0f);
    }
    mr_safetensors_close(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!model_folder)
        make_folders();
    try_config(data, size);
    try_index(data, size);
    return 0;
}

/* user_config.c - see user_config.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "encoders/user_config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODEL_TYPE       "mixrank_user"
#define MAX_WIDTH        16384
#define MAX_HEADS        256
#define MAX_HEAD_SIZE    1024
#define MAX_FEED_FORWARD 65536
#define MAX_LAYERS       64
#define MAX_CROSS_LAYERS 8

static const char *const position_names[MR_USER_POSITIONS_COUNT] = {"none", "sinusoid", "learned"};

static mr_user_positions read_positions(mr_json_cursor *cur)
{
    const char *name = mr_json_string(cur, "position_embedding", position_names[0], false);
    if (cur->status != MR_OK)
        return MR_USER_POSITIONS_NONE;
    for (int i = 0; i < MR_USER_POSITIONS_COUNT; i++)
        if (strcmp(name, position_names[i]) == 0)
            return (mr_user_positions)i;
    cur->status = MR_FAIL(cur->err, UNSUPPORTED,
                          "%s: 'position_embedding' is '%.60s'; known are none (the history is a "
                          "set), sinusoid and learned",
                          cur->name, name);
    return MR_USER_POSITIONS_NONE;
}

static size_t read_size(mr_json_cursor *cur, const char *key, int64_t min, int64_t max,
                        int64_t fallback)
{
    return (size_t)mr_json_int(cur, key, min, max, fallback);
}

mr_status mr_user_config_parse(mr_user_config *out, const char *name, const json_t *root,
                               mr_error *err)
{
    static const char *const known[] = {"model_type",
                                        "item_dim",
                                        "hidden_size",
                                        "num_latents",
                                        "num_hidden_layers",
                                        "num_cross_layers",
                                        "num_attention_heads",
                                        "num_key_value_heads",
                                        "head_dim",
                                        "intermediate_size",
                                        "max_history",
                                        "position_embedding",
                                        "rms_norm_eps",
                                        NULL};
    mr_json_cursor cur = mr_json_cursor_of(name, root, err);
    const char *type = mr_json_string(&cur, "model_type", NULL, true);
    if (cur.status == MR_OK && strcmp(type, MODEL_TYPE) != 0)
        return MR_FAIL(err, UNSUPPORTED,
                       "%s: 'model_type' is '%.60s', expected '" MODEL_TYPE
                       "': no folder of a user encoder",
                       name, type);
    mr_json_only(&cur, known);
    mr_user_config c = {0};
    c.item_dim = read_size(&cur, "item_dim", 1, MAX_WIDTH, MR_JSON_REQUIRED);
    c.C = read_size(&cur, "hidden_size", 1, MAX_WIDTH, MR_JSON_REQUIRED);
    c.latents = read_size(&cur, "num_latents", 1, MR_USER_MAX_LATENTS, MR_JSON_REQUIRED);
    c.layers = read_size(&cur, "num_hidden_layers", 0, MAX_LAYERS, MR_JSON_REQUIRED);
    c.cross_layers = read_size(&cur, "num_cross_layers", 1, MAX_CROSS_LAYERS, 1);
    c.H = read_size(&cur, "num_attention_heads", 1, MAX_HEADS, MR_JSON_REQUIRED);
    if (cur.status != MR_OK)
        return cur.status;
    c.K = read_size(&cur, "num_key_value_heads", 1, MAX_HEADS, (int64_t)c.H);
    c.D = read_size(&cur, "head_dim", 1, MAX_HEAD_SIZE, 0);
    c.F = read_size(&cur, "intermediate_size", 1, MAX_FEED_FORWARD, MR_JSON_REQUIRED);
    c.max_history = read_size(&cur, "max_history", 1, MR_USER_MAX_HISTORY, MR_JSON_REQUIRED);
    c.positions = read_positions(&cur);
    c.eps = (float)mr_json_real(&cur, "rms_norm_eps", 0, 1, 1e-6);
    if (cur.status != MR_OK)
        return cur.status;
    if (c.D == 0 && (c.C % c.H != 0 || c.C / c.H > MAX_HEAD_SIZE))
        return MR_FAIL(err, INVALID,
                       "%s: 'hidden_size' %zu over 'num_attention_heads' %zu gives no head size "
                       "of 1 to %d; set 'head_dim'",
                       name, c.C, c.H, MAX_HEAD_SIZE);
    if (c.D == 0)
        c.D = c.C / c.H;
    if (c.H % c.K != 0)
        return MR_FAIL(err, INVALID,
                       "%s: 'num_attention_heads' %zu is not a multiple of 'num_key_value_heads' "
                       "%zu",
                       name, c.H, c.K);
    *out = c;
    return MR_OK;
}

mr_status mr_user_config_load(mr_user_config *out, const char *path, mr_error *err)
{
    json_t *root = NULL;
    mr_status status = mr_json_load_file(&root, path, MR_JSON_MAX_CONFIG, err);
    if (status == MR_OK)
        status = mr_user_config_parse(out, path, root, err);
    json_decref(root);
    return status;
}

json_t *mr_user_config_to_json(const mr_user_config *config)
{
    const mr_user_config *c = config;
    json_t *root =
        json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s}", "model_type",
                  MODEL_TYPE, "item_dim", (json_int_t)c->item_dim, "hidden_size", (json_int_t)c->C,
                  "num_latents", (json_int_t)c->latents, "num_hidden_layers", (json_int_t)c->layers,
                  "num_cross_layers", (json_int_t)c->cross_layers, "num_attention_heads",
                  (json_int_t)c->H, "num_key_value_heads", (json_int_t)c->K, "head_dim",
                  (json_int_t)c->D, "intermediate_size", (json_int_t)c->F, "max_history",
                  (json_int_t)c->max_history, "position_embedding", position_names[c->positions]);
    /* As the decimal that was meant, not the double next to the float. */
    char eps[32];
    snprintf(eps, sizeof eps, "%.7g", (double)c->eps);
    if (root && json_object_set_new(root, "rms_norm_eps", json_real(strtod(eps, NULL))) != 0) {
        json_decref(root);
        root = NULL;
    }
    return root;
}

mr_status mr_user_config_save(const mr_user_config *config, const char *path, mr_error *err)
{
    mr_user_config read;
    if ((unsigned)config->positions >= MR_USER_POSITIONS_COUNT)
        return MR_FAIL(err, INVALID, "%s: unknown positions %d", path, (int)config->positions);
    json_t *root = mr_user_config_to_json(config);
    mr_status status = root ? mr_user_config_parse(&read, path, root, err)
                            : MR_FAIL(err, NO_MEMORY, "%s: the configuration", path);
    if (status == MR_OK)
        status = mr_json_save_file(root, path, err);
    json_decref(root);
    return status;
}

void mr_user_sinusoid(size_t position, size_t C, double *out)
{
    for (size_t i = 0; i < C; i++) {
        const double angle = (double)position / pow(10000.0, (double)(i / 2 * 2) / (double)C);
        out[i] = i % 2 == 0 ? sin(angle) : cos(angle);
    }
}

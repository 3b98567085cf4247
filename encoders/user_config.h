/* user_config.h - config.json of a user encoder: its shape, for serving and for training.
 *
 *     {"model_type": "mixrank_user", "item_dim": 192, "hidden_size": 192, "num_latents": 4,
 *      "num_hidden_layers": 1, "num_cross_layers": 1, "num_attention_heads": 3,
 *      "intermediate_size": 512, "max_history": 64, "position_embedding": "none"}
 *
 * The folder is ours alone, so a key that is not known is refused. num_key_value_heads is by
 * default num_attention_heads, head_dim is hidden_size / num_attention_heads, rms_norm_eps 1e-6.
 * Threads: pure.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENCODERS_USER_CONFIG_H
#define MR_ENCODERS_USER_CONFIG_H

#include <stddef.h>

#include "core/error.h"
#include "core/json.h"

#define MR_USER_MAX_LATENTS 256  /* as many tokens as a bundle's user may have */
#define MR_USER_MAX_HISTORY 1024 /* vectors, as in one record */

typedef enum {
    MR_USER_POSITIONS_NONE,     /* the history is a set */
    MR_USER_POSITIONS_SINUSOID, /* fixed: sin and cos by turns, base 10000 */
    MR_USER_POSITIONS_LEARNED,
    MR_USER_POSITIONS_COUNT
} mr_user_positions;

/* Letters as everywhere: C width, H heads, K kv heads, D head size, F feed-forward width. */
typedef struct {
    size_t item_dim; /* of a history vector */
    size_t C, H, K, D, F;
    size_t layers;       /* blocks of self-attention over the history: 0 to 64 */
    size_t cross_layers; /* in which latents look at the history: 1 to 8 */
    size_t latents;      /* tokens that stand for the user */
    size_t max_history;  /* most history vectors */
    mr_user_positions positions;
    float eps;
} mr_user_config;

/* Reads and checks config.json; parse does so for one that is read already, name is for messages.
 */
MR_NODISCARD mr_status mr_user_config_load(mr_user_config *out, const char *path, mr_error *err);
MR_NODISCARD mr_status mr_user_config_parse(mr_user_config *out, const char *name,
                                            const json_t *root, mr_error *err);
/* What config.json says; the caller owns it, NULL when memory is out. */
json_t *mr_user_config_to_json(const mr_user_config *config);
/* Writes config.json in one step. INVALID, naming the key, for a shape that load would refuse. */
MR_NODISCARD mr_status mr_user_config_save(const mr_user_config *config, const char *path,
                                           mr_error *err);

/* The fixed position of a row: out [C]; position 0 is the newest item. */
void mr_user_sinusoid(size_t position, size_t C, double *out);

#endif

/* parts.h - what is inside an open bundle. For ranker/model, the pipeline, training and the
 * commands; not installed.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_MODEL_PARTS_H
#define MR_RANKER_MODEL_PARTS_H

#include "core/arena.h"
#include "core/json.h"
#include "core/threads.h"
#include "encoders/history.h"
#include "encoders/image_encoder.h"
#include "encoders/projector.h"
#include "encoders/template.h"
#include "encoders/text_encoder.h"
#include "encoders/user_encoder.h"
#include "engine/model.h"
#include "engine/tokenizer.h"
#include "ranker/model/bundle.h"

/* What a bundle.json means that leaves them out: for serving, and for training, which reads the
 * same file. */
#define MR_BUNDLE_MAX_LENGTH     2048
#define MR_BUNDLE_ITEM_TOKENS    1
#define MR_BUNDLE_ITEM_LENGTH    512
#define MR_BUNDLE_APPEND_EOS     true
#define MR_BUNDLE_HISTORY_TOKENS 16
#define MR_BUNDLE_HISTORY_ORDER  "set"
#define MR_BUNDLE_HISTORY_MOST   256 /* items that may stand for a user */

typedef enum {
    MR_ENCODER_NONE,
    MR_ENCODER_CAUSAL_LAST_N,
    MR_ENCODER_EXTERNAL,
    MR_ENCODER_HISTORY,
    MR_ENCODER_CLIP
} mr_encoder_kind;

/* One entry of "encoders", checked. Strings and JSON are borrowed from the bundle. */
typedef struct {
    mr_encoder_kind kind;
    const char *path;       /* folder relative to the bundle; causal_last_n, clip; history: NULL
                             * where item vectors are the tokens */
    const json_t *text;     /* template; causal_last_n */
    int tokens;             /* most embedding tokens that it gives */
    int max_tokens;         /* causal_last_n */
    bool append_eos;        /* causal_last_n */
    mr_history_order order; /* history */
    int items;              /* history: most that stand for a user */
    int feature_layer;      /* clip */
    const char *name;       /* external */
    bool normalised;        /* external */
    size_t dim;             /* width of its vectors */
    uint64_t space;
} mr_encoder_spec;

struct mr_bundle {
    mr_arena arena; /* strings of the bundle's life */
    char *folder;
    json_t *root; /* bundle.json */
    const char *name, *version;
    bool mixed;
    bool untrained;

    mr_pool *pool;
    mr_model *llm;
    mr_tokenizer *tokenizer;
    mr_template *prefix, *suffix;
    size_t max_length; /* tokens of prefix + suffix together */

    int32_t yes_id, no_id;
    double temperature, bias;

    mr_encoder_spec item, user, image;
    mr_projector *image_projector;
    mr_projector *item_projector,
        *user_projector; /* user_projector may be the item's: see borrowed */
    bool user_projector_borrowed;
    const char *defaults_instruction; /* field "instruction" when a request has none; or NULL */
    char numerics_id[96];
};

/* Loads without the golden requests. */
MR_NODISCARD mr_status mr_bundle_load(mr_bundle **out, const char *folder, int threads,
                                      mr_error *err);

/* Opens the bundle's item text encoder; MISMATCH when its item vectors come from outside. */
MR_NODISCARD mr_status mr_bundle_open_item_encoder(const mr_bundle *bundle, mr_gemm_kind gemm,
                                                   size_t batch_tokens, mr_text_encoder **out,
                                                   mr_error *err);

/* Opens the bundle's image encoder; MISMATCH when it has none or its vectors come from outside. */
MR_NODISCARD mr_status mr_bundle_open_image_encoder(const mr_bundle *bundle, mr_gemm_kind gemm,
                                                    size_t batch, mr_image_encoder **out,
                                                    mr_error *err);

/* Opens the bundle's user encoder; MISMATCH when its users are not made by one. */
MR_NODISCARD mr_status mr_bundle_open_user_encoder(const mr_bundle *bundle, mr_user_encoder **out,
                                                   mr_error *err);

/* Most embedding tokens that a user may have. */
size_t mr_bundle_user_tokens(const mr_bundle *bundle);

/* What the space of "item", "user" or "image" is the hash of (encoders/space.h), from a sealed
 * bundle.json. The caller owns the result; NULL on failure. */
json_t *mr_bundle_space_description(const json_t *root, const char *encoder, mr_error *err);

/* The margin at a suffix's last row, [C] after the final norm: logit(yes) - logit(no). */
double mr_bundle_margin(const mr_bundle *bundle, const float *hidden);
/* The score of a margin: sigmoid(margin / temperature + bias). */
double mr_bundle_score(const mr_bundle *bundle, double margin);

#endif
